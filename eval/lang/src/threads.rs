//! Several attributes of one value on several threads.
//!
//! Each thread has an evaluation of its own, with its own heap, names, shapes, contexts and file cache, none of which is
//! shared; what two attributes have in common is evaluated once on each thread that comes to it. That costs a tenth more
//! work in all on real package sets, and no locks (docs/decisions/0010).
//!
//! Invariants
//! - attributes are taken from the front: when one fails, all before it have been taken, so the error returned is the first
//!   in order;
//! - traces, warnings and derivations of what is common come once from each thread.

use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorDetails, ErrorKind};
use crate::evaluation::{Evaluation, Root};
use crate::goals::{Answer, Question};

/// An evaluation with the value whose attributes are wanted.
pub struct Ready {
    /// The evaluation.
    pub evaluation: Evaluation,
    /// The value.
    pub root: Root,
    /// Arguments for functions on the way.
    pub args: Vec<(String, Root)>,
}

/// Asks the same of several attributes, as [`Evaluation::ask`] does, on up to `threads` threads beside this one.
///
/// `start` is called on each thread that gets something to do, and `end` there when no more is left. `each` hears the answers on this thread, in the order of
/// `paths`, until it breaks or one fails. Returns when all threads have ended: what they are at is not cut short.
///
/// # Errors
/// The first thing that goes wrong, in the order of `paths`.
pub fn ask_on_threads<E: From<Error> + Send>(
    threads: NonZero<usize>,
    start: impl Fn() -> Result<Ready, E> + Sync,
    end: impl Fn(Ready) + Sync,
    paths: &[String],
    question: Question,
    each: &mut dyn FnMut(Answer) -> ControlFlow<()>,
) -> Result<(), E> {
    let board = Board {
        next: AtomicUsize::new(0),
        enough: AtomicBool::new(false),
        state: Mutex::new(State {
            answers: paths.iter().map(|_| None).collect(),
            running: 0,
        }),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for number in 0..threads.get().min(paths.len()) {
            let (board, start, end) = (&board, &start, &end);
            let builder = std::thread::Builder::new().name(format!("igloo-eval-{number}"));
            board.lock().running += 1;
            let spawned = builder.spawn_scoped(scope, move || {
                let _running = Running(board);
                if let Some(ready) = board.work(start, paths, question) {
                    end(ready);
                }
            });
            if spawned.is_err() {
                board.lock().running -= 1;
            }
        }
        let result = (0..paths.len()).try_for_each(|i| match board.wait(i) {
            Some(Ok(answer)) => each(answer).map_break(|()| Ok(())),
            Some(Err(error)) => ControlFlow::Break(Err(error)),
            None => ControlFlow::Break(Err(no_thread().into())),
        });
        board.enough.store(true, Ordering::Relaxed);
        match result {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(result) => result,
        }
    })
}

/// What the threads share.
struct Board<E> {
    /// The first path nobody has taken.
    next: AtomicUsize,
    /// Whether no more paths are to be taken.
    enough: AtomicBool,
    state: Mutex<State<E>>,
    changed: Condvar,
}

struct State<E> {
    answers: Vec<Option<Result<Answer, E>>>,
    /// Threads that have not ended.
    running: usize,
}

/// Counts a thread as running until it ends, however it does.
struct Running<'a, E>(&'a Board<E>);

impl<E> Drop for Running<'_, E> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

impl<E: From<Error>> Board<E> {
    /// Answers for paths until there are no more; gives back what it did it with.
    fn work(
        &self,
        start: &dyn Fn() -> Result<Ready, E>,
        paths: &[String],
        question: Question,
    ) -> Option<Ready> {
        let mut ready = None;
        while !self.enough.load(Ordering::Relaxed) {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(i) else { break };
            let answer = match &mut ready {
                Some(ready) => answer(ready, path, question),
                None => start().and_then(|new| answer(ready.insert(new), path, question)),
            };
            if answer.is_err() {
                self.enough.store(true, Ordering::Relaxed);
            }
            self.lock().answers[i] = Some(answer);
            self.changed.notify_all();
        }
        ready
    }
}

impl<E> Board<E> {
    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer for a path; `None` when no thread is left to give it.
    fn wait(&self, i: usize) -> Option<Result<Answer, E>> {
        let waiting = |state: &mut State<E>| state.answers[i].is_none() && state.running > 0;
        let state = self.changed.wait_while(self.lock(), waiting);
        state.unwrap_or_else(PoisonError::into_inner).answers[i].take()
    }
}

fn answer<E: From<Error>>(ready: &mut Ready, path: &str, question: Question) -> Result<Answer, E> {
    let mut found = None;
    let path = [path.to_owned()];
    let (root, args) = (ready.root, ready.args.clone());
    ready
        .evaluation
        .ask(root, &path, &args, question, &mut |answer| {
            found = Some(answer);
            ControlFlow::Continue(())
        })?;
    found.ok_or_else(|| no_thread().into())
}

fn no_thread() -> Error {
    Error::from(ErrorDetails {
        kind: ErrorKind::Unsupported,
        message: "no thread could be had to evaluate on, or it ended early".to_owned(),
        location: None,
        trace: Vec::new(),
        suggestions: Vec::new(),
        exit: crate::error::EXIT_FAILED,
    })
}
