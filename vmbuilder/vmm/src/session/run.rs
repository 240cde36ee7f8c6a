//! A running program, as the host hears it.
//!
//! Invariants
//! - wall and silence are measured on the host's clock, from the agent's word that the program runs;
//! - log bytes reach the watcher in order and none is dropped, except what is over the log limit;
//! - a slow watcher holds up the build's output, and never its wall limit. The time the host itself spends waiting for
//!   the watcher is not silence of the build's.

use std::time::Duration;

use bytes::Bytes;
use igloo_build::{BuildEvent, BuildOutcome, EventSender};
use igloo_control::message::{ExitStatus, Exited, FailureClass, GuestMessage, Resource};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::error::{SessionError, Waiting};
use super::wire::Wire;

/// When to stop a running program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// Longest run.
    pub wall: Option<Duration>,
    /// Longest time without log.
    pub silence: Option<Duration>,
    /// Most bytes of log.
    pub log_bytes: Option<u64>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// With success: outputs can be collected.
    Succeeded,
    /// In another way, or the host stops it now.
    Ended(BuildOutcome),
}

/// Where log bytes go.
#[derive(Debug)]
pub struct LogSink<'a> {
    events: &'a EventSender,
    sent_bytes: u64,
}

impl<'a> LogSink<'a> {
    /// A sink that nothing was put in.
    pub fn new(events: &'a EventSender) -> Self {
        Self {
            events,
            sent_bytes: 0,
        }
    }

    /// Log bytes so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Waits until the watcher has room. A watcher that is gone hears nothing, and the build goes on.
    async fn put(&mut self, bytes: Bytes) {
        let sequence = self.sent_bytes;
        self.sent_bytes += bytes.len() as u64;
        let _ = self.events.send(BuildEvent::Log { sequence, bytes }).await;
    }
}

pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    limits: &RunLimits,
    log: &mut LogSink<'_>,
) -> Result<RunEnd, SessionError> {
    let wall = Deadline::after(limits.wall, |limit| BuildOutcome::Timeout { limit });
    loop {
        let silence = Deadline::after(limits.silence, |limit| BuildOutcome::Silence { limit });
        let deadline = wall.earlier(&silence);
        let Some(message) = deadline.bound(wire.receive(Waiting::Exited)).await else {
            return Ok(RunEnd::Ended(deadline.outcome()));
        };
        match message? {
            GuestMessage::Log(bytes) => {
                let (bytes, is_over) = within_limit(bytes, log.sent_bytes(), limits.log_bytes);
                if !bytes.is_empty() && wall.bound(log.put(bytes)).await.is_none() {
                    return Ok(RunEnd::Ended(wall.outcome()));
                }
                if let Some(limit_bytes) = is_over {
                    return Ok(RunEnd::Ended(BuildOutcome::LogLimit { limit_bytes }));
                }
            }
            GuestMessage::Exited(exited) => return Ok(end(exited)),
            GuestMessage::Failed {
                stage,
                class,
                message,
            } => {
                return match class {
                    // the program has been started, so this class makes no sense any more
                    FailureClass::Program => Err(SessionError::Agent { stage, message }),
                    _ => super::ended(stage, class, message).map(RunEnd::Ended),
                };
            }
            other => {
                return Err(SessionError::Unexpected {
                    waiting: Waiting::Exited,
                    message: other.name(),
                });
            }
        }
    }
}

/// The bytes that are still within the limit, and the limit when some are not.
fn within_limit(mut bytes: Bytes, sent_bytes: u64, limit_bytes: Option<u64>) -> (Bytes, Option<u64>) {
    let Some(limit_bytes) = limit_bytes else {
        return (bytes, None);
    };
    let left = usize::try_from(limit_bytes.saturating_sub(sent_bytes)).unwrap_or(usize::MAX);
    if bytes.len() <= left {
        return (bytes, None);
    }
    bytes.truncate(left);
    (bytes, Some(limit_bytes))
}

fn end(exited: Exited) -> RunEnd {
    match (exited.status, exited.exhausted) {
        (ExitStatus::Code(0), _) => RunEnd::Succeeded,
        (_, Some(Resource::Memory)) => RunEnd::Ended(BuildOutcome::OutOfMemory),
        (_, Some(Resource::Disk)) => RunEnd::Ended(BuildOutcome::DiskFull),
        (ExitStatus::Code(code), None) => RunEnd::Ended(BuildOutcome::ExitCode(code)),
        (ExitStatus::Signal(signal), None) => RunEnd::Ended(BuildOutcome::Signal(signal)),
    }
}

/// A limit, when it will be reached, and what the build's outcome is then.
#[derive(Clone, Debug)]
struct Deadline {
    at: Option<Instant>,
    outcome: BuildOutcome,
}

impl Deadline {
    fn after(limit: Option<Duration>, outcome: fn(Duration) -> BuildOutcome) -> Self {
        Self {
            // a limit past the clock's end is none
            at: limit.and_then(|limit| Instant::now().checked_add(limit)),
            outcome: outcome(limit.unwrap_or_default()),
        }
    }

    fn earlier<'a>(&'a self, other: &'a Self) -> &'a Self {
        match (self.at, other.at) {
            (Some(ours), Some(theirs)) if theirs < ours => other,
            (None, Some(_)) => other,
            _ => self,
        }
    }

    /// `None` when the deadline came first.
    async fn bound<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match self.at {
            Some(at) => timeout_at(at, work).await.ok(),
            None => Some(work.await),
        }
    }

    fn outcome(&self) -> BuildOutcome {
        self.outcome.clone()
    }
}
