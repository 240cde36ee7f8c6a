//! Whose fault a failure is, and how it is told.
//!
//! Invariants
//! - a builder's failure is never blamed on what was built: only outcomes and what is wrong with outputs are permanent;
//! - a report names its path in its first line.

use bytes::Bytes;
use igloo_build::{BuildError, BuildOutcome};
use igloo_coordinator::{BuildFault, Failure};
use igloo_status::Code;
use igloo_store::ClosureError;
use nix_compat::store_path::{StoreDir, StorePath};

use crate::job::{FailureKind, FailureReport};
use crate::outputs::OutputError;
use crate::request::RequestError;
use crate::source::ReadDerivationError;

/// Why a derivation was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailure {
    /// The build ran, and did not succeed.
    #[error("{}", describe(.0))]
    Outcome(BuildOutcome),
    /// The build succeeded, and what it left breaks a rule.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// An input has gone, or the store is damaged.
    #[error("its inputs are not whole")]
    Inputs(#[from] ClosureError),
    /// It cannot be built by igloo.
    #[error("igloo cannot build it")]
    Request(#[from] RequestError),
    /// It cannot be read again.
    #[error("its derivation cannot be read again")]
    Read(#[from] ReadDerivationError),
    /// The machine or the host failed, not the build.
    #[error(transparent)]
    Builder(#[from] BuildError),
    /// It was stopped.
    #[error("it was stopped")]
    Cancelled,
}

/// What a failed build was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    /// Whether its output's hash is known before: such builds reach for the network, and may fail for the moment.
    pub is_fixed: bool,
    /// Memory, MiB.
    pub memory_mib: u32,
}

impl BuildFailure {
    /// Who is to blame.
    pub(crate) fn fault(&self, given: Given) -> BuildFault {
        let reason = self.one_line();
        match self {
            Self::Outcome(BuildOutcome::OutOfMemory) => BuildFault::OutOfMemory {
                memory_mib: given.memory_mib,
            },
            Self::Outcome(BuildOutcome::DiskFull) => BuildFault::Transient { reason },
            Self::Outcome(BuildOutcome::ExitCode(_)) if given.is_fixed => BuildFault::Transient { reason },
            Self::Outcome(_) | Self::Request(_) | Self::Builder(BuildError::Request(_)) => {
                BuildFault::Permanent { reason }
            }
            Self::Inputs(ClosureError::Missing { path, .. }) => BuildFault::InputsMissing {
                paths: vec![path.clone()],
            },
            Self::Inputs(ClosureError::Read(_)) | Self::Read(_) | Self::Builder(_) => {
                BuildFault::Infrastructure { reason }
            }
            // reading them back failed, or the builder broke its word
            Self::Output(error) if error.is_fault_of_host() => BuildFault::Infrastructure { reason },
            Self::Output(_) => BuildFault::Permanent { reason },
            Self::Cancelled => BuildFault::Cancelled,
        }
    }

    /// The whole story, for people and exit codes.
    pub(crate) fn report(&self, dir: &StoreDir, drv: &StorePath, log_tail: Vec<Bytes>) -> FailureReport {
        let printed = dir.print(drv);
        let (headline, causes) = match self {
            Self::Outcome(outcome) => (
                format!("builder for '{printed}' {}", describe(outcome)),
                Vec::new(),
            ),
            Self::Output(error) => (error.headline(&printed), causes_of(error)),
            other => (format!("cannot build '{printed}'"), chain(other)),
        };
        FailureReport {
            path: drv.clone(),
            kind: self.kind(),
            headline,
            causes,
            log_tail,
            code: self.code(),
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Outcome(BuildOutcome::Timeout { .. } | BuildOutcome::Silence { .. }) => {
                FailureKind::Timeout
            }
            Self::Outcome(BuildOutcome::OutputMissing { .. } | BuildOutcome::OutputInvalid { .. }) => {
                FailureKind::Output
            }
            Self::Outcome(_) => FailureKind::Build,
            Self::Output(error) if error.is_broken_promise() => FailureKind::HashMismatch,
            Self::Output(error) if error.is_fault_of_host() => FailureKind::Infrastructure,
            Self::Output(_) => FailureKind::Output,
            Self::Request(_) | Self::Builder(BuildError::Request(_)) => FailureKind::Unavailable,
            Self::Inputs(_) | Self::Read(_) | Self::Builder(_) | Self::Cancelled => {
                FailureKind::Infrastructure
            }
        }
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Outcome(BuildOutcome::OutOfMemory | BuildOutcome::DiskFull) => Code::ResourceExhausted,
            Self::Outcome(_) => Code::FailedPrecondition,
            Self::Output(error) => error.code(),
            Self::Inputs(error) => error.code(),
            Self::Request(error) => error.code(),
            Self::Read(error) => error.code(),
            Self::Builder(error) => error.code(),
            Self::Cancelled => Code::Cancelled,
        }
    }

    fn one_line(&self) -> String {
        chain(self).join(": ").replace('\n', " ")
    }
}

/// A report of what the state machine found to have failed, where nothing more is known.
pub(crate) fn report_of(dir: &StoreDir, failure: &Failure, wanted: &StorePath) -> FailureReport {
    use igloo_coordinator::FailureKind as Kind;
    let kind = match failure.kind {
        Kind::Permanent | Kind::Transient | Kind::OutOfMemory => FailureKind::Build,
        Kind::Infrastructure => FailureKind::Infrastructure,
        Kind::NoBuilder
        | Kind::Missing
        | Kind::Unreadable
        | Kind::Refused(_)
        | Kind::Cycle
        | Kind::TooManyWants => FailureKind::Unavailable,
    };
    let path = failure.root.as_ref().unwrap_or(wanted);
    FailureReport {
        path: path.clone(),
        kind,
        headline: format!("cannot {} '{}'", verb(path), dir.print(path)),
        causes: vec![failure.reason.clone()],
        log_tail: Vec::new(),
        code: failure.code(),
    }
}

/// What is done with a path: derivations are built, others are got.
pub(crate) fn verb(path: &StorePath) -> &'static str {
    if path.name().ends_with(".drv") {
        "build"
    } else {
        "get"
    }
}

