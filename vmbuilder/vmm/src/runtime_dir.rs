//! Private directories of running machines, and the removal of what crashed runs left.
//!
//! Each machine has a directory of its own below the runtime root, mode 0700, with
//! - `lock`: held with flock(2) for as long as its owner lives; the kernel lets go of it when the owner dies in any way;
//! - `process`: who runs the machine, so that a later run can kill it ([`ProcessId`]).
//!
//! Invariants
//! - a directory whose lock is free belongs to nobody: it is made under another name, locked, and only then renamed;
//! - dropping a [`RuntimeDir`] removes it with all it holds.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use igloo_status::Code;

use crate::process::{self, ProcessId};

const PREFIX: &str = "vm-";
const NEW_PREFIX: &str = ".new-";
const LOCK: &str = "lock";
const PROCESS: &str = "process";
/// A directory that is being made for longer than this was given up.
const MAKING_MAX: Duration = Duration::from_secs(60);

/// A machine's private directory.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    // held, never read: see the module's invariants
    _lock: File,
}

impl RuntimeDir {
    /// Makes one below `root`, which is made if need be.
    ///
    /// # Errors
    /// What the file system answered, naming the path.
    pub fn create(root: &Path) -> Result<Self, RuntimeDirError> {
        let at = |path: &Path, source| RuntimeDirError::Create {
            path: path.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|source| at(root, source))?;
        check_owner(root)?;
        let making = tempfile::Builder::new()
            .prefix(NEW_PREFIX)
            .rand_bytes(12)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(root)
            .map_err(|source| at(root, source))?;
        let lock = lock(making.path()).map_err(|source| at(making.path(), source))?;
        let name = making.path().file_name().and_then(|name| name.to_str());
        let path = root.join(format!(
            "{PREFIX}{}",
            name.unwrap_or_default().trim_start_matches(NEW_PREFIX)
        ));
        fs::rename(making.path(), &path).map_err(|source| at(&path, source))?;
        let _ = making.keep(); // it has another name now, and `Self` removes it
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records who runs the machine.
    pub fn record(&self, process: ProcessId) -> Result<(), RuntimeDirError> {
        let path = self.path.join(PROCESS);
        let write = || {
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            writeln!(file, "{process}")
        };
        write().map_err(|source| RuntimeDirError::Create {
            path: path.clone(),
            source,
        })
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a machine's directory cannot be removed");
        }
    }
}

/// What [`cleanup_stale`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// Directories removed.
    pub directories: usize,
    /// Machines that were still running, and were killed.
    pub processes: usize,
}

/// Removes what dead processes left below `root`, and kills machines that outlived them.
///
/// Directories in use are left alone, so any number of processes may share a root and clean it at any time.
///
/// # Errors
/// The first directory that cannot be read or removed; the rest is still cleaned.
pub fn cleanup_stale(root: &Path) -> Result<Cleanup, RuntimeDirError> {
    let mut done = Cleanup::default();
    let mut first_error = None;
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(done),
        Err(source) => {
            return Err(RuntimeDirError::Clean {
                path: root.to_owned(),
                source,
            });
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if let Err(source) = clean_one(&path, &mut done) {
            first_error.get_or_insert(RuntimeDirError::Clean { path, source });
        }
    }
    first_error.map_or(Ok(done), Err)
}

fn clean_one(path: &Path, done: &mut Cleanup) -> io::Result<()> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let being_made = name.starts_with(NEW_PREFIX);
    if !(being_made || name.starts_with(PREFIX)) || !fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    if being_made && !is_old(path)? {
        return Ok(());
    }
    let Some(_lock) = try_lock(path)? else {
        return Ok(());
    };
    let recorded = fs::read_to_string(path.join(PROCESS)).ok();
    if let Some(Ok(id)) = recorded.map(|text| text.parse::<ProcessId>())
        && process::kill_stray(id)?
    {
        done.processes += 1;
    }
    fs::remove_dir_all(path)?;
    done.directories += 1;
    Ok(())
}

/// Whoever can rename things in the root could put their own socket in a machine's place.
fn check_owner(root: &Path) -> Result<(), RuntimeDirError> {
    let metadata = fs::metadata(root).map_err(|source| RuntimeDirError::Create {
        path: root.to_owned(),
        source,
    })?;
    let is_ours = metadata.uid() == process::effective_uid() && metadata.mode() & 0o022 == 0;
    if is_ours {
        Ok(())
    } else {
        Err(RuntimeDirError::Unsafe {
            path: root.to_owned(),
        })
    }
}

fn is_old(path: &Path) -> io::Result<bool> {
    let modified = fs::symlink_metadata(path)?.modified()?;
    Ok(SystemTime::now()
        .duration_since(modified)
        .is_ok_and(|age| age > MAKING_MAX))
}

fn open_lock(dir: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join(LOCK))
}

fn lock(dir: &Path) -> io::Result<File> {
    let file = open_lock(dir)?;
    file.lock()?;
    Ok(file)
}

/// `None` when the owner lives, or was quicker to remove it.
fn try_lock(dir: &Path) -> io::Result<Option<File>> {
    let file = match open_lock(dir) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Why a machine's directory could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// Cannot be made.
    #[error("{} cannot be made for a build machine; choose another runtime directory or free space there", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others can change what is in it.
    #[error("{} belongs to another user or can be written to by others; choose a runtime directory of your own, mode 0700", path.display())]
    Unsafe {
        /// Which.
        path: PathBuf,
    },
    /// Cannot be cleaned.
    #[error("{}, left by an earlier run, cannot be removed; remove it by hand", path.display())]
    Clean {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl RuntimeDirError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Create { source, .. } | Self::Clean { source, .. } => Code::from_io(source),
            Self::Unsafe { .. } => Code::FailedPrecondition,
        }
    }
}

#[cfg(test)]
mod tests;
