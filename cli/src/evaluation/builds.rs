//! Builds that an evaluation needs to go on (import from derivation), by the coordinator that `igloo build` uses.
//!
//! Invariants
//! - nothing is set up before the first build is asked for, so that what needs none needs no builder;
//! - what is built is told line by line on stderr, never in a block: stdout may be on the same terminal.

use async_trait::async_trait;
use futures::future::try_join_all;
use igloo_driver::job::{FailureKind, FailureReport, GoalReport, Update};
use igloo_driver::{Job, JobReport};
use igloo_store::Store;
use igloo_store_io::{RealiseError, RealisedOutput, Realiser, Wanted};
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::task::JoinHandle;

use crate::commands::build::{inputs, report};
use crate::config::Config;
use crate::config::value::Value;
use crate::context::Context;
use crate::coordination::{self, Parts};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::progress::model::Logs;

/// Updates on their way to stderr.
const UPDATES_MAX: usize = 1024;

/// See the module.
pub struct Builds {
    context: Context,
    config: Config,
    store: Store,
    opened: OnceCell<Result<Opened, String>>,
}

struct Opened {
    parts: Parts,
    updates: mpsc::Sender<Update>,
    shown: JoinHandle<()>,
    /// Why this machine cannot build at all, once that is known.
    broken: watch::Receiver<Option<String>>,
}

impl Builds {
    /// With the configuration and these settings of the command line, into that store.
    pub fn new(context: &Context, options: &[(String, String)], store: Store) -> Self {
        let mut config = context.config.clone();
        for (name, value) in options {
            // the evaluation warns of what cannot be, as Nix does
            let _ = config.set(name, &Value::Text(value.clone()));
        }
        let context = Context {
            terminal: false,
            ..context.clone()
        };
        Self {
            context,
            config,
            store,
            opened: OnceCell::new(),
        }
    }

    /// Stops what still goes on.
    pub async fn close(&self) {
        if let Some(Ok(opened)) = self.opened.get() {
            opened.parts.close().await;
            opened.shown.abort();
        }
    }

    async fn opened(&self) -> Result<&Opened, RealiseError> {
        let opened = self.opened.get_or_init(|| async {
            let parts = coordination::open_over(&self.context, &self.config, &self.store).await;
            parts
                .map(|parts| self.watch(parts))
                .map_err(|failure| words(&failure))
        });
        let opened = opened.await;
        opened.as_ref().map_err(|why| unavailable(why))
    }

    fn watch(&self, mut parts: Parts) -> Opened {
        let (updates, receiver) = mpsc::channel(UPDATES_MAX);
        let progress = Progress::new(&self.context, parts.dir.clone(), Logs::None, true);
        let shown = tokio::spawn(async move { drop(progress.follow(receiver).await) });
        let (teller, broken) = watch::channel(None);
        let mut failures = std::mem::replace(&mut parts.broken, mpsc::channel(1).1);
        tokio::spawn(async move {
            if let Some(failure) = failures.recv().await {
                teller.send_replace(Some(words(&failure)));
            }
            // everybody who waits looks at what was told last
            teller.closed().await;
        });
        Opened {
            parts,
            updates,
            shown,
            broken,
        }
    }

    async fn run(&self, wanted: igloo_driver::job::Wanted) -> Result<JobReport, RealiseError> {
        let opened = self.opened().await?;
        let job = Job {
            wanted,
            options: inputs::job_options(&self.context, &self.config),
        };
        let mut broken = opened.broken.clone();
        tokio::select! {
            report = opened.parts.coordinator.run(job, opened.updates.clone()) => {
                report.map_err(|error| RealiseError::Unavailable { source: error.into() })
            }
            Ok(why) = broken.wait_for(Option::is_some) => Err(unavailable(why.as_deref().unwrap_or_default())),
        }
    }
}

#[async_trait]
impl Realiser for Builds {
    async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
        let (mut goals, mut paths) = (Vec::new(), Vec::new());
        for wanted in wanted {
            match wanted {
                Wanted::Outputs { derivation, outputs } => goals.push((derivation, outputs)),
                Wanted::Path(path) => paths.push(path),
            }
        }
        let mut jobs = Vec::new();
        if !goals.is_empty() {
            jobs.push(self.run(igloo_driver::job::Wanted::Outputs(goals)));
        }
        if !paths.is_empty() {
            jobs.push(self.run(igloo_driver::job::Wanted::Paths(paths)));
        }
        let mut realised = Vec::new();
        for report in try_join_all(jobs).await? {
            for goal in &report.goals {
                realised.extend(outputs_of(&report, goal)?);
            }
        }
        Ok(realised)
    }
}

fn outputs_of(report: &JobReport, goal: &GoalReport) -> Result<Vec<RealisedOutput>, RealiseError> {
    let drv = &goal.goal.drv;
    if goal.is_valid {
        let outputs = goal.outputs.iter().map(|(output, path)| RealisedOutput {
            derivation: drv.clone(),
            output: output.clone(),
            path: path.clone(),
        });
        return Ok(outputs.collect());
    }
    let failure: Option<&FailureReport> = goal.failure.and_then(|index| report.failures.get(index));
    let Some(failure) = failure else {
        return Err(RealiseError::Cancelled);
    };
    if failure.kind == FailureKind::Unavailable && failure.path == *drv {
        return Err(RealiseError::Missing { path: drv.clone() });
    }
    let causes = failure.causes.iter();
    Err(RealiseError::Build {
        derivation: drv.clone(),
        reason: causes.fold(failure.headline.clone(), |reason, cause| {
            format!("{reason}: {cause}")
        }),
        exit: report::exit(&[failure]),
    })
}

fn unavailable(why: &str) -> RealiseError {
    RealiseError::Unavailable { source: why.into() }
}

/// A failure in one line, for an error with more around it.
fn words(failure: &Failure) -> String {
    let message = failure.message();
    let message = message.trim();
    message
        .strip_prefix("error: ")
        .unwrap_or(message)
        .replace('\n', "; ")
}
