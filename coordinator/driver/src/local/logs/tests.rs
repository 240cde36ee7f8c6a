use super::*;

fn drv(number: u8) -> StorePath {
    let name = nix_compat::store_path::StorePathName::new("x.drv").unwrap();
    StorePath::new([number; 20], name)
}

async fn write(store: &LogStore, number: u8, bytes: &[u8]) -> Vec<Bytes> {
    let mut log = store.begin(&drv(number), u64::from(number));
    let mut sequence = 0;
    for part in bytes.chunks(100_000) {
        log.write(sequence, Bytes::copy_from_slice(part)).await;
        sequence += part.len() as u64;
    }
    log.finish().await
}

#[tokio::test]
async fn the_last_log_counts() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path().into(), LogConfig::default(), &BTreeSet::new()).unwrap();
    assert_eq!(write(&store, 1, b"one\ntwo").await, ["one", "two"]);
    assert_eq!(store.read(&drv(1)).await.unwrap().unwrap(), "one\ntwo");
    let long = "a line\n".repeat(100_000);
    assert_eq!(write(&store, 1, long.as_bytes()).await.len(), 25);
    assert_eq!(store.read(&drv(1)).await.unwrap().unwrap(), long);
    assert!(write(&store, 1, b"").await.is_empty());
    assert_eq!(store.read(&drv(1)).await.unwrap(), None);
}

/// The oldest logs go when all together are too large; what a crash left is removed.
#[tokio::test]
async fn all_logs_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig {
        total_bytes_max: 10_000,
        ..LogConfig::default()
    };
    let store = LogStore::open(dir.path().into(), config, &BTreeSet::new()).unwrap();
    // digests do not compress
    let noise = |number: u8| {
        let mut bytes = vec![0; 2000];
        blake3::Hasher::new()
            .update(&[number])
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    };
    for number in 0..20 {
        write(&store, number, &noise(number)).await;
        std::thread::sleep(std::time::Duration::from_millis(2)); // files have their own times
    }
    let mut kept = Vec::new();
    for number in 0..20 {
        if store.read(&drv(number)).await.unwrap().is_some() {
            kept.push(number);
        }
    }
    assert!((2..=5).contains(&kept.len()) && kept.contains(&19), "{kept:?}");
    std::fs::write(dir.path().join(".tmp-7"), "left over").unwrap();
    LogStore::open(dir.path().into(), config, &BTreeSet::new()).unwrap();
    assert!(!dir.path().join(".tmp-7").exists());
}
/// After a crash amid a build that goes on, each byte is in the log once: what was written is gone on with, and a torn
/// portion comes again. Bytes that never come are counted.
#[tokio::test]
async fn a_log_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let line = |number: u32| Bytes::from(format!("line {number:>8}\n"));
    let lines = |numbers: std::ops::Range<u32>| numbers.map(line);
    let size = line(0).len() as u64;
    let open = |leases: &[u64]| {
        let leases = leases.iter().copied().collect();
        LogStore::open(dir.path().into(), LogConfig::default(), &leases).unwrap()
    };
    let store = open(&[]);
    let mut log = store.begin(&drv(1), 7);
    log.survive();
    for (number, bytes) in (0..).zip(lines(0..50_000)) {
        assert_eq!(log.write(number * size, bytes).await, 0);
    }
    drop(log); // the end of it only was in memory
    let temporary = dir.path().join(".tmp-7");
    let written = std::fs::read(&temporary).unwrap();
    for torn in [0, 1, 1000] {
        std::fs::write(&temporary, &written[..written.len() - torn]).unwrap();
        let store = open(&[7]);
        let mut log = store.resume(&drv(1), 7).await;
        let from = log.size();
        assert!(from > 0 && from < 50_000 * size && from % size == 0, "{from}");
        assert_eq!(store.left().len(), 1);
        // the builder begins a little before, as it may
        let first = u32::try_from(from / size).unwrap() - 3;
        for (number, bytes) in (u64::from(first)..).zip(lines(first..60_000)) {
            log.write(number * size, bytes).await;
        }
        log.write(60_005 * size, line(60_005)).await;
        assert_eq!(log.finish().await.len(), 25);
        let mut expected: Vec<u8> = lines(0..60_000).flatten().collect();
        expected.extend_from_slice(format!("\n[{} bytes of this log were lost]\n", 5 * size).as_bytes());
        expected.extend_from_slice(&line(60_005));
        assert!(store.read(&drv(1)).await.unwrap().unwrap() == expected);
    }
    std::fs::write(&temporary, &written).unwrap();
    let store = open(&[7]);
    store.forget_left(8);
    assert!(temporary.exists());
    store.forget_left(7);
    assert!(!temporary.exists());
}
