//! Who hears of what: jobs, what each is interested in, and what has happened to that.
//!
//! The state machine knows what is wanted, and not by whom in particular; builds and fetches are shared between jobs. So
//! interest is kept here: it starts at what a job wants and spreads to what that needs, as soon as that must be made.
//!
//! Invariants
//! - whoever hears of a start hears of the end, and who comes late hears of what has started already;
//! - the lock is held for look-ups only, never over an await.

mod record;
mod state;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use igloo_binary_cache::Candidate;
use igloo_coordinator::{Answer, ClientId, DrvInfo, Target, WantId};
use nix_compat::derivation::OutputName;
use nix_compat::store_path::{StoreDir, StorePath};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::state::{Job, State};
use super::feed::Feed;
use crate::job::{BuildEnded, FailureReport, JobOptions, Update};

pub(crate) use record::{BuiltRecord, FetchedRecord, GoalEnd, Record};

/// All jobs, and what is going on.
#[derive(Debug)]
pub(crate) struct Watch {
    state: Mutex<State>,
}

impl Watch {
    /// Nobody is there. Paths are printed with `dir`.
    pub(crate) fn new(dir: StoreDir) -> Self {
        let state = State {
            dir,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// A job begins.
    pub(crate) fn open(&self, client: ClientId, options: Arc<JobOptions>, feed: Arc<Feed>) {
        let mut state = self.state();
        let job = Job {
            feed,
            options,
            started: Instant::now(),
            replies: HashMap::new(),
            interest: Vec::new(),
            builds: HashSet::new(),
            fetches: HashMap::new(),
            record: Record::default(),
            stale: state.failures.keys().cloned().collect(),
            forgotten: HashSet::new(),
        };
        state.jobs.insert(client, job);
    }

    /// A job ends, or its caller has gone. Whoever waits for replies to it hears that none will come.
    pub(crate) fn close(&self, client: ClientId, drvs_max: usize) {
        let mut state = self.state();
        let Some(job) = state.jobs.remove(&client) else {
            return;
        };
        for path in job.interest {
            if let Some(interested) = state.interest.get_mut(&path) {
                interested.retain(|interest| interest.client != client);
                if interested.is_empty() {
                    state.interest.remove(&path);
                }
            }
        }
        let State {
            graph,
            interest,
            to_fetch,
            ..
        } = &mut *state;
        graph.prune(drvs_max, |path| interest.contains_key(path));
        to_fetch.retain(|path, _| interest.contains_key(path));
    }

    /// Ends all waiting for replies: none will come any more.
    pub(crate) fn give_up(&self) {
        for job in self.state().jobs.values_mut() {
            job.replies.clear();
        }
    }

    /// A job wants something; where its answer will appear.
    pub(crate) fn want(
        &self,
        client: ClientId,
        want: WantId,
        target: &Target,
        for_evaluation: bool,
    ) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        let root = match target {
            Target::Outputs { drv, .. } => drv,
            Target::Path(path) => path,
        };
        state.spread(client, vec![root.clone()], for_evaluation);
        if let Some(job) = state.jobs.get_mut(&client) {
            job.replies.insert(want, sender);
        }
        receiver
    }

    /// Passes an answer on. `false` when nobody waits for it, and nobody waits for anything else of that client.
    pub(crate) fn answer(&self, client: ClientId, want: WantId, answer: Answer) -> bool {
        let mut state = self.state();
        let Some(job) = state.jobs.get_mut(&client) else {
            return false;
        };
        if let Some(reply) = job.replies.remove(&want) {
            let _ = reply.send(answer); // whoever asked has gone
        }
        true
    }

    /// A derivation is known.
    pub(crate) fn learn(&self, info: Arc<DrvInfo>) {
        let mut state = self.state();
        let path = info.path.clone();
        if state.graph.learn(info) {
            state.respread(&path);
        }
    }

    /// A derivation was resolved to another.
    pub(crate) fn resolved(&self, drv: &StorePath, info: Arc<DrvInfo>) {
        let mut state = self.state();
        let to = info.path.clone();
        state.graph.learn(info);
        if to != *drv {
            state.graph.resolved(drv, &to);
            state.unplan(drv);
            state.plan(&to);
        }
        state.respread(drv);
    }

    /// A path can be fetched.
    pub(crate) fn offered(&self, path: &StorePath, candidate: Candidate) {
        let mut state = self.state();
        let nar_size = candidate.offer.nar.nar_size;
        state.graph.offered(path, candidate);
        state.to_fetch.insert(path.clone(), nar_size);
        for client in state.clients(path) {
            if let Some(job) = state.jobs.get_mut(&client) {
                job.fetches.insert(path.clone(), nar_size);
                job.tell_remaining();
            }
        }
        state.respread(path);
    }

    /// The latest offer of a path.
    pub(crate) fn offer(&self, path: &StorePath) -> Option<Candidate> {
        self.state().graph.offer(path).cloned()
    }

    /// A path is not there, and cannot be fetched: what makes it must be built.
    pub(crate) fn must_make(&self, path: &StorePath) {
        let mut state = self.state();
        if let Some(drv) = state.graph.maker(path).cloned() {
            state.plan(&drv);
        }
    }

    /// A derivation must be built.
    pub(crate) fn must_build(&self, drv: &StorePath) {
        self.state().plan(drv);
    }

    /// A path is there.
    pub(crate) fn present(&self, path: &StorePath) {
        let mut state = self.state();
        if let Some(drv) = state.graph.maker(path).cloned() {
            state.unplan(&drv);
        }
    }

    /// Whether somebody who wants a path lets substituters be asked.
    pub(crate) fn wants_substitutes(&self, path: &StorePath) -> bool {
        let state = self.state();
        let mut clients = state.clients(path).into_iter();
        clients.any(|client| state.jobs.get(&client).is_some_and(|job| job.options.substitute))
    }

    /// Whether the derivation that makes a path lets it come from elsewhere.
    pub(crate) fn is_substitutable(&self, path: &StorePath) -> bool {
        let state = self.state();
        let maker = state.graph.maker(path).and_then(|drv| state.graph.drv(drv));
        maker.is_none_or(|info| info.substitutable)
    }

    /// Folders in which jobs' derivations may lie.
    pub(crate) fn folders(&self) -> Vec<std::path::PathBuf> {
        let state = self.state();
        let folders = state.jobs.values().flat_map(|job| job.options.folders.iter());
        let mut folders: Vec<_> = folders.cloned().collect();
        folders.dedup();
        folders
    }

    /// How the first of those who want a derivation wants it built.
    pub(crate) fn options(&self, drv: &StorePath) -> Arc<JobOptions> {
        let state = self.state();
        let first = state.clients(drv).into_iter().min();
        let job = first.and_then(|client| state.jobs.get(&client));
        job.map(|job| job.options.clone()).unwrap_or_default()
    }

    /// Whether an evaluation waits for a derivation.
    pub(crate) fn for_evaluation(&self, drv: &StorePath) -> bool {
        let state = self.state();
        let interest = state.interest.get(drv).map(Vec::as_slice);
        interest
            .unwrap_or_default()
            .iter()
            .any(|interest| interest.for_evaluation)
    }

    pub(crate) fn drv(&self, drv: &StorePath) -> Option<Arc<DrvInfo>> {
        self.state().graph.drv(drv).cloned()
    }

    /// The path of an output, where it is known before the build.
    pub(crate) fn output(&self, drv: &StorePath, name: &OutputName) -> Option<StorePath> {
        self.state().graph.output(drv, name).cloned()
    }

    /// The feeds of those interested.
    pub(crate) fn feeds(&self, path: &StorePath) -> Vec<Arc<Feed>> {
        self.state().feeds(path)
    }

    /// Something about a path has started: told to those interested, when they have room for it.
    pub(crate) async fn started(&self, path: &StorePath, update: Update) {
        let feeds = {
            let mut state = self.state();
            state.started.insert(path.clone(), update.clone()); // whoever comes from now on is told at once
            state.feeds(path)
        };
        for feed in feeds {
            feed.send(update.clone()).await;
        }
    }

    /// What was started about a path has ended.
    pub(crate) fn ended(&self, path: &StorePath, update: &Update) {
        let mut state = self.state();
        if state.started.remove(path).is_some() {
            for feed in state.feeds(path) {
                feed.send_now(update.clone());
            }
        }
    }

    /// A fetch has ended well, or will not be.
    pub(crate) fn fetched(&self, path: &StorePath, record: Option<&FetchedRecord>) {
        let mut state = self.state();
        state.to_fetch.remove(path);
        for client in state.clients(path) {
            if let Some(job) = state.jobs.get_mut(&client) {
                job.fetches.remove(path);
                job.record.fetched.extend(record.cloned());
                job.tell_remaining();
            }
        }
        if record.is_some() {
            state.graph.take_offer(path);
        } else if let Some(drv) = state.graph.maker(path).cloned() {
            state.plan(&drv);
        }
    }

    /// A derivation's outputs are registered.
    pub(crate) fn built(&self, drv: &StorePath, record: &BuiltRecord) {
        let mut state = self.state();
        state.unplan(drv);
        state.failures.remove(drv);
        for path in record.outputs.values() {
            state.to_fetch.remove(path);
        }
        for client in state.clients(drv) {
            if let Some(job) = state.jobs.get_mut(&client) {
                for path in record.outputs.values() {
                    job.fetches.remove(path); // the build was faster
                }
                job.record.built.push(record.clone());
            }
        }
    }

    /// A derivation has failed for good.
    pub(crate) fn failed(&self, report: &FailureReport) {
        let mut state = self.state();
        let drv = &report.path;
        state.unplan(drv);
        state.remember_failure(report.clone());
        for client in state.clients(drv) {
            if let Some(job) = state.jobs.get_mut(&client) {
                job.record.add_failure(report.clone());
            }
        }
    }

    /// A build has ended.
    pub(crate) fn build_ended(&self, drv: &StorePath, end: BuildEnded) {
        let drv_path = drv.clone();
        self.ended(drv, &Update::BuildEnded { drv: drv_path, end });
    }

    /// What failed before a job began, and what that took along below `root`: each once.
    pub(crate) fn stale_failures(&self, client: ClientId, root: &StorePath) -> Vec<StorePath> {
        let mut state = self.state();
        let State { jobs, graph, .. } = &mut *state;
        let Some(job) = jobs.get_mut(&client).filter(|job| !job.stale.is_empty()) else {
            return Vec::new();
        };
        let mut stale = graph.need_failed([root.clone()], &job.stale);
        stale.extend(job.stale.iter().cloned());
        stale.retain(|path| job.forgotten.insert(path.clone()));
        stale
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // a panic elsewhere leaves at worst an update untold
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
