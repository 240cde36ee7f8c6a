//! An archive's entries become a tree in the castore.
//!
//! Archives list entries in any order, trees have them sorted, so contents go to the castore as they come, and the
//! directories are made at the end.
//!
//! Invariants
//! - a path cannot leave the tree: `..` is refused, and nothing is ever below a file or a symlink;
//! - memory: one record of about 100 bytes and its name for each entry, one batch of small contents;
//! - iterative: depth costs nothing, and is bounded all the same.

use std::collections::BTreeMap;
use std::io::{self, Read};

use bytes::Bytes;
use igloo_castore::chunking::UNCUT_SIZE_MAX;
use igloo_castore::digest::BlobDigest;
use igloo_castore::directory::{Directory, MakeDirectoryError};
use igloo_castore::error::WriteError;
use igloo_castore::node::{Node, NodeName, ParseNameError, ParseTargetError, SymlinkTarget};
use igloo_castore::store::Castore;
use igloo_status::Code;

use super::tar::{Archive, Entry, Kind};
use super::{BLOCK_SIZE, FetchLimits, decode};
use crate::view::Runtime;

pub use super::tar::TarError;

/// Small contents are stored in batches of this many bytes or files.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_COUNT: usize = 1024;
/// Directories are stored in batches of this many.
const DIRECTORIES_BATCH: usize = 1024;

/// Unpacks what `input` gives into the castore: the tree, and the time of its newest entry.
pub(super) fn unpack(
    castore: &Castore,
    runtime: &Runtime,
    limits: &FetchLimits,
    input: &mut dyn Read,
) -> Result<(Node, Option<u64>), UnpackError> {
    let decoded = decode::decoded(input).map_err(TarError::from)?;
    let bounded = Bounded {
        inner: decoded,
        left: limits.unpacked_bytes_max,
    };
    let mut archive = Archive::new(bounded);
    let mut writer = TreeWriter::new(castore, runtime, limits);
    let mut newest = None;
    while let Some(entry) = archive.next()? {
        newest = newest.max(Some(entry.mtime));
        take(&mut writer, entry, &mut archive)?;
    }
    Ok((writer.finish(Root::OnlyDirectory)?, newest))
}

fn take<R: Read>(
    writer: &mut TreeWriter<'_>,
    entry: Entry,
    archive: &mut Archive<R>,
) -> Result<(), UnpackError> {
    let Entry { path, kind, .. } = entry;
    match kind {
        Kind::Directory => writer.directory(&path),
        Kind::File { size, executable } => {
            let mut read = |buffer: &mut [u8]| Ok(archive.read_data(buffer)?);
            writer.file(&path, size, executable, &mut read)
        }
        Kind::Symlink(target) => writer.symlink(&path, &target),
        Kind::HardLink(target) => {
            let node = writer.tree.linked(&path, &target)?;
            writer.node(&path, node)
        }
        Kind::Other(kind) => Err(UnpackError::Kind {
            path: shown(&path),
            kind,
        }),
    }
}

/// What a finished tree stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// All that was written.
    Whole,
    /// A directory that is all there is stands for itself (Nix 2.34, `dereferenceSingletonDirectory`).
    OnlyDirectory,
}

/// Fills a buffer with what comes next of a file; 0 at its end.
pub(crate) type ReadPart<'a> = dyn FnMut(&mut [u8]) -> Result<usize, UnpackError> + 'a;

/// Puts a tree into the castore, entries in any order.
pub(crate) struct TreeWriter<'a> {
    castore: &'a Castore,
    runtime: &'a Runtime,
    tree: Tree,
    small: Vec<(BlobDigest, Bytes)>,
    small_bytes: usize,
}

impl<'a> TreeWriter<'a> {
    /// A tree of nothing yet.
    pub(crate) fn new(castore: &'a Castore, runtime: &'a Runtime, limits: &FetchLimits) -> Self {
        Self {
            castore,
            runtime,
            tree: Tree::new(limits),
            small: Vec::new(),
            small_bytes: 0,
        }
    }

