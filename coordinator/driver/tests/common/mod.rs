//! A world without machines: derivations, a store in memory, builders and evaluators that do as they are told.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "shared by tests, each of which uses a part"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use igloo_build::{
    BuildError, BuildEvent, BuildIo, BuildOutcome, BuildReport, BuildRequest, BuildStats, Builder,
    EventSender,
};
use igloo_driver::job::Wanted;
use igloo_driver::{
    Coordinator as _, Job, JobError, JobOptions, JobReport, LocalConfig, LocalCoordinator, NamedBuilder,
    Update,
};
use igloo_evaluator::{EvaluateError, EvaluateIo, EvaluateReport, EvaluateRequest, Evaluator};
use igloo_store::Store;
use nix_compat::derivation::{Derivation, DerivationOutput, HashModuloMemo, OutputName};
use nix_compat::store_path::{StoreDir, StorePath, StorePathName};
use tokio::sync::{Notify, Semaphore, mpsc};

/// Derivations in a store in memory, and a folder for a coordinator's state.
pub struct World {
    pub tmp: tempfile::TempDir,
    pub store: Store,
    memo: HashModuloMemo,
}

/// A derivation and its output.
#[derive(Clone)]
pub struct Drv {
    pub path: StorePath,
    pub out: StorePath,
    pub derivation: Arc<Derivation>,
}

impl World {
    pub fn new() -> Self {
        Self::over(Store::memory(StoreDir::default()))
    }

    pub fn over(store: Store) -> Self {
        Self {
            tmp: tempfile::tempdir().unwrap(),
            store,
            memo: HashModuloMemo::new(StoreDir::default()),
        }
    }

    /// A derivation whose output is a file with `content`, in the store.
    pub async fn drv(&mut self, name: &str, content: &str, inputs: &[&Drv]) -> Drv {
        let drv = self.derive(name, content, inputs, DerivationOutput::Deferred);
        self.add(&drv).await;
        drv
    }

    /// The same with another kind of output, not in the store.
    pub fn derive(&mut self, name: &str, content: &str, inputs: &[&Drv], output: DerivationOutput) -> Drv {
        self.derive_noted(name, content, inputs, output, "")
    }

    /// The same with a variable that makes it another derivation.
    pub fn derive_noted(
        &mut self,
        name: &str,
        content: &str,
        inputs: &[&Drv],
        output: DerivationOutput,
        note: &str,
    ) -> Drv {
        let dir = StoreDir::default();
        let out = out();
        let mut derivation = Derivation {
            name: StorePathName::new(name).unwrap(),
            outputs: BTreeMap::from([(out.clone(), output)]),
            input_drvs: inputs
                .iter()
                .map(|input| (input.path.clone(), BTreeSet::from([out.clone()])))
                .collect(),
            input_srcs: BTreeSet::new(),
            platform: b"x86_64-linux".to_vec(),
            builder: b"/bin/sh".to_vec(),
            args: vec![content.as_bytes().to_vec()],
            env: BTreeMap::from([
                (b"name".to_vec(), name.as_bytes().to_vec()),
                (b"note".to_vec(), note.as_bytes().to_vec()),
                (b"out".to_vec(), Vec::new()),
            ]),
        };
        derivation.fill_output_paths(&self.memo).unwrap();
        let path = derivation.store_path(&dir).unwrap();
        self.memo.add(path.clone(), &derivation).unwrap();
        let known = derivation.outputs[&out]
            .path(&dir, &derivation.name, &out)
            .unwrap();
        Drv {
            out: known.unwrap_or_else(|| path.clone()),
            path,
            derivation: Arc::new(derivation),
        }
    }

    /// Writes a derivation to the store.
    pub async fn add(&self, drv: &Drv) {
        let text = drv.derivation.to_aterm(&StoreDir::default()).unwrap();
        let added = self
            .store
            .add_text(drv.path.name(), Bytes::from(text), drv.derivation.references())
            .await
            .unwrap();
        assert_eq!(added.path, drv.path);
    }

    pub fn config(&self, builders: &[&Arc<FakeBuilder>]) -> LocalConfig {
        let builders = builders.iter().map(|builder| builder.named());
        let state = self.tmp.path().join("state");
        let mut config = LocalConfig::new(self.store.clone(), state, builders.collect());
        // waits are not what is tested
        config.machine.backoff = Duration::from_millis(1);
        config.machine.backoff_max = Duration::from_millis(5);
        config.machine.unwanted_grace = Duration::ZERO;
        config.machine.no_builder_max = Duration::from_millis(50);
        config.machine.reattach_max = Duration::from_millis(50);
        config
    }

    pub async fn open(&self, builders: &[&Arc<FakeBuilder>]) -> LocalCoordinator {
        LocalCoordinator::open(self.config(builders)).await.unwrap()
    }

