//! A client and a server of ours on a unix socket: what goes in comes out, whatever way it is read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{CountingBlobs, Service, blob, castore, serve};
use igloo_castore::digest::{BlobDigest, DirectoryDigest};
use igloo_castore::directory::Directory;
use igloo_castore::error::{ReadBlobError, WriteError};
use igloo_castore::node::{Node, NodeName};
use igloo_castore::store::Castore;
use igloo_remote::{ChunkLists, Connection, ContentCache, castore as remote};

async fn connect(service: &Service, cache: ContentCache) -> Castore {
    remote::open(&service.url, Arc::new(cache)).await.unwrap()
}

async fn put(castore: &Castore, bytes: &[u8]) -> BlobDigest {
    let mut writer = castore.blobs.writer().await.unwrap();
    for piece in bytes.chunks(100_000) {
        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let (digest, size) = writer.finish().await.unwrap();
    assert_eq!((digest, size), (BlobDigest::of(bytes), bytes.len() as u64));
    digest
}

/// Every way a blob can be cut: below and at the sizes where the protocol changes, and far above.
const SIZES: [usize; 8] = [0, 1, 65_537, 262_144, 262_145, 1_000_000, 5 << 20, 13_000_001];

async fn check_ranges(castore: &Castore, digest: &BlobDigest, bytes: &[u8]) {
    let size = bytes.len();
    for (start, len) in [
        (0, size),
        (0, usize::MAX),
        (size / 2, 4096),
        (size.saturating_sub(3), 10),
        (size, 1),
        (262_143, 2),
        (size / 3, size / 2),
    ] {
        let read = castore.blobs.read_range(digest, start as u64, len).await.unwrap();
        let start = start.min(size);
        assert!(
            read == bytes[start..start.saturating_add(len).min(size)],
            "{size} {start} {len}"
        );
    }
    let past = castore
        .blobs
        .read_range(digest, u64::MAX, usize::MAX)
        .await
        .unwrap();
    assert!(past.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_all_sizes_come_back_by_all_ways() {
    let local = castore();
    for igloo in [true, false] {
        for lists in [ChunkLists::Told, ChunkLists::Hidden] {
            let service = serve(&local, lists, igloo).await;
            let client = connect(&service, ContentCache::default()).await;
            for size in SIZES {
                let bytes = blob(size, size as u64);
                let digest = put(&client, &bytes).await;
                check_ranges(&client, &digest, &bytes).await;
                let stat = client.blobs.stat(&digest).await.unwrap().unwrap();
                assert_eq!(stat.size, size as u64);
                assert_eq!(
                    stat.chunks.iter().map(|(_, size)| u64::from(*size)).sum::<u64>(),
                    size as u64
                );
            }
            client.sync().await.unwrap();
        }
    }
}

/// A cache too small for anything still gives right answers.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_depends_on_the_cache() {
    let local = castore();
    let bytes = blob(6 << 20, 3);
    let digest = put(&local, &bytes).await;
    for igloo in [true, false] {
        let service = serve(&local, ChunkLists::Told, igloo).await;
        let client = connect(&service, ContentCache::new(0, 0)).await;
        check_ranges(&client, &digest, &bytes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_blobs_travel_in_batches() {
    let local = castore();
    for igloo in [true, false] {
        let service = serve(&local, ChunkLists::Told, igloo).await;
        let client = connect(&service, ContentCache::default()).await;
        let blobs: Vec<_> = (0..300)
            .map(|seed| blob(usize::try_from(seed).unwrap() * 200, seed))
            .collect();
        let named = blobs
            .iter()
            .map(|bytes| (BlobDigest::of(bytes), Bytes::copy_from_slice(bytes)));
        client.blobs.put_small(named.collect()).await.unwrap();
        for bytes in &blobs {
            let read = local
                .blobs
                .read_range(&BlobDigest::of(bytes), 0, usize::MAX)
                .await
                .unwrap();
            assert_eq!(read, bytes);
        }
        let large = vec![(BlobDigest::of(b""), Bytes::from(vec![0; 1 << 20]))];
        let error = client.blobs.put_small(large).await.unwrap_err();
        assert!(matches!(error, WriteError::TooLarge { .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_absent_is_missing() {
    for igloo in [true, false] {
        let service = serve(&castore(), ChunkLists::Told, igloo).await;
        let client = connect(&service, ContentCache::default()).await;
        let digest = BlobDigest::of(b"nowhere");
        assert!(client.blobs.stat(&digest).await.unwrap().is_none());
        let error = client.blobs.read_range(&digest, 0, 1).await.unwrap_err();
        assert!(matches!(error, ReadBlobError::Missing { .. }), "{error:?}");
        let absent = client
            .directories
            .get(&DirectoryDigest::of(b"nowhere"))
            .await
            .unwrap();
        assert!(absent.is_none());
        let empty = client.directories.get(&DirectoryDigest::of(b"")).await.unwrap();
        assert!(empty.unwrap().is_empty());
        assert_eq!(
            client
                .blobs
                .stat(&BlobDigest::of(b""))
                .await
                .unwrap()
                .unwrap()
                .size,
            0
        );
    }
}

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

/// Directories of a tree that share subtrees, children first.
fn tree() -> Vec<Directory> {
    let file = Node::File {
        digest: BlobDigest::of(b"f"),
        size: 1,
        executable: false,
    };
    let leaf = Directory::from_entries(vec![(name("f"), file)]).unwrap();
    let middle = Directory::from_entries(vec![(name("x"), leaf.node()), (name("y"), leaf.node())]).unwrap();
    let root = Directory::from_entries(vec![(name("a"), middle.node()), (name("b"), leaf.node())]).unwrap();
    vec![leaf, middle, root]
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_come_back() {
    for igloo in [true, false] {
        let local = castore();
        let service = serve(&local, ChunkLists::Told, igloo).await;
        let client = connect(&service, ContentCache::default()).await;
        let [leaf, middle, root] = tree().try_into().unwrap();
        // in one batch, and in batches that refer to earlier ones
        client
            .directories
            .put(vec![leaf.clone(), middle.clone()])
            .await
            .unwrap();
        client.directories.put(vec![root.clone()]).await.unwrap();
        for directory in [&leaf, &middle, &root] {
            let stored = local.directories.get(&directory.digest()).await.unwrap();
            assert_eq!(stored.as_deref(), Some(directory));
            let read = client.directories.get(&directory.digest()).await.unwrap();
            assert_eq!(read.as_deref(), Some(directory));
        }
    }
}

/// Children before parents, sizes as they are: each refusal names its reason, and nothing that dangles is stored.
#[tokio::test(flavor = "multi_thread")]
async fn directories_that_dangle_are_refused() {
    for igloo in [true, false] {
        let local = castore();
        let service = serve(&local, ChunkLists::Told, igloo).await;
        let client = connect(&service, ContentCache::default()).await;
        let [leaf, middle, _] = tree().try_into().unwrap();
        let error = client.directories.put(vec![middle.clone()]).await.unwrap_err();
        assert!(
            matches!(error, WriteError::Dangling { child } if child == leaf.digest()),
            "{error:?}"
        );
        assert!(local.directories.get(&middle.digest()).await.unwrap().is_none());
        let wrong = Node::Directory {
            digest: leaf.digest(),
            size: leaf.size() + 1,
        };
        let wrong = Directory::from_entries(vec![(name("w"), wrong)]).unwrap();
        let error = client
            .directories
            .put(vec![leaf.clone(), wrong.clone()])
            .await
            .unwrap_err();
        assert!(
            matches!(error, WriteError::Dangling { child } if child == leaf.digest()),
            "{error:?}"
        );
        assert!(local.directories.get(&wrong.digest()).await.unwrap().is_none());
    }
}

/// Promise: a mount or a build over gRPC fetches nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_twice() {
    let local = castore();
    let bytes = blob(8 << 20, 9);
    let digest = put(&local, &bytes).await;
    let counting = Arc::new(CountingBlobs::new(Arc::clone(&local.blobs)));
    let counted = Castore {
        blobs: Arc::clone(&counting) as _,
        directories: local.directories,
    };
    for (igloo, part_max) in [(true, 1 << 18), (false, 8 << 20)] {
        let service = serve(&counted, ChunkLists::Told, igloo).await;
        let client = connect(&service, ContentCache::default()).await;
        client.blobs.read_range(&digest, 0, 1).await.unwrap();
        let before = counting.bytes();
        let reads = (0..20).map(|_| client.blobs.read_range(&digest, 3 << 20, 4096));
        futures::future::try_join_all(reads).await.unwrap();
        assert!(
            counting.bytes() - before <= part_max,
            "{}",
            counting.bytes() - before
        );
        client.blobs.read_range(&digest, 0, usize::MAX).await.unwrap();
        let all = counting.bytes();
        client.blobs.read_range(&digest, 0, usize::MAX).await.unwrap();
        assert_eq!(counting.bytes(), all);
    }
}

/// A writer that is dropped leaves nothing, and the server's writer goes with it.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_blob_is_never_stored() {
    let local = castore();
    let service = serve(&local, ChunkLists::Told, true).await;
    let client = connect(&service, ContentCache::default()).await;
    let bytes = Bytes::from(blob(700_000, 1));
    let mut writer = client.blobs.writer().await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    drop(writer);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(local.blobs.stat(&BlobDigest::of(&bytes)).await.unwrap().is_none());
    assert!(
        local
            .blobs
            .stat(&BlobDigest::of(&bytes[..524_288]))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn who_connects_to_nothing_is_told_what_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("grpc+unix://{}/absent", dir.path().display());
    let error = Connection::open(&url).await.unwrap_err();
    assert!(error.to_string().contains(&url), "{error}");
    assert!(error.to_string().contains("igloo store daemon"), "{error}");
    let error = Connection::open("grpc+http://127.0.0.1:9").await.unwrap_err();
    assert_eq!(error.code(), igloo_status::Code::Unavailable);
    assert!(
        matches!(error, igloo_remote::connect::ConnectError::NothingListens { .. }),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_offered_is_named() {
    let service = serve(&castore(), ChunkLists::Told, true).await;
    let connection = Connection::open(&service.url).await.unwrap();
    connection.check("snix.castore.v1.BlobService").await.unwrap();
    let error = connection.check("igloo.build.v1.BuildService").await.unwrap_err();
    assert!(
        matches!(error, igloo_remote::connect::ConnectError::NotServed { .. }),
        "{error:?}"
    );
}

/// A server that comes back is used again by the same client, without anybody noticing but the clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_is_found_again() {
    let local = castore();
    let bytes = blob(1000, 1);
    let digest = put(&local, &bytes).await;
    let service = serve(&local, ChunkLists::Told, true).await;
    let client = connect(&service, ContentCache::new(0, 0)).await;
    assert_eq!(client.blobs.read_range(&digest, 0, 1000).await.unwrap(), bytes);
    let service = service.restart(&local).await;
    assert_eq!(client.blobs.read_range(&digest, 0, 1000).await.unwrap(), bytes);
    drop(service);
}
