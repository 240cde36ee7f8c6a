//! Builds under leases, for any [`igloo_build::Builder`]: they go on for a while when their caller is lost, and what they
//! did is kept until somebody comes for it.
//!
//! Invariants
//! - fencing: an id that is not higher than the last one seen for its owner and subject starts nothing; a higher one stops
//!   the lower one's build first. The last [`FENCES_MAX`] subjects are remembered;
//! - one caller attends a build; who attaches takes it over, and the one before is told;
//! - a build that nobody attends for [`LeasePolicy::unattended_max`] is stopped, and what was kept of it is gone;
//! - what is kept is bounded: [`record::LOG_KEPT_BYTES`] of log in memory, [`LeasePolicy::spool_bytes_max`] of outputs on
//!   disk. A log that nobody reads holds the build back; outputs over the bound are the builder's failure;
//! - inputs that were read from a caller who is lost wait for the next one ([`super::inputs`]); the build sees no error.
//!
//! Map: [`run`] one build; [`record`] what is kept of it, [`spool`] its outputs on disk; [`fences`] who may start.

mod fences;
mod record;
mod run;
mod spool;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use igloo_build::lease::{Lease, LeaseError, LeaseOwner, LeaseStatus};
use igloo_build::{BuildRequest, Builder};
use igloo_protos::igloo::build::v1 as wire;
use tokio::sync::Semaphore;
use tonic::Status;

use super::inputs::{Inputs, Places};
use fences::Fences;
pub(super) use run::Attendance;
use run::Run;

/// Most leases at once, ended ones that wait to be fetched included.
const LEASES_MAX: usize = 1 << 10;
/// Subjects whose last id is remembered.
const FENCES_MAX: usize = 1 << 16;

/// How builds under leases are kept.
#[derive(Clone, Debug)]
pub struct LeasePolicy {
    /// How long a build goes on, and its end is kept, while nobody attends it.
    pub unattended_max: Duration,
    /// Where outputs are kept until they are fetched: a folder on a disk, in which nothing stays behind.
    pub spool_dir: PathBuf,
    /// Most bytes of outputs that are kept of one build.
    pub spool_bytes_max: u64,
}

impl LeasePolicy {
    /// Ten minutes, and a quarter of a terabyte for each build, in that folder.
    pub fn in_dir(spool_dir: PathBuf) -> Self {
        Self {
            unattended_max: Duration::from_secs(600),
            spool_dir,
            spool_bytes_max: 256 << 30,
        }
    }
}

/// The leases of one server.
#[derive(Debug)]
pub(super) struct Leases {
    policy: LeasePolicy,
    builder: Arc<dyn Builder>,
    turns: Arc<Semaphore>,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    runs: HashMap<Lease, Arc<Run>>,
    fences: Fences,
}

impl Leases {
    pub(super) fn new(policy: LeasePolicy, builder: Arc<dyn Builder>, turns: Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self {
            policy,
            builder,
            turns,
            table: Mutex::new(Table {
                runs: HashMap::new(),
                fences: Fences::new(FENCES_MAX),
            }),
        })
    }

    pub(super) fn unattended_max(&self) -> Duration {
        self.policy.unattended_max
    }

    /// Starts a build and attends it.
    pub(super) fn start(
        self: &Arc<Self>,
        lease: &Lease,
        request: BuildRequest,
        places: Places,
    ) -> Result<Attendance, StartError> {
        let mut table = self.lock();
        table.fences.pass(lease)?;
        // a lower order for the same: its machine is on its way out before the new one is started
        table.runs.retain(|other, run| {
            let stays = other.owner() != lease.owner() || other.subject() != lease.subject();
            if !stays {
                run.stop();
            }
            stays
        });
        if table.runs.len() >= LEASES_MAX {
            return Err(StartError::Full);
        }
        let run = Run::start(self, lease.clone(), request, places);
        table.runs.insert(lease.clone(), Arc::clone(&run));
        drop(table);
        Ok(run.attend(0, None))
    }

    /// Attends a build that was started before; its outputs' paths come with it.
    pub(super) fn attach(
        &self,
        lease: &Lease,
        log_from: u64,
        inputs: Inputs,
    ) -> Result<(Attendance, wire::Attached), StartError> {
        let run = self.lock().runs.get(lease).cloned();
        let run = run.ok_or_else(|| LeaseError::Unknown { lease: lease.clone() })?;
        if log_from > run.log_bytes() {
            return Err(StartError::AheadOfLog);
        }
        let attached = run.attached();
        Ok((run.attend(log_from, Some(inputs)), attached))
    }

    /// Stops the build if it runs, and forgets it.
    pub(super) fn release(&self, lease: &Lease) {
        if let Some(run) = self.lock().runs.remove(lease) {
            run.stop();
        }
    }

    /// Those of one owner, in order of subject and id.
    pub(super) fn of(&self, owner: &LeaseOwner) -> Vec<LeaseStatus> {
        let table = self.lock();
        let runs = table.runs.iter().filter(|(lease, _)| lease.owner() == owner);
        let mut found: Vec<_> = runs.map(|(lease, run)| run.status(lease)).collect();
        found.sort_by(|a, b| a.lease.cmp(&b.lease));
        found
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a build under a lease is not attended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error("the builder keeps {LEASES_MAX} builds already; release some")]
    Full,
    #[error("the caller knows more of the log than there is")]
    AheadOfLog,
}

impl From<StartError> for Status {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Lease(error) => crate::status::refuse(error.code(), &error),
            StartError::Full => Self::resource_exhausted(error.to_string()),
            StartError::AheadOfLog => Self::invalid_argument(error.to_string()),
        }
    }
}
