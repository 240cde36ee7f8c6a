//! Jobs: what is built, in which order, and what is told of it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;

use common::{Act, FakeBuilder, World, build, job, keep_going, out, run};
use igloo_driver::job::{BuildEnded, FailureKind, Wanted};
use igloo_driver::{Coordinator as _, Job, JobOptions, LocalCoordinator, Update};
use nix_compat::content_address::{ContentAddress, ContentAddressMethod};
use nix_compat::derivation::DerivationOutput;
use nix_compat::hash::{HashAlgo, NixHash};
use nix_compat::narinfo::fingerprint;
use nix_compat::signature::SecretKey;
use nix_compat::store_path::StoreDir;
use tokio::sync::mpsc;

/// Inputs before what needs them; what is registered is not built again; references are those found in the content; the
/// critical path is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_diamond_is_built_once_and_in_order() {
    let mut world = World::new();
    let base = world.drv("base", "nothing", &[]).await;
    let left = world.drv("left", &format!("uses {}", base.out), &[&base]).await;
    let right = world.drv("right", "uses nothing", &[&base]).await;
    let content = format!("{} {}", left.out, right.out);
    let top = world.drv("top", &content, &[&left, &right]).await;
    let builder = FakeBuilder::new("local", 2);
    let coordinator = world.open(&[&builder]).await;
    let report = build(&coordinator, &[&top]).await;
    let ran = builder.ran();
    assert_eq!(ran.len(), 4, "{ran:?}");
    assert_eq!((ran[0].as_str(), ran[3].as_str()), ("base", "top"));
    assert_eq!(report.goals[0].outputs[&out()], top.out);
    assert_eq!(report.built.len(), 4);
    assert_eq!(report.built[0].waited_for, None);
    assert_eq!(report.built[1].waited_for, Some(base.path));
    let last = report.built.last().unwrap();
    assert_eq!(last.waited_for, Some(report.built[2].drv.clone()));
    assert_eq!((last.input_files, last.input_bytes > 0), (3, true));
    for (path, references) in [
        (&right.out, vec![]),
        (&top.out, vec![left.out.clone(), right.out.clone()]),
    ] {
        let info = world.store.path_infos.get(path).await.unwrap().unwrap();
        assert_eq!(info.references, references.into_iter().collect());
    }
    let again = build(&coordinator, &[&top]).await;
    assert!(again.built.is_empty() && builder.ran().is_empty());
}

/// Every start has its end, in order, with the log in between.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_told() {
    let mut world = World::new();
    let drv = world.drv("x", "x", &[]).await;
    let builder = FakeBuilder::new("local", 1);
    let coordinator = world.open(&[&builder]).await;
    let (report, updates) = run(&coordinator, job(&[&drv], JobOptions::default())).await;
    assert!(report.unwrap().goals[0].is_valid);
    let position = |is_it: &dyn Fn(&Update) -> bool| updates.iter().position(is_it).unwrap();
    let started = position(
        &|update| matches!(update, Update::BuildStarted { builder, attempt: 1, .. } if builder == "local"),
    );
    let log = position(&|update| matches!(update, Update::Build { .. }));
    let ended = position(&|update| {
        matches!(
            update,
            Update::BuildEnded {
                end: BuildEnded::Registered(_),
                ..
            }
        )
    });
    assert!(started < log && log < ended, "{updates:?}");
    let log = coordinator.log(&drv.path).await.unwrap().unwrap();
    assert_eq!(log, "building x\n");
    assert_eq!(coordinator.log(&drv.out).await.unwrap(), None);
}

/// A failure stops what needs it; with keep-going the rest is built, and what was not tried is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_stops_what_needs_it() {
    let mut world = World::new();
    let bad = world.drv("bad", "x", &[]).await;
    let above = world.drv("above", "x", &[&bad]).await;
    let top = world.drv("top", "x", &[&above]).await;
    let good = world.drv("good", "x", &[]).await;
    let builder = FakeBuilder::new("local", 1);
    builder.act("bad", Act::Exit(3));
    let coordinator = world.open(&[&builder]).await;
    let (report, updates) = run(&coordinator, job(&[&top, &good], keep_going())).await;
    let report = report.unwrap();
    assert_eq!(report.failures.len(), 1);
    let failure = &report.failures[0];
    assert_eq!((&failure.path, failure.kind), (&bad.path, FailureKind::Build));
    let expected = format!("builder for '/nix/store/{}' failed with exit code 3", bad.path);
    assert_eq!(failure.headline, expected);
    assert_eq!(failure.log_tail, ["building bad"]);
    assert_eq!(
        report.not_tried.iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([&above.path, &top.path])
    );
    let [first, second] = &report.goals[..] else {
        panic!("{:?}", report.goals)
    };
    assert_eq!((first.failure, first.is_valid), (Some(0), false));
    assert_eq!((second.failure, second.is_valid), (None, true));
    let told = updates.iter().any(|update| {
        matches!(update, Update::BuildEnded { end: BuildEnded::Failed(report), .. } if report.path == bad.path)
    });
    assert!(told, "{updates:?}");
    assert!(!world.is_valid(&bad.out).await);
    // a new job tries again what failed for an earlier one
    builder.act("bad", Act::Build);
    let report = build(&coordinator, &[&top]).await;
    assert_eq!(report.built.len(), 3);
}

