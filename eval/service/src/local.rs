//! [`LocalEvaluator`]: evaluations on threads of this process.
//!
//! Every evaluation has a plain thread of its own, and more where its settings ask for them, which wait for the disk, for
//! fetches and for builds; the caller's runtime serves the store. All that happens goes through one queue, behind what was
//! made before it: events come in the order in which the evaluation made them, whatever the disk does.
//!
//! Invariants
//! - an event is told when everything made before it is in the store;
//! - the thread ends soon after the caller has dropped the future, also while it waits for a build; what was registered by
//!   then stays registered with all it refers to.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use igloo_eval::io::Notice;
use igloo_eval::{EvalIo, Evaluation, Settings};
use igloo_store::Store;
use igloo_store_io::{
    DerivationSink, FetchLimits, Fetcher, FlushError, HostStore, Shared, StoreIo, TreePlaces,
};
use nix_compat::derivation::Derivation;
use nix_compat::store_path::StorePath;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::evaluator::{EvaluateError, EvaluateIo, EvaluateReport, Evaluator};
use crate::event::EvaluateEvent;
use crate::request::EvaluateRequest;
use crate::run::{Threads, run};
use crate::settings::{Configuration, Machine, configure};

/// Facts of the machine, asked for by every evaluation.
pub type MachineFacts = Arc<dyn Fn() -> Machine + Send + Sync>;

/// Evaluates over a store, on threads of this process.
#[derive(Clone)]
pub struct LocalEvaluator {
    store: Store,
    runtime: Handle,
    machine: MachineFacts,
    fetcher: Option<(Arc<dyn Fetcher>, FetchLimits)>,
    trees: TreePlaces,
    host_store: HostStore,
}

impl LocalEvaluator {
    /// An evaluator over a store that `runtime` serves, without network.
    #[must_use]
    pub fn new(store: Store, runtime: Handle, machine: MachineFacts) -> Self {
        Self {
            store,
            runtime,
            machine,
            fetcher: None,
            trees: TreePlaces::default(),
            host_store: HostStore::default(),
        }
    }

    /// Fetches URLs.
    #[must_use]
    pub fn with_fetcher(mut self, fetcher: Arc<dyn Fetcher>, limits: FetchLimits) -> Self {
        self.fetcher = Some((fetcher, limits));
        self
    }

    /// Says where copies of Git repositories are kept, and what names of flakes stand for.
    #[must_use]
    pub fn with_trees(mut self, trees: TreePlaces) -> Self {
        self.trees = trees;
        self
    }

    /// Says whether the machine's own store is to be seen.
    #[must_use]
    pub fn with_host_store(mut self, host_store: HostStore) -> Self {
        self.host_store = host_store;
        self
    }
}

#[async_trait]
impl Evaluator for LocalEvaluator {
    async fn evaluate(
        &self,
        request: EvaluateRequest,
        io: EvaluateIo,
    ) -> Result<EvaluateReport, EvaluateError> {
        request.check()?;
        let (stop, stopped) = Stop::new();
        let job = Job {
            evaluator: self.clone(),
            request,
            io,
            interrupt: Arc::clone(&stop.interrupt),
            stopped,
        };
        let (answer, result) = oneshot::channel();
        let thread = std::thread::Builder::new().name("evaluation".to_owned());
        let started = thread.spawn(move || {
            let _ = answer.send(job.run()); // nobody waits any more: fine
        });
        started.map_err(|error| EvaluateError::Unavailable {
            reason: format!("it cannot start a thread: {error}"),
        })?;
        let result = result.await;
        drop(stop);
        result.unwrap_or_else(|_| {
            Err(EvaluateError::Unavailable {
                reason: "it hit a bug of its own".to_owned(),
            })
        })
    }
}

impl std::fmt::Debug for LocalEvaluator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalEvaluator")
            .field("store", &self.store)
            .field("fetches", &self.fetcher.is_some())
            .finish_non_exhaustive()
    }
}

/// Stops an evaluation when it is dropped.
struct Stop {
    /// Ends what is being evaluated.
    interrupt: Arc<AtomicBool>,
    /// Ends what is being waited for.
    sender: watch::Sender<bool>,
}

impl Stop {
    fn new() -> (Self, watch::Receiver<bool>) {
        let (sender, stopped) = watch::channel(false);
        let interrupt = Arc::default();
        (Self { interrupt, sender }, stopped)
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.interrupt.store(true, Ordering::Relaxed);
        self.sender.send_replace(true);
    }
}

/// An evaluation on its thread.
struct Job {
    evaluator: LocalEvaluator,
    request: EvaluateRequest,
    io: EvaluateIo,
    interrupt: Arc<AtomicBool>,
    stopped: watch::Receiver<bool>,
}

