//! One derivation: request, build, checks, registering.

use std::collections::BTreeMap;

use igloo_build::{BuildError, BuildEvent, BuildIo, BuildOutcome, BuildStats};
use igloo_status::Code;
use igloo_store::output::{IngestedOutput, OutputIngest};
use igloo_store::{ClosureError, CommitError};
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;
use tokio::sync::mpsc;

use super::{Realise, RealiseEvent, RealiseEventKind};
use crate::outputs::{self, OutputError};
use crate::plan::PlannedBuild;
use crate::request::{PreparedBuild, RequestError, prepare};

/// Events on their way from a builder.
const EVENTS_MAX: usize = 64;

/// A derivation that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The derivation.
    pub drv_path: StorePath,
    /// Its outputs.
    pub outputs: BTreeMap<OutputName, StorePath>,
    /// What it used.
    pub stats: BuildStats,
}

impl Realise {
    pub(super) async fn build_one(
        &self,
        planned: &PlannedBuild,
        events: &mpsc::Sender<RealiseEvent>,
    ) -> Result<Built, BuildFailure> {
        let derivation = &planned.derivation;
        let roots = derivation.input_srcs.iter().chain(&planned.inputs);
        let closure = self.store.closure(roots.cloned()).await?;
        let options = &self.options;
        let prepared = prepare(&self.store, &planned.drv_path, derivation, &closure, options).await?;
        let (stats, outputs) = self.run_builder(planned, &prepared, events).await?;
        let finished =
            outputs::finish(&self.store, &planned.drv_path, derivation, &prepared, outputs).await?;
        self.store.register(finished.infos).await?;
        Ok(Built {
            drv_path: planned.drv_path.clone(),
            outputs: finished.outputs,
            stats,
        })
    }

    async fn run_builder(
        &self,
        planned: &PlannedBuild,
        prepared: &PreparedBuild,
        events: &mpsc::Sender<RealiseEvent>,
    ) -> Result<(BuildStats, Vec<IngestedOutput>), BuildFailure> {
        let (ingest, collected) =
            OutputIngest::new(self.store.castore.clone(), prepared.request.needles.clone());
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let io = BuildIo {
            inputs: self.store.castore.clone(),
            outputs: Box::new(ingest),
            events: sender,
        };
        let build = self.builder.build(prepared.request.clone(), io);
        let (report, ()) = tokio::join!(build, forward(receiver, &planned.drv_path, events));
        let report = report?;
        match report.outcome {
            BuildOutcome::Success => Ok((report.stats, collected.take())),
            outcome => Err(BuildFailure::Outcome(outcome)),
        }
    }
}

async fn forward(
    mut from: mpsc::Receiver<BuildEvent>,
    drv_path: &StorePath,
    to: &mpsc::Sender<RealiseEvent>,
) {
    while let Some(event) = from.recv().await {
        let event = RealiseEvent {
            drv_path: drv_path.clone(),
            kind: RealiseEventKind::Build(event),
        };
        let _ = to.send(event).await; // nobody listens any more: the build goes on
    }
}

/// Why a derivation was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailure {
    /// The build ran, and did not succeed.
    #[error("{}", describe(.0))]
    Outcome(BuildOutcome),
    /// The build succeeded, and what it left breaks a rule.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// An input has gone since the plan was made, or the store is damaged.
    #[error("its inputs are not whole")]
    Inputs(#[from] ClosureError),
    /// It cannot be built by igloo.
    #[error("igloo cannot build it")]
    Request(#[from] RequestError),
    /// The machine or the host failed, not the build.
    #[error(transparent)]
    Builder(#[from] BuildError),
    /// The outputs cannot be registered.
    #[error("its outputs cannot be registered")]
    Commit(#[from] CommitError),
}

impl BuildFailure {
    /// The first line of a message about it, in Nix's words where Nix has them.
    pub(super) fn headline(&self, drv_path: &str) -> String {
        match self {
            Self::Outcome(outcome) => format!("builder for '{drv_path}' {}", describe(outcome)),
            Self::Output(error) => error.headline(drv_path),
            _ => format!("cannot build '{drv_path}'"),
        }
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Outcome(BuildOutcome::OutOfMemory | BuildOutcome::DiskFull) => Code::ResourceExhausted,
            Self::Outcome(_) => Code::FailedPrecondition,
            Self::Output(error) => error.code(),
            Self::Request(error) => error.code(),
            Self::Builder(error) => error.code(),
            Self::Inputs(error) => error.code(),
            Self::Commit(error) => error.code(),
        }
    }
}

fn describe(outcome: &BuildOutcome) -> String {
    match outcome {
        BuildOutcome::Success => "succeeded".into(),
        BuildOutcome::ExitCode(code) => format!("failed with exit code {code}"),
        BuildOutcome::Signal(signal) => format!("failed due to signal {signal}"),
        BuildOutcome::StartFailed { reason } => format!("could not be started: {reason}"),
        BuildOutcome::Timeout { limit } => format!("timed out after {} seconds", limit.as_secs()),
        BuildOutcome::Silence { limit } => format!("timed out after {} seconds of silence", limit.as_secs()),
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
