//! What the steps share: store, builders, watchers, and what passes from one step to the next.
//!
//! Invariants
//! - every step is a task of `tasks`, so none outlives the coordinator;
//! - locks are held for look-ups only, never over an await.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use igloo_binary_cache::Substituters;
use igloo_build::LeaseOwner;
use igloo_coordinator::{
    BuilderId, ClientId, DescribeDerivationError, DrvInfo, Event, History, LeaseId, Time,
};
use igloo_store::Store;
use nix_compat::derivation::{Derivation, derivation_name};
use nix_compat::store_path::StorePath;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::commits::Commits;
use super::complaints::Complaints;
use super::config::LocalConfig;
use super::infos::Infos;
use super::leases::Held;
use super::logs::LogStore;
use super::pool::Pool;
use super::steps::{FailedRun, Finished};
use super::totals::Totals;
use super::watch::Watch;
use crate::request;
use crate::source::{DerivationSource, Found, ReadDerivationError};

/// Bytes of derivations kept in memory, about.
const DERIVATIONS_BYTES: u64 = 64 << 20;
/// Names of packages whose build times are remembered.
const HISTORY_MAX: usize = 1 << 14;
/// Sources beside derivations that are remembered until they are asked for.
const BESIDE_MAX: usize = 1 << 16;
/// Paths remembered that no substituter has.
const ABSENT_MAX: usize = 1 << 18;

/// What the steps share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub config: LocalConfig,
    pub events: mpsc::Sender<Event>,
    pub watch: Watch,
    pub pool: Pool,
    pub logs: LogStore,
    pub totals: Totals,
    pub infos: Infos,
    pub commits: Commits,
    pub substituters: Option<Substituters>,
    pub complaints: Complaints,
    pub clock: Clock,
    pub transfers: Transfers,
    /// The name under which orders are given to builders.
    pub owner: LeaseOwner,
    derivations: Cache<StorePath, Arc<Derivation>, ByText>,
    history: Mutex<History>,
    beside: Mutex<HashMap<StorePath, PathBuf>>,
    /// Paths that no substituter has.
    absent: Mutex<HashSet<StorePath>>,
    orphans: Mutex<BTreeMap<ClientId, usize>>,
    tasks: Mutex<JoinSet<()>>,
    runtime: Handle,
    gone: OnceLock<String>,
}

/// What one step leaves for another.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    /// Builds that run; sending, or dropping the sender, stops one.
    runs: Mutex<HashMap<LeaseId, (BuilderId, oneshot::Sender<Stop>)>>,
    /// Builds that their builders keep until they are released.
    held: Mutex<HashMap<LeaseId, Held>>,
    /// Outputs that wait to be committed.
    finished: Mutex<HashMap<LeaseId, Finished>>,
    /// Failures that the machine is about to judge.
    failed: Mutex<HashMap<LeaseId, FailedRun>>,
    fetches: Mutex<HashMap<StorePath, AbortHandle>>,
}

/// Why a build is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The machine said so.
    Unwanted,
    /// Its builder is gone.
    BuilderGone,
}

/// The machine's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    began_at: SystemTime,
}

