//! Taking in a path of this machine's file system.
//!
//! A walker lists directories in order, ahead; batches of its steps are opened, read and hashed on the blocking pool;
//! the ingest takes the results in order. Small files are read whole, larger ones stream.
//!
//! Invariants
//! - memory for small files read ahead: [`READ_AHEAD_BYTES`]; for a streamed file a few blocks of 1 MiB;
//! - files are read as they are now: one that changes size while it is read is an error, never a mixture unnoticed;
//! - permissions: the owner's x bit makes a file executable, as Nix has it; all else about a file is ignored.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use igloo_status::Code;
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, pread, read, retry_on_intr};
use tokio::sync::mpsc;

use super::walk::{OPEN_FILE, Place, Plan, Walker};
use super::{IngestError, IngestLimits, Ingested, TreeIngest, TreeObserver};
use crate::blocking::{self, Task};
use crate::chunking::UNCUT_SIZE_MAX;
use crate::digest::BlobDigest;
use crate::node::{NodeName, ParseNameError, ParseTargetError, SymlinkTarget};
use crate::store::Castore;
use crate::tree::TreeEvent;

/// Budget for small files read and not yet taken in, bytes.
pub const READ_AHEAD_BYTES: usize = 32 << 20;
/// A batch ends after this many files, or directories, or steps of any kind.
const BATCH_FILES: usize = 32;
const BATCH_DIRECTORIES: usize = 16;
const BATCH_STEPS: usize = 256;
/// Batches in flight: the one being taken in and one more being loaded are on top.
const BATCHES_AHEAD: usize = READ_AHEAD_BYTES / (BATCH_FILES * UNCUT_SIZE_MAX) - 2;
/// Streamed files are read in blocks of this size, bytes.
const BLOCK_SIZE: usize = 1 << 20;
/// Blocks of a streamed file read ahead.
const BLOCKS_AHEAD: usize = 4;

/// Decides whether an entry is taken in. Gets its path relative to the root (`a/b`); a directory that is left out takes
/// all below it along. Called on another thread, in order.
pub type Filter = Arc<dyn Fn(&[u8], FileKind) -> bool + Send + Sync>;

/// How a path is taken in.
#[derive(Clone, Default)]
pub struct PathOptions {
    /// Bounds.
    pub limits: IngestLimits,
    /// What is left out.
    pub filter: Option<Filter>,
}

/// The kind of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symlink.
    Symlink,
    /// Something no store can hold; says what.
    Other(&'static str),
}

/// Takes the tree at `path` into `castore`.
///
/// A symlink at `path` itself is taken in as a symlink. Runs on all cores where a tokio runtime is near, else on the
/// calling thread. Not durable before `Castore::sync`.
///
/// # Errors
/// [`IngestPathError`] names the first entry, in order, that cannot be taken in.
pub async fn ingest_path<O: TreeObserver>(
    castore: &Castore,
    path: &Path,
    options: &PathOptions,
    observer: O,
) -> Result<Ingested<O>, IngestPathError> {
    let walker = Walker::new(path, options.filter.clone(), options.limits.depth_max);
    let mut steps = Steps::start(walker);
    let mut ingest = TreeIngest::new(castore.clone(), options.limits.clone(), observer);
    let result = take_all(&mut ingest, &mut steps).await;
    match result {
        Ok(()) => Ok(ingest.finish().await.map_err(|error| under(path, error))?),
        Err(Refused::Ingest(error)) => Err(under(path, error)),
        Err(Refused::Entry(name, reason)) => {
            let inner = ingest.path_of(name.as_ref());
            let path = match inner.as_str() {
                "." => path.display().to_string(),
                inner => format!("{}/{inner}", path.display()),
            };
            Err(reason.into_error(path))
        }
    }
}

fn under(path: &Path, source: IngestError) -> IngestPathError {
    IngestPathError::Ingest {
        path: path.display().to_string(),
        source,
    }
}

enum Refused {
    Ingest(IngestError),
    Entry(Option<NodeName>, Reason),
}

impl From<IngestError> for Refused {
    fn from(error: IngestError) -> Self {
        Self::Ingest(error)
    }
}

async fn take_all<O: TreeObserver>(ingest: &mut TreeIngest<O>, steps: &mut Steps) -> Result<(), Refused> {
    while let Some(batch) = steps.next().await {
        for step in batch {
            match step {
                Step::Directory { name } => ingest.event(TreeEvent::DirectoryBegin { name }).await?,
                Step::DirectoryEnd => ingest.event(TreeEvent::DirectoryEnd).await?,
                Step::Symlink { name, target } => ingest.event(TreeEvent::Symlink { name, target }).await?,
                Step::Small {
                    name,
                    executable,
                    digest,
                    bytes,
                } => ingest.hashed_file(name, executable, digest, bytes).await?,
                Step::Large { name, place } => take_large(ingest, name, place).await?,
                Step::Failed { name, reason } => return Err(Refused::Entry(name, reason)),
            }
        }
    }
    Ok(())
}

