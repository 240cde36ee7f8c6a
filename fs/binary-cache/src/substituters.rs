//! Many substituters, asked as one.
//!
//! Lower priority numbers are asked first. Who does not answer within `hedge_after` is not waited for alone: the next is
//! asked as well, and the first offer counts. Who fails is passed over; a fetch that fails is tried from the next who
//! offers the same.
//!
//! Invariants
//! - a path is fetched once at a time, however many ask for it;
//! - a path is registered when all it refers to is, or with it; paths whose references cannot be had are not fetched;
//! - look-ups and fetches in flight are bounded;
//! - permits are taken in this order: fetch, look-up, then those of one cache;
//! - what was registered stays registered when something else fails or the caller leaves: the next call goes on from there.

mod error;
mod plan;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{self, Either};
use futures::stream::{FuturesUnordered, StreamExt as _};
use igloo_castore::store::StoreName;
use igloo_store::{PathInfo, Store};
use nix_compat::store_path::StorePath;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::cache_info::PRIORITY_DEFAULT;
use crate::memo::Memo;
use crate::progress::{Progress, ProgressEvent};
use crate::substituter::{FetchError, LookUpError, Offer, Substituter};
pub use error::{ManyErrors, SubstituteError};
pub use plan::Plan;

/// How long the order of substituters is kept.
const ORDER_TTL: Duration = Duration::from_secs(600);
/// Fetches that ended and are not yet cleared away, at most; those under way come on top.
const FLIGHTS_KEPT: usize = 256;
/// The same where some did not say what they are.
const ORDER_UNSURE_TTL: Duration = Duration::from_secs(15);

/// How substituters are asked together.
#[derive(Clone, Debug)]
pub struct SubstituteOptions {
    /// Paths looked up at once.
    pub look_ups_max: usize,
    /// Paths fetched at once; a fetch takes a few MiB of memory, and up to 128 MiB where a cache compresses so.
    pub fetches_max: usize,
    /// How long one substituter is waited for alone. Zero asks all at once.
    pub hedge_after: Duration,
    /// How long substituters are waited for to say what they are, once.
    pub info_wait: Duration,
    /// Paths in one plan.
    pub paths_max: usize,
}

/// 256 look-ups, 8 fetches, 200 ms, 2 s, a million paths.
impl Default for SubstituteOptions {
    fn default() -> Self {
        Self {
            look_ups_max: 256,
            fetches_max: 8,
            hedge_after: Duration::from_millis(200),
            info_wait: Duration::from_secs(2),
            paths_max: 1_000_000,
        }
    }
}

/// Substituters, and the store they fill.
#[derive(Debug)]
pub struct Substituters {
    sources: Vec<Arc<dyn Substituter>>,
    store: Store,
    options: SubstituteOptions,
    order: Memo<(), Arc<[usize]>>,
    /// Whether there was an order before.
    ordered: AtomicBool,
    look_ups: Semaphore,
    fetches: Semaphore,
    /// Fetches under way; nothing is remembered in it.
    flights: Memo<StorePath, PathInfo>,
}

/// An offer, and which substituter made it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Position of the substituter in the list given to [`Substituters::new`].
    pub source: usize,
    /// What it offers.
    pub offer: Arc<Offer>,
}

/// What became of a call of [`Substituters::substitute`].
#[derive(Debug, Default)]
pub struct Substituted {
    /// Records that are registered now and were not before.
    pub registered: Vec<PathInfo>,
    /// Paths asked for or needed that could not be had, each with its reason.
    pub failed: BTreeMap<StorePath, SubstituteError>,
}

/// The answers that were no offers, by substituter.
type Failures = Vec<(StoreName, LookUpError)>;

impl Substituters {
    /// Fills `store` from these; among equal priorities the order given counts.
    pub fn new(sources: Vec<Arc<dyn Substituter>>, store: Store, options: SubstituteOptions) -> Self {
        Self {
            sources,
            store,
            order: Memo::new(1),
            ordered: AtomicBool::new(false),
            look_ups: Semaphore::new(options.look_ups_max.max(1)),
            fetches: Semaphore::new(options.fetches_max.max(1)),
            flights: Memo::new(FLIGHTS_KEPT),
            options,
        }
    }

    /// The best offer of a path, `None` when nobody has it.
    ///
    /// # Errors
    /// `LookUp` when nobody offers it and some gave no usable answer.
    pub async fn look_up(&self, path: &StorePath) -> Result<Option<Candidate>, SubstituteError> {
        self.look_up_elsewhere(path, &[]).await
    }

    /// The best offer of each path, in the order asked. At most `look_ups_max` are looked up at once, by all callers.
    pub async fn query(&self, paths: &[StorePath]) -> Vec<Result<Option<Candidate>, SubstituteError>> {
        future::join_all(paths.iter().map(|path| self.look_up(path))).await
    }

    /// Everything that must be fetched before `wanted` and all it refers to are here. Fetches nothing.
    ///
    /// # Errors
    /// The store cannot be read, or there are more than `paths_max` paths. What cannot be had is part of the plan.
    pub async fn plan(&self, wanted: &[StorePath]) -> Result<Plan, SubstituteError> {
        plan::make(self, wanted).await
    }

