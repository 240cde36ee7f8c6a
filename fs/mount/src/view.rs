//! The operations of a read-only file system over roots and a tree, in terms of inode numbers; no FUSE types.
//!
//! A [`View`] belongs to one kernel: its inode table holds what that kernel holds. Everything a kernel sends (numbers,
//! offsets, names) is checked here.

use bytes::Bytes;
use igloo_castore::error::ReadDirectoryError;
use igloo_castore::{Directory, Node, NodeName};
use igloo_status::Code;

use crate::counters::Counters;
use crate::inode::{AcquireInodeError, Ino, Inode, InodeTable, ROOT};
use crate::roots::{RootEntry, Roots, RootsError, Stability};
use crate::sync::{Arc, Mutex, Ordering, lock};
use crate::tree::{ReadFileError, Tree};

/// A read-only file system for one kernel.
#[derive(Debug)]
pub struct View {
    roots: Arc<dyn Roots>,
    tree: Tree,
    inodes: InodeTable,
    counters: Arc<Counters>,
    /// The page of the top directory fetched last: an answer to the kernel holds a few dozen entries of it.
    page: Mutex<Option<Arc<RootsPage>>>,
}

/// A node found by name, with the number it now has in the kernel.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its number, counted once more.
    pub number: Ino,
    /// What it is.
    pub node: Node,
}

impl View {
    /// A view of `roots` over `tree` that gives out at most `inodes_max` numbers at a time.
    pub fn new(roots: Arc<dyn Roots>, tree: Tree, inodes_max: usize) -> Self {
        Self {
            roots,
            tree,
            inodes: InodeTable::new(inodes_max),
            counters: Arc::new(Counters::default()),
            page: Mutex::default(),
        }
    }

    /// What was asked of it so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The numbers given out.
    pub fn inodes(&self) -> &InodeTable {
        &self.inodes
    }

    /// How long what is said about the top directory holds.
    pub fn root_stability(&self) -> Stability {
        self.roots.stability()
    }

    /// The inode behind a number from the kernel.
    ///
    /// # Errors
    /// `UnknownInode` for a number that was never given out, or was forgotten.
    pub fn inode(&self, number: u64) -> Result<Arc<Inode>, ViewError> {
        self.inodes.get(number).ok_or(ViewError::UnknownInode { number })
    }

    /// Looks a name up in a directory; counts one lookup when it is found.
    pub async fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Found>, ViewError> {
        let inode = self.inode(parent)?;
        let found = match &*inode {
            Inode::Root => {
                let Ok(name) = NodeName::try_from(name) else {
                    return Ok(None); // no entry can have such a name
                };
                let entry = self.roots.lookup(&name).await?;
                entry.map(|entry| (entry.cursor, entry.node))
            }
            // cursors count from 1, as in `MapRoots`
            Inode::Directory { digest, .. } => {
                let found = self.tree.child(digest, name).await?;
                found.map(|(index, node)| (index + 1, node))
            }
            Inode::File { .. } | Inode::Symlink { .. } => {
                return Err(ViewError::NotDirectory { number: parent });
            }
        };
        let Some((cursor, node)) = found else {
            return Ok(None);
        };
        let number = self.inodes.acquire(Ino::from_number(parent), cursor, &node)?;
        Ok(Some(Found { number, node }))
    }

    /// Some entries of a directory whose cursors are above `after`, ascending; none at the end.
    pub async fn list(&self, number: u64, after: u64) -> Result<Listing, ViewError> {
        let inode = self.inode(number)?;
        match &*inode {
            Inode::Root => Ok(Listing::Roots(self.roots_page(after).await?, after)),
            Inode::Directory { digest, .. } => {
                let start = usize::try_from(after).unwrap_or(usize::MAX);
                Ok(Listing::Directory(self.tree.directory(digest).await?, start))
            }
            Inode::File { .. } | Inode::Symlink { .. } => Err(ViewError::NotDirectory { number }),
        }
    }

    /// The page that holds what comes after `after`. A listing from the start is always fetched anew; one that goes on may
    /// use what was fetched for an earlier part of it, or for somebody else.
    async fn roots_page(&self, after: u64) -> Result<Arc<RootsPage>, RootsError> {
        let cached = lock(&self.page).clone();
        if let Some(page) = cached.filter(|page| after > 0 && page.continues(after)) {
            return Ok(page);
        }
        let entries = self.roots.list(after, ROOTS_PAGE_COUNT).await?;
        let page = Arc::new(RootsPage { after, entries });
        *lock(&self.page) = Some(page.clone());
        Ok(page)
    }

    /// Counts a lookup of an entry that [`View::list`] gave.
    pub fn acquire(&self, parent: u64, cursor: u64, node: &Node) -> Result<Ino, ViewError> {
        Ok(self.inodes.acquire(Ino::from_number(parent), cursor, node)?)
    }

