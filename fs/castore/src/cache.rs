//! What a blob store keeps in memory: decoded chunks and chunk lists, each within a budget of bytes.
//!
//! Invariants
//! - only checked bytes enter;
//! - a budget is never exceeded by more than the item going in; an item over the whole budget is not kept;
//! - concurrent readers of one absent item wait for one fetch; when it fails, the next of them tries for itself.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::digest::{BlobDigest, ChunkDigest};
use crate::store::BlobStat;

/// Decoded chunks and chunk lists. Several stores may share one: digests name contents, not places.
pub struct BlobCache {
    chunks: Cache<ChunkDigest, Bytes, ByBytes>,
    lists: Cache<BlobDigest, Arc<ChunkList>, ByBytes>,
}

impl BlobCache {
    /// A cache with these budgets, bytes.
    pub fn new(chunks_bytes: u64, lists_bytes: u64) -> Self {
        let items = |bytes: u64, each: u64| {
            usize::try_from(bytes / each)
                .unwrap_or(1 << 20)
                .clamp(16, 1 << 20)
        };
        Self {
            chunks: Cache::with_weighter(items(chunks_bytes, 16 << 10), chunks_bytes, ByBytes),
            lists: Cache::with_weighter(items(lists_bytes, 1 << 10), lists_bytes, ByBytes),
        }
    }

    /// Bytes held now, for metrics.
    pub fn bytes(&self) -> u64 {
        self.chunks.weight() + self.lists.weight()
    }

    pub(crate) fn chunk(&self, digest: &ChunkDigest) -> Option<Bytes> {
        self.chunks.get(digest)
    }

    pub(crate) async fn chunk_or<E>(
        &self,
        digest: &ChunkDigest,
        fetch: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Bytes, E> {
        self.chunks.get_or_insert_async(digest, fetch).await
    }

    pub(crate) async fn list_or<E>(
        &self,
        digest: &BlobDigest,
        fetch: impl Future<Output = Result<Arc<ChunkList>, E>>,
    ) -> Result<Arc<ChunkList>, E> {
        self.lists.get_or_insert_async(digest, fetch).await
    }
}

/// 64 MiB of chunks, 16 MiB of chunk lists.
impl Default for BlobCache {
    fn default() -> Self {
        Self::new(64 << 20, 16 << 20)
    }
}

impl std::fmt::Debug for BlobCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobCache").field("bytes", &self.bytes()).finish()
    }
}

/// A blob's chunks with their places, so that a read finds its chunks by binary search.
#[derive(Debug)]
pub(crate) struct ChunkList {
    pub(crate) stat: Arc<BlobStat>,
    starts: Vec<u64>,
}

impl ChunkList {
    pub(crate) fn new(stat: Arc<BlobStat>) -> Self {
        let mut at = 0u64;
        let starts = stat
            .chunks
            .iter()
            .map(|(_, size)| {
                let start = at;
                at = at.saturating_add(u64::from(*size));
                start
            })
            .collect();
        Self { stat, starts }
    }

    /// The chunks that `[offset, end)` touches: start in the blob, digest, size.
    pub(crate) fn touched(
        &self,
        offset: u64,
        end: u64,
    ) -> impl Iterator<Item = (u64, ChunkDigest, u32)> + '_ {
        let first = self
            .starts
            .partition_point(|start| *start <= offset)
            .saturating_sub(1);
        self.starts
            .iter()
            .zip(&self.stat.chunks)
            .skip(first)
            .take_while(move |(start, _)| **start < end)
            .map(|(start, (digest, size))| (*start, *digest, *size))
    }
}

#[derive(Clone)]
struct ByBytes;

/// What an entry costs besides its bytes: key, links, allocation; an estimate.
const ENTRY_OVERHEAD: u64 = 128;

impl Weighter<ChunkDigest, Bytes> for ByBytes {
    fn weight(&self, _: &ChunkDigest, chunk: &Bytes) -> u64 {
        ENTRY_OVERHEAD + chunk.len() as u64
    }
}

impl Weighter<BlobDigest, Arc<ChunkList>> for ByBytes {
    fn weight(&self, _: &BlobDigest, list: &Arc<ChunkList>) -> u64 {
        ENTRY_OVERHEAD + list.starts.len() as u64 * 48
    }
}
