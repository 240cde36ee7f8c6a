//! Random graphs in a world where things go wrong.
//!
//! `IGLOO_SIM_GRAPHS` sets how many (10,000), `IGLOO_SIM_SEED` where to begin. A failure names its seed.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "it is a test")]

mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use igloo_coordinator::{
    Answer, BuilderOffer, ClientId, ClientOptions, Config, Hedge, OnFailure, Priority, Purpose, Target, Time,
    Want, WantId,
};
use sim::{End, Faults, Graph, Rng, Setup, Shape, World};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Runs the seeds on all cores.
fn for_seeds(count: u64, run: impl Fn(u64) + Sync) {
    let first = number("IGLOO_SIM_SEED", 1);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let run = &run;
            scope.spawn(move || {
                let mut seed = first + thread;
                while seed < first + count {
                    run(seed);
                    seed += threads;
                }
            });
        }
    });
}

fn builders(rng: &mut Rng) -> Vec<BuilderOffer> {
    let count = 1 + rng.below(3);
    let mut offers: Vec<BuilderOffer> = (0..count)
        .map(|_| BuilderOffer {
            systems: if rng.chance(50) {
                vec!["a-linux"]
            } else {
                vec!["a-linux", "b-linux"]
            }
            .into_iter()
            .map(str::to_owned)
            .collect(),
            memory_mib: if rng.chance(50) { 0 } else { 4096 },
            slots: 1 + u32::try_from(rng.below(3)).unwrap(),
            slots_for_evaluation: u32::try_from(rng.below(2)).unwrap(),
            network: true,
            ..BuilderOffer::default()
        })
        .collect();
    offers[0].systems.insert("b-linux".into());
    offers
}

fn wants(rng: &mut Rng, graph: &Graph) -> Vec<(Time, ClientId, Want)> {
    let count = 1 + rng.below(4);
    (0..count)
        .map(|id| {
            let drv = &graph.drvs[graph.drvs.len() - 1 - rng.index(graph.drvs.len().div_ceil(2))];
            let mut outputs: BTreeSet<_> = drv.info.outputs.iter().map(|(name, _)| name.clone()).collect();
            if rng.chance(50) {
                outputs.clear();
            } else if rng.chance(50) {
                outputs.pop_last();
            }
            let target = Target::Outputs {
                drv: drv.info.path.clone(),
                outputs,
            };
            let purposes = [Purpose::ImportFromDerivation, Purpose::Goal, Purpose::Prefetch];
            let priorities = [Priority::High, Priority::Normal, Priority::Low];
            let want = Want {
                id: WantId(id),
                target,
                purpose: purposes[rng.index(3)],
                priority: priorities[rng.index(3)],
            };
            (Time::from_millis(rng.below(30_000)), ClientId(rng.below(2)), want)
        })
        .collect()
}

fn setup(seed: u64, drvs_max: u64) -> Setup {
    setup_of(seed, drvs_max, true)
}

fn setup_of(seed: u64, drvs_max: u64, shared_fixed: bool) -> Setup {
    let mut rng = Rng::new(seed);
    let drvs = usize::try_from(2 + rng.below(drvs_max - 1)).unwrap();
    let shape = Shape {
        shared_fixed,
        ..Shape::small(drvs)
    };
    let graph = Graph::random(&mut rng, shape);
    let sources = graph
        .drvs
        .iter()
        .flat_map(|drv| drv.info.sources.clone())
        .collect();
    Setup {
        seed,
        config: Config {
            infrastructure_attempts_max: 1000,
            fetch_attempts_max: 10,
            transient_attempts_max: 5,
            hedge: Hedge::Off,
            reads_max: 4,
            store_queries_max: 5,
            query_batch_max: 3,
            fetches_max: 2,
            // builders come back within two minutes
            no_builder_max: Duration::from_secs(1000),
            nodes_max: if rng.chance(30) { 8 } else { 1 << 20 },
            ..Config::default()
        },
        builders: builders(&mut rng),
        wants: wants(&mut rng, &graph),
        options: ClientOptions {
            on_failure: OnFailure::KeepGoing,
            weight: 1,
        },
        faults: Faults::default(),
        valid: sources,
        crash_at: None,
        check: true,
        trace: std::env::var_os("IGLOO_SIM_TRACE").is_some(),
        announce: rng.chance(50),
        latency_max: 50,
        graph,
    }
}

