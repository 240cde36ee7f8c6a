//! A builder in another process: events, outputs, inputs over the tunnel, cancellation, death.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::builders::{Recorder, drain, fake, io, report, request, write_outputs};
use common::{Service, blob, castore, until};
use igloo_build::{BuildError, BuildEvent, BuildIo, BuildOutcome, BuildRequest, Builder};
use igloo_castore::digest::BlobDigest;
use igloo_castore::directory::Directory;
use igloo_castore::node::{Node, NodeName};
use igloo_castore::store::Castore;
use igloo_protos::snix::build::v1 as snix;
use igloo_remote::{BuildService, ChunkLists, Connection, ContentCache, GrpcBuilder, Services};
use igloo_status::Code;
use igloo_store::output::{CollectedOutputs, OutputIngest};
use tokio::sync::mpsc;

async fn serve(builder: Arc<dyn Builder>, stores: BTreeMap<String, Castore>) -> (Service, GrpcBuilder) {
    let service = BuildService {
        builder,
        stores,
        snix_store: None,
        builds_max: 2,
        cache: Arc::new(ContentCache::default()),
        leases: None,
    };
    let service = Service::start(
        tempfile::tempdir().unwrap(),
        Services::new().with_builder(service),
    )
    .await;
    let connection = Connection::open(&service.url).await.unwrap();
    let builder = GrpcBuilder::new(&connection).await.unwrap();
    (service, builder)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_outputs_arrive_in_order() {
    let builder = fake(|request, mut io| async move {
        let machine = "fake \x1b[31m".into();
        io.events.send(BuildEvent::Preparing { machine }).await.unwrap();
        io.events.send(BuildEvent::Started).await.unwrap();
        let bytes = Bytes::from(blob(600_000, 1)); // cut on the way
        io.events
            .send(BuildEvent::Log { sequence: 0, bytes })
            .await
            .unwrap();
        let bytes = Bytes::from_static(b"end");
        io.events
            .send(BuildEvent::Log {
                sequence: 600_000,
                bytes,
            })
            .await
            .unwrap();
        io.events.send(BuildEvent::Collecting).await.unwrap();
        write_outputs(&mut io, &request.outputs, &Bytes::from(blob(300_000, 2))).await?;
        Ok(report(BuildOutcome::Success))
    });
    let (_service, client) = serve(builder, BTreeMap::new()).await;
    assert_eq!(client.systems(), ["x86_64-linux"]);
    assert_eq!(client.builds_max(), 2);
    let (io, lines, mut events) = io(&castore());
    let done = client.build(request(), io).await.unwrap();
    assert_eq!(done, report(BuildOutcome::Success));
    let mut log = Vec::new();
    let mut kinds = Vec::new();
    while let Ok(event) = events.try_recv() {
        match event {
            BuildEvent::Log { sequence, bytes } => {
                assert_eq!(sequence, log.len() as u64);
                log.extend_from_slice(&bytes);
            }
            other => kinds.push(other),
        }
    }
    assert_eq!(log, [blob(600_000, 1), b"end".to_vec()].concat());
    let machine = "fake \\u{1b}[31m".into();
    assert_eq!(
        kinds,
        [
            BuildEvent::Preparing { machine },
            BuildEvent::Started,
            BuildEvent::Collecting
        ]
    );
    let begin = "FileBegin { name: None, executable: false, size: 300000 }";
    let output = |name| {
        [
            &format!("begin {name}"),
            begin,
            "data 262144",
            "data 37856",
            "end",
        ]
        .map(String::from)
    };
    assert_eq!(
        drain(lines),
        [output("nix/store/b"), output("nix/store/a")].concat()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_builds_are_outcomes_and_failed_builders_are_errors() {
    let builder = fake(|request, _io| async move {
        match request.constraints.cores {
            0 => Ok(report(BuildOutcome::ExitCode(2))),
            1 => Err(BuildError::Unsupported {
                reason: "no network here".into(),
            }),
            2 => panic!("a bug"),
            _ => Ok(report(BuildOutcome::Success)), // without outputs
        }
    });
    let (_service, client) = serve(builder, BTreeMap::new()).await;
    let run = async |cores| {
        let (io, _lines, _events) = io(&castore());
        let mut request = request();
        request.constraints.cores = cores;
        client.build(request, io).await
    };
    assert_eq!(run(0).await.unwrap().outcome, BuildOutcome::ExitCode(2));
    let error = run(1).await.unwrap_err();
    assert!(
        matches!(&error, BuildError::Unsupported { reason } if reason == "no network here"),
        "{error:?}"
    );
    assert!(matches!(run(2).await.unwrap_err(), BuildError::Machine { .. }));
    assert!(matches!(run(3).await.unwrap_err(), BuildError::Protocol { .. }));
    let (io, _lines, _events) = io(&castore());
    let mut wrong = request();
    wrong.outputs.clear();
    assert!(matches!(
        client.build(wrong, io).await.unwrap_err(),
        BuildError::Request(_)
    ));
}

/// Puts a directory with one file into a store.
async fn input(castore: &Castore) -> (NodeName, Node, Vec<u8>) {
    let bytes = blob(3 << 20, 7);
    let mut writer = castore.blobs.writer().await.unwrap();
    writer.write(Bytes::from(bytes.clone())).await.unwrap();
    let (digest, size) = writer.finish().await.unwrap();
    let node = Node::File {
        digest,
        size,
        executable: true,
    };
    let name = NodeName::try_from("input").unwrap();
    let directory = Directory::from_entries(vec![(name.clone(), node)]).unwrap();
    castore.directories.put(vec![directory.clone()]).await.unwrap();
    (name, directory.node(), bytes)
}

/// A builder that reads its one input and hands it back as both outputs.
fn copying() -> Arc<dyn Builder> {
    fake(|request, mut io| async move {
        let Some(Node::Directory { digest, .. }) = request.inputs.values().next().cloned() else {
            panic!("no input")
        };
        let directory = io.inputs.directories.get(&digest).await.unwrap().unwrap();
        let Some(Node::File { digest, size, .. }) = directory.get(b"input").cloned() else {
            panic!("no file")
        };
        let size = usize::try_from(size).unwrap();
        let bytes = io.inputs.blobs.read_range(&digest, 0, size).await.unwrap();
        let refused = io
            .inputs
            .blobs
            .put_small(vec![(BlobDigest::of(b"x"), Bytes::from_static(b"x"))])
            .await;
        assert!(refused.is_err(), "a builder may not write to its caller's store");
        write_outputs(&mut io, &request.outputs, &bytes).await?;
        Ok(report(BuildOutcome::Success))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_come_from_the_caller() {
    let store = castore();
    let (name, node, bytes) = input(&store).await;
    let (_service, client) = serve(copying(), BTreeMap::new()).await;
    let mut request = request();
    request.inputs.insert(name, node);
    for _ in 0..3 {
        let (io, lines, _events) = io(&store);
        let done = client.build(request.clone(), io).await.unwrap();
        assert_eq!(done.outcome, BuildOutcome::Success);
        let sizes = drain(lines)
            .into_iter()
            .filter_map(|line| line.strip_prefix("data ")?.parse::<usize>().ok());
        assert_eq!(sizes.sum::<usize>(), 2 * bytes.len());
    }
    assert!(store.blobs.stat(&BlobDigest::of(b"x")).await.unwrap().is_none());
}

/// Where both sides know a store, the caller's own is not asked.
#[tokio::test(flavor = "multi_thread")]
async fn inputs_come_from_a_store_both_know() {
    let shared = castore();
    let (name, node, _) = input(&shared).await;
    let refuse = fake(|request, mut io| async move {
        let node = request.inputs.values().next().unwrap().clone();
        let Node::Directory { digest, .. } = node else {
            panic!("no directory")
        };
        io.inputs.directories.get(&digest).await.unwrap().unwrap();
        write_outputs(&mut io, &request.outputs, &Bytes::from_static(b"x")).await?;
        Ok(report(BuildOutcome::Success))
    });
    let url = "grpc+unix:///run/shared";
    let (_service, client) = serve(refuse, BTreeMap::from([(url.to_owned(), shared)])).await;
    let client = client.with_store(url);
    let mut request = request();
    request.inputs.insert(name, node);
    let (io, _lines, _events) = io(&castore()); // the caller's store is empty
    client.build(request, io).await.unwrap();
}

/// A sink into a store, and what came into it.
fn into_store(store: &Castore, request: &BuildRequest) -> (BuildIo, CollectedOutputs) {
    let (outputs, collected) = OutputIngest::new(store.clone(), request.needles.clone());
    let io = BuildIo {
        inputs: castore(),
        outputs: Box::new(outputs),
        events: mpsc::channel(64).0,
    };
    (io, collected)
}

/// Promise: where both sides know a store, outputs are put there by the builder and do not cross the call; what is known of
/// them is the same as if they had come back.
#[tokio::test(flavor = "multi_thread")]
async fn outputs_go_to_a_store_both_know() {
    let needle = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr";
    let builder = || {
        fake(move |request, mut io| async move {
            let content = [&blob(300_000, 2)[..], needle.as_bytes()].concat();
            write_outputs(&mut io, &request.outputs, &Bytes::from(content)).await?;
            Ok(report(BuildOutcome::Success))
        })
    };
    let mut request = request();
    request.needles = vec!["1mdqa9w1p6cmli6976v4wi0sw9r4p5pr".into(), needle.into()];
    let (_service, client) = serve(builder(), BTreeMap::new()).await;
    let (sink, back) = into_store(&castore(), &request);
    client.build(request.clone(), sink).await.unwrap();
    let back = back.take();
    assert!(back.iter().all(|output| output.needles == [1]), "{back:?}");

    let (shared, url) = (castore(), "grpc+unix:///run/shared");
    let stores = BTreeMap::from([(url.to_owned(), shared.clone())]);
    let (_service, client) = serve(builder(), stores).await;
    assert!(client.offer().stores.contains(url));
    let client = client.with_store(url);
    let (sink, lines, _events) = io(&castore());
    client.build(request.clone(), sink).await.unwrap();
    assert_eq!(drain(lines), ["stored nix/store/b", "stored nix/store/a"]);
    let (sink, stored) = into_store(&shared, &request);
    client.build(request.clone(), sink).await.unwrap();
    assert_eq!(stored.take(), back);
    // a builder that does not know the store sends them back
    let client = client.with_store("grpc+unix:///run/other");
    let other = castore();
    let (sink, returned) = into_store(&other, &request);
    client.build(request.clone(), sink).await.unwrap();
    assert_eq!(returned.take(), back);
}

/// A URL that names one store here and another there.
#[tokio::test(flavor = "multi_thread")]
async fn outputs_in_another_store_are_not_taken() {
    let builder = fake(move |request, mut io| async move {
        write_outputs(&mut io, &request.outputs, &Bytes::from_static(b"x")).await?;
        Ok(report(BuildOutcome::Success))
    });
    let url = "grpc+unix:///run/shared";
    let (_service, client) = serve(builder, BTreeMap::from([(url.to_owned(), castore())])).await;
    let client = client.with_store(url);
    let (sink, stored) = into_store(&castore(), &request());
    let error = client.build(request(), sink).await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert!(
        error.to_string().contains("do both use the same store?"),
        "{error}"
    );
    assert!(stored.take().is_empty());
}

/// Promise: a slow watcher slows the build, and no log byte is dropped or buffered without bound.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_holds_the_build_back() {
    const PIECE: usize = 100_000;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let builder = fake(move |_, io| {
        let sent = Arc::clone(&counter);
        async move {
            for index in 0..400u64 {
                let sequence = index * PIECE as u64;
                let bytes = Bytes::from(vec![b'x'; PIECE]);
                io.events.send(BuildEvent::Log { sequence, bytes }).await.unwrap();
                sent.store(sequence + PIECE as u64, Ordering::SeqCst);
            }
            Ok(report(BuildOutcome::ExitCode(1)))
        }
    });
    let (_service, client) = serve(builder, BTreeMap::new()).await;
    let (events, mut receiver) = mpsc::channel(1);
    let (outputs, _lines) = Recorder::new();
    let inputs = castore();
    let io = BuildIo {
        inputs,
        outputs,
        events,
    };
    let build = tokio::spawn(async move { client.build(request(), io).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held = sent.load(Ordering::SeqCst);
    assert!(held < 15_000_000, "{held} bytes were sent although nobody reads");
    let mut seen = 0;
    while let Some(event) = receiver.recv().await {
        if let BuildEvent::Log { sequence, bytes } = event {
            assert_eq!(sequence, seen);
            seen += bytes.len() as u64;
        }
    }
    assert_eq!(seen, 400 * PIECE as u64);
    assert_eq!(build.await.unwrap().unwrap().outcome, BuildOutcome::ExitCode(1));
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

/// Promise: dropping the future cancels the build.
#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_call_cancels_the_build() {
    let (builder, dropped) = endless();
    let (_service, client) = serve(builder, BTreeMap::new()).await;
    let (io, _lines, mut events) = io(&castore());
    let build = tokio::spawn(async move { client.build(request(), io).await });
    assert_eq!(events.recv().await, Some(BuildEvent::Started));
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    build.abort();
    until("the build is dropped", || dropped.load(Ordering::SeqCst) == 1).await;
}

/// Builds over `builds_max` wait for their turn, and a waiting one can be cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn builds_wait_for_their_turn() {
    let (builder, dropped) = endless();
    let (_service, client) = serve(builder, BTreeMap::new()).await;
    let start = |client: GrpcBuilder| {
        let (io, _lines, events) = io(&castore());
        (
            tokio::spawn(async move { client.build(request(), io).await }),
            events,
        )
    };
    let (first, mut first_events) = start(client.clone());
    let (_second, mut second_events) = start(client.clone());
    first_events.recv().await.unwrap();
    second_events.recv().await.unwrap();
    let (third, mut third_events) = start(client.clone());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(third_events.try_recv().is_err());
    first.abort();
    assert_eq!(third_events.recv().await, Some(BuildEvent::Started));
    third.abort();
    until("both are dropped", || dropped.load(Ordering::SeqCst) == 2).await;
}

/// A builder that dies is a failure of the machine, which is retried elsewhere and never blamed on the build.
#[tokio::test(flavor = "multi_thread")]
async fn a_builder_that_dies_is_unavailable() {
    let (builder, _dropped) = endless();
    // a runtime of its own: taking it down is as sudden as a kill
    let server = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (events, mut receiver) = mpsc::channel(8);
    let started = server.spawn(serve(builder, BTreeMap::new()));
    let (_service, client) = started.await.unwrap();
    let url = _service.url.clone();
    let connection = Connection::open(&url).await.unwrap();
    let client_here = GrpcBuilder::new(&connection).await.unwrap();
    drop(client);
    let (outputs, _lines) = Recorder::new();
    let io = BuildIo {
        inputs: castore(),
        outputs,
        events,
    };
    let build = tokio::spawn(async move { client_here.build(request(), io).await });
    assert_eq!(receiver.recv().await, Some(BuildEvent::Started));
    server.shutdown_background();
    let error = tokio::time::timeout(Duration::from_secs(10), build)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, BuildError::Machine { .. }), "{error:?}");
    assert_eq!(error.code(), Code::Unavailable);
}

/// snix's clients: one call, outputs in the shared store, needles by position.
#[tokio::test(flavor = "multi_thread")]
async fn snix_clients_are_served() {
    let store = castore();
    let builder = fake(|request, mut io| async move {
        if request.constraints.network {
            let bytes = Bytes::from_static(b"cc: no such file\n");
            io.events
                .send(BuildEvent::Log { sequence: 0, bytes })
                .await
                .unwrap();
            return Ok(report(BuildOutcome::ExitCode(1)));
        }
        let bytes = Bytes::from_static(b"has needle-two in it");
        write_outputs(&mut io, &request.outputs, &bytes).await?;
        Ok(report(BuildOutcome::Success))
    });
    let service = BuildService {
        builder,
        stores: BTreeMap::new(),
        snix_store: Some(store.clone()),
        builds_max: 1,
        cache: Arc::new(ContentCache::default()),
        leases: None,
    };
    let services = Services::new()
        .with_castore(&store, ChunkLists::Told)
        .with_builder(service);
    let service = Service::start(tempfile::tempdir().unwrap(), services).await;
    let mut client = snix::build_service_client::BuildServiceClient::new(common::channel(&service).await);
    let mut request = snix::BuildRequest {
        command_args: vec!["/bin/sh".into()],
        working_dir: "build".into(),
        inputs_dir: "nix/store".into(),
        outputs: vec!["nix/store/a".into(), "nix/store/b".into()],
        constraints: Some(snix::build_request::BuildConstraints {
            system: "x86_64-linux".into(),
            ..Default::default()
        }),
        refscan_needles: vec!["needle-one".into(), "needle-two".into()],
        ..Default::default()
    };
    let response = client.do_build(request.clone()).await.unwrap().into_inner();
    assert_eq!(response.outputs.len(), 2);
    for output in response.outputs {
        assert_eq!(output.needles, [1]);
        let node = igloo_protos::castore::root(output.output.unwrap()).unwrap();
        let Node::File { digest, .. } = node else {
            panic!("{node:?}")
        };
        assert!(store.blobs.stat(&digest).await.unwrap().is_some());
    }
    request.constraints.as_mut().unwrap().network_access = true;
    let status = client.do_build(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert!(status.message().contains("cc: no such file"), "{status}");
    request.outputs.reverse();
    let status = client.do_build(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}
