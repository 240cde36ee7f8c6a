//! Compiler: surface syntax to code.
//!
//! One pass from the root down. Recursion follows the nesting of the text; [`Compiler::expr`] refuses to go deeper than the
//! stack allows.

use std::sync::atomic::AtomicU64;

use super::scope::{Place, Scopes, Target};
use super::{
    AssertOp, Binary, Delay, HasAttrOp, IfOp, Key, ListOp, Nary, Op, SelectOp, SelectPath, ThunkCode, Unary,
    Var, WithOp, WithVar,
};
use crate::heap::arena::Heap;
use crate::heap::value::Value;
use crate::num::to_usize;
use crate::pos::Pos;
use crate::pure::path_ops;
use crate::symbol::{Symbol, SymbolTable, sym};
use crate::syntax::ast::{Ast, AttrName, BinOp, CallOp, Expr, ExprId, PathId};
use crate::syntax::parser::SyntaxError;

pub(super) type C<T> = Result<T, SyntaxError>;

/// What the names outside a file mean.
pub(crate) trait Globals {
    /// The value of a global name.
    fn global(&self, name: Symbol) -> Option<Value>;
    /// The set `builtins`, when `name` of it may be fixed at compile time.
    fn builtin(&self, set: Value, name: Symbol) -> Option<Value>;
}

/// What compiling one file needs.
pub(crate) struct Unit<'a> {
    pub(crate) ast: &'a Ast,
    pub(crate) symbols: &'a SymbolTable,
    pub(crate) heap: &'a Heap,
    pub(crate) globals: &'a dyn Globals,
    /// Extra names in scope, as `scopedImport` gives.
    pub(crate) scope: &'a [(Symbol, Value)],
    /// Position of the text's first byte.
    pub(crate) base: Pos,
    /// Directory that relative path literals start from.
    pub(crate) dir: &'a [u8],
    /// What `~` means; `Err` is the message when it may not be used.
    pub(crate) home: Result<&'a [u8], &'a str>,
    /// Lowest address the stack may reach.
    pub(crate) stack_floor: usize,
}

