use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::pure::{float_format, oracle};

/// A JSON value, as the evaluator would build one: the last of two equal keys wins.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Leaf(String),
    Array(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    write_string(&mut out, text.as_bytes()).unwrap();
    String::from_utf8(out).unwrap()
}

impl Value {
    fn print(&self) -> String {
        match self {
            Self::Leaf(text) => text.clone(),
            Self::Array(items) => format!(
                "[{}]",
                items.iter().map(Self::print).collect::<Vec<_>>().join(",")
            ),
            Self::Object(members) => {
                let member = |(name, value): (&String, &Self)| format!("{}:{}", quoted(name), value.print());
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }
        }
    }
}

fn read(text: &[u8]) -> Result<Value, ParseJsonError> {
    let mut open: Vec<(Value, Option<String>)> = Vec::new();
    let mut key = None;
    let mut root = None;
    for event in Parser::new(text) {
        let value = match event? {
            Event::Null => Value::Leaf("null".to_owned()),
            Event::Bool(value) => Value::Leaf(value.to_string()),
            Event::Int(value) => Value::Leaf(value.to_string()),
            Event::Float(value) => Value::Leaf(float_format::print_json(value)),
            Event::String(text) => Value::Leaf(quoted(&text)),
            Event::Key(name) => {
                key = Some(name.into_owned());
                continue;
            }
            Event::BeginArray => {
                open.push((Value::Array(Vec::new()), key.take()));
                continue;
            }
            Event::BeginObject => {
                open.push((Value::Object(BTreeMap::new()), key.take()));
                continue;
            }
            Event::EndArray | Event::EndObject => {
                let (value, name) = open.pop().expect("ends are balanced");
                key = name;
                value
            }
        };
        match open.last_mut() {
            None => root = Some(value),
            Some((Value::Array(items), _)) => items.push(value),
            Some((Value::Object(members), _)) => {
                members.insert(key.take().expect("a key comes first"), value);
            }
            Some((Value::Leaf(_), _)) => panic!("a leaf is never open"),
        }
    }
    Ok(root.expect("a text without error has a value"))
}

/// Every recorded text: its value, or its error to the byte.
#[test]
fn reads_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/json.tsv"));
    assert!(cases.len() > 400, "the table is whole");
    for case in cases {
        let name = String::from_utf8_lossy(&case[0]).into_owned();
        let found = match read(&case[0]) {
            Ok(value) => (b"ok".to_vec(), value.print().into_bytes()),
            Err(ParseJsonError::Syntax { message }) => (b"err".to_vec(), message),
            Err(other) => (b"err".to_vec(), other.to_string().into_bytes()),
        };
        assert_eq!(found, (case[1].clone(), case[2].clone()), "{name}");
    }
}

/// Every recorded string, ill-formed ones included.
#[test]
fn writes_strings_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/json_string.tsv"));
    assert!(cases.len() > 45, "the table is whole");
    for case in cases {
        let mut out = Vec::new();
        let found = match write_string(&mut out, &case[0]) {
            Ok(()) => (b"ok".to_vec(), out),
            Err(error) => (b"err".to_vec(), error.to_string().into_bytes()),
        };
        assert_eq!(found, (case[1].clone(), case[2].clone()));
    }
}

/// Depth is the sender's choice: a million levels neither overflow the stack nor take long; a limit is kept.
#[test]
fn depth_is_unbounded_unless_limited() {
    let depth = 1_000_000;
    let text = [vec![b'['; depth], vec![b']'; depth]].concat();
    assert_eq!(
        Parser::new(&text).map(|event| event.map(|_| ()).unwrap()).count(),
        2 * depth
    );
    let limited: Result<Vec<_>, _> = Parser::new(&text).with_depth_max(100).collect();
    assert_eq!(limited.unwrap_err(), ParseJsonError::TooDeep { depth_max: 100 });
    let just: Result<Vec<_>, _> = Parser::new(b"[[]]").with_depth_max(2).collect();
    assert_eq!(just.unwrap().len(), 4);
}

/// Duplicate keys are told in the order written.
#[test]
fn duplicate_keys_come_in_order() {
    let events: Vec<_> = Parser::new(br#"{"a":1,"a":2}"#)
        .collect::<Result<_, _>>()
        .unwrap();
    let keys = events
        .iter()
        .filter(|event| matches!(event, Event::Key(_)))
        .count();
    assert_eq!(keys, 2);
    assert_eq!(events[2], Event::Int(1));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter("JSON has finite numbers only", |x| x.is_finite())
            .prop_map(float_format::print_json),
        "[^\u{0}]{0,6}".prop_map(|text| quoted(&text)),
    ];
    leaf.prop_map(Value::Leaf).prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[^\u{0}]{0,3}", inner, 0..4).prop_map(Value::Object),
        ]
    })
}

proptest! {
    /// What is written reads back as the same value.
    #[test]
    fn round_trips(value in value()) {
        prop_assert_eq!(read(value.print().as_bytes()), Ok(value));
    }

    /// Any bytes give events or one error, after which the parser has ended.
    #[test]
    fn any_bytes_are_handled(text in prop::collection::vec(prop::sample::select(b"[]{},:\"\\u0e-+.1tfn \n\xC3\xA9\xFF".to_vec()), 0..24)) {
        let mut parser = Parser::new(&text);
        let failed = parser.by_ref().any(|event| event.is_err());
        prop_assert_eq!(parser.next(), None);
        let strict = std::str::from_utf8(&text).is_ok_and(|text| !text.is_empty());
        prop_assert!(failed || strict);
    }
}
