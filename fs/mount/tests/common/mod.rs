//! What the tests of this crate share: a store with faults, trees as values, watchdogs, and loud skips.

#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use igloo_castore::cache::BlobCache;
use igloo_castore::chunked::ChunkedBlobStore;
use igloo_castore::error::{BackendError, ReadBlobError, WriteError};
use igloo_castore::memory::{MemoryBlobIndex, MemoryChunkStore, MemoryDirectoryStore};
use igloo_castore::{
    BlobDigest, Castore, ChunkDigest, ChunkStore, Directory, Node, NodeName, StoreName, SymlinkTarget,
};
use tokio::runtime::Runtime;

/// A store in memory that can be told to lose, damage and delay chunks.
pub struct TestStore {
    pub castore: Castore,
    pub faults: Arc<Faults>,
    pub runtime: Runtime,
}

/// What is wrong with the store.
#[derive(Debug, Default)]
pub struct Faults {
    pub missing: Mutex<HashSet<ChunkDigest>>,
    pub corrupt: Mutex<HashSet<ChunkDigest>>,
    /// Panics when any of these is asked for.
    pub explosive: Mutex<HashSet<ChunkDigest>>,
    pub hang: AtomicBool,
    pub gets: AtomicU64,
}

impl TestStore {
    pub fn new() -> Self {
        let name = StoreName::from("test");
        let faults = Arc::new(Faults::default());
        let chunks = FaultyChunks {
            inner: MemoryChunkStore::new(name.clone()),
            faults: faults.clone(),
        };
        let cache = Arc::new(BlobCache::new(0, 1 << 20));
        Self {
            castore: Castore {
                blobs: Arc::new(ChunkedBlobStore::new(
                    name,
                    MemoryBlobIndex::default(),
                    chunks,
                    cache,
                )),
                directories: Arc::new(MemoryDirectoryStore::default()),
            },
            faults,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    /// Stores a tree.
    pub fn put(&self, item: &Item) -> Node {
        match item {
            Item::File { content, executable } => {
                let (digest, size) = self.put_blob(content);
                Node::File {
                    digest,
                    size,
                    executable: *executable,
                }
            }
            Item::Link(target) => Node::Symlink {
                target: SymlinkTarget::try_from(target.as_slice()).unwrap(),
            },
            Item::Dir(items) => {
                let entries = items.iter().map(|(name, item)| (name_of(name), self.put(item)));
                let directory = Directory::from_entries(entries.collect()).unwrap();
                let node = directory.node();
                self.runtime
                    .block_on(self.castore.directories.put(vec![directory]))
                    .unwrap();
                node
            }
        }
    }

    pub fn put_blob(&self, content: &[u8]) -> (BlobDigest, u64) {
        self.runtime.block_on(async {
            let mut writer = self.castore.blobs.writer().await.unwrap();
            for part in content.chunks(1 << 20) {
                writer.write(Bytes::copy_from_slice(part)).await.unwrap();
            }
            writer.finish().await.unwrap()
        })
    }

    /// The chunks of a file.
    pub fn chunks(&self, digest: &BlobDigest) -> Vec<ChunkDigest> {
        let stat = self
            .runtime
            .block_on(self.castore.blobs.stat(digest))
            .unwrap()
            .unwrap();
        stat.chunks.iter().map(|(digest, _)| *digest).collect()
    }
}

pub fn name_of(name: &[u8]) -> NodeName {
    NodeName::try_from(name).unwrap()
}

/// A tree as a value.
#[derive(Clone, Debug)]
pub enum Item {
    File { content: Vec<u8>, executable: bool },
    Link(Vec<u8>),
    Dir(BTreeMap<Vec<u8>, Item>),
}

pub fn file(content: impl Into<Vec<u8>>) -> Item {
    Item::File {
        content: content.into(),
        executable: false,
    }
}

pub fn program(content: impl Into<Vec<u8>>) -> Item {
    Item::File {
        content: content.into(),
        executable: true,
    }
}

pub fn link(target: &str) -> Item {
    Item::Link(target.as_bytes().to_vec())
}

pub fn dir<N: AsRef<[u8]>>(items: impl IntoIterator<Item = (N, Item)>) -> Item {
    Item::Dir(
        items
            .into_iter()
            .map(|(name, item)| (name.as_ref().to_vec(), item))
            .collect(),
    )
}

/// Bytes that do not compress and differ by seed.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

#[derive(Debug)]
struct FaultyChunks {
    inner: MemoryChunkStore,
    faults: Arc<Faults>,
}

#[async_trait]
impl ChunkStore for FaultyChunks {
    async fn contains(&self, digests: &[ChunkDigest]) -> Result<Vec<bool>, BackendError> {
        self.inner.contains(digests).await
    }

    async fn get(&self, digest: &ChunkDigest) -> Result<Option<Bytes>, ReadBlobError> {
        self.faults.gets.fetch_add(1, Ordering::Relaxed);
        assert!(
            !self.faults.explosive.lock().unwrap().contains(digest),
            "a store with a bug"
        );
        while self.faults.hang.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if self.faults.missing.lock().unwrap().contains(digest) {
            return Ok(None);
        }
        if self.faults.corrupt.lock().unwrap().contains(digest) {
            // other bytes under this digest, for the store itself to find out
            let damaged = MemoryChunkStore::new(StoreName::from("damaged"));
            let put = damaged
                .put(vec![(*digest, Bytes::from_static(b"other bytes"))])
                .await;
            put.expect("memory takes everything");
            return damaged.get(digest).await;
        }
        self.inner.get(digest).await
    }

    async fn put(&self, chunks: Vec<(ChunkDigest, Bytes)>) -> Result<(), WriteError> {
        self.inner.put(chunks).await
    }

    async fn sync(&self) -> Result<(), WriteError> {
        Ok(())
    }
}

/// Ends the whole test process when a test takes too long: a hung mount hangs every thread that touches it.
pub struct Watchdog {
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    /// Frees `dir`, should it be mounted, and aborts after `limit`.
    pub fn new(test: &'static str, dir: &Path, limit: Duration) -> Self {
        let (alive, dead) = mpsc::channel::<()>();
        let dir = dir.to_owned();
        std::thread::spawn(move || {
            if dead.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!(
                    "TIMEOUT: {test} took more than {limit:?}; the mount is freed and the process aborted"
                );
                let flags = rustix::mount::UnmountFlags::FORCE | rustix::mount::UnmountFlags::DETACH;
                let _ = rustix::mount::unmount(&dir, flags);
                std::process::abort();
            }
        });
        Self { _alive: alive }
    }
}

/// Says loudly that a test could not run, also in the file that CI reads.
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED: {test}: {reason}");
    if let Some(path) = std::env::var_os("IGLOO_TEST_SKIPS") {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(PathBuf::from(path));
        writeln!(file.unwrap(), "{test}: {reason}").unwrap();
    }
}

/// Whether this machine lets us mount; skips the test when not.
pub fn can_mount(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        skip(test, "needs root to mount");
        return false;
    }
    match std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => true,
        Err(error) => {
            skip(test, &format!("/dev/fuse: {error}"));
            false
        }
    }
}
