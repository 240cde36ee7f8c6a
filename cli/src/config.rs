//! What can be configured, merged from a file, the environment and flags, in that order: later ones win.
//!
//! Map: [`settings`] the table of all names; [`value`] what they can hold; [`file`] the TOML file; [`environment`]
//! `NIX_CONFIG`.
//!
//! Invariants
//! - a name is in one row of [`settings::SETTINGS`], and every source sets it through that row;
//! - a name nobody knows is an error with a suggestion, but a warning where Nix only warns (`NIX_CONFIG`, `nix-build`).

pub mod environment;
pub mod file;
pub mod settings;
pub mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::args::NetworkChoice;
use crate::failure::Failure;
use settings::SettingError;
use value::Value;

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store's URL, or a name in `stores`.
    pub store: Option<String>,
    /// Who builds, when not this process: a URL, or a name in `builders`.
    pub builder: Option<String>,
    /// Who coordinates, when not this process: a URL.
    pub coordinator: Option<String>,
    /// Who evaluates, when not this process: a URL.
    pub evaluator: Option<String>,
    /// Folder of the guest image.
    pub image: Option<PathBuf>,
    /// URLs of stores by name.
    pub stores: BTreeMap<String, String>,
    /// URLs of builders by name.
    pub builders: BTreeMap<String, String>,
    /// URLs of places paths are taken from, the preferred first.
    pub substituters: Vec<String>,
    /// Whose signatures count, as `NAME:BASE64`.
    pub trusted_public_keys: Vec<String>,
    /// Whether what is fetched must be signed.
    pub require_signatures: bool,
    /// Files with keys that sign what is built.
    pub secret_key_files: Vec<String>,
    /// Whether substituters are asked.
    pub substitute: bool,
    /// Builds at once.
    pub max_jobs: u16,
    /// Processors of a build's machine.
    pub cores: u32,
    /// Memory of a build's machine, MiB.
    pub memory_mib: u32,
    /// Whether fixed-output builds may reach the network; `None` leaves it to the command.
    pub network: Option<NetworkChoice>,
    /// Whether other builds go on when one fails.
    pub keep_going: bool,
    /// Whether the folder of a failed build is asked for.
    pub keep_failed: bool,
    /// Longest a build may run.
    pub timeout: Option<Duration>,
    /// Longest a build may be silent.
    pub max_silent_time: Option<Duration>,
    /// Most log a build may write, bytes.
    pub max_log_bytes: Option<u64>,
    /// Lines of log shown when a build fails.
    pub log_lines: usize,
    /// Settings for the evaluator by Nix's names, the last of a name wins.
    pub evaluation: Vec<(String, String)>,
    /// What was asked for and has no effect, for people who want to know.
    pub without_effect: Vec<String>,
}

/// Builds at once unless told otherwise.
const MAX_JOBS: u16 = 2;
/// Processors of a machine unless told otherwise.
const CORES: u32 = 2;
/// Memory of a machine unless told otherwise, MiB.
const MEMORY_MIB: u32 = 2048;
/// Lines of log shown when a build fails (Nix 2.34: `log-lines`).
pub const LOG_LINES: usize = 25;

impl Default for Config {
    /// Nix's defaults where Nix has the setting (2.34, `nix config show`).
    fn default() -> Self {
        Self {
            store: None,
            builder: None,
            coordinator: None,
            evaluator: None,
            image: None,
            stores: BTreeMap::new(),
            builders: BTreeMap::new(),
            substituters: vec!["https://cache.nixos.org/".into()],
            trusted_public_keys: vec![
                "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=".into(),
            ],
            require_signatures: true,
            secret_key_files: Vec::new(),
            substitute: true,
            max_jobs: MAX_JOBS,
            cores: CORES,
            memory_mib: MEMORY_MIB,
            network: None,
            keep_going: false,
            keep_failed: false,
            timeout: None,
            max_silent_time: None,
            max_log_bytes: None,
            log_lines: LOG_LINES,
            evaluation: Vec::new(),
            without_effect: Vec::new(),
        }
    }
}

impl Config {
    /// Sets one by its name; `extra-NAME` adds to lists.
    ///
    /// # Errors
    /// When nobody knows the name, or when it cannot hold the value.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), SettingError> {
        settings::set(self, name, value)
    }

    /// The same for `--option NAME VALUE` of igloo's own commands.
    ///
    /// # Errors
    /// Wrong usage, naming the option.
    pub fn set_option(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        self.set(name, &Value::Text(value.into()))
            .map_err(|error| error.into_failure("--option"))
    }

    /// The same where Nix only warns: a name nobody knows, and a value it cannot hold, change nothing.
    pub fn set_as_nix(&mut self, name: &str, value: &str) {
        if let Err(error) = self.set(name, &Value::Text(value.into())) {
            eprintln!("warning: {error}");
        }
    }
}
