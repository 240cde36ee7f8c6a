//! Blobs made of chunks: a [`BlobStore`] over any [`ChunkStore`] and a small index.
//!
//! Invariants
//! - a blob of one chunk has no index record: the chunk's digest is the blob's;
//! - an index record is written after all chunks it names, so whoever sees a blob sees its chunks;
//! - every chunk is checked when it enters the cache (by [`ChunkStore::get`], and its size here), so a read is made of
//!   checked bytes only.

mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::cache::{BlobCache, ChunkList};
use crate::chunking::UNCUT_SIZE_MAX;
use crate::digest::{BlobDigest, ChunkDigest};
use crate::error::{ReadBlobError, WriteError};
use crate::store::{BlobStat, BlobStore, BlobWriter, ChunkStore, StoreName};
use writer::ChunkedBlobWriter;

/// Chunks that one read fetches at the same time.
const FETCH_WINDOW: usize = 8;

/// A blob store over chunks. Cheap to clone; clones share everything.
#[derive(Debug)]
pub struct ChunkedBlobStore<I, C> {
    shared: Arc<Shared<I, C>>,
}

/// Which chunks a blob is made of, for blobs of two chunks or more.
#[async_trait]
pub trait BlobIndex: std::fmt::Debug + Send + Sync + 'static {
    /// The chunks of a blob, or `None` when there is no record.
    async fn get(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError>;

    /// Writes records.
    async fn put(&self, blobs: Vec<(BlobDigest, Arc<BlobStat>)>) -> Result<(), WriteError>;

    /// Makes all earlier puts durable.
    async fn sync(&self) -> Result<(), WriteError>;
}

#[derive(Debug)]
struct Shared<I, C> {
    name: StoreName,
    index: I,
    chunks: C,
    cache: Arc<BlobCache>,
}

impl<I, C> Clone for ChunkedBlobStore<I, C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<I: BlobIndex, C: ChunkStore + 'static> ChunkedBlobStore<I, C> {
    /// A store of the chunks in `chunks`, found by `index`; `name` is for messages.
    pub fn new(name: StoreName, index: I, chunks: C, cache: Arc<BlobCache>) -> Self {
        Self {
            shared: Arc::new(Shared {
                name,
                index,
                chunks,
                cache,
            }),
        }
    }

    /// The chunks below.
    pub fn chunks(&self) -> &C {
        &self.shared.chunks
    }
}

