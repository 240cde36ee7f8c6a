//! Goals that were there are built again, and what comes out is compared.
//!
//! This goes past the state machine: nothing is made valid by it, so there is nothing to decide but whether inputs are there,
//! and these are wanted as goals are. One goal after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future;
use igloo_coordinator::{Answer, DrvInfo, Failure, Purpose, Target};
use igloo_status::Code;
use nix_compat::derivation::DerivationKind;
use nix_compat::store_path::StorePath;
use tokio::time::Instant;

use super::config::NamedBuilder;
use super::fault::{BuildFailure, chain};
use super::infos::Reading;
use super::logs::LogWriter;
use super::run::Client;
use super::steps::call;
use super::steps::dispatch::prepare_build;
use super::totals::Total;
use super::watch::{BuiltRecord, GoalEnd};
use crate::job::{BuildEnded, FailureKind, FailureReport, JobError, Update};
use crate::outputs;

/// Tells the logs of checks from those of leases.
static CHECKS: AtomicU64 = AtomicU64::new(1 << 63);

/// Builds goals again that were there before the job, where it asks for that; those that differ have failed.
pub(super) async fn rebuild(client: &Arc<Client>, ends: Vec<GoalEnd>) -> Result<Vec<GoalEnd>, JobError> {
    if !client.options.check {
        return Ok(ends);
    }
    let mut checked = Vec::with_capacity(ends.len());
    let mut stopped = false;
    for end in ends {
        let drv = end.goal.drv.clone();
        let was_there = matches!(end.answer, Answer::Valid { .. })
            && drv.name().ends_with(".drv")
            && !client.shared.watch.has_built(client.id, &drv);
        if stopped || !was_there {
            checked.push(end);
            continue;
        }
        let Some(report) = check(client, &drv).await? else {
            checked.push(end);
            continue;
        };
        let failure = Failure {
            root: Some(drv),
            kind: igloo_coordinator::FailureKind::Permanent,
            reason: report.headline.clone(),
        };
        client.shared.watch.check_failed(client.id, report);
        stopped = !client.options.keep_going;
        checked.push(GoalEnd {
            goal: end.goal,
            answer: Answer::Failed(Arc::new(failure)),
        });
    }
    Ok(checked)
}

/// Why a derivation failed its check, if it did.
async fn check(client: &Arc<Client>, drv: &StorePath) -> Result<Option<FailureReport>, JobError> {
    let shared = &client.shared;
    let refuse = |reason: String, code| {
        Some(FailureReport {
            path: drv.clone(),
            kind: FailureKind::Unavailable,
            headline: format!("cannot check '{}'", shared.store().dir.print(drv)),
            causes: vec![reason],
            log_tail: Vec::new(),
            code,
        })
    };
    let described = match shared.derivation(drv).await {
        Ok(derivation) => shared
            .describe(drv, &derivation)
            .map_err(|error| (chain(&error).join(": "), error.code())),
        Err(error) => Err((chain(&error).join(": "), error.code())),
    };
    let info = match described {
        Ok(info) => info,
        Err((reason, code)) => return Ok(refuse(reason, code)),
    };
    if matches!(info.kind, DerivationKind::CaFloating | DerivationKind::Deferred) {
        let reason = "checks of outputs whose paths are found by building are not done yet";
        return Ok(refuse(reason.to_owned(), Code::Unimplemented));
    }
    if let Some(failure) = want_inputs(client, &info).await? {
        return Ok(Some(shared.watch.failure_report(&failure, drv)));
    }
    let Some(builder) = shared.pool.any_for(&info.needs.system) else {
        let reason = format!("no builder takes builds for system '{}'", info.needs.system);
        return Ok(refuse(reason, Code::Unimplemented));
    };
    Ok(build_again(client, drv, &builder).await)
}

