//! Being told to stop: Ctrl-C, or SIGTERM.
//!
//! The first time asks: work is cancelled and cleared away. The second time ends the process at once, whatever it does:
//! machines die with it, and what they left is removed at the next start.
//!
//! Invariant: from [`Stop::listen`] on no signal kills the process unheard; one that comes before anybody waits is kept.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::leave::leave;
use crate::progress::style::Line;
use crate::progress::tell;

/// Exit code of a process that was told twice: that of a shell whose command died of SIGINT.
const EXIT_TWICE: u8 = 130;
/// How long stopping may take before it is said that it goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hears when the user wants this process to end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on, in a thread of its own: it hears even when every other thread is busy.
    pub fn listen() -> Result<Self, Failure> {
        let (sender, receiver) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot listen for signals")
            .map_err(Failure::new)?;
        let mut signals = {
            let _inside = runtime.enter();
            [
                listen_for(SignalKind::interrupt())?,
                listen_for(SignalKind::terminate())?,
            ]
        };
        let heard = async move {
            heard(&mut signals).await;
            sender.send_replace(true);
            tokio::select! {
                () = heard(&mut signals) => end_at_once(),
                () = tokio::time::sleep(PATIENCE) => {}
            }
            tell(&Line::plain("still stopping; Ctrl-C again ends at once"), false);
            heard(&mut signals).await;
            end_at_once();
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(heard))
            .context("cannot listen for signals")
            .map_err(Failure::new)?;
        Ok(Self(receiver))
    }

    /// Waits until it is asked for.
    pub async fn asked(mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await; // the listener is gone, so the process is ending
        }
    }
}

async fn heard([interrupt, terminate]: &mut [Signal; 2]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind)
        .context("cannot listen for signals")
        .map_err(Failure::new)
}

/// Being told twice means: do not wait for anything.
fn end_at_once() -> ! {
    leave(EXIT_TWICE)
}
