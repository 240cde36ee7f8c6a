//! A builder in another process.

use async_trait::async_trait;
use futures::stream;
use igloo_build::{
    BuildError, BuildEvent, BuildIo, BuildOutcome, BuildReport, BuildRequest, Builder, OutputSink,
};
use igloo_castore::store::Castore;
use igloo_protos::WireError;
use igloo_protos::build::{InputSource, request_parts};
use igloo_protos::event::{read_failure, read_step, text};
use igloo_protos::igloo::build::v1 as wire;
use igloo_protos::igloo::build::v1::build_event::Event;
use igloo_protos::igloo::build::v1::build_service_client::BuildServiceClient;
use igloo_status::Code;
use tonic::Status;
use tonic::transport::Channel;

use super::tunnel::TunnelService;
use crate::connect::{ConnectError, Connection};
use crate::limits::BLOB_MESSAGE_BYTES_MAX;
use crate::status::{RemoteError, code, retrying};

/// Most systems and stores a builder may name.
const NAMES_MAX: usize = 256;

/// A builder behind a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GrpcBuilder {
    url: String,
    client: BuildServiceClient<Channel>,
    systems: Vec<String>,
    /// Stores the builder reads by itself.
    stores: Vec<String>,
    /// The store that holds the inputs, as the builder knows it.
    input_store: Option<String>,
    builds_max: u32,
}

impl GrpcBuilder {
    /// Asks the builder what it can do.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn new(connection: &Connection) -> Result<Self, ConnectError> {
        connection.check("igloo.build.v1.BuildService").await?;
        let client = BuildServiceClient::new(connection.channel());
        let client = client.max_decoding_message_size(BLOB_MESSAGE_BYTES_MAX);
        let ask = || async {
            client
                .clone()
                .get_capabilities(wire::GetCapabilitiesRequest {})
                .await
        };
        let capabilities = retrying(ask).await.map_err(|status| ConnectError::Broken {
            url: connection.url().to_owned(),
            code: code(&status),
            source: Box::new(RemoteError::from(&status)),
        })?;
        let wire::Capabilities {
            systems,
            stores,
            builds_max,
        } = capabilities.into_inner();
        let names = |names: Vec<String>| names.iter().take(NAMES_MAX).map(|name| text(name)).collect();
        Ok(Self {
            url: connection.url().to_owned(),
            client,
            systems: names(systems),
            stores: names(stores),
            input_store: None,
            builds_max,
        })
    }

    /// Says that the inputs of all builds are in the store of that URL too. A builder that knows the URL reads them there;
    /// for others they are served from `BuildIo::inputs`.
    #[must_use]
    pub fn with_input_store(mut self, url: &str) -> Self {
        self.input_store = Some(url.to_owned());
        self
    }

    /// Builds it runs at once; 0 when it does not say.
    pub fn builds_max(&self) -> u32 {
        self.builds_max
    }

    async fn source(&self, inputs: Castore) -> Result<(InputSource, Option<TunnelService>), BuildError> {
        if let Some(url) = self.input_store.as_ref().filter(|url| self.stores.contains(url)) {
            return Ok((InputSource::Url(url.clone()), None));
        }
        let tunnel = TunnelService::open(self.client.clone(), inputs).await;
        let tunnel = tunnel.map_err(|status| self.failed(&status))?;
        Ok((InputSource::Tunnel(tunnel.token.clone()), Some(tunnel)))
    }

    fn failed(&self, status: &Status) -> BuildError {
        let error = RemoteError::from(status);
        match error.code {
            Code::InvalidArgument | Code::Unimplemented | Code::FailedPrecondition => {
                BuildError::Unsupported {
                    reason: format!("{}: {}", self.url, error.message),
                }
            }
            _ => BuildError::Machine {
                reason: format!("the builder {} is gone", self.url),
                source: Some(Box::new(error)),
            },
        }
    }
}

