//! Outputs are signed and registered, with where they come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use igloo_build::BuildStats;
use igloo_coordinator::{CommitResult, Event, Provenance};
use igloo_store::PathInfo;
use igloo_store::facts::{Fact, FactKind};
use nix_compat::derivation::OutputName;
use nix_compat::narinfo::fingerprint;
use nix_compat::store_path::StorePath;
use tokio::time::Instant;

use super::dispatch::FailedRun;
use super::resolve::realisation;
use crate::job::{BuildEnded, FailureKind, FailureReport};
use crate::local::provenance::ProvenanceRecord;
use crate::local::shared::Shared;
use crate::local::totals::Total;
use crate::local::watch::BuiltRecord;
use crate::outputs::Realisation;

/// A build that ended well, not yet committed.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub infos: Vec<PathInfo>,
    pub outputs: BTreeMap<OutputName, StorePath>,
    /// Outputs whose paths were not known before.
    pub realisations: Vec<Realisation>,
    pub request: [u8; 32],
    pub builder: String,
    pub stats: BuildStats,
    pub totals: Total,
    pub started: Instant,
}

pub(super) fn begin(shared: &Arc<Shared>, drv: StorePath, provenance: Provenance) {
    let step = Arc::clone(shared);
    shared.spawn(async move {
        let lease = provenance.lease;
        let result = match step.transfers.take_finished(lease) {
            Some(finished) => commit(&step, &drv, &provenance, finished).await,
            None => CommitResult::Error {
                reason: "its outputs are not known any more".to_owned(),
            },
        };
        step.tell(Event::Committed { lease, result }).await;
        step.release(lease).await;
    });
}

async fn commit(
    shared: &Shared,
    drv: &StorePath,
    provenance: &Provenance,
    mut finished: Finished,
) -> CommitResult {
    for info in &mut finished.infos {
        sign(shared, info);
    }
    let facts = facts(shared, drv, provenance, &finished);
    let infos = std::mem::take(&mut finished.infos);
    if let Err(error) = shared.commits.register(infos, facts).await {
        let reason = error.to_string();
        let report = FailureReport {
            path: drv.clone(),
            kind: FailureKind::Infrastructure,
            headline: format!("cannot build '{}'", shared.store().dir.print(drv)),
            causes: vec![format!("its outputs cannot be registered: {reason}")],
            log_tail: Vec::new(),
            code: error.code,
        };
        let failed = FailedRun {
            drv: drv.clone(),
            report,
            is_cancelled: false,
        };
        shared.transfers.put_failed(provenance.lease, failed);
        return CommitResult::Error { reason };
    }
    let record = BuiltRecord {
        drv: drv.clone(),
        outputs: finished.outputs,
        stats: finished.stats.clone(),
        input_bytes: finished.totals.bytes,
        input_files: finished.totals.files,
        started: finished.started,
        ended: Instant::now(),
    };
    shared.watch.built(drv, &record);
    let end = BuildEnded::Registered(Box::new(finished.stats));
    shared.watch.build_ended(drv, end);
    CommitResult::Valid
}

/// Signs with every key, as Nix does for what it builds.
fn sign(shared: &Shared, info: &mut PathInfo) {
    if shared.config.secret_keys.is_empty() {
        return;
    }
    let dir = &shared.store().dir;
    let text = fingerprint(dir, &info.path, &info.nar_sha256, info.nar_size, &info.references);
    let keys = shared.config.secret_keys.iter();
    info.signatures.extend(keys.map(|key| key.sign(text.as_bytes())));
}

fn facts(shared: &Shared, drv: &StorePath, provenance: &Provenance, finished: &Finished) -> Vec<Fact> {
    let record = ProvenanceRecord {
        drv: drv.clone(),
        request: finished.request,
        builder: finished.builder.clone(),
        machine: finished.stats.machine.clone(),
        lease: provenance.lease.0,
        attempt: provenance.attempt,
        ordered: shared.clock.wall(provenance.ordered),
        ended: shared.clock.wall(provenance.ended),
    };
    let record = record.encode();
    let paths = finished.infos.iter().map(|info| info.path.to_string());
    let mut facts: Vec<Fact> = paths
        .map(|path| (FactKind::Provenance, path.into(), record.clone()))
        .collect();
    let realisations = finished.realisations.iter();
    facts.extend(realisations.map(|made| realisation(drv, &made.output, &made.path)));
    facts
}
