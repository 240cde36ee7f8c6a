//! The heap: bump allocation in blocks that are freed together.
#![allow(
    unsafe_code,
    reason = "the allocator: hands out raw words and references that live as long as the heap"
)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};

use bumpalo::Bump;

/// Words in an ordinary block (1 MiB).
const BLOCK_WORDS: usize = 1 << 17;
/// Alignment of an ordinary block: a page.
const BLOCK_ALIGN: usize = 4096;

/// All memory of one evaluator: objects in blocks of words, and typed metadata (code, shapes) beside them.
pub(crate) struct Heap {
    next: Cell<*mut u64>,
    end: Cell<*mut u64>,
    blocks: RefCell<Vec<(*mut u8, Layout)>>,
    /// Bytes of all blocks, and how many there may be before the evaluation is refused more.
    taken: Cell<usize>,
    bytes_max: usize,
    meta: Bump,
    shapes: super::shape::ShapeCell,
    plans: super::attrs::PlanCell,
}

impl Heap {
    /// An empty heap without a limit; allocates on first use.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::with_limit(usize::MAX)
    }

    /// An empty heap; allocates on first use. The limit is not enforced here but by who asks [`Heap::has_room`].
    pub(crate) fn with_limit(bytes_max: usize) -> Self {
        let null = std::ptr::null_mut();
        Self {
            next: Cell::new(null),
            end: Cell::new(null),
            blocks: RefCell::new(Vec::new()),
            taken: Cell::new(0),
            bytes_max,
            meta: Bump::new(),
            shapes: RefCell::default(),
            plans: RefCell::default(),
        }
    }

    /// Room for `words` 64-bit words, not initialised. Aborts when the system has no memory.
    #[inline]
    pub(crate) fn alloc(&self, words: usize) -> *mut u64 {
        let here = self.next.get();
        let left = (self.end.get() as usize).wrapping_sub(here as usize) / 8;
        if words <= left {
            // SAFETY: `words` words are left in the block that `here` points into.
            self.next.set(unsafe { here.add(words) });
            return here;
        }
        self.alloc_slow(words)
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, words: usize) -> *mut u64 {
        if words > BLOCK_WORDS / 4 {
            return self.block(words);
        }
        let block = self.block(BLOCK_WORDS);
        // SAFETY: the block has BLOCK_WORDS words, of which `words` are taken.
        unsafe {
            self.next.set(block.add(words));
            self.end.set(block.add(BLOCK_WORDS));
        }
        block
    }

    fn block(&self, words: usize) -> *mut u64 {
        let align = if words == BLOCK_WORDS {
            BLOCK_ALIGN
        } else {
            align_of::<u64>()
        };
        let Ok(layout) = Layout::from_size_align(words * 8, align) else {
            handle_alloc_error(Layout::new::<u64>())
        };
        // SAFETY: the layout is not empty (callers ask for at least one word).
        let block = unsafe { alloc(layout) };
        if block.is_null() {
            handle_alloc_error(layout);
        }
        if words == BLOCK_WORDS {
            populate(block, layout.size());
        }
        self.taken.set(self.taken.get() + layout.size());
        self.blocks.borrow_mut().push((block, layout));
        block.cast()
    }

    pub(super) fn shapes(&self) -> &super::shape::ShapeCell {
        &self.shapes
    }

    pub(super) fn plans(&self) -> &super::attrs::PlanCell {
        &self.plans
    }

    /// Bytes reserved for objects so far.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.taken.get() + self.meta.allocated_bytes()
    }

    /// Whether `words` more words are within the limit.
    #[inline]
    pub(crate) fn has_room(&self, words: usize) -> bool {
        let more = words.saturating_mul(8);
        self.taken.get().saturating_add(more) <= self.bytes_max
    }

    /// Keeps a value of metadata for the life of the heap; its destructor never runs.
    pub(crate) fn keep<T>(&self, item: T) -> &'static T {
        const {
            assert!(
                !std::mem::needs_drop::<T>(),
                "metadata must not own memory outside the heap"
            );
        };
        let kept: &T = self.meta.alloc(item);
        // SAFETY: the bump block lives until the heap is dropped; references stay inside the evaluator that owns both
        // (module `heap`, first invariant).
        unsafe { std::mem::transmute::<&T, &'static T>(kept) }
    }

    /// Keeps a slice of metadata for the life of the heap.
    pub(crate) fn keep_slice<T: Copy>(&self, items: &[T]) -> &'static [T] {
        let kept: &[T] = self.meta.alloc_slice_copy(items);
        // SAFETY: as in `keep`.
        unsafe { std::mem::transmute::<&[T], &'static [T]>(kept) }
    }

    /// Keeps the items of a vector for the life of the heap; their destructors never run.
    pub(crate) fn keep_vec<T>(&self, items: Vec<T>) -> &'static [T] {
        const {
            assert!(
                !std::mem::needs_drop::<T>(),
                "metadata must not own memory outside the heap"
            );
        };
        let kept: &[T] = self.meta.alloc_slice_fill_iter(items);
        // SAFETY: as in `keep`.
        unsafe { std::mem::transmute::<&[T], &'static [T]>(kept) }
    }
}

/// Asks for the pages of a block at once: it will be used from end to end, and one request costs a fraction of a fault for
/// each page. (Huge pages were tried: where memory must be compacted for them, they cost three times what they save.)
fn populate(block: *mut u8, size: usize) {
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: the range is whole pages of one allocation of ours; a refusal (older kernels) changes nothing.
    unsafe {
        libc::madvise(block.cast(), size, libc::MADV_POPULATE_WRITE);
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (block, size);
}

impl Drop for Heap {
    fn drop(&mut self) {
        for (block, layout) in self.blocks.borrow().iter() {
            // SAFETY: allocated in `block` with this layout, freed only here.
            unsafe { dealloc(*block, *layout) };
        }
    }
}

impl std::fmt::Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heap")
            .field("reserved_bytes", &self.reserved_bytes())
            .finish()
    }
}
