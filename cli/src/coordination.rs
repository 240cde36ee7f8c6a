//! How the parts of a build are put together: store, builder, coordinator.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{BuildOutcome, Builder};
use igloo_driver::job::{
    BuildEnded, Built, Coordinator, FailureKind, FailureReport, GoalReport, Job, JobError, JobReport,
    Planned, Remaining, Update, Wanted,
};
use igloo_driver::realise::{BuildFailure, RealiseError, RealiseEvent, RealiseEventKind, Realised};
use igloo_driver::request::RequestOptions;
use igloo_driver::{DerivationSource, OutputError, Plan, Realise};
use igloo_evaluator::Goal;
use igloo_mount::tree::DIRECTORY_CACHE_BYTES;
use igloo_mount::{Totals, Tree};
use igloo_remote::{Connection, RemoteCoordinator};
use igloo_status::Code;
use igloo_store::Store;
use nix_compat::store_path::{StoreDir, StorePath};
use tokio::sync::mpsc;

use crate::args::NetworkChoice;
use crate::commands::machines;
use crate::config::Config;
use crate::context::Context;
use crate::failure::Failure;
use crate::stores;

/// Lines of log in a report.
const TAIL_LINES: usize = 25;
/// Events on their way.
const EVENTS_MAX: usize = 256;

/// What a command that builds needs.
#[derive(Debug)]
pub struct Parts {
    /// Runs its jobs.
    pub coordinator: Arc<dyn Coordinator>,
    /// How its paths are printed.
    pub dir: StoreDir,
}

/// The parts of this configuration.
///
/// # Errors
/// When the store or the builder cannot be opened.
pub async fn open(context: &Context, config: &Config) -> Result<Parts, Failure> {
    if let Some(url) = &config.coordinator {
        let connection = Connection::open(url).await?;
        return Ok(Parts {
            dir: StoreDir::default(),
            coordinator: Arc::new(RemoteCoordinator::new(&connection).await?),
        });
    }
    let store = stores::open(context).await?;
    Ok(Parts {
        dir: store.dir.clone(),
        coordinator: Arc::new(Simple {
            store,
            context: context.clone(),
            config: config.clone(),
        }),
    })
}

/// The log of the last build of a derivation.
///
/// # Errors
/// When logs cannot be read.
pub async fn log(context: &Context, config: &Config, drv: &StorePath) -> Result<Option<Bytes>, Failure> {
    let parts = open(context, config).await?;
    parts.coordinator.log(drv).await.map_err(|error| {
        let code = error.code();
        Failure::coded(error, code)
    })
}

/// Plans and builds derivations; evaluates and fetches nothing.
#[derive(Debug)]
struct Simple {
    store: Store,
    context: Context,
    config: Config,
}

#[async_trait]
impl Coordinator for Simple {
    async fn run(&self, job: Job, updates: mpsc::Sender<Update>) -> Result<JobReport, JobError> {
        let Wanted::Outputs(wanted) = job.wanted else {
            return Err(JobError::Invalid {
                reason: "only derivations (.drv files) can be built yet".into(),
            });
        };
        let source = DerivationSource::new(self.store.dir.clone(), job.options.folders.clone());
        let plan = Plan::make(&self.store, &source, wanted).await;
        let plan = plan.map_err(|error| JobError::Host {
            code: error.code(),
            reason: chain(&error),
        })?;
        let mut report = goals(&plan);
        if job.options.dry_run {
            report.plan = Some(Planned {
                builds: plan.builds.iter().map(|build| build.drv_path.clone()).collect(),
                fetches: Vec::new(),
            });
            return Ok(report);
        }
        if plan.builds.is_empty() {
            return Ok(report);
        }
        let realise = Realise {
            store: self.store.clone(),
            builder: self.builder().await?,
            options: RequestOptions {
                cores: job.options.cores,
                memory_mib: job.options.memory_mib,
                limits: job.options.limits,
                impure_environment: self.context.environment.clone(),
            },
            slots: usize::from(self.config.max_jobs),
            keep_going: job.options.keep_going,
        };
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let total = plan.builds.len() as u64;
        let (realised, tails) = tokio::join!(
            realise.run(&plan, sender),
            forward(receiver, updates, total, &self.store.dir)
        );
        self.complete(&mut report, &plan, realised, &tails).await;
        Ok(report)
    }

    async fn log(&self, _: &StorePath) -> Result<Option<Bytes>, JobError> {
        Ok(None)
    }
}

impl Simple {
    async fn builder(&self) -> Result<Arc<dyn Builder>, JobError> {
        let builder = match &self.config.builder {
            Some(url) => stores::remote_builder(&self.context, url).await,
            None => machines::builder(&self.context, &self.config, NetworkChoice::Allow).await,
        };
        builder.map_err(|failure| JobError::Host {
            reason: failure.message().trim_end().to_string(),
            code: Code::Unavailable,
        })
    }

