//! Coercions to strings and paths.

use std::borrow::Cow;

use super::Interp;
use super::fibers::wide::{Items, Job, Outcome};
use crate::error::{Context, ErrorKind, EvalError, R};
use crate::heap::context::Ctx;
use crate::heap::value::{Type, Value};
use crate::pos::Pos;
use crate::pure::float_format;
use crate::symbol::sym;

/// How something becomes a string.
#[derive(Clone, Copy)]
pub(crate) struct Coerce {
    /// Whether numbers, booleans, null and lists do.
    pub(crate) more: bool,
    /// Whether a path is copied to the store, or is its own text.
    pub(crate) copy_to_store: bool,
}

impl Coerce {
    /// As in interpolation.
    pub(crate) const STRICT: Self = Self {
        more: false,
        copy_to_store: true,
    };
    /// As for the environment of a derivation.
    pub(crate) const ENV: Self = Self {
        more: true,
        copy_to_store: true,
    };
    /// Text only, paths as they are.
    pub(crate) const PLAIN: Self = Self {
        more: false,
        copy_to_store: false,
    };
    /// As `toString` does.
    pub(crate) const TO_STRING: Self = Self {
        more: true,
        copy_to_store: false,
    };
}

/// A value from which `__toString` and `outPath` have been peeled.
pub(crate) struct Peeled {
    pub(crate) value: Value,
    /// Whether a `__toString` made it.
    pub(crate) through_to_string: bool,
}

