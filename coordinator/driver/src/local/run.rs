//! One job, from its wants to its report.
//!
//! Invariants
//! - when the job's future is dropped, the machine hears that its client is gone;
//! - a job ends when its evaluation and all its wants have ended, or the first goal failed and nothing is to go on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use igloo_coordinator::{
    Answer, ClientId, ClientOptions, Event, OnFailure, Priority, Purpose, Target, Want, WantId,
};
use igloo_evaluator::{EvaluateReport, EvaluateRequest, Goal};
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;
use tokio::sync::{mpsc, oneshot};

use super::feed::Feed;
use super::shared::Shared;
use super::watch::GoalEnd;
use super::{check, dry_run, evaluate};
use crate::job::{Job, JobError, JobOptions, JobReport, Update, Wanted};

/// A job as the machine knows it.
#[derive(Debug)]
pub(super) struct Client {
    pub id: ClientId,
    pub shared: Arc<Shared>,
    pub feed: Arc<Feed>,
    pub options: Arc<JobOptions>,
    wants: AtomicU64,
}

/// Runs a job, and passes its updates on.
pub(super) async fn run(
    shared: &Arc<Shared>,
    id: ClientId,
    job: Job,
    updates: &mpsc::Sender<Update>,
) -> Result<JobReport, JobError> {
    let Job { wanted, options } = job;
    let client = Client::open(shared, id, options);
    let gone = Gone(Arc::clone(&client));
    let work = async {
        client.come().await;
        let result = work(&client, wanted).await;
        client.feed.end();
        result
    };
    let (result, ()) = tokio::join!(work, client.feed.forward(updates));
    drop(gone);
    result
}

async fn work(client: &Arc<Client>, wanted: Wanted) -> Result<JobReport, JobError> {
    let (goals, mut receiver) = mpsc::unbounded_channel(); // as many as the job or the expression names
    let mut evaluation = None;
    let is_path = matches!(wanted, Wanted::Paths(_));
    match wanted {
        Wanted::Evaluated(request) => evaluation = Some(request),
        Wanted::Outputs(wanted) => {
            for (drv, outputs) in wanted {
                let _ = goals.send(goal(drv, outputs)); // the receiver is here
            }
        }
        Wanted::Paths(paths) => {
            for path in paths {
                let _ = goals.send(goal(path, BTreeSet::new())); // the receiver is here
            }
        }
    }
    let evaluation = evaluate(client, evaluation.map(|request| *request), goals);
    let (ends, evaluation) = if client.options.dry_run {
        dry_run::collect(evaluation, &mut receiver).await?
    } else {
        realise(client, evaluation, &mut receiver, is_path).await?
    };
    if client.options.dry_run {
        return dry_run::report(client, ends, evaluation, is_path).await;
    }
    let ends = check::rebuild(client, ends).await?;
    Ok(client.shared.watch.report(client.id, ends, evaluation))
}

pub(super) type Evaluation<'a> = BoxFuture<'a, Result<Option<EvaluateReport>, JobError>>;

/// The evaluation of a job, if it has one. It owns the goals' sender: when it has ended, no more come.
fn evaluate<'a>(
    client: &'a Arc<Client>,
    request: Option<EvaluateRequest>,
    goals: mpsc::UnboundedSender<Goal>,
) -> Evaluation<'a> {
    async move {
        let Some(request) = request else {
            return Ok(None);
        };
        let Some(evaluator) = client.shared.config.evaluator.clone() else {
            return Err(JobError::Invalid {
                reason: "this coordinator has no evaluator".to_owned(),
            });
        };
        let report = evaluate::run(client, evaluator.as_ref(), request, &goals).await?;
        Ok(Some(report))
    }
    .boxed()
}

