//! Jobs over the wire.
//!
//! Invariants
//! - the client's future owns the call: dropping it cancels on the other side what only this job wanted;
//! - a job that was not reported on to its end is [`igloo_driver::JobError::Gone`], never a report;
//! - a slow watcher holds the updates of its job back: between coordinator and watcher wait at most [`UPDATES`] updates,
//!   [`MESSAGES`] messages, and what flow control lets be in flight;
//! - errors keep their kind, their text and their class.

mod client;
mod server;

pub use client::RemoteCoordinator;
pub(crate) use server::CoordinatorServer;

/// Updates of a coordinator that wait to be written.
const UPDATES: usize = 64;
/// Messages that wait for the caller.
const MESSAGES: usize = 8;
/// Largest log that is fetched, bytes: it is handed out in one piece.
const LOG_BYTES_MAX: usize = 256 << 20;
