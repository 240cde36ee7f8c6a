use proptest::prelude::*;

use super::*;
use crate::pure::{float_format, json, oracle};

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    json::write_string(&mut out, text.as_bytes()).unwrap();
    String::from_utf8(out).unwrap()
}

/// The value as `toJSON (fromTOML …)` shows it. Recurses: for texts of modest depth.
fn print(document: &Document, id: ValueId) -> String {
    let all = |parts: Vec<String>| parts.join(",");
    match document.get(id).unwrap() {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => float_format::print_json(*value),
        Value::String(text) => quoted(text),
        Value::Timestamp(text) => format!(r#"{{"_type":"timestamp","value":{}}}"#, quoted(text)),
        Value::Array(items) => format!(
            "[{}]",
            all(items.iter().map(|&item| print(document, item)).collect())
        ),
        Value::Table(members) => {
            let member =
                |(name, &value): (&String, &ValueId)| format!("{}:{}", quoted(name), print(document, value));
            format!("{{{}}}", all(members.iter().map(member).collect()))
        }
    }
}

fn read(text: &[u8]) -> Result<String, ParseTomlError> {
    let document = Document::parse(text, Timestamps::Accept)?;
    Ok(print(&document, document.root()))
}

/// Every recorded text: the same ones are refused, the others give the same values. Messages begin as Nix's in all
/// but a few cases, in which toml11 guesses at another kind of value first.
#[test]
fn reads_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/toml.tsv"));
    assert!(cases.len() > 550, "the table is whole");
    let (mut errors, mut other_words) = (0, Vec::new());
    for case in cases {
        let name = case[0].escape_ascii().to_string();
        match read(&case[0]) {
            Ok(found) => assert_eq!(
                (b"ok".as_slice(), found.as_bytes()),
                (&case[1][..], &case[2][..]),
                "{name}"
            ),
            Err(error) => {
                assert_eq!(case[1], b"err", "{name}: {error}");
                errors += 1;
                let nul = matches!(error, ParseTomlError::NulByte { .. });
                if !nul && !error.to_string().as_bytes().starts_with(&case[2]) {
                    other_words.push(name);
                }
            }
        }
    }
    assert!(
        other_words.len() * 20 < errors,
        "{} of {errors}: {other_words:?}",
        other_words.len()
    );
}

/// Dates need the feature; syntax errors come before that.
#[test]
fn timestamps_need_the_feature() {
    let parse = |text: &str| Document::parse(text.as_bytes(), Timestamps::Refuse).map(|_| ());
    assert_eq!(parse("a = 1979-05-27"), Err(ParseTomlError::Timestamp));
    assert_eq!(
        ParseTomlError::Timestamp.to_string(),
        "while parsing TOML: Dates and times are not supported"
    );
    assert!(matches!(
        parse("a = 1979-05-27\nb"),
        Err(ParseTomlError::Syntax { line: 2, .. })
    ));
    assert_eq!(parse("a = '1979-05-27'"), Ok(()));
}

/// NUL has no place in a Nix string, and Nix says which string it was.
#[test]
fn nul_is_refused() {
    let error = Document::parse(br#"a = "x\u0000y""#, Timestamps::Refuse).unwrap_err();
    let message = "while parsing TOML: error: input string 'x␀y' cannot be represented as Nix string because it contains null bytes";
    assert_eq!(error.to_string(), message);
    assert!(matches!(
        Document::parse(br#""\u0000" = 1"#, Timestamps::Refuse),
        Err(ParseTomlError::NulByte { .. })
    ));
}

/// Ill-formed UTF-8 is an error wherever it stands.
#[test]
fn bytes_must_be_utf8() {
    for text in [
        &b"a = \"\xFF\""[..],
        b"a = '\xC3'",
        b"# \xFF",
        b"\"\xFF\" = 1",
        b"a = '''\xED\xA0\x80'''",
        b"\xFF = 1",
    ] {
        let result = Document::parse(text, Timestamps::Accept);
        assert!(
            matches!(result, Err(ParseTomlError::Syntax { .. })),
            "{}",
            text.escape_ascii()
        );
    }
}

/// Depth is the sender's choice: reading and dropping use no stack.
#[test]
fn deep_documents_do_not_recurse() {
    let depth = 300_000;
    let arrays = [b"a=".to_vec(), vec![b'['; depth], vec![b']'; depth]].concat();
    assert_eq!(
        Document::parse(&arrays, Timestamps::Accept).unwrap().values.len(),
        depth + 1
    );
    let tables = [
        b"a=".to_vec(),
        b"{a=".repeat(depth),
        b"1".to_vec(),
        vec![b'}'; depth],
    ]
    .concat();
    assert_eq!(
        Document::parse(&tables, Timestamps::Accept).unwrap().values.len(),
        depth + 2
    );
    let key = [b"a.".repeat(depth), b"a=1".to_vec()].concat();
    assert_eq!(
        Document::parse(&key, Timestamps::Accept).unwrap().values.len(),
        depth + 2
    );
}

proptest! {
    /// Any bytes are a document or one error with a place in the text.
    #[test]
    fn any_bytes_are_handled(text in prop::collection::vec(prop::sample::select(b"ab=.[]{},\"'\\#\n\r 019-:TZex_+\xC3\xA9u".to_vec()), 0..30)) {
        if let Err(ParseTomlError::Syntax { line, column, .. }) = Document::parse(&text, Timestamps::Accept) {
            prop_assert!(line >= 1 && line <= text.iter().filter(|&&b| b == b'\n').count() + 1);
            prop_assert!(column >= 1 && column <= text.len() + 1);
        }
    }

    /// Strings and integers survive being written and read.
    #[test]
    fn scalars_round_trip(number in any::<i64>(), text in "[ -~é☃]{0,8}") {
        let written = format!("n = {number}\ns = {}", quoted(&text));
        prop_assert_eq!(read(written.as_bytes()).unwrap(), format!(r#"{{"n":{number},"s":{}}}"#, quoted(&text)));
    }
}
