//! What a front end asks a coordinator for, and what it hears.
//!
//! A [`Job`] is one command: things wanted, and how. [`Update`]s say all that a display needs; the [`JobReport`] says all that
//! an answer needs, so that a front end that drops updates loses only the show.
//!
//! Invariants
//! - every `…Started` has its `…Ended`, unless the job ends first;
//! - goals are reported in the order of the request; nothing is reported valid that is not registered and durable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{BuildEvent, BuildStats, Limits};
use igloo_eval::io::Notice;
use igloo_evaluator::{EvaluateReport, EvaluateRequest, Goal};
use igloo_status::Code;
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;
use tokio::sync::mpsc;

/// Runs jobs: in this process, or in another behind gRPC.
#[async_trait]
pub trait Coordinator: std::fmt::Debug + Send + Sync {
    /// Runs a job to its end. Dropping the future cancels what only this job wanted.
    ///
    /// # Errors
    /// Only when the job could not be run: what fails inside it is in the report.
    async fn run(&self, job: Job, updates: mpsc::Sender<Update>) -> Result<JobReport, JobError>;

    /// The log of the last build of a derivation, `None` when there is none.
    ///
    /// # Errors
    /// When the logs cannot be read.
    async fn log(&self, drv: &StorePath) -> Result<Option<Bytes>, JobError>;
}

/// One command's wish.
#[derive(Clone, Debug)]
pub struct Job {
    /// What is wanted.
    pub wanted: Wanted,
    /// How.
    pub options: JobOptions,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The derivations an evaluation finds.
    Evaluated(Box<EvaluateRequest>),
    /// Outputs of derivations; no names means all.
    Outputs(Vec<(StorePath, BTreeSet<OutputName>)>),
    /// Store paths, from wherever they can be had.
    Paths(Vec<StorePath>),
}

/// How a job is run.
#[derive(Clone, Debug, Default)]
pub struct JobOptions {
    /// Whether other goals go on when one fails.
    pub keep_going: bool,
    /// Whether substituters are asked.
    pub substitute: bool,
    /// Nothing is fetched or built for the goals: the report says what would be.
    pub dry_run: bool,
    /// Goals that are there are built again, and what comes out is compared.
    pub check: bool,
    /// Processors of a build's machine; 0 leaves it to the builder.
    pub cores: u32,
    /// Memory of a build's machine, MiB; 0 leaves it to the builder.
    pub memory_mib: u32,
    /// Bounds on every build.
    pub limits: Limits,
    /// Variables that fixed-output derivations may ask for.
    pub impure_environment: BTreeMap<Bytes, Bytes>,
    /// Folders in which derivations and their sources lie besides the store.
    pub folders: Vec<PathBuf>,
}

/// Something a watcher may show.
#[derive(Clone, Debug)]
pub enum Update {
    /// The evaluation says something.
    Notice(Notice),
    /// Derivations instantiated so far.
    Instantiated {
        /// How many.
        count: u64,
        /// The latest.
        drv: StorePath,
    },
    /// A goal is known.
    Goal(Goal),
    /// The evaluation has ended well.
    Evaluated(EvaluateReport),
    /// What is known to remain; it grows while the evaluation runs.
    Remaining(Remaining),
    /// A path is being fetched.
    FetchStarted {
        /// Which.
        path: StorePath,
        /// From where: a URL.
        from: String,
        /// Bytes of its NAR.
        nar_size: u64,
        /// Bytes over the wire, where that is known.
        download_size: Option<u64>,
    },
    /// More of a path has come.
    FetchProgress {
        /// Which.
        path: StorePath,
        /// Bytes of its NAR so far.
        nar_bytes: u64,
    },
    /// A fetch has ended.
    FetchEnded {
        /// Of what.
        path: StorePath,
        /// Why it is not there.
        failure: Option<String>,
    },
    /// A build was given to a builder.
    BuildStarted {
        /// Of what.
        drv: StorePath,
        /// 1 for the first try.
        attempt: u32,
        /// Who builds.
        builder: String,
        /// How long it took before.
        expected: Option<Duration>,
        /// Whether an evaluation waits for it.
        for_evaluation: bool,
    },
    /// The builder reports.
    Build {
        /// Of what.
        drv: StorePath,
        /// What it reports.
        event: BuildEvent,
    },
    /// A build has ended.
    BuildEnded {
        /// Of what.
        drv: StorePath,
        /// How.
        end: BuildEnded,
    },
}

/// What is known to remain of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Builds not ended.
    pub builds: u64,
    /// Fetches not ended.
    pub fetches: u64,
    /// NAR bytes of these fetches.
    pub fetch_bytes: u64,
}

