//! What is known of jobs and of what they are interested in, under the lock of [`super::Watch`].
//!
//! Invariants
//! - interest in a thing is interest in all it needs, as far as that is known and must be made;
//! - the cost of spreading is that of what is newly interesting.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use igloo_coordinator::{Answer, ClientId, WantId};
use nix_compat::store_path::{StoreDir, StorePath};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Record;
use crate::job::{FailureReport, JobOptions, Remaining, Update};
use crate::local::feed::Feed;
use crate::local::graph::Graph;

/// Failures remembered, the latest.
const FAILURES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) dir: StoreDir,
    pub(super) jobs: BTreeMap<ClientId, Job>,
    pub(super) graph: Graph,
    pub(super) interest: HashMap<StorePath, Vec<Interest>>,
    /// What has started and not ended: the update that said so.
    pub(super) started: HashMap<StorePath, Update>,
    /// NAR bytes of what is to be fetched.
    pub(super) to_fetch: HashMap<StorePath, u64>,
    pub(super) failures: HashMap<StorePath, FailureReport>,
    pub(super) failures_order: VecDeque<StorePath>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Interest {
    pub(super) client: ClientId,
    pub(super) for_evaluation: bool,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) feed: Arc<Feed>,
    pub(super) options: Arc<JobOptions>,
    pub(super) started: Instant,
    pub(super) replies: HashMap<WantId, oneshot::Sender<Answer>>,
    pub(super) interest: Vec<StorePath>,
    pub(super) builds: HashSet<StorePath>,
    pub(super) fetches: HashMap<StorePath, u64>,
    pub(super) record: Record,
    /// What had failed before it began: no answer to it.
    pub(super) stale: HashSet<StorePath>,
    /// What the machine was told to forget for it.
    pub(super) forgotten: HashSet<StorePath>,
}

impl State {
    pub(super) fn clients(&self, path: &StorePath) -> Vec<ClientId> {
        let interest = self.interest.get(path).map(Vec::as_slice);
        let clients = interest.unwrap_or_default().iter();
        clients.map(|interest| interest.client).collect()
    }

    pub(super) fn feeds(&self, path: &StorePath) -> Vec<Arc<Feed>> {
        let clients = self.clients(path).into_iter();
        clients
            .filter_map(|client| Some(self.jobs.get(&client)?.feed.clone()))
            .collect()
    }

    /// A client is interested in these, and in what they need.
    pub(super) fn spread(&mut self, client: ClientId, mut stack: Vec<StorePath>, for_evaluation: bool) {
        while let Some(path) = stack.pop() {
            let interested = self.interest.entry(path.clone()).or_default();
            match interested.iter_mut().find(|interest| interest.client == client) {
                Some(interest) if interest.for_evaluation || !for_evaluation => continue,
                Some(interest) => interest.for_evaluation = true,
                None => {
                    interested.push(Interest {
                        client,
                        for_evaluation,
                    });
                    self.tell_newcomer(client, &path);
                }
            }
            stack.extend(self.graph.needs(&path));
        }
    }

    pub(super) fn tell_newcomer(&mut self, client: ClientId, path: &StorePath) {
        let Some(job) = self.jobs.get_mut(&client) else {
            return;
        };
        job.interest.push(path.clone());
        if let Some(update) = self.started.get(path) {
            job.feed.send_now(update.clone());
        }
        let is_planned = self.graph.is_planned(path);
        let nar_size = self.to_fetch.get(path);
        if is_planned {
            job.builds.insert(path.clone());
        }
        if let Some(nar_size) = nar_size {
            job.fetches.insert(path.clone(), *nar_size);
        }
        if is_planned || nar_size.is_some() {
            job.tell_remaining();
        }
    }

    /// Those interested in a path are interested in what it is now known to need.
    pub(super) fn respread(&mut self, path: &StorePath) {
        let interest = self.interest.get(path).cloned().unwrap_or_default();
        if interest.is_empty() {
            return;
        }
        let needs = self.graph.needs(path);
        for Interest {
            client,
            for_evaluation,
        } in interest
        {
            self.spread(client, needs.clone(), for_evaluation);
        }
    }

    pub(super) fn plan(&mut self, drv: &StorePath) {
        if !self.graph.plan(drv) {
            return;
        }
        // whoever wants one of its outputs wants it built
        let outputs = self.graph.drv(drv).map(|info| info.outputs.clone());
        for path in outputs.into_iter().flatten().filter_map(|(_, path)| path) {
            self.respread(&path);
        }
        self.respread(drv);
        for client in self.clients(drv) {
            if let Some(job) = self.jobs.get_mut(&client) {
                job.builds.insert(drv.clone());
                job.tell_remaining();
            }
        }
    }

    pub(super) fn unplan(&mut self, drv: &StorePath) {
        if !self.graph.unplan(drv) {
            return;
        }
        for client in self.clients(drv) {
            if let Some(job) = self.jobs.get_mut(&client) {
                job.builds.remove(drv);
                job.tell_remaining();
            }
        }
    }

    pub(super) fn remember_failure(&mut self, report: FailureReport) {
        let path = report.path.clone();
        if self.failures.insert(path.clone(), report).is_none() {
            self.failures_order.push_back(path);
        }
        if self.failures_order.len() > FAILURES_MAX
            && let Some(oldest) = self.failures_order.pop_front()
        {
            self.failures.remove(&oldest);
        }
    }
}

impl Job {
    pub(super) fn tell_remaining(&self) {
        let bytes = self.fetches.values();
        self.feed.remaining(Remaining {
            builds: self.builds.len() as u64,
            fetches: self.fetches.len() as u64,
            fetch_bytes: bytes.fold(0, |sum, size| sum.saturating_add(*size)),
        });
    }
}
