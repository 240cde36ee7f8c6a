//! Serves `igloo.coordinator.v1.CoordinatorService` over any [`Coordinator`].

use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt as _};
use igloo_driver::{Coordinator, Job, JobError, JobReport, Update};
use igloo_protos::coordinator::report::report_parts;
use igloo_protos::coordinator::update::update_messages;
use igloo_protos::coordinator::{JOB_EVENT_BYTES_MAX, JOB_MESSAGE_BYTES_MAX, job_failure_message, read_job};
use igloo_protos::igloo::coordinator::v1 as wire;
use igloo_protos::igloo::coordinator::v1::coordinator_service_server::{self, CoordinatorServiceServer};
use igloo_protos::igloo::coordinator::v1::job_event::Event;
use nix_compat::store_path::StorePath;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tonic::{Request, Response, Status};

use super::{MESSAGES, UPDATES};
use crate::limits::SEND_BYTES;
use crate::status::refuse;
use crate::task::OwnedTask;

/// See the module.
#[derive(Debug)]
pub(crate) struct CoordinatorServer {
    coordinator: Arc<dyn Coordinator>,
}

type Events = Pin<Box<dyn Stream<Item = Result<wire::JobEvent, Status>> + Send>>;
type LogParts = Pin<Box<dyn Stream<Item = Result<wire::LogPart, Status>> + Send>>;

impl CoordinatorServer {
    pub(crate) fn service(coordinator: Arc<dyn Coordinator>) -> CoordinatorServiceServer<Self> {
        CoordinatorServiceServer::new(Self { coordinator })
            .max_decoding_message_size(JOB_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(JOB_EVENT_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl coordinator_service_server::CoordinatorService for CoordinatorServer {
    type RunStream = Events;
    type GetLogStream = LogParts;

    async fn run(&self, request: Request<wire::Job>) -> Result<Response<Events>, Status> {
        let job = read_job(request.into_inner()).map_err(|error| refuse(error.code(), &error))?;
        let (out, events) = mpsc::channel(MESSAGES);
        let run = run(Arc::clone(&self.coordinator), job, out);
        // the stream owns the task: a caller that leaves takes the job along
        let state = (events, OwnedTask::spawn(run));
        Ok(Response::new(Box::pin(stream::unfold(
            state,
            |(mut events, task)| async { Some((Ok(events.recv().await?), (events, task))) },
        ))))
    }

    async fn get_log(&self, request: Request<wire::GetLogRequest>) -> Result<Response<LogParts>, Status> {
        let drv =
            StorePath::parse(&request.into_inner().drv).map_err(|error| refuse(error.code(), &error))?;
        let log = self.coordinator.log(&drv).await;
        let log = log.map_err(|error| refuse(error.code(), &error))?;
        let log = log.ok_or_else(|| Status::not_found(format!("there is no log of {drv}")))?;
        let starts = (0..log.len()).step_by(SEND_BYTES);
        let parts = stream::iter(starts).map(move |start| {
            let bytes = log.slice(start..log.len().min(start + SEND_BYTES));
            Ok(wire::LogPart { bytes })
        });
        Ok(Response::new(Box::pin(parts)))
    }
}

/// Runs a job and sends all of it to `out`. Ends early, and the job with it, when nobody listens.
async fn run(coordinator: Arc<dyn Coordinator>, job: Job, out: mpsc::Sender<wire::JobEvent>) {
    let (sender, mut updates) = mpsc::channel(UPDATES);
    let mut job = OwnedTask::spawn(async move { coordinator.run(job, sender).await });
    let relayed = async {
        let ended = loop {
            tokio::select! {
                biased;
                Some(update) = updates.recv() => send_update(&out, update).await?,
                ended = job.join() => break ended,
            }
        };
        // sent before the job's end; a sender that outlives the job is not waited for
        while let Ok(update) = updates.try_recv() {
            send_update(&out, update).await?;
        }
        send_end(&out, ended).await
    };
    if relayed.await.is_none() {
        tracing::debug!("the caller of a job has left; the job was cancelled");
    }
}

/// `None` when nobody listens any more; so below.
async fn send_update(out: &mpsc::Sender<wire::JobEvent>, update: Update) -> Option<()> {
    for message in update_messages(update, SEND_BYTES) {
        out.send(message).await.ok()?;
    }
    Some(())
}

async fn send_end(
    out: &mpsc::Sender<wire::JobEvent>,
    ended: Result<Result<JobReport, JobError>, JoinError>,
) -> Option<()> {
    let failed = match ended {
        Ok(Ok(report)) => return send_report(out, report).await,
        Ok(Err(error)) => error,
        Err(error) => {
            tracing::error!(%error, "a coordinator panicked");
            JobError::Host {
                reason: "the coordinator hit a bug of its own".into(),
                code: igloo_status::Code::Internal,
            }
        }
    };
    send(out, Event::Failed(job_failure_message(failed))).await
}

async fn send_report(out: &mpsc::Sender<wire::JobEvent>, report: JobReport) -> Option<()> {
    let (parts, finished) = report_parts(report);
    for part in parts {
        send(out, Event::Report(part)).await?;
    }
    send(out, Event::Finished(finished)).await
}

async fn send(out: &mpsc::Sender<wire::JobEvent>, event: Event) -> Option<()> {
    out.send(wire::JobEvent { event: Some(event) }).await.ok()
}
