use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::pure::oracle;

fn replace(text: &[u8], from: &[&[u8]], to: &[&[u8]]) -> Vec<u8> {
    let Ok(out) = replace_strings(text, from, |index| Ok::<_, Infallible>(to[index]));
    out
}

/// Every recorded replacement: text, then patterns and replacements in turn, then the answer.
#[test]
fn replaces_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/replace.tsv"));
    assert!(cases.len() > 150, "the table is whole");
    for case in cases {
        let pairs = &case[1..case.len() - 1];
        let from: Vec<&[u8]> = pairs.iter().step_by(2).map(Vec::as_slice).collect();
        let to: Vec<&[u8]> = pairs.iter().skip(1).step_by(2).map(Vec::as_slice).collect();
        assert_eq!(replace(&case[0], &from, &to), case[case.len() - 1], "{case:?}");
    }
}

/// Every recorded substring: text, start, length, answer.
#[test]
fn substrings_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/substring.tsv"));
    assert!(cases.len() > 60, "the table is whole");
    for case in cases {
        let number = |index: usize| std::str::from_utf8(&case[index]).unwrap().parse::<i64>().unwrap();
        let found = match substring(&case[0], number(1), number(2)) {
            Ok(text) => text.to_vec(),
            Err(error) => error.to_string().into_bytes(),
        };
        assert_eq!(found, case[3], "{case:?}");
    }
}

/// Every recorded name and string: text, as a string, as an attribute's name.
#[test]
fn prints_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/print.tsv"));
    assert!(cases.len() > 40, "the table is whole");
    for case in cases {
        let (mut string, mut name) = (Vec::new(), Vec::new());
        print_string(&mut string, &case[0]);
        print_attribute_name(&mut name, &case[0]);
        assert_eq!((string, name), (case[1].clone(), case[2].clone()));
    }
}

/// A replacement is asked for when first needed, once, and its error ends the work.
#[test]
fn replacements_are_lazy() {
    let mut asked = Vec::new();
    let out = replace_strings(b"aXbXa", &[b"X", b"unused"], |index| {
        asked.push(index);
        Ok::<_, Infallible>("-")
    });
    assert_eq!((out, asked), (Ok(b"a-b-a".to_vec()), vec![0]));
    let out = replace_strings(b"abc", &[b"b"], |_| Err::<&[u8], _>("no"));
    assert_eq!(out, Err("no"));
}

/// What replacing means, byte by byte and pattern by pattern.
fn model(text: &[u8], from: &[Vec<u8>], to: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut position = 0;
    while position <= text.len() {
        let found = from
            .iter()
            .position(|pattern| text[position..].starts_with(pattern));
        if let Some(index) = found {
            out.extend_from_slice(&to[index]);
        }
        match found {
            Some(index) if !from[index].is_empty() => position += from[index].len(),
            _ => {
                out.extend(text.get(position));
                position += 1;
            }
        }
    }
    out
}

proptest! {
    /// The table of first bytes changes nothing.
    #[test]
    fn agrees_with_model(text in "[ab]{0,10}", pairs in prop::collection::vec(("[ab]{0,3}", "[xy]{0,2}"), 0..5)) {
        let from: Vec<Vec<u8>> = pairs.iter().map(|pair| pair.0.clone().into_bytes()).collect();
        let to: Vec<Vec<u8>> = pairs.iter().map(|pair| pair.1.clone().into_bytes()).collect();
        let slices = |list: &[Vec<u8>]| -> Vec<Vec<u8>> { list.to_vec() };
        let (f, t) = (slices(&from), slices(&to));
        let f: Vec<&[u8]> = f.iter().map(Vec::as_slice).collect();
        let t: Vec<&[u8]> = t.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(replace(text.as_bytes(), &f, &t), model(text.as_bytes(), &from, &to));
    }

    /// Any offsets give a part of the string.
    #[test]
    fn substrings_are_parts(text in prop::collection::vec(any::<u8>(), 0..12), start in any::<i64>(), len in any::<i64>()) {
        match substring(&text, start, len) {
            Ok(part) => prop_assert!(part.is_empty() || text.windows(part.len()).any(|window| window == part)),
            Err(SubstringError::NegativeStart) => prop_assert!(start < 0),
        }
    }
}
