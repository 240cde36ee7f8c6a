//! A coordinator in another process.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use igloo_driver::{Coordinator, Job, JobError, JobReport, Update};
use igloo_protos::WireError;
use igloo_protos::coordinator::report::ReportReader;
use igloo_protos::coordinator::update::read_update;
use igloo_protos::coordinator::{JOB_EVENT_BYTES_MAX, JOB_MESSAGE_BYTES_MAX, job_message, read_job_failure};
use igloo_protos::igloo::coordinator::v1 as wire;
use igloo_protos::igloo::coordinator::v1::coordinator_service_client::CoordinatorServiceClient;
use igloo_protos::igloo::coordinator::v1::job_event::Event;
use igloo_status::Code;
use nix_compat::store_path::StorePath;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::LOG_BYTES_MAX;
use crate::connect::{ConnectError, Connection};
use crate::status::{RemoteError, answer, retrying};

/// A coordinator behind a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RemoteCoordinator {
    url: String,
    client: CoordinatorServiceClient<Channel>,
}

impl RemoteCoordinator {
    /// Asks the peer whether it is a coordinator.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn new(connection: &Connection) -> Result<Self, ConnectError> {
        connection
            .check("igloo.coordinator.v1.CoordinatorService")
            .await?;
        let client = CoordinatorServiceClient::new(connection.channel());
        Ok(Self {
            url: connection.url().to_owned(),
            client: client
                .max_decoding_message_size(JOB_EVENT_BYTES_MAX)
                .max_encoding_message_size(JOB_MESSAGE_BYTES_MAX),
        })
    }

    fn failed(&self, status: &Status) -> JobError {
        let RemoteError { code, message } = RemoteError::from(status);
        let reason = format!("{}: {message}", self.url);
        match code {
            Code::InvalidArgument => JobError::Invalid { reason },
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => JobError::Gone { reason },
            code => JobError::Host { reason, code },
        }
    }

    /// The peer broke the protocol.
    fn wrong(&self, error: &WireError) -> JobError {
        JobError::Host {
            reason: format!(
                "{} sent what it may not send: {error}: {}",
                self.url, error.reason
            ),
            code: Code::DataLoss,
        }
    }

    async fn collect(&self, mut parts: Streaming<wire::LogPart>) -> Result<Bytes, JobError> {
        let mut log = BytesMut::new();
        while let Some(part) = answer(parts.message())
            .await
            .map_err(|status| self.failed(&status))?
        {
            log.extend_from_slice(&part.bytes);
            if log.len() > LOG_BYTES_MAX {
                return Err(JobError::Host {
                    reason: format!("{}: the log has more than {LOG_BYTES_MAX} bytes", self.url),
                    code: Code::OutOfRange,
                });
            }
        }
        Ok(log.freeze())
    }
}

#[async_trait]
impl Coordinator for RemoteCoordinator {
    async fn run(&self, job: Job, updates: mpsc::Sender<Update>) -> Result<JobReport, JobError> {
        let job = job_message(job).map_err(|error| JobError::Invalid {
            reason: format!("it is too large to be sent: {}", error.reason),
        })?;
        // a job may wait long before its first word: keep-alives tell whether the peer lives
        let events = self.client.clone().run(job).await;
        let mut events = events.map_err(|status| self.failed(&status))?.into_inner();
        let mut report = ReportReader::default();
        loop {
            let message = events.message().await.map_err(|status| self.failed(&status))?;
            let Some(wire::JobEvent { event }) = message else {
                return Err(JobError::Gone {
                    reason: format!("{} ended the call without a result", self.url),
                });
            };
            match event {
                Some(Event::Report(part)) => report.part(part).map_err(|error| self.wrong(&error))?,
                Some(Event::Finished(finished)) => {
                    return report.finish(&finished).map_err(|error| self.wrong(&error));
                }
                Some(Event::Failed(failure)) => return Err(read_job_failure(failure)),
                Some(event) => {
                    let update = read_update(event).map_err(|error| self.wrong(&error))?;
                    if let Some(update) = update {
                        let _ = updates.send(update).await; // nobody need watch
                    }
                }
                None => {} // of a kind this igloo does not know
            }
        }
    }

    async fn log(&self, drv: &StorePath) -> Result<Option<Bytes>, JobError> {
        let ask = || async {
            let request = wire::GetLogRequest { drv: drv.to_string() };
            self.client.clone().get_log(request).await
        };
        match retrying(ask).await {
            Ok(parts) => self.collect(parts.into_inner()).await.map(Some),
            Err(status) if crate::status::code(&status) == Code::NotFound => Ok(None),
            Err(status) => Err(self.failed(&status)),
        }
    }
}