    /// Fetches `wanted` and all it refers to, as far as it can be had, and registers each path after its references.
    ///
    /// # Errors
    /// Those of [`Substituters::plan`]; a path that cannot be had is told in the answer.
    pub async fn substitute(
        &self,
        wanted: &[StorePath],
        progress: &dyn Progress,
    ) -> Result<Substituted, SubstituteError> {
        let plan = self.plan(wanted).await?;
        Ok(self.execute(plan, progress).await)
    }

    /// Fetches what a plan says, and registers each path after its references.
    pub async fn execute(&self, plan: Plan, progress: &dyn Progress) -> Substituted {
        run::execute(self, plan, progress).await
    }

    /// Asks, in order and with hedging, those that are not among `tried`.
    async fn look_up_elsewhere(
        &self,
        path: &StorePath,
        tried: &[usize],
    ) -> Result<Option<Candidate>, SubstituteError> {
        let _permit = self.look_ups.acquire().await;
        let order = self.order().await;
        let mut waiting = order.iter().copied().filter(|index| !tried.contains(index));
        let mut asked = FuturesUnordered::new();
        let mut failures = Failures::new();
        let mut next = waiting.next();
        loop {
            let source = next.take().map(|index| (index, &self.sources[index]));
            if let Some((index, source)) = source {
                asked.push(async move { (index, source.look_up(path).await) });
                next = waiting.next();
            }
            let patience = async {
                match next {
                    Some(_) => sleep(self.options.hedge_after).await,
                    None => future::pending().await,
                }
            };
            match future::select(asked.next(), Box::pin(patience)).await {
                Either::Left((Some((source, Ok(Some(offer)))), _)) => {
                    return Ok(Some(Candidate { source, offer }));
                }
                Either::Left((Some((index, Err(error))), _)) => {
                    failures.push((self.sources[index].name().clone(), error));
                }
                Either::Left((None, _)) if next.is_none() => break,
                // no offer, or nobody is asked, or too slow: the next is asked
                Either::Left(_) | Either::Right(_) => {}
            }
        }
        if failures.is_empty() {
            return Ok(None);
        }
        Err(SubstituteError::LookUp {
            path: path.clone(),
            errors: ManyErrors::new(failures),
        })
    }

    /// Positions of the substituters, best first.
    async fn order(&self) -> Arc<[usize]> {
        let order = self.order.get_or_ask(&(), || async {
            // waited for once; later only what is known by then counts, so that no look-up waits for the dead
            let wait = if self.ordered.load(Ordering::Relaxed) {
                Duration::ZERO
            } else {
                self.options.info_wait
            };
            let infos = self.sources.iter().map(|source| timeout(wait, source.info()));
            let infos = future::join_all(infos).await;
            self.ordered.store(true, Ordering::Relaxed);
            let mut order: Vec<usize> = (0..self.sources.len()).collect();
            order.sort_by_key(|&index| match &infos[index] {
                Ok(Ok(info)) => info.priority,
                _ => PRIORITY_DEFAULT,
            });
            let sure = infos.iter().all(|info| matches!(info, Ok(Ok(_))));
            let keep = if sure { ORDER_TTL } else { ORDER_UNSURE_TTL };
            Ok::<_, std::convert::Infallible>((order.into(), keep))
        });
        match order.await {
            Ok(order) => order,
            Err(never) => match never {},
        }
    }

    /// Fetches one path, from its candidate or from whoever else offers the same; neither durable nor registered yet.
    ///
    /// # Errors
    /// Nobody who offers it could give it.
    pub async fn fetch(
        &self,
        path: &StorePath,
        candidate: Candidate,
        progress: &dyn Progress,
    ) -> Result<PathInfo, SubstituteError> {
        let fetch = || async {
            let info = self.fetch_from_any(path, candidate, progress).await?;
            Ok::<_, SubstituteError>((info, Duration::ZERO))
        };
        self.flights.get_or_ask(path, fetch).await
    }

    async fn fetch_from_any(
        &self,
        path: &StorePath,
        mut candidate: Candidate,
        progress: &dyn Progress,
    ) -> Result<PathInfo, SubstituteError> {
        let _permit = self.fetches.acquire().await;
        if let Some(info) = self.store.path_infos.get(path).await? {
            return Ok(info); // another call was faster
        }
        let references = candidate.offer.nar.references.clone();
        let (mut tried, mut errors) = (Vec::new(), Vec::<(StoreName, FetchError)>::new());
        loop {
            let source = &self.sources[candidate.source];
            let from = source.name();
            progress.event(ProgressEvent::Started { path, from });
            let error = match source.fetch(&candidate.offer, &self.store, progress).await {
                Ok(info) => return Ok(info),
                Err(error) => error,
            };
            progress.event(ProgressEvent::Failed {
                path,
                from,
                error: &error,
            });
            let is_ours = error.is_ours();
            errors.push((from.clone(), error));
            if is_ours {
                return Err(cannot_fetch(path, errors));
            }
            source.forget(path);
            tried.push(candidate.source);
            candidate = loop {
                match self.look_up_elsewhere(path, &tried).await {
                    // other references would need another plan
                    Ok(Some(next)) if next.offer.nar.references == references => break next,
                    Ok(Some(next)) => tried.push(next.source),
                    Ok(None) | Err(_) => return Err(cannot_fetch(path, errors)),
                }
            };
        }
    }
}

fn cannot_fetch(path: &StorePath, errors: Vec<(StoreName, FetchError)>) -> SubstituteError {
    SubstituteError::Fetch {
        path: path.clone(),
        errors: ManyErrors::new(errors),
    }
}
