//! Single promises, each by the shortest way to them.

#![expect(clippy::unwrap_used, reason = "it is a test")]

mod sim;

use std::collections::BTreeSet;
use std::time::Duration;

use igloo_coordinator::{
    Action, Answer, BuildEnd, BuildFault, BuilderId, BuilderOffer, ClientId, CommitResult, Config, DrvInfo,
    Event, FailureKind, LeaseId, Machine, MadeOutput, Offer, OfferAnswer, Priority, Purpose, Record,
    Requirements, SourceId, StoreAnswer, StoreKey, Target, Time, Want, WantId,
};
use nix_compat::derivation::DerivationKind;
use nix_compat::store_path::StorePath;
use sim::graphs::{out, output_path, path_of};

fn config() -> Config {
    Config {
        substituter_queries_max: 0,
        ..Config::default()
    }
}

fn info(number: u64, inputs: &[u64]) -> DrvInfo {
    DrvInfo {
        path: path_of(number, "p.drv"),
        kind: DerivationKind::InputAddressed,
        outputs: vec![(out(), Some(output_path(number, "out")))],
        inputs: inputs
            .iter()
            .map(|input| (path_of(*input, "p.drv"), vec![out()]))
            .collect(),
        sources: Vec::new(),
        needs: Requirements {
            system: "a-linux".into(),
            ..Requirements::default()
        },
        estimate: None,
        substitutable: true,
    }
}

fn want(number: u64) -> Event {
    let target = Target::Outputs {
        drv: path_of(number, "p.drv"),
        outputs: BTreeSet::new(),
    };
    let want = Want {
        id: WantId(number),
        target,
        purpose: Purpose::Goal,
        priority: Priority::Normal,
    };
    Event::Wanted {
        client: ClientId(1),
        want,
    }
}

fn builder(id: u64) -> Event {
    let offers = BuilderOffer {
        systems: BTreeSet::from(["a-linux".into()]),
        slots: 1,
        ..BuilderOffer::default()
    };
    Event::BuilderUp {
        builder: BuilderId(id),
        offers,
        running: BTreeSet::new(),
    }
}

/// A machine whose store is empty, and what it has done but for asking the store.
struct Bench {
    machine: Machine,
    now: Time,
    done: Vec<Action>,
}

impl Bench {
    fn new() -> Self {
        Self {
            machine: Machine::new(config(), 1),
            now: Time::ZERO,
            done: Vec::new(),
        }
    }

    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.machine.handle(self.now, event) {
                match action {
                    Action::QueryStore { keys } => {
                        let absent = keys.into_iter().map(|key: StoreKey| (key, StoreAnswer::Absent));
                        events.push(Event::StoreAnswers(absent.collect()));
                    }
                    Action::WakeAt(at) if at <= self.now => events.push(Event::Tick),
                    action => self.done.push(action),
                }
            }
        }
        self.machine.check().unwrap();
    }

    fn later(&mut self, wait: Duration, event: Event) {
        self.now = self.now.after(wait);
        self.tell(event);
    }

    fn dispatched(&self) -> Vec<(LeaseId, BuilderId, StorePath)> {
        let orders = self.done.iter().filter_map(|action| match action {
            Action::Dispatch(order) => Some((order.lease, order.builder, order.drv.clone())),
            _ => None,
        });
        orders.collect()
    }

    fn answers(&self) -> Vec<&Answer> {
        let replies = self.done.iter().filter_map(|action| match action {
            Action::Reply { answer, .. } => Some(answer),
            _ => None,
        });
        replies.collect()
    }

    fn failures(&self) -> Vec<FailureKind> {
        let failed = self.answers().into_iter().filter_map(|answer| match answer {
            Answer::Failed(failure) => Some(failure.kind),
            _ => None,
        });
        failed.collect()
    }
}

fn built(number: u64) -> BuildEnd {
    BuildEnd::Built {
        outputs: vec![MadeOutput {
            name: out(),
            path: output_path(number, "out"),
            nar_size: 1,
        }],
        run: Duration::from_secs(1),
    }
}

fn broken() -> BuildEnd {
    BuildEnd::Failed(BuildFault::Infrastructure {
        reason: "gone".into(),
    })
}

/// Two wants of one derivation, by two clients, are one build; and neither is told before it is committed.
#[test]
fn identical_work_is_done_once() {
    let mut bench = Bench::new();
    bench.tell(builder(1));
    bench.tell(Event::DrvKnown(Box::new(info(1, &[]))));
    bench.tell(want(1));
    let Event::Wanted { want, .. } = want(1) else {
        unreachable!()
    };
    bench.tell(Event::Wanted {
        client: ClientId(2),
        want,
    });
    let orders = bench.dispatched();
    assert_eq!(orders.len(), 1);
    let lease = orders[0].0;
    bench.tell(Event::Ended { lease, end: built(1) });
    assert!(bench.answers().is_empty());
    let result = CommitResult::Valid;
    bench.tell(Event::Committed { lease, result });
    assert_eq!(bench.answers().len(), 2);
}

