use proptest::prelude::*;

use super::*;
use crate::pure::json::{Event, Parser};
use crate::pure::oracle;

fn text(field: &[u8]) -> &str {
    std::str::from_utf8(field).unwrap()
}

fn from_json(json: &[u8]) -> Attributes {
    let mut attributes = Attributes::new();
    let mut name = String::new();
    for event in Parser::new(json) {
        let value = match event.unwrap() {
            Event::Key(key) => {
                name = key.into_owned();
                continue;
            }
            Event::String(text) => FetchAttr::String(text.into_owned()),
            Event::Int(number) => FetchAttr::Int(u64::try_from(number).unwrap()),
            Event::Bool(value) => FetchAttr::Bool(value),
            _ => continue,
        };
        attributes.insert(std::mem::take(&mut name), value);
    }
    attributes
}

/// Every recorded reference: its attributes, or its error.
#[test]
fn parses_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/flakeref.tsv"));
    assert!(cases.len() > 280, "the table is whole");
    for case in cases {
        let found = match parse_flake_ref(text(&case[0]), VerifiedFetches::Disabled) {
            Ok(attributes) => ("ok", to_json(&attributes)),
            Err(error) => ("err", error.to_string()),
        };
        assert_eq!(
            found,
            (text(&case[1]), text(&case[2]).to_owned()),
            "{}",
            text(&case[0])
        );
    }
}

/// Every recorded set of attributes: its text, or its error.
#[test]
fn prints_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/flakeref_print.tsv"));
    assert!(cases.len() > 130, "the table is whole");
    for case in cases {
        let found = match flake_ref_to_string(&from_json(&case[0]), VerifiedFetches::Disabled) {
            Ok(text) => ("ok", text),
            Err(error) => ("err", error.to_string()),
        };
        assert_eq!(
            found,
            (text(&case[1]), text(&case[2]).to_owned()),
            "{}",
            text(&case[0])
        );
    }
}

/// With the feature, keys for signatures are taken.
#[test]
fn signatures_need_the_feature() {
    let reference = "git+https://x.org/r?publicKey=k&verifyCommit=1";
    let refused = parse_flake_ref(reference, VerifiedFetches::Disabled);
    assert_eq!(refused, Err(FlakeRefError::FeatureDisabled));
    let attributes = parse_flake_ref(reference, VerifiedFetches::Enabled).unwrap();
    assert_eq!(attributes["verifyCommit"], FetchAttr::Bool(true));
    let printed = flake_ref_to_string(&attributes, VerifiedFetches::Enabled).unwrap();
    assert_eq!(
        printed,
        "git+https://x.org/r?keytype=ssh-ed25519&publicKey=k&verifyCommit=1"
    );
}

proptest! {
    /// What was parsed and printed is parsed as the same again.
    #[test]
    fn references_round_trip(
        kind in prop::sample::select(vec!["github:o/", "gitlab:o%2Fg/", "sourcehut:~o/", "git+https://h.org/", "path:/"]),
        name in "[a-zA-Z0-9_~-]{1,6}",
        dir in "[a-z /]{0,5}",
    ) {
        let reference = format!("{kind}{name}?dir={dir}");
        let attributes = parse_flake_ref(&reference, VerifiedFetches::Disabled).unwrap();
        let printed = flake_ref_to_string(&attributes, VerifiedFetches::Disabled).unwrap();
        prop_assert_eq!(parse_flake_ref(&printed, VerifiedFetches::Disabled).unwrap(), attributes);
    }

    /// Any text is a reference or a typed error.
    #[test]
    fn any_text_is_handled(reference in "[a-z:/?#=&%@.+\\[\\]~ é0-9-]{0,24}", name in "[a-z:/@.\n-]{0,12}") {
        if let Ok(attributes) = parse_flake_ref(&reference, VerifiedFetches::Disabled) {
            let _ = flake_ref_to_string(&attributes, VerifiedFetches::Disabled);
        }
        let url = FetchAttr::String(name);
        for kind in ["git", "hg", "tarball", "path"] {
            let kind = FetchAttr::String(kind.to_owned());
            let attributes = Attributes::from([("type".to_owned(), kind), ("url".to_owned(), url.clone())]);
            let _ = flake_ref_to_string(&attributes, VerifiedFetches::Disabled);
        }
    }
}
