//! Stores that live in memory: for tests, for throw-away work, and as the model other backends are compared with.
//!
//! Invariants: those of [`crate::store`]. Nothing is ever removed, so memory grows with what is put.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use bytes::Bytes;

use crate::cache::BlobCache;
use crate::chunked::{BlobIndex, ChunkedBlobStore};
use crate::digest::{BlobDigest, ChunkDigest, DirectoryDigest};
use crate::directory::Directory;
use crate::error::{BackendError, ReadBlobError, ReadDirectoryError, WriteError};
use crate::node::Node;
use crate::store::{BlobStat, Castore, ChunkStore, DirectoryStore, StoreName};

/// A content store in memory, empty.
pub fn castore(name: &str) -> Castore {
    let name = StoreName::from(name);
    let cache = Arc::new(BlobCache::new(0, 1 << 20)); // chunks are in memory already
    let chunks = MemoryChunkStore::new(name.clone());
    let blobs = ChunkedBlobStore::new(name, MemoryBlobIndex::default(), chunks, cache);
    Castore {
        blobs: Arc::new(blobs),
        directories: Arc::new(MemoryDirectoryStore::default()),
    }
}

/// Chunks in memory.
#[derive(Debug)]
pub struct MemoryChunkStore {
    name: StoreName,
    chunks: Table<ChunkDigest, Bytes>,
}

impl MemoryChunkStore {
    /// An empty store; `name` is for messages.
    pub fn new(name: StoreName) -> Self {
        Self {
            name,
            chunks: Table::default(),
        }
    }
}

#[async_trait]
impl ChunkStore for MemoryChunkStore {
    async fn contains(&self, digests: &[ChunkDigest]) -> Result<Vec<bool>, BackendError> {
        let chunks = self.chunks.read();
        Ok(digests.iter().map(|digest| chunks.contains_key(digest)).collect())
    }

    async fn get(&self, digest: &ChunkDigest) -> Result<Option<Bytes>, ReadBlobError> {
        let Some(bytes) = self.chunks.read().get(digest).cloned() else {
            return Ok(None);
        };
        if !digest.matches(&bytes) {
            return Err(ReadBlobError::Corrupt {
                digest: digest.to_string(),
                store: self.name.clone(),
            });
        }
        Ok(Some(bytes))
    }

    async fn put(&self, chunks: Vec<(ChunkDigest, Bytes)>) -> Result<(), WriteError> {
        let mut table = self.chunks.write();
        for (digest, bytes) in chunks {
            // a copy of its own: the caller's bytes may be a slice that keeps a larger buffer alive
            table
                .entry(digest)
                .or_insert_with(|| Bytes::copy_from_slice(&bytes));
        }
        Ok(())
    }

    async fn sync(&self) -> Result<(), WriteError> {
        Ok(())
    }
}

/// Chunk lists in memory.
#[derive(Debug, Default)]
pub struct MemoryBlobIndex {
    blobs: Table<BlobDigest, Arc<BlobStat>>,
}

#[async_trait]
impl BlobIndex for MemoryBlobIndex {
    async fn get(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError> {
        Ok(self.blobs.read().get(digest).cloned())
    }

    async fn put(&self, blobs: Vec<(BlobDigest, Arc<BlobStat>)>) -> Result<(), WriteError> {
        self.blobs.write().extend(blobs);
        Ok(())
    }

    async fn sync(&self) -> Result<(), WriteError> {
        Ok(())
    }
}

/// Directories in memory.
#[derive(Debug, Default)]
pub struct MemoryDirectoryStore {
    directories: Table<DirectoryDigest, Arc<Directory>>,
}

#[async_trait]
impl DirectoryStore for MemoryDirectoryStore {
    async fn get(&self, digest: &DirectoryDigest) -> Result<Option<Arc<Directory>>, ReadDirectoryError> {
        match self.directories.read().get(digest) {
            None if *digest == Directory::new().digest() => Ok(Some(Arc::default())),
            found => Ok(found.cloned()),
        }
    }

    async fn put(&self, directories: Vec<Directory>) -> Result<(), WriteError> {
        let empty = Directory::new().digest();
        let mut table = self.directories.write();
        // all or nothing: checked against what is there and what comes before in the list
        let mut new: HashMap<DirectoryDigest, Arc<Directory>> = HashMap::new();
        for directory in directories {
            for (_, node) in directory.entries() {
                let Node::Directory { digest, size } = node else {
                    continue;
                };
                let known = match new.get(digest).or_else(|| table.get(digest)) {
                    Some(child) => Some(child.size()),
                    None => (*digest == empty).then_some(0),
                };
                if known != Some(*size) {
                    return Err(WriteError::Dangling { child: *digest });
                }
            }
            new.insert(directory.digest(), Arc::new(directory));
        }
        table.extend(new);
        Ok(())
    }

    async fn sync(&self) -> Result<(), WriteError> {
        Ok(())
    }
}

/// A map behind a lock that no reader holds for long. A panic elsewhere leaves it whole: entries are only ever added.
#[derive(Debug)]
struct Table<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K, V> Table<K, V> {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<K, V>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<K, V>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
