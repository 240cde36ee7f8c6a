//! Taking trees in: events become blobs and directories, and the root node.
//!
//! The one way in. A walk of a file system ([`path`]), a NAR, a guest's output and a peer's stream all arrive here as
//! [`TreeEvent`]s and are treated as hostile.
//!
//! Invariants
//! - an observer sees exactly the events that were checked, in order, before they are stored;
//! - a directory goes to the store after all it names, so an ingest cut short leaves only what nobody refers to;
//! - memory: the entries of open directories (`IngestLimits::entries_open_max`), one batch of small blobs and one of
//!   directories, and what one blob writer holds;
//! - nothing is durable before `Castore::sync`.

pub mod path;
mod walk;

use bytes::{Bytes, BytesMut};
use igloo_status::Code;

use crate::chunking::UNCUT_SIZE_MAX;
use crate::digest::BlobDigest;
use crate::directory::{Directory, MakeDirectoryError};
use crate::error::WriteError;
use crate::node::{Node, NodeName};
use crate::store::{BlobWriter, Castore};
use crate::tree::TreeEvent;

pub use path::{FileKind, IngestPathError, PathOptions, ingest_path};

/// Small blobs go to the store in batches of this many bytes
const BLOBS_BATCH_BYTES: usize = 4 << 20;
/// or this many blobs.
const BLOBS_BATCH_COUNT: usize = 4096;
/// Directories go to the store in batches of this many entries.
const DIRECTORIES_BATCH_ENTRIES: usize = 16 << 10;

/// Takes one tree in.
///
/// After an error only dropping it is of use: all later calls fail as well.
pub struct TreeIngest<O> {
    castore: Castore,
    limits: IngestLimits,
    observer: O,
    stats: IngestStats,
    open: Vec<OpenDirectory>,
    entries_open: u64,
    file: Option<OpenFile>,
    root: Option<Node>,
    blobs: Vec<(BlobDigest, Bytes)>,
    blobs_bytes: usize,
    directories: Vec<Directory>,
    directories_entries: usize,
    failed: bool,
}

/// Sees the events of a tree that is taken in, for what else is to be computed in the same pass.
pub trait TreeObserver {
    /// The next event, already checked.
    fn event(&mut self, event: &TreeEvent);
}

/// Observes nothing.
impl TreeObserver for () {
    fn event(&mut self, _: &TreeEvent) {}
}

/// Both observe.
impl<A: TreeObserver, B: TreeObserver> TreeObserver for (A, B) {
    fn event(&mut self, event: &TreeEvent) {
        self.0.event(event);
        self.1.event(event);
    }
}

/// Bounds on a tree from a stranger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestLimits {
    /// Most directories inside each other, the root included.
    pub depth_max: usize,
    /// Most files, directories and symlinks.
    pub entries_max: u64,
    /// Most entries in all directories that are open at one time; about 150 bytes of memory each.
    pub entries_open_max: u64,
    /// Most bytes in all files together.
    pub size_max: u64,
}

/// Depth 2048 (what fits in PATH_MAX), 2^32 entries, 2^21 of them open, any size.
impl Default for IngestLimits {
    fn default() -> Self {
        Self {
            depth_max: 2048,
            entries_max: 1 << 32,
            entries_open_max: 1 << 21,
            size_max: u64::MAX,
        }
    }
}

/// A tree that is in the store.
#[derive(Debug)]
pub struct Ingested<O> {
    /// Its root.
    pub root: Node,
    /// What watched.
    pub observer: O,
    /// What it held.
    pub stats: IngestStats,
}

/// What a tree held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestStats {
    /// Files, directories and symlinks.
    pub entries: u64,
    /// Bytes in files.
    pub bytes: u64,
}

struct OpenDirectory {
    name: Option<NodeName>,
    entries: Vec<(NodeName, Node)>,
    /// Name of the child begun last.
    last: Option<NodeName>,
}

struct OpenFile {
    name: Option<NodeName>,
    executable: bool,
    size: u64,
    left: u64,
    content: Content,
}

enum Content {
    Small(BytesMut),
    Large(Box<dyn BlobWriter>),
}

impl<O: TreeObserver> TreeIngest<O> {
    /// Starts a tree that goes to `castore`.
    pub fn new(castore: Castore, limits: IngestLimits, observer: O) -> Self {
        Self {
            castore,
            limits,
            observer,
            stats: IngestStats::default(),
            open: Vec::new(),
            entries_open: 0,
            file: None,
            root: None,
            blobs: Vec::new(),
            blobs_bytes: 0,
            directories: Vec::new(),
            directories_entries: 0,
            failed: false,
        }
    }

