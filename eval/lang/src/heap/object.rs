//! Objects: a header word and what follows it.
//!
//! Header: bits 0-7 kind, 8-15 flags, 16-63 payload (a length, or the address of metadata). Data by kind:
//!
//! | kind | payload | words behind the header |
//! |---|---|---|
//! | suspended thunk | `ThunkCode` | captured values |
//! | apply thunk | number of arguments | function, arguments |
//! | pending thunk | its fiber | as before |
//! | done thunk | - | the value |
//! | list | length | items |
//! | string, path | length in bytes | context (if flagged), bytes |
//! | set | `Shape` | values in the order of the shape |
//! | layered set | number of attributes | base, top, flattened set or 0 |
//! | closure | `LambdaCode` | captured values |
//! | builtin | `Builtin` | - |
//! | partial application | number of arguments | function, arguments |
//! | float, big integer | - | the number |
#![allow(
    unsafe_code,
    reason = "reads and writes objects through raw words; every layout is in the table above"
)]

use std::ptr::{slice_from_raw_parts, with_exposed_provenance, with_exposed_provenance_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use super::arena::Heap;
use super::attrs::SetRef;
use super::context::Ctx;
use super::shape::Shape;
use super::thunk::Thunk;
use super::value::Value;
use crate::builtins::Builtin;
use crate::code::LambdaCode;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Suspended = 0,
    Apply = 1,
    Pending = 2,
    Done = 3,
    List = 4,
    String = 5,
    Set = 6,
    Layered = 7,
    Closure = 8,
    Builtin = 9,
    Partial = 10,
    Path = 11,
    Float = 12,
    Int = 13,
}

const KINDS: [Kind; 14] = [
    Kind::Suspended,
    Kind::Apply,
    Kind::Pending,
    Kind::Done,
    Kind::List,
    Kind::String,
    Kind::Set,
    Kind::Layered,
    Kind::Closure,
    Kind::Builtin,
    Kind::Partial,
    Kind::Path,
    Kind::Float,
    Kind::Int,
];

/// Flag of a string: a context word precedes the bytes.
const HAS_CONTEXT: u64 = 1 << 8;

/// A header word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header(pub(super) u64);

impl Header {
    pub(super) const fn new(kind: Kind, payload: u64) -> Self {
        Self((payload << 16) | kind as u64)
    }

    pub(super) fn pointing<T>(kind: Kind, target: &'static T) -> Self {
        Self::new(kind, std::ptr::from_ref(target).expose_provenance() as u64)
    }

    #[inline]
    pub(super) const fn kind(self) -> Kind {
        KINDS[(self.0 & 15) as usize % KINDS.len()]
    }

    #[inline]
    pub(super) const fn payload(self) -> u64 {
        self.0 >> 16
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a length made from a usize by `new`"
    )]
    const fn len(self) -> usize {
        self.payload() as usize
    }

    /// The metadata the payload points at.
    ///
    /// # Safety
    /// The header was made by [`Header::pointing`] with a `T`.
    #[inline]
    pub(super) unsafe fn target<T>(self) -> &'static T {
        // SAFETY: by the caller the payload is the exposed address of a `T` kept in the heap's metadata.
        unsafe { &*with_exposed_provenance::<T>(self.len()) }
    }
}

/// The address of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Obj(*mut u64);

impl Obj {
    /// A new object with `words` words of data behind its header, not initialised.
    #[inline]
    pub(super) fn new(heap: &Heap, header: Header, words: usize) -> Self {
        let at = heap.alloc(words + 1);
        // SAFETY: `at` is the first of words + 1 fresh words.
        unsafe { at.write(header.0) };
        Self(at)
    }