#[async_trait]
impl Builder for GrpcBuilder {
    async fn build(&self, request: BuildRequest, io: BuildIo) -> Result<BuildReport, BuildError> {
        request.check()?;
        let BuildIo {
            inputs,
            outputs,
            events,
        } = io;
        let (source, _tunnel) = self.source(inputs).await?;
        let mut watch = Watch {
            outputs,
            events,
            paths: request.outputs.clone(),
            log_bytes: 0,
            state: Outputs::Before(0),
        };
        let parts = stream::iter(request_parts(request, &[source]));
        let stream = self.client.clone().build(parts).await;
        let mut stream = stream.map_err(|status| self.failed(&status))?.into_inner();
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    if let Some(report) = watch.event(message).await? {
                        return Ok(report);
                    }
                }
                Ok(None) => {
                    return Err(self.failed(&Status::unavailable("it ended the call without a result")));
                }
                Err(status) => return Err(self.failed(&status)),
            }
        }
    }

    fn systems(&self) -> Vec<String> {
        self.systems.clone()
    }
}

/// Checks the sequence of events and passes them on.
struct Watch {
    outputs: Box<dyn OutputSink>,
    events: igloo_build::EventSender,
    paths: Vec<igloo_build::RelativePath>,
    log_bytes: u64,
    state: Outputs,
}

/// How many outputs are whole, and whether one is under way.
#[derive(Clone, Copy)]
enum Outputs {
    Before(usize),
    Within(usize),
}

impl Watch {
    /// The report, at the end.
    async fn event(&mut self, message: wire::BuildEvent) -> Result<Option<BuildReport>, BuildError> {
        let event = message
            .event
            .ok_or_else(|| protocol("an event of an unknown kind"))?;
        match event {
            Event::Preparing(preparing) => {
                let machine = text(&preparing.machine);
                self.tell(BuildEvent::Preparing { machine }).await;
            }
            Event::Started(_) => self.tell(BuildEvent::Started).await,
            Event::Log(log) => self.log(log).await?,
            Event::Collecting(_) => self.tell(BuildEvent::Collecting).await,
            Event::OutputBegin(begin) => self.begin(begin.index).await?,
            Event::Tree(steps) => self.steps(steps).await?,
            Event::OutputEnd(_) => self.end().await?,
            Event::Finished(report) => return self.finish(report).map(Some),
            Event::Failed(failure) => return Err(read_failure(failure)),
        }
        Ok(None)
    }

    /// Nobody need watch.
    async fn tell(&mut self, event: BuildEvent) {
        let _ = self.events.send(event).await;
    }

    async fn log(&mut self, log: wire::Log) -> Result<(), BuildError> {
        if log.sequence != self.log_bytes {
            return Err(protocol(&format!(
                "log bytes from {} after {} bytes of log",
                log.sequence, self.log_bytes
            )));
        }
        self.log_bytes += log.bytes.len() as u64;
        let (sequence, bytes) = (log.sequence, log.bytes);
        self.tell(BuildEvent::Log { sequence, bytes }).await;
        Ok(())
    }

    async fn begin(&mut self, index: u32) -> Result<(), BuildError> {
        match self.state {
            Outputs::Before(next) if u32::try_from(next) == Ok(index) && next < self.paths.len() => {
                self.state = Outputs::Within(next);
                self.outputs.begin(&self.paths[next]).await
            }
            _ => Err(protocol(&format!("output {index} out of turn"))),
        }
    }

    async fn steps(&mut self, steps: wire::TreeSteps) -> Result<(), BuildError> {
        if !matches!(self.state, Outputs::Within(_)) {
            return Err(protocol("a file that is in no output"));
        }
        for step in steps.steps {
            let step = read_step(step).map_err(|error| wrong(&error))?;
            self.outputs.event(step).await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), BuildError> {
        let Outputs::Within(index) = self.state else {
            return Err(protocol("the end of an output that was not begun"));
        };
        self.state = Outputs::Before(index + 1);
        self.outputs.end().await
    }

    fn finish(&self, report: wire::Report) -> Result<BuildReport, BuildError> {
        let report = BuildReport::try_from(report).map_err(|error| wrong(&error))?;
        let complete = matches!(self.state, Outputs::Before(count) if count == self.paths.len());
        if report.outcome == BuildOutcome::Success && !complete {
            return Err(protocol("success without all outputs"));
        }
        Ok(report)
    }
}

fn wrong(error: &WireError) -> BuildError {
    protocol(&format!("{error}: {}", error.reason))
}

fn protocol(what: &str) -> BuildError {
    BuildError::Protocol {
        reason: format!("the builder sent {what}"),
    }
}
