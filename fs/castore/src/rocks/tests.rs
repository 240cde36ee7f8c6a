use std::process::{Command, Stdio};

use super::*;
use crate::digest::{BlobDigest, ChunkDigest};
use crate::store::ChunkStore;

fn options() -> RocksOptions {
    RocksOptions {
        tables: &["notes"],
        free_space_min_bytes: 0,
        owner: "a test".to_owned(),
        ..RocksOptions::default()
    }
}

fn noise(size: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; size];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes.into()
}

async fn put(castore: &Castore, bytes: &Bytes) -> BlobDigest {
    let mut writer = castore.blobs.writer().await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    writer.finish().await.unwrap().0
}

async fn note(database: &RocksDatabase, key: &'static str, value: Bytes) {
    let mut batch = Batch::new();
    batch.put(&database.table("notes").unwrap(), key, value);
    database.commit(batch).await.unwrap();
}

#[tokio::test]
async fn what_is_put_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (noise(1000, 1), noise(5 << 20, 2));
    let (a, b) = {
        let database = RocksDatabase::open(dir.path(), &options()).unwrap();
        let castore = database.castore(Arc::default());
        let digests = (put(&castore, &small).await, put(&castore, &large).await);
        castore.sync().await.unwrap();
        note(&database, "key", Bytes::from_static(b"value")).await;
        digests
    };
    let database = RocksDatabase::open(dir.path(), &options()).unwrap();
    let castore = database.castore(Arc::default());
    assert_eq!(castore.blobs.read_range(&a, 0, 2000).await.unwrap(), small);
    assert_eq!(castore.blobs.read_range(&b, 0, 6 << 20).await.unwrap(), large);
    let notes = database.table("notes").unwrap();
    assert_eq!(notes.get(b"key").await.unwrap().unwrap(), "value");
    assert_eq!(notes.page(std::ops::Bound::Unbounded, 10).await.unwrap().len(), 1);
    let after = std::ops::Bound::Excluded(Bytes::from_static(b"key"));
    assert!(notes.page(after, 10).await.unwrap().is_empty());
    assert!(database.table("none").is_none());
}

/// The second opener learns who has it; the directory is private.
#[test]
fn one_writer_at_a_time() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    let first = RocksDatabase::open(&dir, &options()).unwrap();
    assert_eq!(
        std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let error = RocksDatabase::open(&dir, &options()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!("process {} (a test)", std::process::id())),
        "{text}"
    );
    assert!(text.contains(dir.to_str().unwrap()), "{text}");
    assert_eq!(error.code(), Code::FailedPrecondition);
    drop(first);
    RocksDatabase::open(&dir, &options()).unwrap();
}

/// A reader beside the writer sees what is committed, also what comes after it opened.
#[tokio::test]
async fn a_reader_follows_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let writer = RocksDatabase::open(dir.path(), &options()).unwrap();
    let castore = writer.castore(Arc::default());
    let bytes = noise(3 << 20, 3);
    let digest = put(&castore, &bytes).await;
    castore.sync().await.unwrap();
    note(&writer, "first", Bytes::from_static(b"1")).await;

    let reader = RocksDatabase::open_read_only(dir.path(), &options()).unwrap();
    let seen = reader.castore(Arc::default());
    let notes = reader.table("notes").unwrap();
    assert_eq!(notes.get(b"first").await.unwrap().unwrap(), "1");
    assert_eq!(seen.blobs.read_range(&digest, 0, 4 << 20).await.unwrap(), bytes);

    let (later, small) = (noise(3 << 20, 4), noise(77, 5));
    let digests = [put(&castore, &later).await, put(&castore, &small).await];
    castore.sync().await.unwrap();
    note(&writer, "second", Bytes::from_static(b"2")).await;
    std::thread::sleep(CATCH_UP_INTERVAL * 2);
    assert_eq!(notes.get(b"second").await.unwrap().unwrap(), "2");
    assert_eq!(
        seen.blobs.read_range(&digests[0], 0, 4 << 20).await.unwrap(),
        later
    );
    assert_eq!(seen.blobs.read_range(&digests[1], 0, 100).await.unwrap(), small);

    let error = seen
        .blobs
        .put_small(vec![(BlobDigest::of(b"x"), Bytes::from_static(b"x"))])
        .await;
    assert_eq!(error.unwrap_err().code(), Code::PermissionDenied);
}

