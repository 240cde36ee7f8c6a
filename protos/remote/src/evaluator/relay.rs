//! From a running evaluation to the event stream of a call, and from the caller's answers back.
//!
//! Invariant: what the evaluator told before it asked goes out before the question.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use igloo_evaluator::{EvaluateError, EvaluateEvent, EvaluateIo, EvaluateReport, EvaluateRequest, Evaluator};
use igloo_protos::evaluate::{evaluate_failure_message, evaluate_report_message};
use igloo_protos::evaluator::{event_messages, read_realised, realise_message};
use igloo_protos::igloo::evaluator::v1 as wire;
use igloo_protos::igloo::evaluator::v1::evaluate_event::Event;
use igloo_store_io::{RealiseError, RealisedOutput, Realiser, Wanted};
use nix_compat::store_path::StoreDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinError;
use tonic::{Status, Streaming};

use super::{EVENTS, QUESTIONS_MAX};
use crate::status::refuse;
use crate::task::OwnedTask;

type Out = mpsc::Sender<Result<wire::EvaluateEvent, Status>>;

/// Runs an evaluation and sends all that happens to `out`. Ends early, and the evaluation with it, when nobody listens or
/// the caller breaks the protocol.
pub(super) async fn run(
    evaluator: Arc<dyn Evaluator>,
    request: EvaluateRequest,
    dir: StoreDir,
    inputs: Streaming<wire::EvaluateInput>,
    out: Out,
) {
    let (events_sender, events) = mpsc::channel(EVENTS);
    let (questions_sender, questions) = mpsc::channel(1);
    let answers = Arc::new(Answers::default());
    let io = EvaluateIo {
        events: events_sender,
        realiser: Arc::new(Caller {
            questions: questions_sender,
            answers: Arc::clone(&answers),
        }),
    };
    let evaluation = OwnedTask::spawn(async move { evaluator.evaluate(request, io).await });
    let relay = Relay {
        events,
        questions,
        out: out.clone(),
        dir,
    };
    let stopped = tokio::select! {
        told = relay.relay(evaluation) => told.is_none(),
        status = listen(inputs, &answers) => out.send(Err(status)).await.is_err(),
    };
    if stopped {
        tracing::debug!("the caller of an evaluation has left; the evaluation was stopped");
    }
}

struct Relay {
    events: mpsc::Receiver<EvaluateEvent>,
    questions: mpsc::Receiver<wire::EvaluateEvent>,
    out: Out,
    dir: StoreDir,
}

impl Relay {
    /// `None` when nobody listens any more.
    async fn relay(mut self, mut evaluation: OwnedTask<Result<EvaluateReport, EvaluateError>>) -> Option<()> {
        let ended = loop {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.event(event).await?,
                Some(question) = self.questions.recv() => {
                    self.queued_events().await?;
                    self.send(question).await?;
                }
                ended = evaluation.join() => break ended,
            }
        };
        self.queued_events().await?;
        let event = Some(last(ended));
        self.send(wire::EvaluateEvent { event }).await
    }

    /// Events told before the question that was just received are in the queue by now.
    async fn queued_events(&mut self) -> Option<()> {
        while let Ok(event) = self.events.try_recv() {
            self.event(event).await?;
        }
        Some(())
    }

    async fn event(&mut self, event: EvaluateEvent) -> Option<()> {
        match event_messages(event, &self.dir) {
            Ok(messages) => {
                for message in messages {
                    self.send(message).await?;
                }
                Some(())
            }
            Err(error) => {
                tracing::error!(%error, "an evaluator told what cannot be");
                let status = Status::internal("the evaluator hit a bug of its own");
                let _ = self.out.send(Err(status)).await;
                None
            }
        }
    }

    async fn send(&mut self, message: wire::EvaluateEvent) -> Option<()> {
        self.out.send(Ok(message)).await.ok()
    }
}

fn last(ended: Result<Result<EvaluateReport, EvaluateError>, JoinError>) -> Event {
    match ended {
        Ok(Ok(report)) => Event::Finished(evaluate_report_message(&report)),
        Ok(Err(error)) => Event::Failed(evaluate_failure_message(error)),
        Err(error) => {
            tracing::error!(%error, "an evaluator panicked");
            Event::Failed(evaluate_failure_message(EvaluateError::Unavailable {
                reason: "the evaluator hit a bug of its own".into(),
            }))
        }
    }
}

/// Takes the caller's answers in; returns only when the caller breaks the protocol.
async fn listen(mut inputs: Streaming<wire::EvaluateInput>, answers: &Answers) -> Status {
    use wire::evaluate_input::Input;
    loop {
        let input = match inputs.message().await {
            Ok(Some(input)) => input.input,
            Ok(None) => break,
            Err(status) => return status,
        };
        let Some(Input::Realised(realised)) = input else {
            return Status::invalid_argument("after the request only answers are taken");
        };
        match read_realised(realised) {
            Ok((id, answer)) => {
                if !answers.give(id, answer) {
                    return Status::invalid_argument(format!("there is no question {id}"));
                }
            }
            Err(error) => return refuse(error.code(), &error),
        }
    }
    // a caller that will answer no more may still listen
    answers.close();
    std::future::pending().await
}

/// The evaluation's way to ask the caller.
struct Caller {
    questions: mpsc::Sender<wire::EvaluateEvent>,
    answers: Arc<Answers>,
}

#[async_trait]
impl Realiser for Caller {
    async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError> {
        let gone = |_| unavailable("the caller of the evaluation answers no more");
        let (answer, question) = self.answers.question()?;
        let sent = self.questions.send(realise_message(question.id, &wanted)).await;
        sent.map_err(|_| RealiseError::Cancelled)?;
        answer.await.map_err(gone)?
    }
}

fn unavailable(why: &str) -> RealiseError {
    RealiseError::Unavailable { source: why.into() }
}

type Answer = Result<Vec<RealisedOutput>, RealiseError>;

/// Questions that wait for their answers.
#[derive(Default)]
struct Answers {
    next: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    closed: bool,
    questions: HashMap<u64, oneshot::Sender<Answer>>,
    /// Asked, and not waited for any more.
    forgotten: std::collections::HashSet<u64>,
}

impl Answers {
    fn question(self: &Arc<Self>) -> Result<(oneshot::Receiver<Answer>, Question), RealiseError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(unavailable("the caller of the evaluation answers no more"));
        }
        if waiting.questions.len() >= QUESTIONS_MAX {
            return Err(unavailable("too many builds are waited for at once"));
        }
        waiting.questions.insert(id, sender);
        let answers = Arc::clone(self);
        Ok((receiver, Question { answers, id }))
    }

    /// Whether there was such a question.
    fn give(&self, id: u64, answer: Answer) -> bool {
        let mut waiting = self.lock();
        match waiting.questions.remove(&id) {
            Some(sender) => {
                let _ = sender.send(answer); // nobody waits any more: fine
                true
            }
            None => waiting.forgotten.remove(&id),
        }
    }

    fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.questions.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question while somebody waits for its answer.
struct Question {
    answers: Arc<Answers>,
    id: u64,
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut waiting = self.answers.lock();
        if waiting.questions.remove(&self.id).is_some() && waiting.forgotten.len() < QUESTIONS_MAX {
            waiting.forgotten.insert(self.id);
        }
    }
}
