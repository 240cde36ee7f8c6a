//! The locks this crate uses, in one place, so that a model checker can swap them.
//!
//! Invariant: a panic in one request never makes another fail. Every critical section here leaves its data whole at each
//! point where it could unwind, so a poisoned lock is taken all the same.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Takes the lock, poisoned or not.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
