use proptest::prelude::*;

use super::*;
use crate::pure::oracle;

/// The document Nix writes for a list of one string, recorded for strings with everything that needs care.
#[test]
fn strings_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/xml.tsv"));
    assert!(cases.len() > 15, "the table is whole");
    for case in cases {
        let mut xml = XmlWriter::new();
        xml.open("expr", &[]);
        xml.open("list", &[]);
        xml.empty("string", &[("value", &case[0])]);
        assert_eq!(
            String::from_utf8_lossy(&xml.finish()),
            String::from_utf8_lossy(&case[1])
        );
    }
}

/// Nesting, sorted attributes, and elements without any: `toXML { a = { }; f = { x, ... }@args: x; n = null; }`.
#[test]
fn document_as_nix() {
    let mut xml = XmlWriter::new();
    xml.open("expr", &[]);
    xml.open("attrs", &[]);
    xml.open("attr", &[("name", b"a")]);
    xml.open("attrs", &[]);
    xml.close();
    xml.close();
    xml.open("attr", &[("name", b"f")]);
    xml.open("function", &[]);
    xml.open("attrspat", &[("name", b"args"), ("ellipsis", b"1")]);
    xml.empty("attr", &[("name", b"x")]);
    xml.close();
    xml.close();
    xml.close();
    xml.open("attr", &[("name", b"n")]);
    xml.empty("null", &[]);
    let expected = include_str!("../oracle/document.xml");
    assert_eq!(String::from_utf8(xml.finish()).unwrap(), expected);
}

/// Closing more than was opened is harmless.
#[test]
fn closing_nothing_writes_nothing() {
    let mut xml = XmlWriter::new();
    xml.close();
    assert_eq!(xml.finish(), XmlWriter::new().finish());
}

proptest! {
    /// An attribute's value never ends the attribute or the element, and can be read back.
    #[test]
    fn values_round_trip(value in "[ -~\n]{0,20}") {
        let mut xml = XmlWriter::new();
        xml.empty("string", &[("value", value.as_bytes())]);
        let text = String::from_utf8(xml.finish()).unwrap();
        let inner = text.split('"').nth(1).unwrap();
        prop_assert_eq!(text.matches('"').count(), 2);
        prop_assert_eq!(text.lines().count(), 2);
        let read = inner.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">");
        prop_assert_eq!(read.replace("&#xA;", "\n").replace("&amp;", "&"), value);
    }
}
