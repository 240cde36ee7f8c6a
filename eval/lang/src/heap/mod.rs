//! Values and the memory they live in.
//!
//! A [`value::Value`] is one 64-bit word. What does not fit the word is an object in the [`arena::Heap`]: one header word
//! and the data behind it. Objects are never moved and never freed before the whole heap is: an evaluation allocates
//! little enough that collecting costs more than it returns.
//!
//! Invariants
//! - values and references never leave the crate; handles given to callers ([`crate::Root`]) are checked against their
//!   evaluator, so no word outlives its heap;
//! - an object's header says its kind and size at all times, so that a collector can be added;
//! - only thunks change after they are made, by the protocol in [`thunk`].

pub(crate) mod arena;
pub(crate) mod attrs;
pub(crate) mod context;
pub(crate) mod object;
pub(crate) mod shape;
pub(crate) mod stack;
pub(crate) mod thunk;
pub(crate) mod value;

#[cfg(test)]
mod tests;
