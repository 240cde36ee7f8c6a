//! The file system on `/dev/fuse`: mounted in a directory of this machine.
//!
//! Threads read requests from the device and answer them; each waits for the store as long as it takes, so their number
//! is the number of fetches at a time.
//!
//! How a mount ends
//! - [`Mount::unmount`], or the drop: the directory is free again, whoever still used it gets errors;
//! - `umount` by somebody else: the threads end, [`Mount::ended`] says so;
//! - `kill -9` of this process: the kernel aborts the connection but leaves the mount, and every access to it answers
//!   `ENOTCONN`. The next start removes it with [`cleanup_stale`]. Where nobody may find such a leftover, `auto_unmount`
//!   keeps a small `fusermount3` process that unmounts as soon as this one is gone.
//!
//! Invariants
//! - the mount is read-only, `nosuid`, `nodev`, and permissions are checked by the kernel;
//! - what is unmounted is the mount made here, never one that was put over it or took its place.

mod fusermount;
mod mountinfo;
mod stale;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use igloo_status::Code;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

pub use self::fusermount::FusermountError;
pub use self::stale::{CleanupError, cleanup_stale};
use crate::fs::{CastoreFs, READ_SIZE_MAX};
use crate::server::{FsServer, REPLY_SIZE_MAX, REQUEST_SIZE_MAX};
use crate::sync::{Arc, Condvar, Mutex, PoisonError, lock};

const DEVICE: &str = "/dev/fuse";
/// The type mounts have in `/proc/self/mountinfo`; what [`cleanup_stale`] recognises as ours.
pub const FILE_SYSTEM_TYPE: &str = "fuse.igloo";
/// How long an unmount waits for requests that are being served.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A mounted file system. Dropping it unmounts, whether it is in use or not.
#[derive(Debug)]
pub struct Mount {
    dir: PathBuf,
    fs: Arc<CastoreFs>,
    /// Device number of the mount, its minor naming it under `/sys/fs/fuse/connections`.
    device: mountinfo::Device,
    live: Arc<Live>,
    /// Closing it makes `fusermount3` unmount, if it was asked to stay.
    _guard: Option<UnixStream>,
}

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Requests served at a time.
    pub threads: usize,
    /// Whether other users than the mounting one see anything. Without root, `/etc/fuse.conf` must allow it.
    pub allow_other: bool,
    /// Whether the directory may hold something already, which the mount then hides.
    pub over_content: bool,
    /// Unmount even when this process is killed; needs `fusermount3`.
    pub auto_unmount: bool,
    /// How far the kernel reads ahead in a file read in order, and around a page fault in a mapped one, bytes. More is
    /// faster to a point (128 KiB 1.3 GB/s, 512 KiB 1.5 GB/s from memory) and fetches more that nobody asked for. Applied
    /// where this process may (as root).
    pub read_ahead_bytes: u32,
    /// What `mount` and `df` show as source.
    pub source: String,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            threads: 4,
            allow_other: false,
            over_content: false,
            auto_unmount: false,
            read_ahead_bytes: 512 << 10,
            source: "igloo".into(),
        }
    }
}

/// What an unmount does about programs that use the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Refuses with [`UnmountError::Busy`].
    IfIdle,
    /// Takes the name away now; files that are open stay readable until they are closed.
    Lazy,
    /// Takes the name away now; files that are open answer errors from now on.
    Force,
}

