//! Flake references: `parseFlakeRef` and `flakeRefToString`.
//!
//! Invariants
//! - nothing is looked up: no file, registry, or network;
//! - what is parsed are the attributes Nix gives, no more and no less, and printing them gives a reference Nix reads
//!   as the same attributes.
//!
//! Not as in Nix: a part whose escapes give something other than UTF-8 is refused, since attributes are text here; and
//! an IPv6 zone keeps its name (Boost puts NULs behind it). Nix also warns that a query parameter without `=` is
//! ignored; here it is just ignored.
//!
//! Source: Nix manual, "flake references"; behaviour recorded in `oracle/flakeref.tsv` and `oracle/flakeref_print.tsv`.

mod names;
mod parse;
mod print;
mod schemes;
mod url;

use std::collections::BTreeMap;

use igloo_status::Code;

use super::hash_text::HashTextError;
use super::json::write_string;
use crate::io::FetchAttr;

pub use parse::parse_flake_ref;
pub use print::flake_ref_to_string;
pub use schemes::scheme_attributes;

/// The attributes of a reference, by name. Nix refuses negative numbers before they get here ("negative value given for
/// flake ref attr …").
pub type Attributes = BTreeMap<String, FetchAttr>;

/// Whether the experimental feature `verified-fetches` is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifiedFetches {
    /// It is.
    Enabled,
    /// It is not: attributes about signatures are an error.
    Disabled,
}

/// Why a flake reference cannot be read or written. The messages are Nix's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlakeRefError {
    /// The text is no URL, or one with a part that cannot be. While reading a reference Nix then takes it for a path.
    #[error("{0}")]
    BadUrl(String),
    /// It can be read, but asks for what is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// A hash in it is none.
    #[error(transparent)]
    Hash(#[from] HashTextError),
    /// A hash of the tree that is not SHA-256.
    #[error("narHash must use SHA-256")]
    NarHashAlgo,
    /// An attribute about signatures without the feature.
    #[error(
        "experimental Nix feature 'verified-fetches' is disabled; add '--extra-experimental-features verified-fetches' to enable it"
    )]
    FeatureDisabled,
}

impl FlakeRefError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::FeatureDisabled => Code::FailedPrecondition,
            Self::Hash(error) => error.code(),
            _ => Code::InvalidArgument,
        }
    }
}

fn string(attributes: &Attributes, name: &str) -> Result<Option<String>, FlakeRefError> {
    match attributes.get(name) {
        None => Ok(None),
        Some(FetchAttr::String(value)) => Ok(Some(value.clone())),
        Some(_) => {
            let all = to_json(attributes);
            Err(FlakeRefError::Unsupported(format!(
                "input attribute '{name}' is not a string {all}"
            )))
        }
    }
}

fn required(attributes: &Attributes, name: &str) -> Result<String, FlakeRefError> {
    string(attributes, name)?
        .ok_or_else(|| FlakeRefError::Unsupported(format!("input attribute '{name}' is missing")))
}

fn check_int(attributes: &Attributes, name: &str) -> Result<(), FlakeRefError> {
    match attributes.get(name) {
        None | Some(FetchAttr::Int(_)) => Ok(()),
        Some(_) => Err(FlakeRefError::Unsupported(format!(
            "input attribute '{name}' is not an integer"
        ))),
    }
}

/// The value of a truth value, `false` when absent.
fn flag(attributes: &Attributes, name: &str) -> Result<bool, FlakeRefError> {
    match attributes.get(name) {
        None => Ok(false),
        Some(FetchAttr::Bool(value)) => Ok(*value),
        Some(_) => Err(FlakeRefError::Unsupported(format!(
            "input attribute '{name}' is not a Boolean"
        ))),
    }
}

/// What every kind of input checks at the end.
fn check_common(attributes: &Attributes) -> Result<(), FlakeRefError> {
    string(attributes, "ref")?;
    check_int(attributes, "revCount")?;
    check_int(attributes, "lastModified")
}

/// Attributes as Nix quotes them in messages.
fn to_json(attributes: &Attributes) -> String {
    let quoted = |text: &str| {
        let mut out = Vec::new();
        // A `str` is always UTF-8, which is all that can be wrong.
        let _ = write_string(&mut out, text.as_bytes());
        String::from_utf8_lossy(&out).into_owned()
    };
    let member = |(name, value): (&String, &FetchAttr)| {
        let value = match value {
            FetchAttr::String(text) => quoted(text),
            FetchAttr::Int(number) => number.to_string(),
            FetchAttr::Bool(value) => value.to_string(),
        };
        format!("{}:{value}", quoted(name))
    };
    format!(
        "{{{}}}",
        attributes.iter().map(member).collect::<Vec<_>>().join(",")
    )
}

#[cfg(test)]
mod tests;