/// Compiles a file to the code of a thunk without captures.
pub(crate) fn compile(unit: &Unit<'_>, scopes: &mut Scopes, root: ExprId) -> C<&'static ThunkCode> {
    let mut compiler = Compiler { unit, scopes };
    for (name, value) in unit.scope {
        compiler.scopes.bind(*name, Target::Const(*value));
    }
    let result = compiler.thunk_code(root);
    compiler.scopes.clear();
    result
}

pub(super) struct Compiler<'a, 's> {
    pub(super) unit: &'a Unit<'a>,
    pub(super) scopes: &'s mut Scopes,
}

impl Compiler<'_, '_> {
    pub(super) fn pos(&self, at: u32) -> Pos {
        if at == 0 {
            Pos::NONE
        } else {
            Pos(self.unit.base.0 + at - 1)
        }
    }

    pub(super) fn pos_of(&self, id: ExprId) -> Pos {
        self.pos(self.unit.ast.at(id))
    }

    pub(super) fn keep<T>(&self, item: T) -> &'static T {
        self.unit.heap.keep(item)
    }

    fn check_stack(&self, at: u32) -> C<()> {
        let here = std::hint::black_box(&at);
        if std::ptr::from_ref(here).addr() < self.unit.stack_floor {
            return Err(SyntaxError {
                message: "stack overflow (possible infinite recursion)".to_owned(),
                at,
            });
        }
        Ok(())
    }

    /// What a variable means; `None` when only a `with` can have it.
    pub(super) fn resolve(&self, name: Symbol, at: u32) -> C<Option<Target>> {
        if let Some(target) = self.scopes.lookup(name) {
            return Ok(Some(target));
        }
        if let Some(value) = self.unit.globals.global(name) {
            return Ok(Some(Target::Const(value)));
        }
        if !self.scopes.withs.is_empty() {
            return Ok(None);
        }
        let name = self.unit.symbols.text(name);
        Err(SyntaxError {
            message: format!("undefined variable '{name}'"),
            at,
        })
    }

    /// A value known now, without evaluating anything that could fail.
    pub(super) fn constant(&self, id: ExprId) -> Option<Value> {
        let ast = self.unit.ast;
        let heap = self.unit.heap;
        match ast.get(id) {
            Expr::Int(n) => Some(heap.int(n)),
            Expr::Float(x) => Some(heap.float(x)),
            Expr::Str(s) => Some(heap.string(ast.string(s))),
            Expr::Path(s) => Some(heap.path(&self.path_literal(ast.string(s)))),
            Expr::Var(name) => match self.resolve(name, 0) {
                Ok(Some(Target::Const(value))) => Some(value),
                _ => None,
            },
            Expr::Select(s) => {
                let select = ast.selects[to_usize(s)];
                let [AttrName::Static(name)] = ast.path(select.path) else {
                    return None;
                };
                let Expr::Var(_) = ast.get(select.base) else {
                    return None;
                };
                self.unit.globals.builtin(self.constant(select.base)?, *name)
            }
            Expr::List(l) if ast.list(l).is_empty() => Some(heap.list(&[])),
            _ => None,
        }
    }

    fn path_literal(&self, literal: &[u8]) -> Vec<u8> {
        let mut path = path_ops::resolve_path(self.unit.dir, literal);
        if literal.len() > 1 && literal.ends_with(b"/") {
            path.push(b'/');
        }
        path
    }

    pub(super) fn var_op(var: Var, pos: Pos) -> Op {
        match var {
            Var::Local(i) => Op::Local(i, pos),
            Var::Up(i) => Op::Up(i, pos),
        }
    }

    fn variable(&mut self, name: Symbol, at: u32) -> C<Op> {
        let pos = self.pos(at);
        Ok(match self.resolve(name, at)? {
            Some(Target::Const(value)) => Op::Const(value),
            Some(Target::Slot(place)) => Self::var_op(self.scopes.reach(place), pos),
            Some(Target::Attr(place)) => self.attr_of(place, name, pos),
            None => self.with_var(name, pos),
        })
    }

    pub(super) fn attr_of(&mut self, place: Place, name: Symbol, pos: Pos) -> Op {
        let base = Self::var_op(self.scopes.reach(place), pos);
        Op::Select(self.keep(SelectOp {
            base,
            name,
            pos,
            cache: AtomicU64::new(0),
        }))
    }

    pub(super) fn with_var(&mut self, name: Symbol, pos: Pos) -> Op {
        let places: Vec<_> = self.scopes.withs.iter().rev().copied().collect();
        let chain: Vec<_> = places
            .into_iter()
            .map(|(place, at)| (self.scopes.reach(place), at))
            .collect();
        let chain = self.unit.heap.keep_slice(&chain);
        Op::WithVar(self.keep(WithVar { name, pos, chain }))
    }

    /// Compiles `id` as a unit of its own.
    fn thunk_code(&mut self, id: ExprId) -> C<&'static ThunkCode> {
        self.scopes.units.push(super::scope::Unit::default());
        let body = self.expr(id);
        let unit = self.scopes.units.pop().unwrap_or_default();
        Ok(self.keep(ThunkCode {
            body: body?,
            frame: unit.frame,
            captures: self.unit.heap.keep_slice(&unit.captures),
        }))
    }

    /// A thunk of code made in a unit of its own.
    pub(super) fn thunk_with(&mut self, body: impl FnOnce(&mut Self) -> C<Op>) -> C<Delay> {
        self.scopes.units.push(super::scope::Unit::default());
        let body = body(self);
        let unit = self.scopes.units.pop().unwrap_or_default();
        let captures = self.unit.heap.keep_slice(&unit.captures);
        Ok(Delay::Thunk(self.keep(ThunkCode {
            body: body?,
            frame: unit.frame,
            captures,
        })))
    }

    /// How the evaluation of `id` is put off.
    pub(super) fn delay(&mut self, id: ExprId) -> C<Delay> {
        if let Some(value) = self.constant(id) {
            return Ok(Delay::Const(value));
        }
        match self.unit.ast.get(id) {
            Expr::Var(name) => {
                if let Some(Target::Slot(place)) = self.resolve(name, self.unit.ast.at(id))? {
                    return Ok(Self::delay_var(self.scopes.reach(place)));
                }
            }
            Expr::Lambda(l) => return Ok(Delay::Lambda(self.lambda(l, self.unit.ast.at(id))?)),
            _ => {}
        }
        Ok(Delay::Thunk(self.thunk_code(id)?))
    }

    pub(super) fn delay_var(var: Var) -> Delay {
        match var {
            Var::Local(i) => Delay::Local(i),
            Var::Up(i) => Delay::Up(i),
        }
    }

    pub(super) fn delays(&mut self, ids: &[ExprId]) -> C<&'static [Delay]> {
        let delays = ids.iter().map(|id| self.delay(*id)).collect::<C<Vec<_>>>()?;
        Ok(self.unit.heap.keep_slice(&delays))
    }

    /// Code that evaluates `id`.
    pub(super) fn expr(&mut self, id: ExprId) -> C<Op> {
        let at = self.unit.ast.at(id);
        self.check_stack(at)?;
        if let Some(value) = self.constant(id) {
            return Ok(Op::Const(value));
        }
        let ast = self.unit.ast;
        match ast.get(id) {
            Expr::Var(name) => self.variable(name, at),
            Expr::CurPos => Ok(Op::CurPos(self.pos(at))),
            Expr::HomePath(s) => self.home_path(ast.string(s)),
            Expr::SearchPath(s) => self.search_path(ast.string(s), at),
            Expr::Select(s) => self.select(s, at),
            Expr::HasAttr(base, path) => {
                let base = self.expr(base)?;
                let path = self.keys(path)?;
                Ok(Op::HasAttr(self.keep(HasAttrOp {
                    base,
                    path,
                    pos: self.pos(at),
                })))
            }
            Expr::Attrs(a) => self.attrs(a, at),
            Expr::Let(a, body) => self.let_in(a, body),
            Expr::List(l) => {
                let items = self.delays(ast.list(l))?;
                Ok(match constants(items.iter()) {
                    Some(values) => Op::Const(self.unit.heap.list(&values)),
                    None => Op::List(self.keep(ListOp { items })),
                })
            }
            Expr::Lambda(l) => Ok(Op::Lambda(self.lambda(l, at)?)),
            Expr::Call(f, args) => self.call(f, ast.list(args), at),
            Expr::With(set, body) => self.with(set, body, at),
            Expr::Assert(condition, body) => self.assert(condition, body, at),
            Expr::If(parts) => {
                let [condition, then, otherwise] = ast.ifs[to_usize(parts)];
                self.branch(condition, then, otherwise)
            }
            Expr::Not(e) => {
                let operand = self.expr(e)?;
                Ok(Op::Not(self.keep(Unary {
                    operand,
                    pos: self.pos_of(e),
                })))
            }
            Expr::Bin(op, l, r) => self.binary(op, l, r, at),
            Expr::Op(op, l, r) => self.call_op(op, l, r, at),
            Expr::Plus(..) => {
                let parts = self.chain(id, false, |e| {
                    if let Expr::Plus(l, r) = e {
                        Some((l, r))
                    } else {
                        None
                    }
                })?;
                Ok(Op::Plus(self.nary(&parts, at)))
            }
            Expr::Interp(string, parts) => {
                let parts = self.parts(ast.list(parts))?;
                let parts = if string { self.joined(parts) } else { parts };
                if let [(literal @ Op::Const(text), _)] = parts.as_slice()
                    && string
                    && text.is_string()
                {
                    return Ok(*literal);
                }
                let nary = self.nary(&parts, at);
                Ok(if string {
                    Op::Interp(nary)
                } else {
                    Op::PathInterp(nary)
                })
            }
            Expr::Int(_) | Expr::Float(_) | Expr::Str(_) | Expr::Path(_) => Ok(Op::Const(Value::NULL)),
        }
    }

    fn branch(&mut self, condition: ExprId, then: ExprId, otherwise: ExprId) -> C<Op> {
        let condition_pos = self.pos_of(condition);
        let (condition, then, otherwise) = (self.expr(condition)?, self.expr(then)?, self.expr(otherwise)?);
        Ok(Op::If(self.keep(IfOp {
            condition,
            then,
            otherwise,
            condition_pos,
        })))
    }

    fn nary(&self, parts: &[(Op, Pos)], at: u32) -> &'static Nary {
        self.keep(Nary {
            parts: self.unit.heap.keep_slice(parts),
            pos: self.pos(at),
        })
    }

    /// The parts of a string with neighbouring literals joined.
    fn joined(&self, parts: Vec<(Op, Pos)>) -> Vec<(Op, Pos)> {
        let text = |op: &Op| match op {
            Op::Const(value) => value.as_str().filter(|_| value.ctx().is_empty()),
            _ => None,
        };
        let mut joined: Vec<(Op, Pos)> = Vec::with_capacity(parts.len());
        for (op, pos) in parts {
            if let (Some(more), Some((last, _))) = (text(&op), joined.last_mut())
                && let Some(before) = text(last)
            {
                *last = Op::Const(self.unit.heap.string(&[before, more].concat()));
                continue;
            }
            joined.push((op, pos));
        }
        joined
    }

    fn parts(&mut self, ids: &[ExprId]) -> C<Vec<(Op, Pos)>> {
        ids.iter()
            .map(|id| Ok((self.expr(*id)?, self.pos_of(*id))))
            .collect()
    }

    /// The operands of a chain of one operator, nested to the left (or right), from left to right.
    fn chain(
        &mut self,
        id: ExprId,
        right: bool,
        split: impl Fn(Expr) -> Option<(ExprId, ExprId)>,
    ) -> C<Vec<(Op, Pos)>> {
        let mut ids = Vec::new();
        let mut rest = id;
        while let Some((l, r)) = split(self.unit.ast.get(rest)) {
            let (operand, next) = if right { (l, r) } else { (r, l) };
            ids.push(operand);
            rest = next;
        }
        ids.push(rest);
        if !right {
            ids.reverse();
        }
        self.parts(&ids)
    }

    pub(super) fn pair(&mut self, l: ExprId, r: ExprId, pos: Pos) -> C<&'static Binary> {
        let (left, right) = (self.expr(l)?, self.expr(r)?);
        Ok(self.keep(Binary {
            left,
            right,
            pos,
            left_pos: self.pos_of(l),
            right_pos: self.pos_of(r),
        }))
    }

    fn binary(&mut self, op: BinOp, l: ExprId, r: ExprId, at: u32) -> C<Op> {
        let pos = self.pos(at);
        let make = match op {
            BinOp::Update => return self.assoc(BinOp::Update, l, r, at),
            BinOp::Concat => return self.assoc(BinOp::Concat, l, r, at),
            BinOp::Eq => Op::Eq,
            BinOp::Neq => Op::Neq,
            BinOp::And => Op::And,
            BinOp::Or => Op::Or,
            BinOp::Impl => Op::Impl,
        };
        Ok(make(self.pair(l, r, pos)?))
    }

    fn assoc(&mut self, op: BinOp, l: ExprId, r: ExprId, at: u32) -> C<Op> {
        let first = (self.expr(l)?, self.pos_of(l));
        let split = |e| match e {
            Expr::Bin(o, l, r) if o == op => Some((l, r)),
            _ => None,
        };
        let mut parts = self.chain(r, true, split)?;
        parts.insert(0, first);
        let nary = self.nary(&parts, at);
        Ok(if op == BinOp::Update {
            Op::Update(nary)
        } else {
            Op::Concat(nary)
        })
    }

    fn call_op(&mut self, op: CallOp, l: ExprId, r: ExprId, at: u32) -> C<Op> {
        let pos = self.pos(at);
        let name = match op {
            CallOp::Neg | CallOp::Sub => sym::sub,
            CallOp::Mul => sym::mul,
            CallOp::Div => sym::div,
            _ => sym::less_than,
        };
        let swap = matches!(op, CallOp::Greater | CallOp::LessEq);
        let (l, r) = if swap { (r, l) } else { (l, r) };
        let result = if self.scopes.lookup(name).is_some() {
            let func = self.variable(name, at)?;
            let args = self.delays(&[l, r])?;
            Op::Call(self.keep(super::CallOp { func, args, pos }))
        } else {
            let pair = self.pair(l, r, pos)?;
            match op {
                CallOp::Neg | CallOp::Sub => Op::Sub(pair),
                CallOp::Mul => Op::Mul(pair),
                CallOp::Div => Op::Div(pair),
                _ => Op::Less(pair),
            }
        };
        if matches!(op, CallOp::LessEq | CallOp::GreaterEq) {
            return Ok(Op::Not(self.keep(Unary { operand: result, pos })));
        }
        Ok(result)
    }

    fn home_path(&self, rest: &[u8]) -> C<Op> {
        match self.unit.home {
            Ok(home) => Ok(Op::Const(self.unit.heap.path(&[home, rest].concat()))),
            Err(why) => {
                let path = String::from_utf8_lossy(rest);
                Err(SyntaxError {
                    message: format!("the path '~{path}' can not be resolved {why}"),
                    at: 0,
                })
            }
        }
    }

    /// `<name>` is `__findFile __nixPath "name"`, by names in scope.
    fn search_path(&mut self, name: &[u8], at: u32) -> C<Op> {
        let func = self.variable(sym::find_file, at)?;
        let path = self.variable(sym::nix_path, at)?;
        let path = match path {
            Op::Const(value) => Delay::Const(value),
            Op::Local(i, _) => Delay::Local(i),
            Op::Up(i, _) => Delay::Up(i),
            _ => self.thunk_with(|c| c.variable(sym::nix_path, at))?,
        };
        let name = Delay::Const(self.unit.heap.string(name));
        Ok(self.call_code(func, &[path, name], self.pos(at)))
    }

    fn keys(&mut self, path: PathId) -> C<&'static [Key]> {
        let names = self.unit.ast.path(path);
        let keys = names.iter().map(|name| self.key(*name)).collect::<C<Vec<_>>>()?;
        Ok(self.unit.heap.keep_slice(&keys))
    }

    fn key(&mut self, name: AttrName) -> C<Key> {
        Ok(match name {
            AttrName::Static(name) => Key::Static(name),
            AttrName::Dynamic(id) => Key::Dynamic(self.expr(id)?, self.pos_of(id)),
        })
    }

    fn select(&mut self, s: u32, at: u32) -> C<Op> {
        let select = self.unit.ast.selects[to_usize(s)];
        let base = self.expr(select.base)?;
        let pos = self.pos(at);
        if let ([AttrName::Static(name)], None) = (self.unit.ast.path(select.path), select.default) {
            return Ok(Op::Select(self.keep(SelectOp {
                base,
                name: *name,
                pos,
                cache: AtomicU64::new(0),
            })));
        }
        let path = self.keys(select.path)?;
        let default = select.default.map(|d| self.expr(d)).transpose()?;
        Ok(Op::SelectPath(self.keep(SelectPath {
            base,
            path,
            default,
            pos,
        })))
    }

    fn with(&mut self, set: ExprId, body: ExprId, at: u32) -> C<Op> {
        let set = self.delay(set)?;
        let first = self.scopes.next_slot();
        let place = self.scopes.slot();
        let pos = self.pos(at);
        self.scopes.withs.push((place, pos));
        let body = self.expr(body)?;
        self.scopes.withs.pop();
        self.scopes.release(first);
        Ok(Op::With(self.keep(WithOp {
            slot: place.slot,
            set,
            body,
        })))
    }

    fn assert(&mut self, condition: ExprId, body: ExprId, at: u32) -> C<Op> {
        let condition_pos = self.pos_of(condition);
        let op = self.expr(condition)?;
        let equality = match (self.unit.ast.get(condition), op) {
            (Expr::Bin(BinOp::Eq, ..), Op::Eq(pair)) => Some((pair.left, pair.right, pair.pos)),
            _ => None,
        };
        let body = self.expr(body)?;
        Ok(Op::Assert(self.keep(AssertOp {
            condition: op,
            condition_pos,
            equality,
            body,
            pos: self.pos(at),
        })))
    }
}

/// The values of delayed expressions that are all constants: a literal of those is made once.
pub(super) fn constants<'d>(delays: impl Iterator<Item = &'d Delay>) -> Option<Vec<Value>> {
    let value = |delay: &Delay| match delay {
        Delay::Const(value) => Some(*value),
        _ => None,
    };
    delays.map(value).collect()
}
