//! The coordinator of this process: the state machine of `coordinator/core`, driven by tokio.
//!
//! One task ([`turn`]) owns the machine and its journal; everything else tells it events through a bounded channel. What the
//! machine wants done is begun as tasks ([`steps`]), which tell it how they ended. Jobs ([`run`]) are its clients.
//!
//! Map
//! - [`config`]: what a coordinator is made of; [`pool`]: builders;
//! - [`turn`], [`journal`]: the machine's task, and what outlives it;
//! - [`steps`]: reading, asking, fetching, building, committing; [`commits`]: registering in groups;
//! - [`run`], [`evaluate`], [`dry_run`], [`check`]: jobs;
//! - [`watch`], [`graph`], [`feed`]: who hears of what; [`fault`]: what failed, and whose fault it is;
//! - [`leases`]: builds that outlive this process, and who is there;
//! - [`logs`], [`provenance`], [`totals`], [`infos`]: what is kept, counted and remembered.
//!
//! Invariants
//! - outputs are registered only after every check, signed, with where they come from, durable before anybody is told;
//! - a failure of a builder is never blamed on what was built;
//! - dropping the coordinator stops all it began but the builds that their builders keep ([`igloo_build::lease`]): these are
//!   attended again after a restart. [`LocalCoordinator::close`] waits for that.

mod check;
mod commits;
mod complaints;
pub mod config;
mod dry_run;
mod evaluate;
pub mod fault;
mod feed;
mod graph;
mod infos;
pub mod journal;
mod leases;
mod logs;
mod pool;
pub mod provenance;
mod run;
mod shared;
mod steps;
mod totals;
mod turn;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use igloo_castore::blocking;
use igloo_coordinator::{Action, ClientId, Event, Machine, Record};
use igloo_status::Code;
use igloo_store::FactKind;
use nix_compat::store_path::StorePath;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::commits::Commits;
use self::config::{LocalConfig, NamedBuilder};
use self::journal::{Journal, JournalError};
use self::logs::LogStore;
pub use self::logs::read_log;
use self::provenance::ProvenanceRecord;
use self::shared::Shared;
use self::turn::Turns;
use crate::job::{Coordinator, Job, JobError, JobReport, Update};

/// Events on their way to the machine.
const EVENTS_MAX: usize = 1024;

/// Runs jobs in this process.
#[derive(Debug)]
pub struct LocalCoordinator {
    shared: Arc<Shared>,
    clients: AtomicU64,
    /// The machine, registering, heartbeats.
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl LocalCoordinator {
    /// Starts a coordinator where its journal ended. Needs a tokio runtime with time.
    ///
    /// # Errors
    /// The state folder cannot be used, or another coordinator uses it.
    pub async fn open(config: LocalConfig) -> Result<Self, OpenCoordinatorError> {
        let (dir, sync, logs) = (config.state_dir.clone(), config.journal.sync, config.logs);
        let seed = config.seed;
        let (mut journal, records, logs, owner) = blocking::run(move || {
            let (journal, records) = Journal::open(&dir, sync)?;
            let logs = LogStore::open(dir.join("logs"), logs, &open_leases(&records)).map_err(|source| {
                OpenCoordinatorError::Logs {
                    dir: dir.clone(),
                    source,
                }
            })?;
            let owner = leases::owner(&dir, seed, journal.is_new())
                .map_err(|source| OpenCoordinatorError::Owner { dir, source })?;
            Ok::<_, OpenCoordinatorError>((journal, records, logs, owner))
        })
        .await?;
        let (commits, committing) = Commits::new(config.store.clone());
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::new(Shared::new(config, sender, logs, commits, owner));
        let Restored {
            machine,
            first,
            clients,
        } = restore(&shared, records);
        let compacted = machine.compacted_journal();
        let journal = blocking::run(move || journal.replace(&compacted).map(|()| journal)).await?;
        let turns = Turns::new(machine, journal, Arc::clone(&shared));
        let tasks = vec![
            tokio::spawn(turns.run(receiver, first)),
            tokio::spawn(committing),
            tokio::spawn(leases::watch_builders(Arc::clone(&shared))),
        ];
        let coordinator = Self {
            shared,
            clients: AtomicU64::new(clients),
            tasks: Mutex::new(tasks),
        };
        for builder in coordinator.shared.config.builders.clone() {
            coordinator.add_builder(builder).await;
        }
        Ok(coordinator)
    }

    /// A builder comes, or comes back: what it still has from before a restart is attended again. One that gives no answer
    /// is asked until it does.
    pub async fn add_builder(&self, builder: NamedBuilder) {
        let (id, builder) = self.shared.pool.add(builder);
        self.shared.builder_up(id, &builder).await;
    }

    /// A builder goes, and what it runs is stopped and given to others. `false` when it was not there.
    pub async fn remove_builder(&self, name: &str) -> bool {
        let Some(builder) = self.shared.pool.remove(name) else {
            return false;
        };
        self.shared.tell(Event::BuilderDown { builder }).await;
        self.shared.transfers.stop_builder(builder);
        true
    }

    /// Where a path comes from, `None` when it was not built here.
    ///
    /// # Errors
    /// The record cannot be read.
    pub async fn provenance(&self, path: &StorePath) -> Result<Option<ProvenanceRecord>, JobError> {
        let host = |reason: String, code| JobError::Host { reason, code };
        let facts = &self.shared.store().facts;
        let found = facts.get(FactKind::Provenance, path.to_string().as_bytes()).await;
        let found = found.map_err(|error| host(error.to_string(), error.code()))?;
        let record = found.map(|bytes| ProvenanceRecord::decode(&bytes)).transpose();
        record.map_err(|error| host(error.to_string(), error.code()))
    }

    /// Stops all that goes on, and waits until builders have let go of it. Where a restart goes on with what was wanted
    /// ([`config::JournalConfig::resume`]), builds that their builders keep are left for it.
    pub async fn close(&self) {
        self.shared.give_up("it is closing down".to_owned());
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            let _ = task.await; // it was aborted
        }
        self.shared.shut_down().await;
        if !self.shared.config.journal.resume {
            self.shared.release_all().await;
        }
    }
}

