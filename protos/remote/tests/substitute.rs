//! A served store as a substituter: what crosses the wire, and what a lying, breaking or slow peer cannot do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::{CountingBlobs, Service, Wire, blob};
use futures::stream::{BoxStream, TryStreamExt as _};
use igloo_binary_cache::{
    LookUpError, StoreSubstituter, SubstituteError, SubstituteOptions, Substituter, Substituters, Trust,
};
use igloo_castore::ingest::{IngestLimits, TreeIngest};
use igloo_castore::node::Node;
use igloo_castore::tree::TreeEvent;
use igloo_remote::{Admission, ChunkLists, ContentCache, Services, path_info};
use igloo_status::Code;
use igloo_store::nar::{NarObserver, NarStream};
use igloo_store::path_info::{PathInfoStore, ReadPathInfoError, RegisterError};
use igloo_store::{PathInfo, Store};
use igloo_testkit::faults::faulty;
use nix_compat::narinfo::fingerprint;
use nix_compat::signature::SecretKey;
use nix_compat::store_path::{StoreDir, StorePath, StorePathName};

const BASE_SIZE: usize = 3 << 20;

fn key() -> SecretKey {
    SecretKey::from_seed("test-1", &[7; 32]).unwrap()
}

fn trust() -> Trust {
    Trust::Keys(vec![key().public_key()])
}

fn path(name: &str) -> StorePath {
    let digest = nix_compat::hash::sha256(name.as_bytes());
    let name = StorePathName::new(name).unwrap();
    StorePath::new(digest[..20].try_into().unwrap(), name)
}

/// Puts a directory with these files into a store under a signed path.
async fn add(store: &Store, name: &str, files: &[(&str, Vec<u8>)], references: &[&str]) -> PathInfo {
    let mut ingest = TreeIngest::new(store.castore.clone(), IngestLimits::default(), NarObserver::new());
    ingest
        .event(TreeEvent::DirectoryBegin { name: None })
        .await
        .unwrap();
    for (name, content) in files {
        let begin = TreeEvent::FileBegin {
            name: Some(name.as_bytes().try_into().unwrap()),
            executable: true,
            size: content.len() as u64,
        };
        ingest.event(begin).await.unwrap();
        ingest
            .event(TreeEvent::FileData(content.clone().into()))
            .await
            .unwrap();
    }
    ingest.event(TreeEvent::DirectoryEnd).await.unwrap();
    let ingested = ingest.finish().await.unwrap();
    let digest = ingested.observer.finish().unwrap().digest;
    let info = signed(PathInfo {
        path: path(name),
        node: ingested.root,
        nar_size: digest.size,
        nar_sha256: digest.sha256,
        references: references.iter().map(|name| path(name)).collect::<BTreeSet<_>>(),
        deriver: None,
        signatures: Vec::new(),
        content_address: None,
    });
    store.register(vec![info.clone()]).await.unwrap();
    info
}

fn signed(mut info: PathInfo) -> PathInfo {
    let (dir, hash) = (StoreDir::default(), &info.nar_sha256);
    let text = fingerprint(&dir, &info.path, hash, info.nar_size, &info.references);
    info.signatures = vec![key().sign(text.as_bytes())];
    info
}

/// `app -> base`: a large file, and many small ones.
async fn made() -> Store {
    let store = Store::memory(StoreDir::default());
    add(
        &store,
        "base",
        &[("large", blob(BASE_SIZE, 1)), ("small", blob(500, 2))],
        &[],
    )
    .await;
    let names: Vec<_> = (0..60).map(|index| format!("f{index:02}")).collect();
    let files: Vec<_> = names
        .iter()
        .zip(3..)
        .map(|(name, seed)| (name.as_str(), blob(2000, seed)))
        .collect();
    add(&store, "app", &files, &["base", "app"]).await;
    store
}

async fn serve(store: &Store, igloo: bool) -> Service {
    let services = Services::new();
    let services = match igloo {
        true => services.with_store(store, ChunkLists::Told, Admission::Root),
        false => services.with_snix_store(store, ChunkLists::Told, Admission::Root),
    };
    Service::start(tempfile::tempdir().unwrap(), services).await
}

