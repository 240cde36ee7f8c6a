//! What it costs to schedule a graph: `schedule [DERIVATIONS [INPUTS [SLOTS]]]`, by default 70,000 with 14 inputs on 64 slots.
//!
//! Question: CPU time inside the machine, memory it holds at most, and how its makespan compares with the lower bound. Input:
//! a layered graph like nixpkgs, all of it absent, wanted by its roots; the world answers at once. The sketch: 70,000
//! derivations with a million needs, each looked at some times at 50 ns, is some 0.2 s.
//!
//! Seconds and bytes are counted around `Machine::handle` alone: the world's own do not count, those of the events it hands in
//! and of the actions it is given do only while the machine holds them.

#[path = "../tests/sim/mod.rs"]
mod sim;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use igloo_coordinator::{
    Action, BuildEnd, BuilderId, BuilderOffer, ClientId, CommitResult, Config, Event, LeaseId, Machine,
    MadeOutput, OfferAnswer, Priority, Purpose, StoreAnswer, StoreKey, Target, Time, Want, WantId,
};
use nix_compat::store_path::StorePath;
use sim::{Graph, layers};

#[global_allocator]
static COUNTER: Counter = Counter;

/// Counts bytes while the machine runs.
struct Counter;

static IN_MACHINE: AtomicBool = AtomicBool::new(false);
static HELD: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

fn count(bytes: i64) {
    if IN_MACHINE.load(Ordering::Relaxed) {
        let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
        PEAK.fetch_max(held, Ordering::Relaxed);
    }
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[expect(unsafe_code, reason = "a counting allocator is unsafe by its trait")]
// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory it manages.
unsafe impl GlobalAlloc for Counter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        // SAFETY: the caller upholds the contract of `dealloc`; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

struct Run {
    machine: Machine,
    graph: Graph,
    valid: BTreeSet<StorePath>,
    /// Ends of builds, to come.
    ends: BTreeMap<(Time, LeaseId), StorePath>,
    events: Vec<Event>,
    now: Time,
    spent: Duration,
    slowest: Duration,
    handled: u32,
    answered: usize,
}

impl Run {
    fn tell(&mut self, event: Event) {
        // what the event brings along is the machine's from here on
        IN_MACHINE.store(true, Ordering::Relaxed);
        let event = match event {
            Event::DrvKnown(info) => Event::DrvKnown(Box::new(info.as_ref().clone())),
            event => event,
        };
        let begin = thread_cpu();
        let actions = self.machine.handle(self.now, event);
        let took = thread_cpu().saturating_sub(begin);
        IN_MACHINE.store(false, Ordering::Relaxed);
        self.spent += took;
        self.slowest = self.slowest.max(took);
        self.handled += 1;
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::ReadDrvs { drvs } => {
                for drv in drvs {
                    let info = self.graph.drvs[self.graph.by_path[&drv]].info.clone();
                    self.events.push(Event::DrvKnown(Box::new(info)));
                }
            }
            Action::QueryStore { keys } => {
                let answers = keys.into_iter().map(|key| (key.clone(), self.answer(&key)));
                let answers = answers.collect();
                self.events.push(Event::StoreAnswers(answers));
            }
            Action::QuerySubstituters { paths } => {
                let none = paths.into_iter().map(|path| (path, OfferAnswer::None));
                self.events.push(Event::Offers(none.collect()));
            }
            Action::Dispatch(order) => {
                let run = self.graph.drvs[self.graph.by_path[&order.drv]].run;
                self.ends.insert((self.now.after(run), order.lease), order.drv);
            }
            Action::Commit {
                outputs, provenance, ..
            } => {
                self.valid.extend(outputs.into_iter().map(|output| output.path));
                self.events.push(Event::Committed {
                    lease: provenance.lease,
                    result: CommitResult::Valid,
                });
            }
            Action::Reply { .. } => self.answered += 1,
            Action::WakeAt(at) if at <= self.now => self.events.push(Event::Tick),
            _ => {}
        }
    }

    fn answer(&self, key: &StoreKey) -> StoreAnswer {
        match key {
            StoreKey::Path(path) if self.valid.contains(path) => StoreAnswer::Present {
                path: path.clone(),
                nar_size: 1_000_000,
            },
            _ => StoreAnswer::Absent,
        }
    }

    fn run(&mut self, wants: usize) {
        while self.answered < wants {
            if !self.events.is_empty() {
                for event in std::mem::take(&mut self.events) {
                    self.tell(event);
                }
            } else if let Some(((at, lease), drv)) = self.ends.pop_first() {
                self.now = at;
                self.end(lease, &drv);
            } else {
                return; // the report shows that not all is committed
            }
        }
    }

    fn end(&mut self, lease: LeaseId, drv: &StorePath) {
        let drv = &self.graph.drvs[self.graph.by_path[drv]];
        let outputs = drv.made().into_iter().map(|(name, path)| MadeOutput {
            name,
            path,
            nar_size: 1_000_000,
        });
        let end = BuildEnd::Built {
            outputs: outputs.collect(),
            run: drv.run,
        };
        self.tell(Event::Ended { lease, end });
    }

    fn begin(&mut self, slots: u32, roots: &[usize]) {
        for builder in 0..slots.div_ceil(8) {
            let offers = BuilderOffer {
                systems: BTreeSet::from(["a-linux".to_owned()]),
                slots: slots.min(8),
                ..BuilderOffer::default()
            };
            self.tell(Event::BuilderUp {
                builder: BuilderId(u64::from(builder)),
                offers,
                running: BTreeSet::new(),
            });
        }
        for (id, root) in roots.iter().enumerate() {
            let want = Want {
                id: WantId(id as u64),
                target: Target::Outputs {
                    drv: self.graph.drvs[*root].info.path.clone(),
                    outputs: BTreeSet::new(),
                },
                purpose: Purpose::Goal,
                priority: Priority::Normal,
            };
            self.tell(Event::Wanted {
                client: ClientId(1),
                want,
            });
        }
    }

    #[expect(clippy::print_stdout, reason = "it is a program")]
    fn report(&self, bound: Duration, window_bound: Duration) {
        let seconds = self.spent.as_secs_f64();
        println!("{:?}", self.machine.stats());
        println!(
            "in the machine: {seconds:.3} s for {} events, {:.1} us each, the slowest {:.2} ms",
            self.handled,
            seconds * 1e6 / f64::from(self.handled),
            self.slowest.as_secs_f64() * 1e3
        );
        println!(
            "held by the machine at most: {} MiB",
            PEAK.load(Ordering::Relaxed) >> 20
        );
        println!("whole process: {}", process());
        let makespan = self.now.since(Time::ZERO).as_secs_f64();
        println!(
            "makespan {makespan:.0} s: {:.3} of the critical path or work/slots, {:.3} of what no schedule can be shorter than",
            makespan / bound.as_secs_f64(),
            makespan / window_bound.as_secs_f64()
        );
    }
}

