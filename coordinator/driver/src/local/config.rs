//! What a [`LocalCoordinator`](super::LocalCoordinator) is made of. Plain fields; nothing here reads the environment.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use igloo_binary_cache::{SubstituteOptions, Substituter};
use igloo_build::Builder;
use igloo_evaluator::Evaluator;
use igloo_store::Store;
use nix_compat::signature::SecretKey;

/// How a coordinator is set up.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// Where inputs are and outputs go.
    pub store: Store,
    /// Folder for the journal and the logs of builds; made when it is not there. One coordinator at a time.
    pub state_dir: PathBuf,
    /// Runs evaluations; without one, jobs that ask for an evaluation are refused.
    pub evaluator: Option<Arc<dyn Evaluator>>,
    /// Who builds. More may come later ([`super::LocalCoordinator::add_builder`]).
    pub builders: Vec<NamedBuilder>,
    /// Whom to fetch from.
    pub substituters: Vec<Arc<dyn Substituter>>,
    /// How they are asked.
    pub substitute: SubstituteOptions,
    /// Keys that every output is signed with (Nix's `secret-key-files`).
    pub secret_keys: Vec<SecretKey>,
    /// How the state machine behaves.
    pub machine: igloo_coordinator::Config,
    /// What outlives a crash.
    pub journal: JournalConfig,
    /// How much of logs is kept.
    pub logs: LogConfig,
    /// Breaks ties, and keeps hostile names from slowing tables: a number nobody can guess.
    pub seed: u64,
}

/// A builder and what it offers.
#[derive(Clone, Debug)]
pub struct NamedBuilder {
    /// Its name in messages and in provenance; a builder that comes back is known by it.
    pub name: String,
    /// Who runs the builds. Its systems are those it says.
    pub builder: Arc<dyn Builder>,
    /// Builds at once.
    pub slots: u32,
    /// Further builds at once that an evaluation waits for: with at least 1, no evaluation starves behind long builds.
    pub slots_for_evaluation: u32,
    /// Features it has.
    pub features: BTreeSet<String>,
    /// Features that a build must ask for to be given to it.
    pub mandatory_features: BTreeSet<String>,
    /// Memory for builds together, MiB; 0 leaves it to the builder.
    pub memory_mib: u32,
    /// Memory a build gets when nobody says how much, MiB: what is doubled when it was too little.
    pub build_memory_mib: u32,
    /// Whether builds may reach the network there.
    pub network: bool,
}

/// How the journal is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// When what is written is safe.
    pub sync: JournalSync,
    /// Whether what was wanted when the process died is wanted again after a restart, though nobody listens any more: a
    /// daemon's way. A command's user has gone, and asks again.
    pub resume: bool,
    /// The journal is written anew when it has grown to this, bytes.
    pub size_max: u64,
}

/// When a record of the journal counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalSync {
    /// On disk: survives the loss of power. Records of one moment share a sync.
    Group,
    /// With the kernel: survives the loss of the process. Enough where no builder outlives this machine.
    Written,
}

/// How much of logs is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Bytes of one log, before compression; what comes after is left out, and the log says so.
    pub log_bytes_max: u64,
    /// Bytes of all logs together, compressed; the oldest go first.
    pub total_bytes_max: u64,
    /// Lines at the end of a failed build's log that its report has.
    pub tail_lines: usize,
}

impl LocalConfig {
    /// A coordinator with these builders, and nothing else.
    pub fn new(store: Store, state_dir: PathBuf, builders: Vec<NamedBuilder>) -> Self {
        Self {
            store,
            state_dir,
            evaluator: None,
            builders,
            substituters: Vec::new(),
            substitute: SubstituteOptions::default(),
            secret_keys: Vec::new(),
            machine: igloo_coordinator::Config::default(),
            journal: JournalConfig::default(),
            logs: LogConfig::default(),
            seed: 0,
        }
    }

    /// How often builders say that they are there: three times before they would be taken as gone, at least every 30 s.
    pub(super) fn heartbeat(&self) -> Duration {
        (self.machine.builder_silence_max / 3).clamp(Duration::from_millis(10), Duration::from_secs(30))
    }
}

impl NamedBuilder {
    /// A builder with so many slots and one more for evaluations, the network, and no features.
    pub fn new(name: impl Into<String>, builder: Arc<dyn Builder>, slots: u32) -> Self {
        Self {
            name: name.into(),
            builder,
            slots,
            slots_for_evaluation: 1,
            features: BTreeSet::new(),
            mandatory_features: BTreeSet::new(),
            memory_mib: 0,
            build_memory_mib: 2048,
            network: true,
        }
    }
}

/// Records are synced in groups; nothing is resumed; 1 MiB.
impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            sync: JournalSync::Group,
            resume: false,
            size_max: 1 << 20,
        }
    }
}

/// 64 MiB of one log, 1 GiB of all, 25 lines.
impl Default for LogConfig {
    fn default() -> Self {
        Self {
            log_bytes_max: 64 << 20,
            total_bytes_max: 1 << 30,
            tail_lines: 25,
        }
    }
}
