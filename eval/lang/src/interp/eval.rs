//! Evaluates code.

use std::sync::atomic::Ordering;

use super::Interp;
use super::call::{Called, Next};
use crate::code::{Binds, Delay, IfOp, Key, Op, SelectOp, SelectPath, Var, WithVar};
use crate::error::{Context, ErrorKind, EvalError, R, fail};
use crate::heap::attrs::SetRef;
use crate::heap::object::Captured;
use crate::heap::stack::Frame;
use crate::heap::thunk::{Thunk, Work};
use crate::heap::value::Value;
use crate::pos::{Origin, Pos};
use crate::symbol::Symbol;

/// Inline caches hold indexes below this.
const CACHED_INDEX_MAX: usize = 0xffff;

impl Interp {
    /// Evaluates a value if it is a thunk.
    #[inline]
    pub(crate) fn force(&mut self, value: Value) -> R<Value> {
        match value.as_thunk() {
            None => Ok(value),
            Some(thunk) => match thunk.done() {
                Some(value) => Ok(value),
                None => self.force_thunk(thunk, Pos::NONE),
            },
        }
    }

    #[inline]
    fn force_at(&mut self, value: Value, pos: Pos) -> R<Value> {
        match value.as_thunk() {
            None => Ok(value),
            Some(thunk) => match thunk.done() {
                Some(value) => Ok(value),
                None => self.force_thunk(thunk, pos),
            },
        }
    }

