//! A content address of what names itself is compared with the content, not taken on the sender's word.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

use std::collections::BTreeSet;

use igloo_castore::ingest::IngestLimits;
use igloo_status::Code;
use igloo_store::{AddError, DeclaredNar, Store};
use nix_compat::content_address::{ContentAddress, ContentAddressMethod};
use nix_compat::hash::{HashAlgo, NixHash, sha256};
use nix_compat::nar::NarWriter;
use nix_compat::self_reference::{SelfHash, SelfHasher};
use nix_compat::store_path::{StoreDir, StorePath, StorePathName, StoreReferences};

fn nar(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = NarWriter::new(&mut bytes);
    writer.file(b"", text.len() as u64, false).unwrap();
    writer.data(text.as_bytes()).unwrap();
    writer.finish().unwrap();
    bytes
}

/// A NAR that names its own path once, under the path that follows from it by one of the hashes.
fn content_addressed(text: &str, choose: fn(SelfHash) -> NixHash) -> (DeclaredNar, Vec<u8>) {
    let dir = StoreDir::default();
    let name = StorePathName::new("self").unwrap();
    let provisional = StorePath::new([0; 20], name.clone());
    let with = |path: &StorePath| nar(&format!("{text} {}", dir.print(path)));
    let mut hasher = SelfHasher::new(HashAlgo::Sha256, &provisional);
    hasher.update(&with(&provisional));
    let hash = choose(hasher.finish().unwrap());
    let address = ContentAddress::new(ContentAddressMethod::Recursive, hash).unwrap();
    let references = StoreReferences {
        others: BTreeSet::new(),
        to_self: true,
    };
    let path = dir.content_addressed_path(&name, &address, &references).unwrap();
    let bytes = with(&path);
    let declared = DeclaredNar {
        nar_sha256: sha256(&bytes),
        nar_size: bytes.len() as u64,
        references: BTreeSet::from([path.clone()]),
        path,
        deriver: None,
        signatures: Vec::new(),
        content_address: Some(address),
    };
    (declared, bytes)
}

#[tokio::test]
async fn what_names_itself_is_compared_with_its_address() {
    // as older Nix and as current Nix address it
    let store = Store::memory(StoreDir::default());
    let (old, bytes) = content_addressed("right", |found| found.hash_with_places);
    store
        .add_nar(old.clone(), &bytes[..], IngestLimits::default())
        .await
        .unwrap();
    let (declared, bytes) = content_addressed("right", |found| found.hash);
    let info = store
        .add_nar(declared.clone(), &bytes[..], IngestLimits::default())
        .await
        .unwrap();
    assert_eq!(info.path, declared.path);
    assert_ne!(info.path, old.path);

    // another content, its NAR hash declared rightly, under the path and the address of the first
    let store = Store::memory(StoreDir::default());
    let wrong = nar(&format!("wrong {}", store.dir.print(&declared.path)));
    let declared = DeclaredNar {
        nar_sha256: sha256(&wrong),
        nar_size: wrong.len() as u64,
        ..declared
    };
    let path = declared.path.clone();
    let error = store
        .add_nar(declared, &wrong[..], IngestLimits::default())
        .await
        .unwrap_err();
    assert!(matches!(error, AddError::Address { .. }), "{error:?}");
    assert_eq!(error.code(), Code::DataLoss);
    assert!(store.path_infos.get(&path).await.unwrap().is_none());
}
