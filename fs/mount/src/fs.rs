//! The FUSE operations of a [`View`]: what a kernel asks, answered from content.
//!
//! Only the read-only operations exist. What would change something is `EROFS`; what the kernel should stop asking for
//! (OPEN, OPENDIR, FLUSH, xattrs, ...) is `ENOSYS`, which it remembers (fs/fuse/file.c, dir.c, xattr.c).
//!
//! Invariants
//! - answers are cached by the kernel for ever, for content never changes; only what [`Stability`] says about the top
//!   directory is asked for again;
//! - reads need no handle: the inode number says all, so opening a file is no request;
//! - each operation runs on a thread that may block, and drives the async store on the given runtime;
//! - a failing store is an errno for the one who asked and one log line with the whole cause, never a panic.

use std::ffi::CStr;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{CreateIn, stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, FsOptions, OpenOptions, SetattrValid, ZeroCopyReader,
    ZeroCopyWriter,
};
use igloo_castore::node::NAME_SIZE_MAX;
use igloo_castore::{Castore, Node};
use tokio::runtime::Handle;

use crate::attributes::Attributes;
use crate::counters::Counters;
use crate::errno::errno;
use crate::inode::{Ino, Inode, ROOT};
use crate::roots::{Roots, Stability};
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::tree::{DIRECTORY_CACHE_BYTES, Tree};
use crate::view::{View, ViewError};

/// Largest read answered, bytes: what the kernel is told it may ask for (256 pages, FUSE_MAX_PAGES).
pub const READ_SIZE_MAX: u32 = 1 << 20;

/// How long the kernel may keep what never changes: 136 years.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// A castore tree as a read-only FUSE file system for one kernel.
///
/// Give it to [`crate::fuse::Mount`] or [`crate::vhost::VhostServer`]. One instance serves one kernel: inode numbers are
/// that kernel's. Directories are decoded once for all instances made from clones of one [`Tree`].
#[derive(Debug)]
pub struct CastoreFs {
    view: View,
    runtime: Handle,
    limits: FsLimits,
    /// Makes the top directory look changed at each glance while nobody can say whether it was.
    glances: AtomicU64,
}

/// Bounds and figures of a file system.
#[derive(Clone, Copy, Debug)]
pub struct FsLimits {
    /// Inodes a kernel may hold; more are refused with `ENOMEM`. About 300 bytes each.
    pub inodes_max: usize,
    /// Size that statfs(2) shows, bytes; 0 when unknown.
    pub total_bytes: u64,
    /// Number of files that statfs(2) shows; 0 when unknown.
    pub total_files: u64,
}

impl Default for FsLimits {
    fn default() -> Self {
        Self {
            inodes_max: 4 << 20,
            total_bytes: 0,
            total_files: 0,
        }
    }
}

impl CastoreFs {
    /// A file system of `roots` over `tree`. Store requests run on `runtime`, which must outlive the mount.
    pub fn new(roots: Arc<dyn Roots>, tree: Tree, runtime: Handle, limits: FsLimits) -> Self {
        Self {
            view: View::new(roots, tree, limits.inodes_max),
            runtime,
            limits,
            glances: AtomicU64::new(0),
        }
    }

    /// The same with a directory cache of its own and default limits.
    pub fn of_store(roots: Arc<dyn Roots>, castore: Castore, runtime: Handle) -> Self {
        let tree = Tree::new(castore, DIRECTORY_CACHE_BYTES);
        Self::new(roots, tree, runtime, FsLimits::default())
    }

    /// What was asked so far.
    pub fn counters(&self) -> &Arc<Counters> {
        self.view.counters()
    }

    /// The view behind the operations.
    pub fn view(&self) -> &View {
        &self.view
    }

    fn block_on<T>(&self, future: impl Future<Output = Result<T, ViewError>>) -> io::Result<T> {
        self.runtime.block_on(future).map_err(|error| self.refuse(&error))
    }

