//! The one door from async code to code that blocks (the database, the disk).
//!
//! Invariants
//! - a runtime's worker thread never waits for a disk: the work goes to tokio's blocking pool;
//! - a thread that exists to wait (a FUSE worker, the main thread of a command) marks itself once with
//!   [`allow_on_this_thread`]; on it the work runs in place, which saves two thread switches for each read.

use std::cell::Cell;

thread_local! {
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread may wait: nobody else's futures run on it.
pub fn allow_on_this_thread() {
    MAY_BLOCK.set(true);
}

/// Runs `work`, in place where the thread may block or no runtime is near, else on the blocking pool.
///
/// # Panics
/// Passes on a panic of `work`.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if MAY_BLOCK.get() {
        return work();
    }
    let Ok(handle) = tokio::runtime::Handle::try_current() else {
        return work();
    };
    match handle.spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // the runtime is shutting down, and this future is dropped with it
            Err(_) => std::future::pending().await,
        },
    }
}

/// Work that runs beside its starter.
#[derive(Debug)]
pub struct Task<T>(State<T>);

#[derive(Debug)]
enum State<T> {
    Done(T),
    Pool(tokio::task::JoinHandle<T>),
}

/// Starts `work` on the blocking pool and returns at once; without a runtime it is done before this returns.
///
/// Unlike [`run`] it never works in place when there is a choice: it is for work that shall overlap with the caller's.
pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    Task(match tokio::runtime::Handle::try_current() {
        Ok(handle) => State::Pool(handle.spawn_blocking(work)),
        Err(_) => State::Done(work()),
    })
}

impl<T> Task<T> {
    /// Waits for the result. Dropping the task instead leaves the work running to its end, unheard.
    ///
    /// # Panics
    /// Passes on a panic of the work.
    pub async fn wait(self) -> T {
        match self.0 {
            State::Done(value) => value,
            State::Pool(handle) => match handle.await {
                Ok(value) => value,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_runs_beside_its_starter() {
        let here = std::thread::current().id();
        assert_ne!(spawn(move || std::thread::current().id()).wait().await, here);
    }

    #[tokio::test]
    async fn a_worker_thread_hands_the_work_over() {
        let here = std::thread::current().id();
        assert_ne!(run(move || std::thread::current().id()).await, here);
    }

    #[test]
    fn a_thread_that_may_block_does_it_in_place() {
        std::thread::spawn(|| {
            allow_on_this_thread();
            let here = std::thread::current().id();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .build()
                .unwrap();
            assert_eq!(runtime.block_on(run(move || std::thread::current().id())), here);
        })
        .join()
        .unwrap();
    }
}
