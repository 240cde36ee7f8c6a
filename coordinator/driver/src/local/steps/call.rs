//! One call of a builder, or several for one build: a builder that keeps a build is called again when the way to it broke.
//!
//! Invariants
//! - log bytes go to the log and to those interested, and to nobody else, each once and in order; a slow listener slows the
//!   build, nothing else;
//! - what is under way from a builder is less than it keeps of a log that was taken, so a call after a crash finds the rest.

use std::time::Duration;

use igloo_build::{BuildError, BuildEvent, BuildIo, BuildOutcome, BuildReport, Builder, Lease, StoredOutput};
use igloo_store::output::OutputIngest;
use nix_compat::store_path::StorePath;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::dispatch::Way;
use crate::job::Update;
use crate::local::config::NamedBuilder;
use crate::local::fault::BuildFailure;
use crate::local::logs::LogWriter;
use crate::local::shared::Shared;
use crate::request::PreparedBuild;

/// Events on their way from a builder: with 256 KiB of log each, 2 MiB.
const EVENTS_MAX: usize = 8;
/// Waits between two questions whether a build is still there: the first, and the longest.
const ASK_AFTER: Duration = Duration::from_millis(50);
const ASK_AFTER_MAX: Duration = Duration::from_secs(5);

/// A build that its builder keeps.
pub(crate) struct Kept<'a> {
    lease: &'a Lease,
    way: Way,
    /// Its end was told to a call that broke.
    is_ended: bool,
}

impl<'a> Kept<'a> {
    pub(super) fn new(lease: &'a Lease, way: Way) -> Self {
        Self {
            lease,
            way,
            is_ended: false,
        }
    }
}

/// Runs one request; what came out, when it succeeded.
pub(crate) async fn run(
    shared: &Shared,
    builder: &NamedBuilder,
    drv: &StorePath,
    prepared: &PreparedBuild,
    log: &mut LogWriter,
    mut kept: Option<Kept<'_>>,
) -> Result<(BuildReport, Vec<StoredOutput>), BuildFailure> {
    if kept.is_some() {
        log.survive();
    }
    loop {
        let castore = &shared.store().castore;
        let (ingest, collected) = OutputIngest::new(castore.clone(), prepared.request.needles.clone());
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let io = BuildIo {
            inputs: castore.clone(),
            outputs: Box::new(ingest),
            events: sender,
        };
        let call = call(builder.builder.as_ref(), prepared, log.size(), kept.as_ref(), io);
        let (ended, ()) = tokio::join!(call, watch(shared, drv, receiver, log));
        match ended {
            Ok(report) => {
                return match report.outcome {
                    BuildOutcome::Success => Ok((report, collected.take())),
                    outcome => Err(BuildFailure::Outcome(outcome)),
                };
            }
            Err(error) => {
                let is_broken = matches!(error, BuildError::Machine { .. });
                let Some(kept) = kept.as_mut().filter(|_| is_broken) else {
                    return Err(error.into());
                };
                if !is_there(shared, builder, kept).await {
                    return Err(error.into());
                }
                tracing::info!(%drv, %error, "the call of a build broke; the build is attended again");
                kept.way = Way::Attach;
            }
        }
    }
}

async fn call(
    builder: &dyn Builder,
    prepared: &PreparedBuild,
    log_from: u64,
    kept: Option<&Kept<'_>>,
    io: BuildIo,
) -> Result<BuildReport, BuildError> {
    let request = || prepared.request.clone();
    match kept {
        None => builder.build(request(), io).await,
        Some(Kept {
            lease,
            way: Way::Start,
            ..
        }) => builder.build_leased(lease, request(), io).await,
        Some(kept) => builder.attach(kept.lease, log_from, io).await,
    }
}

/// Whether a builder still has a build whose call broke. It is asked until it answers, as long as the machine waits for it.
///
/// What has ended is called for once more: a failure that comes twice is the build machine's own.
async fn is_there(shared: &Shared, builder: &NamedBuilder, kept: &mut Kept<'_>) -> bool {
    let until = Instant::now() + shared.config.machine.builder_silence_max;
    let mut wait = ASK_AFTER;
    loop {
        if let Ok(Ok(leases)) = timeout_at(until, builder.builder.leases(kept.lease.owner())).await {
            let found = leases.into_iter().find(|status| status.lease == *kept.lease);
            return found
                .is_some_and(|status| !status.is_ended || !std::mem::replace(&mut kept.is_ended, true));
        }
        if Instant::now() + wait >= until {
            return false;
        }
        sleep(wait).await;
        wait = (wait * 2).min(ASK_AFTER_MAX);
    }
}

/// Passes on what the builder reports.
async fn watch(
    shared: &Shared,
    drv: &StorePath,
    mut events: mpsc::Receiver<BuildEvent>,
    log: &mut LogWriter,
) {
    while let Some(mut event) = events.recv().await {
        if let BuildEvent::Log { sequence, bytes } = &mut event {
            let known = log.write(*sequence, bytes.clone()).await;
            if known >= bytes.len() {
                continue;
            }
            *sequence += known as u64;
            *bytes = bytes.slice(known..);
        }
        for feed in shared.watch.feeds(drv) {
            let (drv, event) = (drv.clone(), event.clone());
            feed.send(Update::Build { drv, event }).await;
        }
    }
}