impl Mount {
    /// Mounts `fs` in the directory `dir`. Returns when it answers.
    ///
    /// Needs root, or `fusermount3`, which is tried when the kernel refuses.
    ///
    /// # Errors
    /// Each says what stands in the way; nothing is left behind.
    pub fn new(dir: &Path, fs: Arc<CastoreFs>, options: &MountOptions) -> Result<Self, MountError> {
        let dir = check_dir(dir, options)?;
        let resources = |source| MountError::Resources { source };
        let server = Arc::new(FsServer::new(fs.clone()).map_err(resources)?);
        let (channel, guard) = attach(&dir, options)?;
        let live = Arc::new(Live::default());
        let undo = UndoAttach {
            dir: &dir,
            armed: true,
        };
        let channel = Arc::new(channel);
        for index in 0..options.threads.max(1) {
            let (server, channel, running) = (server.clone(), channel.clone(), Live::enter(&live));
            let spawned = std::thread::Builder::new()
                .name(format!("igloo-fuse-{index}"))
                .spawn(move || {
                    serve(&server, &channel);
                    drop(running);
                });
            spawned.map_err(resources)?;
        }
        drop(channel); // only the threads hold the device: when they end, the kernel knows
        let device = settle(&dir, options).map_err(|source| MountError::Refused {
            dir: dir.clone(),
            source,
        })?;
        undo.disarm();
        Ok(Self {
            dir,
            fs,
            device,
            live,
            _guard: guard,
        })
    }

    /// Where it is mounted, without symlinks.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file system served.
    pub fn fs(&self) -> &Arc<CastoreFs> {
        &self.fs
    }

    /// Whether the kernel has let go of it: it was unmounted and nothing uses it any more.
    pub fn ended(&self) -> bool {
        *lock(&self.live.threads) == 0
    }

    /// Waits until it has ended, at most `patience`; returns whether it has.
    pub fn wait(&self, patience: Duration) -> bool {
        self.live.wait(patience)
    }

    /// Frees the directory. Doing it again, or after somebody else did, succeeds.
    ///
    /// # Errors
    /// `Busy` with [`Unmount::IfIdle`] when a program has a file or its working directory there.
    pub fn unmount(&self, how: Unmount) -> Result<(), UnmountError> {
        if !self.is_on_top()? {
            return Ok(());
        }
        let flags = match how {
            Unmount::IfIdle => UnmountFlags::NOFOLLOW,
            Unmount::Lazy => UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
            Unmount::Force => UnmountFlags::DETACH | UnmountFlags::FORCE | UnmountFlags::NOFOLLOW,
        };
        let dir = || self.dir.clone();
        match rustix::mount::unmount(&self.dir, flags) {
            Ok(()) => {}
            Err(Errno::BUSY) => return Err(UnmountError::Busy { dir: dir() }),
            Err(Errno::PERM) => {
                if how == Unmount::Force {
                    self.abort();
                }
                let failed = |source| UnmountError::Refused { dir: dir(), source };
                fusermount::unmount(&self.dir, how != Unmount::IfIdle).map_err(failed)?;
            }
            Err(error) => {
                return Err(UnmountError::Refused {
                    dir: dir(),
                    source: error.into(),
                });
            }
        }
        if how != Unmount::Lazy && !self.wait(STOP_DEADLINE) {
            tracing::warn!(dir = %self.dir.display(), "a request is still waiting for the store; its thread is left behind");
        }
        Ok(())
    }

    /// Whether our mount is the one that is seen at the directory.
    fn is_on_top(&self) -> Result<bool, UnmountError> {
        let top = mountinfo::top_at(&self.dir).map_err(|source| UnmountError::Refused {
            dir: self.dir.clone(),
            source,
        })?;
        Ok(top.is_some_and(|mount| mount.device == self.device))
    }

    /// Breaks the connection as its owner may without root, where the control file system is mounted.
    fn abort(&self) {
        let path = format!("/sys/fs/fuse/connections/{}/abort", self.device.minor);
        if let Err(error) = std::fs::write(&path, "1") {
            tracing::debug!(%error, path, "the connection cannot be aborted; open files keep it");
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount(Unmount::Force) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(cause, "{error}");
        }
    }
}

