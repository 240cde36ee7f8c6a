//! Answers that come later: work beside the evaluation, and the bell that says that some of it has ended.
//!
//! Invariant: the bell rings after an answer can be seen, also when the work panicked or its runtime is gone; so whoever
//! looks at all answers after each ring misses none.

use std::sync::Arc;

use igloo_castore::blocking;
use igloo_eval::io::IoError;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use crate::view::Runtime;

/// Rings when an answer has come; one ring is remembered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bell(Arc<Notify>);

/// Work whose answer comes later. Dropping it ends the work where that is possible.
#[derive(Debug)]
pub(crate) struct Task<T> {
    answer: oneshot::Receiver<T>,
    abort: Option<AbortHandle>,
}

struct RingAtEnd(Bell);

impl Drop for RingAtEnd {
    fn drop(&mut self) {
        self.0.ring();
    }
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits for a ring.
    pub(crate) async fn rung(&self) {
        self.0.notified().await;
    }

    /// Runs a future on the runtime.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        runtime: &Runtime,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let (send, answer) = oneshot::channel();
        let bell = RingAtEnd(self.clone());
        let task = runtime.spawn(async move {
            // the last to be dropped, whatever happens to the work
            let _ring = bell;
            let send = send;
            // nobody wants it any more: fine
            let _gone = send.send(work.await);
        });
        Task {
            answer,
            abort: Some(task.abort_handle()),
        }
    }

    /// Runs something that blocks on a thread of its own, which ends in its own time.
    pub(crate) fn spawn_thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<Task<T>> {
        let (send, answer) = oneshot::channel();
        let bell = RingAtEnd(self.clone());
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ring = bell;
            let send = send;
            blocking::allow_on_this_thread();
            let _gone = send.send(work());
        })?;
        Ok(Task { answer, abort: None })
    }
}

impl<T> Task<T> {
    /// The answer, once it is there.
    pub(crate) fn poll(&mut self) -> Option<Result<T, IoError>> {
        match self.answer.try_recv() {
            Ok(answer) => Some(Ok(answer)),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(IoError::Unsupported {
                what: "what the evaluation waited for ended without an answer; its runtime may have been shut down"
                    .to_owned(),
            })),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.abort {
            task.abort();
        }
    }
}
