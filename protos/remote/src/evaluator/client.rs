//! An evaluator in another process.

use async_trait::async_trait;
use futures::stream::{self, Stream, StreamExt as _};
use igloo_evaluator::{EvaluateError, EvaluateIo, EvaluateReport, EvaluateRequest, Evaluator};
use igloo_protos::WireError;
use igloo_protos::evaluate::{
    EVALUATE_MESSAGE_BYTES_MAX, evaluate_message, read_evaluate_failure, read_evaluate_report,
};
use igloo_protos::evaluator::{EVALUATE_EVENT_BYTES_MAX, EventReader, read_realise, realised_message};
use igloo_protos::igloo::evaluator::v1 as wire;
use igloo_protos::igloo::evaluator::v1::evaluate_event::Event;
use igloo_protos::igloo::evaluator::v1::evaluator_service_client::EvaluatorServiceClient;
use igloo_status::Code;
use nix_compat::store_path::StoreDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

use super::{MESSAGES, QUESTIONS_MAX};
use crate::connect::{ConnectError, Connection};
use crate::status::RemoteError;

/// An evaluator behind a connection. Cheap to clone.
///
/// Files are read on its machine, and what it makes goes to its store: the caller reads the same store.
#[derive(Clone, Debug)]
pub struct RemoteEvaluator {
    url: String,
    client: EvaluatorServiceClient<Channel>,
    dir: StoreDir,
}

impl RemoteEvaluator {
    /// Asks the peer whether it is an evaluator. `dir` is the directory of the store it evaluates over.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn new(connection: &Connection, dir: StoreDir) -> Result<Self, ConnectError> {
        connection.check("igloo.evaluator.v1.EvaluatorService").await?;
        let client = EvaluatorServiceClient::new(connection.channel());
        Ok(Self {
            url: connection.url().to_owned(),
            client: client
                .max_decoding_message_size(EVALUATE_EVENT_BYTES_MAX)
                .max_encoding_message_size(EVALUATE_MESSAGE_BYTES_MAX),
            dir,
        })
    }

    fn failed(&self, status: &Status) -> EvaluateError {
        let RemoteError { code, message } = RemoteError::from(status);
        let reason = format!("{}: {message}", self.url);
        match code {
            Code::InvalidArgument => EvaluateError::Request { reason },
            _ => EvaluateError::Unavailable { reason },
        }
    }

    /// The peer broke the protocol.
    fn wrong(&self, error: &WireError) -> EvaluateError {
        self.broken(&format!("{error}: {}", error.reason))
    }

    fn broken(&self, what: &str) -> EvaluateError {
        EvaluateError::Unavailable {
            reason: format!("{} sent what it may not send: {what}", self.url),
        }
    }
}

#[async_trait]
impl Evaluator for RemoteEvaluator {
    async fn evaluate(
        &self,
        request: EvaluateRequest,
        io: EvaluateIo,
    ) -> Result<EvaluateReport, EvaluateError> {
        request.check()?;
        let (inputs, receiver) = mpsc::channel(MESSAGES);
        let request = wire::evaluate_input::Input::Request(evaluate_message(request));
        let request = wire::EvaluateInput { input: Some(request) };
        let sent = inputs_of(request, receiver);
        // an evaluation may wait long before its first word: keep-alives tell whether the peer lives
        let events = self.client.clone().evaluate(sent).await;
        let mut events = events.map_err(|status| self.failed(&status))?.into_inner();
        let mut watch = Watch {
            evaluator: self,
            io,
            inputs,
            reader: EventReader::new(self.dir.clone()),
            questions: JoinSet::new(),
        };
        loop {
            let message = events.message().await.map_err(|status| self.failed(&status))?;
            let Some(wire::EvaluateEvent { event }) = message else {
                return Err(EvaluateError::Unavailable {
                    reason: format!("{} ended the call without a result", self.url),
                });
            };
            let event = event.ok_or_else(|| self.broken("an event of an unknown kind"))?;
            if let Some(report) = watch.event(event).await? {
                return Ok(report);
            }
        }
    }
}

/// The request, then answers as they come.
fn inputs_of(
    request: wire::EvaluateInput,
    answers: mpsc::Receiver<wire::EvaluateInput>,
) -> impl Stream<Item = wire::EvaluateInput> + Send {
    let answers = stream::unfold(answers, |mut answers| async {
        Some((answers.recv().await?, answers))
    });
    stream::iter([request]).chain(answers)
}

/// Checks the sequence of events, passes them on, and answers questions. Dropping it drops these.
struct Watch<'a> {
    evaluator: &'a RemoteEvaluator,
    io: EvaluateIo,
    inputs: mpsc::Sender<wire::EvaluateInput>,
    reader: EventReader,
    questions: JoinSet<()>,
}

impl Watch<'_> {
    /// The report, at the end.
    async fn event(&mut self, event: Event) -> Result<Option<EvaluateReport>, EvaluateError> {
        match event {
            Event::Finished(report) if self.reader.is_whole() => Ok(Some(read_evaluate_report(&report))),
            Event::Failed(failure) if self.reader.is_whole() => Err(read_evaluate_failure(failure)),
            Event::Realise(question) if self.reader.is_whole() => {
                self.question(question)?;
                Ok(None)
            }
            event => {
                let event = self.reader.event(event);
                if let Some(event) = event.map_err(|error| self.evaluator.wrong(&error))? {
                    let _ = self.io.events.send(event).await; // nobody need listen
                }
                Ok(None)
            }
        }
    }

    fn question(&mut self, question: wire::Realise) -> Result<(), EvaluateError> {
        let (id, wanted) = read_realise(question).map_err(|error| self.evaluator.wrong(&error))?;
        while self.questions.try_join_next().is_some() {}
        if self.questions.len() >= QUESTIONS_MAX {
            return Err(self.evaluator.broken("too many questions at once"));
        }
        let (realiser, inputs) = (self.io.realiser.clone(), self.inputs.clone());
        self.questions.spawn(async move {
            let answer = realiser.realise(wanted).await;
            let _ = inputs.send(realised_message(id, answer)).await; // the evaluation has ended: nobody asks any more
        });
        Ok(())
    }
}
