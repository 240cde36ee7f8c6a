//! What the tests share: a server with faults, caches written by igloo and by stock Nix, and quick options.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests")]

pub mod nix;
pub mod server;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use igloo_binary_cache::compression::Compression;
use igloo_binary_cache::http::breaker::BreakerOptions;
use igloo_binary_cache::{
    CacheInfo, CacheOptions, CacheWriter, HttpBinaryCache, HttpOptions, SubstituteOptions, Substituter,
    Substituters, Trust,
};
use igloo_castore::ingest::{IngestLimits, TreeIngest};
use igloo_castore::tree::TreeEvent;
use igloo_store::nar::NarObserver;
use igloo_store::{PathInfo, Store};
use nix_compat::signature::SecretKey;
use nix_compat::store_path::{StoreDir, StorePath, StorePathName};

/// The key the caches of these tests are signed with.
pub fn key() -> SecretKey {
    SecretKey::from_seed("test-1", &[7; 32]).unwrap()
}

pub fn trust() -> Trust {
    Trust::Keys(vec![key().public_key()])
}

/// A path of a name; the digest is made of the name.
pub fn path(name: &str) -> StorePath {
    let digest = nix_compat::hash::sha256(name.as_bytes());
    StorePath::new(
        digest[..20].try_into().unwrap(),
        StorePathName::new(name).unwrap(),
    )
}

/// Options with which nothing takes long.
pub fn quick() -> CacheOptions {
    CacheOptions {
        http: HttpOptions {
            attempts_max: 4,
            backoff_first: Duration::from_millis(10),
            backoff_max: Duration::from_millis(80),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(1),
            stall_timeout: Duration::from_millis(300),
            breaker: BreakerOptions {
                failures_min: 3,
                after: Duration::from_millis(200),
                cool_down: Duration::from_secs(60),
                cool_down_max: Duration::from_secs(60),
            },
            seed: 1,
            ..HttpOptions::default()
        },
        ..CacheOptions::default()
    }
}

pub fn open(url: &str) -> Arc<HttpBinaryCache> {
    open_with(url, quick())
}

pub fn open_with(url: &str, options: CacheOptions) -> Arc<HttpBinaryCache> {
    let cache = HttpBinaryCache::new(url.parse().unwrap(), StoreDir::default(), &trust(), options);
    Arc::new(cache.unwrap())
}

/// An empty store, and substituters that fill it.
pub fn substituters(sources: &[Arc<HttpBinaryCache>]) -> (Store, Substituters) {
    let store = Store::memory(StoreDir::default());
    let sources = sources
        .iter()
        .map(|source| source.clone() as Arc<dyn Substituter>)
        .collect();
    let options = SubstituteOptions {
        hedge_after: Duration::from_millis(150),
        info_wait: Duration::from_millis(500),
        ..SubstituteOptions::default()
    };
    (store.clone(), Substituters::new(sources, store, options))
}

/// Puts a directory with one file into a store under an input-addressed path.
pub async fn add(store: &Store, name: &str, content: Vec<u8>, references: &[&str]) -> PathInfo {
    let mut ingest = TreeIngest::new(store.castore.clone(), IngestLimits::default(), NarObserver::new());
    let file_name = Some(b"file".as_slice().try_into().unwrap());
    let size = content.len() as u64;
    let mut events = vec![
        TreeEvent::DirectoryBegin { name: None },
        TreeEvent::FileBegin {
            name: file_name,
            executable: true,
            size,
        },
    ];
    if size > 0 {
        events.push(TreeEvent::FileData(content.into()));
    }
    events.push(TreeEvent::DirectoryEnd);
    for event in events {
        ingest.event(event).await.unwrap();
    }
    let ingested = ingest.finish().await.unwrap();
    let digest = ingested.observer.finish().unwrap().digest;
    let info = PathInfo {
        path: path(name),
        node: ingested.root,
        nar_size: digest.size,
        nar_sha256: digest.sha256,
        references: references.iter().map(|name| path(name)).collect::<BTreeSet<_>>(),
        deriver: None,
        signatures: Vec::new(),
        content_address: None,
    };
    store.register(vec![info.clone()]).await.unwrap();
    info
}

/// Bytes that compress about to a half.
pub fn bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b"0123456789abcdef"[usize::try_from(state >> 60).unwrap()]
    };
    (0..size).map(|_| next()).collect()
}

/// A cache in a directory with the closure of `app`: `app -> lib -> base`, `app -> base`, all but `base` naming themselves.
pub struct Closure {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

impl Closure {
    pub async fn write(compression: Compression) -> Self {
        let store = Store::memory(StoreDir::default());
        add(&store, "base", bytes(300_000, 1), &[]).await;
        add(&store, "lib", bytes(70_000, 2), &["base", "lib"]).await;
        add(&store, "app", bytes(1_500_000, 3), &["base", "lib", "app"]).await;
        let dir = tempfile::tempdir().unwrap();
        let written = write(&store, dir.path(), compression, &["app"]).await;
        assert_eq!(written, 3);
        Self { dir, store }
    }

    pub fn narinfo(&self, name: &str) -> PathBuf {
        self.dir.path().join(narinfo_name(name))
    }

    /// The archive's place below the cache.
    pub fn archive(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.narinfo(name)).unwrap();
        let url = text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap();
        url.to_owned()
    }

    pub fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let text = std::fs::read_to_string(self.narinfo(name)).unwrap();
        std::fs::write(self.narinfo(name), change(text)).unwrap();
    }
}

pub fn narinfo_name(name: &str) -> String {
    format!(
        "{}.narinfo",
        String::from_utf8(path(name).hash_part().to_vec()).unwrap()
    )
}

pub async fn write(store: &Store, dir: &Path, compression: Compression, roots: &[&str]) -> usize {
    let info = CacheInfo {
        store_dir: StoreDir::default(),
        priority: 40,
        want_mass_query: true,
    };
    let writer = CacheWriter::open(dir, &info, compression, vec![key()])
        .await
        .unwrap();
    writer
        .write_closure(store, roots.iter().map(|name| path(name)))
        .await
        .unwrap()
}

/// All that is registered, each with its content checked.
pub async fn registered(store: &Store) -> BTreeSet<StorePath> {
    use futures::TryStreamExt as _;
    let infos: Vec<PathInfo> = store.path_infos.list().try_collect().await.unwrap();
    for info in &infos {
        store.verify(info).await.unwrap();
    }
    infos.into_iter().map(|info| info.path).collect()
}

pub fn paths(names: &[&str]) -> BTreeSet<StorePath> {
    names.iter().map(|name| path(name)).collect()
}

/// An error's message with those of its causes, as a user sees it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
