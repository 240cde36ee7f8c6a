use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::error::BackendError;
use crate::memory::{MemoryBlobIndex, MemoryChunkStore};

/// Counts the chunks fetched, and can hold every fetch back for a while.
#[derive(Debug)]
struct Counting {
    chunks: MemoryChunkStore,
    fetched: AtomicUsize,
}

#[async_trait]
impl ChunkStore for Counting {
    async fn contains(&self, digests: &[ChunkDigest]) -> Result<Vec<bool>, BackendError> {
        self.chunks.contains(digests).await
    }
    async fn get(&self, digest: &ChunkDigest) -> Result<Option<Bytes>, ReadBlobError> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        self.chunks.get(digest).await
    }
    async fn put(&self, chunks: Vec<(ChunkDigest, Bytes)>) -> Result<(), WriteError> {
        self.chunks.put(chunks).await
    }
    async fn sync(&self) -> Result<(), WriteError> {
        Ok(())
    }
}

type Store = ChunkedBlobStore<MemoryBlobIndex, Counting>;

fn store(cache_bytes: u64) -> Store {
    let name = StoreName::from("test");
    let chunks = Counting {
        chunks: MemoryChunkStore::new(name.clone()),
        fetched: AtomicUsize::new(0),
    };
    ChunkedBlobStore::new(
        name,
        MemoryBlobIndex::default(),
        chunks,
        Arc::new(BlobCache::new(cache_bytes, 1 << 20)),
    )
}

fn fetched(store: &Store) -> usize {
    store.chunks().fetched.swap(0, Ordering::Relaxed)
}

fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new()
        .update(b"noise")
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

async fn put(store: &Store, bytes: &[u8], piece: usize) -> BlobDigest {
    let mut writer = store.writer().await.unwrap();
    for piece in bytes.chunks(piece) {
        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let (digest, size) = writer.finish().await.unwrap();
    assert_eq!(size, bytes.len() as u64);
    assert_eq!(digest, BlobDigest::of(bytes));
    digest
}

#[test]
fn the_empty_digest_is_right() {
    assert_eq!(empty(), BlobDigest::of(b""));
}

/// A read touches the chunks under it and no others; the second one none, thanks to the cache.
#[tokio::test]
async fn a_read_fetches_only_what_it_touches() {
    let store = store(64 << 20);
    let bytes = noise(20 << 20);
    let digest = put(&store, &bytes, 70_000).await;
    let stat = store.stat(&digest).await.unwrap().unwrap();
    assert!(stat.chunks.len() > 100);
    assert_eq!(fetched(&store), 0);
    let first = stat.chunks[0].1 as usize;
    assert_eq!(store.read_range(&digest, 0, first).await.unwrap(), bytes[..first]);
    assert_eq!(fetched(&store), 1);
    let across = store.read_range(&digest, first as u64 - 1, 2).await.unwrap();
    assert_eq!(across, bytes[first - 1..=first]);
    assert_eq!(fetched(&store), 1);
}

/// Twenty readers of one chunk cause one fetch.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_chunk_share_a_fetch() {
    let store = store(64 << 20);
    let digest = put(&store, &noise(1 << 20), 1 << 20).await;
    let reads = (0..20).map(|_| store.read_range(&digest, 10, 10));
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.unwrap().len(), 10);
    }
    assert_eq!(fetched(&store), 1);
}

/// The cache keeps to its budget.
#[tokio::test]
async fn the_cache_is_bounded() {
    let store = store(1 << 20);
    let bytes = noise(16 << 20);
    let digest = put(&store, &bytes, 1 << 20).await;
    assert_eq!(store.read_range(&digest, 0, bytes.len()).await.unwrap(), bytes);
    let held = store.shared.cache.bytes();
    assert!((1..=(1 << 20) + (1 << 18)).contains(&held), "{held}");
}

#[tokio::test]
async fn a_missing_chunk_is_named() {
    let store = store(0);
    let digest = BlobDigest::of(b"listed");
    let chunk = ChunkDigest::of(b"lost");
    let stat = BlobStat {
        size: 9,
        chunks: vec![(chunk, 4), (chunk, 5)],
    };
    store
        .shared
        .index
        .put(vec![(digest, Arc::new(stat))])
        .await
        .unwrap();
    assert!(matches!(
        store.read_range(&digest, 5, 1).await,
        Err(ReadBlobError::MissingChunk { offset: 4, .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any range of any blob is the same range of its bytes, however it was written.
    #[test]
    fn ranges_agree_with_slices(size in 0usize..3_000_000, piece in 1usize..2_000_000, ranges in prop::collection::vec((0u64..3_100_000, 0usize..3_100_000), 1..6)) {
        futures::executor::block_on(async {
            let store = store(300 << 10);
            let bytes = noise(size);
            let digest = put(&store, &bytes, piece).await;
            for (offset, len) in ranges {
                let from = usize::try_from(offset).unwrap().min(size);
                let expected = &bytes[from..from.saturating_add(len).min(size)];
                assert_eq!(store.read_range(&digest, offset, len).await.unwrap(), expected);
            }
            assert_eq!(store.read_range(&digest, u64::MAX, usize::MAX).await.unwrap(), b""[..]);
        });
    }
}