    /// The next event. Waits while the store is busy.
    ///
    /// # Errors
    /// [`IngestError`] names the entry: a broken sequence, a limit, or a store that takes no more.
    pub async fn event(&mut self, event: TreeEvent) -> Result<(), IngestError> {
        self.start_step()?;
        self.check(&event)?;
        self.observer.event(&event);
        match event {
            TreeEvent::DirectoryBegin { name } => self.open.push(OpenDirectory {
                name,
                entries: Vec::new(),
                last: None,
            }),
            TreeEvent::DirectoryEnd => self.end_directory().await?,
            TreeEvent::FileBegin {
                name,
                executable,
                size,
            } => self.begin_file(name, executable, size).await?,
            TreeEvent::FileData(bytes) => self.data(bytes).await?,
            TreeEvent::Symlink { name, target } => self.attach(name, Node::Symlink { target }),
        }
        self.failed = false;
        Ok(())
    }

    /// A whole small file whose digest the caller, who is one of us, has computed on another core.
    pub(crate) async fn hashed_file(
        &mut self,
        name: Option<NodeName>,
        executable: bool,
        digest: BlobDigest,
        bytes: Bytes,
    ) -> Result<(), IngestError> {
        self.start_step()?;
        let size = bytes.len() as u64;
        let begin = TreeEvent::FileBegin {
            name,
            executable,
            size,
        };
        self.check(&begin)?;
        self.observer.event(&begin);
        if size > 0 {
            let data = TreeEvent::FileData(bytes.clone());
            self.observer.event(&data);
            self.stats.bytes += size;
            self.put_small(digest, bytes).await?;
        }
        let TreeEvent::FileBegin { name, .. } = begin else {
            return Ok(()); // it was made above
        };
        let node = Node::File {
            digest,
            size,
            executable,
        };
        self.attach(name, node);
        self.failed = false;
        Ok(())
    }

    /// Ends the tree and hands everything to the store; not durable yet.
    ///
    /// # Errors
    /// `Unfinished` when a directory or a file is still open, or nothing came.
    pub async fn finish(mut self) -> Result<Ingested<O>, IngestError> {
        self.start_step()?;
        let root = match self.root.take() {
            Some(root) if self.open.is_empty() && self.file.is_none() => root,
            _ => return Err(IngestError::Unfinished { path: self.here() }),
        };
        self.flush().await?;
        Ok(Ingested {
            root,
            observer: self.observer,
            stats: self.stats,
        })
    }

    /// The path of `name` in the directory open now, for messages.
    pub(crate) fn path_of(&self, name: Option<&NodeName>) -> String {
        let parents = self.open.iter().filter_map(|directory| directory.name.as_ref());
        let parts: Vec<_> = parents.chain(name).map(ToString::to_string).collect();
        if parts.is_empty() {
            ".".to_owned()
        } else {
            parts.join("/")
        }
    }

    /// The path of what is open now.
    pub(crate) fn here(&self) -> String {
        self.path_of(self.file.as_ref().and_then(|file| file.name.as_ref()))
    }

    /// Counts every step as failed until it has gone through, so that nothing follows a failure.
    fn start_step(&mut self) -> Result<(), IngestError> {
        if self.failed {
            return Err(IngestError::Failed);
        }
        self.failed = true;
        Ok(())
    }

    fn check(&mut self, event: &TreeEvent) -> Result<(), IngestError> {
        match (event, &self.file) {
            (TreeEvent::FileData(bytes), Some(file)) => self.check_data(file, bytes),
            (TreeEvent::FileData(_), None) => Err(IngestError::DataOutsideFile { path: self.here() }),
            (_, Some(file)) => Err(IngestError::FileShort {
                path: self.here(),
                size: file.size,
                left: file.left,
            }),
            (TreeEvent::DirectoryEnd, None) if self.open.is_empty() => Err(IngestError::EndWithoutBegin),
            (TreeEvent::DirectoryEnd, None) => Ok(()),
            (TreeEvent::DirectoryBegin { name }, None) => {
                self.check_entry(name.as_ref())?;
                if self.open.len() >= self.limits.depth_max {
                    return Err(IngestError::TooDeep {
                        path: self.path_of(name.as_ref()),
                        depth_max: self.limits.depth_max,
                    });
                }
                Ok(())
            }
            (TreeEvent::FileBegin { name, size, .. }, None) => {
                self.check_entry(name.as_ref())?;
                if *size > self.limits.size_max.saturating_sub(self.stats.bytes) {
                    return Err(IngestError::TooLarge {
                        path: self.path_of(name.as_ref()),
                        size_max: self.limits.size_max,
                    });
                }
                Ok(())
            }
            (TreeEvent::Symlink { name, .. }, None) => self.check_entry(name.as_ref()),
        }
    }

