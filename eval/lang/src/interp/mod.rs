//! The interpreter: one evaluation on one thread.
//!
//! Code recurses on the native stack, which the caller makes large ([`crate::Evaluation`]); every entry of [`Interp::run`]
//! compares the stack pointer with a floor, so that running out is an error. Calls in tail position reuse the native frame
//! but count as nested, as in Nix. What has to wait for a build or a fetch parks, and others go on: see [`fibers`].

mod attrs;
mod call;
mod coerce;
mod corepkgs;
mod equality;
mod eval;
mod expect;
pub(crate) mod fibers;
mod files;
mod import;
mod operators;
mod report;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustc_hash::FxHashMap;

use crate::code::scope::Scopes;
use crate::error::{ErrorKind, EvalError, R};
use crate::heap::arena::Heap;
use crate::heap::attrs::Attr;
use crate::heap::context::{ContextElem, ContextTable, Ctx};
use crate::heap::stack::Stack;
use crate::heap::value::Value;
use crate::io::{EvalIo, FileType};
use crate::pos::{Pos, SourceTable};
use crate::pure::regex::Regex;
use crate::settings::Settings;
use crate::symbol::{Symbol, SymbolTable};

pub(crate) use coerce::Coerce;
pub(crate) use files::rewrite;

/// State of an evaluation.
pub(crate) struct Interp {
    pub(crate) heap: Heap,
    pub(crate) symbols: SymbolTable,
    pub(crate) sources: SourceTable,
    pub(crate) contexts: ContextTable,
    pub(crate) settings: Rc<Settings>,
    pub(crate) io: Rc<dyn EvalIo>,
    stack: Stack,
    depth: u32,
    max_depth: u32,
    /// Set by somebody else to end the evaluation; looked at on every call.
    interrupt: Arc<AtomicBool>,
    steps_left: u64,
    /// Whether errors get a frame for every call (`show_trace`).
    trace_calls: bool,
    stack_floor: usize,
    /// Loops that the running fiber is inside of.
    wide: Vec<fibers::wide::Wide>,
    fibers: fibers::Fibers,
    _shared: fibers::switch::Shared,
    pub(crate) globals: Globals,
    scopes: Scopes,
    pub(crate) caches: Caches,
}

/// Names that every file sees.
#[derive(Default)]
pub(crate) struct Globals {
    pub(crate) names: FxHashMap<Symbol, Value>,
    /// The set `builtins`.
    pub(crate) builtins: Option<Value>,
}

/// What has been computed before and does not change during an evaluation.
#[derive(Default)]
pub(crate) struct Caches {
    /// By path as given: the file that is evaluated.
    resolved: FxHashMap<Rc<[u8]>, Rc<[u8]>>,
    /// By file: its value.
    files: FxHashMap<Rc<[u8]>, Value>,
    file_types: FxHashMap<Box<[u8]>, FileType>,
    links: FxHashMap<Box<[u8]>, Box<[u8]>>,
    /// By search path entry: its path, if there is one.
    search_paths: FxHashMap<Box<str>, Option<Rc<[u8]>>>,
    /// By path: its store path.
    pub(crate) imported: FxHashMap<Rc<[u8]>, Rc<[u8]>>,
    pub(crate) regexes: FxHashMap<Box<[u8]>, Rc<Regex>>,
    pub(crate) derivations: Option<nix_compat::derivation::HashModuloMemo>,
    /// A syntax tree no longer needed, for its memory.
    spare_ast: crate::syntax::ast::Ast,
    /// Names of symbols as string values.
    names: Vec<Value>,
}

/// Values of a variable stack; 16 million take 128 MiB of address space.
const STACK_VALUES: usize = if cfg!(miri) { 1 << 16 } else { 1 << 24 };
/// Native stack kept free for what runs when evaluation has run out of it.
const STACK_RESERVE: usize = 256 << 10;

impl Interp {
    pub(crate) fn new(settings: Rc<Settings>, io: Rc<dyn EvalIo>) -> Self {
        let max_depth = settings.max_call_depth;
        let (steps_left, heap_bytes_max) = (settings.max_steps, settings.max_heap_bytes);
        let trace_calls = settings.show_trace;
        let interrupt = Arc::clone(&settings.interrupt);
        let mut interp = Self {
            heap: Heap::with_limit(heap_bytes_max),
            symbols: SymbolTable::new(),
            sources: SourceTable::default(),
            contexts: ContextTable::new(),
            settings,
            io,
            stack: Stack::new(STACK_VALUES),
            depth: 0,
            max_depth,
            interrupt,
            steps_left,
            trace_calls,
            stack_floor: 0,
            wide: Vec::new(),
            fibers: fibers::Fibers::default(),
            _shared: std::marker::PhantomPinned,
            globals: Globals::default(),
            scopes: Scopes::default(),
            caches: Caches::default(),
        };
        crate::builtins::install(&mut interp);
        interp
    }

