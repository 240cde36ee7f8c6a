//! Ctrl-C while something is evaluated: a flag the evaluator looks at.
//!
//! At the prompt the line editor hears Ctrl-C itself. Whatever starts an evaluation clears the flag first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;

use crate::failure::Failure;

/// Ends the evaluation that is running.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// What the evaluator looks at.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Forgets what was asked for before.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Hears Ctrl-C from now on, on a thread of its own.
    pub fn listen(&self) -> Result<(), Failure> {
        let failed = |error| Failure::new(anyhow::Error::new(error).context("cannot listen for Ctrl-C"));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().map_err(failed)?;
        let guard = runtime.enter();
        let kind = tokio::signal::unix::SignalKind::interrupt();
        let mut signals = tokio::signal::unix::signal(kind).map_err(failed)?;
        drop(guard);
        let flag = self.flag();
        let hear = move || {
            runtime.block_on(async {
                while signals.recv().await.is_some() {
                    flag.store(true, Ordering::Relaxed);
                }
            });
        };
        let thread = std::thread::Builder::new().name("ctrl-c".into()).spawn(hear);
        thread.context("cannot listen for Ctrl-C").map_err(Failure::new)?;
        Ok(())
    }

    /// Runs something that evaluates, and stops it when it takes too long.
    pub fn within<T>(&self, limit: Duration, run: impl FnOnce() -> T) -> T {
        self.clear();
        let (done, is_done) = mpsc::channel::<()>();
        let flag = self.flag();
        let watch = std::thread::Builder::new().spawn(move || {
            if is_done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::Relaxed);
            }
        });
        let result = run();
        drop(done);
        if let Ok(watch) = watch {
            let _ = watch.join(); // it cannot panic
        }
        self.clear();
        result
    }
}