/// Without keep-going the first failure ends the job, and what runs for it is stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_ends_the_job() {
    let mut world = World::new();
    let bad = world.drv("bad", "x", &[]).await;
    let slow = world.drv("slow", "x", &[]).await;
    let builder = FakeBuilder::new("local", 2);
    builder.act("bad", Act::Exit(1));
    builder.act("slow", Act::Hang);
    let coordinator = world.open(&[&builder]).await;
    let report = run(&coordinator, job(&[&slow, &bad], JobOptions::default()))
        .await
        .0;
    let report = report.unwrap();
    assert_eq!(report.failures.len(), 1);
    assert!(report.goals.iter().all(|goal| !goal.is_valid));
    assert_eq!(report.goals[0].failure, None);
    builder.stopped("slow").await;
}

/// Two jobs that want one thing share its build; who comes late hears of it too.
#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_share_a_build() {
    let mut world = World::new();
    let shared = world.drv("shared", "x", &[]).await;
    let one = world.drv("one", "x", &[&shared]).await;
    let two = world.drv("two", "x", &[&shared]).await;
    let builder = FakeBuilder::new("local", 4);
    builder.act("shared", Act::Gate);
    let coordinator = world.open(&[&builder]).await;
    let watched = async |goal| {
        let (sender, mut receiver) = mpsc::channel(1);
        let listen = async {
            let mut builds = Vec::new();
            while let Some(update) = receiver.recv().await {
                if let Update::BuildStarted { drv, .. } = update {
                    builds.push(drv);
                    if builds.len() == 1 && builder.count_in() == 2 {
                        builder.open_gate();
                    }
                }
            }
            builds
        };
        let run = async { coordinator.run(job(&[goal], JobOptions::default()), sender).await };
        tokio::join!(run, listen)
    };
    let ((first, first_builds), (second, second_builds)) = tokio::join!(watched(&one), watched(&two));
    for (report, builds, goal) in [(first, first_builds, &one), (second, second_builds, &two)] {
        let report = report.unwrap();
        assert!(report.goals[0].is_valid);
        assert_eq!(builds, [shared.path.clone(), goal.path.clone()]);
        assert_eq!(report.built.len(), 2);
    }
    let ran = builder.ran();
    assert_eq!(ran.iter().filter(|name| *name == "shared").count(), 1, "{ran:?}");
}

/// Dropping a job's future stops what only it wanted.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_job_is_cancelled() {
    let mut world = World::new();
    let slow = world.drv("slow", "x", &[]).await;
    let builder = FakeBuilder::new("local", 1);
    builder.act("slow", Act::Hang);
    let coordinator = world.open(&[&builder]).await;
    tokio::select! {
        _ = run(&coordinator, job(&[&slow], JobOptions::default())) => panic!("it cannot end"),
        () = builder.begun("slow") => {}
    }
    builder.stopped("slow").await;
    assert_eq!(builder.ran(), ["slow"]);
    builder.act("slow", Act::Build);
    build(&coordinator, &[&slow]).await;
}

/// A builder that fails as a builder is not blamed on the build: another one gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_builder_is_replaced() {
    let mut world = World::new();
    let drv = world.drv("x", "x", &[]).await;
    let (broken, whole) = (FakeBuilder::new("broken", 8), FakeBuilder::new("whole", 8));
    broken.act("x", Act::Break);
    // only the broken one is there when it begins
    let coordinator = world.open(&[&broken]).await;
    let (sender, mut receiver) = mpsc::channel(1);
    let listen = async {
        let mut retried = 0;
        while let Some(update) = receiver.recv().await {
            if let Update::BuildEnded {
                end: BuildEnded::Retried { reason },
                ..
            } = update
            {
                assert!(reason.contains("the power went out"), "{reason}");
                retried += 1;
                coordinator.add_builder(whole.named()).await;
            }
        }
        retried
    };
    let run = async { coordinator.run(job(&[&drv], JobOptions::default()), sender).await };
    let (report, retried) = tokio::join!(run, listen);
    assert!(report.unwrap().goals[0].is_valid);
    assert!(retried >= 1);
    assert_eq!(whole.ran(), ["x"]);
    let provenance = coordinator.provenance(&drv.out).await.unwrap().unwrap();
    assert_eq!(provenance.builder, "whole");
    assert!(provenance.attempt >= 2);
}