/// How one build ended.
#[derive(Clone, Debug)]
pub enum BuildEnded {
    /// Its outputs are registered.
    Registered(Box<BuildStats>),
    /// It will be tried again.
    Retried {
        /// Why it ended.
        reason: String,
    },
    /// It failed for good.
    Failed(Box<FailureReport>),
    /// It was stopped; nobody wants it any more.
    Cancelled,
}

/// How a job ended.
#[derive(Clone, Debug, Default)]
pub struct JobReport {
    /// One for each goal, in order.
    pub goals: Vec<GoalReport>,
    /// What was built, in the order it ended.
    pub built: Vec<Built>,
    /// What was fetched, in the order it ended.
    pub fetched: Vec<Fetched>,
    /// What failed at its root: not what merely needed it.
    pub failures: Vec<FailureReport>,
    /// Derivations that were not tried, because something they need failed.
    pub not_tried: Vec<StorePath>,
    /// What the evaluation used, if there was one that ended well.
    pub evaluation: Option<EvaluateReport>,
    /// Only in a dry run: what would be done.
    pub plan: Option<Planned>,
}

/// How a goal ended.
#[derive(Clone, Debug)]
pub struct GoalReport {
    /// What was asked for; `drv` of a wanted path is the path itself.
    pub goal: Goal,
    /// Its outputs; paths not known before a build are absent in a dry run. None where it failed.
    pub outputs: BTreeMap<OutputName, StorePath>,
    /// The position in [`JobReport::failures`] of what made it fail; `None` where it is valid, or was cancelled.
    pub failure: Option<usize>,
    /// Whether all of it is registered.
    pub is_valid: bool,
}

/// A derivation that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The derivation.
    pub drv: StorePath,
    /// Its outputs.
    pub outputs: BTreeMap<OutputName, StorePath>,
    /// What it used.
    pub stats: BuildStats,
    /// Bytes in all files of its inputs: what a build that reads everything would read.
    pub input_bytes: u64,
    /// Files of its inputs.
    pub input_files: u64,
    /// From the job's start to the order to build.
    pub started: Duration,
    /// From the job's start to the outputs' registering.
    pub ended: Duration,
    /// Those of [`JobReport::built`] and [`JobReport::fetched`] it waited for last: the critical path leads through it.
    pub waited_for: Option<StorePath>,
}

/// A path that was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The path.
    pub path: StorePath,
    /// From where.
    pub from: String,
    /// Bytes of its NAR.
    pub nar_size: u64,
}

/// What a dry run found.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// Derivations that would be built, inputs first.
    pub builds: Vec<StorePath>,
    /// Paths that would be fetched, with the bytes of their NARs and over the wire.
    pub fetches: Vec<(StorePath, u64, Option<u64>)>,
}

/// What failed, for people and for exit codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureReport {
    /// The derivation or path.
    pub path: StorePath,
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// The first line of a message, in Nix's words where Nix has them; it names the path.
    pub headline: String,
    /// What is behind it, the nearest cause first.
    pub causes: Vec<String>,
    /// The last lines of its log, cleaned of nothing.
    pub log_tail: Vec<Bytes>,
    /// The class of the failure.
    pub code: Code,
}

/// What kind of failure it is: decides the exit code, as Nix's does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The build exited with another code than 0, or was killed, or reached a limit that is none of those below.
    Build,
    /// It took too long, or was silent for too long.
    Timeout,
    /// A fixed output has other content.
    HashMismatch,
    /// A check (`--check`) found another content than before.
    NotDeterministic,
    /// An output is missing, cannot be kept, or refers to what it may not.
    Output,
    /// It cannot be had: no derivation, no substituter, no builder for it.
    Unavailable,
    /// igloo, its store or its builders failed.
    Infrastructure,
}

/// Why a job could not be run.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The evaluation failed.
    #[error(transparent)]
    Evaluate(#[from] igloo_evaluator::EvaluateError),
    /// The coordinator is closing down, or is gone.
    #[error("the coordinator is gone: {reason}")]
    Gone {
        /// What is known of it.
        reason: String,
    },
    /// The job itself is wrong.
    #[error("the job cannot be run: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The coordinator cannot keep or read what it must.
    #[error("the coordinator cannot go on: {reason}")]
    Host {
        /// Why.
        reason: String,
        /// The class of the cause.
        code: Code,
    },
}

impl JobError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Evaluate(error) => error.code(),
            Self::Gone { .. } => Code::Unavailable,
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::Host { code, .. } => *code,
        }
    }
}
