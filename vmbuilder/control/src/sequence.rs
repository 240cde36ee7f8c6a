//! Which message may come when.
//!
//! The host feeds every guest message to [`GuestSequence`] before it acts on it; the agent feeds every host message to
//! [`HostSequence`]. Both keep a few words of state and do no I/O.
//!
//! Invariants
//! - `Exited` comes at most once, and only after `Started`; outputs come only after it, in the spec's order;
//! - between `OutputBegin` and `OutputEnd` there is exactly one root, every directory is closed, every file is whole;
//! - after `Failed`, `Collected` or `OutputError` nothing more is taken from a guest.

use crate::message::{GuestMessage, HostMessage};

/// Deepest directory in an output.
pub const DEPTH_MAX: u32 = 4096;

/// What a guest may say next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestSequence {
    state: GuestState,
    outputs: u32,
}

/// Where a guest is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestState {
    /// Nothing heard.
    Booting,
    /// Hello heard.
    Mounting,
    /// Ready, or preparing a build.
    Idle,
    /// The program runs.
    Running,
    /// It has ended.
    Exited,
    /// Between outputs; the next one's position.
    Collecting {
        /// Position of the next output.
        next: u32,
    },
    /// In an output.
    Output(OutputState),
    /// Nothing more is expected.
    Finished,
}

/// Where in an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputState {
    index: u32,
    depth: u32,
    file_left: u64,
    has_root: bool,
}

impl GuestSequence {
    /// A guest that boots, and will be given a spec with that many outputs.
    pub fn new(outputs: u32) -> Self {
        Self {
            state: GuestState::Booting,
            outputs,
        }
    }

    /// Sets how many outputs the guest is asked for: a pooled machine starts before its build is known.
    pub fn set_outputs(&mut self, outputs: u32) {
        self.outputs = outputs;
    }

    /// Where the guest is.
    pub fn state(&self) -> GuestState {
        self.state
    }

    /// Takes the next message.
    ///
    /// # Errors
    /// When the guest may not say that now; the state stays as it was.
    pub fn take(&mut self, message: &GuestMessage) -> Result<(), SequenceError> {
        match self.next(message) {
            Some(state) => {
                self.state = state;
                Ok(())
            }
            None => Err(SequenceError {
                message: message.name(),
                state: format!("{:?}", self.state),
            }),
        }
    }

    fn next(&self, message: &GuestMessage) -> Option<GuestState> {
        use GuestMessage as M;
        use GuestState as S;
        match (self.state, message) {
            (S::Finished, _) => None,
            (_, M::Failed { .. }) => Some(S::Finished),
            (S::Booting, M::Hello(_)) => Some(S::Mounting),
            (S::Mounting, M::Mounted) => Some(S::Idle),
            (S::Idle, M::Started) | (S::Running, M::Log(_)) => Some(S::Running),
            (S::Running, M::Exited(_)) => Some(S::Exited),
            (S::Exited, M::OutputBegin { index: 0 }) if self.outputs > 0 => {
                Some(S::Output(OutputState::new(0)))
            }
            (S::Collecting { next }, M::OutputBegin { index }) if *index == next && next < self.outputs => {
                Some(S::Output(OutputState::new(next)))
            }
            (S::Exited, M::OutputError { index: 0, .. }) if self.outputs > 0 => Some(S::Finished),
            (S::Collecting { next }, M::OutputError { index, .. })
                if *index == next && next < self.outputs =>
            {
                Some(S::Finished)
            }
            (S::Output(output), M::OutputError { index, .. }) if *index == output.index => Some(S::Finished),
            (S::Output(output), M::OutputEnd) if output.is_whole() => Some(S::Collecting {
                next: output.index + 1,
            }),
            (S::Output(output), _) => output.next(message).map(S::Output),
            (S::Exited, M::Collected) if self.outputs == 0 => Some(S::Finished),
            (S::Collecting { next }, M::Collected) if next == self.outputs => Some(S::Finished),
            _ => None,
        }
    }
}

impl OutputState {
    fn new(index: u32) -> Self {
        Self {
            index,
            depth: 0,
            file_left: 0,
            has_root: false,
        }
    }

    fn is_whole(&self) -> bool {
        self.has_root && self.depth == 0 && self.file_left == 0
    }

    fn next(mut self, message: &GuestMessage) -> Option<Self> {
        use GuestMessage as M;
        if let M::FileData(bytes) = message {
            self.file_left = self.file_left.checked_sub(bytes.len() as u64)?;
            return Some(self);
        }
        if self.file_left > 0 {
            return None;
        }
        match message {
            M::DirectoryEnd => {
                self.depth = self.depth.checked_sub(1)?;
                return Some(self);
            }
            // the root has no name, everything else has one
            M::DirectoryBegin { name } | M::FileBegin { name, .. } | M::Symlink { name, .. } => {
                let is_root = self.depth == 0;
                if (is_root && self.has_root) || is_root != name.is_empty() {
                    return None;
                }
            }
            _ => return None,
        }
        self.has_root = true;
        match message {
            M::DirectoryBegin { .. } if self.depth < DEPTH_MAX => self.depth += 1,
            M::DirectoryBegin { .. } => return None,
            M::FileBegin { size, .. } => self.file_left = *size,
            _ => {}
        }
        Some(self)
    }
}

/// What a host may say next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostSequence {
    state: HostState,
}

/// What the host has asked for so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostState {
    /// Nothing yet.
    #[default]
    Idle,
    /// A root, and files in it; bytes of the current one still to come.
    Preparing {
        /// Bytes missing.
        file_left: u64,
    },
    /// To run.
    Running,
    /// To collect outputs.
    Collecting,
    /// To end.
    Finished,
}

impl HostSequence {
    /// What the host has asked for so far.
    pub fn state(&self) -> HostState {
        self.state
    }

    /// Takes the next message. Whether the program has ended before `Collect` is the agent's to know.
    ///
    /// # Errors
    /// When the host may not say that now; the state stays as it was.
    pub fn take(&mut self, message: &HostMessage) -> Result<(), SequenceError> {
        use HostMessage as M;
        use HostState as S;
        let next = match (self.state, message) {
            (S::Finished, _) => None,
            (_, M::PowerOff) => Some(S::Finished),
            (state, M::Ack { .. }) => Some(state),
            (S::Idle, M::Prepare(_)) => Some(S::Preparing { file_left: 0 }),
            (S::Preparing { file_left: 0 }, M::File { size, .. }) => Some(S::Preparing { file_left: *size }),
            (S::Preparing { file_left }, M::FileData(bytes)) => file_left
                .checked_sub(bytes.len() as u64)
                .map(|file_left| S::Preparing { file_left }),
            (S::Preparing { file_left: 0 }, M::Run) | (S::Running, M::Kill) => Some(S::Running),
            // a kill may cross an exit on the way
            (S::Running, M::Collect) | (S::Collecting, M::Kill) => Some(S::Collecting),
            _ => None,
        };
        match next {
            Some(state) => {
                self.state = state;
                Ok(())
            }
            None => Err(SequenceError {
                message: message.name(),
                state: format!("{:?}", self.state),
            }),
        }
    }
}

/// A message at the wrong time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent {message} in state {state}")]
pub struct SequenceError {
    message: &'static str,
    state: String,
}

#[cfg(test)]
mod tests;
