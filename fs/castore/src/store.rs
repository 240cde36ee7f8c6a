//! The traits of a content store: chunks, blobs, directories.
//!
//! Invariants every implementation keeps (the suite in `integration/testkit` checks them)
//! - what is read is what was named: bytes whose digest is wrong are `Corrupt`, never data;
//! - everything is immutable: putting a thing that is there changes nothing and succeeds;
//! - after `sync` returns, all that was put before it survives a crash; before it, nothing is promised;
//! - the empty blob and the empty directory exist everywhere, without being put.
//!
//! All methods are async and never block the caller's thread for long: see [`crate::blocking`].

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::digest::{BlobDigest, ChunkDigest, DirectoryDigest};
use crate::directory::Directory;
use crate::error::{BackendError, ReadBlobError, ReadDirectoryError, WriteError};

/// Chunk bytes by digest: the tier that holds the weight.
#[async_trait]
pub trait ChunkStore: fmt::Debug + Send + Sync {
    /// Which of these chunks are here, in the order asked.
    async fn contains(&self, digests: &[ChunkDigest]) -> Result<Vec<bool>, BackendError>;

    /// A chunk's bytes, or `None` when it is not here.
    ///
    /// # Errors
    /// `Corrupt` when the stored bytes do not match the digest.
    async fn get(&self, digest: &ChunkDigest) -> Result<Option<Bytes>, ReadBlobError>;

    /// Stores chunks. The digests are the caller's word: who takes bytes from strangers hashes them first.
    async fn put(&self, chunks: Vec<(ChunkDigest, Bytes)>) -> Result<(), WriteError>;

    /// Makes all earlier puts durable.
    async fn sync(&self) -> Result<(), WriteError>;
}

/// File contents by digest.
#[async_trait]
pub trait BlobStore: fmt::Debug + Send + Sync {
    /// Size and chunks of a blob, or `None` when it is not here.
    async fn stat(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError>;

    /// Reads part of a blob, checking every chunk it touches.
    ///
    /// `offset` and `len` are bytes; the range may run past the end. Returns `min(len, size - offset)` bytes, none at or
    /// past the end. Fetches only the chunks the range touches.
    ///
    /// # Errors
    /// `Missing` when the store lacks the blob or a chunk of it, `Corrupt` when bytes fail their digest; then no byte is
    /// returned.
    async fn read_range(&self, digest: &BlobDigest, offset: u64, len: usize) -> Result<Bytes, ReadBlobError>;

    /// Stores blobs small enough not to be cut ([`crate::chunking::UNCUT_SIZE_MAX`] bytes each). Digests as in
    /// [`ChunkStore::put`].
    async fn put_small(&self, blobs: Vec<(BlobDigest, Bytes)>) -> Result<(), WriteError>;

    /// Starts a blob of any size. Dropping the writer unfinished stores nothing that can be seen.
    async fn writer(&self) -> Result<Box<dyn BlobWriter>, WriteError>;

    /// Makes all earlier puts and finished writers durable.
    async fn sync(&self) -> Result<(), WriteError>;
}

/// A blob being written.
#[async_trait]
pub trait BlobWriter: Send {
    /// Appends bytes. Waits when the store is slower than the caller: at most a few chunks are held.
    async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError>;

    /// Ends the blob: its digest and size in bytes.
    async fn finish(self: Box<Self>) -> Result<(BlobDigest, u64), WriteError>;
}

/// Directories by digest.
#[async_trait]
pub trait DirectoryStore: fmt::Debug + Send + Sync {
    /// A directory, or `None` when it is not here.
    ///
    /// # Errors
    /// `Corrupt` when the stored bytes do not match the digest or are not canonical.
    async fn get(&self, digest: &DirectoryDigest) -> Result<Option<Arc<Directory>>, ReadDirectoryError>;

    /// Stores directories, children before parents.
    async fn put(&self, directories: Vec<Directory>) -> Result<(), WriteError>;

    /// Makes all earlier puts durable.
    async fn sync(&self) -> Result<(), WriteError>;
}

/// A blob's size and the chunks it is made of, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobStat {
    /// Bytes in the blob.
    pub size: u64,
    /// Digest and size of each chunk. A blob that was not cut has one, with the blob's own digest; the empty blob none.
    pub chunks: Vec<(ChunkDigest, u32)>,
}

/// The content side of a store: what a mount or a build reads from.
#[derive(Clone, Debug)]
pub struct Castore {
    /// File contents.
    pub blobs: Arc<dyn BlobStore>,
    /// Directories.
    pub directories: Arc<dyn DirectoryStore>,
}

impl Castore {
    /// Makes all that was put durable, contents before the directories that name them.
    pub async fn sync(&self) -> Result<(), WriteError> {
        self.blobs.sync().await?;
        self.directories.sync().await
    }
}

/// A store's name in messages, as the user configured it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreName(Arc<str>);

impl From<&str> for StoreName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
