//! Switches between native stacks.
//!
//! All fibers of an evaluation run on its thread, one at a time, and all of them work on the same [`Interp`]. Each holds a
//! `&mut Interp` while it is parked, as callers do while they wait for a call to return: whatever they know of its fields
//! may have changed when [`suspend`] returns. [`Interp`] is `!Unpin` so that the compiler does not take these references
//! to be unique either.
#![allow(
    unsafe_code,
    reason = "a parked fiber's reference to the interpreter is used again when it is resumed"
)]

use std::marker::PhantomPinned;

use corosensei::stack::{DefaultStack, Stack as _};
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::heap::stack::Stack;
use crate::interp::Interp;

/// A fiber that was started and has not ended.
pub(super) type Parked = Coroutine<*mut Interp, *mut Interp, ()>;
/// What a fiber parks itself with; valid while it runs.
pub(super) type Parker = *const Yielder<*mut Interp, *mut Interp>;
/// Marks the interpreter as something that several references point at.
pub(in crate::interp) type Shared = PhantomPinned;

/// Memory at the top of a pooled stack that stays committed.
const KEPT_BYTES: usize = 256 << 10;

/// The stacks of a fiber: of native frames, and of local variables.
pub(super) struct FiberStack {
    native: DefaultStack,
    pub(super) values: Stack,
}

impl FiberStack {
    /// Reserves address space; `None` when the system has none left.
    pub(super) fn new(bytes: usize, values: usize) -> Option<Self> {
        Some(Self {
            native: DefaultStack::new(bytes).ok()?,
            values: Stack::try_new(values)?,
        })
    }

    /// The lowest address that native frames may reach when `reserve` bytes are kept free.
    pub(super) fn floor(&self, reserve: usize) -> usize {
        let (base, limit) = (self.native.base().get(), self.native.limit().get());
        limit + reserve.min((base - limit) / 2)
    }

    /// A fiber that will run `body`, and the variable stack that is its own.
    pub(super) fn start(self, body: impl FnOnce(&mut Interp, Parker) + 'static) -> (Parked, Stack) {
        let parked =
            Coroutine::with_stack(self.native, move |parker: &Yielder<_, _>, interp: *mut Interp| {
                // SAFETY: `resume` passes the interpreter that it holds, which stays where it is until `resume` returns; in
                // later calls it passes the same one, as fibers belong to one interpreter (`Fibers` is a field of it).
                let interp = unsafe { &mut *interp };
                body(interp, std::ptr::from_ref(parker));
            });
        (parked, self.values)
    }

    /// The stacks of a fiber that has ended, for the next one.
    pub(super) fn reclaim(parked: Parked, mut values: Stack) -> Self {
        values.truncate(0);
        let native = parked.into_stack();
        release(&native);
        Self { native, values }
    }
}

/// Runs a fiber until it parks or ends; true when it ended.
pub(super) fn resume(fiber: &mut Parked, interp: &mut Interp) -> bool {
    match fiber.resume(std::ptr::from_mut(interp)) {
        CoroutineResult::Yield(_) => false,
        CoroutineResult::Return(()) => true,
    }
}

/// Parks the running fiber until it is resumed.
pub(super) fn suspend(interp: &mut Interp, parker: Parker) {
    // SAFETY: the caller passes what `start` gave the body of the running fiber, on whose stack it lives. The reference
    // to the interpreter goes along, so that it counts as used by others until this returns.
    unsafe { &*parker }.suspend(std::ptr::from_mut(interp));
}

/// Gives back the memory that a deep evaluation touched.
fn release(stack: &DefaultStack) {
    #[cfg(target_os = "linux")]
    {
        let (base, limit) = (stack.base().get(), stack.limit().get());
        let Some(len) = (base - limit).checked_sub(KEPT_BYTES) else {
            return;
        };
        // SAFETY: the range is whole pages inside the mapping of a stack that no fiber runs on; dropping the content of
        // its guard page, which has none, changes nothing.
        unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(limit),
                len,
                libc::MADV_DONTNEED,
            );
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stack, KEPT_BYTES);
}
