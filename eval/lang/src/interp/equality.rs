//! Equality of values.
//!
//! Functions are equal to nothing, unless both sides are the very same list item or attribute: nixpkgs relies on that.

use super::Interp;
use crate::error::{Context, ErrorKind, EvalError, R, fail};
use crate::heap::attrs::SetRef;
use crate::heap::value::{Type, Value};
use crate::pos::Pos;
use crate::pure::float_format;
use crate::symbol::sym;

impl Interp {
    /// Whether two slots (list items, attributes) hold equal values; the same thunk or object is equal to itself.
    pub(crate) fn equal_slots(&mut self, a: Value, b: Value, pos: Pos) -> R<bool> {
        let same = a == b;
        let x = self.force(a)?;
        let y = self.force(b)?;
        if same && (x.is_func() || x.is_set() || x.is_list()) {
            return Ok(true);
        }
        self.equal_values(x, y, pos)
    }

    /// Whether two evaluated values are equal.
    pub(crate) fn equal_values(&mut self, a: Value, b: Value, pos: Pos) -> R<bool> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "Nix compares integers with floats this way"
        )]
        Ok(match (a.kind_of(), b.kind_of()) {
            (Type::Int, Type::Float) => a.as_int().map(|n| n as f64) == b.as_float(),
            (Type::Float, Type::Int) => a.as_float() == b.as_int().map(|n| n as f64),
            (Type::Int, Type::Int) => a.as_int() == b.as_int(),
            (Type::Float, Type::Float) => a.as_float() == b.as_float(),
            (Type::Bool, Type::Bool) | (Type::Null, Type::Null) => a == b,
            (Type::String, Type::String) => a.as_str() == b.as_str(),
            (Type::Path, Type::Path) => a.as_path() == b.as_path(),
            (Type::List, Type::List) => {
                let (Some(xs), Some(ys)) = (a.as_list(), b.as_list()) else {
                    return Ok(false);
                };
                if xs.len() != ys.len() {
                    return Ok(false);
                }
                return self.deeper(pos, |s| {
                    for (x, y) in xs.iter().zip(ys) {
                        if !s.equal_slots(*x, *y, pos)? {
                            return Ok(false);
                        }
                    }
                    Ok(true)
                });
            }
            (Type::Set, Type::Set) => return self.deeper(pos, |s| s.equal_sets(a, b, pos)),
            _ => false,
        })
    }

    fn equal_sets(&mut self, a: Value, b: Value, pos: Pos) -> R<bool> {
        let (Some(x), Some(y)) = (a.as_set(), b.as_set()) else {
            return Ok(false);
        };
        if let Some((p, q)) = self.out_paths(x, y)? {
            return self.equal_slots(p, q, pos);
        }
        if x.len() != y.len() {
            return Ok(false);
        }
        let (x, y) = (self.heap.flat(x), self.heap.flat(y));
        if x.shape.names() != y.shape.names() {
            // Nix compares values up to the first name that differs.
            let same = x
                .shape
                .names()
                .iter()
                .zip(y.shape.names())
                .take_while(|(n, m)| n == m)
                .count();
            for (v, w) in x.values.iter().zip(y.values).take(same) {
                if !self.equal_slots(*v, *w, pos)? {
                    return Ok(false);
                }
            }
            return Ok(false);
        }
        for (v, w) in x.values.iter().zip(y.values) {
            if !self.equal_slots(*v, *w, pos)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The output paths by which two derivations are compared.
    fn out_paths(&mut self, a: SetRef, b: SetRef) -> R<Option<(Value, Value)>> {
        if !(self.is_derivation(a)? && self.is_derivation(b)?) {
            return Ok(None);
        }
        Ok(a.value_of(sym::out_path).zip(b.value_of(sym::out_path)))
    }

    /// Whether a set is a derivation.
    pub(crate) fn is_derivation(&mut self, set: SetRef) -> R<bool> {
        let Some(kind) = set.value_of(sym::type_) else {
            return Ok(false);
        };
        Ok(self.force(kind)?.as_str() == Some(b"derivation"))
    }

    /// Fails with the first difference of two values, in the order [`Interp::equal_values`] looks.
    pub(super) fn explain_difference(&mut self, a: Value, b: Value, pos: Pos, top: bool) -> R<()> {
        let same = a == b && !top;
        let (a, b) = (self.force(a)?, self.force(b)?);
        if same && (a.is_func() || a.is_set() || a.is_list()) {
            return Ok(());
        }
        let differ = |text: String| fail(ErrorKind::Assertion, text);
        let (ta, tb) = (a.kind_of(), b.kind_of());
        let numbers = |t| matches!(t, Type::Int | Type::Float);
        if numbers(ta) && numbers(tb) {
            if self.equal_values(a, b, pos)? {
                return Ok(());
            }
            let (x, y) = (self.describe(a), self.describe(b));
            return differ(format!(
                "{} with value '{}' is not equal to {} with value '{}'",
                x.0, x.1, y.0, y.1
            ));
        }
        if ta != tb {
            let (x, y) = (self.describe(a), self.describe(b));
            return differ(format!(
                "{} of value '{}' is not equal to {} of value '{}'",
                x.0, x.1, y.0, y.1
            ));
        }
        match ta {
            Type::List => self.deeper(pos, |s| s.explain_lists(a, b, pos)),
            Type::Set => self.deeper(pos, |s| s.explain_sets(a, b, pos)),
            Type::Function => {
                let text =
                    "distinct functions and immediate comparisons of identical functions compare as unequal";
                differ(text.to_owned())
            }
            _ => {
                if self.equal_values(a, b, pos)? {
                    return Ok(());
                }
                let kind = match ta {
                    Type::Bool => "boolean",
                    Type::Path => "path",
                    _ => "string",
                };
                let (x, y) = (self.describe(a).1, self.describe(b).1);
                differ(format!("{kind} '{x}' is not equal to {kind} '{y}'"))
            }
        }
    }

    fn describe(&mut self, value: Value) -> (String, String) {
        let shown = match value.as_float() {
            Some(x) => float_format::print_value(x),
            None => self.show_error_value(value),
        };
        (self.show_type(value), shown)
    }

    fn explain_lists(&mut self, a: Value, b: Value, pos: Pos) -> R<()> {
        let (Some(xs), Some(ys)) = (a.as_list(), b.as_list()) else {
            return Ok(());
        };
        if xs.len() != ys.len() {
            let (x, y) = (self.describe(a).1, self.describe(b).1);
            let (n, m) = (xs.len(), ys.len());
            let text = format!(
                "list of size '{n}' is not equal to list of size '{m}', left hand side is '{x}', right hand side is '{y}'"
            );
            return fail(ErrorKind::Assertion, text);
        }
        for (i, (x, y)) in xs.iter().zip(ys).enumerate() {
            let result = self.explain_difference(*x, *y, pos, false);
            result.context_with(pos, || format!("while comparing list element {i}"))?;
        }
        Ok(())
    }

    fn explain_sets(&mut self, a: Value, b: Value, pos: Pos) -> R<()> {
        let (Some(x), Some(y)) = (a.as_set(), b.as_set()) else {
            return Ok(());
        };
        if let Some((p, q)) = self.out_paths(x, y)? {
            let result = self.explain_difference(p, q, pos, false);
            return result.context(pos, "while comparing a derivation by its 'outPath' attribute");
        }
        let (fx, fy) = (self.heap.flat(x), self.heap.flat(y));
        if fx.values.len() != fy.values.len() {
            let (p, q) = (self.describe(a).1, self.describe(b).1);
            let text = format!("attribute names of attribute set '{p}' differs from attribute set '{q}'");
            return fail(ErrorKind::Assertion, text);
        }
        for (left, right) in fx.iter().zip(fy.iter()) {
            if left.0 != right.0 {
                return Err(self.explain_names(a, b, left.0, right.0));
            }
            let result = self.explain_difference(left.1, right.1, pos, false);
            result.map_err(|e| {
                let name = crate::syntax::show::identifier(self.symbols.name(left.0));
                let e = if right.2.is_some() {
                    e.frame(right.2, "where right hand side is")
                } else {
                    e
                };
                let e = if left.2.is_some() {
                    e.frame(left.2, "where left hand side is")
                } else {
                    e
                };
                e.frame(pos, format!("while comparing attribute '{name}'"))
            })?;
        }
        Ok(())
    }

    fn explain_names(
        &mut self,
        a: Value,
        b: Value,
        left: crate::symbol::Symbol,
        right: crate::symbol::Symbol,
    ) -> Box<EvalError> {
        let (p, q) = (self.describe(a).1, self.describe(b).1);
        let only_left = b.as_set().is_some_and(|s| s.get(left).is_none());
        let text = if only_left {
            let name = crate::syntax::show::identifier(self.symbols.name(left));
            format!("attribute name '{name}' is contained in '{p}', but not in '{q}'")
        } else {
            let name = crate::syntax::show::identifier(self.symbols.name(right));
            format!("attribute name '{name}' is missing in '{p}', but is contained in '{q}'")
        };
        EvalError::new(ErrorKind::Assertion, text)
    }
}
