//! What a mount was asked: bytes and files read, requests by kind.
//!
//! Invariant: counting costs an atomic addition for each request, and one hash set insertion for each inode's first read.
//! A snapshot is not one instant: its numbers may be a request apart.

use std::collections::HashSet;
use std::fmt;

use igloo_castore::BlobDigest;

use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Distinct files that are told apart; beyond it they are no longer counted (16 MB of memory).
const FILES_COUNT_MAX: usize = 1 << 20;

/// Running counts of one mount.
#[derive(Debug)]
pub struct Counters {
    bytes_read: AtomicU64,
    requests: [AtomicU64; OPCODE_COUNT],
    requests_other: AtomicU64,
    errors: AtomicU64,
    files: Mutex<Files>,
}

impl Counters {
    /// Counts a request by its FUSE opcode.
    pub(crate) fn request(&self, opcode: u32) {
        let slot = usize::try_from(opcode)
            .ok()
            .and_then(|index| self.requests.get(index));
        slot.unwrap_or(&self.requests_other)
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that failed for our reasons: lost content, an unreachable store.
    pub(crate) fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn bytes_read(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a file at the first read of its inode; content seen before under another inode is not counted again.
    pub(crate) fn file_read_first(&self, digest: &BlobDigest, size: u64) {
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&digest.as_bytes()[..8]); // 64 bits of a hash: enough for a statistic
        let mut files = lock(&self.files);
        if files.seen.len() < FILES_COUNT_MAX && files.seen.insert(u64::from_ne_bytes(prefix)) {
            files.bytes = files.bytes.saturating_add(size);
        }
    }

    /// The counts now.
    pub fn snapshot(&self) -> Counts {
        let files = lock(&self.files);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let requests = OPCODES
            .iter()
            .filter_map(|(opcode, name)| Some((*name, load(self.requests.get(*opcode)?))))
            .filter(|(_, count)| *count > 0)
            .collect();
        Counts {
            files_read: u64::try_from(files.seen.len()).unwrap_or(u64::MAX),
            files_read_bytes: files.bytes,
            bytes_read: load(&self.bytes_read),
            errors: load(&self.errors),
            requests_all: self.requests.iter().map(load).sum::<u64>() + load(&self.requests_other),
            requests,
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            bytes_read: AtomicU64::new(0),
            requests: std::array::from_fn(|_| AtomicU64::new(0)),
            requests_other: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            files: Mutex::default(),
        }
    }
}

/// What a mount was asked up to some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Distinct file contents of which at least one byte was asked for.
    pub files_read: u64,
    /// Sizes of those files added up, bytes.
    pub files_read_bytes: u64,
    /// Bytes given out. What the kernel keeps in its page cache it asks for once.
    pub bytes_read: u64,
    /// Requests that failed for lost content or a store that gave no answer.
    pub errors: u64,
    /// Requests of all kinds.
    pub requests_all: u64,
    /// Requests by kind, those that occurred.
    pub requests: Vec<(&'static str, u64)>,
}

impl Counts {
    /// Requests of one kind, by its name in linux/fuse.h in lower case.
    pub fn requests(&self, name: &str) -> u64 {
        let found = self.requests.iter().find(|(kind, _)| *kind == name);
        found.map_or(0, |(_, count)| *count)
    }
}

/// One line: `12 files, 3.4 MB read; 40 requests (lookup 10, read 30)`.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files, {} read; ", self.files_read, Bytes(self.bytes_read))?;
        write!(f, "{} requests", self.requests_all)?;
        for (index, (name, count)) in self.requests.iter().enumerate() {
            f.write_str(if index == 0 { " (" } else { ", " })?;
            write!(f, "{name} {count}")?;
        }
        if !self.requests.is_empty() {
            f.write_str(")")?;
        }
        if self.errors > 0 {
            write!(f, "; {} failed", self.errors)?;
        }
        Ok(())
    }
}

/// A number of bytes as people read it: decimal units, one digit after the point.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut unit, mut divisor) = ("B", 1);
        for next in ["kB", "MB", "GB", "TB", "PB"] {
            if self.0 / divisor < 1000 {
                break;
            }
            (unit, divisor) = (next, divisor * 1000);
        }
        if divisor == 1 {
            return write!(f, "{} B", self.0);
        }
        let tenths = self.0 / (divisor / 10);
        write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

#[derive(Debug, Default)]
struct Files {
    seen: HashSet<u64>,
    bytes: u64,
}

const OPCODE_COUNT: usize = 64;

/// Names of the requests a read-only client sends (enum fuse_opcode, linux/fuse.h).
const OPCODES: [(usize, &str); 25] = [
    (1, "lookup"),
    (2, "forget"),
    (3, "getattr"),
    (4, "setattr"),
    (5, "readlink"),
    (14, "open"),
    (15, "read"),
    (17, "statfs"),
    (18, "release"),
    (20, "fsync"),
    (22, "getxattr"),
    (23, "listxattr"),
    (25, "flush"),
    (26, "init"),
    (27, "opendir"),
    (28, "readdir"),
    (29, "releasedir"),
    (34, "access"),
    (36, "interrupt"),
    (38, "destroy"),
    (39, "ioctl"),
    (42, "batch_forget"),
    (44, "readdirplus"),
    (46, "lseek"),
    (52, "statx"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_people_read_them() {
        let text = |bytes| Bytes(bytes).to_string();
        assert_eq!(text(0), "0 B");
        assert_eq!(text(999), "999 B");
        assert_eq!(text(1000), "1.0 kB");
        assert_eq!(text(1_999_999), "1.9 MB");
        assert_eq!(text(u64::MAX), "18446.7 PB");
    }

    #[test]
    fn equal_contents_are_one_file() {
        let counters = Counters::default();
        for content in [&b"a"[..], b"b", b"a"] {
            counters.file_read_first(&BlobDigest::of(content), 1);
        }
        counters.request(15);
        counters.request(4000);
        let counts = counters.snapshot();
        assert_eq!((counts.files_read, counts.files_read_bytes), (2, 2));
        assert_eq!((counts.requests_all, counts.requests("read")), (2, 1));
        assert_eq!(counts.to_string(), "2 files, 0 B read; 2 requests (read 1)");
    }
}