/// A builder that fails is not given the same derivation again while another is there, and is not blamed on it.
#[test]
fn infrastructure_failures_go_elsewhere() {
    let mut bench = Bench::new();
    bench.tell(builder(1));
    bench.tell(builder(2));
    bench.tell(Event::DrvKnown(Box::new(info(1, &[]))));
    bench.tell(want(1));
    let (lease, first, _) = bench.dispatched()[0].clone();
    bench.tell(Event::Ended { lease, end: broken() });
    bench.later(Duration::from_secs(5), Event::Tick);
    let (lease, second, _) = bench.dispatched()[1].clone();
    assert_ne!(first, second);
    assert!(bench.answers().is_empty());
    bench.tell(Event::Ended { lease, end: broken() });
    bench.later(Duration::from_secs(5), Event::Tick);
    let (lease, ..) = bench.dispatched()[2].clone();
    bench.tell(Event::Ended { lease, end: broken() });
    assert_eq!(bench.failures(), [FailureKind::Infrastructure]);
}

/// A result that comes after its builder was given up counts, and the second order is withdrawn.
#[test]
fn late_results_are_welcome() {
    let mut bench = Bench::new();
    bench.tell(builder(1));
    bench.tell(Event::DrvKnown(Box::new(info(1, &[]))));
    bench.tell(want(1));
    bench.tell(Event::BuilderDown {
        builder: BuilderId(1),
    });
    bench.tell(builder(2));
    bench.later(Duration::from_secs(5), Event::Tick);
    let orders = bench.dispatched();
    assert_eq!(orders.len(), 2);
    let (lease, end) = (orders[0].0, built(1));
    bench.tell(Event::Ended { lease, end });
    let withdrawn = Action::CancelBuild {
        lease: orders[1].0,
        builder: BuilderId(2),
    };
    assert!(bench.done.contains(&withdrawn));
    let result = CommitResult::Valid;
    bench.tell(Event::Committed { lease, result });
    assert_eq!(bench.answers().len(), 1);
    assert!(bench.failures().is_empty());
}

/// A build that nobody wants any more is stopped after the grace, not before.
#[test]
fn unwanted_builds_are_stopped() {
    let mut bench = Bench::new();
    bench.tell(builder(1));
    bench.tell(Event::DrvKnown(Box::new(info(1, &[]))));
    bench.tell(want(1));
    let (client, id) = (ClientId(1), WantId(1));
    bench.tell(Event::Cancelled { client, want: id });
    assert_eq!(bench.answers(), [&Answer::Cancelled]);
    let stops = |bench: &Bench| {
        bench
            .done
            .iter()
            .any(|action| matches!(action, Action::CancelBuild { .. }))
    };
    bench.later(Duration::from_secs(4), Event::Tick);
    assert!(!stops(&bench));
    bench.later(Duration::from_secs(2), Event::Tick);
    assert!(stops(&bench));
}

/// Forged derivations that need each other fail; the machine does not wait for ever, and others go on.
#[test]
fn what_needs_itself_fails() {
    let mut bench = Bench::new();
    bench.tell(builder(1));
    for (number, input) in [(1, 2), (2, 3), (3, 1)] {
        bench.tell(Event::DrvKnown(Box::new(info(number, &[input]))));
    }
    bench.tell(want(1));
    assert_eq!(bench.failures(), [FailureKind::Cycle]);
    let own = info(7, &[7]);
    bench.tell(Event::DrvKnown(Box::new(own)));
    bench.tell(want(7));
    assert_eq!(bench.failures().len(), 2);
}

/// What cannot be done is refused, with a code.
#[test]
fn refusals_are_typed() {
    let mut bench = Bench::new();
    let impure = DrvInfo {
        kind: DerivationKind::Impure,
        ..info(1, &[])
    };
    bench.tell(want(1));
    bench.tell(Event::DrvKnown(Box::new(impure)));
    let Some(Answer::Failed(failure)) = bench.answers().first().copied() else {
        panic!("not refused")
    };
    assert_eq!(failure.code(), igloo_status::Code::Unimplemented);
    // nobody can build it, and nobody comes
    bench.tell(Event::DrvKnown(Box::new(info(2, &[]))));
    bench.tell(want(2));
    bench.later(Duration::from_secs(60), Event::Tick);
    assert_eq!(bench.failures()[1], FailureKind::NoBuilder);
}

