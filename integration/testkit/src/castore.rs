//! The promises of `igloo_castore::store`, checked on any backend.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use igloo_castore::chunking::UNCUT_SIZE_MAX;
use igloo_castore::digest::{BlobDigest, DirectoryDigest};
use igloo_castore::directory::Directory;
use igloo_castore::error::ReadBlobError;
use igloo_castore::node::{Node, NodeName};
use igloo_castore::store::{BlobStore, Castore};
use igloo_status::Code;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::tree::{Tree, noise, trees};

/// Random trees that go through a store.
const TREES: usize = 24;

/// Checks everything a content store promises. Each check gets an empty store from `make_store`.
///
/// # Panics
/// A promise is broken.
pub async fn castore_conformance<F: Future<Output = Castore>>(mut make_store: impl FnMut() -> F) {
    the_empty_things_exist_everywhere(&make_store().await).await;
    what_is_not_there_is_missing(&make_store().await).await;
    blobs_of_all_sizes_come_back(&make_store().await).await;
    any_range_can_be_read(&make_store().await).await;
    large_blobs_are_not_put_small(&make_store().await).await;
    an_unfinished_blob_cannot_be_seen(&make_store().await).await;
    wrong_bytes_are_never_data(&make_store().await).await;
    directories_come_back(&make_store().await).await;
    dangling_directories_are_refused(&make_store().await).await;
    many_at_once_do_not_mix(&make_store().await).await;
    trees_come_back(&make_store().await).await;
}

async fn write(store: &dyn BlobStore, bytes: &Bytes, piece: usize) -> BlobDigest {
    let mut writer = store.writer().await.expect("a writer");
    for piece in bytes.chunks(piece) {
        writer.write(bytes.slice_ref(piece)).await.expect("writing");
    }
    let (digest, size) = writer.finish().await.expect("finishing a blob");
    assert_eq!(size, bytes.len() as u64, "a writer knows the size");
    assert_eq!(digest, BlobDigest::of(bytes), "a writer knows the digest");
    digest
}

async fn the_empty_things_exist_everywhere(store: &Castore) {
    let empty = BlobDigest::of(b"");
    let stat = store.blobs.stat(&empty).await.expect("stat of the empty blob");
    let stat = stat.expect("the empty blob exists without being put");
    assert_eq!(
        (stat.size, stat.chunks.len()),
        (0, 0),
        "the empty blob has no chunk"
    );
    let bytes = store
        .blobs
        .read_range(&empty, 0, 10)
        .await
        .expect("reading the empty blob");
    assert!(bytes.is_empty());
    assert_eq!(write(&*store.blobs, &Bytes::new(), 1).await, empty);
    store
        .blobs
        .put_small(vec![(empty, Bytes::new())])
        .await
        .expect("putting the empty blob");
    store.blobs.put_small(Vec::new()).await.expect("putting nothing");
    store.directories.put(Vec::new()).await.expect("putting nothing");
    let directory = store
        .directories
        .get(&Directory::new().digest())
        .await
        .expect("the empty directory");
    assert!(
        directory
            .expect("the empty directory exists without being put")
            .is_empty()
    );
    store.sync().await.expect("sync of an empty store");
}

async fn what_is_not_there_is_missing(store: &Castore) {
    let blob = BlobDigest::of(b"absent");
    assert!(
        store
            .blobs
            .stat(&blob)
            .await
            .expect("stat of an absent blob")
            .is_none()
    );
    let error = store
        .blobs
        .read_range(&blob, 0, 1)
        .await
        .expect_err("an absent blob is no data");
    assert!(
        matches!(&error, ReadBlobError::Missing { digest, .. } if *digest == blob),
        "an absent blob is `Missing`, not {error:?}"
    );
    let directory = DirectoryDigest::of(b"absent");
    assert!(
        store
            .directories
            .get(&directory)
            .await
            .expect("get of an absent directory")
            .is_none()
    );
}