    /// Turns an error into an errno; failures of ours are logged with their causes and counted.
    fn refuse(&self, error: &ViewError) -> io::Error {
        let errno = match error {
            ViewError::UnknownInode { .. } => libc::ESTALE,
            ViewError::NotDirectory { .. } => libc::ENOTDIR,
            ViewError::IsDirectory { .. } => libc::EISDIR,
            ViewError::NotFile { .. } | ViewError::NotSymlink { .. } => libc::EINVAL,
            ViewError::Inode(_) | ViewError::Directory(_) | ViewError::File(_) | ViewError::Roots(_) => {
                self.view.counters().error();
                tracing::error!(code = %error.code(), "a request failed: {}", chain(error));
                errno(error.code())
            }
        };
        io::Error::from_raw_os_error(errno)
    }

    /// The entry for a node that was counted under `number`.
    fn entry(&self, parent: u64, number: Ino, node: &Node) -> Entry {
        let entry_timeout = if parent == ROOT.number() {
            self.root_entry_timeout()
        } else {
            FOREVER
        };
        Entry {
            inode: number.number(),
            generation: 0,
            attr: Attributes::of_node(node).stat(number.number()),
            attr_flags: 0,
            attr_timeout: FOREVER,
            entry_timeout,
        }
    }

    /// What the kernel remembers of a name that is not there.
    fn no_entry(&self, parent: u64) -> io::Result<Entry> {
        let fixed = parent != ROOT.number() || self.view.root_stability() == Stability::Fixed;
        if !fixed {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let attr = stat64::from(fuse_backend_rs::abi::fuse_abi::Attr::default());
        let (attr_timeout, entry_timeout) = (FOREVER, FOREVER);
        Ok(Entry {
            inode: 0,
            generation: 0,
            attr,
            attr_flags: 0,
            attr_timeout,
            entry_timeout,
        })
    }

    fn root_entry_timeout(&self) -> Duration {
        match self.view.root_stability() {
            Stability::Fixed => FOREVER,
            Stability::Changing { entry_ttl, .. } => entry_ttl,
        }
    }

    /// Calls `add` for `.`, `..` and the entries after `offset` until it finds no room.
    ///
    /// Offsets: 1 after `.`, 2 after `..`, then the entry's cursor plus 2.
    fn walk(
        &self,
        number: u64,
        offset: u64,
        mut add: impl FnMut(DirEntry<'_>, Option<(u64, &Node)>) -> io::Result<usize>,
    ) -> io::Result<()> {
        for (index, name) in [(1, &b"."[..]), (2, b"..")] {
            let ino = if index == 1 {
                number
            } else {
                self.view.parent(number).number()
            };
            let dot = DirEntry {
                ino,
                offset: index,
                type_: u32::from(libc::DT_DIR),
                name,
            };
            if offset < index && add(dot, None)? == 0 {
                return Ok(());
            }
        }
        let mut after = offset.saturating_sub(2);
        loop {
            let listing = self.block_on(self.view.list(number, after))?;
            let before = after;
            for (cursor, name, node) in listing.iter() {
                let type_ = Attributes::of_node(node).entry_type();
                let offset = cursor.saturating_add(2);
                let dirent = DirEntry {
                    ino: INO_UNKNOWN,
                    offset,
                    type_,
                    name: name.as_bytes(),
                };
                if add(dirent, Some((cursor, node)))? == 0 {
                    return Ok(());
                }
                after = cursor;
            }
            if after == before {
                return Ok(()); // the end; also when a `Roots` breaks its promise and does not advance
            }
        }
    }

    fn read_only<T>() -> io::Result<T> {
        Err(io::Error::from_raw_os_error(libc::EROFS))
    }
}

const NANOSECONDS: u64 = 1_000_000_000;

/// What readdir(3) shows as inode number where none was given out (FUSE_UNKNOWN_INO, libfuse).
const INO_UNKNOWN: u64 = 0xffff_ffff;

impl FileSystem for CastoreFs {
    type Inode = u64;
    type Handle = u64;

    /// Takes what saves requests: readdirplus always, no opens, big and parallel requests, cached symlinks. The kernel may
    /// mount anew (a guest that reboots): what the last one held is forgotten.
    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.view.inodes().clear();
        let want = FsOptions::ASYNC_READ
            | FsOptions::PARALLEL_DIROPS
            | FsOptions::BIG_WRITES
            | FsOptions::MAX_PAGES
            | FsOptions::DO_READDIRPLUS
            | FsOptions::AUTO_INVAL_DATA
            | FsOptions::CACHE_SYMLINKS
            | FsOptions::ZERO_MESSAGE_OPEN
            | FsOptions::ZERO_MESSAGE_OPENDIR;
        Ok(want & capable)
    }

    fn destroy(&self) {
        self.view.inodes().clear();
    }

    fn lookup(&self, _: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        let name = name.to_bytes();
        if name.len() > NAME_SIZE_MAX {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        match self.block_on(self.view.lookup(parent, name))? {
            Some(found) => Ok(self.entry(parent, found.number, &found.node)),
            None => self.no_entry(parent),
        }
    }

    fn forget(&self, _: &Context, inode: u64, count: u64) {
        self.view.inodes().forget(inode, count);
    }

    fn getattr(&self, _: &Context, inode: u64, _: Option<u64>) -> io::Result<(stat64, Duration)> {
        let stability = self.view.root_stability();
        let found = self.view.inode(inode).map_err(|error| self.refuse(&error))?;
        let mut stat = Attributes::of_inode(&found, stability).stat(inode);
        let timeout = match stability {
            Stability::Changing { version, .. } if matches!(*found, Inode::Root) => {
                if version == 0 {
                    let glance = self.glances.fetch_add(1, Ordering::Relaxed) % NANOSECONDS;
                    stat.st_mtime_nsec = i64::try_from(glance).unwrap_or_default();
                }
                Duration::ZERO
            }
            _ => FOREVER,
        };
        Ok((stat, timeout))
    }

    fn readlink(&self, _: &Context, inode: u64) -> io::Result<Vec<u8>> {
        self.view.readlink(inode).map_err(|error| self.refuse(&error))
    }

    /// Answers `ENOSYS`: the kernel then opens files by itself, this one included.
    fn open(
        &self,
        _: &Context,
        _: u64,
        _: u32,
        _: u32,
    ) -> io::Result<(Option<u64>, OpenOptions, Option<u32>)> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }

    /// As `open`. The kernel then also keeps listings (FOPEN_CACHE_DIR, fs/fuse/file.c).
    fn opendir(&self, _: &Context, _: u64, _: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }

    fn read(
        &self,
        _: &Context,
        inode: u64,
        _: u64,
        writer: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        _: Option<u64>,
        _: u32,
    ) -> io::Result<usize> {
        let room = writer.available_bytes();
        if size > READ_SIZE_MAX || usize::try_from(size).map_or(true, |size| size > room) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL)); // a short answer would be zeros in a file
        }
        let bytes = self.block_on(self.view.read(inode, offset, size))?;
        writer.write_all(&bytes)?;
        Ok(bytes.len())
    }

    fn readdir(
        &self,
        _: &Context,
        inode: u64,
        _: u64,
        _: u32,
        offset: u64,
        add_entry: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.walk(inode, offset, |dirent, _| add_entry(dirent))
    }

    fn readdirplus(
        &self,
        _: &Context,
        inode: u64,
        _: u64,
        _: u32,
        offset: u64,
        add_entry: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut counted = Vec::new();
        let result = self.walk(inode, offset, |mut dirent, child| {
            let Some((cursor, node)) = child else {
                return add_entry(dirent, unlinked_entry());
            };
            let number = self
                .view
                .acquire(inode, cursor, node)
                .map_err(|error| self.refuse(&error))?;
            counted.push(number);
            dirent.ino = number.number();
            let added = add_entry(dirent, self.entry(inode, number, node))?;
            if added == 0 {
                counted.pop();
                self.view.inodes().forget(number.number(), 1);
            }
            Ok(added)
        });
        if result.is_err() {
            // the kernel sees only the error, so it holds none of them
            for number in counted {
                self.view.inodes().forget(number.number(), 1);
            }
        }
        result
    }

    fn statfs(&self, _: &Context, _: u64) -> io::Result<statvfs64> {
        let mut statvfs = Blank.statfs(&Context::default(), 0)?; // all zeros but the longest name
        let block: u64 = 4096;
        (statvfs.f_bsize, statvfs.f_frsize) = (block, block);
        statvfs.f_blocks = self.limits.total_bytes.div_ceil(block).max(1); // `df` hides file systems of size 0
        statvfs.f_files = self.limits.total_files;
        Ok(statvfs)
    }

    fn access(&self, _: &Context, inode: u64, mask: u32) -> io::Result<()> {
        let found = self.view.inode(inode).map_err(|error| self.refuse(&error))?;
        let mode = Attributes::of_inode(&found, self.view.root_stability()).mode;
        if mask & libc::W_OK.unsigned_abs() != 0 {
            return Self::read_only();
        }
        if mask & libc::X_OK.unsigned_abs() != 0 && mode & 0o111 == 0 {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        Ok(())
    }

    fn setattr(
        &self,
        _: &Context,
        _: u64,
        _: stat64,
        _: Option<u64>,
        _: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        Self::read_only()
    }

    fn symlink(&self, _: &Context, _: &CStr, _: u64, _: &CStr) -> io::Result<Entry> {
        Self::read_only()
    }

    fn mknod(&self, _: &Context, _: u64, _: &CStr, _: u32, _: u32, _: u32) -> io::Result<Entry> {
        Self::read_only()
    }

    fn mkdir(&self, _: &Context, _: u64, _: &CStr, _: u32, _: u32) -> io::Result<Entry> {
        Self::read_only()
    }

    fn unlink(&self, _: &Context, _: u64, _: &CStr) -> io::Result<()> {
        Self::read_only()
    }

    fn rmdir(&self, _: &Context, _: u64, _: &CStr) -> io::Result<()> {
        Self::read_only()
    }

    fn rename(&self, _: &Context, _: u64, _: &CStr, _: u64, _: &CStr, _: u32) -> io::Result<()> {
        Self::read_only()
    }

    fn link(&self, _: &Context, _: u64, _: u64, _: &CStr) -> io::Result<Entry> {
        Self::read_only()
    }

    fn create(
        &self,
        _: &Context,
        _: u64,
        _: &CStr,
        _: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        Self::read_only()
    }

    fn write(
        &self,
        _: &Context,
        _: u64,
        _: u64,
        _: &mut dyn ZeroCopyReader,
        _: u32,
        _: u64,
        _: Option<u64>,
        _: bool,
        _: u32,
        _: u32,
    ) -> io::Result<usize> {
        Self::read_only()
    }

    fn fallocate(&self, _: &Context, _: u64, _: u64, _: u32, _: u64, _: u64) -> io::Result<()> {
        Self::read_only()
    }
}

/// The defaults of the trait: the one way to a zeroed `statvfs64` without unsafe code.
struct Blank;

impl FileSystem for Blank {
    type Inode = u64;
    type Handle = u64;
}

/// Number 0 in a readdirplus answer: a name only, no inode (fuse_direntplus_link, fs/fuse/readdir.c).
fn unlinked_entry() -> Entry {
    Entry {
        inode: 0,
        generation: 0,
        attr: stat64::from(fuse_backend_rs::abi::fuse_abi::Attr::default()),
        attr_flags: 0,
        attr_timeout: Duration::ZERO,
        entry_timeout: Duration::ZERO,
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}"); // writing to a String cannot fail
        source = error.source();
    }
    text
}