    /// The directory above a directory; the root is above itself.
    pub fn parent(&self, number: u64) -> Ino {
        match self.inodes.get(number).as_deref() {
            Some(Inode::Directory { parent, .. }) => *parent,
            _ => ROOT,
        }
    }

    /// Bytes of a file: `min(len, size - offset)`, none at or past the end.
    pub async fn read(&self, number: u64, offset: u64, len: u32) -> Result<Bytes, ViewError> {
        let inode = self.inode(number)?;
        match &*inode {
            Inode::File {
                digest,
                size,
                read_before,
                ..
            } => {
                let bytes = self.tree.read(digest, *size, offset, len).await?;
                if !read_before.swap(true, Ordering::Relaxed) {
                    self.counters.file_read_first(digest, *size);
                }
                self.counters.bytes_read(bytes.len());
                Ok(bytes)
            }
            Inode::Root | Inode::Directory { .. } => Err(ViewError::IsDirectory { number }),
            Inode::Symlink { .. } => Err(ViewError::NotFile { number }),
        }
    }

    /// A symlink's text.
    pub fn readlink(&self, number: u64) -> Result<Vec<u8>, ViewError> {
        match &*self.inode(number)? {
            Inode::Symlink { target } => Ok(target.to_vec()),
            _ => Err(ViewError::NotSymlink { number }),
        }
    }
}

/// Root entries fetched at a time: few enough to hold (2 MB), many enough for a store that scans for each page.
const ROOTS_PAGE_COUNT: usize = 8192;

/// Part of a directory's entries.
#[derive(Debug)]
pub enum Listing {
    /// A whole directory, to be read from the given index.
    Directory(Arc<Directory>, usize),
    /// A page of the top directory, to be read after the given cursor.
    Roots(Arc<RootsPage>, u64),
}

/// Consecutive entries of the top directory.
#[derive(Debug)]
pub struct RootsPage {
    after: u64,
    entries: Vec<RootEntry>,
}

impl RootsPage {
    /// Whether something that comes after `after` is here, or the directory is known to end there.
    fn continues(&self, after: u64) -> bool {
        let Some(last) = self.entries.last() else {
            return after == self.after;
        };
        after >= self.after && (after < last.cursor || (after == last.cursor && self.is_last()))
    }

    fn is_last(&self) -> bool {
        self.entries.len() < ROOTS_PAGE_COUNT
    }
}

impl Listing {
    /// The entries with their cursors, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &NodeName, &Node)> {
        let (directory, roots) = match self {
            Self::Directory(directory, start) => (directory.entries().get(*start..), None),
            Self::Roots(page, after) => {
                let start = page.entries.partition_point(|entry| entry.cursor <= *after);
                (None, page.entries.get(start..))
            }
        };
        let start = match self {
            Self::Directory(_, start) => u64::try_from(*start).unwrap_or(u64::MAX),
            Self::Roots(..) => 0,
        };
        let directory = directory
            .unwrap_or_default()
            .iter()
            .zip(start.saturating_add(1)..);
        let directory = directory.map(|((name, node), cursor)| (cursor, name, node));
        let roots = roots.unwrap_or_default().iter();
        directory.chain(roots.map(|entry| (entry.cursor, &entry.name, &entry.node)))
    }
}

/// Why an operation was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A number that stands for nothing.
    #[error("inode {number} was never given out, or was forgotten")]
    UnknownInode {
        /// The number.
        number: u64,
    },
    /// A directory operation on something else.
    #[error("inode {number} is not a directory")]
    NotDirectory {
        /// The number.
        number: u64,
    },
    /// A file operation on a directory.
    #[error("inode {number} is a directory")]
    IsDirectory {
        /// The number.
        number: u64,
    },
    /// A file operation on a symlink.
    #[error("inode {number} is not a regular file")]
    NotFile {
        /// The number.
        number: u64,
    },
    /// A symlink operation on something else.
    #[error("inode {number} is not a symlink")]
    NotSymlink {
        /// The number.
        number: u64,
    },
    /// No room for another inode.
    #[error(transparent)]
    Inode(#[from] AcquireInodeError),
    /// A directory could not be read.
    #[error("a directory cannot be read")]
    Directory(#[from] ReadDirectoryError),
    /// A file could not be read.
    #[error("a file cannot be read")]
    File(#[from] ReadFileError),
    /// The top directory could not be read.
    #[error(transparent)]
    Roots(#[from] RootsError),
}

impl ViewError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownInode { .. } => Code::NotFound,
            Self::NotDirectory { .. }
            | Self::IsDirectory { .. }
            | Self::NotFile { .. }
            | Self::NotSymlink { .. } => Code::InvalidArgument,
            Self::Inode(error) => error.code(),
            Self::Directory(error) => error.code(),
            Self::File(error) => error.code(),
            Self::Roots(error) => error.code(),
        }
    }
}

#[cfg(test)]
mod tests;