impl Interp {
    /// A value's text; what it refers to is added to `ctx`.
    pub(crate) fn coerce(
        &mut self,
        value: Value,
        ctx: &mut Ctx,
        how: Coerce,
        pos: Pos,
        what: &'static str,
    ) -> R<Cow<'static, [u8]>> {
        let value = self.force(value)?;
        if let Some(text) = value.as_str() {
            *ctx = self.union(*ctx, value.ctx());
            return Ok(Cow::Borrowed(text));
        }
        self.deeper(pos, |s| s.coerce_other(value, ctx, how, pos, what))
    }

    fn coerce_other(
        &mut self,
        value: Value,
        ctx: &mut Ctx,
        how: Coerce,
        pos: Pos,
        what: &'static str,
    ) -> R<Cow<'static, [u8]>> {
        let small = |text: &'static [u8]| Ok(Cow::Borrowed(text));
        match value.kind_of() {
            Type::Path => {
                let path = value.as_path().unwrap_or_default();
                if how.copy_to_store {
                    return self.copy_to_store(path, ctx).map(Cow::Owned);
                }
                return Ok(Cow::Borrowed(path));
            }
            Type::Set => {
                let peeled = self.peel(value, pos, false)?.value;
                if !peeled.is_set() {
                    return self.coerce(peeled, ctx, how, pos, what);
                }
                return Err(self.cannot_coerce(peeled, pos, what));
            }
            Type::Bool if how.more => return small(if value == Value::TRUE { b"1" } else { b"" }),
            Type::Null if how.more => return small(b""),
            Type::Int if how.more => {
                return Ok(Cow::Owned(
                    value.as_int().unwrap_or_default().to_string().into_bytes(),
                ));
            }
            Type::Float if how.more => {
                let text = float_format::print_to_string(value.as_float().unwrap_or_default());
                return Ok(Cow::Owned(text.into_bytes()));
            }
            Type::List if how.more => return self.coerce_list(value, ctx, how, pos, what),
            _ => {}
        }
        Err(self.cannot_coerce(value, pos, what))
    }

    fn coerce_list(
        &mut self,
        value: Value,
        ctx: &mut Ctx,
        how: Coerce,
        pos: Pos,
        what: &'static str,
    ) -> R<Cow<'static, [u8]>> {
        let list = value.as_list().unwrap_or_default();
        let items = Items::list(list);
        let mut out = Vec::new();
        let of_item = "while evaluating one element of the list";
        self.each_item(items, Job::Coerce(how, pos, of_item), |s, i, early| {
            let text = s.coerce_item(list[i], ctx, how, (pos, of_item), early);
            out.extend_from_slice(&text.context(pos, what)?);
            let empty_list = s.force(list[i])?.as_list().is_some_and(<[Value]>::is_empty);
            if i + 1 < list.len() && !empty_list {
                out.push(b' ');
            }
            Ok(())
        })?;
        Ok(Cow::Owned(out))
    }

    /// The text of an item, which may have been made early.
    pub(crate) fn coerce_item(
        &mut self,
        item: Value,
        ctx: &mut Ctx,
        how: Coerce,
        (pos, what): (Pos, &'static str),
        early: R<Option<Outcome>>,
    ) -> R<Cow<'static, [u8]>> {
        match early? {
            Some(Outcome::Text(text, more)) => {
                *ctx = self.union(*ctx, more);
                Ok(text)
            }
            _ => self.coerce(item, ctx, how, pos, what),
        }
    }

    fn cannot_coerce(&self, value: Value, pos: Pos, what: &'static str) -> Box<EvalError> {
        let kind = self.show_type(value);
        let shown = self.show_error_value(value);
        EvalError::new(
            ErrorKind::Type,
            format!("cannot coerce {kind} to a string: {shown}"),
        )
        .frame(pos, what)
    }

    /// Follows `__toString` and `outPath` until neither is there.
    ///
    /// With `check`, what `__toString` returns must be a string, or become one.
    pub(crate) fn peel(&mut self, value: Value, pos: Pos, check: bool) -> R<Peeled> {
        let mut peeled = Peeled {
            value: self.force(value)?,
            through_to_string: false,
        };
        let depth = self.depth_mark();
        let mut here = pos;
        loop {
            let value = peeled.value;
            let Some(set) = value.as_set() else {
                let stringy = matches!(value.kind_of(), Type::String | Type::Path);
                if check && peeled.through_to_string && !stringy {
                    return Err(self.bad_to_string("should", value, here));
                }
                break;
            };
            if let Some((function, at)) = set.get(sym::to_string) {
                self.enter(pos)?;
                let result = self.call(function, &[value], at);
                let result = result.context(at, "while calling the `__toString` attribute")?;
                peeled = Peeled {
                    value: result,
                    through_to_string: true,
                };
                here = at;
            } else if let Some((path, at)) = set.get(sym::out_path) {
                self.enter(pos)?;
                let result = self.force(path);
                peeled.value = result.context(at, "while evaluating the `outPath` attribute")?;
                here = at;
            } else {
                if check && peeled.through_to_string {
                    return Err(self.bad_to_string("must", value, here));
                }
                break;
            }
        }
        self.restore_depth(depth);
        Ok(peeled)
    }

    fn bad_to_string(&self, must: &str, value: Value, pos: Pos) -> Box<EvalError> {
        let kind = self.show_type(value);
        let shown = self.show_error_value(value);
        let verb = if must == "must" {
            "must return a string"
        } else {
            "should return a string"
        };
        EvalError::new(
            ErrorKind::Type,
            format!("`__toString` {verb}, but got {kind}: {shown}"),
        )
        .at(pos)
    }

    /// The path a value means; `ctx` gains what its text refers to.
    pub(crate) fn coerce_path(
        &mut self,
        value: Value,
        ctx: &mut Ctx,
        pos: Pos,
        what: &'static str,
    ) -> R<Vec<u8>> {
        let peeled = self.peel(value, pos, false)?.value;
        if let Some(path) = peeled.as_path() {
            return Ok(path.to_vec());
        }
        let text = self.coerce(peeled, ctx, Coerce::PLAIN, pos, what)?;
        crate::pure::path_ops::string_to_path(&text).map_err(|_| {
            let shown = String::from_utf8_lossy(&text);
            let text = format!("string '{shown}' doesn't represent an absolute path");
            EvalError::new(ErrorKind::Eval, text).frame(pos, what)
        })
    }

    pub(crate) const fn depth_mark(&self) -> u32 {
        self.depth
    }

    pub(crate) const fn restore_depth(&mut self, depth: u32) {
        self.depth = depth;
    }

    /// Where the variable stack stands, for [`Interp::restore`].
    pub(crate) fn mark(&self) -> (usize, u32) {
        (self.stack.top(), self.depth)
    }

    /// Undoes what an evaluation that failed left behind.
    pub(crate) fn restore(&mut self, mark: (usize, u32)) {
        self.stack.truncate(mark.0);
        self.depth = mark.1;
    }
}
