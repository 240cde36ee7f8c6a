//! A tree as a flat sequence of events: the common language of everything that makes or reads trees.
//!
//! A walk of a file system, a NAR, and the outputs a guest streams are all turned into these events; ingest, the NAR
//! writer and the reference scan all read them. Nothing here recurses, so depth costs memory, never stack.
//!
//! Invariants of a well-formed sequence (checked by `ingest`, which trusts no source)
//! - one root, without a name; every other event that opens a node has a name;
//! - between `DirectoryBegin` and its `DirectoryEnd`, names strictly ascend as unsigned bytes;
//! - after `FileBegin { size }` follow `FileData` events of exactly `size` bytes in total, none of them empty.

use bytes::Bytes;

use crate::node::{NodeName, SymlinkTarget};

/// A step through a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeEvent {
    /// Enters a directory.
    DirectoryBegin {
        /// Its name, none for the root.
        name: Option<NodeName>,
    },
    /// Leaves the directory entered last.
    DirectoryEnd,
    /// Starts a file.
    FileBegin {
        /// Its name, none for the root.
        name: Option<NodeName>,
        /// Whether it may be executed.
        executable: bool,
        /// Bytes that follow.
        size: u64,
    },
    /// The next bytes of the file started last.
    FileData(Bytes),
    /// A symlink.
    Symlink {
        /// Its name, none for the root.
        name: Option<NodeName>,
        /// Its text.
        target: SymlinkTarget,
    },
}