    /// Runs `f` on a stack of its own, as large as the settings say.
    pub(crate) fn on_large_stack<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        if cfg!(miri) {
            return f(self); // no assembly is run there, so there is one stack
        }
        let size = self.settings.stack_bytes;
        stacker::grow(size, || {
            let here = 0u8;
            let top = std::ptr::from_ref(std::hint::black_box(&here)).addr();
            let outer = std::mem::replace(&mut self.stack_floor, top - size + STACK_RESERVE.min(size / 2));
            let result = f(self);
            self.stack_floor = outer;
            result
        })
    }

    /// Fails when the native stack is nearly used up.
    #[inline]
    pub(crate) fn check_stack(&self) -> R<()> {
        let here = 0u8;
        if std::ptr::from_ref(std::hint::black_box(&here)).addr() < self.stack_floor {
            return Err(EvalError::new(
                ErrorKind::StackOverflow,
                "stack overflow (possible infinite recursion)",
            ));
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn interrupted() -> Box<EvalError> {
        EvalError::new(ErrorKind::Interrupted, "interrupted by the user")
    }

    /// Counts a call; the caller counts it back.
    #[inline]
    pub(crate) fn enter(&mut self, pos: Pos) -> R<()> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(Self::interrupted());
        }
        if self.depth > self.max_depth || self.steps_left == 0 || !self.heap.has_room(0) {
            return Err(self.refuse().at(pos));
        }
        self.depth += 1;
        self.steps_left -= 1;
        Ok(())
    }

    /// Why no further call is made.
    #[cold]
    #[inline(never)]
    fn refuse(&self) -> Box<EvalError> {
        let settings = &self.settings;
        if self.depth > self.max_depth {
            return EvalError::new(
                ErrorKind::StackOverflow,
                "stack overflow; max-call-depth exceeded",
            );
        }
        let text = if self.steps_left == 0 {
            format!(
                "the evaluation has made the {} calls it may make",
                settings.max_steps
            )
        } else {
            format!(
                "the evaluation has used the {} bytes it may use",
                settings.max_heap_bytes
            )
        };
        EvalError::new(ErrorKind::Limit, text)
    }

    /// Counts a call back.
    #[inline]
    pub(crate) const fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Runs `f` one call deeper.
    pub(crate) fn deeper<T>(&mut self, pos: Pos, f: impl FnOnce(&mut Self) -> R<T>) -> R<T> {
        self.check_stack()?;
        self.enter(pos)?;
        let result = f(self);
        self.leave();
        result
    }

    /// Says whether errors get a frame for every call, from now on.
    pub(crate) const fn set_trace_calls(&mut self, on: bool) {
        self.trace_calls = on;
    }

    /// A symbol's name as a string value, made once.
    pub(crate) fn name_value(&mut self, name: Symbol) -> Value {
        let i = crate::num::to_usize(name.0);
        let names = &mut self.caches.names;
        if i >= names.len() {
            names.resize(self.symbols.len().max(i + 1), Value::NULL);
        }
        if names[i] == Value::NULL {
            names[i] = self.heap.string(self.symbols.name(name));
        }
        names[i]
    }

    /// A set of a few known attributes.
    pub(crate) fn small_set(&self, attrs: &[(Symbol, Value)]) -> Value {
        let attrs: Vec<Attr> = attrs.iter().map(|(n, v)| (*n, *v, Pos::NONE)).collect();
        self.heap.set_of(attrs)
    }

    /// A string that refers to one store path.
    pub(crate) fn store_string(&mut self, path: &[u8]) -> Value {
        let ctx = self.contexts.single(ContextElem::Opaque(path.into()));
        self.heap.string_ctx(path, ctx)
    }

    /// Both contexts.
    #[inline]
    pub(crate) fn union(&mut self, a: Ctx, b: Ctx) -> Ctx {
        self.contexts.union(a, b)
    }
}

impl crate::code::compile::Globals for Globals {
    fn global(&self, name: Symbol) -> Option<Value> {
        self.names.get(&name).copied()
    }

    fn builtin(&self, set: Value, name: Symbol) -> Option<Value> {
        if self.builtins != Some(set) {
            return None;
        }
        set.as_set()?.value_of(name).filter(|v| !v.is_thunk())
    }
}