impl Shared {
    pub(crate) fn new(
        config: LocalConfig,
        events: mpsc::Sender<Event>,
        logs: LogStore,
        commits: Commits,
        owner: LeaseOwner,
    ) -> Self {
        let substituters = (!config.substituters.is_empty()).then(|| {
            Substituters::new(
                config.substituters.clone(),
                config.store.clone(),
                config.substitute.clone(),
            )
        });
        Self {
            watch: Watch::new(config.store.dir.clone()),
            pool: Pool::default(),
            totals: Totals::new(),
            infos: Infos::new(),
            clock: Clock {
                began: Instant::now(),
                began_at: SystemTime::now(),
            },
            transfers: Transfers::default(),
            complaints: Complaints::default(),
            derivations: Cache::with_weighter(4096, DERIVATIONS_BYTES, ByText),
            history: Mutex::new(History::new(HISTORY_MAX)),
            beside: Mutex::default(),
            absent: Mutex::default(),
            orphans: Mutex::default(),
            tasks: Mutex::default(),
            runtime: Handle::current(),
            gone: OnceLock::new(),
            config,
            events,
            logs,
            commits,
            owner,
            substituters,
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.config.store
    }

    /// Tells the machine. When it is gone, so is whoever waits for it.
    pub(crate) async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    /// Runs a step beside the machine.
    pub(crate) fn spawn(&self, step: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(step, &self.runtime)
    }

    /// Stops all steps.
    pub(crate) fn abort(&self) {
        lock(&self.tasks).abort_all();
    }

    /// Stops all steps, and waits until they have let go of all they had.
    pub(crate) async fn shut_down(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
    }

    /// The machine cannot go on.
    pub(crate) fn give_up(&self, reason: String) {
        let _ = self.gone.set(reason); // the first reason counts
        self.watch.give_up();
    }

    /// Why the machine is gone.
    pub(crate) fn gone(&self) -> String {
        let reason = self.gone.get().map(String::as_str);
        reason.unwrap_or("it is closing down").to_owned()
    }

    /// A derivation, from memory, the store, or a job's folders.
    pub(crate) async fn derivation(&self, drv: &StorePath) -> Result<Arc<Derivation>, ReadDerivationError> {
        if let Some(derivation) = self.derivations.get(drv) {
            return Ok(derivation);
        }
        let source = DerivationSource::in_store(self.store().clone(), self.watch.folders());
        let (derivation, found) = source.find(drv).await?;
        if found == Found::Folder {
            self.note_sources(&source, &derivation).await;
        }
        let derivation = Arc::new(derivation);
        self.keep_derivation(drv, derivation.clone());
        Ok(derivation)
    }

    /// Keeps a derivation that whoever made it has shown to be of that path, or that is checked later.
    pub(crate) fn keep_derivation(&self, drv: &StorePath, derivation: Arc<Derivation>) {
        self.derivations.insert(drv.clone(), derivation);
    }

    /// What the machine needs to know of a derivation; checks that it is the one its path names.
    pub(crate) fn describe(
        &self,
        drv: &StorePath,
        derivation: &Derivation,
    ) -> Result<DrvInfo, DescribeDerivationError> {
        let mut info = request::describe(&self.store().dir, drv, derivation)?;
        if let Ok(name) = derivation_name(drv) {
            info.estimate = lock(&self.history).estimate(&name, &info.needs.system);
        }
        Ok(info)
    }

    /// How long a derivation is expected to take.
    pub(crate) fn built_in(&self, drv: &StorePath, system: &str, run: std::time::Duration) {
        if let Ok(name) = derivation_name(drv) {
            lock(&self.history).add(&name, system, run);
        }
    }

    /// Whether the machine will ask substituters for a path that is not in the store, before it has it made.
    pub(crate) fn may_substitute(&self, path: &StorePath) -> bool {
        self.substituters.is_some()
            && self.watch.is_substitutable(path)
            && self.watch.wants_substitutes(path)
            && !lock(&self.absent).contains(path)
    }

    /// No substituter has a path: the machine remembers that, and does not ask again for a while.
    pub(crate) fn note_absent(&self, path: &StorePath) {
        let mut absent = lock(&self.absent);
        if absent.len() >= ABSENT_MAX {
            absent.clear(); // costs only that a build is expected a little later
        }
        absent.insert(path.clone());
    }

    /// A client of before the restart has nothing open any more, with this answer.
    pub(crate) fn orphan_answered(&self, client: ClientId) -> bool {
        let mut orphans = lock(&self.orphans);
        let Some(open) = orphans.get_mut(&client) else {
            return false;
        };
        *open = open.saturating_sub(1);
        let is_done = *open == 0;
        if is_done {
            orphans.remove(&client);
        }
        is_done
    }

    /// Clients of before the restart, with the number of wants each has open.
    pub(crate) fn set_orphans(&self, orphans: BTreeMap<ClientId, usize>) {
        *lock(&self.orphans) = orphans;
    }

    /// Where a source lies that is beside the derivation that needs it.
    pub(crate) fn beside(&self, path: &StorePath) -> Option<PathBuf> {
        lock(&self.beside).get(path).cloned()
    }

    async fn note_sources(&self, source: &DerivationSource, derivation: &Derivation) {
        for path in &derivation.input_srcs {
            let Some(file) = source.find_input(path).await else {
                continue;
            };
            let mut beside = lock(&self.beside);
            if beside.len() >= BESIDE_MAX {
                beside.clear(); // such a source is as good as missing; the job fails and says which
            }
            beside.insert(path.clone(), file);
        }
    }
}

impl Transfers {
    /// A build runs; resolves when it is to be stopped. `None` when it is attended already.
    pub(crate) fn run_began(&self, lease: LeaseId, builder: BuilderId) -> Option<oneshot::Receiver<Stop>> {
        let mut runs = lock(&self.runs);
        if runs.contains_key(&lease) {
            return None;
        }
        let (stop, stopped) = oneshot::channel();
        runs.insert(lease, (builder, stop));
        Some(stopped)
    }

