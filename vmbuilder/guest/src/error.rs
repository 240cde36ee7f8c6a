//! A step of the agent that failed.

use std::path::Path;

use igloo_control::message::FailureClass;
use rustix::io::Errno;

/// What was tried, on what, and what the kernel said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} {subject}: {errno}")]
pub struct StepError {
    /// What was tried: "mount", "create".
    pub action: &'static str,
    /// On what.
    pub subject: String,
    /// Why not.
    pub errno: Errno,
}

impl StepError {
    /// Whose fault it is, as far as the error number tells.
    pub fn class(&self) -> FailureClass {
        match self.errno {
            Errno::NOSPC | Errno::DQUOT => FailureClass::DiskFull,
            Errno::NOMEM => FailureClass::OutOfMemory,
            _ => FailureClass::Machine,
        }
    }
}

/// Names the step for an error number.
pub trait Step<T> {
    /// Adds what was tried and on what.
    ///
    /// # Errors
    /// The error it was called on.
    fn step(self, action: &'static str, subject: impl AsRef<Path>) -> Result<T, StepError>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, action: &'static str, subject: impl AsRef<Path>) -> Result<T, StepError> {
        self.map_err(|errno| StepError {
            action,
            subject: subject.as_ref().display().to_string(),
            errno,
        })
    }
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, action: &'static str, subject: impl AsRef<Path>) -> Result<T, StepError> {
        self.map_err(|error| StepError {
            action,
            subject: subject.as_ref().display().to_string(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })
    }
}
