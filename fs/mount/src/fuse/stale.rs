//! Mounts whose server is gone: found and removed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use igloo_status::Code;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::{FILE_SYSTEM_TYPE, fusermount, mountinfo};

/// How long a server may take to show that it lives.
const PATIENCE: Duration = Duration::from_secs(2);
/// Mounts removed from one directory before giving up.
const COUNT_MAX: usize = 64;

/// Removes igloo mounts from `dir` whose server is gone, as `kill -9` leaves them; returns how many there were.
///
/// Touches nothing that answers, nothing of another type, and succeeds where nothing is mounted. Takes up to 2 seconds
/// when a server lives but does not answer.
///
/// # Errors
/// When the kernel refuses to unmount, or the mount table cannot be read.
pub fn cleanup_stale(dir: &Path) -> Result<usize, CleanupError> {
    let fail = |source| CleanupError {
        dir: dir.to_owned(),
        source,
    };
    let dir = real_path(dir).map_err(fail)?;
    for count in 0..COUNT_MAX {
        let Some(top) = mountinfo::top_at(&dir).map_err(fail)? else {
            return Ok(count);
        };
        if top.file_system != FILE_SYSTEM_TYPE || !is_dead(&dir) {
            return Ok(count);
        }
        match rustix::mount::unmount(&dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::PERM) => fusermount::unmount(&dir, true).map_err(fail)?,
            Err(error) => return Err(fail(error.into())),
        }
    }
    Ok(COUNT_MAX)
}

/// The path without symlinks; its last part is not looked at, for that is what may be dead.
fn real_path(dir: &Path) -> io::Result<PathBuf> {
    if let Ok(real) = dir.canonicalize() {
        return Ok(real);
    }
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return std::path::absolute(dir);
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    match parent.canonicalize() {
        Ok(parent) => Ok(parent.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(dir),
        Err(error) => Err(error),
    }
}

/// Whether nobody serves the mount. statfs(2) is never answered from a cache. Asked on a thread of its own, for a server that hangs would hang the caller.
pub(super) fn is_dead(dir: &Path) -> bool {
    let (send, receive) = mpsc::channel();
    let path = dir.to_owned();
    let spawned = std::thread::Builder::new()
        .name("igloo-probe".into())
        .spawn(move || {
            let _ = send.send(rustix::fs::statfs(&path)); // the receiver may have lost patience
        });
    if spawned.is_err() {
        return false;
    }
    matches!(
        receive.recv_timeout(PATIENCE),
        Ok(Err(Errno::NOTCONN | Errno::CONNABORTED))
    )
}

/// Why leftover mounts could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("a mount left behind at {} cannot be removed; try `umount -l {}` as root", dir.display(), dir.display())]
pub struct CleanupError {
    dir: PathBuf,
    #[source]
    source: io::Error,
}

impl CleanupError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        Code::from_io(&self.source)
    }
}