/// Each want, and whether it can be had: what must not depend on luck.
fn results(end: &End) -> BTreeMap<(ClientId, WantId), bool> {
    let answers = end.answers.iter();
    answers
        .map(|(key, (_, answer))| (*key, matches!(answer, Answer::Valid { .. })))
        .collect()
}

fn faults() -> Faults {
    Faults {
        store: 3,
        offered: 30,
        fetch: 20,
        corrupt: 10,
        transient: 10,
        memory: 10,
        infrastructure: 8,
        commit: 5,
        losses: 40,
        cancelled: 0,
    }
}

/// Nothing is lost and nothing happens twice, whatever goes wrong; and what can be had does not depend on what went wrong.
#[test]
fn faults_change_nothing_but_time() {
    for_seeds(number("IGLOO_SIM_GRAPHS", 10_000), |seed| {
        let quiet = World::new(setup(seed, 20)).run();
        let stormy = World::new(Setup {
            faults: faults(),
            ..setup(seed, 20)
        })
        .run();
        assert_eq!(results(&quiet), results(&stormy), "seed {seed}");
    });
}

/// The same, with clients that stop at failures, cancel, hedge and forget.
#[test]
fn every_want_is_answered_once() {
    for_seeds(number("IGLOO_SIM_GRAPHS", 10_000), |seed| {
        let mut setup = setup(seed, 20);
        setup.faults = Faults {
            cancelled: 40,
            ..faults()
        };
        setup.options.on_failure = OnFailure::Stop;
        setup.config.hedge = Hedge::Slack(Duration::from_secs(1));
        setup.config.valid_for = Duration::from_secs(5);
        setup.config.failed_for = Duration::from_secs(20);
        setup.config.unwanted_grace = Duration::from_millis(seed % 3000);
        World::new(setup).run();
    });
}

/// A machine that dies after any record of its journal comes to the same end.
#[test]
fn any_prefix_of_the_journal_ends_alike() {
    for_seeds(number("IGLOO_SIM_GRAPHS", 10_000), |seed| {
        let whole = World::new(setup_of(seed, 8, false)).run();
        let expected = results(&whole);
        for crash_at in 1..=whole.journal.len() {
            let restarted = World::new(Setup {
                crash_at: Some(crash_at),
                ..setup_of(seed, 8, false)
            })
            .run();
            assert_eq!(results(&restarted), expected, "seed {seed}, prefix {crash_at}");
            assert_eq!(restarted.valid, whole.valid, "seed {seed}, prefix {crash_at}");
            // no builder was lost: what one had begun, or had ended unheard, was attended again
            let again = restarted.begun.iter().find(|(_, count)| **count > 1);
            assert_eq!(again, None, "seed {seed}, prefix {crash_at}: built twice");
        }
    });
}

/// The same while things go wrong: results do not depend on where it dies, nor on what else happens.
#[test]
fn restarts_amid_faults_end_alike() {
    for_seeds(number("IGLOO_SIM_GRAPHS", 10_000), |seed| {
        let quiet = World::new(setup(seed, 12)).run();
        let mut rng = Rng::new(seed);
        for _ in 0..3 {
            let stormy = World::new(Setup {
                crash_at: Some(1 + rng.index(quiet.journal.len())),
                faults: faults(),
                ..setup(seed, 12)
            })
            .run();
            assert_eq!(results(&stormy), results(&quiet), "seed {seed}");
        }
    });
}

/// Same seed, same events, same decisions.
#[test]
fn runs_can_be_repeated() {
    for_seeds(number("IGLOO_SIM_GRAPHS", 10_000) / 10, |seed| {
        let stormy = || {
            World::new(Setup {
                faults: faults(),
                ..setup(seed, 20)
            })
        };
        let (first, second) = (stormy().run(), stormy().run());
        assert_eq!(first.journal, second.journal, "seed {seed}");
        assert_eq!(first.events, second.events, "seed {seed}");
    });
}