    pub async fn is_valid(&self, path: &StorePath) -> bool {
        self.store.path_infos.get(path).await.unwrap().is_some()
    }
}

pub fn out() -> OutputName {
    "out".parse().unwrap()
}

pub fn job(goals: &[&Drv], options: JobOptions) -> Job {
    let goals = goals.iter().map(|drv| (drv.path.clone(), BTreeSet::new()));
    Job {
        wanted: Wanted::Outputs(goals.collect()),
        options,
    }
}

pub fn keep_going() -> JobOptions {
    JobOptions {
        keep_going: true,
        ..JobOptions::default()
    }
}

/// Runs a job to its end: its report, and all it said.
pub async fn run(coordinator: &LocalCoordinator, job: Job) -> (Result<JobReport, JobError>, Vec<Update>) {
    let (sender, mut receiver) = mpsc::channel(1);
    let listen = async {
        let mut updates = Vec::new();
        while let Some(update) = receiver.recv().await {
            updates.push(update);
        }
        updates
    };
    let run = async move { coordinator.run(job, sender).await };
    tokio::join!(run, listen)
}

/// Builds goals, which must succeed.
pub async fn build(coordinator: &LocalCoordinator, goals: &[&Drv]) -> JobReport {
    let report = run(coordinator, job(goals, JobOptions::default()))
        .await
        .0
        .unwrap();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(report.goals.iter().all(|goal| goal.is_valid));
    report
}

/// What a builder does with a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Writes its content.
    Build,
    /// Writes something else each time.
    Noise,
    /// Exits with this code.
    Exit(u8),
    /// Runs out of memory unless it has this much, MiB.
    Memory(u32),
    /// The machine fails.
    Break,
    /// Does not end.
    Hang,
    /// Ends when this many builds are here at once.
    Meet(usize),
    /// Waits until [`FakeBuilder::open_gate`].
    Gate,
    /// Writes this many bytes of log first.
    Log(usize),
    /// Writes this many lines of log ([`line`]), waits until [`FakeBuilder::open_gate`], and writes as many again.
    GateAmidLog(u64),
}

/// Runs no program: writes the argument to every output, or does as it is told for that name.
#[derive(Debug)]
pub struct FakeBuilder {
    name: String,
    slots: u32,
    acts: Mutex<BTreeMap<String, Act>>,
    ran: Mutex<Vec<String>>,
    requests: Mutex<Vec<BuildRequest>>,
    stopped: Arc<Mutex<Vec<String>>>,
    pub changed: Arc<Notify>,
    here: Mutex<usize>,
    gate: Semaphore,
}

impl FakeBuilder {
    pub fn new(name: &str, slots: u32) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            slots,
            acts: Mutex::default(),
            ran: Mutex::default(),
            requests: Mutex::default(),
            stopped: Arc::default(),
            changed: Arc::default(),
            here: Mutex::default(),
            gate: Semaphore::new(0),
        })
    }

    pub fn named(self: &Arc<Self>) -> NamedBuilder {
        let builder: Arc<dyn Builder> = self.clone();
        NamedBuilder::new(self.name.clone(), builder, self.slots)
    }

    /// What to do with builds of that name.
    pub fn act(&self, name: &str, act: Act) {
        self.acts.lock().unwrap().insert(name.to_owned(), act);
    }

    /// Counts a caller in; how many there are now.
    pub fn count_in(&self) -> usize {
        let mut here = self.here.lock().unwrap();
        *here += 1;
        *here
    }

    /// Names of what was begun since the last call, in order.
    pub fn ran(&self) -> Vec<String> {
        std::mem::take(&mut *self.ran.lock().unwrap())
    }

    pub fn requests(&self) -> Vec<BuildRequest> {
        self.requests.lock().unwrap().clone()
    }

    pub fn open_gate(&self) {
        self.gate.add_permits(1000);
    }

    /// Waits until a build of that name was dropped.
    pub async fn stopped(&self, name: &str) {
        self.until(|builder| builder.stopped.lock().unwrap().iter().any(|other| other == name))
            .await;
    }

    /// Waits until a build of that name has begun.
    pub async fn begun(&self, name: &str) {
        self.until(|builder| builder.ran.lock().unwrap().iter().any(|other| other == name))
            .await;
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so(self) {
                return;
            }
            changed.await;
        }
    }

    async fn act_out(&self, act: Act, request: &BuildRequest) -> Result<BuildOutcome, BuildError> {
        match act {
            Act::Exit(code) => return Ok(BuildOutcome::ExitCode(code)),
            Act::Memory(needed) if request.constraints.memory_mib < needed => {
                return Ok(BuildOutcome::OutOfMemory);
            }
            Act::Build | Act::Noise | Act::Log(_) | Act::Memory(_) => {}
            Act::Break => {
                return Err(BuildError::Machine {
                    reason: "the power went out".into(),
                    source: None,
                });
            }
            Act::Hang => std::future::pending().await,
            Act::Meet(count) => {
                *self.here.lock().unwrap() += 1;
                self.changed.notify_waiters();
                self.until(|builder| *builder.here.lock().unwrap() >= count).await;
            }
            Act::Gate | Act::GateAmidLog(_) => drop(self.gate.acquire().await.unwrap()),
        }
        Ok(BuildOutcome::Success)
    }
}