/// What no builder can do is given up as such, not as the build's failure.
#[tokio::test(flavor = "multi_thread")]
async fn builders_that_all_break_are_told() {
    let mut world = World::new();
    let drv = world.drv("x", "x", &[]).await;
    let broken = FakeBuilder::new("broken", 1);
    broken.act("x", Act::Break);
    let coordinator = world.open(&[&broken]).await;
    let report = run(&coordinator, job(&[&drv], JobOptions::default()))
        .await
        .0
        .unwrap();
    let failure = &report.failures[0];
    assert_eq!(failure.kind, FailureKind::Infrastructure);
    assert!(failure.headline.contains(&drv.path.to_string()), "{failure:?}");
    assert!(failure.causes[0].contains("3 times"), "{failure:?}");
    assert_eq!(broken.ran().len(), 3);
}

/// What a builder runs when it goes is given to another.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_builders_work_is_done_elsewhere() {
    let mut world = World::new();
    let drv = world.drv("x", "x", &[]).await;
    let (lost, other) = (FakeBuilder::new("lost", 1), FakeBuilder::new("other", 1));
    lost.act("x", Act::Hang);
    let coordinator = world.open(&[&lost]).await;
    let lose = async {
        lost.begun("x").await;
        coordinator.add_builder(other.named()).await;
        assert!(coordinator.remove_builder("lost").await);
        lost.stopped("x").await;
    };
    let goals = [&drv];
    let (report, ()) = tokio::join!(build(&coordinator, &goals), lose);
    assert_eq!(report.built.len(), 1);
    assert_eq!(other.ran(), ["x"]);
}

/// Out of memory is tried once more with twice as much.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_short_of_memory_gets_more() {
    let mut world = World::new();
    let drv = world.drv("x", "x", &[]).await;
    let builder = FakeBuilder::new("local", 1);
    builder.act("x", Act::Memory(3000));
    let coordinator = world.open(&[&builder]).await;
    build(&coordinator, &[&drv]).await;
    let requests = builder.requests();
    let memory: Vec<u32> = requests
        .iter()
        .map(|request| request.constraints.memory_mib)
        .collect();
    assert_eq!(memory, [0, 4096]);
}

/// A fixed output with other content is refused and not registered; a fixed output's exit code is tried once more.
#[tokio::test(flavor = "multi_thread")]
async fn fixed_outputs_are_checked() {
    for (content, is_kept) in [("right", true), ("wrong", false)] {
        let mut world = World::new();
        let hash = NixHash::of(HashAlgo::Sha512, b"right");
        let address = ContentAddress::new(ContentAddressMethod::Flat, hash).unwrap();
        let fixed = world.derive("fixed", content, &[], DerivationOutput::CaFixed { address });
        world.add(&fixed).await;
        let builder = FakeBuilder::new("local", 1);
        let coordinator = world.open(&[&builder]).await;
        let job = job(&[&fixed], JobOptions::default());
        let report = run(&coordinator, job.clone()).await.0.unwrap();
        assert_eq!(world.is_valid(&fixed.out).await, is_kept);
        assert_eq!(report.failures.is_empty(), is_kept);
        if let Some(failure) = report.failures.first() {
            assert_eq!(failure.kind, FailureKind::HashMismatch);
            assert!(failure.headline.starts_with("hash mismatch"), "{failure:?}");
            assert_eq!(builder.ran().len(), 1);
            builder.act("fixed", Act::Exit(1));
            let report = run(&coordinator, job).await.0.unwrap();
            assert_eq!(report.failures[0].kind, FailureKind::Build);
            assert_eq!(builder.ran().len(), 2);
        }
    }
}

/// Derivations that cannot be read, paths that nobody has, systems that nobody builds for: each is named.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_named() {
    let mut world = World::new();
    let unread = world.derive("unread", "x", &[], DerivationOutput::Deferred);
    let above = world.drv("above", "x", &[]).await;
    let mut foreign = world.derive("foreign", "x", &[], DerivationOutput::Deferred);
    let mut derivation = (*foreign.derivation).clone();
    derivation.platform = b"sparc-solaris".to_vec();
    foreign.path = derivation.store_path(&StoreDir::default()).unwrap();
    foreign.derivation = derivation.into();
    world.add(&foreign).await;
    let builder = FakeBuilder::new("local", 1);
    let coordinator = world.open(&[&builder]).await;
    let report = run(&coordinator, job(&[&unread, &foreign, &above], keep_going()))
        .await
        .0;
    let report = report.unwrap();
    assert_eq!(report.failures.len(), 2, "{:?}", report.failures);
    for (drv, text) in [(&unread, "missing"), (&foreign, "sparc-solaris")] {
        let failure = report
            .failures
            .iter()
            .find(|failure| failure.path == drv.path)
            .unwrap();
        assert_eq!(failure.kind, FailureKind::Unavailable);
        let causes = failure.causes.join(": ");
        assert!(causes.contains(text), "{failure:?}");
    }
    assert!(report.goals[2].is_valid);
    let missing = Job {
        wanted: Wanted::Paths(vec![above.out.clone(), unread.out.clone()]),
        options: keep_going(),
    };
    let report = run(&coordinator, missing).await.0.unwrap();
    assert!(report.goals[0].is_valid);
    assert_eq!(report.goals[1].failure, Some(0));
    assert_eq!(report.failures[0].path, unread.out);
}