    #[inline(never)]
    pub(super) fn force_thunk(&mut self, thunk: Thunk, pos: Pos) -> R<Value> {
        let Some((claim, work)) = thunk.claim(self.fibers.running()) else {
            return self.await_thunk(thunk, pos);
        };
        let top = self.stack.top();
        let result = match work {
            Work::Code(code, captured) => match self.push_frame(code.frame, captured) {
                Ok(frame) => self.run(code.body, frame),
                Err(error) => Err(error),
            },
            Work::Apply(func, args) => self.call(func, args, Pos::NONE),
        };
        self.stack.truncate(top);
        match result {
            Ok(value) => {
                thunk.finish(claim, value);
                Ok(value)
            }
            Err(error) => {
                self.tell_failed(thunk, &error);
                thunk.give_back(claim);
                Err(error)
            }
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn infinite_recursion(pos: Pos) -> Box<EvalError> {
        EvalError::new(ErrorKind::InfiniteRecursion, "infinite recursion encountered").at(pos)
    }

    #[inline]
    pub(super) fn push_frame(&mut self, size: u32, captured: Captured) -> R<Frame> {
        match self.stack.push(size, captured) {
            Some(frame) => Ok(frame),
            None => fail(
                ErrorKind::StackOverflow,
                "stack overflow (possible infinite recursion)",
            ),
        }
    }

    /// Evaluates code; leaves are answered without a native frame.
    #[inline]
    pub(crate) fn eval(&mut self, op: Op, frame: Frame) -> R<Value> {
        match op {
            Op::Const(value) => self.force(value),
            Op::Local(i, pos) => self.force_at(frame.local(i), pos),
            Op::Up(i, pos) => self.force_at(frame.captured(i), pos),
            Op::Select(select) => self.select(select, frame),
            _ => self.run(op, frame),
        }
    }

    /// Evaluates code; calls in tail position loop.
    #[inline(never)]
    pub(crate) fn run(&mut self, op: Op, frame: Frame) -> R<Value> {
        self.check_stack()?;
        let (top, depth) = (self.stack.top(), self.depth);
        let mut calls = Vec::new();
        let result = self.run_loop(op, frame, top, &mut calls);
        self.stack.truncate(top);
        self.depth = depth;
        match result {
            Err(error) if !calls.is_empty() => Err(calls
                .into_iter()
                .rev()
                .fold(error, |e, called| self.while_calling(e, called))),
            other => other,
        }
    }

    /// Functions called in tail position are put into `calls` when errors are to say so.
    fn run_loop(&mut self, mut op: Op, mut frame: Frame, top: usize, calls: &mut Vec<Called>) -> R<Value> {
        loop {
            match op {
                Op::Const(value) => return self.force(value),
                Op::Local(i, pos) => return self.force_at(frame.local(i), pos),
                Op::Up(i, pos) => return self.force_at(frame.captured(i), pos),
                Op::WithVar(var) => return self.with_var(var, frame),
                Op::Select(select) => return self.select(select, frame),
                Op::SelectPath(select) => match self.select_path(select, frame)? {
                    Some(value) => return Ok(value),
                    None => match select.default {
                        Some(default) => op = default,
                        None => return Ok(Value::NULL),
                    },
                },
                Op::HasAttr(has) => return self.has_attr(has, frame),
                Op::Lambda(code) => return Ok(self.delay(Delay::Lambda(code), frame)),
                Op::Call(call) => match self.call_op(call, frame, top)? {
                    Next::Done(value) => return Ok(value),
                    Next::Run(body, callee, called) => {
                        if self.trace_calls {
                            calls.push(called);
                        }
                        op = body;
                        frame = callee;
                    }
                },
                Op::Prim(prim) => return self.prim(prim, frame),
                Op::Let(scope) => {
                    self.bind(scope.binds, frame);
                    op = scope.body;
                }
                Op::Attrs(attrs) => return self.attrs(attrs, frame),
                Op::List(list) => {
                    return Ok(self
                        .heap
                        .list_with(list.items.len(), |i| self.delay(list.items[i], frame)));
                }
                Op::If(branch) => op = self.branch(branch, frame)?,
                Op::With(with) => {
                    frame.set_local(with.slot, self.delay(with.set, frame));
                    op = with.body;
                }
                Op::Assert(assert) => {
                    self.assert(assert, frame)?;
                    op = assert.body;
                }
                Op::Not(_)
                | Op::And(_)
                | Op::Or(_)
                | Op::Impl(_)
                | Op::Eq(_)
                | Op::Neq(_)
                | Op::Less(_)
                | Op::Sub(_)
                | Op::Mul(_)
                | Op::Div(_) => return self.operator(op, frame),
                Op::Update(chain) => return self.update_chain(chain, frame),
                Op::Concat(chain) => return self.concat_chain(chain, frame),
                Op::Plus(chain) => return self.plus_chain(chain, frame),
                Op::Interp(parts) => return self.interpolate(parts, frame),
                Op::PathInterp(parts) => return self.path_interpolate(parts, frame),
                Op::CurPos(pos) => return Ok(self.position_value(pos)),
            }
        }
    }

    #[inline]
    fn branch(&mut self, branch: &'static IfOp, frame: Frame) -> R<Op> {
        let condition = self.eval(branch.condition, frame);
        let condition = self.as_bool(
            condition,
            branch.condition_pos,
            "while evaluating a branch condition",
        )?;
        Ok(if condition { branch.then } else { branch.otherwise })
    }

    /// The value of a variable as it stands.
    #[inline]
    pub(super) fn var(frame: Frame, var: Var) -> Value {
        match var {
            Var::Local(i) => frame.local(i),
            Var::Up(i) => frame.captured(i),
        }
    }

    /// Makes a value of an expression whose evaluation is put off.
    #[inline]
    pub(crate) fn delay(&self, delay: Delay, frame: Frame) -> Value {
        match delay {
            Delay::Const(value) => value,
            Delay::Local(i) => frame.local(i),
            Delay::Up(i) => frame.captured(i),
            Delay::Thunk(code) => {
                if let Some((base, select)) = code.as_select()
                    && let Some(value) = Self::peek(select, Self::var(frame, base))
                {
                    return value;
                }
                let (value, slots) = self.heap.thunk(code);
                for (i, var) in code.captures.iter().enumerate() {
                    slots.set(i, Self::var(frame, *var));
                }
                value
            }
            Delay::Lambda(code) => {
                let (value, slots) = self.heap.closure(code);
                for (i, var) in code.captures.iter().enumerate() {
                    slots.set(i, Self::var(frame, *var));
                }
                value
            }
        }
    }

    /// A selection whose result is at hand: no thunk is needed for it.
    ///
    /// Functions are left to thunks: a list item or attribute that holds one is equal only to itself, as in Nix.
    #[inline]
    fn peek(select: &'static SelectOp, base: Value) -> Option<Value> {
        let base = match base.as_thunk() {
            None => base,
            Some(thunk) => thunk.done()?,
        };
        let flat = base.as_set()?.as_flat()?;
        let cached = select.cache.load(Ordering::Relaxed);
        let shape = std::ptr::from_ref(flat.shape).addr() as u64;
        let value = if cached >> 16 == shape {
            flat.values[(cached & 0xffff) as usize]
        } else {
            let i = flat.shape.find(select.name)?;
            if i <= CACHED_INDEX_MAX {
                select.cache.store((shape << 16) | i as u64, Ordering::Relaxed);
            }
            flat.values[i]
        };
        let value = match value.as_thunk() {
            None => value,
            Some(thunk) => thunk.done()?,
        };
        (!value.is_func()).then_some(value)
    }

    /// Binds variables that may refer to each other: all objects are made first, then what they capture is filled in.
    #[inline]
    pub(super) fn bind(&self, binds: Binds, frame: Frame) {
        self.bind_list(binds.list, frame);
    }

    pub(super) fn bind_list(&self, list: &[(u32, Delay)], frame: Frame) {
        for (slot, delay) in list {
            let value = match delay {
                Delay::Thunk(code) => self.heap.thunk(code).0,
                Delay::Lambda(code) => self.heap.closure(code).0,
                other => self.delay(*other, frame),
            };
            frame.set_local(*slot, value);
        }
        for (slot, delay) in list {
            let captures = match delay {
                Delay::Thunk(code) => code.captures,
                Delay::Lambda(code) => code.captures,
                _ => continue,
            };
            if captures.is_empty() {
                continue;
            }
            let slots = frame.local(*slot).unfilled();
            for (i, var) in captures.iter().enumerate() {
                slots.set(i, Self::var(frame, *var));
            }
        }
    }

    fn with_var(&mut self, var: &'static WithVar, frame: Frame) -> R<Value> {
        for (set, pos) in var.chain {
            let value = self.force_at(Self::var(frame, *set), *pos)?;
            let Some(set) = value.as_set() else {
                let error = self.type_error("a set", value);
                return Err(error.frame(
                    *pos,
                    "while evaluating the first subexpression of a with expression",
                ));
            };
            if let Some(value) = set.value_of(var.name) {
                return self.force_at(value, var.pos);
            }
        }
        let name = self.symbols.text(var.name);
        Err(EvalError::new(
            ErrorKind::UndefinedVariable,
            format!("undefined variable '{name}'"),
        )
        .at(var.pos))
    }

    /// `base.name`, with the place of the name remembered for the shape seen last.
    #[inline]
    fn select(&mut self, select: &'static SelectOp, frame: Frame) -> R<Value> {
        let base = match self.eval(select.base, frame) {
            Ok(base) => base,
            Err(error) => return Err(error.frame(select.pos, "while selecting an attribute")),
        };
        if let Some(set) = base.as_set() {
            if let Some(flat) = set.as_flat() {
                let cached = select.cache.load(Ordering::Relaxed);
                let shape = std::ptr::from_ref(flat.shape).addr() as u64;
                if cached >> 16 == shape {
                    return self.force_selected(flat.values[(cached & 0xffff) as usize], select, set);
                }
                if let Some(i) = flat.shape.find(select.name) {
                    if i <= CACHED_INDEX_MAX {
                        select.cache.store((shape << 16) | i as u64, Ordering::Relaxed);
                    }
                    return self.force_selected(flat.values[i], select, set);
                }
            } else if let Some(value) = set.value_of(select.name) {
                return self.force_selected(value, select, set);
            }
        }
        Err(self.select_failed(base, select.name, &[Key::Static(select.name)], None, select.pos))
    }

    #[inline]
    fn force_selected(&mut self, value: Value, select: &'static SelectOp, set: SetRef) -> R<Value> {
        match value.as_thunk() {
            None => Ok(value),
            Some(thunk) => match thunk.done() {
                Some(value) => Ok(value),
                None => {
                    let result = self.force_thunk(thunk, select.pos);
                    result.map_err(|e| {
                        let defined = set.get(select.name).map_or(Pos::NONE, |(_, pos)| pos);
                        let path = [Key::Static(select.name)];
                        self.selecting(e, &path, Some((1, defined)), select.pos)
                    })
                }
            },
        }
    }

    #[cold]
    #[inline(never)]
    fn selecting(
        &self,
        error: Box<EvalError>,
        path: &[Key],
        found: Option<(usize, Pos)>,
        pos: Pos,
    ) -> Box<EvalError> {
        let shown = |keys: &[Key]| {
            let names: Vec<String> = keys.iter().map(|key| self.show_key(*key)).collect();
            names.join(".")
        };
        let mut error = error;
        if let Some((count, defined)) = found
            && matches!(self.sources.origin(defined), Some(origin) if !matches!(origin, Origin::Internal(_)))
        {
            error = error.frame(
                defined,
                format!("from the definition of '{}'", shown(&path[..count])),
            );
        }
        error.frame(pos, format!("while evaluating the attribute '{}'", shown(path)))
    }

    fn show_key(&self, key: Key) -> String {
        match key {
            Key::Static(name) => crate::syntax::show::identifier(self.symbols.name(name)),
            Key::Dynamic(Op::Const(value), _) => {
                crate::syntax::show::identifier(value.as_str().unwrap_or_default())
            }
            Key::Dynamic(..) => "\"${…}\"".to_owned(),
        }
    }

    #[cold]
    #[inline(never)]
    fn select_failed(
        &self,
        base: Value,
        name: Symbol,
        path: &[Key],
        found: Option<(usize, Pos)>,
        pos: Pos,
    ) -> Box<EvalError> {
        let error = match base.as_set() {
            Some(set) => self.missing(set, name),
            None => self
                .type_error("a set", base)
                .frame(pos, "while selecting an attribute"),
        };
        self.selecting(error, path, found, pos)
    }

    /// The symbol a key stands for.
    pub(super) fn key(&mut self, key: Key, frame: Frame) -> R<Symbol> {
        match key {
            Key::Static(name) => Ok(name),
            Key::Dynamic(op, pos) => {
                let value = self.eval(op, frame)?;
                let name = self.plain_string(value, pos, "while evaluating an attribute name")?;
                Ok(self.symbols.intern(name))
            }
        }
    }

    /// `base.a.b or default`: `None` when an attribute is missing and there is a default.
    fn select_path(&mut self, select: &'static SelectPath, frame: Frame) -> R<Option<Value>> {
        let mut value = self
            .eval(select.base, frame)
            .context(select.pos, "while selecting an attribute")?;
        let mut found = None;
        for (i, key) in select.path.iter().enumerate() {
            let name = self.key(*key, frame);
            let name = name.map_err(|e| self.selecting(e, select.path, found, select.pos))?;
            let forced = self.force_at(value, select.pos);
            value = forced.map_err(|e| self.selecting(e, select.path, found, select.pos))?;
            match value.as_set().and_then(|set| set.get(name)) {
                Some((next, defined)) => {
                    value = next;
                    found = Some((i + 1, defined));
                }
                None if select.default.is_some() => return Ok(None),
                None => return Err(self.select_failed(value, name, select.path, found, select.pos)),
            }
        }
        let forced = self.force_at(value, select.pos);
        forced
            .map(Some)
            .map_err(|e| self.selecting(e, select.path, found, select.pos))
    }

    fn has_attr(&mut self, has: &'static crate::code::HasAttrOp, frame: Frame) -> R<Value> {
        let mut value = self
            .eval(has.base, frame)
            .context(has.pos, "in the argument of '?'")?;
        for key in has.path {
            value = self.force_at(value, has.pos)?;
            let name = self.key(*key, frame)?;
            match value.as_set().and_then(|set| set.value_of(name)) {
                Some(next) => value = next,
                None => return Ok(Value::FALSE),
            }
        }
        Ok(Value::TRUE)
    }
}