    /// A directory, which may be there already.
    pub(crate) fn directory(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        self.tree.directory(path)
    }

    /// A file of `size` bytes. Its path is checked before anything is read: nothing is stored for one that is refused.
    pub(crate) fn file(
        &mut self,
        path: &[u8],
        size: u64,
        executable: bool,
        read: &mut ReadPart<'_>,
    ) -> Result<(), UnpackError> {
        self.tree.check(path)?;
        let digest = match usize::try_from(size) {
            Ok(size) if size <= UNCUT_SIZE_MAX => {
                let mut bytes = vec![0; size];
                read(&mut bytes)?;
                self.small(bytes.into())?
            }
            _ => self.large(read)?,
        };
        let node = Node::File {
            digest,
            size,
            executable,
        };
        self.tree.leaf(path, node)
    }

    /// A symlink.
    pub(crate) fn symlink(&mut self, path: &[u8], target: &[u8]) -> Result<(), UnpackError> {
        let target = SymlinkTarget::try_from(target).map_err(|source| UnpackError::Target {
            path: shown(path),
            source,
        })?;
        self.tree.leaf(path, Node::Symlink { target })
    }

    /// Something that is in the castore already.
    pub(crate) fn node(&mut self, path: &[u8], node: Node) -> Result<(), UnpackError> {
        self.tree.leaf(path, node)
    }

    fn small(&mut self, bytes: Bytes) -> Result<BlobDigest, UnpackError> {
        let digest = BlobDigest::of(&bytes);
        if bytes.is_empty() {
            return Ok(digest);
        }
        self.small_bytes += bytes.len();
        self.small.push((digest, bytes));
        if self.small_bytes >= BATCH_BYTES || self.small.len() >= BATCH_COUNT {
            self.put_small()?;
        }
        Ok(digest)
    }

    fn large(&self, read: &mut ReadPart<'_>) -> Result<BlobDigest, UnpackError> {
        let mut writer = self.wait(self.castore.blobs.writer())??;
        loop {
            let mut block = vec![0; BLOCK_SIZE];
            let count = read(&mut block)?;
            block.truncate(count);
            if count == 0 {
                break;
            }
            self.wait(writer.write(block.into()))??;
        }
        let (digest, _) = self.wait(writer.finish())??;
        Ok(digest)
    }

    fn put_small(&mut self) -> Result<(), UnpackError> {
        self.small_bytes = 0;
        let small = std::mem::take(&mut self.small);
        if !small.is_empty() {
            self.wait(self.castore.blobs.put_small(small))??;
        }
        Ok(())
    }

    /// Stores what is left and gives the tree.
    pub(crate) fn finish(mut self, root: Root) -> Result<Node, UnpackError> {
        self.put_small()?;
        let (root, mut directories) = std::mem::take(&mut self.tree).finish(root)?;
        while !directories.is_empty() {
            let rest = directories.split_off(directories.len().min(DIRECTORIES_BATCH));
            self.wait(self.castore.directories.put(directories))??;
            directories = rest;
        }
        Ok(root)
    }

    fn wait<F: Future>(&self, future: F) -> Result<F::Output, UnpackError> {
        self.runtime.wait(future).map_err(|error| UnpackError::Thread {
            what: error.to_string(),
        })
    }
}

/// The tree so far. A child's index is larger than its directory's.
#[derive(Default)]
struct Tree {
    records: Vec<Record>,
    entries_max: usize,
    depth_max: usize,
}

enum Record {
    Directory(BTreeMap<NodeName, usize>),
    Leaf(Node),
}

impl Tree {
    fn new(limits: &FetchLimits) -> Self {
        Self {
            records: vec![Record::Directory(BTreeMap::new())],
            entries_max: limits.entries_max,
            depth_max: limits.depth_max,
        }
    }