    fn check_data(&self, file: &OpenFile, bytes: &Bytes) -> Result<(), IngestError> {
        if bytes.is_empty() {
            return Err(IngestError::EmptyData { path: self.here() });
        }
        if bytes.len() as u64 > file.left {
            return Err(IngestError::FileLong {
                path: self.here(),
                size: file.size,
            });
        }
        Ok(())
    }

    fn check_entry(&mut self, name: Option<&NodeName>) -> Result<(), IngestError> {
        let path = self.path_of(name);
        match (self.open.last_mut(), name) {
            (None, _) if self.root.is_some() => return Err(IngestError::SecondRoot { path }),
            (None, Some(_)) => return Err(IngestError::NamedRoot { path }),
            (None, None) => {}
            (Some(_), None) => return Err(IngestError::Unnamed { path }),
            (Some(parent), Some(name)) => {
                if parent.last.as_ref().is_some_and(|last| last >= name) {
                    return Err(IngestError::Order { path });
                }
                parent.last = Some(name.clone());
            }
        }
        self.stats.entries += 1;
        self.entries_open += 1;
        let over = |count: u64, count_max: u64| (count > count_max).then_some(count_max);
        let over = over(self.stats.entries, self.limits.entries_max)
            .or_else(|| over(self.entries_open, self.limits.entries_open_max));
        match over {
            Some(entries_max) => Err(IngestError::TooMany { path, entries_max }),
            None => Ok(()),
        }
    }

    async fn begin_file(
        &mut self,
        name: Option<NodeName>,
        executable: bool,
        size: u64,
    ) -> Result<(), IngestError> {
        let content = match usize::try_from(size) {
            Ok(size) if size <= UNCUT_SIZE_MAX => Content::Small(BytesMut::with_capacity(size)),
            _ => Content::Large(self.castore.blobs.writer().await?),
        };
        self.file = Some(OpenFile {
            name,
            executable,
            size,
            left: size,
            content,
        });
        if size == 0 { self.end_file().await } else { Ok(()) }
    }

    async fn data(&mut self, bytes: Bytes) -> Result<(), IngestError> {
        let Some(file) = &mut self.file else {
            return Ok(()); // `check` has seen to it
        };
        let size = bytes.len() as u64;
        self.stats.bytes += size;
        file.left -= size;
        match &mut file.content {
            Content::Small(content) => content.extend_from_slice(&bytes),
            Content::Large(writer) => writer.write(bytes).await?,
        }
        if file.left == 0 {
            self.end_file().await
        } else {
            Ok(())
        }
    }

    async fn end_file(&mut self) -> Result<(), IngestError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let digest = match file.content {
            Content::Small(content) => {
                let bytes = content.freeze();
                let digest = BlobDigest::of(&bytes);
                if !bytes.is_empty() {
                    self.put_small(digest, bytes).await?;
                }
                digest
            }
            Content::Large(writer) => writer.finish().await?.0,
        };
        let node = Node::File {
            digest,
            size: file.size,
            executable: file.executable,
        };
        self.attach(file.name, node);
        Ok(())
    }

    async fn end_directory(&mut self) -> Result<(), IngestError> {
        let Some(OpenDirectory { name, entries, .. }) = self.open.pop() else {
            return Ok(());
        };
        self.entries_open -= entries.len() as u64;
        let directory = Directory::from_entries(entries).map_err(|source| IngestError::Directory {
            path: self.path_of(name.as_ref()),
            source,
        })?;
        self.attach(name, directory.node());
        self.directories_entries += directory.len() + 1;
        self.directories.push(directory);
        if self.directories_entries >= DIRECTORIES_BATCH_ENTRIES {
            self.flush().await?;
        }
        Ok(())
    }

    fn attach(&mut self, name: Option<NodeName>, node: Node) {
        match (self.open.last_mut(), name) {
            (Some(parent), Some(name)) => parent.entries.push((name, node)),
            _ => self.root = Some(node),
        }
    }

    async fn put_small(&mut self, digest: BlobDigest, bytes: Bytes) -> Result<(), IngestError> {
        self.blobs_bytes += bytes.len();
        self.blobs.push((digest, bytes));
        if self.blobs_bytes >= BLOBS_BATCH_BYTES || self.blobs.len() >= BLOBS_BATCH_COUNT {
            self.flush_blobs().await?;
        }
        Ok(())
    }

    async fn flush_blobs(&mut self) -> Result<(), IngestError> {
        self.blobs_bytes = 0;
        let blobs = std::mem::take(&mut self.blobs);
        if !blobs.is_empty() {
            self.castore.blobs.put_small(blobs).await?;
        }
        Ok(())
    }

    /// Contents first, then the directories that name them.
    async fn flush(&mut self) -> Result<(), IngestError> {
        self.flush_blobs().await?;
        self.directories_entries = 0;
        let directories = std::mem::take(&mut self.directories);
        if !directories.is_empty() {
            self.castore.directories.put(directories).await?;
        }
        Ok(())
    }
}

