//! What this host can run machines with.
//!
//! Invariants
//! - looking changes nothing and starts no guest: whether KVM works is [`crate::probe`]'s question.

mod qemu;
mod tsc;

use std::path::PathBuf;
use std::time::Duration;

pub use qemu::{LookError, Qemu};
use serde::{Deserialize, Serialize};

/// Systems guests can be of.
pub const SYSTEMS: [&str; 2] = ["x86_64-linux", "aarch64-linux"];
/// Longest wait for an emulator's answer to a question about itself.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// The emulators of this host, and what matters about its processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAbilities {
    /// Found emulators.
    pub qemus: Vec<Qemu>,
    /// Rate of the processor's time stamp counter, kHz, where it runs at one rate for ever.
    pub tsc_khz: Option<u32>,
}

impl HostAbilities {
    /// Looks for emulators in these directories, first come first served, and asks them about themselves.
    ///
    /// # Errors
    /// When an emulator is there and does not answer.
    pub async fn look(search: &[PathBuf]) -> Result<Self, LookError> {
        let mut found = Self::default();
        for system in SYSTEMS {
            if let Some(path) = qemu::find(search, system) {
                found.qemus.push(Qemu::ask(path, system, ANSWER_MAX).await?);
            }
        }
        found.tsc_khz = tokio::task::spawn_blocking(tsc::khz).await.unwrap_or_default();
        Ok(found)
    }

    /// The emulator for a system.
    pub fn qemu(&self, system: &str) -> Option<&Qemu> {
        self.qemus.iter().find(|qemu| qemu.system == system)
    }
}

/// The emulator for each system, where one is installed; looks at names only.
pub fn find_all(search: &[PathBuf]) -> Vec<PathBuf> {
    SYSTEMS
        .iter()
        .filter_map(|system| qemu::find(search, system))
        .collect()
}

/// Where emulators are installed: Debian and Fedora, built by hand, NixOS, macOS.
pub fn default_search() -> Vec<PathBuf> {
    [
        "/usr/bin",
        "/usr/local/bin",
        "/usr/libexec",
        "/run/current-system/sw/bin",
        "/opt/homebrew/bin",
    ]
    .map(PathBuf::from)
    .to_vec()
}

/// The architecture of this host as Nix names it, for choosing an accelerator.
pub fn native_system() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "aarch64-linux",
        _ => "x86_64-linux",
    }
}
