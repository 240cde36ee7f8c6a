//! JSON values, as structured attributes hold them: read as Nix reads `__json`, printed as Nix prints `.attrs.json`.
//!
//! Invariants
//! - objects are sorted by key, and of equal keys the last wins, as in Nix;
//! - values are at most [`DEPTH_MAX`] deep, so that printing and dropping them may recurse.

use std::collections::BTreeMap;

use igloo_eval::json::{Event, ParseJsonError, Parser, WriteStringError, print_float, write_string};
use igloo_status::Code;

/// Most values inside each other.
const DEPTH_MAX: usize = 256;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number, or one written as such.
    Float(f64),
    /// A string.
    String(String),
    /// A list.
    Array(Vec<Json>),
    /// An object.
    Object(BTreeMap<String, Json>),
}

/// An array or object that is open.
enum Open {
    Array(Vec<Json>),
    /// With the name of the member to come.
    Object(BTreeMap<String, Json>, String),
}

impl Json {
    /// Reads a text. Iterative.
    ///
    /// # Errors
    /// No JSON, or deeper than the bound.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, ParseJsonError> {
        let mut open: Vec<Open> = Vec::new();
        let mut root = Self::Null;
        for event in Parser::new(text).with_depth_max(DEPTH_MAX) {
            let value = match event? {
                Event::Null => Self::Null,
                Event::Bool(value) => Self::Bool(value),
                Event::Int(value) => Self::Int(value),
                Event::Float(value) => Self::Float(value),
                Event::String(value) => Self::String(value.into_owned()),
                Event::Key(key) => {
                    if let Some(Open::Object(_, next)) = open.last_mut() {
                        *next = key.into_owned();
                    }
                    continue;
                }
                Event::BeginArray => {
                    open.push(Open::Array(Vec::new()));
                    continue;
                }
                Event::BeginObject => {
                    open.push(Open::Object(BTreeMap::new(), String::new()));
                    continue;
                }
                Event::EndArray | Event::EndObject => match open.pop() {
                    Some(Open::Array(items)) => Self::Array(items),
                    Some(Open::Object(members, _)) => Self::Object(members),
                    None => continue, // the parser closes only what it opened
                },
            };
            match open.last_mut() {
                None => root = value,
                Some(Open::Array(items)) => items.push(value),
                Some(Open::Object(members, name)) => {
                    members.insert(std::mem::take(name), value);
                }
            }
        }
        Ok(root)
    }

    /// Prints it on one line, as nlohmann's `dump` does.
    ///
    /// # Errors
    /// None for values made of Rust's strings; they are UTF-8.
    pub(crate) fn print(&self) -> Result<Vec<u8>, PrintJsonError> {
        let mut out = Vec::new();
        self.print_to(&mut out)?;
        Ok(out)
    }

    fn print_to(&self, out: &mut Vec<u8>) -> Result<(), PrintJsonError> {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Float(value) => out.extend_from_slice(print_float(*value).as_bytes()),
            Self::String(text) => write_string(out, text.as_bytes())?,
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    separate(out, index);
                    item.print_to(out)?;
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (index, (name, value)) in members.iter().enumerate() {
                    separate(out, index);
                    write_string(out, name.as_bytes())?;
                    out.push(b':');
                    value.print_to(out)?;
                }
                out.push(b'}');
            }
        }
        Ok(())
    }

    /// What kind of value it is, in nlohmann's words, which Nix's messages use.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) | Self::Float(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

fn separate(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

/// A value that JSON cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct PrintJsonError(#[from] WriteStringError);

impl PrintJsonError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        self.0.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> String {
        String::from_utf8(Json::parse(text.as_bytes()).unwrap().print().unwrap()).unwrap()
    }

    #[test]
    fn prints_sorted_and_short() {
        assert_eq!(
            again(
                r#" {"b": [1, 2.0, -1e22, true, null, "\u00e9\n"], "a": {"z": {}, "y": []}, "b2": 1, "b2": 2} "#
            ),
            "{\"a\":{\"y\":[],\"z\":{}},\"b\":[1,2.0,-1e+22,true,null,\"é\\n\"],\"b2\":2}"
        );
        for scalar in ["null", "true", "-7", "1.5", "\"x\"", "[]", "{}"] {
            assert_eq!(again(scalar), scalar);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        let error = Json::parse(nested(1_000_000).as_bytes()).unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(Json::parse(b"{\"a\":").unwrap_err().code(), Code::InvalidArgument);
    }
}