    #[inline]
    pub(super) fn address(self) -> u64 {
        self.0.expose_provenance() as u64
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "an address of this machine")]
    pub(super) fn from_address(address: u64) -> Self {
        Self(with_exposed_provenance_mut(address as usize))
    }

    /// The header as a shared cell: thunks change theirs.
    #[inline]
    pub(super) fn header_cell(self) -> &'static AtomicU64 {
        // SAFETY: every Obj points at a live header word (made by `new`); headers are only accessed atomically after
        // publication, and live as long as the heap.
        unsafe { AtomicU64::from_ptr(self.0) }
    }

    #[inline]
    pub(super) fn header(self) -> Header {
        Header(self.header_cell().load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        self.header().kind()
    }

    /// Data word `i`.
    #[inline]
    pub(super) fn data(self, i: usize) -> *mut u64 {
        // SAFETY: callers stay within the words their kind's layout has (table above).
        unsafe { self.0.add(1 + i) }
    }

    #[inline]
    pub(super) fn word(self, i: usize) -> u64 {
        // SAFETY: as in `data`; the word was written when the object was made.
        unsafe { self.data(i).read() }
    }

    #[inline]
    pub(super) fn set_word(self, i: usize, word: u64) {
        // SAFETY: as in `data`; the object is still private to its maker.
        unsafe { self.data(i).write(word) };
    }

    #[inline]
    pub(super) fn values(self, from: usize, len: usize) -> &'static [Value] {
        // SAFETY: `Value` is a transparent u64; the words were written when the object was made and do not change
        // (lists, sets, arguments), and live as long as the heap.
        unsafe { &*slice_from_raw_parts(self.data(from).cast::<Value>(), len) }
    }

    fn fill(self, from: usize, values: &[Value]) {
        // SAFETY: the maker of the object reserved from + values.len() words; source and target do not overlap, the
        // target being fresh.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u64>(), self.data(from), values.len());
        };
    }

    pub(super) fn int(self) -> i64 {
        i64::from_ne_bytes(self.word(0).to_ne_bytes())
    }

    pub(super) fn float(self) -> f64 {
        f64::from_bits(self.word(0))
    }

    fn bytes(self) -> &'static [u8] {
        let header = self.header();
        let from = usize::from(header.0 & HAS_CONTEXT != 0);
        // SAFETY: a string or path has `len` bytes behind its context word, written when it was made.
        unsafe { &*slice_from_raw_parts(self.data(from).cast::<u8>(), header.len()) }
    }
}

