//! Values of an expected type, and what to say when they are not.

use super::Interp;
use crate::error::{Context, ErrorKind, EvalError, R};
use crate::heap::attrs::SetRef;
use crate::heap::context::Ctx;
use crate::heap::object::Func;
use crate::heap::value::{Type, Value};
use crate::pos::Pos;
use crate::symbol::{Symbol, sym};

impl Interp {
    /// "expected … but found …".
    #[cold]
    #[inline(never)]
    pub(crate) fn type_error(&self, expected: &str, value: Value) -> Box<EvalError> {
        let what = self.show_type(value);
        let shown = self.show_error_value(value);
        EvalError::new(
            ErrorKind::Type,
            format!("expected {expected} but found {what}: {shown}"),
        )
    }

    /// What a value is, with its article.
    pub(crate) fn show_type(&self, value: Value) -> String {
        let text = match value.kind_of() {
            Type::Int => "an integer",
            Type::Bool => "a Boolean",
            Type::String if value.ctx().is_empty() => "a string",
            Type::String => "a string with context",
            Type::Path => "a path",
            Type::Null => "null",
            Type::Set => "a set",
            Type::List => "a list",
            Type::Float => "a float",
            Type::Thunk => "a thunk",
            Type::Function => match value.as_func() {
                Some(Func::Builtin(b)) => return format!("the built-in function '{}'", b.public_name()),
                Some(Func::Partial(inner, _)) => match inner.as_func() {
                    Some(Func::Builtin(b)) => {
                        return format!("the partially applied built-in function '{}'", b.public_name());
                    }
                    _ => "a function",
                },
                _ => "a function",
            },
        };
        text.to_owned()
    }

    /// The truth value of something just evaluated.
    #[inline]
    pub(crate) fn as_bool(&self, value: R<Value>, pos: Pos, what: &'static str) -> R<bool> {
        match value {
            Ok(Value::TRUE) => Ok(true),
            Ok(Value::FALSE) => Ok(false),
            Ok(other) => Err(self.type_error("a Boolean", other).at(pos).frame(pos, what)),
            Err(error) => Err(error.frame(pos, what)),
        }
    }

    /// A set.
    pub(crate) fn expect_set(&mut self, value: Value, pos: Pos, what: &'static str) -> R<SetRef> {
        let value = self.force(value)?;
        value
            .as_set()
            .ok_or_else(|| self.type_error("a set", value).frame(pos, what))
    }

    /// A list's items.
    pub(crate) fn expect_list(&mut self, value: Value, pos: Pos, what: &'static str) -> R<&'static [Value]> {
        let value = self.force(value)?;
        value
            .as_list()
            .ok_or_else(|| self.type_error("a list", value).frame(pos, what))
    }

    /// An integer.
    pub(crate) fn expect_int(&mut self, value: Value, pos: Pos, what: &'static str) -> R<i64> {
        let value = self.force(value).context(pos, what)?;
        value
            .as_int()
            .ok_or_else(|| self.type_error("an integer", value).at(pos).frame(pos, what))
    }

    /// A float; an integer is one too.
    pub(crate) fn expect_float(&mut self, value: Value, pos: Pos, what: &'static str) -> R<f64> {
        let value = self.force(value).context(pos, what)?;
        if let Some(n) = value.as_int() {
            #[expect(
                clippy::cast_precision_loss,
                reason = "Nix converts integers to floats this way"
            )]
            return Ok(n as f64);
        }
        value
            .as_float()
            .ok_or_else(|| self.type_error("a float", value).at(pos).frame(pos, what))
    }

    /// A truth value.
    pub(crate) fn expect_bool(&mut self, value: Value, pos: Pos, what: &'static str) -> R<bool> {
        let value = self.force(value);
        self.as_bool(value, pos, what)
    }

    /// A function, or a set that can be called.
    pub(crate) fn expect_function(&mut self, value: Value, pos: Pos, what: &'static str) -> R<Value> {
        let value = self.force(value).context(pos, what)?;
        let functor = value.as_set().is_some_and(|s| s.get(sym::functor).is_some());
        if value.is_func() || functor {
            return Ok(value);
        }
        Err(self.type_error("a function", value).at(pos).frame(pos, what))
    }

    /// A string, its context added to `ctx`.
    pub(crate) fn expect_string(
        &mut self,
        value: Value,
        ctx: &mut Ctx,
        pos: Pos,
        what: &'static str,
    ) -> R<&'static [u8]> {
        let value = self.force(value).context(pos, what)?;
        let Some(text) = value.as_str() else {
            return Err(self.type_error("a string", value).at(pos).frame(pos, what));
        };
        *ctx = self.union(*ctx, value.ctx());
        Ok(text)
    }

    /// A string without context.
    pub(crate) fn plain_string(&mut self, value: Value, pos: Pos, what: &'static str) -> R<&'static [u8]> {
        let value = self.force(value).context(pos, what)?;
        let Some(text) = value.as_str() else {
            return Err(self.type_error("a string", value).at(pos).frame(pos, what));
        };
        if value.ctx().is_empty() {
            return Ok(text);
        }
        let elems = self.contexts.elems(value.ctx());
        let first = elems
            .first()
            .map(|e| String::from_utf8_lossy(&e.encode()).into_owned())
            .unwrap_or_default();
        let shown = String::from_utf8_lossy(text);
        let text =
            format!("the string '{shown}' is not allowed to refer to a store path (such as '{first}')");
        Err(EvalError::new(ErrorKind::Eval, text).frame(pos, what))
    }

    /// An attribute that must be there; the value may be a thunk.
    pub(crate) fn expect_attr(&mut self, set: SetRef, name: Symbol, what: &'static str) -> R<(Value, Pos)> {
        set.get(name).ok_or_else(|| {
            let name = crate::syntax::show::identifier(self.symbols.name(name));
            EvalError::new(ErrorKind::Type, format!("attribute '{name}' missing")).frame(Pos::NONE, what)
        })
    }
}
