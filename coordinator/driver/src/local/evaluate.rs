//! The evaluation of a job: its derivations become known, its goals wanted, and what it cannot go on without is made.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future;
use igloo_coordinator::{Answer, Event, Purpose, Target, WantId};
use igloo_evaluator::{
    EvaluateError, EvaluateEvent, EvaluateIo, EvaluateReport, EvaluateRequest, Evaluator, Goal,
};
use igloo_store_io::{RealiseError, RealisedOutput, Realiser, Wanted};
use nix_compat::store_path::StorePath;
use tokio::sync::{mpsc, oneshot};

use super::run::Client;
use super::shared::Shared;
use crate::job::{FailureKind, Update};

/// Events on their way from an evaluation.
const EVENTS_MAX: usize = 256;

/// Runs an evaluation; goals go to `goals` as they are found.
pub(super) async fn run(
    client: &Arc<Client>,
    evaluator: &dyn Evaluator,
    request: EvaluateRequest,
    goals: &mpsc::UnboundedSender<Goal>,
) -> Result<EvaluateReport, EvaluateError> {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let realiser = JobRealiser {
        client: Arc::clone(client),
    };
    let io = EvaluateIo {
        events: sender,
        realiser: Arc::new(realiser),
    };
    let evaluation = evaluator.evaluate(request, io);
    let listening = listen(client, receiver, goals);
    let (result, ()) = future::join(evaluation, listening).await;
    let report = result?;
    client.feed.send(Update::Evaluated(report)).await;
    Ok(report)
}

async fn listen(
    client: &Client,
    mut events: mpsc::Receiver<EvaluateEvent>,
    goals: &mpsc::UnboundedSender<Goal>,
) {
    let mut count = 0u64;
    while let Some(event) = events.recv().await {
        match event {
            EvaluateEvent::Derivation { path, derivation } => {
                count += 1;
                client.feed.instantiated(count, path.clone());
                instantiated(&client.shared, &path, derivation).await;
            }
            EvaluateEvent::Goal(goal) => {
                client.feed.send(Update::Goal(goal.clone())).await;
                let _ = goals.send(goal); // the job has ended: so will the evaluation
            }
            EvaluateEvent::Notice(notice) => client.feed.send(Update::Notice(notice)).await,
            EvaluateEvent::Printed(_) => {} // only evaluations that nobody builds print
        }
    }
}

async fn instantiated(
    shared: &Shared,
    path: &StorePath,
    derivation: Arc<nix_compat::derivation::Derivation>,
) {
    // checked as everybody's word is: the evaluator may be another process
    match shared.describe(path, &derivation) {
        Ok(info) => {
            shared.keep_derivation(path, derivation);
            shared.watch.learn(Arc::new(info.clone()));
            shared.tell(Event::DrvKnown(Box::new(info))).await;
        }
        Err(error) => tracing::warn!(drv = %path, %error, "an evaluator tells what cannot be"),
    }
}

/// Makes what an evaluation waits for, before all else.
struct JobRealiser {
    client: Arc<Client>,
}

#[async_trait]
impl Realiser for JobRealiser {
    async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
        let mut asked = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let (root, target) = target_of(wanted);
            let asking = Asking::begin(&self.client, target).await;
            asked.push(async move { (root, asking.answer().await) });
        }
        let mut realised = Vec::new();
        for (root, answer) in future::join_all(asked).await {
            realised.extend(outputs_of(&self.client, root, answer)?);
        }
        Ok(realised)
    }
}

fn target_of(wanted: Wanted) -> (StorePath, Target) {
    match wanted {
        Wanted::Path(path) => (path.clone(), Target::Path(path)),
        Wanted::Outputs { derivation, outputs } => (
            derivation.clone(),
            Target::Outputs {
                drv: derivation,
                outputs,
            },
        ),
    }
}

fn outputs_of(
    client: &Client,
    root: StorePath,
    answer: Option<Answer>,
) -> Result<Vec<RealisedOutput>, RealiseError> {
    match answer {
        Some(Answer::Valid { outputs }) => {
            let outputs = outputs.into_iter();
            let realised = outputs.map(|(output, path)| RealisedOutput {
                derivation: root.clone(),
                output,
                path,
            });
            Ok(realised.collect())
        }
        Some(Answer::Failed(failure)) => {
            if failure.kind == igloo_coordinator::FailureKind::Missing && failure.root.as_ref() == Some(&root)
            {
                return Err(RealiseError::Missing { path: root });
            }
            let report = client.shared.watch.failure_report(&failure, &root);
            let mut reason = report.headline;
            for cause in report.causes {
                reason = format!("{reason}: {cause}");
            }
            Err(RealiseError::Build {
                derivation: root,
                reason,
                exit: exit_of(report.kind),
            })
        }
        Some(Answer::Cancelled) => Err(RealiseError::Cancelled),
        None => Err(RealiseError::Unavailable {
            source: client.shared.gone().into(),
        }),
    }
}

/// The exit status Nix has for an evaluation that needed a build which failed so.
fn exit_of(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::Build => 100,
        FailureKind::Timeout => 101,
        FailureKind::HashMismatch => 102,
        FailureKind::NotDeterministic => 104,
        FailureKind::Output | FailureKind::Unavailable | FailureKind::Infrastructure => 1,
    }
}

/// A want of an evaluation; dropping it before the answer cancels it.
struct Asking {
    client: Arc<Client>,
    id: WantId,
    answer: Option<oneshot::Receiver<Answer>>,
}

impl Asking {
    async fn begin(client: &Arc<Client>, target: Target) -> Self {
        let id = client.next_want();
        let answer = client.want(id, target, Purpose::ImportFromDerivation).await;
        Self {
            client: Arc::clone(client),
            id,
            answer: Some(answer),
        }
    }

    async fn answer(mut self) -> Option<Answer> {
        let receiver = self.answer.as_mut()?;
        let answer = receiver.await.ok();
        self.answer = None;
        answer
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.answer.is_some() {
            let (shared, client, want) = (Arc::clone(&self.client.shared), self.client.id, self.id);
            let step = Arc::clone(&shared);
            shared.spawn(async move { step.tell(Event::Cancelled { client, want }).await });
        }
    }
}
