//! The store is asked, and sources that lie beside derivations are taken in.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream;
use igloo_castore::ingest::PathOptions;
use igloo_coordinator::{Event, StoreAnswer, StoreKey};
use igloo_store::FactKind;
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use super::resolve::realisation_key;
use crate::local::fault::chain;
use crate::local::shared::Shared;

/// Questions of one order asked at once.
const WINDOW: usize = 32;

pub(super) fn begin(shared: &Arc<Shared>, keys: Vec<StoreKey>) {
    let step = Arc::clone(shared);
    shared.spawn(async move {
        let shared = &step;
        let answers = stream::iter(keys).map(|key| async move {
            let answer = match &key {
                StoreKey::Path(path) => path_answer(shared, path).await,
                StoreKey::Output { drv, output } => output_answer(shared, drv, output).await,
            };
            (key, answer.unwrap_or_else(|reason| StoreAnswer::Error { reason }))
        });
        let answers = answers.buffered(WINDOW).collect().await;
        shared.tell(Event::StoreAnswers(answers)).await;
    });
}

async fn path_answer(shared: &Shared, path: &StorePath) -> Result<StoreAnswer, String> {
    let answer = match present(shared, path).await? {
        StoreAnswer::Absent => import(shared, path).await?,
        answer => answer,
    };
    match &answer {
        StoreAnswer::Present { path, .. } => shared.watch.present(path),
        _ if shared.may_substitute(path) => {} // it is known when these have been asked
        _ => shared.watch.must_make(path),
    }
    Ok(answer)
}

async fn present(shared: &Shared, path: &StorePath) -> Result<StoreAnswer, String> {
    let info = shared.store().path_infos.get(path).await;
    let info = info.map_err(|error| chain(&error).join(": "))?;
    Ok(match info {
        Some(info) => StoreAnswer::Present {
            path: info.path,
            nar_size: info.nar_size,
        },
        None => StoreAnswer::Absent,
    })
}

/// Takes a source in that lies beside the derivation that needs it, when its content has that very path: as a source tree,
/// or as a text without references. Anything else that lies there is as good as missing.
async fn import(shared: &Shared, path: &StorePath) -> Result<StoreAnswer, String> {
    let Some(file) = shared.beside(path) else {
        return Ok(StoreAnswer::Absent);
    };
    let added = shared
        .store()
        .add_expected(path, &file, &PathOptions::default())
        .await;
    match added {
        Ok(true) => present(shared, path).await,
        Ok(false) => Ok(StoreAnswer::Absent),
        Err(error) => Err(chain(&error).join(": ")),
    }
}

async fn output_answer(shared: &Shared, drv: &StorePath, output: &OutputName) -> Result<StoreAnswer, String> {
    let key = realisation_key(drv, output);
    let found = shared.store().facts.get(FactKind::Realisation, &key).await;
    let found = found.map_err(|error| chain(&error).join(": "))?;
    // a damaged record is as good as none: it is found out again
    let path = found.and_then(|bytes| StorePath::parse_bytes(&bytes).ok());
    let answer = match path {
        Some(path) => present(shared, &path).await?,
        None => StoreAnswer::Absent,
    };
    if answer == StoreAnswer::Absent {
        shared.watch.must_build(drv);
    }
    Ok(answer)
}
