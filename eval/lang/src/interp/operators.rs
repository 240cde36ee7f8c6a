//! Operators.

use super::{Coerce, Interp};
use crate::code::{AssertOp, Binary, Nary, Op};
use crate::error::{Context, ErrorKind, EvalError, Frame as TraceFrame, FrameText, Message, R, fail};
use crate::heap::context::Ctx;
use crate::heap::stack::Frame;
use crate::heap::value::{Type, Value};
use crate::pos::Pos;
use crate::pure::path_ops;

/// A sum so far: what `a + b + …` is depends on what it starts with.
enum Sum {
    Int(i64),
    Float(f64),
    /// Paths added to a string are copied to the store; those added to a set that stands for a string are its text.
    Text {
        text: Vec<u8>,
        ctx: Ctx,
        copies: bool,
    },
    Path(Vec<u8>),
}

impl Interp {
    pub(super) fn operator(&mut self, op: Op, frame: Frame) -> R<Value> {
        Ok(match op {
            Op::Not(not) => {
                let value = self.eval(not.operand, frame);
                Value::bool(!self.as_bool(value, not.pos, "in the argument of '!'")?)
            }
            Op::And(b) => {
                let (l, r) = ("in the left operand of '&&'", "in the right operand of '&&'");
                Value::bool(self.left(b, frame, l)? && self.right(b, frame, r)?)
            }
            Op::Or(b) => {
                let (l, r) = ("in the left operand of '||'", "in the right operand of '||'");
                Value::bool(self.left(b, frame, l)? || self.right(b, frame, r)?)
            }
            Op::Impl(b) => {
                let (l, r) = ("in the left operand of '->'", "in the right operand of '->'");
                Value::bool(!self.left(b, frame, l)? || self.right(b, frame, r)?)
            }
            Op::Eq(b) => Value::bool(self.equality(b, frame, "=='")?),
            Op::Neq(b) => Value::bool(!self.equality(b, frame, "!='")?),
            Op::Less(b) => {
                let (l, r) = self.operands(b, frame)?;
                let less = self.less_than(l, r, "");
                Value::bool(less.map_err(|e| e.frame(b.pos, "while calling the 'lessThan' builtin"))?)
            }
            Op::Sub(b) => self.arith(b, frame, crate::builtins::subtract, "sub")?,
            Op::Mul(b) => self.arith(b, frame, crate::builtins::multiply, "mul")?,
            Op::Div(b) => self.arith(b, frame, crate::builtins::divide, "div")?,
            _ => Value::NULL,
        })
    }

    fn operands(&mut self, b: &'static Binary, frame: Frame) -> R<(Value, Value)> {
        let left = self.eval(b.left, frame)?;
        Ok((left, self.eval(b.right, frame)?))
    }

    fn arith(
        &mut self,
        b: &'static Binary,
        frame: Frame,
        run: fn(&mut Self, &[Value], Pos) -> R<Value>,
        name: &str,
    ) -> R<Value> {
        let (left, right) = self.operands(b, frame)?;
        run(self, &[left, right], b.pos).context_with(b.pos, || format!("while calling the '{name}' builtin"))
    }

    fn left(&mut self, b: &'static Binary, frame: Frame, what: &'static str) -> R<bool> {
        let value = self.eval(b.left, frame);
        self.as_bool(value, b.left_pos, what)
    }

    fn right(&mut self, b: &'static Binary, frame: Frame, what: &'static str) -> R<bool> {
        let value = self.eval(b.right, frame);
        self.as_bool(value, b.right_pos, what)
    }

    fn equality(&mut self, b: &'static Binary, frame: Frame, sign: &'static str) -> R<bool> {
        let side = |e: Box<EvalError>, pos, side| e.frame(pos, format!("in the {side} operand of '{sign}"));
        let left = self
            .eval(b.left, frame)
            .map_err(|e| side(e, b.left_pos, "left"))?;
        let right = self
            .eval(b.right, frame)
            .map_err(|e| side(e, b.right_pos, "right"))?;
        self.equal_values(left, right, b.pos)
    }

    pub(super) fn assert(&mut self, assert: &'static AssertOp, frame: Frame) -> R<()> {
        let value = self.eval(assert.condition, frame);
        if self.as_bool(
            value,
            assert.condition_pos,
            "in the condition of the assert statement",
        )? {
            return Ok(());
        }
        if let Some((left, right, pos)) = assert.equality {
            let left = self.eval(left, frame)?;
            let right = self.eval(right, frame)?;
            if let Err(mut error) = self.explain_difference(left, right, pos, true) {
                if error.kind == ErrorKind::Assertion {
                    let text = FrameText::AssertionCondition(assert.pos);
                    error.frames.push(TraceFrame {
                        pos: assert.pos,
                        text,
                        always: false,
                    });
                }
                return Err(error);
            }
        }
        let mut error = EvalError::new(ErrorKind::Assertion, String::new()).at(assert.pos);
        error.message = Message::Assertion(assert.pos);
        Err(error)
    }

