//! Fetches: what may go wrong on the way, and that nothing wrong is ever registered.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests")]

mod common;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::server::{Fault, Server};
use common::{
    Closure, add, bytes, chain, key, open, open_with, path, paths, quick, registered, substituters, write,
};
use igloo_binary_cache::compression::{Compression, Encoder};
use igloo_binary_cache::{
    FetchError, Progress, ProgressEvent, RequestError, SubstituteError, Substituted, Substituter as _,
};
use igloo_status::Code;
use igloo_store::Store;
use nix_compat::NarInfo;
use nix_compat::hash::{HashAlgo, NixHash};
use nix_compat::store_path::StoreDir;

/// Adds up what it hears.
#[derive(Debug, Default)]
struct Sums(Mutex<(u64, u64, usize, usize)>);

impl Progress for Sums {
    fn event(&self, event: ProgressEvent<'_>) {
        let mut sums = self.0.lock().unwrap();
        match event {
            ProgressEvent::Downloaded { size, .. } => sums.0 += size,
            ProgressEvent::Unpacked { size, .. } => sums.1 += size,
            ProgressEvent::Retrying { .. } => sums.2 += 1,
            ProgressEvent::Registered { .. } => sums.3 += 1,
            _ => {}
        }
    }
}

impl Sums {
    fn get(&self) -> (u64, u64, usize, usize) {
        *self.0.lock().unwrap()
    }
}

/// The error of fetching `base` alone; nothing of it is registered.
async fn base_error(server: &Server) -> FetchError {
    let cache = open(&server.url);
    let store = Store::memory(StoreDir::default());
    let offer = cache.look_up(&path("base")).await.unwrap().unwrap();
    let error = cache.fetch(&offer, &store, &()).await.unwrap_err();
    assert!(registered(&store).await.is_empty());
    let text = chain(&error);
    assert!(text.contains(&server.url), "the message names the URL: {text}");
    error
}

