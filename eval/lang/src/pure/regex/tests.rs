use proptest::prelude::*;

use super::*;
use crate::pure::oracle;

fn lengths(captures: &Captures) -> String {
    let length = |group: &Option<(usize, usize)>| match group {
        Some((start, end)) => (end - start).to_string(),
        None => "null".to_owned(),
    };
    let lengths: Vec<String> = captures.groups.iter().map(length).collect();
    format!("[{}]", lengths.join(","))
}

fn split_lengths<'m>(
    matches: impl Iterator<Item = Result<Captures, RegexError>> + 'm,
    text: &[u8],
) -> String {
    let mut parts = Vec::new();
    let mut last = 0;
    for captures in matches {
        let captures = captures.unwrap();
        parts.push((captures.span.0 - last).to_string());
        parts.push(lengths(&captures));
        last = captures.span.1;
    }
    parts.push((text.len() - last).to_string());
    format!("[{}]", parts.join(","))
}

/// Every recorded answer of Nix, errors included.
#[test]
fn answers_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/regex.tsv"));
    assert!(cases.len() > 900, "the table is whole");
    for case in cases {
        let name = String::from_utf8_lossy(&case[0]).into_owned();
        match case.as_slice() {
            [pattern, error] => {
                let found = Regex::new(pattern).map(|_| ()).unwrap_err();
                assert_eq!(found.to_string().as_bytes(), error, "{name}");
            }
            [pattern, text, whole, pieces] => {
                let regex = Regex::new(pattern).unwrap_or_else(|error| panic!("{name}: {error}"));
                let found = regex.match_whole(text).unwrap();
                let found = found.as_ref().map_or("null".to_owned(), lengths);
                assert_eq!(found.as_bytes(), whole, "match {name}");
                assert_eq!(
                    split_lengths(regex.matches(text), text).as_bytes(),
                    pieces,
                    "split {name}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a thread-safe cache needs of its entries.
#[test]
fn regex_is_send_and_sync() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Regex>();
}

/// Patterns on which backtracking engines explode, and libstdc++ overflows its stack, take linear time here.
#[test]
fn no_pattern_explodes() {
    let text = vec![b'a'; 20_000];
    for pattern in ["(a*)*b", "(a|a)*b", "(a+)+b", "((a?)*|b)*c", "(a|aa)*c", "(.*)*x"] {
        let regex = Regex::new(pattern.as_bytes()).unwrap();
        assert_eq!(regex.match_whole(&text).unwrap(), None, "{pattern}");
    }
    let regex = Regex::new(b"(a|aa)+").unwrap();
    let found: Vec<_> = regex.matches(&text).collect::<Result<_, _>>().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].span, (0, text.len()));
}

/// Searching is linear too where every byte gives an empty match and the table of known points is not a plain one.
#[test]
fn many_empty_matches_are_cheap() {
    let text = vec![b'c'; 600_000];
    for pattern in ["(a*|b)*", "(a|ab|)"] {
        let regex = Regex::new(pattern.as_bytes()).unwrap();
        assert!(!regex.facts.plain_search);
        assert_eq!(regex.matches(&text).count(), text.len() + 1, "{pattern}");
    }
}

/// Depth is the sender's choice: neither groups nor stacked quantifiers use the thread's stack.
#[test]
fn deep_patterns_do_not_recurse() {
    let depth = 20_000;
    let groups = [vec![b'('; depth], b"a".to_vec(), vec![b')'; depth]].concat();
    let regex = Regex::new(&groups).unwrap();
    let found = regex.match_whole(b"a").unwrap().unwrap();
    assert_eq!(found.groups, vec![Some((0, 1)); depth]);
    let stars = |count| Regex::new(&[b"a".to_vec(), vec![b'*'; count]].concat()).unwrap();
    assert!(stars(300).match_whole(b"aaa").unwrap().is_some());
    assert_eq!(stars(50_000).match_whole(b"aaa"), Err(RegexError::TooLarge));
    let unclosed = vec![b'('; 90_000];
    assert_eq!(
        Regex::new(&unclosed).map(|_| ()).unwrap_err(),
        RegexError::Invalid
    );
    let braces = [b"a".to_vec(), b"{1}".repeat(60_000)].concat();
    assert_eq!(Regex::new(&braces).map(|_| ()).unwrap_err(), RegexError::TooLarge);
}

fn pattern() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec!["a", "b", "c", ".", "[ab]", "[^a]", "^", "$", "()"])
        .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let quantifier = prop::sample::select(vec!["*", "+", "?", "{2}", "{1,2}", "{0,2}", "{1,}", "{0}"]);
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}{b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}|{b})")),
            (inner, quantifier).prop_map(|(a, q)| format!("({a}){q}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Where a fast engine is chosen, it answers as the exact automaton does.
    #[test]
    fn engines_agree(pattern in pattern(), text in "[abc]{0,8}") {
        let regex = Regex::new(pattern.as_bytes()).unwrap();
        let text = text.as_bytes();
        let exact = Search::new(&regex.nfa, text, Goal::Whole).at(0, regex.group_count());
        let whole = regex.match_whole(text);
        if regex.group_count() == 0 {
            prop_assert_eq!(whole.unwrap().is_some(), exact.unwrap().is_some());
        } else {
            prop_assert_eq!(whole, exact);
        }
        let slow = Matches {
            regex: &regex,
            text,
            engine: None,
            exact: Some(Search::new(&regex.nfa, text, Goal::Prefix)),
            next: Next::From(0),
        };
        let slow: Vec<_> = slow.collect();
        prop_assert_eq!(regex.matches(text).collect::<Vec<_>>(), slow);
    }

    /// Any bytes are either a pattern or a typed error, and a pattern answers any text.
    #[test]
    fn any_bytes_are_handled(pattern in prop::collection::vec(any::<u8>(), 0..12), text in prop::collection::vec(any::<u8>(), 0..12)) {
        if let Ok(regex) = Regex::new(&pattern) {
            let _ = regex.match_whole(&text).unwrap();
            let mut last = 0;
            for found in regex.matches(&text) {
                let found = found.unwrap();
                prop_assert!(last <= found.span.0 && found.span.0 <= found.span.1 && found.span.1 <= text.len());
                last = found.span.1;
            }
        }
    }
}
