//! Makes attribute sets: literals, dynamic attributes, `__overrides`, positions, and what to say about missing ones.

use super::Interp;
use crate::code::{AttrsOp, DynamicAttr};
use crate::error::{ErrorKind, EvalError, R};
use crate::heap::attrs::{Attr, SetRef};
use crate::heap::stack::Frame;
use crate::heap::value::Value;
use crate::pos::{Origin, Pos};
use crate::symbol::{Symbol, sym};

/// Suggestions shown.
const SUGGESTIONS_MAX: usize = 3;
/// Edits up to which a name is close enough to be suggested.
const DISTANCE_MAX: usize = 2;
/// Sets above this size get no suggestions: finding them would cost more than the error.
const SUGGEST_FROM_MAX: usize = 50_000;

impl Interp {
    pub(super) fn attrs(&mut self, attrs: &'static AttrsOp, frame: Frame) -> R<Value> {
        self.bind(attrs.binds, frame);
        let set = self
            .heap
            .set_with(attrs.shape, |i| self.delay(attrs.values[i], frame));
        if attrs.dynamic.is_empty() && !attrs.overrides {
            return Ok(set);
        }
        let mut all: Vec<Attr> = set
            .as_set()
            .map(|s| self.heap.flat(s).iter().collect())
            .unwrap_or_default();
        if attrs.overrides {
            self.override_attrs(&mut all)?;
        }
        for attr in attrs.dynamic {
            self.add_dynamic(&mut all, attr, frame)?;
        }
        all.sort_by_key(|a| a.0);
        let (names, positions): (Vec<Symbol>, Vec<Pos>) = all.iter().map(|a| (a.0, a.2)).unzip();
        let shape = self.heap.shape(&names, &positions, attrs.shape.own);
        Ok(self.heap.set_with(shape, |i| all[i].1))
    }

    fn override_attrs(&mut self, all: &mut Vec<Attr>) -> R<()> {
        let Some((_, overrides, pos)) = all.iter().find(|a| a.0 == sym::overrides).copied() else {
            return Ok(());
        };
        let overrides = self.expect_set(overrides, pos, "while evaluating the `__overrides` attribute")?;
        for new in self.heap.flat(overrides).iter() {
            match all.iter_mut().find(|a| a.0 == new.0) {
                Some(old) => *old = new,
                None => all.push(new),
            }
        }
        Ok(())
    }

    fn add_dynamic(&mut self, all: &mut Vec<Attr>, attr: &DynamicAttr, frame: Frame) -> R<()> {
        let name = self.eval(attr.name, frame)?;
        if name == Value::NULL {
            return Ok(());
        }
        let name = self.plain_string(name, attr.pos, "while evaluating the name of a dynamic attribute")?;
        let name = self.symbols.intern(name);
        if let Some(old) = all.iter().find(|a| a.0 == name) {
            let place = self.sources.place(old.2);
            let shown = crate::syntax::show::identifier(self.symbols.name(name));
            let text = format!("dynamic attribute '{shown}' already defined at {place}");
            return Err(EvalError::new(ErrorKind::Eval, text).at(attr.pos));
        }
        all.push((name, self.delay(attr.value, frame), attr.pos));
        Ok(())
    }

    /// A position as `unsafeGetAttrPos` and `__curPos` give it; null where there is none in a file.
    pub(crate) fn position_value(&mut self, pos: Pos) -> Value {
        let Some(Origin::File(path)) = self.sources.origin(pos) else {
            return Value::NULL;
        };
        let file = self.heap.string(path);
        let place = self.heap.int(i64::from(pos.0));
        let line = self.heap.apply(crate::builtins::position_line(self), &[place]);
        let column = self.heap.apply(crate::builtins::position_column(self), &[place]);
        self.small_set(&[(sym::file, file), (sym::line, line), (sym::column, column)])
    }

    /// The error for an attribute that is not there.
    #[cold]
    #[inline(never)]
    pub(crate) fn missing(&self, set: SetRef, name: Symbol) -> Box<EvalError> {
        let shown = crate::syntax::show::identifier(self.symbols.name(name));
        let mut error = EvalError::new(ErrorKind::Type, format!("attribute '{shown}' missing"));
        if set.len() <= SUGGEST_FROM_MAX {
            error.suggestions = self.suggestions(self.heap.flat(set).shape.names().iter().copied(), name);
        }
        error
    }

    /// Names close to one that is not there, closest first.
    pub(crate) fn suggestions(&self, names: impl Iterator<Item = Symbol>, wanted: Symbol) -> Vec<String> {
        let wanted = self.symbols.name(wanted);
        let near = |n: Symbol| {
            let name = self.symbols.name(n);
            if name.len().abs_diff(wanted.len()) > DISTANCE_MAX {
                return None;
            }
            let distance = edit_distance(wanted, name);
            (distance <= DISTANCE_MAX).then(|| (distance, self.symbols.text(n)))
        };
        let mut found: Vec<_> = names.filter_map(near).collect();
        found.sort();
        found.truncate(SUGGESTIONS_MAX);
        found.into_iter().map(|(_, name)| name).collect()
    }
}

/// Levenshtein distance.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