/// A function taken apart.
#[derive(Clone, Copy)]
pub(crate) enum Func {
    Closure(&'static LambdaCode, Captured),
    Builtin(&'static Builtin),
    /// A function and its first arguments.
    Partial(Value, &'static [Value]),
}

/// The captured values of a closure or thunk.
#[derive(Clone, Copy)]
pub(crate) struct Captured(*const Value);

impl Captured {
    /// No captured values: for code that captures nothing.
    pub(crate) const NONE: Self = Self(std::ptr::null());

    /// Captured value `i`.
    #[inline]
    pub(crate) fn get(self, i: u32) -> Value {
        // SAFETY: code reads only the captures its own `captures` list names, and the maker of the closure or thunk
        // wrote that many (`Heap::capture`); a thunk's are overwritten only after its code has finished.
        unsafe { self.0.add(i as usize).read() }
    }
}

/// Where the captured values of a new closure or thunk are to be written.
#[derive(Clone, Copy)]
pub(crate) struct CaptureSlots(*mut Value);

impl CaptureSlots {
    /// Writes captured value `i`, below the count the object was made with.
    #[inline]
    pub(crate) fn set(self, i: usize, value: Value) {
        // SAFETY: the object was made with as many capture words as its code lists, and only its maker holds this.
        unsafe { self.0.add(i).write(value) };
    }
}

impl Obj {
    pub(super) fn captured(self) -> Captured {
        Captured(self.data(0).cast::<Value>().cast_const())
    }

    pub(super) fn capture_slots(self) -> CaptureSlots {
        CaptureSlots(self.data(0).cast())
    }
}

impl Heap {
    /// An integer.
    #[inline]
    pub(crate) fn int(&self, n: i64) -> Value {
        Value::small_int(n).unwrap_or_else(|| {
            let obj = Obj::new(self, Header::new(Kind::Int, 0), 1);
            obj.set_word(0, u64::from_ne_bytes(n.to_ne_bytes()));
            Value::boxed(obj)
        })
    }

    /// A float.
    pub(crate) fn float(&self, x: f64) -> Value {
        let obj = Obj::new(self, Header::new(Kind::Float, 0), 1);
        obj.set_word(0, x.to_bits());
        Value::boxed(obj)
    }

    fn bytes(&self, kind: Kind, parts: &[&[u8]], ctx: Ctx) -> Obj {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let from = usize::from(!ctx.is_empty());
        let mut header = Header::new(kind, len as u64);
        if from == 1 {
            header.0 |= HAS_CONTEXT;
        }
        let obj = Obj::new(self, header, from + len.div_ceil(8));
        if from == 1 {
            obj.set_word(0, u64::from(ctx.0));
        }
        let mut at = obj.data(from).cast::<u8>();
        for part in parts {
            // SAFETY: the object has room for the sum of all parts; it is fresh, so nothing overlaps.
            unsafe {
                std::ptr::copy_nonoverlapping(part.as_ptr(), at, part.len());
                at = at.add(part.len());
            }
        }
        obj
    }

    /// A string without context.
    pub(crate) fn string(&self, text: &[u8]) -> Value {
        Value::string(self.bytes(Kind::String, &[text], Ctx::EMPTY))
    }

    /// A string with a context.
    pub(crate) fn string_ctx(&self, text: &[u8], ctx: Ctx) -> Value {
        Value::string(self.bytes(Kind::String, &[text], ctx))
    }

    /// A path.
    pub(crate) fn path(&self, path: &[u8]) -> Value {
        Value::boxed(self.bytes(Kind::Path, &[path], Ctx::EMPTY))
    }

    /// A list.
    pub(crate) fn list(&self, items: &[Value]) -> Value {
        let obj = Obj::new(self, Header::new(Kind::List, items.len() as u64), items.len());
        obj.fill(0, items);
        Value::list(obj)
    }

    /// A list of two lists' items.
    pub(crate) fn list_concat(&self, a: &[Value], b: &[Value]) -> Value {
        let len = a.len() + b.len();
        let obj = Obj::new(self, Header::new(Kind::List, len as u64), len);
        obj.fill(0, a);
        obj.fill(a.len(), b);
        Value::list(obj)
    }

    /// A list whose items are made one by one.
    pub(crate) fn list_with(&self, len: usize, mut item: impl FnMut(usize) -> Value) -> Value {
        let obj = Obj::new(self, Header::new(Kind::List, len as u64), len);
        for i in 0..len {
            obj.set_word(i, item(i).bits());
        }
        Value::list(obj)
    }

    /// A set whose values are in the order of the shape.
    pub(crate) fn set(&self, shape: &'static Shape, values: &[Value]) -> Value {
        debug_assert_eq!(shape.len(), values.len());
        let obj = Obj::new(self, Header::pointing(Kind::Set, shape), values.len());
        obj.fill(0, values);
        Value::set(obj)
    }

    /// A set whose values are made one by one, in the order of the shape.
    #[inline]
    pub(crate) fn set_with(&self, shape: &'static Shape, mut value: impl FnMut(usize) -> Value) -> Value {
        let obj = Obj::new(self, Header::pointing(Kind::Set, shape), shape.len());
        for i in 0..shape.len() {
            obj.set_word(i, value(i).bits());
        }
        Value::set(obj)
    }

    pub(super) fn layered(&self, len: usize, base: Value, top: Value) -> Value {
        let obj = Obj::new(self, Header::new(Kind::Layered, len as u64), 3);
        obj.set_word(0, base.bits());
        obj.set_word(1, top.bits());
        obj.set_word(2, 0);
        Value::set(obj)
    }

    /// A closure whose captures are still to be written.
    #[inline]
    pub(crate) fn closure(&self, code: &'static LambdaCode) -> (Value, CaptureSlots) {
        let obj = Obj::new(self, Header::pointing(Kind::Closure, code), code.captures.len());
        (Value::func(obj), obj.capture_slots())
    }

    /// A builtin as a value.
    pub(crate) fn builtin(&self, builtin: &'static Builtin) -> Value {
        Value::func(Obj::new(self, Header::pointing(Kind::Builtin, builtin), 0))
    }

    /// A function applied to fewer arguments than it takes; `func` is not itself partial.
    pub(crate) fn partial(&self, func: Value, first: &[Value], rest: &[Value]) -> Value {
        let len = first.len() + rest.len();
        let obj = Obj::new(self, Header::new(Kind::Partial, len as u64), len + 1);
        obj.set_word(0, func.bits());
        obj.fill(1, first);
        obj.fill(1 + first.len(), rest);
        Value::func(obj)
    }

    pub(super) fn apply_obj(&self, func: Value, args: &[Value]) -> Obj {
        let obj = Obj::new(self, Header::new(Kind::Apply, args.len() as u64), args.len() + 1);
        obj.set_word(0, func.bits());
        obj.fill(1, args);
        obj
    }
}

impl Value {
    /// A string's bytes.
    #[inline]
    pub(crate) fn as_str(self) -> Option<&'static [u8]> {
        self.is_string().then(|| self.obj().bytes())
    }

    /// A string's context; empty for anything else.
    #[inline]
    pub(crate) fn ctx(self) -> Ctx {
        if self.is_string() && self.obj().header().0 & HAS_CONTEXT != 0 {
            #[expect(clippy::cast_possible_truncation, reason = "written from a u32")]
            return Ctx(self.obj().word(0) as u32);
        }
        Ctx::EMPTY
    }

    /// A path's bytes.
    pub(crate) fn as_path(self) -> Option<&'static [u8]> {
        (self.is_box() && self.obj().kind() == Kind::Path).then(|| self.obj().bytes())
    }

    /// A list's items.
    #[inline]
    pub(crate) fn as_list(self) -> Option<&'static [Value]> {
        self.is_list().then(|| {
            let obj = self.obj();
            obj.values(0, obj.header().len())
        })
    }

