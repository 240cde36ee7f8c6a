//! What starts machines.

use std::fmt;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use igloo_status::Code;

use super::{Plan, Resources, Running};
use crate::runtime_dir::RuntimeDirError;

/// A virtual machine monitor.
///
/// One driver exists, [`crate::qemu::Qemu`]. What a driver needs of a host beyond the plan is its own affair; what a
/// machine holds on the host is in `resources`.
#[async_trait]
pub trait Vmm: fmt::Debug + Send + Sync {
    /// Starts the machine. A success says that a process runs, and nothing about the guest: only the agent's hello does.
    ///
    /// # Errors
    /// When no process could be started.
    async fn start(&self, plan: &Plan, resources: &Resources) -> Result<Running, StartError>;
}

/// Why a machine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The emulator cannot be run.
    #[error("{} cannot be started", program.display())]
    Spawn {
        /// The emulator.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file or socket of the machine's cannot be opened.
    #[error("{} cannot be opened for the machine", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No socket or pipe to the machine.
    #[error("there is no way to talk to the machine: the host is out of descriptors or memory")]
    Channel {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The machine runs, yet its directory does not take a note of it.
    #[error("the machine cannot be recorded")]
    Record(#[from] RuntimeDirError),
}

impl StartError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Spawn { source, .. } | Self::File { source, .. } | Self::Channel { source } => {
                Code::from_io(source)
            }
            Self::Record(error) => error.code(),
        }
    }
}