async fn blobs_of_all_sizes_come_back(store: &Castore) {
    for (seed, size) in (0..).zip([1, 2, 1000, UNCUT_SIZE_MAX - 1, UNCUT_SIZE_MAX]) {
        let bytes = noise(size, seed);
        let digest = BlobDigest::of(&bytes);
        store
            .blobs
            .put_small(vec![(digest, bytes.clone())])
            .await
            .expect("putting a small blob");
        check_blob(store, digest, &bytes).await;
        // a second time, and the other way
        store
            .blobs
            .put_small(vec![(digest, bytes.clone())])
            .await
            .expect("putting it again");
        assert_eq!(write(&*store.blobs, &bytes, 777).await, digest);
        check_blob(store, digest, &bytes).await;
    }
    for (seed, size) in (100..).zip([UNCUT_SIZE_MAX + 1, 300_000, (1 << 20) - 1, 1 << 20, 9_000_000]) {
        let bytes = noise(size, seed);
        let digest = write(&*store.blobs, &bytes, 100_000).await;
        check_blob(store, digest, &bytes).await;
        assert_eq!(write(&*store.blobs, &bytes, size).await, digest);
        check_blob(store, digest, &bytes).await;
    }
    store.sync().await.expect("sync");
}

async fn check_blob(store: &Castore, digest: BlobDigest, bytes: &Bytes) {
    let stat = store
        .blobs
        .stat(&digest)
        .await
        .expect("stat")
        .expect("what was put is there");
    assert_eq!(stat.size, bytes.len() as u64, "stat knows the size");
    let sizes: u64 = stat.chunks.iter().map(|(_, size)| u64::from(*size)).sum();
    assert_eq!(sizes, stat.size, "the chunks make up the blob");
    let mut rest = bytes.clone();
    for (chunk, size) in &stat.chunks {
        let part = rest.split_to(usize::try_from(*size).expect("a size"));
        assert!(chunk.matches(&part), "a chunk's digest is that of its bytes");
    }
    let read = store
        .blobs
        .read_range(&digest, 0, bytes.len() + 1)
        .await
        .expect("reading");
    assert!(read == *bytes, "a blob comes back as it was put");
}

async fn any_range_can_be_read(store: &Castore) {
    let bytes = noise(2_500_000, 7);
    let digest = write(&*store.blobs, &bytes, 1 << 20).await;
    let size = bytes.len();
    let edges = [0, 1, 65_535, 65_536, 1_000_000, size - 1, size, size + 1];
    for offset in edges {
        for len in [0, 1, 4096, 70_000, size, usize::MAX] {
            let read = store
                .blobs
                .read_range(&digest, offset as u64, len)
                .await
                .expect("reading a range");
            let start = offset.min(size);
            let expected = &bytes[start..start.saturating_add(len).min(size)];
            assert!(
                read == expected,
                "{len} bytes at {offset} are min(len, size - offset) bytes of the blob"
            );
        }
    }
    let read = store.blobs.read_range(&digest, u64::MAX, usize::MAX).await;
    assert!(
        read.expect("reading far past the end").is_empty(),
        "there is nothing past the end"
    );
}

async fn large_blobs_are_not_put_small(store: &Castore) {
    let bytes = noise(UNCUT_SIZE_MAX + 1, 1);
    let digest = BlobDigest::of(&bytes);
    let error = store
        .blobs
        .put_small(vec![(digest, bytes)])
        .await
        .expect_err("too large for put_small");
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}

async fn an_unfinished_blob_cannot_be_seen(store: &Castore) {
    let bytes = noise(6 << 20, 2);
    let mut writer = store.blobs.writer().await.expect("a writer");
    writer.write(bytes.clone()).await.expect("writing");
    drop(writer);
    let stat = store.blobs.stat(&BlobDigest::of(&bytes)).await.expect("stat");
    assert!(stat.is_none(), "a dropped writer stores nothing that can be seen");
}

