//! The stack of local variables: frames of value words, pushed and popped with calls.
#![allow(unsafe_code, reason = "frames are raw windows into one allocation")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use super::object::Captured;
use super::value::Value;

/// Local and captured variables of running code.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    locals: *mut Value,
    captured: Captured,
}

/// The stack; its memory is committed as it is touched.
pub(crate) struct Stack {
    base: *mut Value,
    layout: Layout,
    /// In values from `base`.
    top: usize,
    capacity: usize,
}

impl Stack {
    /// A stack of `capacity` values.
    pub(crate) fn new(capacity: usize) -> Self {
        let Ok(layout) = Layout::array::<Value>(capacity.max(1)) else {
            handle_alloc_error(Layout::new::<Value>())
        };
        Self::try_new(capacity).unwrap_or_else(|| handle_alloc_error(layout))
    }

    /// A stack of `capacity` values; `None` when the system has no room for it.
    pub(crate) fn try_new(capacity: usize) -> Option<Self> {
        let layout = Layout::array::<Value>(capacity.max(1)).ok()?;
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) }.cast::<Value>();
        (!base.is_null()).then_some(Self {
            base,
            layout,
            top: 0,
            capacity: capacity.max(1),
        })
    }

    /// Where the next frame will start.
    #[inline]
    pub(crate) const fn top(&self) -> usize {
        self.top
    }

    /// Drops every frame above `top`.
    #[inline]
    pub(crate) const fn truncate(&mut self, top: usize) {
        self.top = top;
    }

    /// A frame of `size` variables for code with these captured values; `None` when the stack is full.
    #[inline]
    pub(crate) fn push(&mut self, size: u32, captured: Captured) -> Option<Frame> {
        let top = self.top + size as usize;
        if top > self.capacity {
            return None;
        }
        // SAFETY: self.top <= capacity.
        let locals = unsafe { self.base.add(self.top) };
        self.top = top;
        Some(Frame { locals, captured })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base.cast(), self.layout) };
    }
}

impl Frame {
    /// Local variable `slot`.
    #[inline]
    pub(crate) fn local(self, slot: u32) -> Value {
        // SAFETY: the compiler of the code numbers slots below the frame size it pushes (`code::scope`), and the frame is
        // live while its code runs.
        unsafe { self.locals.add(slot as usize).read() }
    }

    /// Sets local variable `slot`.
    #[inline]
    pub(crate) fn set_local(self, slot: u32, value: Value) {
        // SAFETY: as in `local`.
        unsafe { self.locals.add(slot as usize).write(value) };
    }

    /// Captured variable `i`.
    #[inline]
    pub(crate) fn captured(self, i: u32) -> Value {
        self.captured.get(i)
    }
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack")
            .field("top", &self.top)
            .field("capacity", &self.capacity)
            .finish()
    }
}