/// A run of a large graph on slots of one kind, all of it absent, wanted by its roots.
fn large(graph: Graph, slots: u32) -> Setup {
    let roots = sim::layers::roots(&graph);
    let wants = roots.iter().enumerate().map(|(id, root)| {
        let target = Target::Outputs {
            drv: graph.drvs[*root].info.path.clone(),
            outputs: BTreeSet::new(),
        };
        let want = Want {
            id: WantId(id as u64),
            target,
            purpose: Purpose::Goal,
            priority: Priority::Normal,
        };
        (Time::ZERO, ClientId(0), want)
    });
    let offer = BuilderOffer {
        systems: BTreeSet::from(["a-linux".to_owned()]),
        slots,
        slots_for_evaluation: 1,
        network: true,
        ..BuilderOffer::default()
    };
    Setup {
        seed: 1,
        config: Config::default(),
        wants: wants.collect(),
        builders: vec![offer],
        options: ClientOptions::default(),
        faults: Faults::default(),
        valid: graph
            .drvs
            .iter()
            .flat_map(|drv| drv.info.sources.clone())
            .collect(),
        crash_at: None,
        check: false,
        trace: false,
        announce: false,
        latency_max: 0,
        graph,
    }
}

fn within(makespan: Duration, bound: Duration, factor: f64) {
    let ratio = makespan.as_secs_f64() / bound.as_secs_f64();
    assert!(ratio <= factor, "{makespan:?} is {ratio:.3} of {bound:?}");
}

/// Makespan at most 1.1 times the larger of critical path and work by slots, and 1.02 times what no schedule can be shorter
/// than; and never more than one by a list scheduler that knows the whole graph beforehand.
#[test]
fn makespan_is_near_the_bound() {
    for (seed, slots) in [(1, 4), (2, 8), (3, 16), (4, 128)] {
        let graph = sim::layers::layered(seed, 3000, 8);
        let (path, sum) = sim::layers::bounds(&graph);
        let list = sim::layers::list_schedule(&graph, slots as usize);
        let end = World::new(large(graph.clone(), slots)).run();
        within(end.makespan, list, 1.01);
        let bound = sim::layers::window_bound(&graph, slots);
        within(end.makespan, bound, 1.02);
        // the longest chain and the work by slots alone may be out of reach: the bootstrap uses one slot
        within(end.makespan, path.max(sum / slots), 1.1);
    }
    for seed in 1..20 {
        let shape = Shape {
            failing: 0,
            floating: 0,
            fixed: 0,
            other_system: 0,
            inputs_max: 6,
            ..Shape::small(400)
        };
        let graph = Graph::random(&mut Rng::new(seed), shape);
        let list = sim::layers::list_schedule(&graph, 4);
        let (path, sum) = sim::layers::bounds(&graph);
        let end = World::new(large(graph, 4)).run();
        within(end.makespan, path.max(sum / 4), 1.1);
        within(end.makespan, list, 1.1);
    }
}

/// An import from derivation that comes amid a full queue is answered after its own chain.
#[test]
fn an_import_waits_for_its_own_chain_only() {
    let graph = sim::layers::layered(5, 2000, 6);
    let mut setup = large(graph, 2);
    // a chain of 31 that nobody else wants
    let other = sim::layers::layered(6, 31, 0);
    for drv in other.drvs.clone() {
        setup.valid.extend(drv.info.sources.clone());
        setup.graph.push(drv);
    }
    let own: Duration = other.drvs.iter().map(|drv| drv.run).sum();
    let at = Time::from_millis(1_000_000);
    let want = Want {
        id: WantId(1 << 40),
        target: Target::Outputs {
            drv: other.drvs[30].info.path.clone(),
            outputs: BTreeSet::new(),
        },
        purpose: Purpose::ImportFromDerivation,
        priority: Priority::Normal,
    };
    setup.wants.push((at, ClientId(1), want));
    let end = World::new(setup).run();
    let (answered, _) = end.answers[&(ClientId(1), WantId(1 << 40))];
    // the slot kept for evaluations is free, so not even one build is waited for
    within(answered.since(at), own, 1.001);
}