    /// `a // b // c`: the operands are evaluated from the right, and merged from the left.
    pub(super) fn update_chain(&mut self, chain: &'static Nary, frame: Frame) -> R<Value> {
        let mut sets = Vec::with_capacity(chain.parts.len());
        for (i, (op, pos)) in chain.parts.iter().enumerate().rev() {
            let last = i + 1 == chain.parts.len();
            let what = if last {
                "in the right operand of '//'"
            } else {
                "in the left operand of '//'"
            };
            let value = self.eval(*op, frame).context(*pos, what)?;
            match value.as_set() {
                Some(set) => sets.push(set),
                None => return Err(self.type_error("a set", value).frame(*pos, what)),
            }
        }
        let Some(mut result) = sets.pop() else {
            return Ok(self.heap.empty_set());
        };
        while let Some(next) = sets.pop() {
            if let Some(merged) = self.heap.update(result, next).as_set() {
                result = merged;
            }
        }
        Ok(result.value())
    }

    /// `a ++ b ++ c`.
    pub(super) fn concat_chain(&mut self, chain: &'static Nary, frame: Frame) -> R<Value> {
        let mut lists = Vec::with_capacity(chain.parts.len());
        for (i, (op, pos)) in chain.parts.iter().enumerate() {
            let what = if i == 0 {
                "in the left operand of '++'"
            } else {
                "in the right operand of '++'"
            };
            lists.push(self.eval(*op, frame).context(*pos, what)?);
        }
        self.concat_lists(
            &lists,
            chain.pos,
            "while evaluating one of the elements to concatenate",
        )
    }

    /// Joins lists; a result equal to one of them is that one.
    pub(crate) fn concat_lists(&mut self, lists: &[Value], pos: Pos, what: &'static str) -> R<Value> {
        let mut parts = Vec::with_capacity(lists.len());
        let mut only = None;
        for list in lists {
            let value = self.force(*list)?;
            let Some(items) = value.as_list() else {
                return Err(self.type_error("a list", value).frame(pos, what));
            };
            if !items.is_empty() {
                parts.push(items);
                only = Some(value);
            }
        }
        match (parts.as_slice(), only) {
            ([], _) => Ok(self.heap.list(&[])),
            ([_], Some(value)) => Ok(value),
            ([a, b], _) => Ok(self.heap.list_concat(a, b)),
            _ => {
                let mut items = parts.into_iter().flatten();
                let len = items.clone().count();
                Ok(self
                    .heap
                    .list_with(len, |_| items.next().copied().unwrap_or(Value::NULL)))
            }
        }
    }

    pub(super) fn plus_chain(&mut self, chain: &'static Nary, frame: Frame) -> R<Value> {
        let Some(((first, first_pos), rest)) = chain.parts.split_first() else {
            return Ok(Value::NULL);
        };
        let value = self
            .eval(*first, frame)
            .context(*first_pos, "in an operand of '+'")?;
        let mut sum = self.start_sum(value, *first_pos)?;
        for (op, pos) in rest {
            let value = self.eval(*op, frame).context(*pos, "in an operand of '+'")?;
            sum = self.add(sum, value, *pos, chain.pos)?;
        }
        Ok(match sum {
            Sum::Int(n) => self.heap.int(n),
            Sum::Float(x) => self.heap.float(x),
            Sum::Text { text, ctx, .. } => self.heap.string_ctx(&text, ctx),
            Sum::Path(path) => self.heap.path(&path),
        })
    }

    fn start_sum(&mut self, value: Value, pos: Pos) -> R<Sum> {
        if let Some(n) = value.as_int() {
            return Ok(Sum::Int(n));
        }
        if let Some(x) = value.as_float() {
            return Ok(Sum::Float(x));
        }
        if let Some(path) = value.as_path() {
            return Ok(Sum::Path(path.to_vec()));
        }
        let mut ctx = Ctx::EMPTY;
        let how = Coerce {
            copy_to_store: false,
            ..Coerce::STRICT
        };
        let text = self.coerce(value, &mut ctx, how, pos, "while evaluating a path segment")?;
        Ok(Sum::Text {
            text: text.into_owned(),
            ctx,
            copies: value.as_str().is_some(),
        })
    }