#[async_trait]
impl<I: BlobIndex, C: ChunkStore + 'static> BlobStore for ChunkedBlobStore<I, C> {
    async fn stat(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError> {
        match self.shared.find(digest).await {
            Ok(Found::Whole(bytes)) => Ok(Some(Arc::new(stat_of_whole(digest, &bytes)))),
            Ok(Found::Cut(list)) => Ok(Some(Arc::clone(&list.stat))),
            Err(Absent::Nowhere) => Ok(None),
            Err(Absent::Failed(error)) => Err(error),
        }
    }

    async fn read_range(&self, digest: &BlobDigest, offset: u64, len: usize) -> Result<Bytes, ReadBlobError> {
        let shared = &self.shared;
        match shared.find(digest).await {
            Ok(Found::Whole(bytes)) => {
                let start = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
                Ok(bytes.slice(start..start.saturating_add(len).min(bytes.len())))
            }
            Ok(Found::Cut(list)) => shared.read_cut(digest, &list, offset, len).await,
            Err(Absent::Nowhere) => Err(ReadBlobError::Missing {
                digest: *digest,
                store: shared.name.clone(),
            }),
            Err(Absent::Failed(error)) => Err(error),
        }
    }

    async fn put_small(&self, blobs: Vec<(BlobDigest, Bytes)>) -> Result<(), WriteError> {
        let mut chunks = Vec::with_capacity(blobs.len());
        for (digest, bytes) in blobs {
            if bytes.len() > UNCUT_SIZE_MAX {
                return Err(WriteError::TooLarge {
                    what: "a blob stored uncut",
                    size: bytes.len() as u64,
                    size_max: UNCUT_SIZE_MAX as u64,
                });
            }
            if !bytes.is_empty() {
                chunks.push((digest.as_chunk(), bytes));
            }
        }
        if chunks.is_empty() {
            return Ok(());
        }
        self.shared.chunks.put(chunks).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, WriteError> {
        Ok(Box::new(ChunkedBlobWriter::new(Arc::clone(&self.shared))))
    }

    async fn sync(&self) -> Result<(), WriteError> {
        self.shared.chunks.sync().await?;
        self.shared.index.sync().await
    }
}

enum Found {
    /// The blob is one chunk, or empty.
    Whole(Bytes),
    /// The blob is made of these chunks.
    Cut(Arc<ChunkList>),
}

enum Absent {
    Nowhere,
    Failed(ReadBlobError),
}

impl From<ReadBlobError> for Absent {
    fn from(error: ReadBlobError) -> Self {
        Self::Failed(error)
    }
}

impl<I: BlobIndex, C: ChunkStore> Shared<I, C> {
    async fn find(&self, digest: &BlobDigest) -> Result<Found, Absent> {
        if *digest == empty() {
            return Ok(Found::Whole(Bytes::new()));
        }
        let whole = digest.as_chunk();
        if let Some(bytes) = self.cache.chunk(&whole) {
            return Ok(Found::Whole(bytes));
        }
        let list = self
            .cache
            .list_or(digest, async {
                let stat = self.index.get(digest).await?.ok_or(Absent::Nowhere)?;
                Ok(Arc::new(ChunkList::new(stat)))
            })
            .await;
        match list {
            Err(Absent::Nowhere) => {
                let fetch = async { self.chunks.get(&whole).await?.ok_or(Absent::Nowhere) };
                Ok(Found::Whole(self.cache.chunk_or(&whole, fetch).await?))
            }
            list => Ok(Found::Cut(list?)),
        }
    }

    async fn read_cut(
        &self,
        digest: &BlobDigest,
        list: &ChunkList,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, ReadBlobError> {
        let end = offset.saturating_add(len as u64).min(list.stat.size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let parts: Vec<Bytes> = stream::iter(list.touched(offset, end))
            .map(|(start, chunk, size)| async move {
                let bytes = self.chunk_of(digest, start, &chunk, size).await?;
                let from = clamp_to(offset.saturating_sub(start), bytes.len());
                let to = clamp_to(end - start, bytes.len());
                Ok::<_, ReadBlobError>(bytes.slice(from..to))
            })
            .buffered(FETCH_WINDOW)
            .try_collect()
            .await?;
        Ok(concatenate(parts))
    }

    async fn chunk_of(
        &self,
        digest: &BlobDigest,
        offset: u64,
        chunk: &ChunkDigest,
        size: u32,
    ) -> Result<Bytes, ReadBlobError> {
        let fetch = async {
            self.chunks
                .get(chunk)
                .await?
                .ok_or_else(|| ReadBlobError::MissingChunk {
                    digest: *digest,
                    chunk: *chunk,
                    offset,
                    store: self.name.clone(),
                })
        };
        let bytes = self.cache.chunk_or(chunk, fetch).await?;
        if bytes.len() as u64 != u64::from(size) {
            // the chunk is right, so the index is wrong about it
            return Err(ReadBlobError::Corrupt {
                digest: digest.to_string(),
                store: self.name.clone(),
            });
        }
        Ok(bytes)
    }
}

fn empty() -> BlobDigest {
    BlobDigest::from_bytes(EMPTY)
}

/// BLAKE3 of no bytes (test vector 0 of the reference implementation).
const EMPTY: [u8; 32] = [
    0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49, 0x9b,
    0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
];

fn stat_of_whole(digest: &BlobDigest, bytes: &Bytes) -> BlobStat {
    BlobStat {
        size: bytes.len() as u64,
        chunks: match u32::try_from(bytes.len()) {
            Ok(0) | Err(_) => Vec::new(), // no chunk is near 4 GiB
            Ok(size) => vec![(digest.as_chunk(), size)],
        },
    }
}

fn clamp_to(at: u64, len: usize) -> usize {
    usize::try_from(at).map_or(len, |at| at.min(len))
}

fn concatenate(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.swap_remove(0);
    }
    let mut bytes = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        bytes.extend_from_slice(&part);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests;
