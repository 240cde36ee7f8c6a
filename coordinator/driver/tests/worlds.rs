//! Evaluations, restarts, substituters, dry runs: the coordinator and its neighbours.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use common::{Act, Drv, FakeBuilder, FakeEvaluator, World, build, evaluated, job, keep_going, out, run};
use futures::future;
use igloo_binary_cache::{StoreSubstituter, Substituter, Trust};
use igloo_driver::job::Wanted;
use igloo_driver::{Coordinator as _, Job, JobError, JobOptions, LocalCoordinator, Update};
use igloo_evaluator::{EvaluateError, EvaluateEvent, EvaluateIo, EvaluateReport, Goal};
use igloo_status::Code;
use igloo_store::Store;
use igloo_store_io::RealiseError;
use nix_compat::content_address::ContentAddressMethod;
use nix_compat::derivation::DerivationOutput;
use nix_compat::hash::HashAlgo;
use nix_compat::store_path::{StoreDir, StorePathName, downstream_placeholder};
use tokio::sync::mpsc;

async fn tell(io: &EvaluateIo, drv: &Drv) {
    let (path, derivation) = (drv.path.clone(), drv.derivation.clone());
    io.events
        .send(EvaluateEvent::Derivation { path, derivation })
        .await
        .unwrap();
}

async fn tell_goal(io: &EvaluateIo, attribute: &str, drv: &Drv) {
    let goal = Goal {
        attribute: attribute.to_owned(),
        drv: drv.path.clone(),
        outputs: BTreeSet::new(),
    };
    io.events.send(EvaluateEvent::Goal(goal)).await.unwrap();
}

fn wanted(drv: &Drv) -> Vec<igloo_store_io::Wanted> {
    vec![igloo_store_io::Wanted::Outputs {
        derivation: drv.path.clone(),
        outputs: BTreeSet::from([out()]),
    }]
}

async fn open_with(
    world: &World,
    builder: &Arc<FakeBuilder>,
    evaluator: Arc<FakeEvaluator>,
) -> LocalCoordinator {
    let mut config = world.config(&[builder]);
    config.evaluator = Some(evaluator);
    LocalCoordinator::open(config).await.unwrap()
}

