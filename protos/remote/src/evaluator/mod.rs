//! Evaluations over the wire.
//!
//! Invariants
//! - the client's future owns the call: dropping it stops the evaluation on the other side, and the builds it asked for;
//! - events arrive in the order in which the evaluation told them, and what it asks for behind all it told before;
//! - an evaluation that was not reported on to its end is [`igloo_evaluator::EvaluateError::Unavailable`], never the
//!   expression's fault; errors keep their kind, their text, their status and their class;
//! - a slow listener slows the evaluation: between the two wait at most [`EVENTS`] events, [`MESSAGES`] messages, and what
//!   flow control lets be in flight.

mod client;
mod relay;
mod server;

pub use client::RemoteEvaluator;
pub(crate) use server::EvaluatorServer;
pub use server::EvaluatorService;

/// Events of an evaluator that wait to be written.
const EVENTS: usize = 64;
/// Messages that wait for the caller.
const MESSAGES: usize = 8;
/// Questions of one evaluation that may wait for an answer.
const QUESTIONS_MAX: usize = 1024;
