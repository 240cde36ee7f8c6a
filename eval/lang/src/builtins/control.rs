//! Errors, sequencing, messages and imports.

use std::rc::Rc;

use rustc_hash::FxHashSet;

use crate::error::{Context, ErrorKind, EvalError, R, fail, render_message};
use crate::heap::context::Ctx;
use crate::heap::value::{Type, Value};
use crate::interp::fibers::wide::{Items, Job, Outcome, Seen};
use crate::interp::{Coerce, Interp};
use crate::io::Notice;
use crate::pos::Pos;
use crate::symbol::{Symbol, sym};

fn message(interp: &mut Interp, value: Value, how: Coerce, what: &'static str) -> R<String> {
    let mut ctx = Ctx::EMPTY;
    let text = interp.coerce(value, &mut ctx, how, Pos::NONE, what)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

pub(super) fn abort(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the error message passed to builtins.abort";
    let text = message(interp, args[0], Coerce::STRICT, what)?;
    fail(
        ErrorKind::Abort,
        format!("evaluation aborted with the following error message: '{text}'"),
    )
}

pub(super) fn throw(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the error message passed to builtin.throw";
    let text = message(interp, args[0], Coerce::STRICT, what)?;
    fail(ErrorKind::Throw, text)
}

pub(super) fn add_error_context(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mark = interp.mark();
    match interp.force(args[1]) {
        Ok(value) => Ok(value),
        Err(error) => {
            interp.restore(mark);
            let what = "while evaluating the error message passed to builtins.addErrorContext";
            let text = message(interp, args[0], Coerce::PLAIN, what)?;
            Err(error.always(text))
        }
    }
}

pub(super) fn try_eval(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mark = interp.mark();
    let (value, success) = match interp.force(args[0]) {
        // The slot itself, so that a function stays equal to itself.
        Ok(_) => (args[0], Value::TRUE),
        Err(error) if error.is_catchable() => {
            interp.restore(mark);
            (Value::FALSE, Value::FALSE)
        }
        Err(error) => return Err(error),
    };
    Ok(interp.small_set(&[(sym::value, value), (sym::success, success)]))
}

pub(super) fn seq(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    interp.force(args[0])?;
    interp.force(args[1])
}

pub(super) fn deep_seq(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    interp.force_deep(args[0])?;
    interp.force(args[1])
}

impl Interp {
    /// Evaluates a value and everything in it.
    pub(crate) fn force_deep(&mut self, value: Value) -> R<()> {
        self.force_deep_in(value, &Rc::default())
    }

    /// Evaluates a value and everything in it that was not met before.
    pub(crate) fn force_deep_in(&mut self, value: Value, seen: &Rc<Seen>) -> R<()> {
        let value = self.force(value)?;
        if !matches!(value.kind_of(), Type::Set | Type::List) || !seen.insert(value) {
            return Ok(());
        }
        let items = match value.as_set() {
            Some(set) => Items::set(self.heap.flat(set)),
            None => Items::list(value.as_list().unwrap_or_default()),
        };
        self.deeper(Pos::NONE, |s| {
            s.each_item(items, Job::Deep(Rc::clone(seen)), |s, i, early| {
                let (name, item, pos) = items.get(i);
                let result = early.and_then(|early| match early {
                    Some(Outcome::Deep(more)) => {
                        seen.merge(&more);
                        Ok(())
                    }
                    _ => s.force_deep_in(item, seen),
                });
                result.context_with(pos, || match name {
                    Some(name) => {
                        let name = crate::syntax::show::identifier(s.symbols.name(name));
                        format!("while evaluating the attribute '{name}'")
                    }
                    None => format!("while evaluating list element at index {i}"),
                })
            })
        })
    }
}

pub(super) fn trace(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let value = interp.force(args[0])?;
    let text = match value.as_str() {
        Some(text) => String::from_utf8_lossy(text).into_owned(),
        None => interp.show_value(value),
    };
    interp.io.notice(Notice::Trace(text));
    interp.force(args[1])
}

pub(super) fn trace_verbose(interp: &mut Interp, args: &[Value], pos: Pos) -> R<Value> {
    if interp.settings.trace_verbose {
        return trace(interp, args, pos);
    }
    interp.force(args[1])
}

pub(super) fn warn(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument; the message passed to builtins.warn";
    let mut ctx = Ctx::EMPTY;
    let text = interp.expect_string(args[0], &mut ctx, Pos::NONE, what)?;
    interp.io.notice(Notice::EvaluationWarning(render_message(
        "evaluation warning: ",
        &String::from_utf8_lossy(text),
    )));
    if interp.settings.abort_on_warn {
        return fail(
            ErrorKind::Abort,
            "aborting to reveal stack trace of warning, as abort-on-warn is set",
        );
    }
    interp.force(args[1])
}

pub(super) fn force_first(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    interp.force(args[0])
}

pub(super) fn import(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let path = interp.realise_path(args[0])?;
    if let Some(value) = super::derivation::import_derivation(interp, &path)? {
        return Ok(value);
    }
    interp.eval_file(&path)
}

pub(super) fn scoped_import(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let path = interp.realise_path(args[1])?;
    if let Some(value) = super::derivation::import_derivation(interp, &path)? {
        return Ok(value);
    }
    let what = "while evaluating the first argument passed to builtins.scopedImport";
    let scope = interp.expect_set(args[0], Pos::NONE, what)?;
    let scope: Vec<(Symbol, Value)> = interp.heap.flat(scope).iter().map(|(n, v, _)| (n, v)).collect();
    let file = interp.resolve_file(&path)?;
    interp.load_file(&file, &scope)
}

pub(super) fn load_file(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let path: Rc<[u8]> = args[0].as_path().unwrap_or_default().into();
    interp.load_file(&path, &[])
}

fn position(args: &[Value]) -> Pos {
    Pos(args[0]
        .as_int()
        .and_then(|n| u32::try_from(n).ok())
        .unwrap_or_default())
}

pub(super) fn position_line(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let line = interp.sources.line_column(position(args)).map_or(0, |p| p.0);
    Ok(interp.heap.int(i64::from(line)))
}

pub(super) fn position_column(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let column = interp.sources.line_column(position(args)).map_or(0, |p| p.1);
    Ok(interp.heap.int(i64::from(column)))
}

pub(super) fn builtins_itself(interp: &mut Interp, _args: &[Value], _pos: Pos) -> R<Value> {
    Ok(interp.globals.builtins.unwrap_or(Value::NULL))
}

/// `genericClosure`: elements by key, in order of discovery.
pub(super) fn generic_closure(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.genericClosure";
    let set = interp.expect_set(args[0], Pos::NONE, what)?;
    let inside = "in the attrset passed as argument to builtins.genericClosure";
    let (start, _) = interp.expect_attr(set, sym::start_set, inside)?;
    let what = "while evaluating the 'startSet' attribute passed as argument to builtins.genericClosure";
    let start = interp.expect_list(start, Pos::NONE, what)?;
    if start.is_empty() {
        return Ok(interp.heap.list(&[]));
    }
    let (operator, _) = interp.expect_attr(set, sym::operator, inside)?;
    let what = "while evaluating the 'operator' attribute passed as argument to builtins.genericClosure";
    let operator = interp.expect_function(operator, Pos::NONE, what)?;
    let mut work: std::collections::VecDeque<Value> = start.iter().copied().collect();
    let mut keys = KeyTree::default();
    let mut found = Vec::new();
    while let Some(element) = work.pop_front() {
        let key = closure_key(interp, element)?;
        if !keys.insert(interp, key, element)? {
            continue;
        }
        found.push(element);
        let shown = |s: &Interp| {
            format!(
                "while calling operator on genericClosure element {}",
                s.show_error_value(element)
            )
        };
        let more = interp.call(operator, &[element], Pos::NONE).and_then(|more| {
            let what =
                "while evaluating the return value of the `operator` passed to builtins.genericClosure";
            let more = interp.expect_list(more, Pos::NONE, what)?;
            more.iter().try_for_each(|m| interp.force(*m).map(drop))?;
            Ok(more)
        });
        match more {
            Ok(more) => work.extend(more),
            Err(error) => return Err(error.frame(Pos::NONE, shown(interp))),
        }
    }
    Ok(interp.heap.list(&found))
}

fn closure_key(interp: &mut Interp, element: Value) -> R<Value> {
    let result = interp.expect_set(element, Pos::NONE, "").and_then(|set| {
        let (key, _) = interp.expect_attr(set, sym::key, "")?;
        Ok(key)
    });
    match result {
        Ok(key) => interp.force(key),
        Err(error) => {
            let shown = interp.show_error_value(element);
            Err(error.frame(Pos::NONE, format!("in genericClosure element {shown}")))
        }
    }
}

/// Keys seen: strings in a hash table, others in order.
#[derive(Default)]
struct KeyTree {
    strings: FxHashSet<&'static [u8]>,
    ints: FxHashSet<i64>,
    sorted: Vec<(Value, Value)>,
    kinds: Option<(Type, Value, Value)>,
}

impl KeyTree {
    /// Adds a key; false when an equal one is there.
    fn insert(&mut self, interp: &mut Interp, key: Value, element: Value) -> R<bool> {
        let kind = key.kind_of();
        let simple = matches!(kind, Type::String | Type::Int);
        if self.kinds.is_none() {
            self.kinds = Some((kind, key, element));
        }
        let same = self.kinds.is_some_and(|(k, _, _)| k == kind);
        if simple && same && self.sorted.is_empty() {
            return Ok(match (key.as_str(), key.as_int()) {
                (Some(text), _) => self.strings.insert(text),
                (_, Some(n)) => self.ints.insert(n),
                _ => false,
            });
        }
        if let Some((k, other, other_element)) = self.kinds
            && k != kind
            && self.sorted.is_empty()
        {
            // Numbers of both kinds compare; anything else does not, and the comparison says so.
            Self::compare(interp, key, other, element, other_element)?;
            self.sorted = self
                .ints
                .drain()
                .map(|n| (interp.heap.int(n), other_element))
                .collect();
            let mut ints = std::mem::take(&mut self.sorted);
            ints.sort_by_key(|(v, _)| v.as_int());
            self.sorted = ints;
        }
        self.insert_sorted(interp, key, element)
    }

    fn insert_sorted(&mut self, interp: &mut Interp, key: Value, element: Value) -> R<bool> {
        let (mut low, mut high) = (0, self.sorted.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let (other, other_element) = self.sorted[middle];
            if Self::compare(interp, key, other, element, other_element)? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        if let Some((other, other_element)) = low.checked_sub(1).map(|i| self.sorted[i])
            && !Self::compare(interp, other, key, other_element, element)?
        {
            return Ok(false);
        }
        self.sorted.insert(low, (key, element));
        Ok(true)
    }

    fn compare(interp: &mut Interp, a: Value, b: Value, element: Value, other: Value) -> R<bool> {
        interp.less_than(a, b, "").map_err(|e: Box<EvalError>| {
            let (first, second) = (interp.show_error_value(other), interp.show_error_value(element));
            let e = e.frame(Pos::NONE, format!("with element {first}"));
            e.frame(Pos::NONE, format!("while comparing element {second}"))
        })
    }
}

pub(super) fn get_env(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.getEnv";
    let name = interp.plain_string(args[0], Pos::NONE, what)?;
    let visible = interp.settings.purity == crate::settings::Purity::Impure;
    let value = if visible { interp.io.env(name) } else { None };
    Ok(interp.heap.string(&value.unwrap_or_default()))
}
