//! A build is given to a builder, or found with one, watched ([`super::call`]), and its outputs are taken in and checked.
//!
//! Invariants
//! - a build that is stopped has left nothing behind when that is told;
//! - a builder that keeps a build ([`crate::local::leases`]) keeps it until its end has been dealt with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use igloo_coordinator::{BuildEnd, BuildFault, BuilderId, Dispatch, Event, LeaseId, MadeOutput};
use nix_compat::derivation::{Derivation, DerivationKind, OutputName};
use nix_compat::store_path::StorePath;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::call::{self, Kept};
use super::commit::Finished;
use crate::builtin;
use crate::job::{FailureReport, JobOptions, Update};
use crate::local::config::NamedBuilder;
use crate::local::fault::{BuildFailure, Given};
use crate::local::infos::Reading;
use crate::local::leases::Held;
use crate::local::logs::LogWriter;
use crate::local::provenance::request_digest;
use crate::local::shared::{Shared, Stop};
use crate::outputs;
use crate::request::{InputClosure, PreparedBuild, RequestOptions, prepare};

/// A failure on its way to the machine, which says whether it is tried again.
#[derive(Clone, Debug)]
pub(crate) struct FailedRun {
    pub drv: StorePath,
    pub report: FailureReport,
    pub is_cancelled: bool,
}

/// How a build comes under our eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is started.
    Start,
    /// Its builder has it already.
    Attach,
}

pub(super) fn begin(shared: &Arc<Shared>, order: Dispatch, way: Way) {
    let lease = order.lease;
    let Some(stopped) = shared.transfers.run_began(lease, order.builder) else {
        return; // it is attended
    };
    let step = Arc::clone(shared);
    shared.spawn(async move {
        let end = run(&step, &order, way, stopped).await;
        step.transfers.run_ended(lease);
        let has_failed = matches!(end, BuildEnd::Failed(_));
        step.tell(Event::Ended { lease, end }).await;
        if has_failed {
            step.release(lease).await;
        }
    });
}

pub(super) fn cancel(shared: &Arc<Shared>, lease: LeaseId, builder: BuilderId) {
    if shared.transfers.stop_run(lease) {
        return; // its end is told when it has stopped
    }
    // one that ended a moment ago answers by itself; a repeated answer is ignored
    let step = Arc::clone(shared);
    shared.spawn(async move {
        step.release_at(builder, lease).await;
        let end = BuildEnd::Failed(BuildFault::Cancelled);
        step.tell(Event::Ended { lease, end }).await;
    });
}

async fn run(shared: &Shared, order: &Dispatch, way: Way, stopped: oneshot::Receiver<Stop>) -> BuildEnd {
    let Some(builder) = shared.pool.get(order.builder) else {
        let reason = "the builder is gone".to_owned();
        return BuildEnd::Failed(BuildFault::Infrastructure { reason });
    };
    let build = async {
        let drv = &order.drv;
        shared.watch.must_build(drv);
        let update = Update::BuildStarted {
            drv: drv.clone(),
            attempt: order.attempt,
            builder: builder.name.clone(),
            expected: shared.watch.drv(drv).and_then(|info| info.estimate),
            for_evaluation: shared.watch.for_evaluation(drv),
        };
        shared.watch.started(drv, update).await;
        attempt(shared, order, way, &builder).await
    };
    let result = tokio::select! {
        result = build => result,
        why = stopped => {
            let why = why.unwrap_or(Stop::Unwanted);
            if why == Stop::Unwanted {
                shared.release(order.lease).await;
            }
            shared.logs.forget(order.lease.0);
            Err(stopped_run(shared, &order.drv, why))
        }
    };
    match result {
        Ok(finished) => {
            let run = finished.stats.run;
            if let Some(info) = shared.watch.drv(&order.drv) {
                shared.built_in(&order.drv, &info.needs.system, run.max(Duration::from_millis(1)));
            }
            let outputs = made(&finished);
            shared.transfers.put_finished(order.lease, finished);
            BuildEnd::Built { outputs, run }
        }
        Err((fault, failed)) => {
            shared.transfers.put_failed(order.lease, failed);
            BuildEnd::Failed(fault)
        }
    }
}

type Failed = (BuildFault, FailedRun);

fn stopped_run(shared: &Shared, drv: &StorePath, why: Stop) -> Failed {
    let failure = BuildFailure::Cancelled;
    let fault = match why {
        Stop::Unwanted => BuildFault::Cancelled,
        Stop::BuilderGone => BuildFault::Infrastructure {
            reason: "the builder is gone".to_owned(),
        },
    };
    let failed = FailedRun {
        drv: drv.clone(),
        report: failure.report(&shared.store().dir, drv, Vec::new()),
        is_cancelled: why == Stop::Unwanted,
    };
    (fault, failed)
}

fn made(finished: &Finished) -> Vec<MadeOutput> {
    let size_of = |path: &StorePath| {
        let mut infos = finished.infos.iter();
        infos
            .find(|info| info.path == *path)
            .map_or(0, |info| info.nar_size)
    };
    let outputs = finished.outputs.iter();
    outputs
        .map(|(name, path)| MadeOutput {
            name: name.clone(),
            path: path.clone(),
            nar_size: size_of(path),
        })
        .collect()
}