    async fn complete(&self, report: &mut JobReport, plan: &Plan, realised: Realised, tails: &Tails) {
        for error in &realised.failed {
            report.failures.push(failed(error, tails, plan, &self.store.dir));
        }
        report.not_tried = realised.not_tried;
        for goal in &mut report.goals {
            let first = report
                .failures
                .iter()
                .position(|failure| failure.path == goal.goal.drv);
            goal.failure = first.or((!report.failures.is_empty()).then_some(0));
            goal.is_valid = goal.failure.is_none();
        }
        let tree = Tree::new(self.store.castore.clone(), DIRECTORY_CACHE_BYTES);
        for built in realised.built {
            let planned = plan
                .builds
                .iter()
                .find(|planned| planned.drv_path == built.drv_path);
            let roots: Vec<StorePath> = planned
                .into_iter()
                .flat_map(|planned| {
                    planned
                        .derivation
                        .input_srcs
                        .iter()
                        .chain(&planned.inputs)
                        .cloned()
                })
                .collect();
            let closure = self.store.closure(roots).await.unwrap_or_default();
            let nodes: Vec<_> = closure.values().map(|info| info.node.clone()).collect();
            let totals = Totals::of(&tree, nodes.iter()).await.unwrap_or_default();
            report.built.push(Built {
                drv: built.drv_path,
                outputs: built.outputs,
                stats: built.stats,
                input_bytes: totals.bytes,
                input_files: totals.files,
                started: std::time::Duration::ZERO,
                ended: std::time::Duration::ZERO,
                waited_for: None,
            });
        }
    }
}

fn goals(plan: &Plan) -> JobReport {
    let goal = |(drv, outputs): &(StorePath, _)| GoalReport {
        goal: Goal {
            attribute: String::new(),
            drv: drv.clone(),
            outputs: Default::default(),
        },
        outputs: Clone::clone(outputs),
        failure: None,
        is_valid: true,
    };
    JobReport {
        goals: plan.wanted.iter().map(goal).collect(),
        ..JobReport::default()
    }
}

type Tails = std::collections::BTreeMap<StorePath, Vec<u8>>;

async fn forward(
    mut events: mpsc::Receiver<RealiseEvent>,
    updates: mpsc::Sender<Update>,
    total: u64,
    dir: &StoreDir,
) -> Tails {
    const TAIL_SIZE: usize = 64 << 10;
    let mut tails = Tails::new();
    let mut builds = total;
    while let Some(event) = events.recv().await {
        let drv = event.drv_path;
        let update = match event.kind {
            RealiseEventKind::Began => Update::BuildStarted {
                drv,
                attempt: 1,
                builder: "here".into(),
                expected: None,
                for_evaluation: false,
            },
            RealiseEventKind::Build(event) => {
                if let igloo_build::BuildEvent::Log { bytes, .. } = &event {
                    let tail = tails.entry(drv.clone()).or_default();
                    tail.extend_from_slice(bytes);
                    let surplus = tail.len().saturating_sub(TAIL_SIZE);
                    tail.drain(..surplus);
                }
                Update::Build { drv, event }
            }
            RealiseEventKind::Registered { stats } => {
                builds = builds.saturating_sub(1);
                Update::BuildEnded {
                    drv,
                    end: BuildEnded::Registered(Box::new(stats)),
                }
            }
            RealiseEventKind::Failed { reason } => {
                builds = builds.saturating_sub(1);
                let failure = FailureReport {
                    headline: format!("'{}': {reason}", dir.print(&drv)),
                    path: drv.clone(),
                    kind: FailureKind::Infrastructure,
                    causes: Vec::new(),
                    log_tail: Vec::new(),
                    code: Code::Unknown,
                };
                Update::BuildEnded {
                    drv,
                    end: BuildEnded::Failed(Box::new(failure)),
                }
            }
        };
        let remaining = Remaining {
            builds,
            ..Remaining::default()
        };
        let _ = updates.send(update).await; // nobody watches: the build goes on
        let _ = updates.send(Update::Remaining(remaining)).await;
    }
    tails
}

fn failed(error: &RealiseError, tails: &Tails, plan: &Plan, dir: &StoreDir) -> FailureReport {
    let all = plan.builds.iter().map(|build| &build.drv_path);
    let path = all.clone().find(|path| dir.print(path) == error.drv_path);
    let path = path.or(all.clone().next()).unwrap_or(&plan.wanted[0].0).clone();
    let tail = tails.get(&path).map_or(&[][..], Vec::as_slice);
    let lines: Vec<Bytes> = tail
        .split(|byte| *byte == b'\n')
        .map(Bytes::copy_from_slice)
        .collect();
    let lines = lines
        .into_iter()
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>();
    let causes = match &error.failure {
        BuildFailure::Outcome(_) => Vec::new(),
        BuildFailure::Output(OutputError::HashMismatch(mismatch)) => vec![mismatch.to_string()],
        failure => vec![chain(failure)],
    };
    FailureReport {
        kind: kind(&error.failure),
        headline: error.to_string(),
        causes,
        log_tail: lines[lines.len().saturating_sub(TAIL_LINES)..].to_vec(),
        code: error.failure.code(),
        path,
    }
}

fn kind(failure: &BuildFailure) -> FailureKind {
    match failure {
        BuildFailure::Outcome(BuildOutcome::Timeout { .. } | BuildOutcome::Silence { .. }) => {
            FailureKind::Timeout
        }
        BuildFailure::Outcome(BuildOutcome::OutputMissing { .. } | BuildOutcome::OutputInvalid { .. }) => {
            FailureKind::Output
        }
        BuildFailure::Outcome(_) => FailureKind::Build,
        BuildFailure::Output(OutputError::HashMismatch(_)) => FailureKind::HashMismatch,
        _ => FailureKind::Infrastructure,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}\n  because: {cause}");
        source = cause.source();
    }
    text
}
