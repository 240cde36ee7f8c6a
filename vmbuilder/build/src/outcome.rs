//! How a build ended, and why a builder could not run one.
//!
//! The two are kept apart: a [`BuildOutcome`] is a fact about the request and would be the same on another machine; a
//! [`BuildError`] is about this machine or this moment, and must never be blamed on what was built.

use std::time::Duration;

use igloo_status::Code;

use crate::lease::LeaseError;
use crate::path::RelativePath;
use crate::request::CheckRequestError;

/// A finished build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildReport {
    /// How it ended.
    pub outcome: BuildOutcome,
    /// What it used.
    pub stats: BuildStats,
}

/// How a build ended. Outputs count only with `Success`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildOutcome {
    /// The program exited with 0 and every output was taken in.
    Success,
    /// The program exited with another code.
    ExitCode(u8),
    /// The program was killed by a signal it did not get from us.
    Signal(u8),
    /// The program could not be started.
    StartFailed {
        /// Why, naming the file.
        reason: String,
    },
    /// It ran longer than allowed.
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// It wrote nothing for longer than allowed.
    Silence {
        /// The limit.
        limit: Duration,
    },
    /// It wrote more log than allowed.
    LogLimit {
        /// The limit, bytes.
        limit_bytes: u64,
    },
    /// An output does not exist.
    OutputMissing {
        /// Which.
        path: RelativePath,
    },
    /// An output is of a kind that cannot be kept, or over a limit.
    OutputInvalid {
        /// The output, or the file in it, relative to the root.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine ran out of memory.
    OutOfMemory,
    /// The scratch space is full.
    DiskFull,
}

/// What a build used, as far as the builder can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildStats {
    /// From the order for a machine to its agent's first word.
    pub boot: Duration,
    /// From the program's start to its end.
    pub run: Duration,
    /// From the order for a machine to the last output taken in.
    pub total: Duration,
    /// Bytes of log.
    pub log_bytes: u64,
    /// Bytes of outputs.
    pub output_bytes: u64,
    /// Bytes of inputs the build read.
    pub input_bytes_read: u64,
    /// Files of inputs the build read from.
    pub input_files_read: u64,
    /// The machine's kernel and image, for provenance.
    pub machine: String,
}

/// Why a builder could not run a build, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The request is wrong in itself.
    #[error("the build request cannot be run by any builder")]
    Request(#[from] CheckRequestError),
    /// This builder lacks what the request asks for.
    #[error("this builder cannot run the build: {reason}")]
    Unsupported {
        /// What it lacks.
        reason: String,
    },
    /// The machine is not set up for builds.
    #[error("{what} is missing: {hint}")]
    Setup {
        /// What is missing (kernel, image, QEMU).
        what: String,
        /// What to do.
        hint: String,
    },
    /// The machine, its agent, or the way to them failed.
    #[error("the build machine failed: {reason}")]
    Machine {
        /// What happened.
        reason: String,
        /// The cause, when there is one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The guest broke the protocol; it may be hostile.
    #[error("the build machine sent what it may not send: {reason}")]
    Protocol {
        /// What it sent.
        reason: String,
    },
    /// The lease is not what the caller thinks it is.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The host could not take the outputs in, or not serve the inputs.
    #[error("the host side of the build failed: {reason}")]
    Host {
        /// What failed.
        reason: String,
        /// The class of the cause.
        code: Code,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl BuildError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Request(error) => error.code(),
            Self::Unsupported { .. } => Code::Unimplemented,
            Self::Setup { .. } => Code::FailedPrecondition,
            Self::Machine { .. } => Code::Unavailable,
            Self::Protocol { .. } => Code::DataLoss,
            Self::Lease(error) => error.code(),
            Self::Host { code, .. } => *code,
        }
    }
}
