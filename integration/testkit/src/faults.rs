//! Stores that fail on demand, for tests of everything that reads from or writes to one.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use igloo_castore::digest::{BlobDigest, ChunkDigest, DirectoryDigest};
use igloo_castore::directory::Directory;
use igloo_castore::error::{BackendError, ReadBlobError, ReadDirectoryError, WriteError};
use igloo_castore::store::{BlobStat, BlobStore, BlobWriter, Castore, ChunkStore, DirectoryStore, StoreName};
use igloo_status::Code;

/// What shall go wrong. Clones are the same switchboard.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Switches>);

#[derive(Debug, Default)]
struct Switches {
    missing: Mutex<HashSet<[u8; 32]>>,
    corrupt: Mutex<HashSet<[u8; 32]>>,
    disk_full: AtomicBool,
    unavailable: AtomicBool,
}

impl Faults {
    /// This blob, chunk or directory is gone.
    pub fn lose(&self, digest: &[u8; 32]) {
        lock(&self.0.missing).insert(*digest);
    }

    /// This blob, chunk or directory has wrong bytes.
    pub fn corrupt(&self, digest: &[u8; 32]) {
        lock(&self.0.corrupt).insert(*digest);
    }

    /// Nothing more can be written, or it can again.
    pub fn fill_disk(&self, full: bool) {
        self.0.disk_full.store(full, Ordering::SeqCst);
    }

    /// The store gives no answer, or does again.
    pub fn disconnect(&self, gone: bool) {
        self.0.unavailable.store(gone, Ordering::SeqCst);
    }

    /// Everything is well again.
    pub fn heal(&self) {
        lock(&self.0.missing).clear();
        lock(&self.0.corrupt).clear();
        self.fill_disk(false);
        self.disconnect(false);
    }

    fn is_missing(&self, digest: &[u8; 32]) -> bool {
        lock(&self.0.missing).contains(digest)
    }

    fn is_corrupt(&self, digest: &[u8; 32]) -> bool {
        lock(&self.0.corrupt).contains(digest)
    }

    fn reading(&self) -> Result<(), BackendError> {
        match self.0.unavailable.load(Ordering::SeqCst) {
            true => Err(failed(Code::Unavailable, "the connection is lost")),
            false => Ok(()),
        }
    }

    fn writing(&self) -> Result<(), BackendError> {
        self.reading()?;
        match self.0.disk_full.load(Ordering::SeqCst) {
            true => Err(failed(Code::ResourceExhausted, "the disk is full")),
            false => Ok(()),
        }
    }
}

/// A store with faults over `castore`: whole until one is switched on.
pub fn faulty(castore: Castore) -> (Castore, Faults) {
    let faults = Faults::default();
    let blobs = FaultyBlobStore {
        inner: castore.blobs,
        faults: faults.clone(),
    };
    let directories = FaultyDirectoryStore {
        inner: castore.directories,
        faults: faults.clone(),
    };
    let castore = Castore {
        blobs: Arc::new(blobs),
        directories: Arc::new(directories),
    };
    (castore, faults)
}

/// Chunks with faults, for blob stores above it.
#[derive(Debug)]
pub struct FaultyChunkStore<C> {
    inner: C,
    faults: Faults,
}

