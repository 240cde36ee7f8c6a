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

/// An answer that is owed. However it is dropped, whoever waits sees that it will not come, and then the bell rings.
struct Owed<T> {
    // dropped in this order
    send: oneshot::Sender<T>,
    bell: RingAtEnd,
}

impl<T> Owed<T> {
    fn pay(self, answer: T) {
        let Self { send, bell } = self;
        // nobody wants it any more: fine
        let _gone = send.send(answer);
        drop(bell);
    }
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

    fn owe<T>(&self) -> (Owed<T>, oneshot::Receiver<T>) {
        let (send, answer) = oneshot::channel();
        let bell = RingAtEnd(self.clone());
        (Owed { send, bell }, answer)
    }

    /// Runs a future on the runtime.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        runtime: &Runtime,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let (owed, answer) = self.owe();
        let task = runtime.spawn(async move {
            let answer = work.await;
            owed.pay(answer);
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
        let (owed, answer) = self.owe();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            blocking::allow_on_this_thread();
            let answer = work();
            owed.pay(answer);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use futures::FutureExt as _;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    fn view_of(runtime: &tokio::runtime::Runtime) -> Runtime {
        Runtime {
            handle: runtime.handle().clone(),
            stop: None,
        }
    }

    /// "The bell rings after an answer can be seen, also when the work panicked or its runtime is gone."
    #[test]
    fn work_that_never_runs_is_told() {
        let (bell, runtime) = (Bell::default(), runtime());
        let view = view_of(&runtime);
        let mut begun = bell.spawn(&view, std::future::pending::<()>());
        assert!(begun.poll().is_none());
        assert!(bell.rung().now_or_never().is_none());
        drop(runtime);
        assert!(bell.rung().now_or_never().is_some());
        assert!(begun.poll().is_some_and(|answer| answer.is_err()));
        let mut late = bell.spawn(&view, std::future::pending::<()>());
        assert!(bell.rung().now_or_never().is_some());
        assert!(late.poll().is_some_and(|answer| answer.is_err()));
    }

    #[test]
    fn a_thread_that_panics_is_told() {
        let (bell, runtime) = (Bell::default(), runtime());
        let work = || std::panic::resume_unwind(Box::new("on purpose"));
        let mut task: Task<()> = bell.spawn_thread("fails", work).unwrap();
        runtime.block_on(bell.rung());
        assert!(task.poll().is_some_and(|answer| answer.is_err()));
    }
}
