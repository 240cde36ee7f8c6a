//! What one machine holds on the host.
//!
//! Invariants
//! - everything lies in one private directory ([`RuntimeDir`]) and is gone when this is dropped.

use std::path::{Path, PathBuf};

use igloo_status::Code;

use super::Plan;
use super::scratch::{self, MakeScratchError};
use crate::process::ProcessId;
use crate::runtime_dir::{RuntimeDir, RuntimeDirError};

/// Longest path of a unix socket, bytes (sockaddr_un.sun_path less the NUL, unix(7)).
const SOCKET_PATH_SIZE_MAX: usize = 107;

/// What one machine holds on the host.
#[derive(Debug)]
pub struct Resources {
    dir: RuntimeDir,
    share: Option<ShareSocket>,
    scratch: Option<PathBuf>,
}

impl Resources {
    /// Makes what a plan needs, below `root`.
    ///
    /// # Errors
    /// What the file system answered, naming the path.
    pub async fn prepare(plan: &Plan, root: &Path) -> Result<Self, PrepareError> {
        let dir = RuntimeDir::create(root)?;
        let share = plan
            .share
            .as_ref()
            .map(|share| ShareSocket::at(dir.path(), share.queues));
        let scratch = match &plan.scratch {
            Some(scratch) => {
                let path = dir.path().join("scratch.img");
                scratch::make(&path, scratch.size_bytes).await?;
                Some(path)
            }
            None => None,
        };
        Ok(Self {
            scratch,
            share: share.transpose()?,
            dir,
        })
    }

    /// Where the file server must listen before the machine is started.
    pub fn share(&self) -> Option<&ShareSocket> {
        self.share.as_ref()
    }

    /// The scratch disk's file.
    pub fn scratch(&self) -> Option<&Path> {
        self.scratch.as_deref()
    }

    /// Notes who runs the machine, for [`crate::runtime_dir::cleanup_stale`].
    pub(crate) fn record(&self, process: ProcessId) -> Result<(), RuntimeDirError> {
        self.dir.record(process)
    }
}

/// The socket between emulator and file server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareSocket {
    /// Its path.
    pub path: PathBuf,
    /// Request queues the device has.
    pub queues: u32,
}

impl ShareSocket {
    fn at(dir: &Path, queues: u32) -> Result<Self, PrepareError> {
        let path = dir.join("fs.sock");
        let bytes = path.as_os_str().as_encoded_bytes();
        let fits = bytes.len() <= SOCKET_PATH_SIZE_MAX && !bytes.contains(&b',') && !bytes.contains(&b'\n');
        if fits {
            Ok(Self { path, queues })
        } else {
            Err(PrepareError::SocketPath { path })
        }
    }
}

/// Why a machine's resources could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No directory.
    #[error(transparent)]
    Dir(#[from] RuntimeDirError),
    /// The directory's path is too long or odd for a socket in it.
    #[error("the socket path {} is longer than {SOCKET_PATH_SIZE_MAX} bytes or holds a comma; choose a shorter runtime directory", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
    },
    /// No scratch disk.
    #[error(transparent)]
    Scratch(#[from] MakeScratchError),
}

impl PrepareError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Dir(error) => error.code(),
            Self::SocketPath { .. } => Code::InvalidArgument,
            Self::Scratch(error) => error.code(),
        }
    }
}