#[test]
fn what_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter"), "dear").unwrap();
    let error = RocksDatabase::open(dir.path(), &options()).unwrap_err();
    assert!(matches!(&error, OpenRocksError::Foreign { found, .. } if found == "letter"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("format"), "igloo store, format 2\n").unwrap();
    let error = RocksDatabase::open(dir.path(), &options()).unwrap_err();
    assert!(matches!(&error, OpenRocksError::Version { found, .. } if found == "2"));
    let error = RocksDatabase::open_read_only(dir.path(), &options()).unwrap_err();
    assert!(matches!(&error, OpenRocksError::Version { .. }));

    let error = RocksDatabase::open_read_only(&dir.path().join("x"), &options()).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[test]
fn temporary_files_are_removed_at_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let left = {
        let database = RocksDatabase::open(dir.path(), &options()).unwrap();
        database.tmp_dir().join("left")
    };
    std::fs::write(&left, "over").unwrap();
    let database = RocksDatabase::open(dir.path(), &options()).unwrap();
    assert!(!left.exists());
    assert!(database.tmp_dir().exists());
}

/// Wrong bytes under a digest are never given out, and a put of the right ones mends them.
#[tokio::test]
async fn damage_is_seen_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    let database = RocksDatabase::open(dir.path(), &options()).unwrap();
    let chunks = RocksChunkStore::new(database.clone());
    let digest = ChunkDigest::of(b"right");
    chunks
        .put(vec![(digest, Bytes::from_static(b"wrong"))])
        .await
        .unwrap();
    assert_eq!(chunks.get(&digest).await.unwrap_err().code(), Code::DataLoss);
    chunks
        .put(vec![(digest, Bytes::from_static(b"right"))])
        .await
        .unwrap();
    assert_eq!(chunks.get(&digest).await.unwrap().unwrap(), "right");
}

/// A nearly full disk refuses writes by name and keeps answering reads.
#[tokio::test]
async fn a_full_disk_is_refused_before_it_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let digest = {
        let database = RocksDatabase::open(dir.path(), &options()).unwrap();
        let castore = database.castore(Arc::default());
        let digest = put(&castore, &noise(100, 6)).await;
        castore.sync().await.unwrap();
        digest
    };
    let full = RocksOptions {
        free_space_min_bytes: u64::MAX,
        ..options()
    };
    let database = RocksDatabase::open(dir.path(), &full).unwrap();
    let castore = database.castore(Arc::default());
    let error = castore
        .blobs
        .put_small(vec![(BlobDigest::of(b"x"), Bytes::from_static(b"x"))])
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(
        castore.blobs.read_range(&digest, 0, 100).await.unwrap(),
        noise(100, 6)
    );
}

const CRASH_DIR: &str = "IGLOO_CASTORE_CRASH_DIR";

/// The process that `a_killed_writer_leaves_a_whole_store` kills: writes blobs, syncs, notes each digest, until killed.
#[tokio::test(flavor = "multi_thread")]
async fn crash_victim() {
    let Some(dir) = std::env::var_os(CRASH_DIR) else {
        return; // not a test of its own
    };
    let database = RocksDatabase::open(Path::new(&dir), &options()).unwrap();
    let castore = database.castore(Arc::default());
    for round in u64::from(std::process::id()) << 20.. {
        let size = [300, 90_000, 3 << 20, 12 << 20][usize::try_from(round % 4).unwrap()];
        let digest = put(&castore, &noise(size, round)).await;
        castore.sync().await.unwrap();
        let mut batch = Batch::new();
        let value = round.to_le_bytes().to_vec();
        batch.put(
            &database.table("notes").unwrap(),
            digest.as_bytes().to_vec(),
            value,
        );
        database.commit(batch).await.unwrap();
    }
}

/// Killed at any moment, the store opens and every noted blob is whole.
#[test]
fn a_killed_writer_leaves_a_whole_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut noted = 0;
    for round in 0..6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rocks::tests::crash_victim", "--nocapture"])
            .env(CRASH_DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(350 + 97 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let database = RocksDatabase::open(dir.path(), &options()).unwrap();
        let castore = database.castore(Arc::default());
        let rows = futures::executor::block_on(
            database
                .table("notes")
                .unwrap()
                .page(std::ops::Bound::Unbounded, 10_000),
        )
        .unwrap();
        assert!(rows.len() >= noted);
        noted = rows.len();
        for (key, value) in rows {
            let digest = BlobDigest::try_from(&*key).unwrap();
            let bytes =
                futures::executor::block_on(castore.blobs.read_range(&digest, 0, usize::MAX)).unwrap();
            assert!(
                digest.matches(&bytes),
                "{}",
                u64::from_le_bytes((&*value).try_into().unwrap())
            );
        }
    }
    assert!(noted > 8, "{noted}");
}
