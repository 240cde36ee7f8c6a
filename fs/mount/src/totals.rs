//! How much there is: files and bytes of a set of trees, to hold against what was read of them.
//!
//! Invariant: a directory or file that occurs in many places is counted once, as it is stored and fetched once; the walk
//! keeps no stack, so depth costs memory only.

use std::collections::HashSet;
use std::fmt;

use igloo_castore::error::ReadDirectoryError;
use igloo_castore::{BlobDigest, DirectoryDigest, Node};

use crate::counters::{Bytes, Counts};
use crate::tree::Tree;

/// Distinct contents of a set of trees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Distinct file contents.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Distinct directories.
    pub directories: u64,
    /// Symlinks, one for each place in a distinct directory.
    pub symlinks: u64,
}

impl Totals {
    /// Counts what `nodes` hold. Reads every directory once; fetches no file.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub async fn of<'a>(
        tree: &Tree,
        nodes: impl IntoIterator<Item = &'a Node>,
    ) -> Result<Self, ReadDirectoryError> {
        let mut walk = Walk::default();
        for node in nodes {
            walk.visit(node);
        }
        while let Some(digest) = walk.open.pop() {
            let directory = tree.directory(&digest).await?;
            for (_, node) in directory.entries() {
                walk.visit(node);
            }
        }
        Ok(walk.totals)
    }

    /// What was read of it, in words.
    pub fn against(self, counts: &Counts) -> String {
        format!(
            "read {} of {} in {} of {} files",
            Bytes(counts.bytes_read),
            Bytes(self.bytes),
            counts.files_read,
            self.files
        )
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} files, {} in {} directories",
            self.files,
            Bytes(self.bytes),
            self.directories
        )
    }
}

#[derive(Default)]
struct Walk {
    totals: Totals,
    directories: HashSet<DirectoryDigest>,
    files: HashSet<BlobDigest>,
    open: Vec<DirectoryDigest>,
}

impl Walk {
    fn visit(&mut self, node: &Node) {
        match node {
            Node::Directory { digest, .. } => {
                if self.directories.insert(*digest) {
                    self.totals.directories += 1;
                    self.open.push(*digest);
                }
            }
            Node::File { digest, size, .. } => {
                if self.files.insert(*digest) {
                    self.totals.files += 1;
                    self.totals.bytes = self.totals.bytes.saturating_add(*size);
                }
            }
            Node::Symlink { .. } => self.totals.symlinks += 1,
        }
    }
}