/// One try: the build, and all that its failure needs to be told.
async fn attempt(
    shared: &Shared,
    order: &Dispatch,
    way: Way,
    builder: &NamedBuilder,
) -> Result<Finished, Failed> {
    let options = shared.watch.options(&order.drv);
    let memory_mib = order.memory_mib.max(options.memory_mib);
    let mut given = Given {
        is_fixed: false,
        memory_mib: if memory_mib > 0 {
            memory_mib
        } else {
            builder.build_memory_mib
        },
    };
    let mut log = match way {
        Way::Start => shared.logs.begin(&order.drv, order.lease.0),
        Way::Attach => shared.logs.resume(&order.drv, order.lease.0).await,
    };
    let wish = Wish {
        options: &options,
        memory_mib,
        way,
    };
    let result = build(shared, order, builder, wish, &mut given, &mut log).await;
    let tail = log.finish().await;
    result.map_err(|failure| {
        let failed = FailedRun {
            drv: order.drv.clone(),
            report: failure.report(&shared.store().dir, &order.drv, tail),
            is_cancelled: false,
        };
        (failure.fault(given), failed)
    })
}

/// How something is to be built.
#[derive(Clone, Copy)]
struct Wish<'a> {
    options: &'a JobOptions,
    memory_mib: u32,
    way: Way,
}

async fn build(
    shared: &Shared,
    order: &Dispatch,
    builder: &NamedBuilder,
    wish: Wish<'_>,
    given: &mut Given,
    log: &mut LogWriter,
) -> Result<Finished, BuildFailure> {
    let started = Instant::now();
    let reading = if order.attempt > 1 {
        Reading::Anew // what was read before may be what went wrong
    } else {
        Reading::Remembered
    };
    let prepared = prepare_build(shared, &order.drv, wish.options, wish.memory_mib, reading).await?;
    let builtin = prepared
        .is_builtin()
        .then(|| shared.pool.any_for(builtin::SYSTEM))
        .flatten();
    let builder = builtin.as_deref().unwrap_or(builder);
    given.is_fixed = prepared.is_fixed();
    let totals = shared
        .totals
        .of(&shared.store().castore, prepared.closure.values());
    let held = hold(shared, order, builder);
    let kept = held.as_ref().map(|held| Kept::new(&held.lease, wish.way));
    let watched = call::run(shared, builder, &order.drv, &prepared.request, log, kept);
    let (totals, ended) = tokio::join!(totals, watched);
    let (report, outputs) = ended?;
    let finished = outputs::finish(
        shared.store(),
        &order.drv,
        &prepared.derivation,
        &prepared.request,
        outputs,
    )
    .await?;
    Ok(Finished {
        infos: finished.infos,
        outputs: finished.outputs,
        realisations: finished.realisations,
        request: request_digest(&prepared.request.request),
        builder: builder.name.clone(),
        stats: report.stats,
        totals,
        started,
    })
}

/// Notes that a builder keeps the build, where it does: from before it is asked for until it is released.
fn hold(shared: &Shared, order: &Dispatch, builder: &NamedBuilder) -> Option<Held> {
    builder.builder.offer().unattended?;
    let held = Held {
        builder: Arc::clone(&builder.builder),
        lease: shared.lease(&order.drv, order.lease)?,
    };
    shared.transfers.hold(order.lease, held.clone());
    Some(held)
}

/// All that a build needs to know.
pub(crate) struct Prepared {
    pub derivation: Arc<Derivation>,
    pub kind: DerivationKind,
    pub closure: InputClosure,
    pub request: PreparedBuild,
}

impl Prepared {
    fn is_fixed(&self) -> bool {
        self.kind == DerivationKind::CaFixed
    }

    /// Whether its builder is part of Nix, whatever system it says.
    fn is_builtin(&self) -> bool {
        self.derivation.builder.starts_with(builtin::PREFIX.as_bytes())
    }
}

/// Reads a derivation whose inputs are there, and makes its request.
pub(crate) async fn prepare_build(
    shared: &Shared,
    drv: &StorePath,
    options: &JobOptions,
    memory_mib: u32,
    reading: Reading,
) -> Result<Prepared, BuildFailure> {
    let derivation = shared.derivation(drv).await?;
    let mut roots: BTreeSet<StorePath> = derivation.input_srcs.clone();
    for (input, names) in &derivation.input_drvs {
        add_outputs(shared, input, names, &mut roots).await?;
    }
    let closure = shared.infos.closure(shared.store(), roots, reading).await?;
    let environment = options.impure_environment.iter();
    let request_options = RequestOptions {
        cores: options.cores,
        memory_mib,
        limits: options.limits.clone(),
        impure_environment: environment
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect(),
    };
    let request = prepare(shared.store(), drv, &derivation, &closure, &request_options).await?;
    let kind = derivation.kind().map_err(crate::request::RequestError::from)?;
    Ok(Prepared {
        derivation,
        kind,
        closure,
        request,
    })
}

/// The paths of an input derivation's outputs. All are known: what floats was resolved before.
async fn add_outputs(
    shared: &Shared,
    input: &StorePath,
    names: &BTreeSet<OutputName>,
    roots: &mut BTreeSet<StorePath>,
) -> Result<(), BuildFailure> {
    let known = names.iter().map(|name| shared.watch.output(input, name));
    if let Some(paths) = known.collect::<Option<Vec<_>>>() {
        roots.extend(paths);
        return Ok(());
    }
    let derivation = shared.derivation(input).await?;
    let paths = crate::request::output_paths(&shared.store().dir, &derivation)?;
    let wanted = paths.into_iter().filter(|(name, _)| names.contains(name));
    roots.extend(wanted.map(|(_, path)| path));
    Ok(())
}