async fn substituter(url: &str, trust: Trust) -> Arc<StoreSubstituter> {
    let cache = Arc::new(ContentCache::default());
    let store = path_info::open(url, StoreDir::default(), cache).await.unwrap();
    Arc::new(StoreSubstituter::new("peer".into(), store, trust, 10))
}

async fn substitute(peer: Arc<StoreSubstituter>, store: &Store, name: &str) -> Result<(), SubstituteError> {
    let all = Substituters::new(vec![peer], store.clone(), SubstituteOptions::default());
    let mut answer = all.substitute(&[path(name)], &()).await?;
    answer.failed.remove(&path(name)).map_or(Ok(()), Err)
}

async fn registered(store: &Store) -> BTreeSet<StorePath> {
    let all: Vec<PathInfo> = store.path_infos.list().try_collect().await.unwrap();
    all.into_iter().map(|info| info.path).collect()
}

/// Over igloo's services and over snix's: the closure arrives whole, and what is here already stays where it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_closure_comes_over_the_wire_and_only_what_is_missing() {
    for igloo in [true, false] {
        let mut peer = made().await;
        let counting = Arc::new(CountingBlobs::new(Arc::clone(&peer.castore.blobs)));
        peer.castore.blobs = counting.clone();
        let service = serve(&peer, igloo).await;
        let store = Store::memory(StoreDir::default());
        substitute(substituter(&service.url, trust()).await, &store, "app")
            .await
            .unwrap();
        assert_eq!(registered(&store).await, [path("app"), path("base")].into());
        for name in ["app", "base"] {
            let ours = store.path_infos.get(&path(name)).await.unwrap();
            assert_eq!(ours, peer.path_infos.get(&path(name)).await.unwrap());
        }
        let before = counting.bytes();
        assert!(before >= BASE_SIZE as u64);
        let other = Store::memory(StoreDir::default());
        add(&other, "other", &[("large", blob(BASE_SIZE, 1))], &[]).await;
        substitute(substituter(&service.url, trust()).await, &other, "base")
            .await
            .unwrap();
        let moved = counting.bytes() - before;
        assert!(
            moved < 1 << 20,
            "{moved} bytes were read for a file that is here already"
        );
    }
}

/// A store of path infos that answers with what it likes.
#[derive(Debug)]
struct Liar {
    inner: Arc<dyn PathInfoStore>,
    answer: PathInfo,
}

#[async_trait]
impl PathInfoStore for Liar {
    async fn get_by_digest(&self, _: &[u8; 20]) -> Result<Option<PathInfo>, ReadPathInfoError> {
        Ok(Some(self.answer.clone()))
    }

    async fn register(&self, infos: Vec<PathInfo>) -> Result<(), RegisterError> {
        self.inner.register(infos).await
    }

    fn list(&self) -> BoxStream<'_, Result<PathInfo, ReadPathInfoError>> {
        self.inner.list()
    }
}

async fn lying(answer: impl Fn(PathInfo, PathInfo) -> PathInfo) -> Service {
    let mut peer = made().await;
    let base = peer.path_infos.get(&path("base")).await.unwrap().unwrap();
    let app = peer.path_infos.get(&path("app")).await.unwrap().unwrap();
    peer.path_infos = Arc::new(Liar {
        inner: Arc::clone(&peer.path_infos),
        answer: answer(base, app),
    });
    serve(&peer, true).await
}

/// Signed records of another path, another tree, another size, and unsigned ones: nothing of it is registered.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_lies_about_paths_gets_nothing_registered() {
    let store = Store::memory(StoreDir::default());
    let other_path = lying(|_, app| app).await;
    let found = substituter(&other_path.url, trust())
        .await
        .look_up(&path("base"))
        .await;
    assert!(!matches!(found, Ok(Some(_))), "{found:?}");
    let unsigned = lying(|base, _| PathInfo {
        signatures: Vec::new(),
        ..base
    })
    .await;
    let found = substituter(&unsigned.url, trust())
        .await
        .look_up(&path("base"))
        .await;
    assert!(matches!(found, Err(LookUpError::Refused(_))), "{found:?}");
    let other_tree = lying(|base, app| PathInfo {
        node: app.node,
        ..base
    })
    .await;
    let smaller = lying(|base, _| {
        signed(PathInfo {
            nar_size: 1000,
            ..base
        })
    })
    .await;
    let absent = Node::Directory {
        digest: igloo_castore::digest::DirectoryDigest::of(b"none"),
        size: 3,
    };
    let absent = lying(move |base, _| PathInfo {
        node: absent.clone(),
        ..base
    })
    .await;
    for (service, code) in [
        (other_tree, Code::DataLoss),
        (smaller, Code::DataLoss),
        (absent, Code::NotFound),
    ] {
        let error = substitute(substituter(&service.url, trust()).await, &store, "base")
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        assert!(registered(&store).await.is_empty());
    }
}