    fn directory(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let names = self.names(path)?;
        self.enter(path, &names).map(|_| ())
    }

    /// Whether something that is no directory may be at `path`.
    fn check(&self, path: &[u8]) -> Result<(), UnpackError> {
        let names = self.names(path)?;
        if names.is_empty() {
            return Err(UnpackError::Root);
        }
        Ok(())
    }

    /// Puts a file or symlink in the tree; the last one of a name counts, as when an archive is appended to.
    fn leaf(&mut self, path: &[u8], node: Node) -> Result<(), UnpackError> {
        let mut names = self.names(path)?;
        let name = names.pop().ok_or(UnpackError::Root)?;
        let parent = self.enter(path, &names)?;
        let there = self
            .children(parent)
            .and_then(|children| children.get(&name).copied());
        match there.and_then(|index| self.records.get_mut(index)) {
            Some(Record::Directory(_)) => Err(UnpackError::Replaced { path: shown(path) }),
            Some(leaf) => {
                *leaf = Record::Leaf(node);
                Ok(())
            }
            None => self.add(path, parent, name, Record::Leaf(node)).map(|_| ()),
        }
    }

    /// The file a hard link means.
    fn linked(&self, path: &[u8], target: &[u8]) -> Result<Node, UnpackError> {
        let mut index = 0;
        for name in self.names(target)? {
            let child = self.children(index).and_then(|children| children.get(&name));
            index = *child.ok_or_else(|| UnpackError::Link {
                path: shown(path),
                target: shown(target),
            })?;
        }
        match self.records.get(index) {
            Some(Record::Leaf(node @ Node::File { .. })) => Ok(node.clone()),
            _ => Err(UnpackError::Link {
                path: shown(path),
                target: shown(target),
            }),
        }
    }

    /// The index of a directory, made where it is missing.
    fn enter(&mut self, path: &[u8], names: &[NodeName]) -> Result<usize, UnpackError> {
        let mut index = 0;
        for name in names {
            let Some(children) = self.children(index) else {
                return Err(UnpackError::Below { path: shown(path) });
            };
            index = match children.get(name) {
                Some(child) => *child,
                None => {
                    let directory = Record::Directory(BTreeMap::new());
                    self.add(path, index, name.clone(), directory)?
                }
            };
        }
        if self.children(index).is_none() {
            return Err(UnpackError::Below { path: shown(path) });
        }
        Ok(index)
    }

    fn add(
        &mut self,
        path: &[u8],
        parent: usize,
        name: NodeName,
        record: Record,
    ) -> Result<usize, UnpackError> {
        let index = self.records.len();
        if index > self.entries_max {
            return Err(UnpackError::TooMany {
                entries_max: self.entries_max,
            });
        }
        match self.records.get_mut(parent) {
            Some(Record::Directory(children)) => children.insert(name, index),
            _ => return Err(UnpackError::Below { path: shown(path) }),
        };
        self.records.push(record);
        Ok(index)
    }

    fn children(&self, index: usize) -> Option<&BTreeMap<NodeName, usize>> {
        match self.records.get(index) {
            Some(Record::Directory(children)) => Some(children),
            _ => None,
        }
    }

    /// The components of a path, none of which leads up. A slash in front means the root of the archive, as in Nix.
    fn names(&self, path: &[u8]) -> Result<Vec<NodeName>, UnpackError> {
        let parts = path.split(|byte| *byte == b'/');
        let mut names = Vec::new();
        for part in parts.filter(|part| !part.is_empty() && *part != b".") {
            let name = NodeName::try_from(part).map_err(|source| UnpackError::Name {
                path: shown(path),
                source,
            })?;
            names.push(name);
        }
        if names.len() > self.depth_max {
            return Err(UnpackError::TooDeep {
                path: shown(path),
                depth_max: self.depth_max,
            });
        }
        Ok(names)
    }

