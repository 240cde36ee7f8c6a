//! The trait of running evaluations.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use igloo_status::Code;
use igloo_store_io::Realiser;
use tokio::sync::mpsc;

use crate::event::EvaluateEvent;
use crate::request::EvaluateRequest;

/// Runs evaluations.
#[async_trait]
pub trait Evaluator: std::fmt::Debug + Send + Sync {
    /// Runs one evaluation to its end. All it made is in the store, durable, when this returns.
    ///
    /// Dropping the future stops the evaluation soon.
    ///
    /// # Errors
    /// [`EvaluateError::Failed`] for what is wrong with the expression; the others are about the evaluator.
    async fn evaluate(
        &self,
        request: EvaluateRequest,
        io: EvaluateIo,
    ) -> Result<EvaluateReport, EvaluateError>;
}

/// Whom an evaluation talks to.
#[derive(Clone)]
pub struct EvaluateIo {
    /// Hears what happens. A slow listener slows the evaluation.
    pub events: mpsc::Sender<EvaluateEvent>,
    /// Builds what it needs to go on.
    pub realiser: Arc<dyn Realiser>,
}

/// What an evaluation used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvaluateReport {
    /// From start to end.
    pub elapsed: Duration,
    /// Time its threads were running.
    pub cpu: Duration,
    /// Memory for values, bytes.
    pub heap_bytes: u64,
    /// Derivations instantiated.
    pub derivations: u64,
}

/// Why an evaluation did not end well.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The expression failed. The text is whole: excerpt, trace and all.
    #[error("{text}")]
    Failed {
        /// The message as it is shown.
        text: String,
        /// Exit status Nix has for it.
        exit: u8,
        /// The class of the failure.
        code: Code,
    },
    /// The request is wrong.
    #[error("the evaluation cannot be started: {reason}")]
    Request {
        /// What is wrong with it.
        reason: String,
    },
    /// What was made could not be kept.
    #[error("what the evaluation made cannot be kept in the store: {reason}")]
    Store {
        /// Why.
        reason: String,
        /// The class of the cause.
        code: Code,
    },
    /// The evaluator is gone or does not answer.
    #[error("the evaluator failed: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}

impl EvaluateError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Failed { code, .. } | Self::Store { code, .. } => *code,
            Self::Request { .. } => Code::InvalidArgument,
            Self::Unavailable { .. } => Code::Unavailable,
        }
    }
}

impl std::fmt::Debug for EvaluateIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvaluateIo").finish_non_exhaustive()
    }
}
