//! Why a conversation with an agent broke off.

use std::fmt;
use std::io;
use std::time::Duration;

use igloo_build::BuildError;
use igloo_control::FrameError;
use igloo_control::message::Stage;
use igloo_control::sequence::SequenceError;
use igloo_control::window::OverrunError;
use igloo_status::Code;

/// What the host was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The agent's first word.
    Hello,
    /// The mount of the inputs.
    Mounted,
    /// The program's start.
    Started,
    /// The program's end.
    Exited,
    /// Outputs.
    Outputs,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "the agent's hello",
            Self::Mounted => "the agent to mount the inputs",
            Self::Started => "the program's start",
            Self::Exited => "the program's end",
            Self::Outputs => "the outputs",
        })
    }
}

/// Why a conversation with an agent broke off.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The machine or its agent went away.
    #[error("the machine went away while the host waited for {waiting}")]
    Closed {
        /// What was waited for.
        waiting: Waiting,
    },
    /// The channel broke on the host's side.
    #[error("the channel to the machine broke")]
    Io(#[source] io::Error),
    /// Nothing was heard in time.
    #[error("nothing was heard for {patience:?} while the host waited for {waiting}")]
    Deadline {
        /// What was waited for.
        waiting: Waiting,
        /// How long.
        patience: Duration,
    },
    /// The agent gave up, and it is not the build's doing.
    #[error("the agent failed ({stage:?}): {message}")]
    Agent {
        /// When.
        stage: Stage,
        /// What it says.
        message: String,
    },
    /// The agent says that the request asks for what cannot be done.
    #[error("the agent cannot do what the request asks for: {message}")]
    Request {
        /// What it says.
        message: String,
    },
    /// Not the protocol, or another version of it.
    #[error("what the machine sent is not the control protocol")]
    Frame(#[from] FrameError),
    /// A message at the wrong time.
    #[error("the machine broke the order of messages")]
    Sequence(#[from] SequenceError),
    /// More than the host allowed to be on the way.
    #[error("the machine does not keep to its window")]
    Overrun(#[from] OverrunError),
    /// A message that is in order, yet senseless here.
    #[error("the machine sent {message} while the host waited for {waiting}")]
    Unexpected {
        /// What was waited for.
        waiting: Waiting,
        /// What came.
        message: &'static str,
    },
    /// An output that is no tree.
    #[error("an output is no tree: {reason}")]
    Tree {
        /// What is wrong.
        reason: String,
    },
    /// The order is larger than a message can be.
    #[error("the request cannot be told to an agent")]
    Order(#[source] FrameError),
    /// The host could not take an output.
    #[error(transparent)]
    Sink(BuildError),
}

impl SessionError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Closed { .. } | Self::Io(_) | Self::Deadline { .. } | Self::Agent { .. } => {
                Code::Unavailable
            }
            Self::Request { .. } => Code::Unimplemented,
            Self::Frame(_)
            | Self::Sequence(_)
            | Self::Overrun(_)
            | Self::Unexpected { .. }
            | Self::Tree { .. } => Code::DataLoss,
            Self::Order(_) => Code::InvalidArgument,
            Self::Sink(error) => error.code(),
        }
    }

    /// Whether the machine is at fault rather than the guest's words: then its last words say more.
    pub fn is_machine_failure(&self) -> bool {
        self.code() == Code::Unavailable && !matches!(self, Self::Sink(_))
    }

    /// Whether the machine was at the build's own work: before that its end cannot be the build's doing.
    pub fn is_in_build(&self) -> bool {
        match self {
            Self::Closed { waiting } | Self::Deadline { waiting, .. } => {
                matches!(waiting, Waiting::Started | Waiting::Exited | Waiting::Outputs)
            }
            _ => false,
        }
    }
}