#[async_trait]
impl Coordinator for LocalCoordinator {
    async fn run(&self, job: Job, updates: mpsc::Sender<Update>) -> Result<JobReport, JobError> {
        let id = ClientId(self.clients.fetch_add(1, Ordering::Relaxed));
        run::run(&self.shared, id, job, &updates).await
    }

    async fn log(&self, drv: &StorePath) -> Result<Option<Bytes>, JobError> {
        self.shared.logs.read(drv).await.map_err(|error| JobError::Host {
            reason: format!("the log cannot be read: {error}"),
            code: Code::from_io(&error),
        })
    }
}

impl Drop for LocalCoordinator {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
        self.shared.abort();
    }
}

struct Restored {
    machine: Machine,
    first: Vec<Action>,
    /// The first id for a new client.
    clients: u64,
}

/// The machine where the journal ended.
fn restore(shared: &Shared, records: Vec<Record>) -> Restored {
    let config = &shared.config;
    let mut machine = config.machine.clone();
    if config.substituters.is_empty() {
        machine.substituter_queries_max = 0; // there is nobody to ask
    }
    // what is told to have started has a place: it does not wait for another's end
    machine.fetches_max = machine.fetches_max.min(config.substitute.fetches_max.max(1));
    let (mut clients, mut open) = (0, BTreeMap::<ClientId, usize>::new());
    for record in &records {
        match record {
            Record::ClientCame { client, .. } => {
                clients = clients.max(client.0 + 1);
                open.insert(*client, 0);
            }
            Record::ClientGone { client } => {
                open.remove(client);
            }
            Record::Wanted { client, .. } => *open.entry(*client).or_default() += 1,
            Record::Answered { client, .. } => {
                if let Some(count) = open.get_mut(client) {
                    *count = count.saturating_sub(1);
                }
            }
            _ => {}
        }
    }
    let mut kept = records;
    if config.journal.resume {
        // those with nothing open have gone unheard
        let gone = open.extract_if(.., |_, count| *count == 0);
        kept.extend(gone.map(|(client, _)| Record::ClientGone { client }));
    } else {
        // whoever asks again finds its builds; those that nobody asks for are stopped in time
        open.clear();
        kept.retain(|record| {
            matches!(
                record,
                Record::Leased { .. } | Record::Released { .. } | Record::LeasesGiven { .. }
            )
        });
    }
    let records = kept;
    shared.set_orphans(open);
    let (machine, first) = Machine::restore(machine, config.seed, shared.clock.now(), records);
    Restored {
        machine,
        first,
        clients,
    }
}

/// Builds that builders may still have.
fn open_leases(records: &[Record]) -> BTreeSet<u64> {
    let mut open = BTreeSet::new();
    for record in records {
        match record {
            Record::Leased { lease, .. } => open.insert(lease.0),
            Record::Released { lease } => open.remove(&lease.0),
            _ => false,
        };
    }
    open
}

/// Why a coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenCoordinatorError {
    /// Its journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The name it gives orders under cannot be kept.
    #[error("the coordinator's name in {} cannot be read or written", dir.display())]
    Owner {
        /// The state folder.
        dir: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Its logs cannot be used.
    #[error("the logs in {} cannot be used", dir.display())]
    Logs {
        /// The state folder.
        dir: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl OpenCoordinatorError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Journal(error) => error.code(),
            Self::Logs { source, .. } | Self::Owner { source, .. } => Code::from_io(source),
        }
    }
}
