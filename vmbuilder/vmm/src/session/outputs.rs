//! Outputs, from the agent's messages to the sink's events.
//!
//! What a guest says of its outputs is data: order, names, sizes and depth are checked here, contents are the sink's to
//! hash. [`igloo_control::GuestSequence`] has already checked that directories are closed and files whole.
//!
//! Invariants
//! - the sink sees a well-formed tree ([`igloo_castore::tree`]) or the collection ends with an error before its `end`;
//! - bytes are counted when they are announced, so an absurd size is refused before it is waited for;
//! - memory is the names on the way to the current entry, within the protocol's depth.

use std::time::Duration;

use bytes::Bytes;
use igloo_build::{BuildOutcome, OutputSink, RelativePath};
use igloo_castore::node::{NodeName, SymlinkTarget};
use igloo_castore::tree::TreeEvent;
use igloo_control::message::{GuestMessage, OutputReason};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::error::{SessionError, Waiting};
use super::wire::Wire;
use super::{Patience, ended};

/// What outputs may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectLimits {
    /// Bytes of all files and symlink targets together.
    pub bytes: u64,
    /// Files, directories and symlinks together.
    pub entries: u64,
}

/// How a collection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// `Success`, or what is wrong with an output.
    pub outcome: BuildOutcome,
    /// Bytes of files taken.
    pub bytes: u64,
}

#[derive(Debug)]
pub(super) struct Collector<'a> {
    outputs: &'a [RelativePath],
    limits: CollectLimits,
    sink: &'a mut dyn OutputSink,
    current: usize,
    bytes: u64,
    entries: u64,
    /// For each open directory, the name of its last entry.
    last_names: Vec<Option<NodeName>>,
}

