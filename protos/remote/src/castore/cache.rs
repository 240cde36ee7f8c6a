//! Checked pieces of blobs, what is proven of blobs, and directories, each within a budget of bytes.
//!
//! Invariants
//! - only checked content enters, so stores may share a cache: names are digests, not places;
//! - a budget is never exceeded by more than the item going in; an item over its whole budget is not kept;
//! - readers of one absent item wait for one fetch; when it fails, the next of them tries for itself.

use std::sync::Arc;

use bytes::Bytes;
use igloo_castore::digest::{BlobDigest, ChunkDigest, DirectoryDigest};
use igloo_castore::directory::Directory;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::outline::Outline;

/// What was fetched and checked.
pub struct ContentCache {
    pub(super) pieces: Cache<PieceKey, Bytes, ByBytes>,
    pub(super) layouts: Cache<BlobDigest, Arc<Layout>, ByBytes>,
    pub(super) directories: Cache<DirectoryDigest, Arc<Directory>, ByBytes>,
}

impl ContentCache {
    /// A cache with these budgets, bytes: for pieces of blobs, and for directories. What is proven of blobs may take a
    /// quarter of the first.
    pub fn new(blob_bytes: u64, directory_bytes: u64) -> Self {
        let items = |bytes: u64, each: u64| {
            let items = usize::try_from(bytes / each).unwrap_or(usize::MAX);
            items.clamp(16, 1 << 20)
        };
        Self {
            pieces: Cache::with_weighter(items(blob_bytes, 32 << 10), blob_bytes, ByBytes),
            layouts: Cache::with_weighter(items(blob_bytes / 4, 512), blob_bytes / 4, ByBytes),
            directories: Cache::with_weighter(items(directory_bytes, 1 << 10), directory_bytes, ByBytes),
        }
    }

    /// Bytes held now, for metrics.
    pub fn bytes(&self) -> u64 {
        self.pieces.weight() + self.layouts.weight() + self.directories.weight()
    }
}

/// 64 MiB of blobs, 32 MiB of directories.
impl Default for ContentCache {
    fn default() -> Self {
        Self::new(64 << 20, 32 << 20)
    }
}

impl std::fmt::Debug for ContentCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentCache")
            .field("bytes", &self.bytes())
            .finish()
    }
}

/// Names a piece by its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PieceKey {
    /// A chunk, or a whole blob, by its digest.
    Chunk(ChunkDigest),
    /// A group of a blob's bytes, by its value in the outline.
    Group([u8; 32]),
}

/// What is proven of a blob.
#[derive(Debug)]
pub(super) enum Layout {
    /// Small: one piece, the blob itself.
    Whole {
        /// Bytes.
        size: u64,
    },
    /// Groups can be checked by themselves.
    Groups(Outline),
    /// Made of these chunks: start, digest; all sizes were counted.
    Chunks {
        /// Ascending by start.
        chunks: Vec<(u64, ChunkDigest)>,
        /// Bytes.
        size: u64,
    },
    /// In one piece that is too large to keep.
    Unsplit {
        /// Bytes.
        size: u64,
    },
}

impl Layout {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Whole { size } | Self::Chunks { size, .. } | Self::Unsplit { size } => *size,
            Self::Groups(outline) => outline.size(),
        }
    }
}

#[derive(Clone)]
pub(super) struct ByBytes;

/// What an entry costs besides its bytes: key, links, allocation; an estimate.
const ENTRY_OVERHEAD: u64 = 128;

impl Weighter<PieceKey, Bytes> for ByBytes {
    fn weight(&self, _: &PieceKey, piece: &Bytes) -> u64 {
        ENTRY_OVERHEAD + piece.len() as u64
    }
}

impl Weighter<BlobDigest, Arc<Layout>> for ByBytes {
    fn weight(&self, _: &BlobDigest, layout: &Arc<Layout>) -> u64 {
        ENTRY_OVERHEAD
            + match &**layout {
                Layout::Whole { .. } | Layout::Unsplit { .. } => 0,
                Layout::Groups(outline) => outline.values().len() as u64,
                Layout::Chunks { chunks, .. } => chunks.len() as u64 * 40,
            }
    }
}

impl Weighter<DirectoryDigest, Arc<Directory>> for ByBytes {
    fn weight(&self, _: &DirectoryDigest, directory: &Arc<Directory>) -> u64 {
        // a name, a node with a digest, and the bytes of the message they share
        ENTRY_OVERHEAD + directory.len() as u64 * 192
    }
}
