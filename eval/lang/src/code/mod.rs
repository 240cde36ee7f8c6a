//! Code: resolved, ready to run.
//!
//! Variables are numbered slots, names of builtins are their values, and every expression whose evaluation is put off
//! (argument, attribute, list item) says how ([`Delay`]). Code is immutable but for inline caches, and lives in the heap.
//!
//! Invariants
//! - a slot is below the frame size of its unit (function or thunk), and written before any code that reads it runs;
//! - a unit's `captures` say, in order, which variables of the enclosing unit its object holds.

mod bindings;
mod calls;
pub(crate) mod compile;
pub(crate) mod scope;

use std::sync::atomic::AtomicU64;

use crate::builtins::Builtin;
use crate::heap::shape::Shape;
use crate::heap::value::Value;
use crate::pos::Pos;
use crate::symbol::Symbol;

/// Where a variable of the running unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Var {
    Local(u32),
    Up(u32),
}

/// An expression to evaluate now.
#[derive(Clone, Copy)]
pub(crate) enum Op {
    Const(Value),
    Local(u32, Pos),
    Up(u32, Pos),
    WithVar(&'static WithVar),
    Select(&'static SelectOp),
    SelectPath(&'static SelectPath),
    HasAttr(&'static HasAttrOp),
    Lambda(&'static LambdaCode),
    Call(&'static CallOp),
    Prim(&'static PrimOp),
    Let(&'static LetOp),
    Attrs(&'static AttrsOp),
    List(&'static ListOp),
    If(&'static IfOp),
    With(&'static WithOp),
    Assert(&'static AssertOp),
    Not(&'static Unary),
    And(&'static Binary),
    Or(&'static Binary),
    Impl(&'static Binary),
    Eq(&'static Binary),
    Neq(&'static Binary),
    Less(&'static Binary),
    Sub(&'static Binary),
    Mul(&'static Binary),
    Div(&'static Binary),
    Update(&'static Nary),
    Concat(&'static Nary),
    /// `a + b + …`.
    Plus(&'static Nary),
    /// `"…${a}…"`.
    Interp(&'static Nary),
    /// A path literal with interpolations.
    PathInterp(&'static Nary),
    CurPos(Pos),
}

/// An expression whose evaluation is put off, or need not be.
#[derive(Clone, Copy)]
pub(crate) enum Delay {
    Const(Value),
    Local(u32),
    Up(u32),
    Thunk(&'static ThunkCode),
    Lambda(&'static LambdaCode),
}

/// Code of a thunk.
pub(crate) struct ThunkCode {
    pub(crate) body: Op,
    pub(crate) frame: u32,
    pub(crate) captures: &'static [Var],
}

impl ThunkCode {
    /// The selection this thunk is, if it is one from its only captured variable: its value may be there already.
    #[inline]
    pub(crate) fn as_select(&self) -> Option<(Var, &'static SelectOp)> {
        match (self.body, self.captures) {
            (Op::Select(select), [base]) if matches!(select.base, Op::Up(0, _)) => Some((*base, select)),
            _ => None,
        }
    }
}

/// Code of a function: its parameters are those of directly nested functions, of which only the last may have formals.
pub(crate) struct LambdaCode {
    pub(crate) params: &'static [Param],
    pub(crate) body: Op,
    pub(crate) frame: u32,
    pub(crate) captures: &'static [Var],
}

/// One parameter of a function.
pub(crate) struct Param {
    pub(crate) name: Option<Symbol>,
    pub(crate) pos: Pos,
    pub(crate) arg: Option<Symbol>,
    pub(crate) formals: Option<&'static Formals>,
}

/// Formals of a parameter. Slots: the argument itself (if named) at the parameter's index, then one per formal.
pub(crate) struct Formals {
    pub(crate) list: &'static [Formal],
    pub(crate) ellipsis: bool,
    pub(crate) first_slot: u32,
}

/// One formal, sorted by symbol.
#[derive(Clone, Copy)]
pub(crate) struct Formal {
    pub(crate) name: Symbol,
    pub(crate) pos: Pos,
    pub(crate) default: Option<Delay>,
}

/// A variable that only a `with` can have.
pub(crate) struct WithVar {
    pub(crate) name: Symbol,
    pub(crate) pos: Pos,
    /// The sets, innermost first, and where their `with` stands.
    pub(crate) chain: &'static [(Var, Pos)],
}

/// `base.name`.
pub(crate) struct SelectOp {
    pub(crate) base: Op,
    pub(crate) name: Symbol,
    pub(crate) pos: Pos,
    /// Address of the last shape seen, shifted left, and the index of the name in it.
    pub(crate) cache: AtomicU64,
}

/// A name in an attribute path.
#[derive(Clone, Copy)]
pub(crate) enum Key {
    Static(Symbol),
    Dynamic(Op, Pos),
}

/// `base.a.b or default`.
pub(crate) struct SelectPath {
    pub(crate) base: Op,
    pub(crate) path: &'static [Key],
    pub(crate) default: Option<Op>,
    pub(crate) pos: Pos,
}

/// `base ? a.b`.
pub(crate) struct HasAttrOp {
    pub(crate) base: Op,
    pub(crate) path: &'static [Key],
    pub(crate) pos: Pos,
}

/// `f a b`.
pub(crate) struct CallOp {
    pub(crate) func: Op,
    pub(crate) args: &'static [Delay],
    pub(crate) pos: Pos,
}

/// A call of a known builtin with all its arguments.
pub(crate) struct PrimOp {
    pub(crate) builtin: &'static Builtin,
    pub(crate) args: &'static [PrimArg],
    pub(crate) pos: Pos,
}

/// An argument of a known builtin.
#[derive(Clone, Copy)]
pub(crate) enum PrimArg {
    /// Evaluated before the call: the builtin would do so first.
    Strict(Op),
    Lazy(Delay),
}

/// Variables bound together; each may refer to all.
#[derive(Clone, Copy)]
pub(crate) struct Binds {
    pub(crate) list: &'static [(u32, Delay)],
}

/// `let … in body`.
pub(crate) struct LetOp {
    pub(crate) binds: Binds,
    pub(crate) body: Op,
}

/// An attribute set literal.
pub(crate) struct AttrsOp {
    /// Variables of a `rec` set and sources of `inherit (e)`.
    pub(crate) binds: Binds,
    pub(crate) shape: &'static Shape,
    pub(crate) values: &'static [Delay],
    pub(crate) dynamic: &'static [DynamicAttr],
    /// Whether the set has `__overrides`.
    pub(crate) overrides: bool,
}

/// `${name} = value`.
#[derive(Clone, Copy)]
pub(crate) struct DynamicAttr {
    pub(crate) name: Op,
    pub(crate) value: Delay,
    pub(crate) pos: Pos,
}

/// A list literal.
pub(crate) struct ListOp {
    pub(crate) items: &'static [Delay],
}

/// `if`.
pub(crate) struct IfOp {
    pub(crate) condition: Op,
    pub(crate) then: Op,
    pub(crate) otherwise: Op,
    pub(crate) condition_pos: Pos,
}

/// `with set; body`.
pub(crate) struct WithOp {
    pub(crate) slot: u32,
    pub(crate) set: Delay,
    pub(crate) body: Op,
}

/// `assert condition; body`.
pub(crate) struct AssertOp {
    pub(crate) condition: Op,
    pub(crate) condition_pos: Pos,
    /// The operands when the condition is `a == b`, for the message.
    pub(crate) equality: Option<(Op, Op, Pos)>,
    pub(crate) body: Op,
    pub(crate) pos: Pos,
}

/// An operator with one operand.
pub(crate) struct Unary {
    pub(crate) operand: Op,
    pub(crate) pos: Pos,
}

/// An operator with two operands.
pub(crate) struct Binary {
    pub(crate) left: Op,
    pub(crate) right: Op,
    pub(crate) pos: Pos,
    /// Positions of the operands, for traces.
    pub(crate) left_pos: Pos,
    pub(crate) right_pos: Pos,
}

/// A chain of an associative operator, from left to right, and the operands' positions.
pub(crate) struct Nary {
    pub(crate) parts: &'static [(Op, Pos)],
    pub(crate) pos: Pos,
}
