//! The world: executes actions, keeps time, checks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use igloo_coordinator::{
    Action, Answer, BuildEnd, BuildFault, BuilderId, BuilderOffer, ClientId, ClientOptions, CommitResult,
    Config, Dispatch, Event, FailureKind, FetchResult, LeaseId, Machine, MadeOutput, Offer, OfferAnswer,
    Record, SourceId, StoreAnswer, StoreKey, Time, Want, WantId,
};
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use super::graphs::{Graph, SimDrv};
use super::rng::Rng;

/// Virtual time after which a want counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// What goes wrong, in chances of a hundred.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// An answer of the store is an error.
    pub store: u64,
    /// A path that could be had has an offer.
    pub offered: u64,
    /// A fetch breaks off.
    pub fetch: u64,
    /// An offered path is corrupt, always.
    pub corrupt: u64,
    /// The first build of a derivation fails for the moment.
    pub transient: u64,
    /// The first build of a derivation runs out of memory.
    pub memory: u64,
    /// A build ends in a failure of the builder.
    pub infrastructure: u64,
    /// A commit fails for the moment.
    pub commit: u64,
    /// Builders lost, and back later.
    pub losses: u64,
    /// Wants that are cancelled some time.
    pub cancelled: u64,
}

/// Where a run begins.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub config: Config,
    pub graph: Graph,
    pub builders: Vec<BuilderOffer>,
    /// When they come, and what for.
    pub wants: Vec<(Time, ClientId, Want)>,
    pub options: ClientOptions,
    pub faults: Faults,
    /// Paths that are valid at the beginning.
    pub valid: BTreeSet<StorePath>,
    /// The machine dies when that many records are in the journal.
    pub crash_at: Option<usize>,
    /// Check the machine's invariants after every event.
    pub check: bool,
    /// Print every event and action.
    pub trace: bool,
    /// Derivations are told before they are asked for.
    pub announce: bool,
    /// Longest time an answer takes, milliseconds.
    pub latency_max: u64,
}

/// How a run ended.
#[derive(Debug)]
pub struct End {
    pub answers: BTreeMap<(ClientId, WantId), (Time, Answer)>,
    pub valid: BTreeSet<StorePath>,
    pub journal: Vec<Record>,
    pub makespan: Duration,
    pub events: u64,
    pub built: u64,
    /// How often each derivation that does not fail was begun by a builder.
    pub begun: BTreeMap<StorePath, u32>,
}

#[derive(Clone, Debug)]
enum Happening {
    /// From a part that dies with the machine.
    Tell(Event),
    /// From outside; kept over a crash.
    Outside(Event),
    BuildEnds(BuilderId, LeaseId),
    BuilderLost(BuilderId, bool),
    BuilderBack(BuilderId),
    Heartbeat(BuilderId),
    Commit(LeaseId, StorePath, Vec<MadeOutput>),
}

#[derive(Debug)]
struct SimBuilder {
    offer: BuilderOffer,
    connected: bool,
    /// Running leases, and ended ones with their ends: kept until the machine has let them go.
    leases: BTreeMap<LeaseId, (StorePath, Option<BuildEnd>)>,
    /// Those whose end somebody would hear.
    attended: BTreeSet<LeaseId>,
}