/// Content that the peer lost or that rotted there: typed errors, nothing registered, and all is well once it is mended.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_peer_are_typed() {
    let mut peer = made().await;
    let info = peer.path_infos.get(&path("base")).await.unwrap().unwrap();
    let Node::Directory { digest: root, .. } = info.node else {
        panic!("no directory")
    };
    let directory = peer.castore.directories.get(&root).await.unwrap().unwrap();
    let Some(Node::File { digest: file, .. }) = directory.get(b"small").cloned() else {
        panic!("no file")
    };
    let (castore, faults) = faulty(peer.castore);
    peer.castore = castore;
    let service = serve(&peer, true).await;
    let store = Store::memory(StoreDir::default());
    for (digest, corrupt) in [
        (root.as_bytes(), false),
        (file.as_bytes(), false),
        (root.as_bytes(), true),
        (file.as_bytes(), true),
    ] {
        match corrupt {
            true => faults.corrupt(digest),
            false => faults.lose(digest),
        }
        let error = substitute(substituter(&service.url, trust()).await, &store, "base")
            .await
            .unwrap_err();
        let expected = if corrupt { Code::DataLoss } else { Code::NotFound };
        assert_eq!(error.code(), expected, "{error:?}");
        assert!(registered(&store).await.is_empty());
        faults.heal();
    }
    substitute(substituter(&service.url, trust()).await, &store, "app")
        .await
        .unwrap();
}

/// A wire that breaks before anything of use has come: `Unavailable`, nothing registered; a whole wire mends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_mid_way_registers_nothing() {
    let service = serve(&made().await, true).await;
    for cut_after in [3_000, 100_000] {
        let url = Wire::cut_after(cut_after).lay(&service).await;
        let store = Store::memory(StoreDir::default());
        let error = substitute(substituter(&url, trust()).await, &store, "base")
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{cut_after}: {error:?}");
        assert!(registered(&store).await.is_empty());
        substitute(substituter(&service.url, trust()).await, &store, "app")
            .await
            .unwrap();
        assert_eq!(registered(&store).await, [path("app"), path("base")].into());
    }
}

/// A wire that breaks again and again, each time after a part has come: connections are made anew, and what is registered
/// is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_now_and_then_is_made_anew() {
    let service = serve(&made().await, true).await;
    let url = Wire::cut_after(2_500_000).lay(&service).await;
    let store = Store::memory(StoreDir::default());
    for _ in 0..20 {
        match substitute(substituter(&url, trust()).await, &store, "app").await {
            Ok(()) => break,
            Err(error) => assert_eq!(error.code(), Code::Unavailable, "{error:?}"),
        }
    }
    assert_eq!(registered(&store).await, [path("app"), path("base")].into());
    let base = store.path_infos.get(&path("base")).await.unwrap().unwrap();
    let copy = NarStream::new(store.castore.clone(), base.node);
    assert_eq!(nar_size(copy).await, base.nar_size);
}

async fn nar_size(mut stream: NarStream) -> u64 {
    let mut size = 0;
    while let Some(bytes) = stream.next().await.unwrap() {
        size += bytes.len() as u64;
    }
    size
}

/// A slow wire only takes longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_peer_is_waited_for() {
    let service = serve(&made().await, true).await;
    let url = Wire::slow(32 << 10, Duration::from_millis(2)).lay(&service).await;
    let store = Store::memory(StoreDir::default());
    substitute(substituter(&url, trust()).await, &store, "app")
        .await
        .unwrap();
    assert_eq!(registered(&store).await, [path("app"), path("base")].into());
}