    /// A set.
    #[inline]
    pub(crate) fn as_set(self) -> Option<SetRef> {
        self.is_set().then(|| SetRef(self.obj()))
    }

    /// Where the captures of a closure or thunk go that was made a moment ago and that nobody has seen yet.
    #[inline]
    pub(crate) fn unfilled(self) -> CaptureSlots {
        debug_assert!(self.is_thunk() || self.is_func());
        self.obj().capture_slots()
    }

    /// A thunk.
    #[inline]
    pub(crate) fn as_thunk(self) -> Option<Thunk> {
        self.is_thunk().then(|| Thunk(self.obj()))
    }

    /// A function, taken apart.
    #[inline]
    pub(crate) fn as_func(self) -> Option<Func> {
        if !self.is_func() {
            return None;
        }
        let obj = self.obj();
        let header = obj.header();
        Some(match header.kind() {
            // SAFETY: a closure's header points at its code (`Heap::closure`).
            Kind::Closure => Func::Closure(unsafe { header.target() }, obj.captured()),
            // SAFETY: a builtin's header points at its table entry (`Heap::builtin`).
            Kind::Builtin => Func::Builtin(unsafe { header.target() }),
            _ => Func::Partial(Self::from_bits(obj.word(0)), obj.values(1, header.len())),
        })
    }
}

impl SetRef {
    /// Shape and values of a flat set.
    #[inline]
    pub(super) fn parts(self) -> Option<(&'static Shape, &'static [Value])> {
        let header = self.0.header();
        if header.kind() != Kind::Set {
            return None;
        }
        // SAFETY: a flat set's header points at its shape (`Heap::set`).
        let shape: &'static Shape = unsafe { header.target() };
        Some((shape, self.0.values(0, shape.len())))
    }

    /// Base, top and number of attributes of a layered set.
    pub(super) fn layers(self) -> (SetRef, SetRef, usize) {
        let layer = |i| SetRef(Value::from_bits(self.0.word(i)).obj());
        (layer(0), layer(1), self.0.header().len())
    }

    /// The cell that holds the flattened form of a layered set, or 0.
    pub(super) fn flat_cell(self) -> &'static AtomicU64 {
        // SAFETY: a layered set has three data words, of which the last is only accessed atomically.
        unsafe { AtomicU64::from_ptr(self.0.data(2)) }
    }

    /// The set as a value.
    pub(crate) fn value(self) -> Value {
        Value::set(self.0)
    }

    /// The set that a flattened cell names.
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        (bits != 0).then(|| Self(Value::from_bits(bits).obj()))
    }
}
