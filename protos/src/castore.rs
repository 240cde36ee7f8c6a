//! Digests, nodes and directories on the wire.
//!
//! Invariants
//! - a `Directory` message becomes a domain directory only when its lists are sorted and its names unique, so that
//!   `Directory::digest` is the digest of the bytes the peer hashed; who asked by digest compares;
//! - an `Entry` has a name where it is named and none where it is a root: [`named`] and [`root`] refuse the other.

use bytes::Bytes;
use igloo_castore::digest::Digest;
use igloo_castore::directory::Directory;
use igloo_castore::node::{Node, NodeName, SymlinkTarget};

use crate::error::{InField, WireError, WireReason};
use crate::snix::castore::v1;

/// Reads a digest.
///
/// # Errors
/// Not 32 bytes.
pub fn digest<K>(bytes: &[u8], field: &'static str) -> Result<Digest<K>, WireError> {
    Digest::try_from(bytes).field(field)
}

/// Writes a digest.
pub fn digest_bytes<K>(digest: &Digest<K>) -> Bytes {
    Bytes::copy_from_slice(digest.as_bytes())
}

impl From<&Directory> for v1::Directory {
    fn from(directory: &Directory) -> Self {
        let mut message = Self::default();
        for (name, node) in directory.entries() {
            match entry(name.as_bytes(), node) {
                v1::entry::Entry::Directory(entry) => message.directories.push(entry),
                v1::entry::Entry::File(entry) => message.files.push(entry),
                v1::entry::Entry::Symlink(entry) => message.symlinks.push(entry),
            }
        }
        message
    }
}

impl TryFrom<v1::Directory> for Directory {
    type Error = WireError;

    /// Linear in the number of entries; names share the message's bytes.
    fn try_from(message: v1::Directory) -> Result<Self, WireError> {
        check_order(&message.directories, "directories", |entry| &entry.name)?;
        check_order(&message.files, "files", |entry| &entry.name)?;
        check_order(&message.symlinks, "symlinks", |entry| &entry.name)?;
        let directories = message.directories.into_iter().map(v1::entry::Entry::Directory);
        let files = message.files.into_iter().map(v1::entry::Entry::File);
        let symlinks = message.symlinks.into_iter().map(v1::entry::Entry::Symlink);
        let entries = directories.chain(files).chain(symlinks);
        let entries: Result<Vec<_>, WireError> = entries.map(named_member).collect();
        Self::from_entries(entries?).field("directories, files, symlinks")
    }
}

/// Writes a node with its name.
pub fn named_entry(name: &NodeName, node: &Node) -> v1::Entry {
    v1::Entry {
        entry: Some(entry(name.as_bytes(), node)),
    }
}

/// Writes a node as a root, without a name.
pub fn root_entry(node: &Node) -> v1::Entry {
    v1::Entry {
        entry: Some(entry(b"", node)),
    }
}

/// Reads a node with its name.
///
/// # Errors
/// No node, no name, or a field of it that is wrong.
pub fn named(entry: v1::Entry) -> Result<(NodeName, Node), WireError> {
    named_member(entry.entry.field("entry")?)
}

/// Reads a root.
///
/// # Errors
/// No node, a name, or a field of it that is wrong.
pub fn root(entry: v1::Entry) -> Result<Node, WireError> {
    let (name, node) = node(entry.entry.field("entry")?)?;
    if name.is_empty() {
        Ok(node)
    } else {
        Err(WireError {
            field: "name",
            reason: WireReason::NotEmpty,
        })
    }
}

fn named_member(entry: v1::entry::Entry) -> Result<(NodeName, Node), WireError> {
    let (name, node) = node(entry)?;
    Ok((NodeName::try_from(name).field("name")?, node))
}

fn node(entry: v1::entry::Entry) -> Result<(Bytes, Node), WireError> {
    Ok(match entry {
        v1::entry::Entry::Directory(entry) => {
            let digest = digest(&entry.digest, "digest")?;
            let size = entry.size;
            (entry.name, Node::Directory { digest, size })
        }
        v1::entry::Entry::File(entry) => {
            let node = Node::File {
                digest: digest(&entry.digest, "digest")?,
                size: entry.size,
                executable: entry.executable,
            };
            (entry.name, node)
        }
        v1::entry::Entry::Symlink(entry) => {
            let target = SymlinkTarget::try_from(entry.target).field("target")?;
            (entry.name, Node::Symlink { target })
        }
    })
}

fn entry(name: &[u8], node: &Node) -> v1::entry::Entry {
    let name = Bytes::copy_from_slice(name);
    match node {
        Node::Directory { digest, size } => v1::entry::Entry::Directory(v1::DirectoryEntry {
            name,
            digest: digest_bytes(digest),
            size: *size,
        }),
        Node::File {
            digest,
            size,
            executable,
        } => v1::entry::Entry::File(v1::FileEntry {
            name,
            digest: digest_bytes(digest),
            size: *size,
            executable: *executable,
        }),
        Node::Symlink { target } => v1::entry::Entry::Symlink(v1::SymlinkEntry {
            name,
            target: Bytes::copy_from_slice(target.as_bytes()),
        }),
    }
}

fn check_order<T>(list: &[T], field: &'static str, name: impl Fn(&T) -> &Bytes) -> Result<(), WireError> {
    match list.array_windows().find(|[a, b]| name(a) >= name(b)) {
        None => Ok(()),
        Some([_, late]) => Err(WireError {
            field,
            reason: WireReason::Order {
                item: crate::error::printable(name(late)),
            },
        }),
    }
}

#[cfg(test)]
mod tests;