#[async_trait]
impl Builder for FakeBuilder {
    async fn build(&self, request: BuildRequest, mut io: BuildIo) -> Result<BuildReport, BuildError> {
        request.check()?;
        let name = String::from_utf8(request.environment[&b"name"[..]].to_vec()).unwrap();
        let act = self
            .acts
            .lock()
            .unwrap()
            .get(&name)
            .copied()
            .unwrap_or(Act::Build);
        self.requests.lock().unwrap().push(request.clone());
        let number = {
            let mut ran = self.ran.lock().unwrap();
            ran.push(name.clone());
            ran.len()
        };
        let mut guard = Stopped {
            name: Some(name.clone()),
            stopped: self.stopped.clone(),
            changed: self.changed.clone(),
        };
        self.changed.notify_waiters();
        let mut log = Log::new(&io.events);
        log.begin(&name, act).await;
        let outcome = self.act_out(act, &request).await?;
        if let Act::GateAmidLog(lines) = act {
            log.lines(lines..2 * lines).await;
        }
        if outcome == BuildOutcome::Success {
            let mut content = request.arguments[1].to_vec();
            if act == Act::Noise {
                content.extend_from_slice(number.to_string().as_bytes());
            }
            for output in &request.outputs {
                io.write_file(output, Bytes::from(content.clone())).await?;
            }
        }
        guard.name = None;
        let stats = BuildStats {
            machine: "a fake machine".into(),
            ..BuildStats::default()
        };
        Ok(BuildReport { outcome, stats })
    }

    fn systems(&self) -> Vec<String> {
        vec!["x86_64-linux".into()]
    }
}

/// A line of a log.
pub fn line(number: u64) -> String {
    format!("{number:>15}\n")
}

/// What a build says.
struct Log {
    events: EventSender,
    sequence: u64,
}

impl Log {
    fn new(events: &EventSender) -> Self {
        Self {
            events: events.clone(),
            sequence: 0,
        }
    }

    async fn begin(&mut self, name: &str, act: Act) {
        self.send(Bytes::from(format!("building {name}\n"))).await;
        match act {
            Act::Log(size) => {
                for _ in 0..size / 1024 {
                    self.send(Bytes::from(vec![b'x'; 1024])).await;
                }
            }
            Act::GateAmidLog(lines) => self.lines(0..lines).await,
            _ => {}
        }
    }

    async fn lines(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.send(Bytes::from(line(number))).await;
        }
    }

    async fn send(&mut self, bytes: Bytes) {
        let (sequence, size) = (self.sequence, bytes.len() as u64);
        let _ = self.events.send(BuildEvent::Log { sequence, bytes }).await;
        self.sequence += size;
    }
}

/// Notices that a build was dropped before its end.
struct Stopped {
    name: Option<String>,
    stopped: Arc<Mutex<Vec<String>>>,
    changed: Arc<Notify>,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.stopped.lock().unwrap().push(name);
            self.changed.notify_waiters();
        }
    }
}

type Script =
    Box<dyn Fn(EvaluateIo) -> BoxFuture<'static, Result<EvaluateReport, EvaluateError>> + Send + Sync>;

/// Evaluates nothing: does what a test says.
pub struct FakeEvaluator(Script);

impl FakeEvaluator {
    pub fn new<F>(script: impl Fn(EvaluateIo) -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = Result<EvaluateReport, EvaluateError>> + Send + 'static,
    {
        Arc::new(Self(Box::new(move |io| Box::pin(script(io)))))
    }
}

impl std::fmt::Debug for FakeEvaluator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeEvaluator")
    }
}

#[async_trait]
impl Evaluator for FakeEvaluator {
    async fn evaluate(&self, _: EvaluateRequest, io: EvaluateIo) -> Result<EvaluateReport, EvaluateError> {
        (self.0)(io).await
    }
}

pub fn evaluated(options: JobOptions) -> Job {
    let request = EvaluateRequest {
        inputs: Vec::new(),
        attributes: Vec::new(),
        arguments: Vec::new(),
        search_path: Vec::new(),
        options: Vec::new(),
        environment: BTreeMap::new(),
        base_dir: "/".into(),
        output: igloo_evaluator::Output::Goals,
    };
    Job {
        wanted: Wanted::Evaluated(Box::new(request)),
        options,
    }
}