pub struct World {
    setup: Setup,
    rng: Rng,
    machine: Machine,
    now: Time,
    queue: BTreeMap<(Time, u64), Happening>,
    next: u64,
    wake_at: Option<Time>,
    builders: BTreeMap<BuilderId, SimBuilder>,
    valid: BTreeSet<StorePath>,
    realised: BTreeMap<(StorePath, OutputName), StorePath>,
    resolved: BTreeMap<StorePath, SimDrv>,
    attempts: BTreeMap<StorePath, u32>,
    /// The live lease of each derivation, as far as the machine has said.
    live: BTreeMap<StorePath, LeaseId>,
    last_lease: LeaseId,
    journal: Vec<Record>,
    answers: BTreeMap<(ClientId, WantId), (Time, Answer)>,
    crashed: bool,
    events: u64,
    built: u64,
    begun: BTreeMap<StorePath, u32>,
    last_end: Time,
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let mut world = Self {
            rng: Rng::new(setup.seed),
            machine: Machine::new(setup.config.clone(), setup.seed),
            now: Time::ZERO,
            queue: BTreeMap::new(),
            next: 0,
            wake_at: None,
            builders: BTreeMap::new(),
            valid: setup.valid.clone(),
            realised: BTreeMap::new(),
            resolved: BTreeMap::new(),
            attempts: BTreeMap::new(),
            live: BTreeMap::new(),
            last_lease: LeaseId(0),
            journal: Vec::new(),
            answers: BTreeMap::new(),
            crashed: false,
            events: 0,
            built: 0,
            begun: BTreeMap::new(),
            last_end: Time::ZERO,
            setup,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let offers = std::mem::take(&mut self.setup.builders);
        for (index, offer) in offers.into_iter().enumerate() {
            let id = BuilderId(index as u64);
            let builder = SimBuilder {
                offer,
                connected: false,
                leases: BTreeMap::new(),
                attended: BTreeSet::new(),
            };
            self.builders.insert(id, builder);
            self.at(Time::ZERO, Happening::BuilderBack(id));
            for _ in 0..2 {
                if self.rng.chance(self.setup.faults.losses) {
                    let (when, keeps) = (self.rng.below(60_000), self.rng.chance(50));
                    self.at(Time::from_millis(when), Happening::BuilderLost(id, keeps));
                }
            }
        }
        if self.setup.announce {
            for index in 0..self.setup.graph.drvs.len() {
                let info = self.setup.graph.drvs[index].info.clone();
                self.at(Time::ZERO, Happening::Tell(Event::DrvKnown(Box::new(info))));
            }
        }
        let clients: BTreeSet<ClientId> = self.setup.wants.iter().map(|(_, client, _)| *client).collect();
        for client in clients {
            let options = self.setup.options;
            self.at(
                Time::ZERO,
                Happening::Outside(Event::ClientCame { client, options }),
            );
        }
        for (at, client, want) in self.setup.wants.clone() {
            if self.rng.chance(self.setup.faults.cancelled) {
                let later = at.after(Duration::from_millis(self.rng.below(40_000)));
                let want = want.id;
                self.at(later, Happening::Outside(Event::Cancelled { client, want }));
            }
            self.at(at, Happening::Outside(Event::Wanted { client, want }));
        }
    }

    /// Runs until every want is answered.
    pub fn run(mut self) -> End {
        while self.answers.len() < self.setup.wants.len() {
            self.step();
            let lost = self.now > Time::ZERO.after(LOST_AFTER);
            assert!(self.events < 50_000, "seed {}: goes on for ever", self.setup.seed);
            assert!(
                !lost,
                "seed {}: a want is lost; {:?}",
                self.setup.seed,
                self.machine.stats()
            );
        }
        End {
            answers: self.answers,
            valid: self.valid,
            journal: self.journal,
            makespan: self.last_end.since(Time::ZERO),
            events: self.events,
            built: self.built,
            begun: self.begun,
        }
    }

    fn step(&mut self) {
        let next = self.queue.first_key_value().map(|((at, _), _)| *at);
        match (next, self.wake_at) {
            (Some(at), wake) if wake.is_none_or(|wake| at <= wake) => {
                self.now = self.now.max(at);
                if let Some((_, happening)) = self.queue.pop_first() {
                    self.happen(happening);
                }
            }
            (_, Some(wake)) => {
                self.now = self.now.max(wake);
                self.wake_at = None;
                self.tell(Event::Tick);
            }
            _ => panic!(
                "seed {}: nothing will happen, and a want is open",
                self.setup.seed
            ),
        }
    }

    fn at(&mut self, at: Time, happening: Happening) {
        self.queue.insert((at, self.next), happening);
        self.next += 1;
    }

