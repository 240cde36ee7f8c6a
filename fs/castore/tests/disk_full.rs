//! A disk that is really full: the store says so, keeps what it has, and goes on when there is room again.
#![cfg(all(feature = "rocksdb", target_os = "linux"))]
#![allow(clippy::panic, clippy::unwrap_used, reason = "the helpers of tests")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use igloo_castore::digest::BlobDigest;
use igloo_castore::error::WriteError;
use igloo_castore::ingest::put_blob;
use igloo_castore::rocks::{RocksDatabase, RocksOptions};
use igloo_castore::store::Castore;
use igloo_status::Code;
use igloo_testkit::skip;
use igloo_testkit::tree::noise;

/// A small file system of its own, gone at the end.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "igloo-test"])
            .arg(dir.path())
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            skip("a file system of a given size cannot be mounted here");
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn open(dir: &Path, free_space_min_bytes: u64) -> RocksDatabase {
    let options = RocksOptions {
        free_space_min_bytes,
        ..RocksOptions::default()
    };
    RocksDatabase::open(dir, &options).unwrap()
}

async fn put_synced(castore: &Castore, seed: u64) -> Result<BlobDigest, WriteError> {
    let (digest, _) = put_blob(castore, noise(1 << 20, seed)).await?;
    castore.sync().await?;
    Ok(digest)
}

async fn fill(castore: &Castore) -> (Vec<BlobDigest>, WriteError) {
    let mut kept = Vec::new();
    for seed in 0..100 {
        match put_synced(castore, seed).await {
            Ok(digest) => kept.push(digest),
            Err(error) => return (kept, error),
        }
    }
    panic!("100 MiB fit on a small disk");
}

async fn check(castore: &Castore, kept: &[BlobDigest]) {
    for digest in kept {
        let bytes = castore.blobs.read_range(digest, 0, 2 << 20).await.unwrap();
        assert!(digest.matches(&bytes));
    }
}

async fn full_disk(reserve: u64) {
    let Some(disk) = Disk::new(32) else { return };
    let (dir, ballast) = (disk.0.path().join("store"), disk.0.path().join("ballast"));
    std::fs::write(&ballast, vec![1; 12 << 20]).unwrap();
    let database = open(&dir, reserve);
    let castore = database.castore(Arc::default());
    let (mut kept, error) = fill(&castore).await;
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    let WriteError::Backend(cause) = &error else {
        panic!("{error:?}")
    };
    assert!(
        cause.message.contains("the disk of") && cause.message.contains("full"),
        "{cause}"
    );
    assert!(!kept.is_empty());
    check(&castore, &kept).await;

    std::fs::remove_file(ballast).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match put_synced(&castore, 1000).await {
            Ok(digest) => break kept.push(digest),
            Err(error) => assert!(Instant::now() < deadline, "with room again: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    check(&castore, &kept).await;
    drop((castore, database));
    check(&open(&dir, 0).castore(Arc::default()), &kept).await;
}

/// The reserve refuses writes early.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_reserve() {
    full_disk(4 << 20).await;
}

/// Without one the system refuses them.
#[tokio::test(flavor = "multi_thread")]
async fn to_the_last_byte() {
    full_disk(0).await;
}
