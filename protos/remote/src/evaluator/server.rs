//! Serves `igloo.evaluator.v1.EvaluatorService` over any [`Evaluator`].

use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, Stream};
use igloo_evaluator::{EvaluateRequest, Evaluator};
use igloo_protos::evaluate::{EVALUATE_MESSAGE_BYTES_MAX, read_evaluate};
use igloo_protos::evaluator::EVALUATE_EVENT_BYTES_MAX;
use igloo_protos::igloo::evaluator::v1 as wire;
use igloo_protos::igloo::evaluator::v1::evaluator_service_server::{self, EvaluatorServiceServer};
use nix_compat::store_path::StoreDir;
use tokio::sync::{Semaphore, mpsc};
use tonic::{Request, Response, Status, Streaming};

use super::{MESSAGES, relay};
use crate::status::{answer, refuse};
use crate::task::OwnedTask;

/// An evaluator as it is offered to others.
#[derive(Clone, Debug)]
pub struct EvaluatorService {
    /// Runs the evaluations.
    pub evaluator: Arc<dyn Evaluator>,
    /// The directory of the store it evaluates over.
    pub dir: StoreDir,
    /// Most evaluations at once; more wait for their turn.
    pub evaluations_max: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct EvaluatorServer {
    evaluator: Arc<dyn Evaluator>,
    dir: StoreDir,
    turns: Arc<Semaphore>,
}

type Events = Pin<Box<dyn Stream<Item = Result<wire::EvaluateEvent, Status>> + Send>>;

impl EvaluatorServer {
    pub(crate) fn service(service: EvaluatorService) -> EvaluatorServiceServer<Self> {
        let turns = usize::try_from(service.evaluations_max).unwrap_or(usize::MAX);
        let server = Self {
            evaluator: service.evaluator,
            dir: service.dir,
            turns: Arc::new(Semaphore::new(turns.clamp(1, Semaphore::MAX_PERMITS))),
        };
        EvaluatorServiceServer::new(server)
            .max_decoding_message_size(EVALUATE_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(EVALUATE_EVENT_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl evaluator_service_server::EvaluatorService for EvaluatorServer {
    type EvaluateStream = Events;

    async fn evaluate(
        &self,
        request: Request<Streaming<wire::EvaluateInput>>,
    ) -> Result<Response<Events>, Status> {
        let mut inputs = request.into_inner();
        let request = read_request(&mut inputs).await?;
        let (out, events) = mpsc::channel(MESSAGES);
        let (evaluator, turns, dir) = (
            Arc::clone(&self.evaluator),
            Arc::clone(&self.turns),
            self.dir.clone(),
        );
        let run = async move {
            // the semaphore is never closed
            let _turn = turns.acquire().await;
            relay::run(evaluator, request, dir, inputs, out).await;
        };
        // the stream owns the task: a caller that leaves takes the evaluation along
        let state = (events, OwnedTask::spawn(run));
        Ok(Response::new(Box::pin(stream::unfold(
            state,
            |(mut events, task)| async { Some((events.recv().await?, (events, task))) },
        ))))
    }
}

async fn read_request(inputs: &mut Streaming<wire::EvaluateInput>) -> Result<EvaluateRequest, Status> {
    use wire::evaluate_input::Input;
    let first = answer(inputs.message()).await?;
    let Some(Input::Request(request)) = first.and_then(|first| first.input) else {
        return Err(Status::invalid_argument("the first message is no request"));
    };
    read_evaluate(request).map_err(|error| refuse(error.code(), &error))
}
