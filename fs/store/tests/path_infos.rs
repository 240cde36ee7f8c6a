//! The backends of this crate keep the promises of the trait.

use std::sync::Arc;

use igloo_store::path_info::{MemoryPathInfoStore, PathInfoStore};
use igloo_testkit::path_info_conformance;

#[tokio::test]
async fn memory() {
    path_info_conformance(|| async { Arc::new(MemoryPathInfoStore::new()) as Arc<dyn PathInfoStore> }).await;
}

#[cfg(feature = "rocksdb")]
#[tokio::test(flavor = "multi_thread")]
async fn rocksdb() {
    use igloo_store::{Access, OpenOptions, StoreUrl, open};
    let tmp = tempfile::tempdir().unwrap();
    let mut count = 0;
    path_info_conformance(|| {
        count += 1;
        let dir = tmp.path().join(count.to_string());
        let options = OpenOptions {
            dir: nix_compat::StoreDir::default(),
            access: Access::Write,
            owner: "a test".to_owned(),
        };
        async move { open(&StoreUrl::Rocksdb { dir }, &options).unwrap().path_infos }
    })
    .await;
}
