//! The host's side of the conversation with a machine's agent.
//!
//! The guest is hostile: a build may own its kernel and agent. So everything it says is checked for order
//! ([`igloo_control::GuestSequence`]), bounds and truth against its own announcements; every wait for it has a deadline
//! on the host's clock; and nothing here grows with what it sends. A broken rule ends the session, and the caller kills
//! the machine: nothing is ever asked of a guest that must not be refused.
//!
//! Stages, each a method of [`Session`]: `hello` → `mounted` → `prepare` → `run` → `collect`.

mod error;
mod order;
mod outputs;
mod run;
#[cfg(test)]
pub(crate) mod testing;
mod wire;

use std::time::Duration;

pub use error::{SessionError, Waiting};
use igloo_build::{BuildOutcome, RelativePath};
use igloo_control::message::{FailureClass, GuestMessage, Hello, HostMessage, Stage};
pub use order::{Order, PlacedFile};
pub use outputs::{CollectLimits, Collected};
pub use run::{LogSink, RunEnd, RunLimits};
use tokio::io::{AsyncRead, AsyncWrite};
use wire::Wire;

/// How long the agent may take for each of its own steps; the build's limits are in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From the machine's start to the agent's hello.
    pub hello: Duration,
    /// To mount the inputs.
    pub mount: Duration,
    /// To take the order, make the root and start the program, which is read from a perhaps distant store.
    pub start: Duration,
    /// Between two messages while outputs are sent.
    pub collect_step: Duration,
    /// For all waits together while outputs are sent.
    pub collect: Duration,
}

impl Default for Patience {
    /// For software emulation on a busy host, where a boot that takes a second alone was seen to take ten.
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(60),
            mount: Duration::from_secs(60),
            start: Duration::from_secs(300),
            collect_step: Duration::from_secs(120),
            collect: Duration::from_secs(3600),
        }
    }
}

/// A conversation with one machine's agent, for one build.
#[derive(Debug)]
pub struct Session<S> {
    wire: Wire<S>,
    patience: Patience,
}

/// How a stage ended when the agent said that it cannot go on, and it is the build's own doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The stage is done.
    Yes,
    /// The build has ended.
    Ended(BuildOutcome),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Starts to listen.
    pub fn new(stream: S, patience: Patience) -> Self {
        Self {
            wire: Wire::new(stream),
            patience,
        }
    }

    /// Waits for the agent's first word.
    ///
    /// # Errors
    /// `Deadline` when it does not come, whatever the emulator says of the machine.
    pub async fn hello(&mut self) -> Result<Hello, SessionError> {
        let (waiting, patience) = (Waiting::Hello, self.patience.hello);
        match self.wire.receive_within(waiting, patience).await? {
            GuestMessage::Hello(hello) => Ok(hello),
            other => Err(self.refuse(waiting, other)),
        }
    }

    /// Waits until the agent has mounted the inputs.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn mounted(&mut self) -> Result<(), SessionError> {
        let (waiting, patience) = (Waiting::Mounted, self.patience.mount);
        match self.wire.receive_within(waiting, patience).await? {
            GuestMessage::Mounted => Ok(()),
            other => Err(self.refuse(waiting, other)),
        }
    }

    /// Gives the order and waits until the program runs.
    ///
    /// # Errors
    /// See [`SessionError`]; a program that cannot be started is no error.
    pub async fn prepare(&mut self, order: Order) -> Result<Ready, SessionError> {
        let (waiting, patience) = (Waiting::Started, self.patience.start);
        self.wire.expect_outputs(order.outputs_count());
        let deadline = tokio::time::Instant::now() + patience;
        let give = async {
            self.wire
                .send(&HostMessage::Prepare(Box::new(order.spec)))
                .await?;
            for file in order.files {
                self.place(file).await?;
            }
            self.wire.send(&HostMessage::Run).await?;
            self.wire.receive(waiting).await
        };
        let answer = tokio::time::timeout_at(deadline, give).await;
        match answer.map_err(|_| SessionError::Deadline { waiting, patience })?? {
            GuestMessage::Started => Ok(Ready::Yes),
            GuestMessage::Failed {
                stage,
                class,
                message,
            } => ended(stage, class, message).map(Ready::Ended),
            other => Err(self.refuse(waiting, other)),
        }
    }

    /// Listens to the running program until its end or a limit; see [`run`].
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn run(&mut self, limits: &RunLimits, log: &mut LogSink<'_>) -> Result<RunEnd, SessionError> {
        run::run(&mut self.wire, limits, log).await
    }

    /// Takes the outputs; see [`outputs`].
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn collect(
        &mut self,
        outputs: &[RelativePath],
        limits: CollectLimits,
        sink: &mut dyn igloo_build::OutputSink,
    ) -> Result<Collected, SessionError> {
        self.wire.send(&HostMessage::Collect).await?;
        let mut collector = outputs::Collector::new(outputs, limits, sink);
        collector.collect(&mut self.wire, &self.patience).await
    }

    async fn place(&mut self, file: PlacedFile) -> Result<(), SessionError> {
        let announcement = HostMessage::File {
            path: file.path,
            owner: file.owner,
            mode: file.mode,
            size: file.contents.len() as u64,
        };
        self.wire.send(&announcement).await?;
        let mut rest = file.contents;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(igloo_control::message::DATA_SIZE_MAX));
            self.wire.send(&HostMessage::FileData(piece)).await?;
        }
        Ok(())
    }

    /// A message that is in sequence, yet not what the stage waits for: the agent's failure, or a broken protocol.
    fn refuse(&self, waiting: Waiting, message: GuestMessage) -> SessionError {
        match message {
            GuestMessage::Failed { stage, message, .. } => SessionError::Agent { stage, message },
            other => SessionError::Unexpected {
                waiting,
                message: other.name(),
            },
        }
    }
}

/// Whether a failure of the agent ends the build with an outcome, or is the machine's.
fn ended(stage: Stage, class: FailureClass, message: String) -> Result<BuildOutcome, SessionError> {
    match class {
        FailureClass::Program => Ok(BuildOutcome::StartFailed { reason: message }),
        FailureClass::OutOfMemory => Ok(BuildOutcome::OutOfMemory),
        FailureClass::DiskFull => Ok(BuildOutcome::DiskFull),
        FailureClass::Request => Err(SessionError::Request { message }),
        FailureClass::Machine | FailureClass::Protocol => Err(SessionError::Agent { stage, message }),
    }
}

#[cfg(test)]
mod tests;
