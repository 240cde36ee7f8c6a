//! Content first, then the record that names it.

use std::collections::BTreeSet;

use bytes::Bytes;
use igloo_status::Code;
use igloo_store::Store;
use igloo_testkit::faults::faulty;
use igloo_testkit::path_infos::info;
use nix_compat::store_path::{StoreDir, StorePathName};

/// Nothing is registered whose content could not be made durable.
#[tokio::test]
async fn no_record_without_its_content() {
    let mut store = Store::memory(StoreDir::default());
    let (castore, faults) = faulty(store.castore.clone());
    store.castore = castore;
    faults.fill_disk(true);
    let error = store.register(vec![info(1, &[])]).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(store.path_infos.get(&info(1, &[]).path).await.unwrap(), None);
    let name = StorePathName::new("text").unwrap();
    let add = || store.add_text(&name, Bytes::from_static(b"text"), BTreeSet::new());
    assert_eq!(add().await.unwrap_err().code(), Code::ResourceExhausted);
    faults.heal();
    let added = add().await.unwrap();
    assert_eq!(
        store.path_infos.get(&added.path).await.unwrap().as_ref(),
        Some(&added)
    );
}
