//! The suites that every backend passes, over a unix socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::Service;
use igloo_remote::{Admission, ChunkLists, ContentCache, Services, path_info};
use igloo_status::Code;
use igloo_store::Store;
use igloo_store::facts::FactKind;
use igloo_store::path_info::RegisterError;
use igloo_testkit::path_infos::{info, path};
use igloo_testkit::{castore_conformance, path_info_conformance};
use nix_compat::store_path::StoreDir;

/// A client of a new, empty store; its server lives as long as `keep`.
async fn remote(igloo: bool, lists: ChunkLists, cache: ContentCache, keep: &Mutex<Vec<Service>>) -> Store {
    let store = Store::memory(StoreDir::default());
    let services = match igloo {
        true => Services::new().with_store(&store, lists, Admission::Root),
        false => Services::new().with_snix_store(&store, lists, Admission::Root),
    };
    let service = Service::start(tempfile::tempdir().unwrap(), services).await;
    let client = path_info::open(&service.url, StoreDir::default(), Arc::new(cache))
        .await
        .unwrap();
    keep.lock().unwrap().push(service);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_castore_keeps_the_promises() {
    for igloo in [true, false] {
        for lists in [ChunkLists::Told, ChunkLists::Hidden] {
            for cache_bytes in [64 << 20, 0] {
                let keep = Mutex::default();
                castore_conformance(async || {
                    let cache = ContentCache::new(cache_bytes, cache_bytes);
                    remote(igloo, lists, cache, &keep).await.castore
                })
                .await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_path_infos_keep_the_promises() {
    let keep = Mutex::default();
    path_info_conformance(async || {
        remote(true, ChunkLists::Told, ContentCache::default(), &keep)
            .await
            .path_infos
    })
    .await;
}

/// A peer without batches: registered one by one in an order that works, and refused with the same reason.
#[tokio::test(flavor = "multi_thread")]
async fn path_infos_of_a_peer_without_batches() {
    let keep = Mutex::default();
    let store = remote(false, ChunkLists::Told, ContentCache::default(), &keep).await;
    store
        .register(vec![info(3, &[2, 3]), info(2, &[1]), info(1, &[])])
        .await
        .unwrap();
    for number in 1..=3 {
        assert!(store.path_infos.get(&path(number)).await.unwrap().is_some());
    }
    let error = store.path_infos.register(vec![info(5, &[9])]).await.unwrap_err();
    assert!(
        matches!(&error, RegisterError::Dangling { reference, .. } if *reference == path(9)),
        "{error:?}"
    );
}

/// Over both kinds of peer the refusal names both ends of the reference.
#[tokio::test(flavor = "multi_thread")]
async fn a_dangling_reference_is_named() {
    let keep = Mutex::default();
    let store = remote(true, ChunkLists::Told, ContentCache::default(), &keep).await;
    let error = store.path_infos.register(vec![info(5, &[9])]).await.unwrap_err();
    let RegisterError::Dangling {
        path: from,
        reference,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((from, reference), (path(5), path(9)));
}

/// A record of content that is not there, or is other than it says, is refused: with `Nar` down to the last byte.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_absent_or_other_content_are_refused() {
    let local = Store::memory(StoreDir::default());
    let services = Services::new().with_store(&local, ChunkLists::Told, Admission::Nar);
    let service = Service::start(tempfile::tempdir().unwrap(), services).await;
    let client = path_info::open(&service.url, StoreDir::default(), Arc::default())
        .await
        .unwrap();
    let mut absent = info(1, &[]);
    absent.node = igloo_castore::Node::File {
        digest: igloo_castore::BlobDigest::of(b"absent"),
        size: 6,
        executable: false,
    };
    let error = client.path_infos.register(vec![absent]).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    let error = client.path_infos.register(vec![info(2, &[])]).await.unwrap_err(); // its NAR hash is made up
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    let mut honest = info(3, &[]);
    let digest = igloo_store::nar::nar_digest(&local.castore, &honest.node)
        .await
        .unwrap();
    (honest.nar_sha256, honest.nar_size) = (digest.sha256, digest.size);
    client.path_infos.register(vec![honest.clone()]).await.unwrap();
    assert_eq!(client.path_infos.get(&honest.path).await.unwrap(), Some(honest));
}

/// Facts outlive the client that put them where the peer keeps them, and are there while it runs where it cannot.
#[tokio::test(flavor = "multi_thread")]
async fn facts_of_a_peer() {
    let row = |index: u32| {
        let key = Bytes::from(format!("key {index}"));
        (FactKind::Realisation, key, Bytes::from(vec![7; 4000]))
    };
    let rows: Vec<_> = (0..1000).map(row).collect(); // several messages
    for igloo in [true, false] {
        let keep = Mutex::default();
        let client = remote(igloo, ChunkLists::Told, ContentCache::default(), &keep).await;
        client.facts.put(rows.clone()).await.unwrap();
        let url = keep.lock().unwrap()[0].url.clone();
        let other = path_info::open(&url, StoreDir::default(), Arc::default())
            .await
            .unwrap();
        for (kind, key, value) in [&rows[0], &rows[999]] {
            assert_eq!(client.facts.get(*kind, key).await.unwrap().as_ref(), Some(value));
            let kept = other.facts.get(*kind, key).await.unwrap();
            assert_eq!(kept.as_ref(), igloo.then_some(value));
        }
        let absent = client.facts.get(FactKind::Provenance, b"key 0").await.unwrap();
        assert_eq!(absent, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_out_of_bounds_are_refused() {
    let keep = Mutex::default();
    let client = remote(true, ChunkLists::Told, ContentCache::default(), &keep).await;
    let row = |key: usize, value: usize| {
        let (key, value) = (Bytes::from(vec![1; key]), Bytes::from(vec![2; value]));
        vec![(FactKind::Provenance, key, value)]
    };
    client.facts.put(row(1 << 10, 1 << 20)).await.unwrap();
    for facts in [row((1 << 10) + 1, 1), row(1, (1 << 20) + 1)] {
        let error = client.facts.put(facts).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
}
