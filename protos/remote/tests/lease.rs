//! Builds under leases: they survive their callers, are fenced, listed, attached to, released, and let go in time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::builders::{Recorder, drain, fake, io, path, report, request, write_outputs};
use common::{Service, blob, castore, until};
use igloo_build::lease::{Lease, LeaseError, LeaseOwner};
use igloo_build::{BuildError, BuildEvent, BuildIo, BuildOutcome, BuildReport, Builder};
use igloo_castore::digest::BlobDigest;
use igloo_castore::store::Castore;
use igloo_protos::igloo::build::v1 as wire;
use igloo_protos::igloo::build::v1::build_service_client::BuildServiceClient;
use igloo_remote::{BuildService, Connection, ContentCache, GrpcBuilder, LeasePolicy, Services};
use igloo_status::Code;
use tokio::sync::{Notify, mpsc};

async fn serve(builder: Arc<dyn Builder>, unattended_max: Duration, spool: &Path) -> Service {
    let leases = LeasePolicy {
        unattended_max,
        spool_bytes_max: 64 << 20,
        ..LeasePolicy::in_dir(spool.to_owned())
    };
    let service = BuildService {
        builder,
        stores: BTreeMap::new(),
        snix_store: None,
        builds_max: 4,
        cache: Arc::new(ContentCache::default()),
        leases: Some(leases),
    };
    Service::start(
        tempfile::tempdir().unwrap(),
        Services::new().with_builder(service),
    )
    .await
}

async fn client(service: &Service) -> GrpcBuilder {
    let connection = Connection::open(&service.url).await.unwrap();
    GrpcBuilder::new(&connection).await.unwrap()
}

fn owner(name: &str) -> LeaseOwner {
    LeaseOwner::try_from(name).unwrap()
}

fn lease(subject: &'static str, id: u64) -> Lease {
    Lease::new(owner("me"), Bytes::from_static(subject.as_bytes()), id).unwrap()
}

const LONG: Duration = Duration::from_secs(60);

/// A builder that logs `before`, waits for the bell, logs `after`, reads an input if it was given one, and writes it, or
/// some bytes, as its outputs.
fn ringing(bell: &Arc<Notify>) -> Arc<dyn Builder> {
    let bell = Arc::clone(bell);
    fake(move |request, mut io| {
        let bell = Arc::clone(&bell);
        async move {
            io.events.send(BuildEvent::Started).await.unwrap();
            let bytes = Bytes::from_static(b"before");
            io.events
                .send(BuildEvent::Log { sequence: 0, bytes })
                .await
                .unwrap();
            bell.notified().await;
            let bytes = Bytes::from_static(b"after");
            io.events
                .send(BuildEvent::Log { sequence: 6, bytes })
                .await
                .unwrap();
            io.events.send(BuildEvent::Collecting).await.unwrap();
            let wanted = BlobDigest::of(&blob(500, 9));
            let read = io.inputs.blobs.read_range(&wanted, 0, 500).await;
            match read {
                Ok(bytes) => write_outputs(&mut io, &request.outputs, &bytes).await?,
                Err(_) => return Ok(report(BuildOutcome::ExitCode(1))), // as a program does that cannot read a file
            }
            Ok(report(BuildOutcome::Success))
        }
    })
}

/// A store with the one input.
async fn inputs() -> Castore {
    let castore = castore();
    let bytes = Bytes::from(blob(500, 9));
    castore
        .blobs
        .put_small(vec![(BlobDigest::of(&bytes), bytes)])
        .await
        .unwrap();
    castore
}

/// Everything after the state events: log as text, and the report.
async fn finish(
    build: impl Future<Output = Result<BuildReport, BuildError>>,
    mut events: mpsc::Receiver<BuildEvent>,
) -> (Result<BuildReport, BuildError>, Vec<(u64, Bytes)>) {
    let done = build.await;
    let mut log = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let BuildEvent::Log { sequence, bytes } = event {
            log.push((sequence, bytes));
        }
    }
    (done, log)
}

