//! Compiles functions and calls.

use super::compile::{C, Compiler};
use super::scope::Target;
use super::{CallOp, Delay, Formal, Formals, LambdaCode, Op, Param, PrimArg, PrimOp};
use crate::heap::object::Func;
use crate::num::to_usize;
use crate::pos::Pos;
use crate::syntax::ast::{Expr, ExprId};

impl Compiler<'_, '_> {
    /// A function and those it directly returns, as one.
    pub(super) fn lambda(&mut self, index: u32, at: u32) -> C<&'static LambdaCode> {
        self.scopes.units.push(super::scope::Unit::default());
        let mark = self.scopes.mark();
        let result = self.lambda_parts(index, at);
        self.scopes.pop_to(mark);
        let unit = self.scopes.units.pop().unwrap_or_default();
        let (params, body) = result?;
        let captures = self.unit.heap.keep_slice(&unit.captures);
        Ok(self.keep(LambdaCode {
            params,
            body,
            frame: unit.frame,
            captures,
        }))
    }

    fn lambda_parts(&mut self, mut index: u32, mut at: u32) -> C<(&'static [Param], Op)> {
        let ast = self.unit.ast;
        let mut params = Vec::new();
        let last = loop {
            let lambda = &ast.lambdas[to_usize(index)];
            // The argument's own slot, named or not: parameter i is slot i.
            let place = self.scopes.slot();
            if let Some(arg) = lambda.arg {
                self.scopes.bind(arg, Target::Slot(place));
            }
            let param = Param {
                name: lambda.name,
                pos: self.pos(at),
                arg: lambda.arg,
                formals: None,
            };
            params.push(param);
            match (&lambda.formals, ast.get(lambda.body)) {
                (None, Expr::Lambda(inner)) => {
                    index = inner;
                    at = ast.at(lambda.body);
                }
                _ => break lambda,
            }
        };
        if let Some(formals) = &last.formals {
            let formals = self.formals(formals)?;
            if let Some(param) = params.last_mut() {
                param.formals = Some(formals);
            }
        }
        let body = self.expr(last.body)?;
        Ok((self.unit.heap.keep_vec(params), body))
    }

    fn formals(&mut self, formals: &crate::syntax::ast::Formals) -> C<&'static Formals> {
        let first_slot = self.scopes.next_slot();
        for formal in &formals.list {
            let place = self.scopes.slot();
            self.scopes.bind(formal.name, Target::Slot(place));
        }
        let mut list = Vec::with_capacity(formals.list.len());
        for formal in &formals.list {
            let default = match formal.default {
                None => None,
                Some(id) => Some(self.default(id, formals)?),
            };
            list.push(Formal {
                name: formal.name,
                pos: self.pos(formal.at),
                default,
            });
        }
        let list = self.unit.heap.keep_slice(&list);
        Ok(self.keep(Formals {
            list,
            ellipsis: formals.ellipsis,
            first_slot,
        }))
    }

    /// A default: an alias of another formal is a thunk, because that formal's slot may not be set yet.
    fn default(&mut self, id: ExprId, formals: &crate::syntax::ast::Formals) -> C<Delay> {
        if let Expr::Var(name) = self.unit.ast.get(id)
            && formals.list.iter().any(|f| f.name == name)
        {
            return self.thunk_with(|c| c.expr(id));
        }
        self.delay(id)
    }

    /// `f args`.
    pub(super) fn call(&mut self, f: ExprId, args: &[ExprId], at: u32) -> C<Op> {
        let func = self.expr(f)?;
        let pos = self.pos(at);
        if let Op::Const(value) = func
            && let Some(Func::Builtin(builtin)) = value.as_func()
            && args.len() >= builtin.arity()
        {
            let (own, more) = args.split_at(builtin.arity());
            let mut prim = Vec::with_capacity(own.len());
            for (i, arg) in own.iter().enumerate() {
                let strict = builtin.strict.contains(&i);
                prim.push(if strict {
                    PrimArg::Strict(self.expr(*arg)?)
                } else {
                    PrimArg::Lazy(self.delay(*arg)?)
                });
            }
            let args = self.unit.heap.keep_slice(&prim);
            let call = Op::Prim(self.keep(PrimOp { builtin, args, pos }));
            if more.is_empty() {
                return Ok(call);
            }
            let args = self.delays(more)?;
            return Ok(Op::Call(self.keep(CallOp {
                func: call,
                args,
                pos,
            })));
        }
        let args = self.delays(args)?;
        Ok(Op::Call(self.keep(CallOp { func, args, pos })))
    }

    /// A call of code with arguments that are ready.
    pub(super) fn call_code(&mut self, func: Op, args: &[Delay], pos: Pos) -> Op {
        let args = self.unit.heap.keep_slice(args);
        Op::Call(self.keep(CallOp { func, args, pos }))
    }
}
