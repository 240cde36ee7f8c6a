//! Being told to stop: Ctrl-C, or SIGTERM.
//!
//! Invariant: from [`Stop::listen`] on no signal kills the process unheard; one that comes before anybody waits is kept.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Hears when the user wants this process to end.
#[derive(Debug)]
pub struct Stop(Option<[Signal; 2]>);

impl Stop {
    /// Listens from now on. Needs a tokio runtime.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .context("cannot listen for signals")
                .map_err(Failure::new)
        };
        Ok(Self(Some([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
        ])))
    }

    /// Hears nothing: somebody else does.
    pub fn never() -> Self {
        Self(None)
    }

    /// Waits until it is asked for.
    pub async fn asked(self) {
        let Some([mut interrupt, mut terminate]) = self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