impl<C: ChunkStore> FaultyChunkStore<C> {
    /// Faults over `inner`.
    pub fn new(inner: C, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl<C: ChunkStore> ChunkStore for FaultyChunkStore<C> {
    async fn contains(&self, digests: &[ChunkDigest]) -> Result<Vec<bool>, BackendError> {
        self.faults.reading()?;
        let mut found = self.inner.contains(digests).await?;
        for (found, digest) in found.iter_mut().zip(digests) {
            *found &= !self.faults.is_missing(digest.as_bytes());
        }
        Ok(found)
    }

    async fn get(&self, digest: &ChunkDigest) -> Result<Option<Bytes>, ReadBlobError> {
        self.faults.reading()?;
        if self.faults.is_missing(digest.as_bytes()) {
            return Ok(None);
        }
        if self.faults.is_corrupt(digest.as_bytes()) {
            return Err(corrupt_blob(digest.to_string()));
        }
        self.inner.get(digest).await
    }

    async fn put(&self, chunks: Vec<(ChunkDigest, Bytes)>) -> Result<(), WriteError> {
        self.faults.writing()?;
        self.inner.put(chunks).await
    }

    async fn sync(&self) -> Result<(), WriteError> {
        self.faults.writing()?;
        self.inner.sync().await
    }
}

#[derive(Debug)]
struct FaultyBlobStore {
    inner: Arc<dyn BlobStore>,
    faults: Faults,
}

#[async_trait]
impl BlobStore for FaultyBlobStore {
    async fn stat(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError> {
        self.faults.reading()?;
        if self.faults.is_missing(digest.as_bytes()) {
            return Ok(None);
        }
        self.inner.stat(digest).await
    }

    /// A fault of a chunk hits the reads that touch it and no others.
    async fn read_range(&self, digest: &BlobDigest, offset: u64, len: usize) -> Result<Bytes, ReadBlobError> {
        self.faults.reading()?;
        let missing = || ReadBlobError::Missing {
            digest: *digest,
            store: name(),
        };
        let stat = self.stat(digest).await?.ok_or_else(missing)?;
        let end = offset.saturating_add(len as u64);
        let mut start = 0;
        for (chunk, size) in &stat.chunks {
            let next = start + u64::from(*size);
            if start < end && next > offset {
                if self.faults.is_missing(chunk.as_bytes()) {
                    return Err(ReadBlobError::MissingChunk {
                        digest: *digest,
                        chunk: *chunk,
                        offset: start,
                        store: name(),
                    });
                }
                if self.faults.is_corrupt(chunk.as_bytes()) {
                    return Err(corrupt_blob(chunk.to_string()));
                }
            }
            start = next;
        }
        if self.faults.is_corrupt(digest.as_bytes()) {
            return Err(corrupt_blob(digest.to_string()));
        }
        self.inner.read_range(digest, offset, len).await
    }

    async fn put_small(&self, blobs: Vec<(BlobDigest, Bytes)>) -> Result<(), WriteError> {
        self.faults.writing()?;
        self.inner.put_small(blobs).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, WriteError> {
        self.faults.writing()?;
        Ok(Box::new(FaultyBlobWriter {
            inner: self.inner.writer().await?,
            faults: self.faults.clone(),
        }))
    }

    async fn sync(&self) -> Result<(), WriteError> {
        self.faults.writing()?;
        self.inner.sync().await
    }
}

struct FaultyBlobWriter {
    inner: Box<dyn BlobWriter>,
    faults: Faults,
}

#[async_trait]
impl BlobWriter for FaultyBlobWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        self.faults.writing()?;
        self.inner.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<(BlobDigest, u64), WriteError> {
        self.faults.writing()?;
        self.inner.finish().await
    }
}

#[derive(Debug)]
struct FaultyDirectoryStore {
    inner: Arc<dyn DirectoryStore>,
    faults: Faults,
}

#[async_trait]
impl DirectoryStore for FaultyDirectoryStore {
    async fn get(&self, digest: &DirectoryDigest) -> Result<Option<Arc<Directory>>, ReadDirectoryError> {
        self.faults.reading()?;
        if self.faults.is_missing(digest.as_bytes()) {
            return Ok(None);
        }
        if self.faults.is_corrupt(digest.as_bytes()) {
            return Err(ReadDirectoryError::Corrupt {
                digest: *digest,
                store: name(),
            });
        }
        self.inner.get(digest).await
    }

    async fn put(&self, directories: Vec<Directory>) -> Result<(), WriteError> {
        self.faults.writing()?;
        self.inner.put(directories).await
    }

    async fn sync(&self) -> Result<(), WriteError> {
        self.faults.writing()?;
        self.inner.sync().await
    }
}

fn name() -> StoreName {
    StoreName::from("the faulty store")
}

fn failed(code: Code, message: &str) -> BackendError {
    BackendError {
        store: name(),
        code,
        message: message.to_owned(),
        source: None,
    }
}

fn corrupt_blob(digest: String) -> ReadBlobError {
    ReadBlobError::Corrupt {
        digest,
        store: name(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