/// Every output is signed with every key, and says where it comes from.
#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_signed_and_say_where_they_come_from() {
    let mut world = World::new();
    let base = world.drv("base", "x", &[]).await;
    let drv = world.drv("x", &base.out.to_string(), &[&base]).await;
    let builder = FakeBuilder::new("local", 1);
    let mut config = world.config(&[&builder]);
    let keys = [1u8, 2].map(|seed| SecretKey::from_seed(&format!("k-{seed}"), &[seed; 32]).unwrap());
    config.secret_keys = keys.to_vec();
    let coordinator = LocalCoordinator::open(config).await.unwrap();
    build(&coordinator, &[&drv]).await;
    let info = world.store.path_infos.get(&drv.out).await.unwrap().unwrap();
    assert_eq!(info.signatures.len(), 2);
    let dir = StoreDir::default();
    let text = fingerprint(
        &dir,
        &info.path,
        &info.nar_sha256,
        info.nar_size,
        &info.references,
    );
    for (key, signature) in keys.iter().zip(&info.signatures) {
        assert!(key.public_key().verify(text.as_bytes(), signature));
    }
    let provenance = coordinator.provenance(&drv.out).await.unwrap().unwrap();
    assert_eq!((&provenance.drv, provenance.attempt), (&drv.path, 1));
    assert_eq!(provenance.builder, "local");
    assert_eq!(provenance.machine, "a fake machine");
    assert!(provenance.ordered <= provenance.ended);
    let request = &builder.requests()[1];
    assert_eq!(
        provenance.request,
        igloo_driver::local::provenance::request_digest(request)
    );
    assert_eq!(coordinator.provenance(&drv.path).await.unwrap(), None);
}

/// A check builds again what is there, and finds out what comes out differently.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_what_differs() {
    let mut world = World::new();
    let base = world.drv("base", "x", &[]).await;
    let steady = world.drv("steady", "x", &[&base]).await;
    let noisy = world.drv("noisy", "x", &[&base]).await;
    let builder = FakeBuilder::new("local", 1);
    builder.act("noisy", Act::Noise);
    let coordinator = world.open(&[&builder]).await;
    build(&coordinator, &[&steady, &noisy]).await;
    builder.ran();
    let options = JobOptions {
        check: true,
        ..keep_going()
    };
    let report = run(&coordinator, job(&[&noisy, &steady], options))
        .await
        .0
        .unwrap();
    assert_eq!(builder.ran(), ["noisy", "steady"]);
    assert_eq!(report.failures.len(), 1);
    assert_eq!(report.failures[0].kind, FailureKind::NotDeterministic);
    assert_eq!(report.goals[0].failure, Some(0));
    assert!(report.goals[1].is_valid);
}

/// A listener that does not listen slows the builds it hears of, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_listener_slows_only_its_own() {
    let mut world = World::new();
    let loud = world.drv("loud", "x", &[]).await;
    let quiet = world.drv("quiet", "x", &[]).await;
    let builder = FakeBuilder::new("local", 2);
    builder.act("loud", Act::Log(4 << 20));
    let coordinator = world.open(&[&builder]).await;
    let (sender, mut deaf) = mpsc::channel(1);
    let mut slow = Box::pin(coordinator.run(job(&[&loud], JobOptions::default()), sender));
    let goals = [&quiet];
    tokio::select! {
        _ = &mut slow => panic!("its log cannot have been heard"),
        _ = build(&coordinator, &goals) => {}
    }
    assert!(!world.is_valid(&loud.out).await);
    let mut log_bytes = 0;
    let report = loop {
        tokio::select! {
            biased;
            Some(update) = deaf.recv() => {
                if let Update::Build { event: igloo_build::BuildEvent::Log { bytes, .. }, .. } = update {
                    log_bytes += bytes.len();
                }
            }
            report = &mut slow => break report.unwrap(),
        }
    };
    assert!(report.goals[0].is_valid);
    assert_eq!(log_bytes, (4 << 20) + "building loud\n".len());
}
