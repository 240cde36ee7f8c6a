//! TOML as `builtins.fromTOML` reads it: version 1.0.0, with toml11's rules where the specification leaves room.
//!
//! A parser of our own, as the crates for it follow version 1.1.0 and so accept what Nix refuses (line ends and final
//! commas in inline tables, `\e`, `\x41`, times without seconds).
//!
//! Invariants
//! - no recursion, neither here nor when a document is dropped: values are a flat list that refers to itself by number;
//! - integers fit an `i64`, floats may be infinite or not a number, strings hold no NUL;
//! - the text is checked to the end before a value is refused for what Nix cannot hold.
//!
//! Source: toml.io/en/v1.0.0; Nix 2.34 `fromTOML.cc`; behaviour recorded in `oracle/toml.tsv`.

mod parse;
mod scalar;
mod tree;

use std::collections::BTreeMap;

use igloo_status::Code;

/// A whole document.
#[derive(Debug)]
pub struct Document {
    values: Vec<Value>,
}

/// Number of a value in its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueId(usize);

/// One value of a document.
#[derive(Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    String(String),
    /// A date, a time, or both, in the form Nix gives them: `{ _type = "timestamp"; value = …; }` holds this text.
    Timestamp(String),
    /// An array, or an array of tables.
    Array(Vec<ValueId>),
    /// A table; its names are sorted.
    Table(BTreeMap<String, ValueId>),
}

/// What to do with dates and times, which Nix takes only with the experimental feature `parse-toml-timestamps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// The feature is on.
    Accept,
    /// The feature is off: they are an error.
    Refuse,
}

impl Document {
    /// Reads a document. Costs a few passes over the text, and memory in proportion to it.
    ///
    /// # Errors
    /// `Syntax` for what is not TOML 1.0, `NulByte` and `Timestamp` for what Nix cannot hold.
    pub fn parse(text: &[u8], timestamps: Timestamps) -> Result<Self, ParseTomlError> {
        let document = Self {
            values: parse::parse(text)?,
        };
        for value in &document.values {
            match value {
                Value::Timestamp(_) if timestamps == Timestamps::Refuse => {
                    return Err(ParseTomlError::Timestamp);
                }
                Value::String(text) => without_nul(text)?,
                Value::Table(members) => members.keys().try_for_each(|name| without_nul(name))?,
                _ => {}
            }
        }
        Ok(document)
    }

    /// The table that is the document.
    pub fn root(&self) -> ValueId {
        ValueId(0)
    }

    /// A value by its number; numbers of another document give nonsense, or `None`.
    pub fn get(&self, id: ValueId) -> Option<&Value> {
        self.values.get(id.0)
    }
}

fn without_nul(text: &str) -> Result<(), ParseTomlError> {
    if text.contains('\0') {
        return Err(ParseTomlError::NulByte {
            text: text.replace('\0', "␀"),
        });
    }
    Ok(())
}

/// Why a text is not TOML that Nix takes. The messages start as Nix's do, which goes on to show the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTomlError {
    /// Not TOML 1.0.
    #[error("while parsing TOML: [error] {what} (line {line}, column {column})")]
    Syntax {
        /// What is wrong, in toml11's words where there is one reason.
        what: &'static str,
        /// Counted from 1.
        line: usize,
        /// In bytes, counted from 1.
        column: usize,
    },
    /// A string or name with NUL in it.
    #[error(
        "while parsing TOML: error: input string '{text}' cannot be represented as Nix string because it contains null bytes"
    )]
    NulByte {
        /// The string, with a symbol for each NUL.
        text: String,
    },
    /// A date or a time, without the feature.
    #[error("while parsing TOML: Dates and times are not supported")]
    Timestamp,
}

impl ParseTomlError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

#[cfg(test)]
mod tests;
