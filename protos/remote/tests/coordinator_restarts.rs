//! A coordinator that is killed while a builder in another process builds for it, and comes back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
#[path = "../../../coordinator/driver/tests/common/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::builders::{io, request};
use common::{Service, castore};
use igloo_build::lease::{Lease, LeaseError, LeaseOwner};
use igloo_build::{BuildError, BuildEvent, Builder};
use igloo_driver::{Coordinator as _, JobOptions, LocalConfig, LocalCoordinator, NamedBuilder, Update};
use igloo_remote::{BuildService, Connection, ContentCache, GrpcBuilder, LeasePolicy, Services};
use igloo_store::{Access, OpenOptions, Store, StoreUrl, open};
use nix_compat::store_path::StoreDir;
use world::{Act, Drv, FakeBuilder, World, build, job, line, run};

const VICTIM_DIR: &str = "IGLOO_RESTART_TEST_DIR";
const VICTIM_BUILDER: &str = "IGLOO_RESTART_TEST_BUILDER";
/// Lines of log before the crash, and after it: more than a coordinator keeps in memory.
const LINES: u64 = 40_000;

/// A builder at the other end of a socket.
struct Remote {
    builder: Arc<FakeBuilder>,
    service: Service,
    _spool: tempfile::TempDir,
}

impl Remote {
    async fn start(name: &str) -> Self {
        let (builder, spool) = (FakeBuilder::new(name, 2), tempfile::tempdir().unwrap());
        let runs: Arc<dyn Builder> = builder.clone();
        let service = BuildService {
            builder: runs,
            stores: BTreeMap::new(),
            snix_store: None,
            builds_max: 2,
            cache: Arc::new(ContentCache::default()),
            leases: Some(LeasePolicy::in_dir(spool.path().to_owned())),
        };
        let services = Services::new().with_builder(service);
        Self {
            builder,
            service: Service::start(tempfile::tempdir().unwrap(), services).await,
            _spool: spool,
        }
    }

    async fn client(&self) -> GrpcBuilder {
        let connection = Connection::open(&self.service.url).await.unwrap();
        GrpcBuilder::new(&connection).await.unwrap()
    }

    /// Its leases of a coordinator: ids, and bytes of log.
    async fn leases(&self, owner: &LeaseOwner) -> Vec<(u64, u64)> {
        let leases = self.client().await.leases(owner).await.unwrap();
        leases
            .into_iter()
            .map(|status| (status.lease.id(), status.log_bytes))
            .collect()
    }