impl Job {
    fn run(self) -> Result<EvaluateReport, EvaluateError> {
        let start = Instant::now();
        let events = Arc::new(Events {
            sender: self.io.events.clone(),
            waiting: Mutex::default(),
            derivations: AtomicU64::new(0),
            stopped: self.stopped.clone(),
        });
        let machine = (self.evaluator.machine)();
        let request = &self.request;
        let home = request.environment.get(b"HOME".as_slice());
        let home = home.map(|home| String::from_utf8_lossy(home).into_owned());
        let configuration =
            configure(&machine, &request.options, &request.search_path).based_at(&request.base_dir, home);
        let show_trace = configuration.settings.show_trace;
        let warnings = configuration.warnings.clone();
        let settings = Settings {
            interrupt: Arc::clone(&self.interrupt),
            ..configuration.settings.clone()
        };
        let shared = Shared::default();
        let io = self.world(&configuration, &events, &shared);
        for warning in warnings {
            io.notice(Notice::Warning(warning));
        }
        let world: Rc<dyn EvalIo> = Rc::<StoreIo>::clone(&io);
        let mut evaluation = Evaluation::new(settings.clone(), world);
        let used = Used::default();
        let threads = Threads {
            count: configuration.threads,
            open: &|| {
                let io: Rc<dyn EvalIo> = self.world(&configuration, &events, &shared);
                (Evaluation::new(settings.clone(), Rc::clone(&io)), io)
            },
            close: &|evaluation| used.add(&evaluation),
        };
        let result = run(
            &mut evaluation,
            &*io,
            request,
            show_trace,
            Some(threads),
            &mut |event| events.say(&io, event),
        );
        // what a failed evaluation made stays, and was told
        let flushed = io.flush();
        flushed.map_err(|error| store_failed(&error))?;
        result?;
        used.add(&evaluation);
        Ok(EvaluateReport {
            elapsed: start.elapsed(),
            cpu: Duration::from_nanos(used.cpu_nanos.load(Ordering::Relaxed)),
            heap_bytes: used.heap_bytes.load(Ordering::Relaxed),
            derivations: events.derivations.load(Ordering::Relaxed),
        })
    }

    /// The world, and in it a way for what the expression says.
    fn world(&self, configuration: &Configuration, events: &Arc<Events>, shared: &Shared) -> Rc<StoreIo> {
        let evaluator = &self.evaluator;
        let own: Rc<OnceCell<Weak<StoreIo>>> = Rc::default();
        let (said, world) = (Arc::clone(events), Rc::clone(&own));
        let notices = move |notice| {
            if let Some(io) = world.get().and_then(Weak::upgrade) {
                said.say(&io, EvaluateEvent::Notice(notice));
            }
        };
        let environment = self.request.environment.clone();
        let mut io = StoreIo::new(evaluator.store.clone(), evaluator.runtime.clone())
            .with_rules(configuration.files.clone())
            .with_uris(configuration.uris.clone())
            .with_env(Box::new(move |name| {
                environment.get(name).map(|value| value.to_vec())
            }))
            .with_notices(Box::new(notices))
            .with_sink(Arc::<Events>::clone(events))
            .with_realiser(Arc::clone(&self.io.realiser))
            .with_host_store(evaluator.host_store)
            .with_trees(configuration.trees(&evaluator.trees))
            .with_stop(self.stopped.clone())
            .beside(shared);
        if let Some((fetcher, limits)) = &evaluator.fetcher {
            io = io.with_fetcher(Arc::clone(fetcher), limits.clone());
        }
        let io = Rc::new(io);
        let _ = own.set(Rc::downgrade(&io)); // set once, here
        io
    }
}

fn store_failed(error: &FlushError) -> EvaluateError {
    EvaluateError::Store {
        code: error.code(),
        reason: error.to_string(),
    }
}

/// What the threads of an evaluation used.
#[derive(Default)]
struct Used {
    cpu_nanos: AtomicU64,
    heap_bytes: AtomicU64,
}

impl Used {
    /// Adds what this thread used, and its evaluation.
    fn add(&self, evaluation: &Evaluation) {
        let nanos = u64::try_from(thread_time().as_nanos()).unwrap_or(u64::MAX);
        self.cpu_nanos.fetch_add(nanos, Ordering::Relaxed);
        let bytes = evaluation.reserved_bytes() as u64;
        self.heap_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Time this thread was running.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The way of events to the caller.
struct Events {
    sender: mpsc::Sender<EvaluateEvent>,
    /// Events whose marks are in the registrar's queue.
    waiting: Mutex<VecDeque<EvaluateEvent>>,
    derivations: AtomicU64,
    stopped: watch::Receiver<bool>,
}

impl Events {
    /// Puts an event in line behind what was made before; false when nobody will hear it.
    fn say(&self, io: &StoreIo, event: EvaluateEvent) -> bool {
        self.waiting().push_back(event);
        io.mark().is_ok()
    }

    /// Nobody need listen, and nobody does once the evaluation was stopped.
    async fn send(&self, event: EvaluateEvent) {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => {}
            _ = self.sender.send(event) => {}
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<EvaluateEvent>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl DerivationSink for Events {
    async fn derivation(&self, path: &StorePath, derivation: &Arc<Derivation>) {
        self.derivations.fetch_add(1, Ordering::Relaxed);
        self.send(EvaluateEvent::Derivation {
            path: path.clone(),
            derivation: Arc::clone(derivation),
        })
        .await;
    }

    async fn mark(&self) {
        let event = self.waiting().pop_front();
        if let Some(event) = event {
            self.send(event).await;
        }
    }
}
