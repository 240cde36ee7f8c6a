//! Inode table: which castore node each kernel inode number stands for.
//!
//! Filled by `acquire`, drained by `forget`; no I/O, never awaits.
//!
//! Invariants
//! - a number names one node until it is forgotten and is never reused;
//! - an entry lives exactly while its lookup count is above zero (FUSE_FORGET, linux/fuse.h); the root lives for ever;
//! - files with equal digest, size and executable bit share a number, and so one copy in the page cache; symlinks with
//!   equal target do too;
//! - a directory's number belongs to its place (parent's number and position in it), not to its digest: Linux keeps one
//!   name for each directory inode (`d_splice_alias`, fs/dcache.c), and two equal directories under one number would
//!   move each other around, with `ESTALE` for whoever walks both at once.
//!
//! Memory: about 300 bytes for each number the kernel holds, at most `count_max` of them; at the bound `acquire` fails
//! rather than forgets, for the kernel may use a number until it says otherwise. The kernel forgets when it needs memory.
//!
//! Lock order: one lock, `table`, held for map operations only.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;

use igloo_castore::{BlobDigest, DirectoryDigest, Node};
use igloo_status::Code;

use crate::sync::{Arc, AtomicBool, Mutex, lock};

/// Inode numbers and what they stand for.
#[derive(Debug)]
pub struct InodeTable {
    table: Mutex<Table>,
    count_max: usize,
}

/// An inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(u64);

/// The mount point's number (FUSE_ROOT_ID, linux/fuse.h).
pub const ROOT: Ino = Ino(1);

/// What an inode is.
#[derive(Debug)]
pub enum Inode {
    /// The mount point.
    Root,
    /// A directory below it.
    Directory {
        /// Its content.
        digest: DirectoryDigest,
        /// The directory it was found in.
        parent: Ino,
    },
    /// A regular file.
    File {
        /// Its content.
        digest: BlobDigest,
        /// Bytes in it, as its directory says.
        size: u64,
        /// Whether it may be executed.
        executable: bool,
        /// Whether a read of it was answered before.
        read_before: AtomicBool,
    },
    /// A symbolic link.
    Symlink {
        /// Its text.
        target: Arc<[u8]>,
    },
}

impl InodeTable {
    /// A table that holds the root and at most `count_max` more.
    pub fn new(count_max: usize) -> Self {
        Self {
            table: Mutex::new(Table {
                inodes: HashMap::new(),
                numbers: HashMap::new(),
                root: Arc::new(Inode::Root),
                next: ROOT.0 + 1,
            }),
            count_max,
        }
    }

    /// The number of a node found at `position` of the directory `parent`, counting one more lookup.
    ///
    /// # Errors
    /// `Full` when the bound is reached.
    pub fn acquire(&self, parent: Ino, position: u64, node: &Node) -> Result<Ino, AcquireInodeError> {
        let key = Key::of(parent, position, node);
        let mut table = lock(&self.table);
        let table = &mut *table;
        let number = match table.numbers.entry(key) {
            MapEntry::Occupied(entry) => *entry.get(),
            MapEntry::Vacant(entry) => {
                if table.inodes.len() >= self.count_max {
                    return Err(AcquireInodeError::Full {
                        count_max: self.count_max,
                    });
                }
                let number = Ino(table.next);
                table.next += 1; // 2^64 lookups take longer than any machine runs
                let inode = Arc::new(entry.key().inode());
                table.inodes.insert(
                    number,
                    Known {
                        inode,
                        key: entry.key().clone(),
                        lookups: 0,
                    },
                );
                *entry.insert(number)
            }
        };
        if let Some(known) = table.inodes.get_mut(&number) {
            known.lookups = known.lookups.saturating_add(1);
        }
        Ok(number)
    }

    /// What a number from the kernel stands for; `None` for one that was never given out, or was forgotten.
    pub fn get(&self, number: u64) -> Option<Arc<Inode>> {
        let table = lock(&self.table);
        if number == ROOT.0 {
            return Some(table.root.clone());
        }
        table.inodes.get(&Ino(number)).map(|known| known.inode.clone())
    }

    /// Takes back `lookups` of a number's count. Numbers not in the table and counts too large are taken without
    /// complaint: the kernel sends no second chance, and a guest may lie.
    pub fn forget(&self, number: u64, lookups: u64) {
        let mut table = lock(&self.table);
        let table = &mut *table;
        if let MapEntry::Occupied(mut entry) = table.inodes.entry(Ino(number)) {
            let known = entry.get_mut();
            known.lookups = known.lookups.saturating_sub(lookups);
            if known.lookups == 0 {
                let known = entry.remove();
                table.numbers.remove(&known.key);
            }
        }
    }

    /// Forgets everything but the root: the kernel has unmounted. Numbers go on where they were.
    pub fn clear(&self) {
        let mut table = lock(&self.table);
        table.inodes = HashMap::new();
        table.numbers = HashMap::new();
    }

    /// Numbers given out and not forgotten, without the root.
    pub fn count(&self) -> usize {
        lock(&self.table).inodes.len()
    }
}

impl Ino {
    /// The number as the kernel writes it.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The number the kernel wrote; whether it is known, only the table can say.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// Why a node got no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcquireInodeError {
    /// The kernel holds as many as allowed.
    #[error("the kernel holds {count_max} inodes of this mount, as many as are allowed; raise `inodes_max`")]
    Full {
        /// The bound.
        count_max: usize,
    },
}

impl AcquireInodeError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        Code::ResourceExhausted
    }
}

#[derive(Debug)]
struct Table {
    inodes: HashMap<Ino, Known>,
    numbers: HashMap<Key, Ino>,
    root: Arc<Inode>,
    next: u64,
}

#[derive(Debug)]
struct Known {
    inode: Arc<Inode>,
    key: Key,
    lookups: u64,
}

/// What makes two nodes one inode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Directory {
        parent: Ino,
        position: u64,
        digest: DirectoryDigest,
    },
    File {
        digest: BlobDigest,
        size: u64,
        executable: bool,
    },
    Symlink {
        target: Arc<[u8]>,
    },
}

impl Key {
    fn of(parent: Ino, position: u64, node: &Node) -> Self {
        match node {
            Node::Directory { digest, .. } => Self::Directory {
                parent,
                position,
                digest: *digest,
            },
            Node::File {
                digest,
                size,
                executable,
            } => Self::File {
                digest: *digest,
                size: *size,
                executable: *executable,
            },
            Node::Symlink { target } => Self::Symlink {
                target: target.as_bytes().into(),
            },
        }
    }

    fn inode(&self) -> Inode {
        match self {
            Self::Directory { parent, digest, .. } => Inode::Directory {
                digest: *digest,
                parent: *parent,
            },
            Self::File {
                digest,
                size,
                executable,
            } => Inode::File {
                digest: *digest,
                size: *size,
                executable: *executable,
                read_before: AtomicBool::new(false),
            },
            Self::Symlink { target } => Inode::Symlink {
                target: target.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
