//! How many bytes a tree takes as an archive, from names and sizes alone.
//!
//! Add up from the leaves: a node's size from its kind and its entries, then [`nar_size`] of the root. All of it is
//! `None` where the sum exceeds 64 bits.

use super::format::{
    CLOSE, CONTENTS, DIRECTORY, ENTRY, EXECUTABLE, MAGIC, NAME, NODE, REGULAR, SYMLINK, TARGET, padding,
};

/// Bytes of a string in the archive: its length's 8, itself, and padding.
pub fn string_size(len: u64) -> Option<u64> {
    len.checked_add(8)?.checked_add(padding(len) as u64)
}

/// Bytes of a file's node.
pub fn file_node_size(file_size: u64, executable: bool) -> Option<u64> {
    let mark = if executable { EXECUTABLE.len() } else { 0 };
    string_size(file_size)?.checked_add((REGULAR.len() + mark + CONTENTS.len() + CLOSE.len()) as u64)
}

/// Bytes of a symlink's node.
pub fn symlink_node_size(target_len: u64) -> Option<u64> {
    string_size(target_len)?.checked_add((SYMLINK.len() + TARGET.len() + CLOSE.len()) as u64)
}

/// Bytes of a directory's node; the iterator gives each entry's name length and node size.
pub fn directory_node_size(entries: impl IntoIterator<Item = (u64, u64)>) -> Option<u64> {
    let entry = (ENTRY.len() + NAME.len() + NODE.len() + CLOSE.len()) as u64;
    let empty = (DIRECTORY.len() + CLOSE.len()) as u64;
    entries.into_iter().try_fold(empty, |sum, (name_len, node_size)| {
        sum.checked_add(entry)?
            .checked_add(string_size(name_len)?)?
            .checked_add(node_size)
    })
}

/// Bytes of the archive whose root node has that size.
pub fn nar_size(root_node_size: u64) -> Option<u64> {
    root_node_size.checked_add(MAGIC.len() as u64)
}

/// Bytes of the archive of a single file.
pub fn file_nar_size(file_size: u64, executable: bool) -> Option<u64> {
    nar_size(file_node_size(file_size, executable)?)
}