async fn want_inputs(client: &Arc<Client>, info: &DrvInfo) -> Result<Option<Arc<Failure>>, JobError> {
    let inputs = info.inputs.iter().map(|(drv, names)| Target::Outputs {
        drv: drv.clone(),
        outputs: names.iter().cloned().collect(),
    });
    let sources = info.sources.iter().cloned().map(Target::Path);
    let mut answers = Vec::new();
    for target in inputs.chain(sources) {
        answers.push(client.want(client.next_want(), target, Purpose::Goal).await);
    }
    let mut failed = None;
    for answer in future::join_all(answers).await {
        match answer.map_err(|_| client.gone())? {
            Answer::Valid { .. } | Answer::Cancelled => {}
            Answer::Failed(failure) => failed = Some(failure),
        }
    }
    Ok(failed)
}

async fn build_again(client: &Arc<Client>, drv: &StorePath, builder: &NamedBuilder) -> Option<FailureReport> {
    let shared = &client.shared;
    let update = Update::BuildStarted {
        drv: drv.clone(),
        attempt: 1,
        builder: builder.name.clone(),
        expected: None,
        for_evaluation: false,
    };
    client.feed.send(update).await;
    let number = CHECKS.fetch_add(1, Ordering::Relaxed);
    let mut log = shared.logs.begin(drv, number);
    let result = compare(client, drv, builder, &mut log).await;
    let tail = log.finish().await;
    let (end, report) = match result {
        Ok(Compared::Same(record)) => {
            let end = BuildEnded::Registered(Box::new(record.stats.clone()));
            shared.watch.checked(client.id, *record);
            (end, None)
        }
        Ok(Compared::Differs(path)) => failed(not_deterministic(client, drv, &path)),
        Err(failure) => failed(failure.report(&shared.store().dir, drv, tail)),
    };
    let drv = drv.clone();
    client.feed.send_now(Update::BuildEnded { drv, end });
    report
}

fn failed(report: FailureReport) -> (BuildEnded, Option<FailureReport>) {
    (BuildEnded::Failed(Box::new(report.clone())), Some(report))
}

enum Compared {
    Same(Box<BuiltRecord>),
    Differs(StorePath),
}

async fn compare(
    client: &Client,
    drv: &StorePath,
    builder: &NamedBuilder,
    log: &mut LogWriter,
) -> Result<Compared, BuildFailure> {
    let shared = &client.shared;
    let started = Instant::now();
    let options = &client.options;
    let prepared = prepare_build(shared, drv, options, options.memory_mib, Reading::Anew).await?;
    let (report, made) = call::run(shared, builder, drv, &prepared.request, log, None).await?;
    let derivation = &prepared.derivation;
    let finished = outputs::finish(shared.store(), drv, derivation, &prepared.request, made).await?;
    for info in &finished.infos {
        let known = shared.store().path_infos.get(&info.path).await;
        let known = known.map_err(igloo_store::ClosureError::from)?;
        if known.is_some_and(|known| known.nar_sha256 != info.nar_sha256) {
            return Ok(Compared::Differs(info.path.clone()));
        }
    }
    let Total { bytes, files } = shared
        .totals
        .of(&shared.store().castore, prepared.closure.values())
        .await;
    Ok(Compared::Same(Box::new(BuiltRecord {
        drv: drv.clone(),
        outputs: finished.outputs,
        stats: report.stats,
        input_bytes: bytes,
        input_files: files,
        started,
        ended: Instant::now(),
    })))
}

fn not_deterministic(client: &Client, drv: &StorePath, path: &StorePath) -> FailureReport {
    let dir = &client.shared.store().dir;
    FailureReport {
        path: drv.clone(),
        kind: FailureKind::NotDeterministic,
        headline: format!(
            "derivation '{}' may not be deterministic: output '{}' differs",
            dir.print(drv),
            dir.print(path)
        ),
        causes: Vec::new(),
        log_tail: Vec::new(),
        code: Code::FailedPrecondition,
    }
}