    /// Waits until none is kept.
    async fn lets_go(&self, owner: &LeaseOwner) {
        for _ in 0..500 {
            if self.leases(owner).await.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a lease is never released");
    }
}

fn open_store(dir: &Path) -> Store {
    let options = OpenOptions {
        dir: StoreDir::default(),
        access: Access::Write,
        owner: "a test".to_owned(),
    };
    let dir = dir.join("store");
    open(&StoreUrl::Rocksdb { dir }, &options).unwrap()
}

/// Two derivations in the store of that folder: the second needs the first.
async fn world(dir: &Path) -> (World, [Drv; 2]) {
    let mut world = World::over(open_store(dir));
    let base = world.drv("base", "x", &[]).await;
    let top = world.drv("top", &base.out.to_string(), &[&base]).await;
    (world, [base, top])
}

/// A coordinator over that folder; a builder is called `remote`, wherever it is, and is waited for where there is one.
async fn coordinator(world: &World, dir: &Path, builder: Option<GrpcBuilder>) -> LocalCoordinator {
    let reattach_max = match &builder {
        Some(_) => Duration::from_secs(60),
        None => Duration::from_millis(50),
    };
    let builders = builder.map(|builder| NamedBuilder::new("remote", Arc::new(builder), 2));
    let base = world.config(&[]);
    let config = LocalConfig {
        builders: builders.into_iter().collect(),
        state_dir: dir.join("state"),
        ..base
    };
    let mut config = config;
    config.journal.resume = true;
    config.machine.reattach_max = reattach_max;
    config.machine.no_builder_max = Duration::from_secs(60);
    LocalCoordinator::open(config).await.unwrap()
}

/// The process that the tests kill.
#[tokio::test(flavor = "multi_thread")]
async fn victim() {
    let (Some(dir), Ok(url)) = (std::env::var_os(VICTIM_DIR), std::env::var(VICTIM_BUILDER)) else {
        return; // not a test of its own
    };
    let dir = Path::new(&dir);
    let (world, [_, top]) = world(dir).await;
    let connection = Connection::open(&url).await.unwrap();
    let builder = GrpcBuilder::new(&connection).await.unwrap();
    let coordinator = coordinator(&world, dir, Some(builder)).await;
    build(&coordinator, &[&top]).await;
}

fn start_victim(dir: &Path, builder: &Remote) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim"])
        .env(VICTIM_DIR, dir)
        .env(VICTIM_BUILDER, &builder.service.url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A coordinator in a process of its own is killed while `top` is built, amid its log. Its name, and the lease.
async fn killed_amid_a_build(dir: &Path, remote: &Remote) -> (LeaseOwner, u64) {
    remote.builder.act("top", Act::GateAmidLog(LINES));
    let mut child = start_victim(dir, remote);
    remote.builder.begun("top").await;
    let owner = std::fs::read_to_string(dir.join("state/owner")).unwrap();
    let owner = LeaseOwner::try_from(owner.trim_end()).unwrap();
    let whole = LINES * line(0).len() as u64;
    let lease = loop {
        let leases = remote.leases(&owner).await;
        if let Some((lease, _)) = leases.iter().find(|(_, bytes)| *bytes > whole) {
            // some of the log is on disk, some is not
            let log = dir.join(format!("state/logs/.tmp-{lease}"));
            if log.metadata().is_ok_and(|log| log.len() > 0) {
                break *lease;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    child.kill().unwrap();
    child.wait().unwrap();
    (owner, lease)
}

fn whole_log() -> String {
    let lines = (0..2 * LINES).map(line);
    std::iter::once("building top\n".to_owned())
        .chain(lines)
        .collect()
}

async fn log_of(coordinator: &LocalCoordinator, drv: &Drv) -> String {
    let log = coordinator.log(&drv.path).await.unwrap().unwrap();
    String::from_utf8(log.to_vec()).unwrap()
}

/// Promise: a build runs on when the coordinator is killed, and exactly once: the coordinator that comes back attends it,
/// whether it has ended by then or not, has all of its log without doubles, and commits its outputs.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_survives_its_coordinator() {
    for ends_meanwhile in [false, true] {
        let (tmp, remote) = (tempfile::tempdir().unwrap(), Remote::start("one").await);
        let (owner, lease) = killed_amid_a_build(tmp.path(), &remote).await;
        if ends_meanwhile {
            remote.builder.open_gate();
            while !remote.client().await.leases(&owner).await.unwrap()[0].is_ended {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let (world, [base, top]) = world(tmp.path()).await;
        assert!(world.is_valid(&base.out).await && !world.is_valid(&top.out).await);
        let coordinator = coordinator(&world, tmp.path(), Some(remote.client().await)).await;
        let open_gate = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            remote.builder.open_gate();
        };
        let goals = [&top];
        let wanted = run(&coordinator, job(&goals, JobOptions::default()));
        let ((report, updates), ()) = tokio::join!(wanted, open_gate);
        let report = report.unwrap();
        assert!(report.goals[0].is_valid, "{:?}", report.failures);
        assert_eq!(remote.builder.ran(), ["base", "top"], "once");
        assert!(
            log_of(&coordinator, &top).await == whole_log(),
            "whole, without doubles"
        );
        let logged = updates.iter().filter_map(|update| match update {
            Update::Build {
                event: BuildEvent::Log { bytes, .. },
                ..
            } => Some(bytes.len()),
            _ => None,
        });
        assert!(
            logged.sum::<usize>() < whole_log().len(),
            "only what is new is told"
        );
        let provenance = coordinator.provenance(&top.out).await.unwrap().unwrap();
        assert_eq!(provenance.lease, lease);
        remote.lets_go(&owner).await;
        coordinator.close().await;
    }
}

/// Promise: where the builder has died too, the build is done again, under a later lease, and its log is of that build.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_died_too_is_done_again() {
    let (tmp, remote) = (tempfile::tempdir().unwrap(), Remote::start("one").await);
    let (owner, lease) = killed_amid_a_build(tmp.path(), &remote).await;
    drop(remote);
    let remote = Remote::start("one again").await;
    let (world, [_, top]) = world(tmp.path()).await;
    let coordinator = coordinator(&world, tmp.path(), Some(remote.client().await)).await;
    build(&coordinator, &[&top]).await;
    assert_eq!(remote.builder.ran(), ["top"]);
    assert_eq!(log_of(&coordinator, &top).await, "building top\n");
    let provenance = coordinator.provenance(&top.out).await.unwrap().unwrap();
    assert!(provenance.lease > lease);
    assert!(!tmp.path().join(format!("state/logs/.tmp-{lease}")).exists());
    remote.lets_go(&owner).await;
    coordinator.close().await;
}

/// Promise: a builder that cannot be reached after a restart is not waited for without end: the build is done elsewhere under
/// a later lease, and what the first builder made under the earlier one is refused when it is heard of.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_of_an_earlier_lease_is_refused() {
    let (tmp, lost) = (tempfile::tempdir().unwrap(), Remote::start("one").await);
    let (owner, lease) = killed_amid_a_build(tmp.path(), &lost).await;
    let other = Remote::start("two").await;
    let (world, [_, top]) = world(tmp.path()).await;
    let coordinator = coordinator(&world, tmp.path(), None).await;
    let named = NamedBuilder::new("other", Arc::new(other.client().await), 1);
    coordinator.add_builder(named).await;
    build(&coordinator, &[&top]).await;
    assert_eq!(other.builder.ran(), ["top"]);
    lost.builder.open_gate();
    while !lost.client().await.leases(&owner).await.unwrap()[0].is_ended {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let named = NamedBuilder::new("remote", Arc::new(lost.client().await), 1);
    coordinator.add_builder(named).await;
    lost.lets_go(&owner).await;
    let provenance = coordinator.provenance(&top.out).await.unwrap().unwrap();
    assert!(
        provenance.lease > lease && provenance.builder == "other",
        "{provenance:?}"
    );
    assert_eq!(log_of(&coordinator, &top).await, "building top\n");
    // and the builder takes no order twice
    let again = Lease::new(owner, top.path.to_string().into(), lease).unwrap();
    let (io, _lines, _events) = io(&castore());
    let error = lost.client().await.build_leased(&again, request(), io).await;
    assert!(
        matches!(error, Err(BuildError::Lease(LeaseError::Outdated { .. }))),
        "{error:?}"
    );
    coordinator.close().await;
}

/// Promise: where nothing is resumed, closing a coordinator stops what builders keep for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_leaves_no_build() {
    let (tmp, remote) = (tempfile::tempdir().unwrap(), Remote::start("one").await);
    let (world, [_, top]) = world(tmp.path()).await;
    remote.builder.act("top", Act::Hang);
    let mut config = world.config(&[]);
    config.builders = vec![NamedBuilder::new("remote", Arc::new(remote.client().await), 1)];
    let coordinator = LocalCoordinator::open(config).await.unwrap();
    let close = async {
        remote.builder.begun("top").await;
        coordinator.close().await;
    };
    let goals = [&top];
    let (_, ()) = tokio::join!(run(&coordinator, job(&goals, JobOptions::default())), close);
    remote.builder.stopped("top").await;
}
