//! Calls.

use super::Interp;
use crate::builtins::Builtin;
use crate::code::{CallOp, Formals, LambdaCode, Op, PrimArg, PrimOp};
use crate::error::{ErrorKind, EvalError, R};
use crate::heap::object::Func;
use crate::heap::stack::Frame;
use crate::heap::value::Value;
use crate::pos::Pos;
use crate::symbol::{Symbol, sym};

/// What to do after a call has been set up.
pub(super) enum Next {
    Done(Value),
    /// The body of the function, in its frame; and who was called where.
    Run(Op, Frame, Called),
}

/// A function that is being called, and the place of the call.
#[derive(Clone, Copy)]
pub(super) struct Called(&'static LambdaCode, Pos);

/// Arguments held without allocating.
const INLINE_ARGS: usize = 6;

/// Arguments of a call, gathered from a call site and partial applications.
struct Args {
    inline: [Value; INLINE_ARGS],
    more: Vec<Value>,
    len: usize,
}

impl Args {
    fn of(len: usize, mut arg: impl FnMut(usize) -> Value) -> Self {
        let mut inline = [Value::NULL; INLINE_ARGS];
        let mut more = Vec::new();
        if len <= INLINE_ARGS {
            for (i, slot) in inline.iter_mut().enumerate().take(len) {
                *slot = arg(i);
            }
        } else {
            more = (0..len).map(arg).collect();
        }
        Self { inline, more, len }
    }

    fn concat(first: &[Value], rest: &[Value]) -> Self {
        Self::of(first.len() + rest.len(), |i| {
            if i < first.len() {
                first[i]
            } else {
                rest[i - first.len()]
            }
        })
    }

    #[inline]
    fn slice(&self) -> &[Value] {
        if self.len <= INLINE_ARGS {
            &self.inline[..self.len]
        } else {
            &self.more
        }
    }
}

impl Interp {
    /// Calls a function with arguments that may be thunks.
    pub(crate) fn call(&mut self, func: Value, args: &[Value], pos: Pos) -> R<Value> {
        self.check_stack()?;
        let (top, depth) = (self.stack.top(), self.depth);
        let result = match self.apply(func, args, pos, top) {
            Ok(Next::Done(value)) => Ok(value),
            Ok(Next::Run(body, frame, called)) => {
                self.run(body, frame).map_err(|e| self.while_calling(e, called))
            }
            Err(error) => Err(error),
        };
        self.stack.truncate(top);
        self.depth = depth;
        result
    }

    #[inline]
    pub(super) fn call_op(&mut self, call: &'static CallOp, frame: Frame, top: usize) -> R<Next> {
        let func = self.eval(call.func, frame)?;
        let args = Args::of(call.args.len(), |i| self.delay(call.args[i], frame));
        self.apply(func, args.slice(), call.pos, top)
    }

    /// Applies a function; frames above `top` are no longer needed once the arguments are in hand.
    fn apply(&mut self, func: Value, args: &[Value], pos: Pos, top: usize) -> R<Next> {
        self.enter(pos)?;
        let func = self.force(func)?;
        match func.as_func() {
            Some(Func::Closure(code, captured)) => {
                let arity = code.params.len();
                if args.len() < arity {
                    return Ok(Next::Done(self.heap.partial(func, &[], args)));
                }
                self.stack.truncate(top);
                let frame = self.push_frame(code.frame, captured)?;
                let (own, more) = args.split_at(arity);
                self.bind_params(code, own, frame, pos)?;
                if more.is_empty() {
                    return Ok(Next::Run(code.body, frame, Called(code, pos)));
                }
                let result = self
                    .run(code.body, frame)
                    .map_err(|e| self.while_calling(e, Called(code, pos)))?;
                self.apply(result, more, pos, top)
            }
            Some(Func::Builtin(builtin)) => {
                let arity = builtin.arity();
                if args.len() < arity {
                    return Ok(Next::Done(self.heap.partial(func, &[], args)));
                }
                let (own, more) = args.split_at(arity);
                let result = self.call_builtin(builtin, own, pos)?;
                if more.is_empty() {
                    return Ok(Next::Done(result));
                }
                self.apply(result, more, pos, top)
            }
            Some(Func::Partial(inner, first)) => {
                if first.len() + args.len() < Self::arity(inner) {
                    return Ok(Next::Done(self.heap.partial(inner, first, args)));
                }
                let args = Args::concat(first, args);
                self.leave();
                self.apply(inner, args.slice(), pos, top)
            }
            None => self.call_functor(func, args, pos, top),
        }
    }

    fn arity(func: Value) -> usize {
        match func.as_func() {
            Some(Func::Closure(code, _)) => code.params.len(),
            Some(Func::Builtin(builtin)) => builtin.arity(),
            _ => 0,
        }
    }

    fn call_functor(&mut self, func: Value, args: &[Value], pos: Pos, top: usize) -> R<Next> {
        let Some((functor, functor_pos)) = func.as_set().and_then(|set| set.get(sym::functor)) else {
            let what = self.show_type(func);
            let shown = self.show_error_value(func);
            let text = format!("attempt to call something which is not a function but {what}: {shown}");
            return Err(EvalError::new(ErrorKind::Type, text).at(pos));
        };
        let args = Args::concat(&[func], args);
        self.apply(functor, args.slice(), functor_pos, top).map_err(|e| {
            e.frame(
                pos,
                "while calling a functor (an attribute set with a '__functor' attribute)",
            )
        })
    }

    #[inline]
    fn bind_params(&mut self, code: &'static LambdaCode, args: &[Value], frame: Frame, pos: Pos) -> R<()> {
        for (slot, arg) in (0u32..).zip(args) {
            frame.set_local(slot, *arg);
        }
        if let (Some(param), Some(arg)) = (code.params.last(), args.last())
            && let Some(formals) = param.formals
        {
            return self.bind_formals(code, formals, *arg, frame, pos);
        }
        Ok(())
    }

    fn bind_formals(
        &mut self,
        code: &'static LambdaCode,
        formals: &'static Formals,
        arg: Value,
        frame: Frame,
        pos: Pos,
    ) -> R<()> {
        let value = self.force(arg).map_err(|e| Self::from_call_site(e, pos))?;
        let Some(set) = value.as_set() else {
            let error = self.type_error("a set", value);
            let error = error.frame(
                Self::lambda_pos(code),
                "while evaluating the value passed for the lambda argument",
            );
            return Err(Self::from_call_site(error, pos));
        };
        let (mut used, mut missing) = (0usize, Vec::new());
        for (slot, formal) in (formals.first_slot..).zip(formals.list) {
            match set.value_of(formal.name) {
                Some(value) => {
                    used += 1;
                    frame.set_local(slot, value);
                }
                None => match formal.default {
                    Some(default) => {
                        frame.set_local(slot, Value::NULL);
                        missing.push((slot, default));
                    }
                    None => return Err(self.argument_error(code, formal.name, "without required", pos)),
                },
            }
        }
        // Defaults may refer to any formal: all that were given are in place.
        if !missing.is_empty() {
            self.bind_list(&missing, frame);
        }
        if !formals.ellipsis && used != set.len() {
            let flat = self.heap.flat(set);
            let extra = flat
                .shape
                .names()
                .iter()
                .find(|n| !formals.list.iter().any(|f| f.name == **n));
            if let Some(extra) = extra {
                let mut error = self.argument_error(code, *extra, "with unexpected", pos);
                let names = formals.list.iter().map(|f| f.name);
                error.suggestions = self.suggestions(names, *extra);
                return Err(error);
            }
        }
        Ok(())
    }

    fn lambda_pos(code: &'static LambdaCode) -> Pos {
        code.params.last().map_or(Pos::NONE, |p| p.pos)
    }

    #[cold]
    #[inline(never)]
    fn argument_error(&self, code: &'static LambdaCode, name: Symbol, how: &str, pos: Pos) -> Box<EvalError> {
        let lambda = code.params.last().and_then(|p| p.name);
        let lambda = lambda.map_or_else(|| "anonymous lambda".to_owned(), |n| self.symbols.text(n));
        let name = crate::syntax::show::identifier(self.symbols.name(name));
        let text = format!("function '{lambda}' called {how} argument '{name}'");
        EvalError::new(ErrorKind::Type, text)
            .at(Self::lambda_pos(code))
            .frame(pos, "from call site")
    }

    #[cold]
    #[inline(never)]
    pub(super) fn while_calling(&self, error: Box<EvalError>, called: Called) -> Box<EvalError> {
        let Called(code, pos) = called;
        if !self.settings.show_trace {
            return error;
        }
        let name = code.params.last().and_then(|p| p.name);
        let name = name.map_or_else(
            || "anonymous lambda".to_owned(),
            |n| format!("'{}'", self.symbols.text(n)),
        );
        let error = error.frame(Self::lambda_pos(code), format!("while calling {name}"));
        Self::from_call_site(error, pos)
    }

    /// Says where the call was, if it was in some text.
    fn from_call_site(error: Box<EvalError>, pos: Pos) -> Box<EvalError> {
        if pos.is_some() {
            error.frame(pos, "from call site")
        } else {
            error
        }
    }

    /// Runs a builtin with all its arguments.
    #[inline]
    pub(super) fn call_builtin(&mut self, builtin: &'static Builtin, args: &[Value], pos: Pos) -> R<Value> {
        match (builtin.run)(self, args, pos) {
            Ok(value) => Ok(value),
            Err(error) => Err(Self::while_calling_builtin(error, builtin, pos)),
        }
    }

    #[cold]
    #[inline(never)]
    fn while_calling_builtin(error: Box<EvalError>, builtin: &'static Builtin, pos: Pos) -> Box<EvalError> {
        if builtin.traced {
            error.frame(
                pos,
                format!("while calling the '{}' builtin", builtin.public_name()),
            )
        } else {
            error
        }
    }

    /// A known builtin with arguments from code: those it needs at once are evaluated without a thunk.
    pub(super) fn prim(&mut self, prim: &'static PrimOp, frame: Frame) -> R<Value> {
        self.enter(prim.pos)?;
        let mut args = [Value::NULL; crate::builtins::ARITY_MAX];
        let lazy = prim.args.iter().zip(&mut args);
        for (arg, slot) in lazy {
            if let PrimArg::Lazy(delay) = arg {
                *slot = self.delay(*delay, frame);
            }
        }
        for i in prim.builtin.strict {
            if let Some(PrimArg::Strict(op)) = prim.args.get(*i) {
                match self.eval(*op, frame) {
                    Ok(value) => args[*i] = value,
                    Err(error) => return Err(Self::while_calling_builtin(error, prim.builtin, prim.pos)),
                }
            }
        }
        let result = self.call_builtin(prim.builtin, &args[..prim.args.len()], prim.pos)?;
        self.leave();
        Ok(result)
    }
}