async fn take_large<O: TreeObserver>(
    ingest: &mut TreeIngest<O>,
    name: Option<NodeName>,
    place: Place,
) -> Result<(), Refused> {
    let entry = |reason| Refused::Entry(name.clone(), reason);
    let opened = blocking::run(move || Opened::new(&place)).await.map_err(entry)?;
    let begin = TreeEvent::FileBegin {
        name: name.clone(),
        executable: opened.executable,
        size: opened.size,
    };
    ingest.event(begin).await?;
    let mut blocks = Blocks::start(opened);
    while let Some(block) = blocks.next().await {
        ingest.event(TreeEvent::FileData(block.map_err(entry)?)).await?;
    }
    Ok(())
}

/// A part of the tree, read.
enum Step {
    Directory {
        name: Option<NodeName>,
    },
    DirectoryEnd,
    Symlink {
        name: Option<NodeName>,
        target: SymlinkTarget,
    },
    Small {
        name: Option<NodeName>,
        executable: bool,
        digest: BlobDigest,
        bytes: Bytes,
    },
    Large {
        name: Option<NodeName>,
        place: Place,
    },
    Failed {
        name: Option<NodeName>,
        reason: Reason,
    },
}

enum Steps {
    /// A walker on a thread of its own starts the loading of batches.
    Ahead(mpsc::Receiver<Task<Vec<Step>>>),
    Inline(Walker),
}

impl Steps {
    fn start(mut walker: Walker) -> Self {
        if tokio::runtime::Handle::try_current().is_err() {
            return Self::Inline(walker);
        }
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        // dropping the receiver ends it at the next batch
        drop(blocking::spawn(move || {
            while let Some(batch) = next_batch(&mut walker) {
                if sender.blocking_send(blocking::spawn(|| load(batch))).is_err() {
                    break;
                }
            }
        }));
        Self::Ahead(receiver)
    }

    async fn next(&mut self) -> Option<Vec<Step>> {
        match self {
            Self::Ahead(receiver) => Some(receiver.recv().await?.wait().await),
            Self::Inline(walker) => next_batch(walker).map(load),
        }
    }
}

fn next_batch(walker: &mut Walker) -> Option<Vec<Plan>> {
    let mut batch = Vec::new();
    let (mut files, mut directories) = (0, 0);
    while files < BATCH_FILES && directories < BATCH_DIRECTORIES && batch.len() < BATCH_STEPS {
        let Some(plan) = walker.next() else {
            break;
        };
        match plan {
            Plan::File { .. } => files += 1,
            Plan::Directory { .. } => directories += 1,
            _ => {}
        }
        batch.push(plan);
    }
    (!batch.is_empty()).then_some(batch)
}

fn load(batch: Vec<Plan>) -> Vec<Step> {
    batch
        .into_iter()
        .map(|plan| match plan {
            Plan::Directory { name } => Step::Directory { name },
            Plan::DirectoryEnd => Step::DirectoryEnd,
            Plan::Failed { name, reason } => Step::Failed { name, reason },
            Plan::Symlink { name, place } => match place.read_link() {
                Ok(target) => Step::Symlink { name, target },
                Err(reason) => Step::Failed { name, reason },
            },
            Plan::File { name, place } => load_file(name, place),
        })
        .collect()
}

fn load_file(name: Option<NodeName>, place: Place) -> Step {
    let opened = match Opened::new(&place) {
        Ok(opened) => opened,
        Err(reason) => return Step::Failed { name, reason },
    };
    match usize::try_from(opened.size) {
        Ok(size) if size <= UNCUT_SIZE_MAX => match opened.read_whole(size) {
            Ok(bytes) => Step::Small {
                name,
                executable: opened.executable,
                digest: BlobDigest::of(&bytes),
                bytes,
            },
            Err(reason) => Step::Failed { name, reason },
        },
        // closed here and opened again in its turn, so that few files are open at a time
        _ => Step::Large { name, place },
    }
}

/// A regular file, open.
struct Opened {
    file: OwnedFd,
    size: u64,
    executable: bool,
}

impl Opened {
    fn new(place: &Place) -> Result<Self, Reason> {
        let file = place.open(OPEN_FILE).map_err(Reason::opening)?;
        let stat = fstat(&file).map_err(Reason::io("look at"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Reason::Swapped);
        }
        Ok(Self {
            file,
            size: u64::try_from(stat.st_size).map_err(|_| Reason::Swapped)?,
            executable: stat.st_mode & 0o100 != 0,
        })
    }

    fn read_whole(&self, size: usize) -> Result<Bytes, Reason> {
        // room for one byte too many, to notice a file that grew
        let mut bytes = Vec::with_capacity(size + 1);
        while bytes.len() <= size {
            let count =
                retry_on_intr(|| read(&self.file, spare_capacity(&mut bytes))).map_err(Reason::io("read"))?;
            if count == 0 || bytes.len() == size && count == size {
                break; // a regular file gives less than asked only at its end
            }
        }
        self.check_size(bytes.len() as u64)?;
        Ok(bytes.into())
    }

