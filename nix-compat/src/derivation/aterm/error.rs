//! What can be wrong with the text of a derivation.

use igloo_status::Code;

use crate::content_address::ContentAddressError;
use crate::derivation::OutputNameError;
use crate::hash::ParseHashError;
use crate::store_path::{ComputePathError, ParseAbsolutePathError};

/// A text that is no derivation, or none that Nix writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("derivation '{name}' is wrong at byte {offset}")]
pub struct ParseDerivationError {
    /// Name of the derivation.
    pub name: String,
    /// Offset in the text, in bytes.
    pub offset: usize,
    /// What is wrong there.
    #[source]
    pub reason: ParseDerivationReason,
}

/// What is wrong at an offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDerivationReason {
    /// Something else was to come.
    #[error("expected string '{expected}'")]
    Expected {
        /// What may stand here.
        expected: &'static str,
    },
    /// The text ends inside a string.
    #[error("unterminated string in derivation")]
    Unterminated,
    /// A backslash before another byte than Nix escapes, or where Nix never escapes.
    #[error(
        "a backslash may not stand here; escapes are \\\" \\\\ \\n \\r \\t, in builder, arguments and environment only"
    )]
    Escape,
    /// A line feed, carriage return or tab that is not escaped.
    #[error("byte {byte:#04x} must be written as an escape")]
    Raw {
        /// The byte.
        byte: u8,
    },
    /// A list that is out of order or says something twice.
    #[error("{list} must be sorted and without duplicates")]
    NotSorted {
        /// Which list.
        list: &'static str,
    },
    /// No store path where one must be.
    #[error("not a store path")]
    StorePath {
        /// Why.
        #[source]
        source: ParseAbsolutePathError,
    },
    /// No output name where one must be.
    #[error("not an output name")]
    OutputName {
        /// Why.
        #[source]
        source: OutputNameError,
    },
    /// An input derivation of which nothing is needed.
    #[error("inputDrvs entry specifies no outputs")]
    NoOutputs,
    /// An output's method or algorithm is none that is supported.
    #[error("wrong method or hash algorithm of an output")]
    Method {
        /// Why.
        #[source]
        source: ContentAddressError,
    },
    /// An output's hash is wrong.
    #[error("wrong hash of an output")]
    Hash {
        /// Why.
        #[source]
        source: ParseHashError,
    },
    /// An output's hash is right, but written otherwise than in lower case base 16.
    #[error("the hash of an output must be written in lower case base 16")]
    HashFormat,
    /// A fixed output cannot have a path.
    #[error("no path for a fixed output")]
    Compute {
        /// Why.
        #[source]
        source: ComputePathError,
    },
    /// A fixed output states another path than its content has.
    #[error(
        "fixed output has path '{stated}', which does not match its content address: it should be '{computed}'"
    )]
    FixedPath {
        /// What the text says.
        stated: String,
        /// What follows from the content.
        computed: String,
    },
    /// A path or hash that this kind of output does not have.
    #[error("{kind} derivation output should not specify {what}")]
    Superfluous {
        /// Kind of output.
        kind: &'static str,
        /// What it has too much.
        what: &'static str,
    },
    /// A version of the format that only experimental Nix writes.
    #[error(
        "derivation format version '{version}' (experimental feature 'dynamic-derivations') is not supported"
    )]
    Version {
        /// The version.
        version: String,
    },
    /// Bytes after the end.
    #[error("data after the end of the derivation")]
    TrailingData,
    /// A text that is not looked at because of its size.
    #[error("derivation of {size} bytes is larger than {max} bytes")]
    TooLarge {
        /// Bytes in the text.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
}

impl ParseDerivationError {
    /// The class of this failure.
    pub fn code(&self) -> Code {
        match &self.reason {
            ParseDerivationReason::TooLarge { .. } => Code::ResourceExhausted,
            ParseDerivationReason::Version { .. } => Code::Unimplemented,
            ParseDerivationReason::Method { source } => source.code(),
            _ => Code::InvalidArgument,
        }
    }
}
