//! Directories: a sorted list of named nodes with one canonical encoding.
//!
//! Invariants
//! - entries are strictly ascending by name, compared as unsigned bytes, whatever their kind;
//! - two equal directories have equal encodings and so equal digests; `decode` accepts canonical bytes only;
//! - `size` never overflows: a directory whose count would is refused when it is made.
//!
//! The encoding is `snix.castore.v1.Directory` (see `codec`), so digests agree with snix byte for byte.

mod codec;

use bytes::Bytes;
pub use codec::DecodeDirectoryError;
use igloo_status::Code;

use crate::digest::DirectoryDigest;
use crate::node::{Node, NodeName};

/// A directory's entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    entries: Vec<(NodeName, Node)>,
}

impl Directory {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// A directory of these entries, given in any order.
    ///
    /// # Errors
    /// `Duplicate` when two entries have one name, `TooLarge` when the sizes of subdirectories overflow.
    pub fn from_entries(mut entries: Vec<(NodeName, Node)>) -> Result<Self, MakeDirectoryError> {
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if let Some([(name, _), _]) = entries.array_windows().find(|[(a, _), (b, _)]| a == b) {
            return Err(MakeDirectoryError::Duplicate { name: name.clone() });
        }
        let directory = Self { entries };
        directory.checked_size().ok_or(MakeDirectoryError::TooLarge)?;
        Ok(directory)
    }

    /// The entry of that name, found by binary search.
    pub fn get(&self, name: &[u8]) -> Option<&Node> {
        let index = self
            .entries
            .binary_search_by(|(entry, _)| entry.as_bytes().cmp(name))
            .ok()?;
        self.entries.get(index).map(|(_, node)| node)
    }

    /// The entries, ascending by name. The position of an entry is stable: it can serve as a directory offset.
    pub fn entries(&self) -> &[(NodeName, Node)] {
        &self.entries
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number a parent records for this directory.
    ///
    /// Twice the number of entries plus the sizes of the subdirectories: the rule snix computes and enforces, though its
    /// schema documents one count for each entry. It is part of every parent's digest, so it lives here and nowhere
    /// else.
    pub fn size(&self) -> u64 {
        self.checked_size().unwrap_or(u64::MAX) // every way to make a `Directory` has checked it
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The digest of the canonical encoding. Encodes: cost is linear in the number of entries.
    pub fn digest(&self) -> DirectoryDigest {
        DirectoryDigest::of(&self.encode())
    }

    /// Reads a canonical encoding.
    ///
    /// Names and targets share `bytes`, nothing is copied. Cost is linear.
    ///
    /// # Errors
    /// Anything that `encode` would not have written: unknown fields, wrong order, duplicate names, bad digests.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeDirectoryError> {
        codec::decode(bytes)
    }

    /// Node by which a parent refers to this directory.
    pub fn node(&self) -> Node {
        Node::Directory {
            digest: self.digest(),
            size: self.size(),
        }
    }

    fn checked_size(&self) -> Option<u64> {
        let own = u64::try_from(self.entries.len()).ok()?.checked_mul(2)?;
        self.entries.iter().try_fold(own, |sum, (_, node)| match node {
            Node::Directory { size, .. } => sum.checked_add(*size),
            Node::File { .. } | Node::Symlink { .. } => Some(sum),
        })
    }
}

/// Why entries make no directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeDirectoryError {
    /// Two entries of one name.
    #[error("two entries are named `{name}`")]
    Duplicate {
        /// The name both have.
        name: NodeName,
    },
    /// The sizes below do not fit in 64 bits.
    #[error("the sizes of the subdirectories add up to more than 64 bits can count")]
    TooLarge,
}

impl MakeDirectoryError {
    /// Always the sender's fault.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

#[cfg(test)]
mod tests;
