//! The backends of this crate keep the promises of the traits, and give the same answers.

use igloo_castore::memory;
use igloo_testkit::castore_conformance;

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    castore_conformance(|| async { memory::castore("memory") }).await;
}

#[cfg(feature = "rocksdb")]
mod rocksdb {
    use std::sync::Arc;

    use igloo_castore::rocks::{RocksDatabase, RocksOptions};
    use igloo_testkit::tree::{Tree, trees};
    use proptest::prelude::*;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn rocksdb() {
        let dir = tempfile::tempdir().unwrap();
        let mut count = 0;
        castore_conformance(|| {
            count += 1;
            let database = RocksDatabase::open(&dir.path().join(count.to_string()), &RocksOptions::default());
            async { database.unwrap().castore(Arc::default()) }
        })
        .await;
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// One tree has one root node, whatever keeps it, and comes back from each; also after reopening.
        #[test]
        fn backends_agree(trees in prop::collection::vec(trees(), 1..4)) {
            let dir = tempfile::tempdir().unwrap();
            let open = || RocksDatabase::open(dir.path(), &RocksOptions::default()).unwrap().castore(Arc::default());
            let model = memory::castore("memory");
            futures::executor::block_on(async {
                let store = open();
                let mut roots = Vec::new();
                for tree in &trees {
                    let root = tree.ingest(&store).await.unwrap();
                    assert_eq!(tree.ingest(&model).await.unwrap(), root);
                    roots.push(root);
                }
                store.sync().await.unwrap();
                drop(store);
                let store = open();
                for (root, tree) in roots.into_iter().zip(&trees) {
                    assert_eq!(&Tree::export(&store, root.clone()).await.unwrap(), tree);
                    assert_eq!(&Tree::export(&model, root).await.unwrap(), tree);
                }
            });
        }
    }
}