    fn soon(&mut self, happening: Happening) {
        let wait = if self.setup.latency_max == 0 {
            0
        } else {
            1 + self.rng.below(self.setup.latency_max)
        };
        let at = self.now.after(Duration::from_millis(wait));
        self.at(at, happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tell(event) | Happening::Outside(event) => self.tell(event),
            Happening::BuildEnds(builder, lease) => self.build_ends(builder, lease),
            Happening::BuilderLost(builder, keeps) => self.builder_lost(builder, keeps),
            Happening::BuilderBack(builder) => self.builder_back(builder),
            Happening::Heartbeat(builder) => self.heartbeat(builder),
            Happening::Commit(lease, drv, outputs) => self.commit(lease, &drv, &outputs),
        }
    }

    fn tell(&mut self, event: Event) {
        self.events += 1;
        let told = self.setup.check.then(|| event.clone());
        let trace = self.setup.trace.then(|| format!("{:?} {event:?}", self.now));
        let actions = self.machine.handle(self.now, event);
        if let Some(trace) = trace {
            eprintln!("{trace}");
            for action in &actions {
                eprintln!("    {action:?}");
            }
        }
        if self.setup.check
            && let Err(reason) = self.machine.check()
        {
            panic!("seed {}: after {told:?}: {reason}", self.setup.seed);
        }
        self.execute(actions);
    }