    fn add(&mut self, sum: Sum, value: Value, value_pos: Pos, pos: Pos) -> R<Sum> {
        match sum {
            Sum::Int(n) => match (value.as_int(), value.as_float()) {
                (Some(m), _) => n.checked_add(m).map(Sum::Int).ok_or_else(|| {
                    EvalError::new(ErrorKind::Eval, format!("integer overflow in adding {n} + {m}"))
                        .at(value_pos)
                }),
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "Nix converts integers to floats this way"
                )]
                (None, Some(x)) => Ok(Sum::Float(n as f64 + x)),
                _ => self.cannot_add(value, "an integer", value_pos),
            },
            Sum::Float(x) => match (value.as_int(), value.as_float()) {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "Nix converts integers to floats this way"
                )]
                (Some(m), _) => Ok(Sum::Float(x + m as f64)),
                (None, Some(y)) => Ok(Sum::Float(x + y)),
                _ => self.cannot_add(value, "a float", value_pos),
            },
            Sum::Text {
                mut text,
                mut ctx,
                copies,
            } => {
                let how = Coerce {
                    copy_to_store: copies,
                    ..Coerce::STRICT
                };
                let what = "while evaluating a path segment";
                let more = self.coerce(value, &mut ctx, how, value_pos, what)?;
                text.extend_from_slice(&more);
                Ok(Sum::Text {
                    text,
                    ctx,
                    copies: true,
                })
            }
            Sum::Path(path) => {
                let mut ctx = Ctx::EMPTY;
                let how = Coerce {
                    copy_to_store: false,
                    ..Coerce::STRICT
                };
                let more = self.coerce(value, &mut ctx, how, value_pos, "while evaluating a path segment")?;
                Self::no_context_in_path(ctx, pos)?;
                Ok(Sum::Path(path_ops::append_string(&path, &more)))
            }
        }
    }

    fn no_context_in_path(ctx: Ctx, pos: Pos) -> R<()> {
        if ctx.is_empty() {
            return Ok(());
        }
        let text = "a string that refers to a store path cannot be appended to a path";
        Err(EvalError::new(ErrorKind::Eval, text).at(pos))
    }

    fn cannot_add<T>(&self, value: Value, to: &str, pos: Pos) -> R<T> {
        let what = self.show_type(value);
        Err(EvalError::new(ErrorKind::Eval, format!("cannot add {what} to {to}")).at(pos))
    }

    pub(super) fn interpolate(&mut self, parts: &'static Nary, frame: Frame) -> R<Value> {
        let mut ctx = Ctx::EMPTY;
        let mut text = Vec::new();
        for (op, pos) in parts.parts {
            if let Op::Const(value) = op
                && let Some(literal) = value.as_str()
            {
                text.extend_from_slice(literal);
                continue;
            }
            let value = self.eval(*op, frame).context(*pos, "in an operand of '+'")?;
            if let Some(bytes) = value.as_str() {
                text.extend_from_slice(bytes);
                let more = value.ctx();
                ctx = self.union(ctx, more);
                continue;
            }
            let bytes = self.coerce(
                value,
                &mut ctx,
                Coerce::STRICT,
                *pos,
                "while evaluating a path segment",
            )?;
            text.extend_from_slice(&bytes);
        }
        Ok(self.heap.string_ctx(&text, ctx))
    }

    pub(super) fn path_interpolate(&mut self, parts: &'static Nary, frame: Frame) -> R<Value> {
        let mut ctx = Ctx::EMPTY;
        let mut path = Vec::new();
        for (op, pos) in parts.parts {
            let value = self.eval(*op, frame).context(*pos, "in an operand of '+'")?;
            let how = Coerce {
                copy_to_store: false,
                ..Coerce::STRICT
            };
            let text = self.coerce(value, &mut ctx, how, *pos, "while evaluating a path segment")?;
            path.extend_from_slice(&text);
        }
        Self::no_context_in_path(ctx, parts.pos)?;
        Ok(self.heap.path(&path_ops::canonical_path(&path)))
    }

    /// Whether `a` comes before `b`.
    pub(crate) fn less_than(&mut self, a: Value, b: Value, what: &'static str) -> R<bool> {
        self.compare(a, b).map_err(|e| e.frame(Pos::NONE, what))
    }

    fn compare(&mut self, a: Value, b: Value) -> R<bool> {
        let (a, b) = (self.force(a)?, self.force(b)?);
        #[expect(
            clippy::cast_precision_loss,
            reason = "Nix compares integers with floats this way"
        )]
        Ok(match (a.kind_of(), b.kind_of()) {
            (Type::Int, Type::Int) => a.as_int() < b.as_int(),
            (Type::Float, Type::Float) => a.as_float() < b.as_float(),
            (Type::Int, Type::Float) => a.as_int().map(|n| n as f64) < b.as_float(),
            (Type::Float, Type::Int) => a.as_float() < b.as_int().map(|n| n as f64),
            (Type::String, Type::String) => a.as_str() < b.as_str(),
            (Type::Path, Type::Path) => a.as_path() < b.as_path(),
            (Type::List, Type::List) => return self.deeper(Pos::NONE, |s| s.compare_lists(a, b)),
            (x, y) => {
                let (ta, tb) = (self.show_type(a), self.show_type(b));
                let (va, vb) = (self.show_error_value(a), self.show_error_value(b));
                if x == y {
                    let text = format!(
                        "cannot compare {ta} with {tb}; values of that type are incomparable (values are {va} and {vb})"
                    );
                    return fail(ErrorKind::Eval, text);
                }
                return fail(
                    ErrorKind::Eval,
                    format!("cannot compare {ta} with {tb}; values are {va} and {vb}"),
                );
            }
        })
    }

    fn compare_lists(&mut self, a: Value, b: Value) -> R<bool> {
        let (Some(xs), Some(ys)) = (a.as_list(), b.as_list()) else {
            return Ok(false);
        };
        for (i, y) in ys.iter().enumerate() {
            let Some(x) = xs.get(i) else { return Ok(true) };
            if !self.equal_slots(*x, *y, Pos::NONE)? {
                return self.less_than(*x, *y, "while comparing two list elements");
            }
        }
        Ok(false)
    }
}