/// One client's share does not starve another's: slots alternate.
#[test]
fn clients_share_the_builders() {
    let mut bench = Bench::new();
    for number in 1..=8 {
        bench.tell(Event::DrvKnown(Box::new(info(number, &[]))));
        let Event::Wanted { want, .. } = want(number) else {
            unreachable!()
        };
        let client = ClientId(if number <= 6 { 1 } else { 2 });
        bench.tell(Event::Wanted { client, want });
    }
    for id in 1..=4 {
        bench.tell(builder(id));
    }
    let late = [path_of(7, "p.drv"), path_of(8, "p.drv")];
    let orders = bench.dispatched();
    let of_second = orders.iter().filter(|(_, _, drv)| late.contains(drv)).count();
    assert_eq!((orders.len(), of_second), (4, 2));
}

/// The compacted journal restores to what the whole one does.
#[test]
fn journals_can_be_compacted() {
    let mut bench = Bench::new();
    bench.tell(builder(1));
    for number in 1..=3 {
        bench.tell(Event::DrvKnown(Box::new(info(number, &[]))));
        bench.tell(want(number));
    }
    let (client, id) = (ClientId(1), WantId(2));
    bench.tell(Event::Cancelled { client, want: id });
    let whole = bench.done.iter().filter_map(|action| match action {
        Action::Journal(record) => Some(record.clone()),
        _ => None,
    });
    let whole: Vec<Record> = whole.collect();
    let compacted = bench.machine.compacted_journal();
    assert!(compacted.len() < whole.len());
    let (first, actions) = Machine::restore(config(), 1, bench.now, whole);
    let (second, same) = Machine::restore(config(), 1, bench.now, compacted);
    assert_eq!(actions, same);
    assert_eq!(first.compacted_journal(), second.compacted_journal());
}

/// Inputs that are gone when a builder wants them are made again, and then the build is.
#[test]
fn lost_inputs_are_made_again() {
    let mut bench = Bench::new();
    bench.tell(builder(1));
    bench.tell(Event::DrvKnown(Box::new(info(1, &[]))));
    bench.tell(Event::DrvKnown(Box::new(info(2, &[1]))));
    bench.tell(want(2));
    let build = |bench: &mut Bench, index: usize, number: u64| {
        let (lease, _, drv) = bench.dispatched()[index].clone();
        assert_eq!(drv, path_of(number, "p.drv"));
        let end = built(number);
        bench.tell(Event::Ended { lease, end });
        let result = CommitResult::Valid;
        bench.tell(Event::Committed { lease, result });
    };
    build(&mut bench, 0, 1);
    let lease = bench.dispatched()[1].0;
    let end = BuildEnd::Failed(BuildFault::InputsMissing {
        paths: vec![output_path(1, "out")],
    });
    bench.tell(Event::Ended { lease, end });
    build(&mut bench, 2, 1);
    build(&mut bench, 3, 2);
    assert!(matches!(bench.answers()[..], [Answer::Valid { .. }]));
}

/// A slow fetch is raced by the build; whichever is first ends the other.
#[test]
fn slow_fetches_are_raced() {
    let mut machine = Machine::new(Config::default(), 1);
    let now = Time::ZERO;
    machine.handle(now, builder(1));
    machine.handle(now, Event::DrvKnown(Box::new(info(1, &[]))));
    machine.handle(now, want(1));
    let path = output_path(1, "out");
    let absent = vec![(StoreKey::Path(path.clone()), StoreAnswer::Absent)];
    let asks = machine.handle(now, Event::StoreAnswers(absent));
    assert!(
        asks.iter()
            .any(|action| matches!(action, Action::QuerySubstituters { .. }))
    );
    let offer = OfferAnswer::Offer(Offer {
        source: SourceId(1),
        nar_size: 1,
        references: vec![path.clone()],
        estimate: Duration::from_secs(3600),
    });
    let both = machine.handle(now, Event::Offers(vec![(path.clone(), offer)]));
    assert!(both.iter().any(|action| matches!(action, Action::Fetch { .. })));
    assert!(both.iter().any(|action| matches!(action, Action::Dispatch(_))));
    let (lease, end) = (LeaseId(1), built(1));
    machine.handle(now, Event::Ended { lease, end });
    let result = CommitResult::Valid;
    let last = machine.handle(now, Event::Committed { lease, result });
    assert!(last.contains(&Action::CancelFetch { path }));
    assert!(last.iter().any(|action| matches!(action, Action::Reply { .. })));
}
