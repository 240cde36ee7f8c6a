//! Derivations get their inputs' paths, and outputs that are found out are noted.

use std::sync::Arc;

use bytes::Bytes;
use igloo_coordinator::{DrvInfo, Event, ResolvedInput};
use igloo_store::facts::{Fact, FactKind};
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use crate::local::fault::chain;
use crate::local::shared::Shared;

pub(super) fn begin(shared: &Arc<Shared>, drv: StorePath, inputs: Vec<ResolvedInput>) {
    let step = Arc::clone(shared);
    shared.spawn(async move {
        let resolved = resolve(&step, &drv, &inputs).await.map(Box::new);
        step.tell(Event::Resolved { drv, resolved }).await;
    });
}

async fn resolve(shared: &Shared, drv: &StorePath, inputs: &[ResolvedInput]) -> Result<DrvInfo, String> {
    let text = |error: &dyn std::error::Error| chain(error).join(": ");
    let dir = &shared.store().dir;
    let derivation = shared.derivation(drv).await.map_err(|error| text(&error))?;
    let resolved = igloo_coordinator::resolve(dir, &derivation, inputs);
    let (path, resolved) = resolved.map_err(|error| text(&error))?;
    let info = shared.describe(&path, &resolved).map_err(|error| text(&error))?;
    if path != *drv {
        // whoever reads its path in a log, or after a restart, finds it in the store
        let aterm = resolved.to_aterm(dir).map_err(|error| text(&error))?;
        let added = shared
            .store()
            .add_text(path.name(), Bytes::from(aterm), resolved.references())
            .await;
        added.map_err(|error| text(&error))?;
        shared.keep_derivation(&path, Arc::new(resolved));
    }
    shared.watch.resolved(drv, Arc::new(info.clone()));
    Ok(info)
}

pub(super) fn note(shared: &Arc<Shared>, drv: StorePath, outputs: Vec<(OutputName, StorePath)>) {
    let step = Arc::clone(shared);
    shared.spawn(async move {
        let facts = outputs
            .iter()
            .map(|(output, path)| realisation(&drv, output, path));
        if let Err(error) = step.store().facts.put(facts.collect()).await {
            tracing::warn!(%drv, %error, "realisations cannot be noted; they will be found out again");
        }
    });
}

/// That an output has a path.
pub(crate) fn realisation(drv: &StorePath, output: &OutputName, path: &StorePath) -> Fact {
    let value = Bytes::from(path.to_string());
    (FactKind::Realisation, realisation_key(drv, output), value)
}

/// Under which the path of an output is kept: `HASH-NAME.drv!OUTPUT`.
pub(crate) fn realisation_key(drv: &StorePath, output: &OutputName) -> Bytes {
    Bytes::from(format!("{drv}!{output}"))
}
