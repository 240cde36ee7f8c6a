//! A path is fetched, checked, and registered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use igloo_binary_cache::{Progress, ProgressEvent, SubstituteError};
use igloo_coordinator::{Event, FetchResult, SourceId};
use igloo_status::Code;
use nix_compat::store_path::StorePath;
use tokio::time::Instant;

use crate::job::{Fetched, Update};
use crate::local::fault::chain;
use crate::local::feed::Feed;
use crate::local::shared::Shared;
use crate::local::watch::FetchedRecord;

pub(super) fn begin(shared: &Arc<Shared>, path: StorePath, source: SourceId) {
    let step = Arc::clone(shared);
    let key = path.clone();
    // it is known before it can end: the task takes it out again
    let (known, may_start) = tokio::sync::oneshot::channel::<()>();
    let task = shared.spawn(async move {
        let _ = may_start.await; // the other side is sent, or dropped, at once
        let ending = Ending::new(&step, &path);
        let result = fetch(&step, &path, source, ending).await;
        step.transfers.fetch_ended(&path);
        step.tell(Event::Fetched { path, result }).await;
    });
    shared.transfers.fetch_began(key, task);
    let _ = known.send(()); // the task waits for it
}

pub(super) fn cancel(shared: &Shared, path: &StorePath) {
    if let Some(task) = shared.transfers.fetch_ended(path) {
        task.abort();
    }
}

async fn fetch(shared: &Shared, path: &StorePath, source: SourceId, ending: Ending<'_>) -> FetchResult {
    let substituters = shared.substituters.as_ref();
    let Some((substituters, candidate)) = substituters.zip(shared.watch.offer(path)) else {
        return FetchResult::Error {
            reason: format!("the offer of substituter {source} is not known any more"),
        };
    };
    let offer = Arc::clone(&candidate.offer);
    let from = offer.from.to_string();
    let update = Update::FetchStarted {
        path: path.clone(),
        from: from.clone(),
        nar_size: offer.nar.nar_size,
        download_size: offer.download_size,
    };
    shared.watch.started(path, update).await;
    let progress = Unpacked {
        path: path.clone(),
        feeds: shared.watch.feeds(path),
        bytes: AtomicU64::new(0),
    };
    let info = match substituters.fetch(path, candidate, &progress).await {
        Ok(info) => info,
        Err(error) => {
            let reason = chain(&error).join(": ");
            ending.failed(reason.clone());
            return failed(&error, reason);
        }
    };
    if let Err(error) = shared.commits.register(vec![info], Vec::new()).await {
        let reason = error.to_string();
        ending.failed(reason.clone());
        return FetchResult::Error { reason };
    }
    ending.valid(&FetchedRecord {
        fetched: Fetched {
            path: path.clone(),
            from,
            nar_size: offer.nar.nar_size,
        },
        ended: Instant::now(),
    });
    FetchResult::Valid
}

/// What came is wrong, or did not come.
fn failed(error: &SubstituteError, reason: String) -> FetchResult {
    match error.code() {
        Code::DataLoss | Code::PermissionDenied => FetchResult::Corrupt { reason },
        _ => FetchResult::Error { reason },
    }
}

/// Tells those interested how a fetch ended, also when it is dropped.
struct Ending<'a> {
    shared: &'a Shared,
    path: &'a StorePath,
    is_told: bool,
}

impl<'a> Ending<'a> {
    fn new(shared: &'a Shared, path: &'a StorePath) -> Self {
        Self {
            shared,
            path,
            is_told: false,
        }
    }

    fn valid(mut self, record: &FetchedRecord) {
        self.tell(Some(record), None);
    }

    fn failed(mut self, reason: String) {
        self.tell(None, Some(reason));
    }

    fn tell(&mut self, record: Option<&FetchedRecord>, failure: Option<String>) {
        self.is_told = true;
        let path = self.path.clone();
        self.shared
            .watch
            .ended(self.path, &Update::FetchEnded { path, failure });
        self.shared.watch.fetched(self.path, record);
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell(None, Some("it was stopped".to_owned()));
        }
    }
}

/// Progress of one fetch.
#[derive(Debug)]
struct Unpacked {
    path: StorePath,
    feeds: Vec<Arc<Feed>>,
    bytes: AtomicU64,
}

impl Progress for Unpacked {
    fn event(&self, event: ProgressEvent<'_>) {
        match event {
            ProgressEvent::Started { .. } => self.bytes.store(0, Ordering::Relaxed), // from another, perhaps
            ProgressEvent::Unpacked { size, .. } => {
                let bytes = self.bytes.fetch_add(size, Ordering::Relaxed).saturating_add(size);
                for feed in &self.feeds {
                    feed.fetched(&self.path, bytes);
                }
            }
            _ => {}
        }
    }
}