    /// What is attended of a builder.
    pub(crate) fn runs_of(&self, builder: BuilderId) -> Vec<LeaseId> {
        let runs = lock(&self.runs);
        let of = runs.iter().filter(|(_, (of, _))| *of == builder);
        of.map(|(lease, _)| *lease).collect()
    }

    /// A builder is about to keep a lease.
    pub(crate) fn hold(&self, lease: LeaseId, held: Held) {
        lock(&self.held).insert(lease, held);
    }

    pub(crate) fn take_held(&self, lease: LeaseId) -> Option<Held> {
        lock(&self.held).remove(&lease)
    }

    pub(crate) fn take_all_held(&self) -> Vec<Held> {
        lock(&self.held).drain().map(|(_, held)| held).collect()
    }

    pub(crate) fn run_ended(&self, lease: LeaseId) {
        lock(&self.runs).remove(&lease);
    }

    /// Stops a build. `false` when it does not run.
    pub(crate) fn stop_run(&self, lease: LeaseId) -> bool {
        let found = lock(&self.runs).remove(&lease);
        let is_running = found.is_some();
        if let Some((_, stop)) = found {
            let _ = stop.send(Stop::Unwanted); // it has just ended
        }
        is_running
    }

    /// Stops all that runs on a builder.
    pub(crate) fn stop_builder(&self, builder: BuilderId) {
        let gone = lock(&self.runs)
            .extract_if(|_, (of, _)| *of == builder)
            .collect::<Vec<_>>();
        for (_, (_, stop)) in gone {
            let _ = stop.send(Stop::BuilderGone); // it has just ended
        }
    }

    pub(crate) fn put_finished(&self, lease: LeaseId, finished: Finished) {
        lock(&self.finished).insert(lease, finished);
    }

    pub(crate) fn take_finished(&self, lease: LeaseId) -> Option<Finished> {
        lock(&self.finished).remove(&lease)
    }

    pub(crate) fn put_failed(&self, lease: LeaseId, failed: FailedRun) {
        lock(&self.failed).insert(lease, failed);
    }

    pub(crate) fn take_failed(&self, lease: LeaseId) -> Option<FailedRun> {
        lock(&self.failed).remove(&lease)
    }

    pub(crate) fn fetch_began(&self, path: StorePath, task: AbortHandle) {
        lock(&self.fetches).insert(path, task);
    }

    pub(crate) fn fetch_ended(&self, path: &StorePath) -> Option<AbortHandle> {
        lock(&self.fetches).remove(path)
    }
}

impl Clock {
    pub(crate) fn now(&self) -> Time {
        Time::from_millis(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When a moment of the machine's comes.
    pub(crate) fn instant(&self, at: Time) -> Option<Instant> {
        self.began
            .checked_add(std::time::Duration::from_millis(at.as_millis()))
    }

    /// The wall clock's reading at a moment of the machine's.
    pub(crate) fn wall(&self, at: Time) -> SystemTime {
        let since = std::time::Duration::from_millis(at.as_millis());
        self.began_at.checked_add(since).unwrap_or(self.began_at)
    }
}

/// Weighs a derivation by the text in it.
#[derive(Clone, Debug)]
struct ByText;

impl Weighter<StorePath, Arc<Derivation>> for ByText {
    fn weight(&self, _: &StorePath, derivation: &Arc<Derivation>) -> u64 {
        let args: usize = derivation.args.iter().map(Vec::len).sum();
        let env = derivation.env.iter();
        let env: usize = env.map(|(name, value)| name.len() + value.len() + 64).sum();
        let inputs = (derivation.input_drvs.len() + derivation.input_srcs.len()) * 128;
        (512 + args + env + inputs) as u64
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // a panic elsewhere leaves it whole: every change is one step
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
