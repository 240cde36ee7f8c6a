//! Every part in a process of its own, over unix sockets: store, coordinator, builder, and who asks.
//!
//! The builder here is this test, so that no machine is needed: what crosses the sockets is what is looked at.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{
    BuildError, BuildEvent, BuildIo, BuildOutcome, BuildReport, BuildRequest, BuildStats, Builder,
};
use igloo_castore::node::Node;
use igloo_castore::store::Castore;
use igloo_driver::job::{FailureKind, JobOptions, Wanted};
use igloo_driver::{Coordinator as _, Job, JobReport};
use igloo_integration::World;
use igloo_integration::builders::{serve, url};
use igloo_integration::derivations::{Recipe, Recipes};
use igloo_integration::servers::Server;
use igloo_remote::{Connection, RemoteCoordinator};
use nix_compat::store_path::StoreDir;
use tokio::sync::mpsc;

/// A builder whose program does one thing: it copies the file `bin/busybox` of its first input to its output, or fails
/// where its last argument says so.
#[derive(Debug)]
struct Copier;

#[async_trait]
impl Builder for Copier {
    async fn build(&self, request: BuildRequest, mut io: BuildIo) -> Result<BuildReport, BuildError> {
        io.events.send(BuildEvent::Started).await.unwrap();
        let bytes = Bytes::from_static(b"copying\n");
        io.events
            .send(BuildEvent::Log { sequence: 0, bytes })
            .await
            .unwrap();
        let report = |outcome| BuildReport {
            outcome,
            stats: BuildStats::default(),
        };
        if request.arguments.last().is_some_and(|last| last == "fail") {
            return Ok(report(BuildOutcome::ExitCode(3)));
        }
        let Some(Node::Directory { digest, .. }) = request.inputs.values().next() else {
            panic!("no input")
        };
        let root = io.inputs.directories.get(digest).await.unwrap().unwrap();
        let Some(Node::Directory { digest, .. }) = root.get(b"bin").cloned() else {
            panic!("no bin")
        };
        let bin = io.inputs.directories.get(&digest).await.unwrap().unwrap();
        let Some(Node::File { digest, size, .. }) = bin.get(b"busybox").cloned() else {
            panic!("no busybox")
        };
        let size_bytes = usize::try_from(size).unwrap();
        let content = io.inputs.blobs.read_range(&digest, 0, size_bytes).await.unwrap();
        for output in &request.outputs {
            io.write_file(output, content.clone()).await?;
        }
        Ok(report(BuildOutcome::Success))
    }

    fn systems(&self) -> Vec<String> {
        vec!["x86_64-linux".into()]
    }
}

async fn run(coordinator: &str, recipe: &Recipe) -> JobReport {
    let connection = Connection::open(coordinator).await.unwrap();
    let coordinator = RemoteCoordinator::new(&connection).await.unwrap();
    let job = Job {
        wanted: Wanted::Outputs(vec![(recipe.drv_path.clone(), BTreeSet::new())]),
        options: JobOptions {
            folders: vec![recipe.file.parent().unwrap().to_owned()],
            ..JobOptions::default()
        },
    };
    let (updates, mut receiver) = mpsc::channel(16);
    let watch = tokio::spawn(async move {
        let mut count = 0;
        while receiver.recv().await.is_some() {
            count += 1;
        }
        count
    });
    let report = coordinator.run(job, updates).await.unwrap();
    assert!(watch.await.unwrap() > 0, "a job without an update");
    report
}

/// Promise: a job in a coordinator of another process gives the same report; here its store and its builder are in other
/// processes, too.
#[test]
fn all_parts_apart_build_a_derivation() {
    all_parts_apart(false);
}

/// Promise: so does a builder that was given the store as well, which reads and writes there by itself.
#[test]
fn all_parts_apart_over_a_store_in_common() {
    all_parts_apart(true);
}

async fn open(store_url: &str) -> Castore {
    let store = igloo_remote::path_info::open(store_url, StoreDir::default(), Arc::default()).await;
    store.unwrap().castore
}

fn all_parts_apart(known: bool) {
    let world = World::new();
    let tool = world.path("tool");
    std::fs::write(&tool, "what is copied\n").unwrap();
    let mut recipes = Recipes::new(&world, &tool);
    let good = recipes.script("good", "copy");
    let other = recipes.script("other", "copy again");
    let bad = recipes.script("bad", "fail");
    let sockets = ["store.sock", "builder.sock", "coordinator.sock"].map(|name| world.path(name));
    let [store, builder, coordinator] = &sockets;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let _store = Server::start(&world, &["store", "daemon", "--listen"], store);
    let (store_url, builder_url) = (url(store), url(builder));
    let known = known.then(|| runtime.block_on(open(&store_url)));
    let known = known.map(|known| (store_url.clone(), known));
    let spool = world.path("spool");
    let copier = Arc::new(Copier);
    runtime.block_on(serve(copier, known.into_iter().collect(), builder, &spool));
    let served = [
        "--store",
        &store_url,
        "coordinator",
        "--builder",
        &builder_url,
        "--listen",
    ];
    let serving = Server::start(&world, &served, coordinator);

    let report = runtime.block_on(run(&url(coordinator), &good));
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(report.goals[0].is_valid);
    assert_eq!(report.built.len(), 1);
    assert_eq!(report.goals[0].outputs.values().next(), Some(&good.out));
    let again = runtime.block_on(run_quietly(&url(coordinator), &good));
    assert!(again.built.is_empty());
    let report = runtime.block_on(run(&url(coordinator), &bad));
    assert_eq!(report.failures[0].kind, FailureKind::Build);
    assert!(!report.goals[0].is_valid);

    // the command over the same sockets
    let coordinator_url = url(coordinator);
    let flags = [
        "--store",
        &store_url,
        "build",
        "--no-link",
        "--coordinator",
        &coordinator_url,
    ];
    let built = world.run(&[&flags[..], &[other.argument()]].concat());
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    assert_eq!(
        String::from_utf8_lossy(&built.stdout).trim_end(),
        other.out_path()
    );
    let dumped = world.run(&["--store", &store_url, "store", "dump", &other.out_path()]);
    let text = b"what is copied\n";
    assert!(dumped.stdout.windows(text.len()).any(|bytes| bytes == text));
    let failed = world.run(&[&flags[..], &[bad.argument()]].concat());
    assert_eq!(failed.code, Some(100), "{}", failed.stderr);
    serving.stop();
    let nobody = world.run(&[&flags[..], &[other.argument()]].concat());
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("coordinator.sock"), "{}", nobody.stderr);
}

/// A job that has nothing to do need not say anything.
async fn run_quietly(coordinator: &str, recipe: &Recipe) -> JobReport {
    let connection = Connection::open(coordinator).await.unwrap();
    let coordinator = RemoteCoordinator::new(&connection).await.unwrap();
    let job = Job {
        wanted: Wanted::Outputs(vec![(recipe.drv_path.clone(), BTreeSet::new())]),
        options: JobOptions {
            folders: vec![recipe.file.parent().unwrap().to_owned()],
            ..JobOptions::default()
        },
    };
    coordinator.run(job, mpsc::channel(1).0).await.unwrap()
}
