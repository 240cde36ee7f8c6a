//! Derivations are read.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream;
use igloo_coordinator::{DrvInfo, Event};
use nix_compat::store_path::StorePath;

use crate::local::fault::chain;
use crate::local::shared::Shared;

/// Derivations read at once for one order.
const WINDOW: usize = 16;

pub(super) fn begin(shared: &Arc<Shared>, drvs: Vec<StorePath>) {
    let step = Arc::clone(shared);
    shared.spawn(async move {
        let shared = &step;
        stream::iter(drvs)
            .for_each_concurrent(WINDOW, |drv| async move {
                let event = match read(shared, &drv).await {
                    Ok(info) => Event::DrvKnown(Box::new(info)),
                    Err(reason) => Event::DrvUnreadable { drv, reason },
                };
                shared.tell(event).await;
            })
            .await;
    });
}

/// What is to be known of a derivation.
pub(super) async fn read(shared: &Shared, drv: &StorePath) -> Result<DrvInfo, String> {
    let derivation = shared.derivation(drv).await;
    let derivation = derivation.map_err(|error| chain(&error).join(": "))?;
    let info = shared.describe(drv, &derivation);
    let info = info.map_err(|error| chain(&error).join(": "))?;
    shared.watch.learn(Arc::new(info.clone()));
    Ok(info)
}
