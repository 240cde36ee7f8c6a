//! Why something asked for cannot be had.
//!
//! Invariants
//! - a failure names its root: what depends on a failed derivation carries that derivation's failure, unchanged;
//! - infrastructure is never blamed on a derivation: such a failure is only given after tries elsewhere, and says so.

use std::fmt;

use igloo_status::Code;
use nix_compat::store_path::StorePath;

/// Why there is no valid path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed first: a derivation, or a path that no derivation makes.
    pub root: Option<StorePath>,
    /// The class.
    pub kind: FailureKind,
    /// What happened, on one line, for people.
    pub reason: String,
}

/// Classes of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The build itself: it would fail again.
    Permanent,
    /// The moment: a download, a full disk; tried again, and given up.
    Transient,
    /// It needs more memory than it was given, twice.
    OutOfMemory,
    /// Builders, stores or the way to them; tried elsewhere, and given up.
    Infrastructure,
    /// No builder can run it.
    NoBuilder,
    /// Nobody has the path, and nobody knows how to make it.
    Missing,
    /// The derivation cannot be read.
    Unreadable,
    /// The derivation is of a kind, or a size, that is not taken.
    Refused(Code),
    /// It needs itself.
    Cycle,
    /// The client has too many wants open.
    TooManyWants,
}

impl Failure {
    /// The class of the failure for callers.
    pub fn code(&self) -> Code {
        match self.kind {
            FailureKind::Permanent => Code::FailedPrecondition,
            FailureKind::Transient | FailureKind::Infrastructure => Code::Unavailable,
            FailureKind::OutOfMemory | FailureKind::TooManyWants => Code::ResourceExhausted,
            FailureKind::NoBuilder => Code::Unimplemented,
            FailureKind::Missing | FailureKind::Unreadable => Code::NotFound,
            FailureKind::Refused(code) => code,
            FailureKind::Cycle => Code::InvalidArgument,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Some(root) => write!(f, "{root}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for Failure {}
