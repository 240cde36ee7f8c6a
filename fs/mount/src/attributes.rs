//! File attributes as Nix shows its store: read-only modes, owner root, one second after the epoch.
//!
//! Invariants
//! - modes are 0555 for directories and executables, 0444 for other files, 0777 for symlinks;
//! - a file's size is what its directory says; directories have 4096 bytes and symlinks the length of their text;
//! - blocks are 512 bytes as in stat(2); only files take any;
//! - link counts are 1. Counting a directory's subdirectories would fetch it, so directories have 1 as well, which tells
//!   tools that the count means nothing (as Btrfs does).

use fuse_backend_rs::abi::fuse_abi::{Attr, stat64};
use igloo_castore::Node;

use crate::inode::Inode;
use crate::roots::Stability;

const DIRECTORY_SIZE: u64 = 4096;
const BLOCK_SIZE: i64 = 4096;
const MTIME: i64 = 1;

/// What stat(2) shows of a file, directory or symlink, apart from its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// File type and permissions.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Seconds since the epoch.
    pub mtime: i64,
}

impl Attributes {
    /// Those of a node.
    pub fn of_node(node: &Node) -> Self {
        match node {
            Node::Directory { .. } => Self::directory(),
            Node::File { size, executable, .. } => Self::file(*size, *executable),
            Node::Symlink { target } => Self::symlink(target.as_bytes().len()),
        }
    }

    /// Those of an inode; `stability` says how old the top directory is.
    pub fn of_inode(inode: &Inode, stability: Stability) -> Self {
        match inode {
            Inode::Root => Self::root(stability),
            Inode::Directory { .. } => Self::directory(),
            Inode::File { size, executable, .. } => Self::file(*size, *executable),
            Inode::Symlink { target } => Self::symlink(target.len()),
        }
    }

    /// The type of a directory entry (`DT_*`, readdir(3)).
    pub fn entry_type(self) -> u32 {
        (self.mode & libc::S_IFMT) >> 12
    }

    /// As the FUSE server wants them.
    pub fn stat(self, number: u64) -> stat64 {
        let mut stat = stat64::from(Attr::default()); // all zeros
        stat.st_ino = number;
        stat.st_mode = self.mode;
        stat.st_nlink = 1;
        stat.st_size = i64::try_from(self.size).unwrap_or(i64::MAX);
        stat.st_blocks = i64::try_from(self.blocks).unwrap_or(i64::MAX);
        stat.st_blksize = BLOCK_SIZE;
        (stat.st_atime, stat.st_mtime, stat.st_ctime) = (self.mtime, self.mtime, self.mtime);
        stat
    }

    fn root(stability: Stability) -> Self {
        let mtime = match stability {
            Stability::Fixed => MTIME,
            Stability::Changing { version, .. } => i64::from(version) + MTIME + 1,
        };
        Self {
            mtime,
            ..Self::directory()
        }
    }

    fn directory() -> Self {
        Self {
            mode: libc::S_IFDIR | 0o555,
            size: DIRECTORY_SIZE,
            blocks: 0,
            mtime: MTIME,
        }
    }

    fn file(size: u64, executable: bool) -> Self {
        let permissions = if executable { 0o555 } else { 0o444 };
        Self {
            mode: libc::S_IFREG | permissions,
            size,
            blocks: size.div_ceil(512),
            mtime: MTIME,
        }
    }

    fn symlink(target_size: usize) -> Self {
        let size = u64::try_from(target_size).unwrap_or(u64::MAX);
        Self {
            mode: libc::S_IFLNK | 0o777,
            size,
            blocks: 0,
            mtime: MTIME,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use igloo_castore::{BlobDigest, SymlinkTarget};

    #[test]
    fn modes_and_times_are_those_of_a_nix_store() {
        let file = |executable| Node::File {
            digest: BlobDigest::of(b"x"),
            size: 513,
            executable,
        };
        let link = Node::Symlink {
            target: SymlinkTarget::try_from(&b"there"[..]).unwrap(),
        };
        let plain = Attributes::of_node(&file(false)).stat(7);
        assert_eq!((plain.st_ino, plain.st_mode, plain.st_size), (7, 0o100_444, 513));
        assert_eq!((plain.st_blocks, plain.st_nlink, plain.st_mtime), (2, 1, 1));
        assert_eq!((plain.st_uid, plain.st_gid, plain.st_atime_nsec), (0, 0, 0));
        assert_eq!(Attributes::of_node(&file(true)).mode, 0o100_555);
        assert_eq!(Attributes::of_node(&link).mode, 0o120_777);
        assert_eq!(Attributes::of_node(&link).size, 5);
        assert_eq!(Attributes::of_node(&link).entry_type(), u32::from(libc::DT_LNK));
        assert_eq!(
            Attributes::of_inode(&Inode::Root, Stability::Fixed).mode,
            0o40_555
        );
    }
}
