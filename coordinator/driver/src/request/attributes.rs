//! A derivation's attributes, whether they are plain variables or structured (`__json`).
//!
//! Invariants
//! - with structured attributes, the variables beside `__json` mean nothing to the build, as in Nix;
//! - an attribute of the wrong type is an error, never taken as absent.
//!
//! Source: Nix 2.34 `derivation-options.cc`, `parsed-derivations.cc`; types and messages recorded from 2.34.

use std::collections::BTreeMap;

use igloo_eval::json::ParseJsonError;
use igloo_status::Code;
use nix_compat::derivation::Derivation;

use crate::json::Json;

/// The variable that holds structured attributes.
const STRUCTURED: &[u8] = b"__json";
/// Characters of a value in a message.
const SHOWN_MAX: usize = 64;

/// A derivation's attributes.
#[derive(Debug)]
pub(crate) enum Attributes<'d> {
    /// Its variables.
    Plain(&'d BTreeMap<Vec<u8>, Vec<u8>>),
    /// The object in `__json`.
    Structured(BTreeMap<String, Json>),
}

impl<'d> Attributes<'d> {
    /// Reads them.
    ///
    /// # Errors
    /// `__json` is no JSON object.
    pub(crate) fn of(derivation: &'d Derivation) -> Result<Self, AttributeError> {
        let Some(text) = derivation.env.get(STRUCTURED) else {
            return Ok(Self::Plain(&derivation.env));
        };
        let value = Json::parse(text).map_err(|source| AttributeError::Json { source })?;
        Ok(Self::Structured(object("__json", &value)?.clone()))
    }

    /// A truth value, `default` where it is absent.
    pub(crate) fn bool(&self, name: &str, default: bool) -> Result<bool, AttributeError> {
        match self {
            Self::Plain(env) => Ok(env.get(name.as_bytes()).map_or(default, |value| value == b"1")),
            Self::Structured(members) => match members.get(name) {
                None => Ok(default),
                Some(value) => boolean(name, value),
            },
        }
    }

    /// Words, or a list of strings; `None` where it is absent.
    pub(crate) fn words(&self, name: &str) -> Result<Option<Vec<Vec<u8>>>, AttributeError> {
        match self {
            Self::Plain(env) => Ok(env
                .get(name.as_bytes())
                .map(|value| words(value).map(<[u8]>::to_vec).collect())),
            Self::Structured(members) => {
                let strings = members.get(name).map(|value| strings(name, value)).transpose()?;
                Ok(strings.map(|all| all.into_iter().map(String::into_bytes).collect()))
            }
        }
    }
}

/// Nix's `tokenizeString`: separated by any run of blanks.
pub(crate) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        .filter(|word| !word.is_empty())
}

/// The members of an object.
pub(crate) fn object<'j>(
    attribute: &str,
    value: &'j Json,
) -> Result<&'j BTreeMap<String, Json>, AttributeError> {
    match value {
        Json::Object(members) => Ok(members),
        other => Err(AttributeError::new(attribute, "object", other)),
    }
}

/// A truth value.
pub(crate) fn boolean(attribute: &str, value: &Json) -> Result<bool, AttributeError> {
    match value {
        Json::Bool(value) => Ok(*value),
        other => Err(AttributeError::new(attribute, "boolean", other)),
    }
}

/// A list of strings.
pub(crate) fn strings(attribute: &str, value: &Json) -> Result<Vec<String>, AttributeError> {
    let Json::Array(items) = value else {
        return Err(AttributeError::new(attribute, "array", value));
    };
    let text = |item: &Json| match item {
        Json::String(text) => Ok(text.clone()),
        other => Err(AttributeError::new(attribute, "string", other)),
    };
    items.iter().map(text).collect()
}

/// A size in bytes. Nix takes a negative one for a huge one, and so does this.
pub(crate) fn size(attribute: &str, value: &Json) -> Result<u64, AttributeError> {
    match value {
        Json::Int(size) => Ok(size.cast_unsigned()),
        other => Err(AttributeError::new(attribute, "number", other)),
    }
}

/// An attribute that cannot be what Nix takes it for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// Structured attributes that are no JSON.
    #[error("its structured attributes (`__json`) are no JSON")]
    Json {
        /// Why.
        #[source]
        source: ParseJsonError,
    },
    /// A value of the wrong type.
    #[error(
        "while parsing attribute '{attribute}': expected JSON value to be of type '{expected}' but it is of type '{found}': {value}"
    )]
    Type {
        /// The attribute.
        attribute: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
        /// The value, cut short.
        value: String,
    },
}

impl AttributeError {
    pub(crate) fn new(attribute: &str, expected: &'static str, value: &Json) -> Self {
        let text = value.print().unwrap_or_default();
        Self::Type {
            attribute: attribute.to_owned(),
            expected,
            found: value.kind(),
            value: String::from_utf8_lossy(&text).chars().take(SHOWN_MAX).collect(),
        }
    }

    /// Always `InvalidArgument`: the derivation itself is wrong.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}