    /// The root, and all directories, children before parents.
    fn finish(self, kind: Root) -> Result<(Node, Vec<Directory>), UnpackError> {
        let mut nodes: Vec<Option<Node>> = vec![None; self.records.len()];
        let mut directories = Vec::new();
        let mut root = None;
        for (index, record) in self.records.into_iter().enumerate().rev() {
            let children = match record {
                Record::Leaf(node) => {
                    nodes[index] = Some(node);
                    continue;
                }
                Record::Directory(children) => children,
            };
            let entries: Vec<_> = children
                .into_iter()
                .filter_map(|(name, child)| Some((name, nodes.get_mut(child)?.take()?)))
                .collect();
            if index == 0
                && kind == Root::OnlyDirectory
                && let [(_, only @ Node::Directory { .. })] = entries.as_slice()
            {
                root = Some(only.clone());
                break;
            }
            let directory = Directory::from_entries(entries)?;
            let node = directory.node();
            directories.push(directory);
            if index == 0 {
                root = Some(node.clone());
            }
            nodes[index] = Some(node);
        }
        Ok((root.ok_or(UnpackError::Root)?, directories))
    }
}

/// A stream that may give so many bytes and no more.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::other(
                    "it has more bytes than are allowed after decoding",
                ));
            }
        }
        Ok(count)
    }
}

fn shown(path: &[u8]) -> String {
    path[..path.len().min(256)].escape_ascii().to_string()
}

/// Why an archive was not unpacked. Paths are as the archive has them, escaped.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive cannot be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A name no directory can hold, `..` among them.
    #[error("'{path}' is no path inside an archive")]
    Name {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: ParseNameError,
    },
    /// A symlink's text no store can hold.
    #[error("the symlink '{path}' cannot be stored")]
    Target {
        /// The symlink.
        path: String,
        /// Why.
        #[source]
        source: ParseTargetError,
    },
    /// A hard link to what is no file before it.
    #[error("'{path}' is a link to '{target}', which is no file before it in the archive")]
    Link {
        /// The link.
        path: String,
        /// What it links to.
        target: String,
    },
    /// Something that is no file, directory or symlink.
    #[error("'{path}' is {kind}; only files, directories and symlinks can be stored")]
    Kind {
        /// The entry.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// An entry below a file or symlink.
    #[error("'{path}' lies below something that is no directory")]
    Below {
        /// The entry.
        path: String,
    },
    /// A file where a directory is.
    #[error("'{path}' takes the place of a directory")]
    Replaced {
        /// The entry.
        path: String,
    },
    /// A root that is no directory.
    #[error("its root is no directory")]
    Root,
    /// Over `FetchLimits::depth_max`.
    #[error("'{path}' lies deeper than {depth_max} directories")]
    TooDeep {
        /// The entry.
        path: String,
        /// The bound.
        depth_max: usize,
    },
    /// Over `FetchLimits::entries_max`.
    #[error("it has more than the {entries_max} entries allowed")]
    TooMany {
        /// The bound.
        entries_max: usize,
    },
    /// Sizes that no directory can have.
    #[error("its directories cannot be stored")]
    Directory(#[from] MakeDirectoryError),
    /// The store could not take it.
    #[error("its contents cannot be stored")]
    Store(#[from] WriteError),
    /// This thread cannot wait.
    #[error("{what}")]
    Thread {
        /// What to do instead.
        what: String,
    },
}

impl UnpackError {
    /// The class of the failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::TooDeep { .. } | Self::TooMany { .. } => Code::ResourceExhausted,
            Self::Store(error) if error.code() == Code::ResourceExhausted => Code::ResourceExhausted,
            Self::Store(_) | Self::Thread { .. } => Code::FailedPrecondition,
            Self::Tar(_) => Code::DataLoss,
            _ => Code::InvalidArgument,
        }
    }
}

#[cfg(test)]
mod tests;
