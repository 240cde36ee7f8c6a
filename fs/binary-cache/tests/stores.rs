//! Another store as a substituter: what is copied, and what a lying store cannot do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use common::{add, bytes, chain, key, path, paths, registered, trust};
use igloo_binary_cache::{
    FetchError, LookUpError, Refusal, StoreSubstituter, SubstituteError, SubstituteOptions, Substituter,
    Substituters, Trust,
};
use igloo_castore::digest::BlobDigest;
use igloo_castore::error::{ReadBlobError, WriteError};
use igloo_castore::node::Node;
use igloo_castore::store::{BlobStat, BlobStore, BlobWriter};
use igloo_status::Code;
use igloo_store::{PathInfo, Store};
use igloo_testkit::faults::faulty;
use nix_compat::narinfo::fingerprint;
use nix_compat::store_path::StoreDir;

/// Counts the bytes read.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn BlobStore>,
    read: Arc<AtomicUsize>,
}

#[async_trait]
impl BlobStore for Counting {
    async fn stat(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError> {
        self.inner.stat(digest).await
    }

    async fn read_range(&self, digest: &BlobDigest, offset: u64, len: usize) -> Result<Bytes, ReadBlobError> {
        let bytes = self.inner.read_range(digest, offset, len).await?;
        self.read.fetch_add(bytes.len(), Ordering::SeqCst);
        Ok(bytes)
    }

    async fn put_small(&self, blobs: Vec<(BlobDigest, Bytes)>) -> Result<(), WriteError> {
        self.inner.put_small(blobs).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, WriteError> {
        self.inner.writer().await
    }

    async fn sync(&self) -> Result<(), WriteError> {
        self.inner.sync().await
    }
}

fn signed(mut info: PathInfo) -> PathInfo {
    let dir = StoreDir::default();
    let text = fingerprint(
        &dir,
        &info.path,
        &info.nar_sha256,
        info.nar_size,
        &info.references,
    );
    info.signatures = vec![key().sign(text.as_bytes())];
    info
}

/// A store with `app -> base`, signed, and a counter of what is read from it.
async fn peer() -> (Store, Arc<AtomicUsize>) {
    let made = Store::memory(StoreDir::default());
    let base = add(&made, "base", bytes(300_000, 1), &[]).await;
    let app = add(&made, "app", bytes(5_000, 2), &["base", "app"]).await;
    let mut peer = Store::memory(StoreDir::default());
    peer.castore = made.castore;
    peer.register(vec![signed(base), signed(app)]).await.unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    peer.castore.blobs = Arc::new(Counting {
        inner: peer.castore.blobs.clone(),
        read: read.clone(),
    });
    (peer, read)
}

fn substituter(peer: &Store, trust: Trust) -> Arc<StoreSubstituter> {
    Arc::new(StoreSubstituter::new("peer".into(), peer.clone(), trust, 10))
}

async fn substitute(peer: &Store, trust: Trust, store: &Store, name: &str) -> Result<(), SubstituteError> {
    let sources: Vec<Arc<dyn Substituter>> = vec![substituter(peer, trust)];
    let all = Substituters::new(sources, store.clone(), SubstituteOptions::default());
    let mut answer = all.substitute(&[path(name)], &()).await?;
    answer.failed.remove(&path(name)).map_or(Ok(()), Err)
}

#[tokio::test]
async fn only_what_is_missing_is_copied() {
    for trust in [trust(), Trust::Anyone] {
        let (peer, read) = peer().await;
        let store = Store::memory(StoreDir::default());
        // the same file under another name is here already
        add(&store, "other", bytes(300_000, 1), &[]).await;
        substitute(&peer, trust, &store, "app").await.unwrap();
        assert_eq!(registered(&store).await, paths(&["app", "base", "other"]));
        assert_eq!(read.load(Ordering::SeqCst), 5_000);
        let ours = store.path_infos.get(&path("app")).await.unwrap();
        assert_eq!(ours, peer.path_infos.get(&path("app")).await.unwrap());
    }
}

#[tokio::test]
async fn a_directory_without_its_files_is_filled() {
    let (peer, _) = peer().await;
    let store = Store::memory(StoreDir::default());
    // what an ingest that was cut short leaves behind
    let info = peer.path_infos.get(&path("base")).await.unwrap().unwrap();
    let Node::Directory { digest, .. } = info.node else {
        panic!()
    };
    let directory = peer.castore.directories.get(&digest).await.unwrap().unwrap();
    store
        .castore
        .directories
        .put(vec![(*directory).clone()])
        .await
        .unwrap();
    substitute(&peer, trust(), &store, "base").await.unwrap();
    assert_eq!(registered(&store).await, paths(&["base"]));
}

#[tokio::test]
async fn another_tree_under_a_signed_record_is_found_out() {
    let (peer, _) = peer().await;
    let mut info = peer.path_infos.get(&path("base")).await.unwrap().unwrap();
    let other = peer.path_infos.get(&path("app")).await.unwrap().unwrap();
    info.node = other.node;
    let mut lying = Store::memory(StoreDir::default());
    lying.castore = peer.castore.clone();
    lying.register(vec![info]).await.unwrap();
    let store = Store::memory(StoreDir::default());
    let error = substitute(&lying, trust(), &store, "base").await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert!(
        chain(&error).contains("is not the one declared"),
        "{}",
        chain(&error)
    );
    assert!(registered(&store).await.is_empty());
}

#[tokio::test]
async fn a_record_without_a_signature_is_refused() {
    let (peer, _) = peer().await;
    let unsigned = Store::memory(StoreDir::default());
    add(&unsigned, "base", vec![1], &[]).await;
    let error = substituter(&unsigned, trust())
        .look_up(&path("base"))
        .await
        .unwrap_err();
    let LookUpError::Refused(refusal) = error else {
        panic!("{error:?}")
    };
    assert!(matches!(&*refusal, Refusal::Untrusted { url, .. } if url == "peer"));
    let none = substituter(&peer, trust()).look_up(&path("x")).await.unwrap();
    assert!(none.is_none());
}

#[tokio::test]
async fn faults_of_the_other_store_are_typed_and_register_nothing() {
    for case in 0..4 {
        let (mut peer, _) = peer().await;
        let (castore, faults) = faulty(peer.castore);
        peer.castore = castore;
        let info = peer.path_infos.get(&path("base")).await.unwrap().unwrap();
        let Node::Directory { digest, .. } = &info.node else {
            panic!()
        };
        let directory = peer.castore.directories.get(digest).await.unwrap().unwrap();
        let Node::File { digest: file, .. } = &directory.entries()[0].1 else {
            panic!()
        };
        match case {
            0 => faults.lose(digest.as_bytes()),
            1 => faults.lose(file.as_bytes()),
            2 => faults.corrupt(file.as_bytes()),
            _ => faults.corrupt(digest.as_bytes()),
        }
        let store = Store::memory(StoreDir::default());
        let substituter = substituter(&peer, trust());
        let offer = substituter.look_up(&path("base")).await.unwrap().unwrap();
        let error = substituter.fetch(&offer, &store, &()).await.unwrap_err();
        let right = match case {
            1 | 2 => matches!(error, FetchError::Blob { .. }),
            _ => matches!(error, FetchError::Directory { .. }),
        };
        assert!(right, "{case}: {error:?}");
        assert!(registered(&store).await.is_empty());
    }
}

#[tokio::test]
async fn a_full_disk_of_ours_is_not_the_fault_of_the_source() {
    let (peer, _) = peer().await;
    let mut store = Store::memory(StoreDir::default());
    let (castore, faults) = faulty(store.castore);
    store.castore = castore;
    faults.fill_disk(true);
    let error = substitute(&peer, trust(), &store, "base").await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{}", chain(&error));
    assert!(registered(&store).await.is_empty());
    faults.heal();
    substitute(&peer, trust(), &store, "app").await.unwrap();
}

#[tokio::test]
async fn a_tree_larger_than_its_nar_is_not_copied() {
    let (peer, read) = peer().await;
    let info = peer.path_infos.get(&path("base")).await.unwrap().unwrap();
    let mut lying = Store::memory(StoreDir::default());
    lying.castore = peer.castore.clone();
    let info = signed(PathInfo {
        nar_size: 1000,
        ..info
    });
    lying.register(vec![info]).await.unwrap();
    let store = Store::memory(StoreDir::default());
    let error = substitute(&lying, trust(), &store, "base").await.unwrap_err();
    assert!(
        chain(&error).contains("larger than the 1000 bytes"),
        "{}",
        chain(&error)
    );
    assert_eq!(read.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_store_of_another_directory_is_not_copied_from() {
    let (peer, _) = peer().await;
    let store = Store::memory(StoreDir::new("/other/store").unwrap());
    let substituter = substituter(&peer, trust());
    let offer = substituter.look_up(&path("base")).await.unwrap().unwrap();
    let error = substituter.fetch(&offer, &store, &()).await.unwrap_err();
    assert!(matches!(error, FetchError::StoreDir { .. }), "{error:?}");
}
