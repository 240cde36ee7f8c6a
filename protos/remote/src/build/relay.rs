//! From a running builder to the event stream of a call.
//!
//! Invariants
//! - what the builder did in order arrives in order: events that were sent before a step of an output come before it;
//! - messages have at most about [`SEND_BYTES`] of data: long logs and file data are cut, short steps are put together.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::{
    BuildError, BuildEvent, BuildIo, BuildOutcome, BuildReport, BuildRequest, Builder, OutputSink,
    RelativePath, StoredOutput,
};
use igloo_castore::store::Castore;
use igloo_castore::tree::TreeEvent;
use igloo_protos::event::{event_message, step_message, stored_message};
use igloo_protos::igloo::build::v1 as wire;
use igloo_protos::igloo::build::v1::build_event::Event;
use igloo_status::Code;
use igloo_store::output::{CollectedOutputs, OutputIngest};
use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::inputs::InputSwitch;
use crate::limits::SEND_BYTES;
use crate::task::OwnedTask;

/// Events of the builder that wait to be sent.
const EVENTS: usize = 16;
/// Steps of outputs that wait to be sent.
const STEPS: usize = 256;
/// What a step takes in a message beside its data, bytes; an estimate.
const STEP_BYTES: usize = 32;

/// Runs a build and sends all that happens to `out`. Outputs go there too, unless there is a store for them. Ends early, and the build with it, when nobody listens.
pub(super) async fn run(
    builder: Arc<dyn Builder>,
    request: BuildRequest,
    inputs: Arc<InputSwitch>,
    output_store: Option<Castore>,
    out: mpsc::Sender<wire::BuildEvent>,
) {
    let (events_sender, events) = mpsc::channel(EVENTS);
    let (steps_sender, steps) = mpsc::channel(STEPS);
    let io = BuildIo {
        inputs: inputs.castore(),
        outputs: sink(&request, output_store, steps_sender),
        events: events_sender,
    };
    let build = OwnedTask::spawn(async move { blame(builder.build(request, io).await, &inputs) });
    let relay = Relay {
        events,
        steps,
        out,
        batch: wire::TreeSteps::default(),
        batch_bytes: 0,
    };
    if relay.relay(build).await.is_none() {
        tracing::debug!("the caller of a build has left; the build was cancelled");
    }
}

/// A build that failed after an input could not be read is the failure of whom it was read from.
fn blame(ended: Result<BuildReport, BuildError>, inputs: &InputSwitch) -> Result<BuildReport, BuildError> {
    match ended {
        Ok(report) if report.outcome != BuildOutcome::Success => inputs.failure().map_or(Ok(report), Err),
        ended => ended,
    }
}

struct Relay {
    events: mpsc::Receiver<BuildEvent>,
    steps: mpsc::Receiver<SinkStep>,
    out: mpsc::Sender<wire::BuildEvent>,
    batch: wire::TreeSteps,
    batch_bytes: usize,
}

impl Relay {
    /// `None` when nobody listens any more.
    async fn relay(mut self, mut build: OwnedTask<Result<BuildReport, BuildError>>) -> Option<()> {
        let mut steps = Vec::new();
        let ended = loop {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.event(event).await?,
                _count @ 1.. = self.steps.recv_many(&mut steps, STEPS) => {
                    self.queued_events().await?;
                    for step in steps.drain(..) {
                        self.step(step).await?;
                    }
                    self.flush().await?;
                }
                ended = build.join() => break ended,
            }
        };
        self.queued_events().await?;
        while let Ok(step) = self.steps.try_recv() {
            self.step(step).await?;
        }
        self.flush().await?;
        self.send(last(ended)).await
    }

    /// Events sent before the step that was just received are in the queue by now.
    async fn queued_events(&mut self) -> Option<()> {
        while let Ok(event) = self.events.try_recv() {
            self.event(event).await?;
        }
        Some(())
    }

    async fn event(&mut self, event: BuildEvent) -> Option<()> {
        let BuildEvent::Log { sequence, bytes } = event else {
            return self.message(event_message(event)).await;
        };
        for start in (0..bytes.len()).step_by(SEND_BYTES) {
            let event = BuildEvent::Log {
                sequence: sequence + start as u64,
                bytes: bytes.slice(start..bytes.len().min(start + SEND_BYTES)),
            };
            self.message(event_message(event)).await?;
        }
        Some(())
    }

    async fn step(&mut self, step: SinkStep) -> Option<()> {
        match step {
            SinkStep::Begin(index) => {
                self.flush().await?;
                self.send(Event::OutputBegin(wire::OutputBegin { index })).await
            }
            SinkStep::End => {
                self.flush().await?;
                self.send(Event::OutputEnd(wire::OutputEnd {})).await
            }
            SinkStep::Tree(TreeEvent::FileData(bytes)) => {
                for start in (0..bytes.len()).step_by(SEND_BYTES) {
                    let piece = bytes.slice(start..bytes.len().min(start + SEND_BYTES));
                    self.push(TreeEvent::FileData(piece)).await?;
                }
                Some(())
            }
            SinkStep::Tree(event) => self.push(event).await,
            SinkStep::Stored(index, output) => {
                self.send(Event::OutputStored(stored_message(index, &output)))
                    .await
            }
        }
    }

    async fn push(&mut self, event: TreeEvent) -> Option<()> {
        self.batch_bytes += STEP_BYTES;
        if let TreeEvent::FileData(bytes) = &event {
            self.batch_bytes += bytes.len();
        }
        self.batch.steps.push(step_message(event));
        if self.batch_bytes >= SEND_BYTES {
            self.flush().await?;
        }
        Some(())
    }

    async fn flush(&mut self) -> Option<()> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.steps.is_empty() {
            return Some(());
        }
        self.send(Event::Tree(batch)).await
    }

    async fn send(&mut self, event: Event) -> Option<()> {
        self.message(wire::BuildEvent { event: Some(event) }).await
    }

    async fn message(&mut self, message: wire::BuildEvent) -> Option<()> {
        self.out.send(message).await.ok()
    }
}