    fn read_block(&self, offset: u64) -> Result<Bytes, Reason> {
        let left = usize::try_from(self.size - offset).unwrap_or(usize::MAX);
        let size = left.min(BLOCK_SIZE);
        // the last block asks for one byte too many, to notice a file that grew
        let room = if left <= BLOCK_SIZE { size + 1 } else { size };
        let mut block = Vec::with_capacity(room);
        while block.len() < room {
            let at = offset + block.len() as u64;
            let count = retry_on_intr(|| pread(&self.file, spare_capacity(&mut block), at))
                .map_err(Reason::io("read"))?;
            if count == 0 {
                break;
            }
        }
        if block.len() != size {
            self.check_size(offset + block.len() as u64)?;
        }
        Ok(block.into())
    }

    fn check_size(&self, read: u64) -> Result<(), Reason> {
        if read == self.size {
            return Ok(());
        }
        Err(Reason::Changed {
            size: self.size,
            grew: read > self.size,
        })
    }
}

/// The blocks of a file in order, some of them being read ahead.
struct Blocks {
    opened: Arc<Opened>,
    offset: u64,
    reading: VecDeque<Task<Result<Bytes, Reason>>>,
}

impl Blocks {
    fn start(opened: Opened) -> Self {
        Self {
            opened: Arc::new(opened),
            offset: 0,
            reading: VecDeque::new(),
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, Reason>> {
        while self.reading.len() < BLOCKS_AHEAD && self.offset < self.opened.size {
            let (opened, offset) = (Arc::clone(&self.opened), self.offset);
            self.reading
                .push_back(blocking::spawn(move || opened.read_block(offset)));
            self.offset = self.offset.saturating_add(BLOCK_SIZE as u64);
        }
        Some(self.reading.pop_front()?.wait().await)
    }
}

/// Why an entry was not taken in; the path is added by who knows it.
#[derive(Debug)]
pub(super) enum Reason {
    Unsupported(&'static str),
    Changed { size: u64, grew: bool },
    Swapped,
    Name(ParseNameError),
    Target(ParseTargetError),
    Io(&'static str, Errno),
}

impl Reason {
    pub(super) fn io(action: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Io(action, errno)
    }

    /// Opening a name whose kind was listed: another kind there now means it was swapped.
    pub(super) fn opening(errno: Errno) -> Self {
        match errno {
            Errno::LOOP | Errno::NOTDIR | Errno::NXIO => Self::Swapped,
            errno => Self::Io("open", errno),
        }
    }

    fn into_error(self, path: String) -> IngestPathError {
        match self {
            Self::Unsupported(kind) => IngestPathError::Unsupported { path, kind },
            Self::Changed { size, grew } => IngestPathError::Changed {
                path,
                size,
                how: if grew { "grew" } else { "shrank" },
            },
            Self::Swapped => IngestPathError::Swapped { path },
            Self::Name(source) => IngestPathError::Name { path, source },
            Self::Target(source) => IngestPathError::Target { path, source },
            Self::Io(action, errno) => IngestPathError::Io {
                path,
                action,
                source: errno.into(),
            },
        }
    }
}

/// Why a path was not taken in. Paths are as the caller would write them.
#[derive(Debug, thiserror::Error)]
pub enum IngestPathError {
    /// A store holds files, directories and symlinks only.
    #[error("{path} is {kind}; only files, directories and symlinks can be stored")]
    Unsupported {
        /// The entry.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// The file was written to meanwhile.
    #[error("{path} {how} while it was read (it had {size} bytes); try again when nothing writes to it")]
    Changed {
        /// The file.
        path: String,
        /// Bytes it had at first.
        size: u64,
        /// `grew` or `shrank`.
        how: &'static str,
    },
    /// Something took the entry's place meanwhile.
    #[error("{path} was replaced while it was read; try again when nothing changes it")]
    Swapped {
        /// The entry.
        path: String,
    },
    /// A name no store can hold.
    #[error("{path} holds a file whose name cannot be stored")]
    Name {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: ParseNameError,
    },
    /// A link's text no store can hold.
    #[error("the symlink {path} cannot be stored")]
    Target {
        /// The link.
        path: String,
        /// Why.
        #[source]
        source: ParseTargetError,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// The entry.
        path: String,
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A limit, or a store that takes no more.
    #[error("cannot store {path}")]
    Ingest {
        /// The path asked for.
        path: String,
        /// Why.
        #[source]
        source: IngestError,
    },
}

impl IngestPathError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Unsupported { .. } | Self::Name { .. } | Self::Target { .. } => Code::InvalidArgument,
            Self::Changed { .. } | Self::Swapped { .. } => Code::Aborted,
            Self::Io { source, .. } => Code::from_io(source),
            Self::Ingest { source, .. } => source.code(),
        }
    }
}

impl std::fmt::Debug for PathOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PathOptions")
            .field("limits", &self.limits)
            .field("filtered", &self.filter.is_some())
            .finish()
    }
}