/// Promise: a build under a lease survives the loss of its caller. The coordinator that comes back lists it, attaches with
/// the part of the log it has, gets the rest, the outputs and the report, and its own store is read from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_survives_its_caller() {
    let (bell, spool) = (Arc::new(Notify::new()), tempfile::tempdir().unwrap());
    let service = serve(ringing(&bell), LONG, spool.path()).await;
    // a runtime of its own: taking it down is as sudden as a kill
    let first = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (url, (seen, mut events)) = (service.url.clone(), mpsc::channel(64));
    first.spawn(async move {
        let connection = Connection::open(&url).await.unwrap();
        let builder = GrpcBuilder::new(&connection).await.unwrap();
        let (outputs, _lines) = Recorder::new();
        let io = BuildIo {
            inputs: castore(), // lacks the input: it is lost with the caller
            outputs,
            events: seen,
        };
        builder.build_leased(&lease("x.drv", 3), request(), io).await
    });
    while !matches!(events.recv().await, Some(BuildEvent::Log { .. })) {}
    let gone = tokio::task::spawn_blocking(move || first.shutdown_timeout(Duration::from_secs(30)));
    gone.await.unwrap();

    let client = client(&service).await;
    assert_eq!(client.offer().unattended, Some(LONG));
    let running = client.leases(&owner("me")).await.unwrap();
    assert_eq!(running.len(), 1);
    assert_eq!((&running[0].lease, running[0].log_bytes), (&lease("x.drv", 3), 6));
    assert!(!running[0].is_ended);
    assert!(client.leases(&owner("other")).await.unwrap().is_empty());
    bell.notify_one(); // nobody attends now, and its input is nowhere: it waits
    tokio::time::sleep(Duration::from_millis(200)).await;

    let (io, lines, events) = io(&inputs().await);
    let (done, log) = finish(client.attach(&lease("x.drv", 3), 6, io), events).await;
    assert_eq!(done.unwrap(), report(BuildOutcome::Success));
    assert_eq!(log, [(6, Bytes::from_static(b"after"))]);
    let begins: Vec<_> = drain(lines)
        .into_iter()
        .filter(|line| line.starts_with("begin"))
        .collect();
    assert_eq!(begins, ["begin nix/store/b", "begin nix/store/a"]);

    // what was fetched can be fetched again, until it is released
    let running = client.leases(&owner("me")).await.unwrap();
    assert!(running[0].is_ended);
    let (io, lines, events) = self::io(&castore());
    let (done, log) = finish(client.attach(&lease("x.drv", 3), 0, io), events).await;
    assert_eq!(done.unwrap().outcome, BuildOutcome::Success);
    assert_eq!(log.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 11);
    assert!(!drain(lines).is_empty());
    client.release(&lease("x.drv", 3)).await.unwrap();
    assert!(client.leases(&owner("me")).await.unwrap().is_empty());
    let (io, _lines, _events) = self::io(&castore());
    let error = client.attach(&lease("x.drv", 3), 0, io).await.unwrap_err();
    assert!(
        matches!(&error, BuildError::Lease(LeaseError::Unknown { lease: of }) if *of == lease("x.drv", 3))
    );
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0);
}