impl<O> std::fmt::Debug for TreeIngest<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeIngest")
            .field("stats", &self.stats)
            .field("depth", &self.open.len())
            .finish_non_exhaustive()
    }
}

/// Stores one blob of any size whose bytes are all there already: its digest and size. Not durable before a sync.
pub async fn put_blob(castore: &Castore, bytes: Bytes) -> Result<(BlobDigest, u64), WriteError> {
    let size = bytes.len() as u64;
    if bytes.len() <= UNCUT_SIZE_MAX {
        let digest = BlobDigest::of(&bytes);
        castore.blobs.put_small(vec![(digest, bytes)]).await?;
        return Ok((digest, size));
    }
    let mut writer = castore.blobs.writer().await?;
    writer.write(bytes).await?;
    writer.finish().await
}

/// Why a tree was not taken in. Paths are relative to its root, escaped; `.` is the root.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The root has a name.
    #[error("`{path}`: the root of a tree has no name")]
    NamedRoot {
        /// The entry.
        path: String,
    },
    /// Something follows the root.
    #[error("`{path}` comes after the end of the tree")]
    SecondRoot {
        /// The entry.
        path: String,
    },
    /// An entry of a directory has no name.
    #[error("an entry of the directory `{path}` has no name")]
    Unnamed {
        /// The directory.
        path: String,
    },
    /// Names do not ascend, or one is there twice.
    #[error("`{path}` does not come after the entry before it")]
    Order {
        /// The entry.
        path: String,
    },
    /// The end of a directory that was not begun.
    #[error("a directory ends that was not begun")]
    EndWithoutBegin,
    /// File contents outside a file.
    #[error("file contents come after `{path}`, where no file is open")]
    DataOutsideFile {
        /// What is open.
        path: String,
    },
    /// File contents of no bytes.
    #[error("`{path}`: an empty piece of file contents")]
    EmptyData {
        /// The file.
        path: String,
    },
    /// More contents than announced.
    #[error("`{path}` is longer than the {size} bytes announced")]
    FileLong {
        /// The file.
        path: String,
        /// Bytes announced.
        size: u64,
    },
    /// Fewer contents than announced.
    #[error("`{path}` ends {left} bytes short of the {size} announced")]
    FileShort {
        /// The file.
        path: String,
        /// Bytes announced.
        size: u64,
        /// Bytes that did not come.
        left: u64,
    },
    /// The tree has no end.
    #[error("the tree ends inside `{path}`")]
    Unfinished {
        /// What is still open.
        path: String,
    },
    /// An earlier event was refused.
    #[error("an earlier part of the tree was refused")]
    Failed,
    /// Over `IngestLimits::depth_max`.
    #[error("`{path}` lies deeper than {depth_max} directories")]
    TooDeep {
        /// The directory.
        path: String,
        /// The bound.
        depth_max: usize,
    },
    /// Over `IngestLimits::entries_max` or `entries_open_max`.
    #[error("the tree has more than the {entries_max} entries allowed at `{path}`")]
    TooMany {
        /// The entry.
        path: String,
        /// The bound.
        entries_max: u64,
    },
    /// Over `IngestLimits::size_max`.
    #[error("with `{path}` the tree has more than the {size_max} bytes allowed")]
    TooLarge {
        /// The file.
        path: String,
        /// The bound, bytes.
        size_max: u64,
    },
    /// The entries make no directory.
    #[error("`{path}` cannot be stored as a directory")]
    Directory {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: MakeDirectoryError,
    },
    /// The store could not take it.
    #[error("the tree cannot be stored")]
    Store(#[from] WriteError),
}

impl IngestError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Failed => Code::FailedPrecondition,
            Self::TooDeep { .. } | Self::TooMany { .. } | Self::TooLarge { .. } => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        }
    }
}

#[cfg(test)]
mod tests;