/// An error and all below it, the nearest first.
pub(crate) fn chain(error: &dyn std::error::Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    texts.extend(causes_of(error));
    texts.dedup();
    texts
}

/// All below an error, the nearest first.
pub(crate) fn causes_of(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(error.source(), |error| error.source())
        .map(ToString::to_string)
        .collect()
}

/// An outcome in Nix's words, as far as Nix has them; it follows "builder for X".
fn describe(outcome: &BuildOutcome) -> String {
    match outcome {
        BuildOutcome::Success => "succeeded".into(),
        BuildOutcome::ExitCode(code) => format!("failed with exit code {code}"),
        BuildOutcome::Signal(signal) => format!("failed due to signal {signal}"),
        BuildOutcome::StartFailed { reason } => format!("could not be started: {reason}"),
        BuildOutcome::Timeout { limit } => format!("timed out after {} seconds", limit.as_secs()),
        BuildOutcome::Silence { limit } => {
            format!("timed out after {} seconds of silence", limit.as_secs())
        }
        BuildOutcome::LogLimit { limit_bytes } => {
            format!("killed after writing more than {limit_bytes} bytes of log")
        }
        BuildOutcome::OutputMissing { path } => format!("failed to produce output path '/{path}'"),
        BuildOutcome::OutputInvalid { path, reason } => {
            format!("produced an output that cannot be kept: '/{path}': {reason}")
        }
        BuildOutcome::OutOfMemory => "ran out of memory; give the machine more with --memory".into(),
        BuildOutcome::DiskFull => "ran out of scratch space; give the machine more with --memory".into(),
    }
}