/// A store that both know is read and written while nobody attends; who attends then is told what is in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_both_know_needs_no_caller() {
    let (bell, spool) = (Arc::new(Notify::new()), tempfile::tempdir().unwrap());
    let url = "grpc+unix:///run/shared";
    let leases = LeasePolicy::in_dir(spool.path().to_owned());
    let service = BuildService {
        builder: ringing(&bell),
        stores: BTreeMap::from([(url.to_owned(), inputs().await)]),
        snix_store: None,
        builds_max: 4,
        cache: Arc::new(ContentCache::default()),
        leases: Some(leases),
    };
    let service = Service::start(
        tempfile::tempdir().unwrap(),
        Services::new().with_builder(service),
    )
    .await;
    let client = client(&service).await.with_store(url);
    started(&client, lease("x.drv", 1)).await.abort();
    bell.notify_one();
    for _ in 0..500 {
        if client.leases(&owner("me")).await.unwrap()[0].is_ended {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (io, lines, events) = io(&castore());
    let (done, _) = finish(client.attach(&lease("x.drv", 1), 0, io), events).await;
    assert_eq!(done.unwrap().outcome, BuildOutcome::Success);
    assert_eq!(drain(lines), ["stored nix/store/b", "stored nix/store/a"]);
}

/// The simple path: nothing is lost, and a build under a lease is a build.
#[tokio::test(flavor = "multi_thread")]
async fn an_attended_build_is_as_any_other() {
    let (bell, spool) = (Arc::new(Notify::new()), tempfile::tempdir().unwrap());
    let service = serve(ringing(&bell), LONG, spool.path()).await;
    let client = client(&service).await;
    bell.notify_one();
    let (io, lines, events) = io(&inputs().await);
    let (done, log) = finish(client.build_leased(&lease("x.drv", 1), request(), io), events).await;
    assert_eq!(done.unwrap(), report(BuildOutcome::Success));
    assert_eq!(log.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 11);
    assert_eq!(drain(lines).len(), 8);
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A builder that starts and then waits for ever, and a count of its builds that were dropped.
fn endless() -> (Arc<dyn Builder>, Arc<AtomicUsize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let builder = fake(move |_, io| {
        let guard = CountDrop(Arc::clone(&counter));
        async move {
            let _guard = guard;
            io.events.send(BuildEvent::Started).await.unwrap();
            std::future::pending().await
        }
    });
    (builder, dropped)
}

type Build = tokio::task::JoinHandle<Result<BuildReport, BuildError>>;

async fn started(client: &GrpcBuilder, lease: Lease) -> Build {
    let (io, _lines, mut events) = io(&castore());
    let client = client.clone();
    let build = tokio::spawn(async move { client.build_leased(&lease, request(), io).await });
    assert_eq!(events.recv().await, Some(BuildEvent::Started));
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    build
}

async fn refused(client: &GrpcBuilder, lease: Lease) -> BuildError {
    let (io, _lines, _events) = io(&castore());
    client.build_leased(&lease, request(), io).await.unwrap_err()
}

/// Promise: a lower or equal order for the same is refused, a higher one stops the lower one's build; other subjects and
/// other owners are left alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_latest_order_wins() {
    let spool = tempfile::tempdir().unwrap();
    let (builder, dropped) = endless();
    let service = serve(builder, LONG, spool.path()).await;
    let client = client(&service).await;
    let first = started(&client, lease("x.drv", 5)).await;
    let other = started(&client, lease("y.drv", 1)).await;
    for id in [4, 5] {
        let error = refused(&client, lease("x.drv", id)).await;
        let BuildError::Lease(LeaseError::Outdated { lease: of, latest: 5 }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!((of.id(), error.code()), (id, Code::FailedPrecondition));
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    let _second = started(&client, lease("x.drv", 6)).await;
    let error = first.await.unwrap().unwrap_err();
    assert!(
        matches!(error, BuildError::Lease(LeaseError::Unknown { .. })),
        "{error:?}"
    );
    until("the lower build is stopped", || {
        dropped.load(Ordering::SeqCst) == 1
    })
    .await;
    assert!(!other.is_finished());
    // also when its build is gone
    client.release(&lease("x.drv", 6)).await.unwrap();
    let error = refused(&client, lease("x.drv", 6)).await;
    assert!(
        matches!(error, BuildError::Lease(LeaseError::Outdated { .. })),
        "{error:?}"
    );
}

/// Dropping the call leaves the build; releasing stops it.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_release_stops_a_build() {
    let spool = tempfile::tempdir().unwrap();
    let (builder, dropped) = endless();
    let service = serve(builder, LONG, spool.path()).await;
    let client = client(&service).await;
    started(&client, lease("x.drv", 5)).await.abort();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    client.release(&lease("x.drv", 5)).await.unwrap();
    until("the build is stopped", || dropped.load(Ordering::SeqCst) == 1).await;
    client.release(&lease("never.drv", 1)).await.unwrap(); // nothing to do
}

/// Promise: a build that nobody attends for too long is stopped, and is nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_and_it_is_stopped() {
    let spool = tempfile::tempdir().unwrap();
    let (builder, dropped) = endless();
    let service = serve(builder, Duration::from_millis(100), spool.path()).await;
    let client = client(&service).await;
    let attended = started(&client, lease("x.drv", 5)).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(dropped.load(Ordering::SeqCst), 0, "it was attended");
    attended.abort();
    until("the build is stopped", || dropped.load(Ordering::SeqCst) == 1).await;
    for _ in 0..500 {
        if client.leases(&owner("me")).await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the lease stays");
}

/// Who attaches takes over, and the one before is told.
#[tokio::test(flavor = "multi_thread")]
async fn the_later_caller_takes_over() {
    let spool = tempfile::tempdir().unwrap();
    let (builder, dropped) = endless();
    let service = serve(builder, LONG, spool.path()).await;
    let (first, second) = (client(&service).await, client(&service).await);
    let attended = started(&first, lease("x.drv", 5)).await;
    let (io, _lines, mut events) = io(&castore());
    let taking = tokio::spawn(async move { second.attach(&lease("x.drv", 5), 0, io).await });
    assert_eq!(events.recv().await, Some(BuildEvent::Started));
    let error = attended.await.unwrap().unwrap_err();
    assert!(
        matches!(error, BuildError::Lease(LeaseError::TakenOver { .. })),
        "{error:?}"
    );
    assert!(!taking.is_finished());
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
}

/// Promise: an input that cannot be read is never blamed on the build.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_inputs_never_came_is_the_builders_failure() {
    let (bell, spool) = (Arc::new(Notify::new()), tempfile::tempdir().unwrap());
    let service = serve(ringing(&bell), LONG, spool.path()).await;
    let client = client(&service).await;
    bell.notify_one();
    let (io, _lines, _events) = io(&castore()); // the caller answers, and lacks it
    let error = client
        .build_leased(&lease("x.drv", 1), request(), io)
        .await
        .unwrap_err();
    assert!(matches!(error, BuildError::Host { .. }), "{error:?}");
    bell.notify_one();
    let (io, _lines, _events) = self::io(&castore());
    let error = client.build(request(), io).await.unwrap_err();
    assert!(matches!(error, BuildError::Host { .. }), "{error:?}");
}

/// A builder without leases says so, and runs no build under one.
#[tokio::test(flavor = "multi_thread")]
async fn a_builder_without_leases_says_so() {
    let (builder, dropped) = endless();
    let service = BuildService {
        builder,
        stores: BTreeMap::new(),
        snix_store: None,
        builds_max: 4,
        cache: Arc::new(ContentCache::default()),
        leases: None,
    };
    let service = Service::start(
        tempfile::tempdir().unwrap(),
        Services::new().with_builder(service),
    )
    .await;
    let client = client(&service).await;
    assert_eq!(client.offer().unattended, None);
    // the client knows, and makes it a build that ends with the call
    let build = started(&client, lease("x.drv", 1)).await;
    assert!(client.leases(&owner("me")).await.unwrap().is_empty());
    client.release(&lease("x.drv", 1)).await.unwrap();
    build.abort();
    until("the build is stopped", || dropped.load(Ordering::SeqCst) == 1).await;
}

/// Load and offer arrive as the builder says them.
#[tokio::test(flavor = "multi_thread")]
async fn offer_and_load_arrive() {
    let spool = tempfile::tempdir().unwrap();
    let service = serve(endless().0, LONG, spool.path()).await;
    let client = client(&service).await;
    let offer = client.offer();
    assert!(offer.systems.contains("x86_64-linux"));
    assert_eq!(offer.slots, 4);
    assert_eq!(client.load().await.unwrap().running, 0);
}

/// Messages no igloo client sends.
#[tokio::test(flavor = "multi_thread")]
async fn strange_callers_are_refused() {
    let (bell, spool) = (Arc::new(Notify::new()), tempfile::tempdir().unwrap());
    let service = serve(ringing(&bell), LONG, spool.path()).await;
    let ours = client(&service).await;
    let _build = started(&ours, lease("x.drv", 1)).await;
    let mut raw = BuildServiceClient::new(common::channel(&service).await);
    let message = |owner: &str, subject: &[u8]| wire::Lease {
        owner: owner.into(),
        subject: Bytes::copy_from_slice(subject),
        id: 1,
    };
    for lease in [
        None,
        Some(message("", b"x")),
        Some(message("a b", b"x")),
        Some(message("a", b"")),
    ] {
        let request = wire::ReleaseLeaseRequest { lease: lease.clone() };
        let status = raw.release_lease(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{lease:?}");
    }
    let request = wire::ListLeasesRequest {
        owner: "x".repeat(65),
    };
    let status = raw.list_leases(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let attach = wire::AttachRequest {
        lease: Some(message("me", b"x.drv")),
        log_from: 0,
        input_stores: vec![wire::InputStore::default(); 5000],
    };
    let status = raw.attach(attach.clone()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let attach = wire::AttachRequest {
        input_stores: Vec::new(),
        ..attach
    };
    let status = raw.attach(attach).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    // more of the log than there is
    let (io, _lines, _events) = io(&castore());
    let error = ours.attach(&lease("x.drv", 1), 1 << 40, io).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error:?}");
    assert_eq!(path("a").to_string(), "a");
}
