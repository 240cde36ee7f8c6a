//! Thunks: computations that run at most once.
//!
//! Protocol. The header is the state: suspended (code, captures) or apply (function, arguments), then pending (its fiber),
//! then done (value). Whoever moves it to pending by compare-and-swap runs the code and either publishes the value (release
//! store) or, on an error, puts the old header back, so that the next force repeats the error. A pending thunk met by its
//! own fiber is infinite recursion; another fiber waits for it. Reading a done thunk is one acquire load.
#![allow(
    unsafe_code,
    reason = "reads code pointers from headers and overwrites the first data word when done"
)]

use std::sync::atomic::{AtomicU64, Ordering};

use super::arena::Heap;
use super::object::{CaptureSlots, Captured, Header, Kind, Obj};
use super::value::Value;
use crate::code::ThunkCode;

/// A thunk in any state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thunk(pub(super) Obj);

/// A line of evaluation: 0 is the one that the caller waits for. Counts up, never reused; 48 bits are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FiberId(pub(crate) u64);

/// What a claimed thunk is to compute.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Code(&'static ThunkCode, Captured),
    Apply(Value, &'static [Value]),
}

/// The state a claimed thunk had.
#[derive(Clone, Copy)]
pub(crate) struct Claim(Header);

impl Heap {
    /// A suspended thunk whose captures are still to be written.
    #[inline]
    pub(crate) fn thunk(&self, code: &'static ThunkCode) -> (Value, CaptureSlots) {
        let words = code.captures.len().max(1);
        let obj = Obj::new(self, Header::pointing(Kind::Suspended, code), words);
        (Value::thunk(obj), obj.capture_slots())
    }

    /// A thunk that applies a function.
    pub(crate) fn apply(&self, func: Value, args: &[Value]) -> Value {
        Value::thunk(self.apply_obj(func, args))
    }
}

impl Thunk {
    /// The value, if it has been computed.
    #[inline]
    pub(crate) fn done(self) -> Option<Value> {
        if self.0.header().kind() == Kind::Done {
            Some(Value::from_bits(self.result().load(Ordering::Relaxed)))
        } else {
            None
        }
    }

    #[inline]
    fn result(self) -> &'static AtomicU64 {
        // SAFETY: every thunk has at least one data word; once done it is only accessed atomically.
        unsafe { AtomicU64::from_ptr(self.0.data(0)) }
    }

    /// The fiber that is computing it.
    pub(crate) fn pending_in(self) -> Option<FiberId> {
        let header = self.0.header();
        (header.kind() == Kind::Pending).then(|| FiberId(header.payload()))
    }

    /// Takes the thunk to compute it in a fiber; `None` when it is pending.
    #[inline]
    pub(crate) fn claim(self, fiber: FiberId) -> Option<(Claim, Work)> {
        let cell = self.0.header_cell();
        let old = Header(cell.load(Ordering::Relaxed));
        let work = match old.kind() {
            // SAFETY: a suspended thunk's header points at its code (`Heap::thunk`).
            Kind::Suspended => Work::Code(unsafe { old.target() }, self.0.captured()),
            Kind::Apply => {
                #[expect(clippy::cast_possible_truncation, reason = "written from a usize")]
                let len = old.payload() as usize;
                Work::Apply(Value::from_bits(self.0.word(0)), self.0.values(1, len))
            }
            _ => return None,
        };
        let pending = Header::new(Kind::Pending, fiber.0);
        cell.compare_exchange(old.0, pending.0, Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        Some((Claim(old), work))
    }

    /// Publishes the value; the captured words are given up.
    #[inline]
    pub(crate) fn finish(self, claim: Claim, value: Value) {
        debug_assert!(!value.is_thunk());
        self.result().store(value.bits(), Ordering::Relaxed);
        self.0
            .header_cell()
            .store(Header::new(Kind::Done, claim.0.payload()).0, Ordering::Release);
    }

    /// Puts the thunk back as it was.
    pub(crate) fn give_back(self, claim: Claim) {
        self.0.header_cell().store(claim.0.0, Ordering::Release);
    }
}