/// What a message leads to.
enum Step {
    Continue,
    End(BuildOutcome),
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        outputs: &'a [RelativePath],
        limits: CollectLimits,
        sink: &'a mut dyn OutputSink,
    ) -> Self {
        Self {
            outputs,
            limits,
            sink,
            current: 0,
            bytes: 0,
            entries: 0,
            last_names: Vec::new(),
        }
    }

    /// Takes all outputs. Only the time the guest makes the host wait counts against the guest.
    pub(super) async fn collect<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        patience: &Patience,
    ) -> Result<Collected, SessionError> {
        let waiting = Waiting::Outputs;
        let mut waited = Duration::ZERO;
        loop {
            let asked = Instant::now();
            let message = wire.receive_within(waiting, patience.collect_step).await?;
            waited += asked.elapsed();
            if waited > patience.collect {
                return Err(SessionError::Deadline {
                    waiting,
                    patience: patience.collect,
                });
            }
            if let Step::End(outcome) = self.take(message).await? {
                let bytes = self.bytes;
                return Ok(Collected { outcome, bytes });
            }
        }
    }

    async fn take(&mut self, message: GuestMessage) -> Result<Step, SessionError> {
        let event = match message {
            GuestMessage::OutputBegin { index } => return self.begin(index).await,
            GuestMessage::OutputEnd => {
                self.sink.end().await.map_err(SessionError::Sink)?;
                return Ok(Step::Continue);
            }
            GuestMessage::Collected => return Ok(Step::End(BuildOutcome::Success)),
            GuestMessage::OutputError { index, path, reason } => {
                return self.refused(index, &path, reason).map(Step::End);
            }
            GuestMessage::Failed {
                stage,
                class,
                message,
            } => return ended(stage, class, message).map(Step::End),
            GuestMessage::DirectoryEnd => {
                self.last_names.pop();
                TreeEvent::DirectoryEnd
            }
            GuestMessage::FileData(bytes) => TreeEvent::FileData(bytes),
            other => {
                let event = self.entry(other)?;
                if let Some(reason) = self.over_limit(&event) {
                    return Ok(Step::End(self.invalid(self.current_path(), reason)));
                }
                event
            }
        };
        self.sink.event(event).await.map_err(SessionError::Sink)?;
        Ok(Step::Continue)
    }

    async fn begin(&mut self, index: u32) -> Result<Step, SessionError> {
        self.current = usize::try_from(index).unwrap_or(usize::MAX);
        let output = self.output(index)?;
        self.last_names.clear();
        self.sink.begin(output).await.map_err(SessionError::Sink)?;
        Ok(Step::Continue)
    }

    fn output(&self, index: u32) -> Result<&'a RelativePath, SessionError> {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.outputs.get(index).ok_or_else(|| SessionError::Tree {
            reason: format!("there is no output {index}"),
        })
    }

    /// The event of a message that opens a node.
    fn entry(&mut self, message: GuestMessage) -> Result<TreeEvent, SessionError> {
        Ok(match message {
            GuestMessage::DirectoryBegin { name } => {
                let name = self.name(name)?;
                self.last_names.push(None);
                TreeEvent::DirectoryBegin { name }
            }
            GuestMessage::FileBegin {
                name,
                executable,
                size,
            } => TreeEvent::FileBegin {
                name: self.name(name)?,
                executable,
                size,
            },
            GuestMessage::Symlink { name, target } => TreeEvent::Symlink {
                name: self.name(name)?,
                target: SymlinkTarget::try_from(target).map_err(no_tree)?,
            },
            other => {
                return Err(SessionError::Unexpected {
                    waiting: Waiting::Outputs,
                    message: other.name(),
                });
            }
        })
    }

    /// The root has none; in a directory, names strictly ascend.
    fn name(&mut self, name: Bytes) -> Result<Option<NodeName>, SessionError> {
        let Some(last) = self.last_names.last_mut() else {
            return Ok(None); // the sequence has checked that it is empty
        };
        let name = NodeName::try_from(name).map_err(no_tree)?;
        match last {
            Some(last) if *last >= name => Err(SessionError::Tree {
                reason: format!("`{name}` comes after `{last}`"),
            }),
            _ => {
                *last = Some(name.clone());
                Ok(Some(name))
            }
        }
    }

    /// Counts an entry; says what it is too much of.
    fn over_limit(&mut self, event: &TreeEvent) -> Option<String> {
        let size = match event {
            TreeEvent::FileBegin { size, .. } => *size,
            TreeEvent::Symlink { target, .. } => target.as_bytes().len() as u64,
            _ => 0,
        };
        let CollectLimits { bytes, entries } = self.limits;
        self.entries += 1;
        if self.entries > entries {
            return Some(format!(
                "the outputs have more than {entries} files and directories"
            ));
        }
        match self.bytes.checked_add(size) {
            Some(sum) if sum <= bytes => {
                self.bytes = sum;
                None
            }
            _ => Some(too_large(bytes)),
        }
    }

    fn current_path(&self) -> String {
        self.outputs
            .get(self.current)
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    fn invalid(&self, path: String, reason: String) -> BuildOutcome {
        BuildOutcome::OutputInvalid { path, reason }
    }

    fn refused(&self, index: u32, path: &[u8], reason: OutputReason) -> Result<BuildOutcome, SessionError> {
        let output = self.output(index)?;
        if reason == OutputReason::Missing && path == output.as_bytes() {
            return Ok(BuildOutcome::OutputMissing { path: output.clone() });
        }
        let path = path.escape_ascii().to_string();
        Ok(self.invalid(path, describe(reason, self.limits.bytes)))
    }
}

fn describe(reason: OutputReason, limit_bytes: u64) -> String {
    match reason {
        OutputReason::Missing => "it is gone".into(),
        OutputReason::Fifo => "it is a named pipe".into(),
        OutputReason::Socket => "it is a socket".into(),
        OutputReason::Device => "it is a device".into(),
        OutputReason::Writable { mode } => {
            format!("its group or everyone may write to it (mode {:o})", mode & 0o7777)
        }
        OutputReason::NotOwned { uid } => format!("it belongs to user {uid}, not to the build"),
        OutputReason::Io { errno } => {
            format!("it cannot be read: {}", std::io::Error::from_raw_os_error(errno))
        }
        OutputReason::TooLarge => too_large(limit_bytes),
        OutputReason::TooDeep => "its directories are nested too deep".into(),
        OutputReason::Changed => "it changed while it was read".into(),
        OutputReason::NameInvalid => "a name or link target in it is none".into(),
    }
}

fn too_large(limit_bytes: u64) -> String {
    format!("the outputs have more than {limit_bytes} bytes")
}

fn no_tree(error: impl std::fmt::Display) -> SessionError {
    SessionError::Tree {
        reason: error.to_string(),
    }
}