    fn execute(&mut self, actions: Vec<Action>) {
        for action in actions {
            if let Action::Journal(record) = action {
                if let Record::Released { lease } = &record {
                    self.live.retain(|_, live| live != lease);
                    for builder in self.builders.values_mut() {
                        let is_ended = matches!(builder.leases.get(lease), Some((_, Some(_))));
                        if is_ended && builder.connected {
                            builder.leases.remove(lease);
                        }
                    }
                }
                self.journal.push(record);
                if Some(self.journal.len()) == self.setup.crash_at && !self.crashed {
                    self.crash();
                    return;
                }
            } else {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Journal(_) => unreachable!(),
            Action::ReadDrvs { drvs } => self.read(&drvs),
            Action::QueryStore { keys } => self.query(keys),
            Action::QuerySubstituters { paths } => self.offer(paths),
            Action::Fetch { path, .. } => self.fetch(path),
            Action::CancelFetch { .. } => {}
            Action::Resolve { drv, inputs } => {
                let paths: Vec<StorePath> = inputs.iter().map(|input| input.path.clone()).collect();
                let index = self.setup.graph.by_path[&drv];
                let resolved = self.setup.graph.resolve(index, &paths);
                let info = Box::new(resolved.info.clone());
                self.resolved.insert(resolved.info.path.clone(), resolved);
                let resolved = Ok(info);
                self.soon(Happening::Tell(Event::Resolved { drv, resolved }));
            }
            Action::Dispatch(dispatch) => self.dispatch(&dispatch),
            Action::Attach(order) => {
                self.live.insert(order.drv.clone(), order.lease);
                self.attach(order.builder, order.lease);
            }
            Action::CancelBuild { lease, builder } => {
                self.live.retain(|_, live| *live != lease);
                self.cancel(builder, lease);
            }
            Action::Commit {
                drv,
                outputs,
                provenance,
            } => self.soon(Happening::Commit(provenance.lease, drv, outputs)),
            Action::NoteRealisations { drv, outputs } => {
                for (name, path) in outputs {
                    assert!(self.valid.contains(&path));
                    self.realised.insert((drv.clone(), name), path);
                }
            }
            Action::Reply { client, want, answer } => self.reply(client, want, answer),
            Action::WakeAt(at) => self.wake_at = Some(at),
        }
    }

    fn read(&mut self, drvs: &[StorePath]) {
        for drv in drvs {
            let info = self.drv(drv).info.clone();
            self.soon(Happening::Tell(Event::DrvKnown(Box::new(info))));
        }
    }

    fn drv(&self, drv: &StorePath) -> &SimDrv {
        match self.setup.graph.by_path.get(drv) {
            Some(index) => &self.setup.graph.drvs[*index],
            None => &self.resolved[drv],
        }
    }

    fn query(&mut self, keys: Vec<StoreKey>) {
        let mut answers = Vec::new();
        for key in keys {
            let path = match &key {
                StoreKey::Path(path) => Some(path.clone()),
                StoreKey::Output { drv, output } => {
                    self.realised.get(&(drv.clone(), output.clone())).cloned()
                }
            };
            let answer = match path {
                _ if self.rng.chance(self.setup.faults.store) => StoreAnswer::Error {
                    reason: "busy".into(),
                },
                Some(path) if self.valid.contains(&path) => StoreAnswer::Present { path, nar_size: 1000 },
                _ => StoreAnswer::Absent,
            };
            answers.push((key, answer));
        }
        self.soon(Happening::Tell(Event::StoreAnswers(answers)));
    }

    /// What is offered depends on the path alone.
    fn offer(&mut self, paths: Vec<StorePath>) {
        let mut answers = Vec::new();
        for path in paths {
            let mut fate = Rng::new(super::graphs::number_of(&path));
            let maker = self.maker(&path);
            let is_offered = fate.chance(self.setup.faults.offered) && maker.is_some_and(|drv| !drv.hopeless);
            let answer = if is_offered {
                OfferAnswer::Offer(Offer {
                    source: SourceId(0),
                    nar_size: 1000,
                    references: maker.map(references).unwrap_or_default(),
                    estimate: Duration::from_millis(fate.below(60_000)),
                })
            } else {
                OfferAnswer::None
            };
            answers.push((path, answer));
        }
        self.soon(Happening::Tell(Event::Offers(answers)));
    }

    fn maker(&self, path: &StorePath) -> Option<&SimDrv> {
        let mut drvs = self.setup.graph.drvs.iter().chain(self.resolved.values());
        drvs.find(|drv| {
            drv.info
                .outputs
                .iter()
                .any(|(_, output)| output.as_ref() == Some(path))
        })
    }

    fn fetch(&mut self, path: StorePath) {
        let mut fate = Rng::new(super::graphs::number_of(&path) ^ 1);
        let result = if fate.chance(self.setup.faults.corrupt) {
            FetchResult::Corrupt {
                reason: "hash".into(),
            }
        } else if self.rng.chance(self.setup.faults.fetch) {
            FetchResult::Error { reason: "cut".into() }
        } else {
            if let Some(maker) = self.maker(&path) {
                for reference in references(maker) {
                    assert!(self.valid.contains(&reference), "fetched before its references");
                }
            }
            self.valid.insert(path.clone());
            FetchResult::Valid
        };
        self.soon(Happening::Tell(Event::Fetched { path, result }));
    }

    fn dispatch(&mut self, order: &Dispatch) {
        let seed = self.setup.seed;
        assert!(
            order.lease > self.last_lease,
            "seed {seed}: lease {} is not the latest",
            order.lease
        );
        self.last_lease = order.lease;
        let live = self.live.insert(order.drv.clone(), order.lease);
        assert_eq!(live, None, "seed {seed}: two live leases of {}", order.drv);
        let drv = self.drv(&order.drv).clone();
        for (input, names) in &drv.info.inputs {
            for name in names {
                let outputs = &self.drv(input).info.outputs;
                let output = outputs.iter().find(|(other, _)| other == name).unwrap();
                let path = output.1.as_ref().expect("dispatched unresolved");
                assert!(
                    self.valid.contains(path),
                    "seed {seed}: dispatched before its inputs"
                );
            }
        }
        for source in &drv.info.sources {
            assert!(
                self.valid.contains(source),
                "seed {seed}: dispatched before its sources"
            );
        }
        let builder = self.builders.get_mut(&order.builder).unwrap();
        if !builder.connected {
            return; // it will be heard to be down, or to come back without it
        }
        let for_evaluation = builder.offer.slots_for_evaluation;
        let running = builder.leases.values().filter(|(_, end)| end.is_none()).count();
        let slots = builder.offer.slots + for_evaluation;
        assert!(running < slots as usize, "seed {seed}: more builds than slots");
        assert!(builder.offer.systems.contains(&drv.info.needs.system));
        builder.leases.insert(order.lease, (order.drv.clone(), None));
        builder.attended.insert(order.lease);
        if !drv.fails {
            *self.begun.entry(order.drv.clone()).or_default() += 1;
        }
        let end = self.now.after(drv.run);
        self.at(end, Happening::BuildEnds(order.builder, order.lease));
    }

    fn build_ends(&mut self, id: BuilderId, lease: LeaseId) {
        let Some(builder) = self.builders.get(&id) else {
            return;
        };
        let Some((drv, None)) = builder.leases.get(&lease).cloned() else {
            return; // cancelled, or lost with its builder
        };
        let end = self.end_of(&drv);
        self.hear(id, lease, drv, end);
    }

    fn hear(&mut self, id: BuilderId, lease: LeaseId, drv: StorePath, end: BuildEnd) {
        let builder = self.builders.get_mut(&id).unwrap();
        builder.leases.insert(lease, (drv, Some(end.clone())));
        if builder.connected && builder.attended.contains(&lease) {
            self.last_end = self.now;
            self.at(self.now, Happening::Outside(Event::Ended { lease, end }));
        }
    }

    /// Somebody hears the end of a build from now on, or again.
    fn attach(&mut self, id: BuilderId, lease: LeaseId) {
        let seed = self.setup.seed;
        let builder = self.builders.get_mut(&id).unwrap();
        let found = builder.leases.get(&lease).cloned();
        assert!(
            found.is_some(),
            "seed {seed}: attends {lease}, which its builder lacks"
        );
        builder.attended.insert(lease);
        if let Some((drv, Some(end))) = found {
            self.hear(id, lease, drv, end);
        }
    }

    fn end_of(&mut self, path: &StorePath) -> BuildEnd {
        let faults = self.setup.faults;
        let attempts = self.attempts.entry(path.clone()).or_default();
        *attempts += 1;
        let first = *attempts == 1;
        let drv = self.drv(path).clone();
        let mut fate = Rng::new(super::graphs::number_of(path) ^ 2);
        let fault = if self.rng.chance(faults.infrastructure) {
            BuildFault::Infrastructure {
                reason: "lost".into(),
            }
        } else if first && fate.chance(faults.transient) {
            BuildFault::Transient {
                reason: "network".into(),
            }
        } else if first && fate.chance(faults.memory) {
            BuildFault::OutOfMemory { memory_mib: 512 }
        } else if drv.fails {
            BuildFault::Permanent {
                reason: "exit code 1".into(),
            }
        } else {
            return BuildEnd::Built {
                outputs: made(&drv),
                run: drv.run,
            };
        };
        BuildEnd::Failed(fault)
    }

    fn cancel(&mut self, id: BuilderId, lease: LeaseId) {
        let builder = self.builders.get_mut(&id).unwrap();
        if !builder.connected {
            return;
        }
        if builder.leases.remove(&lease).is_some() {
            let end = BuildEnd::Failed(BuildFault::Cancelled);
            self.soon(Happening::Outside(Event::Ended { lease, end }));
        }
    }

    fn commit(&mut self, lease: LeaseId, drv: &StorePath, outputs: &[MadeOutput]) {
        if self.rng.chance(self.setup.faults.commit) {
            let result = CommitResult::Error {
                reason: "full".into(),
            };
            self.tell(Event::Committed { lease, result });
            return;
        }
        self.built += 1;
        for output in outputs {
            self.valid.insert(output.path.clone());
            let key = (drv.clone(), output.name.clone());
            self.realised.insert(key, output.path.clone());
        }
        let result = CommitResult::Valid;
        self.soon(Happening::Tell(Event::Committed { lease, result }));
    }

    fn reply(&mut self, client: ClientId, want: WantId, answer: Answer) {
        let seed = self.setup.seed;
        if let Answer::Valid { outputs } = &answer {
            for (_, path) in outputs {
                assert!(
                    self.valid.contains(path),
                    "seed {seed}: answered before it was valid"
                );
            }
        }
        if let Answer::Failed(failure) = &answer {
            let to_blame = failure.kind == FailureKind::Permanent;
            let root = failure.root.as_ref().filter(|_| to_blame);
            let fails = root.is_none_or(|root| self.drv(root).fails);
            assert!(fails, "seed {seed}: {failure} is not to blame");
        }
        let known = self.answers.insert((client, want), (self.now, answer));
        assert!(known.is_none() || self.crashed, "seed {seed}: answered twice");
    }

    fn builder_lost(&mut self, id: BuilderId, keeps: bool) {
        let builder = self.builders.get_mut(&id).unwrap();
        if !builder.connected {
            return;
        }
        builder.connected = false;
        builder.attended.clear();
        if !keeps {
            builder.leases.clear();
        }
        let back = self.now.after(Duration::from_millis(self.rng.below(120_000)));
        self.at(back, Happening::BuilderBack(id));
        // sometimes its silence must tell
        if self.rng.chance(50) {
            self.tell(Event::BuilderDown { builder: id });
        }
    }

    fn builder_back(&mut self, id: BuilderId) {
        let builder = self.builders.get_mut(&id).unwrap();
        builder.connected = true;
        let running = builder.leases.keys().copied().collect();
        let offers = builder.offer.clone();
        self.tell(Event::BuilderUp {
            builder: id,
            offers,
            running,
        });
        self.at(self.now.after(Duration::from_secs(20)), Happening::Heartbeat(id));
    }

    fn heartbeat(&mut self, id: BuilderId) {
        if self.builders[&id].connected {
            let load_permille = u32::try_from(self.rng.below(1000)).unwrap();
            self.tell(Event::Heartbeat {
                builder: id,
                load_permille,
            });
            let next = self.now.after(Duration::from_secs(20));
            self.at(next, Happening::Heartbeat(id));
        }
    }

    /// The machine dies; its driver with it. Stores, builders and clients live on.
    fn crash(&mut self) {
        self.crashed = true;
        self.wake_at = None;
        let kept = std::mem::take(&mut self.queue);
        for ((at, number), happening) in kept {
            let survives = match &happening {
                Happening::Tell(_) | Happening::Commit(..) | Happening::Heartbeat(_) => false,
                Happening::Outside(event) => !matches!(event, Event::Ended { .. }),
                _ => true,
            };
            if survives {
                self.queue.insert((at, number), happening);
            }
        }
        self.now = self.now.after(Duration::from_millis(self.rng.below(5_000)));
        let text: Vec<String> = self.journal.iter().map(ToString::to_string).collect();
        let read = text.iter().map(|line| line.parse::<Record>().unwrap());
        let config = self.setup.config.clone();
        let (machine, actions) = Machine::restore(config, self.setup.seed, self.now, read);
        self.machine = machine;
        self.execute(actions);
        self.resend();
        for id in self.builders.keys().copied().collect::<Vec<_>>() {
            let builder = self.builders.get_mut(&id).unwrap();
            builder.attended.clear();
            if builder.connected {
                builder.connected = false;
                let back = self.now.after(Duration::from_millis(self.rng.below(30_000)));
                self.at(back, Happening::BuilderBack(id));
            }
        }
    }

    /// Clients repeat what the journal had not taken in.
    fn resend(&mut self) {
        let waiting: BTreeSet<(ClientId, WantId)> = self
            .queue
            .values()
            .filter_map(|happening| match happening {
                Happening::Outside(Event::Wanted { client, want }) => Some((*client, want.id)),
                _ => None,
            })
            .collect();
        let taken: BTreeSet<(ClientId, WantId)> = self
            .journal
            .iter()
            .filter_map(|record| match record {
                Record::Wanted { client, want } => Some((*client, want.id)),
                _ => None,
            })
            .collect();
        for (_, client, want) in self.setup.wants.clone() {
            let key = (client, want.id);
            if !waiting.contains(&key) && !taken.contains(&key) && !self.answers.contains_key(&key) {
                self.soon(Happening::Outside(Event::Wanted { client, want }));
            }
        }
    }
}

fn made(drv: &SimDrv) -> Vec<MadeOutput> {
    let outputs = drv.made().into_iter();
    outputs
        .map(|(name, path)| MadeOutput {
            name,
            path,
            nar_size: 1000,
        })
        .collect()
}

/// What an output of a derivation refers to: its sources, and its own inputs where these have paths.
fn references(drv: &SimDrv) -> Vec<StorePath> {
    drv.info.sources.clone()
}