/// Wants goals as they come, until all have ended.
async fn realise(
    client: &Arc<Client>,
    mut evaluation: Evaluation<'_>,
    goals: &mut mpsc::UnboundedReceiver<Goal>,
    is_path: bool,
) -> Result<(Vec<GoalEnd>, Option<EvaluateReport>), JobError> {
    let mut found: Vec<(Goal, Option<Answer>)> = Vec::new();
    let mut open = FuturesUnordered::new();
    let mut evaluated = None;
    let mut no_more = false;
    while evaluated.is_none() || !no_more || !open.is_empty() {
        tokio::select! {
            result = &mut evaluation, if evaluated.is_none() => evaluated = Some(result?),
            goal = goals.recv(), if !no_more => match goal {
                Some(goal) => {
                    let answer = client.want_goal(&goal, is_path).await;
                    let index = found.len();
                    found.push((goal, None));
                    open.push(async move { (index, answer.await) });
                }
                None => no_more = true,
            },
            Some((index, answer)) = open.next(), if !open.is_empty() => {
                let answer = answer.map_err(|_| client.gone())?;
                let stops = matches!(answer, Answer::Failed(_)) && !client.options.keep_going;
                found[index].1 = Some(answer);
                if stops {
                    break; // the machine cancels the others, and nothing more is asked
                }
            }
        }
    }
    let ends = found.into_iter().map(|(goal, answer)| GoalEnd {
        goal,
        answer: answer.unwrap_or(Answer::Cancelled),
    });
    Ok((ends.collect(), evaluated.flatten()))
}

fn goal(drv: StorePath, outputs: BTreeSet<OutputName>) -> Goal {
    Goal {
        attribute: String::new(),
        drv,
        outputs,
    }
}

impl Client {
    fn open(shared: &Arc<Shared>, id: ClientId, options: JobOptions) -> Arc<Self> {
        let client = Self {
            id,
            shared: Arc::clone(shared),
            feed: Arc::new(Feed::new()),
            options: Arc::new(options),
            wants: AtomicU64::new(0),
        };
        let (options, feed) = (Arc::clone(&client.options), Arc::clone(&client.feed));
        shared.watch.open(id, options, feed);
        Arc::new(client)
    }

    async fn come(&self) {
        let on_failure = if self.options.keep_going {
            OnFailure::KeepGoing
        } else {
            OnFailure::Stop
        };
        let options = ClientOptions {
            on_failure,
            weight: 1,
        };
        let client = self.id;
        self.shared.tell(Event::ClientCame { client, options }).await;
    }

    pub(super) fn next_want(&self) -> WantId {
        WantId(self.wants.fetch_add(1, Ordering::Relaxed))
    }

    /// Wants something; where the answer will appear.
    pub(super) async fn want(
        &self,
        id: WantId,
        target: Target,
        purpose: Purpose,
    ) -> oneshot::Receiver<Answer> {
        let watch = &self.shared.watch;
        let for_evaluation = purpose == Purpose::ImportFromDerivation;
        let answer = watch.want(self.id, id, &target, for_evaluation);
        let root = match &target {
            Target::Outputs { drv, .. } => drv,
            Target::Path(path) => path,
        };
        // a failure of an earlier job is no answer to this one
        for path in watch.stale_failures(self.id, root) {
            self.shared.tell(Event::Forget { path }).await;
        }
        let want = Want {
            id,
            target,
            purpose,
            priority: Priority::Normal,
        };
        let client = self.id;
        self.shared.tell(Event::Wanted { client, want }).await;
        if self.shared.events.is_closed() {
            watch.give_up();
        }
        answer
    }

    async fn want_goal(&self, goal: &Goal, is_path: bool) -> oneshot::Receiver<Answer> {
        let target = if is_path {
            Target::Path(goal.drv.clone())
        } else {
            Target::Outputs {
                drv: goal.drv.clone(),
                outputs: goal.outputs.clone(),
            }
        };
        self.want(self.next_want(), target, Purpose::Goal).await
    }

    pub(super) fn gone(&self) -> JobError {
        JobError::Gone {
            reason: self.shared.gone(),
        }
    }
}

/// Tells the machine that a job has ended, or was dropped.
struct Gone(Arc<Client>);

impl Drop for Gone {
    fn drop(&mut self) {
        let (shared, client) = (Arc::clone(&self.0.shared), self.0.id);
        shared.watch.close(client, shared.config.machine.nodes_max);
        let step = Arc::clone(&shared);
        shared.spawn(async move { step.tell(Event::ClientGone { client }).await });
    }
}