/// CPU time of this thread: others on the machine do not count.
#[expect(unsafe_code, reason = "the C library has the only door to this clock")]
fn thread_cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec, which the call fills and does not keep.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// CPU seconds and peak memory of the process, world and graph included (proc_pid_stat(5): ticks of 10 ms).
fn process() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    let seconds = (ticks(11).unwrap_or_default() + ticks(12).unwrap_or_default()) / 100.0;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or_default();
    format!("{seconds:.2} s CPU, {peak}")
}

#[expect(clippy::print_stdout, reason = "it is a program")]
fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u32>().ok());
    let mut next = |default: u32| numbers.next().flatten().unwrap_or(default);
    let (count, inputs, slots) = (next(70_000), next(14), next(64));
    let graph = layers::layered(1, count as usize, u64::from(inputs));
    let needs: usize = graph.drvs.iter().map(|drv| drv.info.inputs.len()).sum();
    let (path, sum) = layers::bounds(&graph);
    // sharper where work cannot fill the slots at both ends: before the bootstrap is done, and below the last roots
    let window_bound = layers::window_bound(&graph, slots);
    let roots = layers::roots(&graph);
    println!(
        "{count} derivations, {needs} needs, {} roots, {slots} slots",
        roots.len()
    );
    println!(
        "critical path {:.0} s, work/slots {:.0} s, no schedule under {:.0} s, list schedule {:.0} s",
        path.as_secs_f64(),
        (sum / slots).as_secs_f64(),
        window_bound.as_secs_f64(),
        layers::list_schedule(&graph, slots as usize).as_secs_f64()
    );
    let config = Config {
        builder_silence_max: Duration::MAX,
        ..Config::default()
    };
    let sources = graph.drvs.iter().flat_map(|drv| drv.info.sources.clone());
    let mut run = Run {
        machine: Machine::new(config, 1),
        valid: sources.collect(),
        graph,
        ends: BTreeMap::new(),
        events: Vec::new(),
        now: Time::ZERO,
        spent: Duration::ZERO,
        slowest: Duration::ZERO,
        handled: 0,
        answered: 0,
    };
    run.begin(slots, &roots);
    run.run(roots.len());
    run.report(path.max(sum / slots), window_bound);
}
