//! Damage and failure are answered with typed errors that name what is wrong, never with wrong bytes.

use std::sync::Arc;

use bytes::Bytes;
use igloo_castore::cache::BlobCache;
use igloo_castore::chunked::ChunkedBlobStore;
use igloo_castore::error::ReadBlobError;
use igloo_castore::ingest::{IngestLimits, PathOptions, TreeIngest, ingest_path, put_blob};
use igloo_castore::memory::{self, MemoryBlobIndex, MemoryChunkStore};
use igloo_castore::store::{BlobStore, StoreName};
use igloo_status::Code;
use igloo_testkit::faults::{Faults, FaultyChunkStore, faulty};
use igloo_testkit::tree::{Tree, noise};

#[tokio::test]
async fn a_lost_or_damaged_chunk_hits_only_the_reads_that_touch_it() {
    let faults = Faults::default();
    let chunks = FaultyChunkStore::new(MemoryChunkStore::new(StoreName::from("chunks")), faults.clone());
    let cache = Arc::new(BlobCache::new(0, 1 << 20));
    let store = ChunkedBlobStore::new(
        StoreName::from("blobs"),
        MemoryBlobIndex::default(),
        chunks,
        cache,
    );
    let bytes = noise(3 << 20, 1);
    let mut writer = store.writer().await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    let (digest, _) = writer.finish().await.unwrap();
    let stat = store.stat(&digest).await.unwrap().unwrap();
    let second = u64::from(stat.chunks[0].1);
    faults.lose(stat.chunks[1].0.as_bytes());
    let error = store.read_range(&digest, second, 1).await.unwrap_err();
    assert!(matches!(error, ReadBlobError::MissingChunk { offset, .. } if offset == second));
    assert_eq!(store.read_range(&digest, 0, 10).await.unwrap(), bytes[..10]);
    faults.heal();
    faults.corrupt(stat.chunks[1].0.as_bytes());
    assert_eq!(
        store.read_range(&digest, second - 1, 2).await.unwrap_err().code(),
        Code::DataLoss
    );
    faults.heal();
    assert_eq!(store.read_range(&digest, 0, bytes.len()).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_full_disk_ends_an_ingest_and_nothing_else() {
    let (castore, faults) = faulty(memory::castore("memory"));
    let (kept, _) = put_blob(&castore, noise(100, 1)).await.unwrap();
    faults.fill_disk(true);
    let tree = Tree::File(noise(200_000, 2), false);
    assert_eq!(
        tree.ingest(&castore).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("file"), b"text").unwrap();
    let error = ingest_path(&castore, tmp.path(), &PathOptions::default(), ())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(
        castore.blobs.read_range(&kept, 0, 100).await.unwrap(),
        noise(100, 1)
    );
    faults.heal();
    tree.ingest(&castore).await.unwrap();
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_unavailable() {
    let (castore, faults) = faulty(memory::castore("memory"));
    let root = Tree::File(noise(10, 1), false).ingest(&castore).await.unwrap();
    faults.disconnect(true);
    assert_eq!(
        Tree::export(&castore, root).await.unwrap_err().code(),
        Code::Unavailable
    );
    let mut ingest = TreeIngest::new(castore.clone(), IngestLimits::default(), ());
    let event = Tree::File(Bytes::from_static(b"x"), false)
        .events(1)
        .swap_remove(0);
    ingest.event(event).await.unwrap(); // nothing to store yet
    assert_eq!(castore.sync().await.unwrap_err().code(), Code::Unavailable);
}
