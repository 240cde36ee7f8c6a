//! Runs a plan: several builds at once, inputs before what needs them, outputs registered as they come.
//!
//! Invariants
//! - at most `slots` builds run at once;
//! - a build starts only when everything it needs is registered;
//! - dropping [`Realise::run`]'s future cancels what runs and registers nothing more.

mod build;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use build::{BuildFailure, Built};
use futures::stream::{FuturesUnordered, StreamExt as _};
use igloo_build::{BuildEvent, BuildStats, Builder};
use igloo_store::Store;
use nix_compat::store_path::StorePath;
use tokio::sync::mpsc;

use crate::plan::{Plan, PlannedBuild};
use crate::request::RequestOptions;

/// Runs plans on a builder.
#[derive(Clone, Debug)]
pub struct Realise {
    /// Where inputs are and outputs go.
    pub store: Store,
    /// What builds.
    pub builder: Arc<dyn Builder>,
    /// What requests take from the caller.
    pub options: RequestOptions,
    /// Builds at once.
    pub slots: usize,
    /// Whether other builds go on when one fails.
    pub keep_going: bool,
}

/// Something that happened to one derivation.
#[derive(Debug)]
pub struct RealiseEvent {
    /// The derivation.
    pub drv_path: StorePath,
    /// What happened.
    pub kind: RealiseEventKind,
}

/// What happened.
#[derive(Debug)]
pub enum RealiseEventKind {
    /// It has everything it needs and goes to the builder.
    Began,
    /// The builder reports.
    Build(BuildEvent),
    /// Its outputs are registered.
    Registered {
        /// What it used.
        stats: BuildStats,
    },
    /// It failed.
    Failed {
        /// Why, on one line.
        reason: String,
    },
}

/// How a plan ended.
#[derive(Debug, Default)]
pub struct Realised {
    /// What was built.
    pub built: Vec<Built>,
    /// What failed.
    pub failed: Vec<RealiseError>,
    /// What could not be tried because something it needs failed.
    pub not_tried: Vec<StorePath>,
}

/// A derivation that was not built.
#[derive(Debug, thiserror::Error)]
#[error("{}", failure.headline(drv_path))]
pub struct RealiseError {
    /// The derivation, as a printed store path.
    pub drv_path: String,
    /// Why.
    #[source]
    pub failure: BuildFailure,
}

impl Realise {
    /// Runs the plan to its end, or to its first failure unless `keep_going`.
    ///
    /// Events wait for a slow listener. A dropped listener is no failure.
    pub async fn run(&self, plan: &Plan, events: mpsc::Sender<RealiseEvent>) -> Realised {
        let mut queue = Queue::new(plan);
        let mut running = FuturesUnordered::new();
        let mut realised = Realised::default();
        loop {
            while running.len() < self.slots.max(1)
                && let Some(index) = queue.next_ready()
            {
                let (planned, events) = (&plan.builds[index], events.clone());
                running.push(async move { (index, self.build(planned, events).await) });
            }
            let Some((index, result)) = running.next().await else {
                break;
            };
            match result {
                Ok(built) => {
                    realised.built.push(built);
                    queue.finished(index);
                }
                Err(failure) => {
                    let drv_path = self.store.dir.print(&plan.builds[index].drv_path);
                    realised.failed.push(RealiseError { drv_path, failure });
                    queue.failed(index);
                    if !self.keep_going {
                        break; // dropping `running` cancels the others
                    }
                }
            }
        }
        drop(running);
        realised.not_tried = queue.not_tried(plan);
        realised
    }

    async fn build(
        &self,
        planned: &PlannedBuild,
        events: mpsc::Sender<RealiseEvent>,
    ) -> Result<Built, BuildFailure> {
        let send = |kind| {
            let event = RealiseEvent {
                drv_path: planned.drv_path.clone(),
                kind,
            };
            let events = &events;
            async move {
                let _ = events.send(event).await; // nobody listens any more: the build goes on
            }
        };
        send(RealiseEventKind::Began).await;
        let result = self.build_one(planned, &events).await;
        let ended = match &result {
            Ok(built) => RealiseEventKind::Registered {
                stats: built.stats.clone(),
            },
            Err(failure) => RealiseEventKind::Failed {
                reason: failure.to_string(),
            },
        };
        send(ended).await;
        result
    }
}

/// Which builds may start.
struct Queue {
    waiting_for: Vec<usize>,
    dependents: BTreeMap<usize, Vec<usize>>,
    ready: VecDeque<usize>,
    settled: BTreeSet<usize>,
}

impl Queue {
    fn new(plan: &Plan) -> Self {
        let mut dependents: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, build) in plan.builds.iter().enumerate() {
            for needed in &build.after {
                dependents.entry(*needed).or_default().push(index);
            }
        }
        let waiting_for: Vec<usize> = plan.builds.iter().map(|build| build.after.len()).collect();
        let ready = (0..plan.builds.len())
            .filter(|index| waiting_for[*index] == 0)
            .collect();
        Self {
            waiting_for,
            dependents,
            ready,
            settled: BTreeSet::new(),
        }
    }

    fn next_ready(&mut self) -> Option<usize> {
        let index = self.ready.pop_front()?;
        self.settled.insert(index);
        Some(index)
    }

    fn finished(&mut self, index: usize) {
        for dependent in self.dependents.remove(&index).unwrap_or_default() {
            self.waiting_for[dependent] -= 1;
            if self.waiting_for[dependent] == 0 {
                self.ready.push_back(dependent);
            }
        }
    }

    /// Its dependents keep waiting for ever.
    fn failed(&mut self, index: usize) {
        self.dependents.remove(&index);
    }

    fn not_tried(&self, plan: &Plan) -> Vec<StorePath> {
        let builds = plan.builds.iter().enumerate();
        builds
            .filter(|(index, _)| !self.settled.contains(index))
            .map(|(_, build)| build.drv_path.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests;