/// Serves requests until the kernel ends the connection.
fn serve(server: &FsServer, channel: &OwnedFd) {
    igloo_castore::blocking::allow_on_this_thread();
    let mut request = vec![0; REQUEST_SIZE_MAX];
    let mut reply = vec![0; REPLY_SIZE_MAX];
    loop {
        let size = match rustix::io::read(channel, &mut request) {
            Ok(size) => size,
            // ENOENT: the request was interrupted before it was read (fuse_dev_do_read, fs/fuse/dev.c)
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
            Err(Errno::NODEV) => return,
            Err(error) => {
                tracing::error!(%error, "{DEVICE} cannot be read; the mount ends");
                return;
            }
        };
        let Some(request) = request.get_mut(..size) else {
            return;
        };
        let size = server.serve_buffer(request, &mut reply);
        let Some(answer) = reply.get(..size).filter(|answer| !answer.is_empty()) else {
            continue;
        };
        match rustix::io::write(channel, answer) {
            Ok(_) | Err(Errno::NOENT | Errno::INTR) => {} // ENOENT: nobody waits for it any more
            Err(Errno::NODEV) => return,
            Err(error) => tracing::error!(%error, "the kernel refuses an answer"),
        }
    }
}

/// The threads that serve a mount.
#[derive(Debug, Default)]
struct Live {
    threads: Mutex<usize>,
    changed: Condvar,
}

impl Live {
    fn enter(this: &Arc<Self>) -> Running {
        *lock(&this.threads) += 1;
        Running(this.clone())
    }

    fn wait(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut threads = lock(&self.threads);
        while *threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(threads, left);
            threads = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Counts a thread as running while it is held.
struct Running(Arc<Live>);

impl Drop for Running {
    fn drop(&mut self) {
        *lock(&self.0.threads) -= 1;
        self.0.changed.notify_all();
    }
}

/// Takes the mount back when the rest of the start fails.
struct UndoAttach<'a> {
    dir: &'a Path,
    armed: bool,
}

impl UndoAttach<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for UndoAttach<'_> {
    fn drop(&mut self) {
        if self.armed && rustix::mount::unmount(self.dir, UnmountFlags::DETACH | UnmountFlags::FORCE).is_err()
        {
            let _ = fusermount::unmount(self.dir, true); // the error that brought us here is the one to tell
        }
    }
}

fn check_dir(dir: &Path, options: &MountOptions) -> Result<PathBuf, MountError> {
    let fail = |source: io::Error| match source.raw_os_error() {
        Some(libc::ENOTCONN) => MountError::Stale { dir: dir.to_owned() },
        Some(libc::ENOENT) => MountError::Missing { dir: dir.to_owned() },
        _ => MountError::Unusable {
            dir: dir.to_owned(),
            source,
        },
    };
    let real = dir.canonicalize().map_err(fail)?;
    if !std::fs::metadata(&real).map_err(fail)?.is_dir() {
        return Err(MountError::NotDirectory { dir: real });
    }
    let top = mountinfo::top_at(&real).map_err(fail)?;
    if top.is_some_and(|mount| mount.file_system == FILE_SYSTEM_TYPE) {
        let stale = stale::is_dead(&real);
        return Err(if stale {
            MountError::Stale { dir: real }
        } else {
            MountError::Mounted { dir: real }
        });
    }
    if !options.over_content && std::fs::read_dir(&real).map_err(fail)?.next().is_some() {
        return Err(MountError::NotEmpty { dir: real });
    }
    Ok(real)
}

/// Makes the mount: by ourselves, or where the kernel does not let us, through `fusermount3`.
fn attach(dir: &Path, options: &MountOptions) -> Result<(OwnedFd, Option<UnixStream>), MountError> {
    let by_helper = |refused: io::Error| {
        fusermount::mount(dir, options).map_err(|helper| MountError::NotAllowed {
            dir: dir.to_owned(),
            refused,
            helper,
        })
    };
    if options.auto_unmount {
        return by_helper(io::Error::other("`auto_unmount` was asked for"));
    }
    let channel = match File::options().read(true).write(true).open(DEVICE) {
        Ok(file) => OwnedFd::from(file),
        Err(source) => {
            return match source.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Err(MountError::NoDevice { source }),
                _ => by_helper(source),
            };
        }
    };
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,max_read={READ_SIZE_MAX}{}",
        channel.as_raw_fd(),
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
        if options.allow_other { ",allow_other" } else { "" },
    );
    let data = std::ffi::CString::new(data).unwrap_or_default(); // holds no NUL
    match rustix::mount::mount(options.source.as_str(), dir, FILE_SYSTEM_TYPE, flags, &*data) {
        Ok(()) => Ok((channel, None)),
        Err(Errno::PERM) => by_helper(Errno::PERM.into()),
        Err(Errno::NODEV) => Err(MountError::NoDevice {
            source: Errno::NODEV.into(),
        }),
        Err(error) => Err(MountError::Refused {
            dir: dir.to_owned(),
            source: error.into(),
        }),
    }
}

