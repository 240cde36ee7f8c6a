//! The embedded store as a whole: opening, two processes, kill -9.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt;
use igloo_castore::ingest::PathOptions;
use igloo_status::Code;
use igloo_store::{Access, OpenOptions, PathInfo, Store, StoreUrl, open};
use igloo_testkit::Victim;
use igloo_testkit::tree::noise;
use nix_compat::store_path::{StoreDir, StorePathName};

fn open_dir(dir: &Path, access: Access) -> Result<Store, igloo_store::OpenStoreError> {
    let options = OpenOptions {
        dir: StoreDir::default(),
        access,
        owner: "a test".to_owned(),
    };
    open(&StoreUrl::Rocksdb { dir: dir.to_owned() }, &options)
}

/// A tree of small files and a large one, other for each number.
fn sample(path: &Path, number: u64) {
    let _ = std::fs::remove_dir_all(path);
    // mostly tiny ones: then a kill often falls between the steps of a commit
    let count = if number.is_multiple_of(4) { 40 } else { 2 };
    for index in 0..count {
        let dir = path.join(format!("{}", index % 7));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(
            dir.join(index.to_string()),
            noise(500 * index, number << 8 | index as u64),
        )
        .unwrap();
    }
    let size = [700_000, 1_000, 100, 10, 6_000_000, 1, 5_000, 900][usize::try_from(number % 8).unwrap()];
    std::fs::write(path.join("large"), noise(size, number << 8 | 255)).unwrap();
}

async fn add(store: &Store, path: &Path, number: u64) -> PathInfo {
    sample(path, number);
    let name = StorePathName::new(&format!("sample-{number}")).unwrap();
    store
        .add_path(&name, path, &PathOptions::default())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_works_beside_the_writer() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    assert_eq!(open_dir(&dir, Access::Read).unwrap_err().code(), Code::NotFound);
    let writer = open_dir(&dir, Access::Write).unwrap();
    let first = add(&writer, &tmp.path().join("src"), 1).await;
    let reader = open_dir(&dir, Access::Read).unwrap();
    assert_eq!(reader.path_infos.get(&first.path).await.unwrap().unwrap(), first);
    reader.verify(&first).await.unwrap();
    for number in 2..6 {
        let info = add(&writer, &tmp.path().join("src"), number).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(
            reader.path_infos.get(&info.path).await.unwrap().as_ref(),
            Some(&info)
        );
        reader.verify(&info).await.unwrap();
    }
    let listed: Vec<_> = reader.path_infos.list().try_collect().await.unwrap();
    assert_eq!(listed.len(), 5);
    let error = open_dir(&dir, Access::Write).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
}

const VICTIM: Victim = Victim {
    variable: "IGLOO_STORE_CRASH_DIR",
};

/// The process that the next test kills: adds one tree after the other, until killed.
#[tokio::test(flavor = "multi_thread")]
async fn crash_victim() {
    let Some(dir) = std::env::var_os(VICTIM.variable) else {
        return; // not a test of its own
    };
    let dir = Path::new(&dir);
    let store = open_dir(&dir.join("store"), Access::Write).unwrap();
    let first = u64::from(std::process::id()) << 16;
    for number in first.. {
        add(&store, &dir.join("src"), number).await;
    }
}

/// Killed at any moment, the store opens and every registered path is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writer_leaves_every_registered_path_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let mut known = 0;
    for round in 0..8 {
        VICTIM.die(tmp.path(), Duration::from_millis(250 + 37 * round));
        let store = open_dir(&tmp.path().join("store"), Access::Write).unwrap();
        let infos: Vec<_> = store.path_infos.list().try_collect().await.unwrap();
        assert!(infos.len() >= known, "a registered path stays registered");
        known = infos.len();
        for info in &infos {
            store.verify(info).await.unwrap();
        }
    }
    assert!(known > 5, "{known}");
}