/// The caller's word is taken at `put`, or checked there: either way wrong bytes never come out.
async fn wrong_bytes_are_never_data(store: &Castore) {
    let digest = BlobDigest::of(b"right");
    let put = store
        .blobs
        .put_small(vec![(digest, Bytes::from_static(b"wrong"))])
        .await;
    let read = store.blobs.read_range(&digest, 0, 5).await;
    let code = read
        .expect_err("bytes that do not match their digest are no data")
        .code();
    match put {
        Ok(()) => assert_eq!(code, Code::DataLoss, "wrong bytes in the store are `Corrupt`"),
        Err(_) => assert!(matches!(code, Code::NotFound | Code::DataLoss), "{code}"),
    }
}

fn directory(entries: Vec<(&str, Node)>) -> Directory {
    let entries = entries
        .into_iter()
        .map(|(name, node)| (NodeName::try_from(name).expect("a name"), node));
    Directory::from_entries(entries.collect()).expect("a directory")
}

fn file(size: u64) -> Node {
    Node::File {
        digest: BlobDigest::of(&size.to_le_bytes()),
        size,
        executable: false,
    }
}

async fn directories_come_back(store: &Castore) {
    let inner = directory(vec![("a", file(1)), ("b", Directory::new().node())]);
    let outer = directory(vec![("inner", inner.node()), ("z", file(2))]);
    let top = directory(vec![("outer", outer.node()), ("inner", inner.node())]);
    // children before parents, in one call and in several
    store
        .directories
        .put(vec![inner.clone(), outer.clone()])
        .await
        .expect("putting directories");
    store
        .directories
        .put(vec![top.clone()])
        .await
        .expect("putting their parent");
    store
        .directories
        .put(vec![inner.clone(), outer.clone(), top.clone()])
        .await
        .expect("putting them again");
    for directory in [inner, outer, top] {
        let found = store
            .directories
            .get(&directory.digest())
            .await
            .expect("get")
            .expect("it was put");
        assert_eq!(*found, directory, "a directory comes back as it was put");
    }
    store.sync().await.expect("sync");
}

async fn dangling_directories_are_refused(store: &Castore) {
    let child = directory(vec![("a", file(1))]);
    let parent = directory(vec![("child", child.node())]);
    let error = store
        .directories
        .put(vec![parent.clone()])
        .await
        .expect_err("a child that is not there");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(
        store
            .directories
            .get(&parent.digest())
            .await
            .expect("get")
            .is_none(),
        "nothing was stored"
    );
    store
        .directories
        .put(vec![child.clone()])
        .await
        .expect("putting the child");
    let lie = Node::Directory {
        digest: child.digest(),
        size: child.size() + 1,
    };
    let error = store
        .directories
        .put(vec![directory(vec![("child", lie)])])
        .await
        .expect_err("a wrong size");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    store
        .directories
        .put(vec![parent])
        .await
        .expect("putting the parent after the child");
}

async fn many_at_once_do_not_mix(store: &Castore) {
    let store = Arc::new(store.clone());
    let work = (0..16).map(|seed| {
        let store = Arc::clone(&store);
        async move {
            // half of them the same
            let bytes = noise(400_000 + usize::try_from(seed % 8).expect("small"), seed % 8);
            let digest = write(&*store.blobs, &bytes, 50_000).await;
            store.sync().await.expect("sync");
            check_blob(&store, digest, &bytes).await;
        }
    });
    join_all(work).await;
}

/// Ingest and export of random trees are the identity; the seed is fixed, so a failure comes again.
async fn trees_come_back(store: &Castore) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for _ in 0..TREES {
        let tree = trees().new_tree(&mut runner).expect("a tree").current();
        let root = tree.ingest(store).await.expect("ingest");
        store.sync().await.expect("sync");
        let again = Tree::export(store, root).await.expect("export");
        assert!(again == tree, "a tree comes back as it went in: {tree:?}");
    }
}