fn last(ended: Result<Result<BuildReport, BuildError>, JoinError>) -> Event {
    match ended {
        Ok(Ok(report)) => Event::Finished(report.into()),
        Ok(Err(error)) => Event::Failed(wire::Failure::from(&error)),
        Err(error) => {
            tracing::error!(%error, "a builder panicked");
            let error = BuildError::Machine {
                reason: "the builder hit a bug of its own".into(),
                source: None,
            };
            Event::Failed(wire::Failure::from(&error))
        }
    }
}

/// What a builder does with its sink.
enum SinkStep {
    Begin(u32),
    Tree(TreeEvent),
    End,
    Stored(u32, StoredOutput),
}

fn sink(
    request: &BuildRequest,
    output_store: Option<Castore>,
    steps: mpsc::Sender<SinkStep>,
) -> Box<dyn OutputSink> {
    let channel = ChannelSink::new(request, steps);
    match output_store {
        Some(store) => Box::new(StoreSink::new(request, store, channel)),
        None => Box::new(channel),
    }
}

/// A sink at the other end of the call.
#[derive(Debug)]
struct ChannelSink {
    positions: HashMap<Bytes, u32>,
    steps: mpsc::Sender<SinkStep>,
}

impl ChannelSink {
    fn new(request: &BuildRequest, steps: mpsc::Sender<SinkStep>) -> Self {
        let paths = request
            .outputs
            .iter()
            .map(|path| Bytes::copy_from_slice(path.as_bytes()));
        Self {
            positions: paths.zip(0..).collect(),
            steps,
        }
    }

    fn position(&self, output: &RelativePath) -> Result<u32, BuildError> {
        let index = self.positions.get(output.as_bytes()).copied();
        index.ok_or_else(|| BuildError::Protocol {
            reason: format!("{output} is no output of the request"),
        })
    }

    async fn send(&mut self, step: SinkStep) -> Result<(), BuildError> {
        self.steps.send(step).await.map_err(|_| BuildError::Host {
            reason: "the caller of the build has left".into(),
            code: Code::Cancelled,
            source: None,
        })
    }
}

#[async_trait]
impl OutputSink for ChannelSink {
    async fn begin(&mut self, output: &RelativePath) -> Result<(), BuildError> {
        let index = self.position(output)?;
        self.send(SinkStep::Begin(index)).await
    }

    async fn event(&mut self, event: TreeEvent) -> Result<(), BuildError> {
        self.send(SinkStep::Tree(event)).await
    }

    async fn end(&mut self) -> Result<(), BuildError> {
        self.send(SinkStep::End).await
    }
}

/// A sink into a store that the caller knows too: only what became of the outputs goes over the call, when all of them are
/// durable.
#[derive(Debug)]
struct StoreSink {
    store: Castore,
    ingest: OutputIngest,
    collected: CollectedOutputs,
    whole: usize,
    channel: ChannelSink,
}

impl StoreSink {
    fn new(request: &BuildRequest, store: Castore, channel: ChannelSink) -> Self {
        let (ingest, collected) = OutputIngest::new(store.clone(), request.needles.clone());
        Self {
            store,
            ingest,
            collected,
            whole: 0,
            channel,
        }
    }
}

#[async_trait]
impl OutputSink for StoreSink {
    async fn begin(&mut self, output: &RelativePath) -> Result<(), BuildError> {
        self.channel.position(output)?;
        self.ingest.begin(output).await
    }

    async fn event(&mut self, event: TreeEvent) -> Result<(), BuildError> {
        self.ingest.event(event).await
    }

    async fn end(&mut self) -> Result<(), BuildError> {
        self.ingest.end().await?;
        self.whole += 1;
        if self.whole < self.channel.positions.len() {
            return Ok(());
        }
        let synced = self.store.sync().await;
        synced.map_err(|error| BuildError::Host {
            reason: "the outputs cannot be kept in the store that the caller named".into(),
            code: error.code(),
            source: Some(Box::new(error)),
        })?;
        for output in self.collected.take() {
            let index = self.channel.position(&output.path)?;
            self.channel.send(SinkStep::Stored(index, output)).await?;
        }
        Ok(())
    }
}