/// Two imports from derivation that do not depend on each other are built at the same time, though a long build has the
/// only ordinary slot; the goals found after them are built too, in the order of the request.
#[tokio::test(flavor = "multi_thread")]
async fn imports_from_derivation_are_in_flight_together() {
    let mut world = World::new();
    let long = world.drv("long", "x", &[]).await;
    let (left, right) = (
        world.drv("left", "l", &[]).await,
        world.drv("right", "r", &[]).await,
    );
    let goal = world.drv("goal", "g", &[]).await;
    let builder = FakeBuilder::new("local", 1);
    builder.act("long", Act::Gate);
    builder.act("left", Act::Meet(2));
    builder.act("right", Act::Meet(2));
    let drvs = [long.clone(), left.clone(), right.clone(), goal.clone()];
    let opened = builder.clone();
    let evaluator = FakeEvaluator::new(move |io: EvaluateIo| {
        let (drvs, builder) = (drvs.clone(), opened.clone());
        async move {
            for drv in &drvs {
                tell(&io, drv).await;
            }
            let [long, left, right, goal] = &drvs;
            tell_goal(&io, "long", long).await;
            builder.begun("long").await;
            let realise = |drv| io.realiser.realise(wanted(drv));
            for result in future::join_all([left, right].map(realise)).await {
                assert_eq!(result.unwrap().len(), 1);
            }
            builder.open_gate();
            tell_goal(&io, "goal", goal).await;
            Ok(EvaluateReport::default())
        }
    });
    let mut config = world.config(&[&builder]);
    config.evaluator = Some(evaluator);
    config.builders[0].slots_for_evaluation = 2;
    let coordinator = LocalCoordinator::open(config).await.unwrap();
    let (report, updates) = run(&coordinator, evaluated(JobOptions::default())).await;
    let report = report.unwrap();
    let names: Vec<&str> = report
        .goals
        .iter()
        .map(|goal| goal.goal.attribute.as_str())
        .collect();
    assert_eq!(names, ["long", "goal"]);
    assert!(report.goals.iter().all(|goal| goal.is_valid));
    assert!(report.evaluation.is_some());
    assert_eq!(report.built.len(), 4);
    let for_evaluation: BTreeSet<_> = updates
        .iter()
        .filter_map(|update| match update {
            Update::BuildStarted {
                drv,
                for_evaluation: true,
                ..
            } => Some(drv.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(for_evaluation, BTreeSet::from([left.path, right.path]));
}

/// An import that fails is told to the evaluation, in words; other goals of the job are not stopped by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_import_is_told_to_the_evaluation() {
    let mut world = World::new();
    let (bad, goal) = (
        world.drv("bad", "x", &[]).await,
        world.drv("goal", "g", &[]).await,
    );
    let builder = FakeBuilder::new("local", 1);
    builder.act("bad", Act::Exit(7));
    let drvs = [bad.clone(), goal.clone()];
    let evaluator = FakeEvaluator::new(move |io: EvaluateIo| {
        let drvs = drvs.clone();
        async move {
            for drv in &drvs {
                tell(&io, drv).await;
            }
            let error = io.realiser.realise(wanted(&drvs[0])).await.unwrap_err();
            let RealiseError::Build {
                derivation,
                reason,
                exit,
            } = error
            else {
                panic!("{error}")
            };
            assert_eq!((derivation, exit), (drvs[0].path.clone(), 100));
            assert!(reason.contains("failed with exit code 7"), "{reason}");
            tell_goal(&io, "", &drvs[1]).await;
            Ok(EvaluateReport::default())
        }
    });
    let coordinator = open_with(&world, &builder, evaluator).await;
    let report = run(&coordinator, evaluated(JobOptions::default()))
        .await
        .0
        .unwrap();
    assert!(report.goals[0].is_valid);
}

/// An evaluation that fails ends the job with its own error; a failed goal ends the evaluation.
#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_and_its_goals_end_together() {
    let mut world = World::new();
    let bad = world.drv("bad", "x", &[]).await;
    let builder = FakeBuilder::new("local", 1);
    builder.act("bad", Act::Exit(1));
    let fails = FakeEvaluator::new(|_| async {
        Err(EvaluateError::Failed {
            text: "error: undefined variable 'x'".into(),
            exit: 1,
            code: Code::InvalidArgument,
        })
    });
    let coordinator = open_with(&world, &builder, fails).await;
    let result = run(&coordinator, evaluated(JobOptions::default())).await.0;
    assert!(matches!(
        result,
        Err(JobError::Evaluate(EvaluateError::Failed { exit: 1, .. }))
    ));
    drop(coordinator);
    let goal = bad.clone();
    let endless = FakeEvaluator::new(move |io: EvaluateIo| {
        let goal = goal.clone();
        async move {
            tell_goal(&io, "", &goal).await;
            future::pending().await
        }
    });
    let coordinator = reopen(&world, &builder, Some(endless), false).await;
    let report = run(&coordinator, evaluated(JobOptions::default()))
        .await
        .0
        .unwrap();
    assert_eq!(report.failures[0].path, bad.path);
    assert!(report.evaluation.is_none());
}

/// Opens a coordinator where another was dropped, as soon as that has let go of the state.
async fn reopen(
    world: &World,
    builder: &Arc<FakeBuilder>,
    evaluator: Option<Arc<FakeEvaluator>>,
    resume: bool,
) -> LocalCoordinator {
    let mut config = world.config(&[builder]);
    config.journal.resume = resume;
    config.evaluator = evaluator.map(|evaluator| evaluator as _);
    loop {
        match LocalCoordinator::open(config.clone()).await {
            Ok(coordinator) => return coordinator,
            Err(error) => assert_eq!(error.code(), Code::FailedPrecondition, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

/// What was wanted when the process died is built after a restart, if that is asked for, under later leases.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on() {
    let mut world = World::new();
    let base = world.drv("base", "x", &[]).await;
    let top = world.drv("top", "x", &[&base]).await;
    let hanging = FakeBuilder::new("local", 1);
    hanging.act("top", Act::Hang);
    let coordinator = reopen(&world, &hanging, None, true).await;
    // the process dies: the job's future is never dropped before the coordinator
    let died = async {
        hanging.begun("top").await;
        coordinator.close().await;
    };
    let goals = [&top];
    let (result, ()) = tokio::join!(run(&coordinator, job(&goals, JobOptions::default())), died);
    assert!(matches!(result.0, Err(JobError::Gone { .. })));
    let first = coordinator.provenance(&base.out).await.unwrap().unwrap();
    drop(coordinator);
    let builder = FakeBuilder::new("local", 1);
    let coordinator = reopen(&world, &builder, None, true).await;
    builder.begun("top").await;
    // whoever asks again shares what goes on
    build(&coordinator, &[&top]).await;
    assert_eq!(builder.ran(), ["top"]);
    let second = coordinator.provenance(&top.out).await.unwrap().unwrap();
    assert!(second.lease > first.lease + 1, "{first:?} {second:?}");
}

/// Without being asked to resume, a restart forgets what was wanted, and goes on counting leases.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_may_forget() {
    let mut world = World::new();
    let (old, new) = (world.drv("old", "x", &[]).await, world.drv("new", "x", &[]).await);
    let hanging = FakeBuilder::new("local", 1);
    hanging.act("old", Act::Hang);
    let coordinator = reopen(&world, &hanging, None, false).await;
    let died = async {
        hanging.begun("old").await;
        coordinator.close().await;
    };
    let goals = [&old];
    let (result, ()) = tokio::join!(run(&coordinator, job(&goals, JobOptions::default())), died);
    assert!(matches!(result.0, Err(JobError::Gone { .. })));
    drop(coordinator);
    let builder = FakeBuilder::new("local", 1);
    let coordinator = reopen(&world, &builder, None, false).await;
    build(&coordinator, &[&new]).await;
    assert_eq!(builder.ran(), ["new"]);
    assert!(coordinator.provenance(&new.out).await.unwrap().unwrap().lease > 1);
}

/// Where a crash comes: after so many records or updates, and so many steps more.
#[derive(Clone, Copy, Debug)]
enum CrashPoint {
    Records(usize, usize),
    Updates(usize, usize),
}

impl CrashPoint {
    async fn come(self, world: &World, mut updates: mpsc::Receiver<Update>) {
        let steps = match self {
            Self::Records(count, steps) => {
                let journal = world.tmp.path().join("state/journal");
                let listen = async { while updates.recv().await.is_some() {} };
                let records = async {
                    while std::fs::read_to_string(&journal).unwrap().lines().count() < count {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! { () = listen => {}, () = records => {} }
                steps
            }
            Self::Updates(count, steps) => {
                for _ in 0..count {
                    updates.recv().await;
                }
                steps
            }
        };
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
    }
}

/// A thread with a runtime of its own, so that all tasks can be dropped wherever they are.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Killed at any point, the coordinator comes back, and a job that asks again gets all it wants; nothing that is registered
/// is ever less than whole, or without a word on where it comes from.
#[test]
fn a_crash_at_any_point_loses_nothing() {
    let steps = [0, 3];
    let points = (1..24).flat_map(|count| steps.map(|steps| CrashPoint::Records(count, steps)));
    let updates = (1..14)
        .step_by(2)
        .flat_map(|count| steps.map(|steps| CrashPoint::Updates(count, steps)));
    let mut died_with = BTreeSet::new();
    for point in points.chain(updates) {
        let runtime_before = runtime();
        let (world, drvs) = runtime_before.block_on(async {
            let mut world = World::new();
            let base = world.drv("base", "x", &[]).await;
            let left = world.drv("left", &base.out.to_string(), &[&base]).await;
            let right = world.drv("right", &base.out.to_string(), &[&base]).await;
            let content = format!("{} {}", left.out, right.out);
            let top = world.drv("top", &content, &[&left, &right]).await;
            (world, [base, left, right, top])
        });
        let builder = FakeBuilder::new("local", 2);
        runtime_before.block_on(async {
            let coordinator = world.open(&[&builder]).await;
            let (sender, receiver) = mpsc::channel(1);
            tokio::select! {
                biased;
                () = point.come(&world, receiver) => {}
                _ = coordinator.run(job(&[&drvs[3]], JobOptions::default()), sender) => {}
            }
        });
        drop(runtime_before);
        runtime().block_on(async {
            let mut valid = 0;
            for drv in &drvs {
                if world.is_valid(&drv.out).await {
                    world.store.closure([drv.out.clone()]).await.unwrap();
                    valid += 1;
                }
            }
            died_with.insert(valid);
            let coordinator = reopen(&world, &builder, None, true).await;
            build(&coordinator, &[&drvs[3]]).await;
            for drv in &drvs {
                let provenance = coordinator.provenance(&drv.out).await.unwrap();
                assert!(provenance.is_some(), "{point:?}");
            }
            coordinator.close().await;
        });
    }
    // the points were spread over the whole job
    assert!(died_with.len() >= 3, "{died_with:?}");
}

/// What a substituter has is fetched with what it refers to, and told; what it lacks is built; nothing is fetched for jobs
/// that do not want that.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_substituter_has_is_fetched() {
    let mut other = World::new();
    let mut world = World::new();
    let mut drvs = Vec::new();
    for world in [&mut other, &mut world] {
        let base = world.drv("base", "x", &[]).await;
        let left = world.drv("left", &base.out.to_string(), &[&base]).await;
        let content = format!("{} and more", left.out);
        let top = world.drv("top", &content, &[&left]).await;
        drvs = vec![base, left, top];
    }
    let [base, left, top] = &drvs[..] else {
        unreachable!()
    };
    let builder = FakeBuilder::new("local", 1);
    build(&other.open(&[&builder]).await, &[left]).await;
    builder.ran();
    let source = StoreSubstituter::new("other".into(), other.store.clone(), Trust::Anyone, 40);
    let mut config = world.config(&[&builder]);
    config.substituters = vec![Arc::new(source) as Arc<dyn Substituter>];
    let coordinator = LocalCoordinator::open(config).await.unwrap();
    let options = JobOptions {
        substitute: true,
        ..JobOptions::default()
    };
    let dry = JobOptions {
        dry_run: true,
        ..options.clone()
    };
    let report = run(&coordinator, job(&[top], dry)).await.0.unwrap();
    let plan = report.plan.unwrap();
    assert_eq!(plan.builds, std::slice::from_ref(&top.path));
    let fetches: Vec<_> = plan.fetches.iter().map(|(path, ..)| path.clone()).collect();
    assert_eq!(fetches, [base.out.clone(), left.out.clone()]);
    assert_eq!(
        (report.goals[0].is_valid, &report.goals[0].outputs[&out()]),
        (false, &top.out)
    );
    assert!(builder.ran().is_empty());
    let (report, updates) = run(&coordinator, job(&[top], options)).await;
    let report = report.unwrap();
    assert!(report.goals[0].is_valid);
    assert_eq!(builder.ran(), ["top"]);
    let fetched: Vec<_> = report
        .fetched
        .iter()
        .map(|fetched| fetched.path.clone())
        .collect();
    assert_eq!(fetched, [base.out.clone(), left.out.clone()]);
    assert_eq!(report.built[0].waited_for, Some(left.out.clone()));
    for path in &fetched {
        let about = |update: &Update| match update {
            Update::FetchStarted { path, .. } => Some((path.clone(), true)),
            Update::FetchEnded { path, failure: None } => Some((path.clone(), false)),
            _ => None,
        };
        let told: Vec<_> = updates
            .iter()
            .filter_map(about)
            .filter(|(other, _)| other == path)
            .collect();
        assert_eq!(told, [(path.clone(), true), (path.clone(), false)]);
    }
    // a plain job builds what it could have fetched
    let fresh = World::over(Store::memory(StoreDir::default()));
    for drv in &drvs {
        fresh.add(drv).await;
    }
    let source = StoreSubstituter::new("other".into(), other.store.clone(), Trust::Anyone, 40);
    let mut config = fresh.config(&[&builder]);
    config.substituters = vec![Arc::new(source) as Arc<dyn Substituter>];
    let coordinator = LocalCoordinator::open(config).await.unwrap();
    build(&coordinator, &[left]).await;
    assert_eq!(builder.ran(), ["base", "left"]);
}

/// Paths that follow from what is built: found by building, remembered over a restart, and what resolves to the same is not
/// built again.
#[tokio::test(flavor = "multi_thread")]
async fn floating_outputs_are_found_and_remembered() {
    let mut world = World::new();
    let floating = || DerivationOutput::CaFloating {
        method: ContentAddressMethod::Recursive,
        algo: HashAlgo::Sha256,
    };
    let base = world.derive("base", "x", &[], floating());
    // other words, the same content
    let twin = world.derive_noted("base", "x", &[], floating(), "another");
    assert_ne!(base.path, twin.path);
    let above = |world: &mut World, input: &Drv| {
        let content = downstream_placeholder(&input.path, &out()).unwrap();
        world.derive("top", &content, &[input], floating())
    };
    let (top, above_twin) = (above(&mut world, &base), above(&mut world, &twin));
    for drv in [&base, &twin, &top, &above_twin] {
        world.add(drv).await;
    }
    let builder = FakeBuilder::new("local", 1);
    let coordinator = reopen(&world, &builder, None, false).await;
    let report = build(&coordinator, &[&top]).await;
    assert_eq!(builder.ran(), ["base", "top"]);
    let path = report.goals[0].outputs[&out()].clone();
    let info = world.store.path_infos.get(&path).await.unwrap().unwrap();
    let base_path = build(&coordinator, &[&base]).await.goals[0].outputs[&out()].clone();
    assert_eq!(info.references, BTreeSet::from([base_path]));
    assert!(info.content_address.is_some());
    assert!(builder.ran().is_empty());
    coordinator.close().await;
    drop(coordinator);
    let coordinator = reopen(&world, &builder, None, false).await;
    let report = build(&coordinator, &[&top]).await;
    assert_eq!(report.goals[0].outputs[&out()], path);
    assert!(builder.ran().is_empty());
    let report = build(&coordinator, &[&above_twin]).await;
    assert_eq!(report.goals[0].outputs[&out()], path);
    assert_eq!(builder.ran(), ["base"]);
}

/// An offer whose signature nobody trusts is as good as none; a path that is only offered so is missing.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_vouches_for_is_built() {
    let mut other = World::new();
    let mut world = World::new();
    let theirs = other.drv("x", "x", &[]).await;
    let ours = world.drv("x", "x", &[]).await;
    let builder = FakeBuilder::new("local", 1);
    build(&other.open(&[&builder]).await, &[&theirs]).await;
    builder.ran();
    let source = StoreSubstituter::new("other".into(), other.store.clone(), Trust::Keys(Vec::new()), 40);
    let mut config = world.config(&[&builder]);
    config.substituters = vec![Arc::new(source) as Arc<dyn Substituter>];
    let coordinator = LocalCoordinator::open(config).await.unwrap();
    let options = JobOptions {
        substitute: true,
        ..keep_going()
    };
    let paths = Job {
        wanted: Wanted::Paths(vec![ours.out.clone()]),
        options: options.clone(),
    };
    let report = run(&coordinator, paths).await.0.unwrap();
    assert_eq!(report.goals[0].failure, Some(0));
    let report = run(&coordinator, job(&[&ours], options)).await.0.unwrap();
    assert!(report.goals[0].is_valid);
    assert_eq!(builder.ran(), ["x"]);
}

/// Derivations may lie in a folder, with their sources beside them; a source with another content is as good as missing.
#[tokio::test(flavor = "multi_thread")]
async fn sources_beside_a_derivation_are_taken_in() {
    let dir = StoreDir::default();
    let mut world = World::new();
    let folder = world.tmp.path().join("folder");
    let tree = folder.join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("file"), "content").unwrap();
    let name = StorePathName::new("source").unwrap();
    let options = igloo_castore::ingest::PathOptions::default();
    let scratch = Store::memory(dir.clone());
    let source = scratch.add_path(&name, &tree, &options).await.unwrap().path;
    let mut drv = world.derive("x", "x", &[], DerivationOutput::Deferred);
    let mut derivation = (*drv.derivation).clone();
    derivation.input_srcs.insert(source.clone());
    drv.path = derivation.store_path(&dir).unwrap();
    std::fs::write(
        folder.join(drv.path.to_string()),
        derivation.to_aterm(&dir).unwrap(),
    )
    .unwrap();
    let beside = folder.join(source.to_string());
    std::fs::write(&beside, "something else").unwrap();
    let builder = FakeBuilder::new("local", 1);
    let coordinator = world.open(&[&builder]).await;
    let options = JobOptions {
        folders: vec![folder],
        ..JobOptions::default()
    };
    let report = run(&coordinator, job(&[&drv], options.clone())).await.0.unwrap();
    assert_eq!(report.failures[0].path, source);
    std::fs::remove_file(&beside).unwrap();
    std::fs::rename(&tree, &beside).unwrap();
    let report = run(&coordinator, job(&[&drv], options)).await.0.unwrap();
    assert!(report.goals[0].is_valid, "{report:?}");
    assert!(world.is_valid(&source).await);
    assert_eq!(builder.requests()[0].inputs.len(), 1);
}

/// A dry run says what would be built, inputs first, and builds only what the evaluation itself needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_builds_for_the_evaluation_only() {
    let mut world = World::new();
    let import = world.drv("import", "i", &[]).await;
    let base = world.drv("base", "b", &[]).await;
    let top = world.drv("top", "t", &[&base]).await;
    let builder = FakeBuilder::new("local", 1);
    let drvs = [import.clone(), base.clone(), top.clone()];
    let evaluator = FakeEvaluator::new(move |io: EvaluateIo| {
        let drvs = drvs.clone();
        async move {
            for drv in &drvs {
                tell(&io, drv).await;
            }
            io.realiser.realise(wanted(&drvs[0])).await.unwrap();
            tell_goal(&io, "top", &drvs[2]).await;
            Ok(EvaluateReport::default())
        }
    });
    let coordinator = open_with(&world, &builder, evaluator).await;
    let options = JobOptions {
        dry_run: true,
        ..JobOptions::default()
    };
    let report = run(&coordinator, evaluated(options)).await.0.unwrap();
    assert_eq!(builder.ran(), ["import"]);
    assert_eq!(report.plan.unwrap().builds, [base.path.clone(), top.path.clone()]);
    assert!(report.goals[0].failure.is_none() && !report.goals[0].is_valid);
    assert!(!world.is_valid(&base.out).await);
}

/// One process at a time uses a state folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_has_one_owner() {
    let world = World::new();
    let builder = FakeBuilder::new("local", 1);
    let _first = world.open(&[&builder]).await;
    let second = LocalCoordinator::open(world.config(&[&builder])).await;
    assert_eq!(second.unwrap_err().code(), Code::FailedPrecondition);
}

/// A log has as many bytes as are allowed, and says that it was cut.
#[tokio::test(flavor = "multi_thread")]
async fn logs_are_bounded() {
    let mut world = World::new();
    let drv = world.drv("x", "x", &[]).await;
    let builder = FakeBuilder::new("local", 1);
    builder.act("x", Act::Log(1 << 20));
    let mut config = world.config(&[&builder]);
    config.logs.log_bytes_max = 5000;
    let coordinator = LocalCoordinator::open(config).await.unwrap();
    build(&coordinator, &[&drv]).await;
    let log = coordinator.log(&drv.path).await.unwrap().unwrap();
    assert!(
        log.starts_with(b"building x\nxxx") && log.len() < 5100,
        "{}",
        log.len()
    );
    assert!(log.ends_with(b"[the rest of this log was not kept]\n"));
    let (sender, _receiver) = mpsc::channel(1);
    let empty: Job = job(&[], JobOptions::default());
    assert!(coordinator.run(empty, sender).await.unwrap().goals.is_empty());
    let _: Option<Bytes> = coordinator.log(&drv.out).await.unwrap();
}
