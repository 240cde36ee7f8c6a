//! The promises of `igloo_store::path_info`, checked on any backend.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use futures::future::join_all;
use futures::stream::TryStreamExt;
use igloo_castore::node::{Node, SymlinkTarget};
use igloo_status::Code;
use igloo_store::path_info::{PathInfo, PathInfoStore};
use nix_compat::store_path::{StorePath, StorePathName};

/// More than any backend reads in one page.
const MANY: u64 = 2500;

/// Checks everything a store of path infos promises. Each check gets an empty store from `make_store`.
///
/// # Panics
/// A promise is broken.
pub async fn path_info_conformance<F: Future<Output = Arc<dyn PathInfoStore>>>(
    mut make_store: impl FnMut() -> F,
) {
    registered_paths_are_found(&*make_store().await).await;
    what_a_record_refers_to_must_be_there(&*make_store().await).await;
    the_first_record_stays(&*make_store().await).await;
    all_records_are_listed(&*make_store().await).await;
    many_at_once_do_not_mix(&*make_store().await).await;
}

/// A store path made of a number.
pub fn path(number: u64) -> StorePath {
    let mut digest = [0; 20];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    digest[8] = 0xa5;
    StorePath::new(
        digest,
        StorePathName::new(&format!("path-{number}")).expect("a name"),
    )
}

/// A record of [`path`] that refers to the paths of those numbers. Its content, a symlink, needs no castore.
pub fn info(number: u64, references: &[u64]) -> PathInfo {
    let target = SymlinkTarget::try_from(format!("target-{number}").as_bytes()).expect("a target");
    PathInfo {
        path: path(number),
        node: Node::Symlink { target },
        nar_size: number,
        nar_sha256: [number.to_le_bytes()[0]; 32],
        references: references.iter().copied().map(path).collect(),
        deriver: None,
        signatures: Vec::new(),
        content_address: None,
    }
}

async fn find(store: &dyn PathInfoStore, number: u64) -> Option<PathInfo> {
    store.get(&path(number)).await.expect("get")
}

async fn registered_paths_are_found(store: &dyn PathInfoStore) {
    assert_eq!(find(store, 1).await, None, "an empty store has no path");
    store.register(Vec::new()).await.expect("registering nothing");
    store.register(vec![info(1, &[])]).await.expect("registering");
    store
        .register(vec![info(2, &[1, 2])])
        .await
        .expect("registering with references, one to itself");
    assert_eq!(find(store, 1).await, Some(info(1, &[])));
    assert_eq!(find(store, 2).await, Some(info(2, &[1, 2])));
    let by_digest = store
        .get_by_digest(path(1).digest())
        .await
        .expect("get by digest");
    assert_eq!(
        by_digest,
        Some(info(1, &[])),
        "a path is found by its hash part alone"
    );
    let other_name = StorePath::new(*path(1).digest(), StorePathName::new("other").expect("a name"));
    assert_eq!(
        store.get(&other_name).await.expect("get"),
        None,
        "the name counts as well"
    );
}

async fn what_a_record_refers_to_must_be_there(store: &dyn PathInfoStore) {
    let error = store
        .register(vec![info(1, &[]), info(2, &[3])])
        .await
        .expect_err("a dangling reference");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert_eq!(find(store, 1).await, None, "registering is all or nothing");
    assert_eq!(find(store, 2).await, None, "registering is all or nothing");
    // outputs of one build may refer to each other
    store
        .register(vec![info(2, &[3]), info(3, &[2])])
        .await
        .expect("references within one batch");
    assert!(find(store, 2).await.is_some() && find(store, 3).await.is_some());
}

async fn the_first_record_stays(store: &dyn PathInfoStore) {
    store.register(vec![info(1, &[])]).await.expect("registering");
    let mut other = info(1, &[]);
    other.nar_size = 99;
    store
        .register(vec![other, info(2, &[1])])
        .await
        .expect("registering a path again succeeds");
    assert_eq!(
        find(store, 1).await,
        Some(info(1, &[])),
        "what was there first stays"
    );
    assert!(
        find(store, 2).await.is_some(),
        "the rest of the batch is registered"
    );
}

async fn all_records_are_listed(store: &dyn PathInfoStore) {
    let listed: Vec<PathInfo> = store.list().try_collect().await.expect("listing an empty store");
    assert!(listed.is_empty());
    store
        .register((0..MANY).map(|number| info(number, &[])).collect())
        .await
        .expect("registering many");
    let listed: Vec<PathInfo> = store.list().try_collect().await.expect("listing");
    assert_eq!(listed.len() as u64, MANY, "each record is listed once");
    let by_path: BTreeMap<_, _> = listed.into_iter().map(|info| (info.path.clone(), info)).collect();
    for number in 0..MANY {
        assert_eq!(by_path.get(&path(number)), Some(&info(number, &[])));
    }
}

async fn many_at_once_do_not_mix(store: &dyn PathInfoStore) {
    let work = (0..32u64).map(|number| async move {
        // two of each, with different sizes
        let mut mine = info(number / 2, &[]);
        mine.nar_size = number;
        store.register(vec![mine]).await.expect("registering");
        find(store, number / 2)
            .await
            .expect("what was registered is there")
            .nar_size
    });
    let seen = join_all(work).await;
    let kept: BTreeSet<_> = seen.iter().collect();
    assert_eq!(
        kept.len(),
        16,
        "of two records of one path one stays, and all see that one: {seen:?}"
    );
}