/// Waits for the first answer, learns the mount's number and sets how far the kernel reads ahead.
fn settle(dir: &Path, options: &MountOptions) -> io::Result<mountinfo::Device> {
    rustix::fs::statfs(dir)?; // answered after FUSE_INIT, which would undo the setting below
    let mount = mountinfo::top_at(dir)?.ok_or_else(|| io::Error::other("it was unmounted at once"))?;
    let device = mount.device;
    let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", device.major, device.minor);
    if let Err(error) = std::fs::write(&path, (options.read_ahead_bytes / 1024).to_string()) {
        tracing::debug!(%error, path, "the kernel's own read-ahead stays");
    }
    Ok(device)
}

/// Why a file system could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE.
    #[error(
        "this machine has no {DEVICE}; load the module (modprobe fuse) or pass the device into the container"
    )]
    NoDevice {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Not root, and `fusermount3` did not do it either.
    #[error("{} cannot be mounted without root ({refused}), and fusermount3 failed; run as root, or install fuse3", dir.display())]
    NotAllowed {
        /// Where.
        dir: PathBuf,
        /// What the kernel said.
        refused: io::Error,
        /// What the helper said.
        #[source]
        helper: FusermountError,
    },
    /// The directory does not exist.
    #[error("{} does not exist; make the directory first", dir.display())]
    Missing {
        /// Where.
        dir: PathBuf,
    },
    /// It is something else.
    #[error("{} is not a directory", dir.display())]
    NotDirectory {
        /// Where.
        dir: PathBuf,
    },
    /// It holds something that the mount would hide.
    #[error("{} is not empty; choose an empty directory, or let the mount hide its content (--over-content)", dir.display())]
    NotEmpty {
        /// Where.
        dir: PathBuf,
    },
    /// An igloo file system is there already.
    #[error("{} has an igloo file system mounted; unmount it first (umount {})", dir.display(), dir.display())]
    Mounted {
        /// Where.
        dir: PathBuf,
    },
    /// A mount whose server is gone is there.
    #[error("{} has a mount whose server is gone; remove it (umount -l {})", dir.display(), dir.display())]
    Stale {
        /// Where.
        dir: PathBuf,
    },
    /// The directory cannot be looked at.
    #[error("{} cannot be used", dir.display())]
    Unusable {
        /// Where.
        dir: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel did not take the mount.
    #[error("{} cannot be mounted", dir.display())]
    Refused {
        /// Where.
        dir: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Out of threads or file descriptors.
    #[error("no more threads or files can be had; raise the limits (ulimit -u, ulimit -n)")]
    Resources {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::NoDevice { .. } => Code::Unimplemented,
            Self::NotAllowed { .. } => Code::PermissionDenied,
            Self::Missing { .. } => Code::NotFound,
            Self::NotDirectory { .. } => Code::InvalidArgument,
            Self::NotEmpty { .. } | Self::Stale { .. } => Code::FailedPrecondition,
            Self::Mounted { .. } => Code::AlreadyExists,
            Self::Unusable { source, .. } | Self::Refused { source, .. } => Code::from_io(source),
            Self::Resources { .. } => Code::ResourceExhausted,
        }
    }
}

/// Why a file system could not be unmounted.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Somebody uses it.
    #[error("{} is in use; close what is open there, or unmount lazily or by force", dir.display())]
    Busy {
        /// Where.
        dir: PathBuf,
    },
    /// The kernel did not let it go.
    #[error("{} cannot be unmounted", dir.display())]
    Refused {
        /// Where.
        dir: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl UnmountError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Busy { .. } => Code::FailedPrecondition,
            Self::Refused { source, .. } => Code::from_io(source),
        }
    }
}