async fn served(compression: Compression) -> (Closure, Server) {
    let closure = Closure::write(compression).await;
    let server = Server::start(closure.dir.path()).await;
    (closure, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_comes_whole_with_its_bytes_counted() {
    for compression in [Compression::None, Compression::Xz, Compression::Zstd] {
        let (closure, server) = served(compression).await;
        let (store, all) = substituters(&[open(&server.url)]);
        let plan = all.plan(&[path("app")]).await.unwrap();
        assert_eq!(plan.order, [path("base"), path("lib"), path("app")]);
        let (download, nar) = (plan.download_size(), plan.nar_size());
        let sums = Sums::default();
        let answer = all.execute(plan, &sums).await;
        assert!(answer.failed.is_empty(), "{:?}", answer.failed);
        assert_eq!(registered(&store).await, paths(&["app", "base", "lib"]));
        assert_eq!(sums.get(), (download, nar, 0, 3));
        for name in ["app", "base", "lib"] {
            let ours = closure.store.path_infos.get(&path(name)).await.unwrap().unwrap();
            let mut copy = store.path_infos.get(&path(name)).await.unwrap().unwrap();
            assert_eq!(copy.signatures.len(), 1, "signatures come along");
            copy.signatures.clear();
            assert_eq!(copy, ours);
        }
        // all of it is there: nothing is asked
        let before = server.log().len();
        let again = all.substitute(&[path("app"), path("lib")], &()).await.unwrap();
        assert!(again.failed.is_empty() && again.registered.is_empty());
        assert_eq!(server.log().len(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    for no_ranges in [false, true] {
        let closure = Closure::write(Compression::Zstd).await;
        let server = Server::start_with(closure.dir.path(), Duration::ZERO, no_ranges).await;
        let archive = closure.archive("app");
        let mut options = quick();
        options.http.attempts_max = 10; // what is skipped is no progress
        let faults = [
            Fault::Truncate(100_000),
            Fault::Close,
            Fault::Stall(50_000),
            Fault::Status(503),
            Fault::Truncate(1),
        ];
        server.fault(&archive, &faults);
        let (store, all) = substituters(&[open_with(&server.url, options)]);
        let sums = Sums::default();
        let answer = all.substitute(&[path("app")], &sums).await.unwrap();
        assert!(answer.failed.is_empty(), "{:?}", answer.failed);
        assert_eq!(registered(&store).await, paths(&["app", "base", "lib"]));
        assert_eq!(sums.get().2, 5, "each failure is told");
        let ranges: Vec<String> = server
            .log()
            .iter()
            .filter(|line| line.starts_with(&format!("/{archive}")))
            .map(|line| line.split(' ').nth(1).unwrap_or("0-").to_owned())
            .collect();
        let expected = if no_ranges {
            // without ranges what came is skipped
            ["0-", "100000-", "100000-", "100000-", "100000-", "100000-"]
        } else {
            ["0-", "100000-", "100000-", "150000-", "150000-", "150001-"]
        };
        assert_eq!(ranges, expected);
    }
}

#[tokio::test]
async fn wrong_bytes_are_never_taken() {
    let (closure, server) = served(Compression::Xz).await;
    let archive = closure.archive("base");
    server.fault(&archive, &[Fault::Flip]);
    let error = base_error(&server).await;
    assert!(
        matches!(error, FetchError::Decompress { .. } | FetchError::File { .. }),
        "{error:?}"
    );
    assert_eq!(error.code(), Code::DataLoss);
    // not compressed: the file's hash shows it, and where that is not told, the NAR's
    let (closure, server) = served(Compression::None).await;
    let archive = closure.archive("base");
    server.fault(&archive, &[Fault::Flip, Fault::Flip]);
    let error = base_error(&server).await;
    assert!(matches!(error, FetchError::Add { .. }), "{error:?}");
    let without = |text: String| -> String {
        let kept = text
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("File"));
        kept.collect()
    };
    closure.edit("base", without);
    let error = base_error(&server).await;
    assert!(matches!(error, FetchError::Add { .. }), "{error:?}");
    assert_eq!(error.code(), Code::DataLoss);
    assert!(
        chain(&error).contains("is not the one declared"),
        "{}",
        chain(&error)
    );
    // a whole other archive
    let (closure, server) = served(Compression::Zstd).await;
    let other = std::fs::read(closure.dir.path().join(closure.archive("lib"))).unwrap();
    server.fault(
        &closure.archive("base"),
        &[Fault::Body(other.clone()), Fault::Body(other)],
    );
    let error = base_error(&server).await;
    assert!(
        matches!(error, FetchError::Request(RequestError::Length { .. })),
        "{error:?}"
    );
    closure.edit("base", without);
    let error = base_error(&server).await;
    assert!(matches!(error, FetchError::Add { .. }), "{error:?}");
}

#[tokio::test]
async fn lengths_that_lie_are_refused_at_once() {
    let (closure, server) = served(Compression::Zstd).await;
    let archive = closure.archive("base");
    server.fault(&archive, &[Fault::Length(1 << 60)]);
    let start = Instant::now();
    let error = base_error(&server).await;
    assert!(
        matches!(error, FetchError::Request(RequestError::TooLarge { .. })),
        "{error:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(server.requests(&archive), 1);
    // without a length the end of the connection is the end, wherever it comes; the narinfo knows better
    server.fault(&archive, &[Fault::NoLength(1000)]);
    let (store, all) = substituters(&[open(&server.url)]);
    let answer = all.substitute(&[path("base")], &()).await.unwrap();
    assert!(answer.failed.is_empty(), "{:?}", answer.failed);
    assert_eq!(registered(&store).await, paths(&["base"]));
    server.fault(&archive, &[Fault::Header("Content-Encoding: gzip\r\n")]);
    let error = base_error(&server).await;
    assert!(
        matches!(error, FetchError::Request(RequestError::Encoding { .. })),
        "{error:?}"
    );
    std::fs::remove_file(closure.dir.path().join(&archive)).unwrap();
    assert!(matches!(base_error(&server).await, FetchError::Missing { .. }));
}

#[tokio::test]
async fn a_bomb_is_stopped_at_the_size_it_should_have() {
    for compression in [Compression::Zstd, Compression::Xz] {
        let (closure, server) = served(compression).await;
        let (zeros, mut bomb) = (vec![0; 4 << 20], Vec::new());
        let mut encoder = Encoder::new(compression).unwrap();
        for last in [false, false, false, true] {
            let result = encoder.encode(&zeros, last, |bytes| {
                bomb.extend_from_slice(bytes);
                Ok(())
            });
            result.unwrap();
        }
        // signed by a trusted key, with a file hash that fits: only the sizes are wrong
        let text = std::fs::read_to_string(closure.narinfo("base")).unwrap();
        let mut info = NarInfo::parse(&StoreDir::default(), &text).unwrap();
        info.file_size = Some(bomb.len() as u64);
        info.file_hash = Some(NixHash::of(HashAlgo::Sha256, &bomb));
        info.url = "nar/bomb".into();
        info.nar_size = 100_000;
        info.signatures = vec![key().sign(info.fingerprint(&StoreDir::default()).as_bytes())];
        closure.edit("base", |_| info.print(&StoreDir::default()));
        std::fs::write(closure.dir.path().join("nar/bomb"), bomb).unwrap();
        let cache = open(&server.url);
        let store = Store::memory(StoreDir::default());
        let offer = cache.look_up(&path("base")).await.unwrap().unwrap();
        let sums = Sums::default();
        let error = cache.fetch(&offer, &store, &sums).await.unwrap_err();
        assert!(
            matches!(
                error,
                FetchError::TooLong {
                    nar_size: 100_000,
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(sums.get().1, 0, "nothing of it goes on");
    }
}

#[tokio::test]
async fn a_bomb_that_is_a_nar_is_stopped_as_well() {
    // a NAR of 64 MiB of zeros, for which a narinfo announces 1 MiB
    let store = Store::memory(StoreDir::default());
    add(&store, "base", vec![0; 64 << 20], &[]).await;
    let dir = tempfile::tempdir().unwrap();
    write(&store, dir.path(), Compression::Zstd, &["base"]).await;
    let narinfo = dir.path().join(common::narinfo_name("base"));
    let text = std::fs::read_to_string(&narinfo).unwrap();
    let mut info = NarInfo::parse(&StoreDir::default(), &text).unwrap();
    info.nar_size = 1 << 20;
    info.signatures = vec![key().sign(info.fingerprint(&StoreDir::default()).as_bytes())];
    std::fs::write(&narinfo, info.print(&StoreDir::default())).unwrap();
    let server = Server::start(dir.path()).await;
    let error = base_error(&server).await;
    assert!(
        matches!(error, FetchError::TooLong { .. } | FetchError::Add { .. }),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_fails_is_made_from_the_next() {
    let (closure, server) = served(Compression::Zstd).await;
    let second = Closure::write(Compression::Zstd).await;
    let other = Server::start(second.dir.path()).await;
    for name in ["app", "base"] {
        let file = closure.dir.path().join(closure.archive(name));
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let first = open(&format!("{}?priority=1", server.url));
    let (store, all) = substituters(&[first, open(&other.url)]);
    let answer = all.substitute(&[path("app")], &()).await.unwrap();
    assert!(answer.failed.is_empty(), "{:?}", answer.failed);
    assert_eq!(registered(&store).await, paths(&["app", "base", "lib"]));
    assert_eq!(
        server.requests(&closure.archive("lib")),
        1,
        "what is right is taken"
    );
    assert_eq!(other.requests(&second.archive("lib")), 0);
    assert_eq!(other.requests(&second.archive("app")), 1);
}

fn reason<'a>(answer: &'a Substituted, name: &str) -> &'a SubstituteError {
    &answer.failed[&path(name)]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_takes_its_referrers_along_and_the_next_call_goes_on() {
    let (closure, server) = served(Compression::Zstd).await;
    let mut options = quick();
    options.http.attempts_max = 1;
    let (store, all) = substituters(&[open_with(&server.url, options)]);
    server.fault(&closure.archive("lib"), &[Fault::Status(500)]);
    let answer = all.substitute(&[path("app")], &()).await.unwrap();
    assert_eq!(registered(&store).await, paths(&["base"]));
    assert!(matches!(reason(&answer, "lib"), SubstituteError::Fetch { .. }));
    assert!(chain(reason(&answer, "lib")).contains(&server.url));
    let SubstituteError::Reference { reference, .. } = reason(&answer, "app") else {
        panic!("{:?}", answer.failed);
    };
    assert_eq!(*reference, path("lib"));
    let answer = all.substitute(&[path("app")], &()).await.unwrap();
    assert!(answer.failed.is_empty(), "{:?}", answer.failed);
    assert_eq!(registered(&store).await, paths(&["app", "base", "lib"]));
    assert_eq!(
        server.requests(&closure.archive("base")),
        1,
        "what is there is not fetched again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_without_its_references_is_not_fetched() {
    let (closure, server) = served(Compression::Zstd).await;
    std::fs::remove_file(closure.narinfo("base")).unwrap();
    let (store, all) = substituters(&[open(&server.url)]);
    let answer = all
        .substitute(&[path("app"), path("nothing")], &())
        .await
        .unwrap();
    assert!(registered(&store).await.is_empty());
    for name in ["base", "nothing"] {
        assert!(matches!(reason(&answer, name), SubstituteError::NotFound { .. }));
    }
    for name in ["app", "lib"] {
        assert!(matches!(reason(&answer, name), SubstituteError::Reference { .. }));
        assert_eq!(server.requests(&closure.archive(name)), 0);
    }
    assert_eq!(reason(&answer, "nothing").code(), Code::NotFound);
}

#[tokio::test]
async fn a_circle_of_references_is_told() {
    let (closure, server) = served(Compression::Zstd).await;
    let text = std::fs::read_to_string(closure.narinfo("base")).unwrap();
    let mut info = NarInfo::parse(&StoreDir::default(), &text).unwrap();
    info.references.insert(path("lib"));
    info.signatures = vec![key().sign(info.fingerprint(&StoreDir::default()).as_bytes())];
    closure.edit("base", |_| info.print(&StoreDir::default()));
    let (store, all) = substituters(&[open(&server.url)]);
    let answer = all.substitute(&[path("app")], &()).await.unwrap();
    assert!(registered(&store).await.is_empty());
    for name in ["app", "lib", "base"] {
        assert!(matches!(reason(&answer, name), SubstituteError::Cycle { .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_want_the_same_fetch_it_once() {
    let (closure, server) = served(Compression::Zstd).await;
    let (store, all) = substituters(&[open(&server.url)]);
    let wanted = [path("app")];
    let calls = (0..20).map(|_| all.substitute(&wanted, &()));
    for answer in futures::future::join_all(calls).await {
        assert!(answer.unwrap().failed.is_empty());
    }
    assert_eq!(registered(&store).await, paths(&["app", "base", "lib"]));
    for name in ["app", "base", "lib"] {
        assert_eq!(server.requests(&closure.archive(name)), 1);
        assert_eq!(server.requests(&common::narinfo_name(name)), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_stops_the_work_and_can_come_back() {
    let (closure, server) = served(Compression::Zstd).await;
    let mut options = quick();
    options.http.stall_timeout = Duration::from_secs(60);
    let (store, all) = substituters(&[open_with(&server.url, options)]);
    server.fault(&closure.archive("app"), &[Fault::Stall(200_000)]);
    let wanted = [path("app")];
    let call = all.substitute(&wanted, &());
    assert!(
        tokio::time::timeout(Duration::from_millis(700), call)
            .await
            .is_err()
    );
    assert_eq!(
        registered(&store).await,
        paths(&["base", "lib"]),
        "what was whole stays"
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.left(), 1, "the connection is given up");
    let answer = all.substitute(&wanted, &()).await.unwrap();
    assert!(answer.failed.is_empty(), "{:?}", answer.failed);
    assert_eq!(registered(&store).await, paths(&["app", "base", "lib"]));
    assert_eq!(server.requests(&closure.archive("base")), 1);
}

#[tokio::test]
async fn a_stall_without_end_is_an_error_with_a_name() {
    let (closure, server) = served(Compression::Zstd).await;
    server.fault(&closure.archive("base"), &[const { Fault::Stall(0) }; 20]);
    let error = base_error(&server).await;
    assert!(
        matches!(error, FetchError::Request(RequestError::Timeout { .. })),
        "{error:?}"
    );
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_store_of_another_directory_is_not_filled() {
    let (_closure, server) = served(Compression::None).await;
    let cache = open(&server.url);
    let store = Store::memory(StoreDir::new("/other/store").unwrap());
    let offer = cache.look_up(&path("base")).await.unwrap().unwrap();
    let error = cache.fetch(&offer, &store, &()).await.unwrap_err();
    assert!(matches!(error, FetchError::StoreDir { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wide_closure_is_fetched_in_parallel_within_bounds() {
    let store = Store::memory(StoreDir::default());
    let names: Vec<String> = (0..60).map(|number| format!("leaf-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        add(&store, name, bytes(2000, number as u64), &[]).await;
    }
    let references: Vec<&str> = names.iter().map(String::as_str).collect();
    add(&store, "top", bytes(10, 0), &references).await;
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(write(&store, dir.path(), Compression::Zstd, &["top"]).await, 61);
    assert_eq!(
        write(&store, dir.path(), Compression::Zstd, &["top"]).await,
        0,
        "what is there stays"
    );
    let server = Server::start_with(dir.path(), Duration::from_millis(20), false).await;
    let (copy, all) = substituters(&[open(&server.url)]);
    let plan = all.plan(&[path("top")]).await.unwrap();
    let looking_up = server.in_flight_max();
    assert!(looking_up > 20, "references are looked up at once: {looking_up}");
    let start = Instant::now();
    let answer = all.execute(plan, &()).await;
    assert_eq!(answer.registered.len(), 61);
    assert_eq!(registered(&copy).await.len(), 61);
    let sequential = Duration::from_millis(20 * 61);
    assert!(start.elapsed() < sequential / 2, "{:?}", start.elapsed());
}
