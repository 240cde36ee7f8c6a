//! The form `nix-instantiate --eval` prints: what is not evaluated is `<CODE>`, what was printed before `«repeated»`.

use rustc_hash::FxHashSet;

use crate::error::{ErrorKind, R, fail};
use crate::heap::object::Func;
use crate::heap::value::{Type, Value};
use crate::interp::Interp;
use crate::pure::float_format;
use crate::pure::string_ops::{print_attribute_name, print_string};

struct Printer<'i> {
    strict: bool,
    interp: &'i Interp,
    out: Vec<u8>,
    seen: FxHashSet<u64>,
}

impl Interp {
    /// A value as `--eval` prints it.
    ///
    /// Unless the value was evaluated to the end (`strict`), a function that stands in it as written is `<CODE>` too.
    pub(crate) fn print_ambiguous(&self, value: Value, strict: bool) -> R<Vec<u8>> {
        let mut printer = Printer {
            strict,
            interp: self,
            out: Vec::new(),
            seen: FxHashSet::default(),
        };
        printer.value(value, 0)?;
        Ok(printer.out)
    }
}

impl Printer<'_> {
    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn value(&mut self, slot: Value, depth: u32) -> R<()> {
        if depth > self.interp.settings.max_call_depth {
            return fail(
                ErrorKind::StackOverflow,
                "stack overflow; max-call-depth exceeded",
            );
        }
        self.interp.check_stack()?;
        let value = match slot.as_thunk() {
            None => slot,
            Some(thunk) => match thunk.done() {
                Some(value) => value,
                None => {
                    self.text(if self.interp.is_being_computed(thunk) {
                        "«potential infinite recursion»"
                    } else {
                        "<CODE>"
                    });
                    return Ok(());
                }
            },
        };
        match value.kind_of() {
            Type::Int => self.text(&value.as_int().unwrap_or_default().to_string()),
            Type::Float => self.text(&float_format::print_value(value.as_float().unwrap_or_default())),
            Type::Bool => self.text(if value == Value::TRUE { "true" } else { "false" }),
            Type::Null => self.text("null"),
            Type::String => print_string(&mut self.out, value.as_str().unwrap_or_default()),
            Type::Path => self.out.extend_from_slice(value.as_path().unwrap_or_default()),
            Type::Set => return self.set(value, depth),
            Type::List => return self.list(slot, value, depth),
            Type::Function => self.text(match value.as_func() {
                Some(Func::Closure(..)) if !self.strict && depth > 0 && !slot.is_thunk() => "<CODE>",
                Some(Func::Builtin(_)) => "<PRIMOP>",
                Some(Func::Partial(inner, _)) if matches!(inner.as_func(), Some(Func::Builtin(_))) => {
                    "<PRIMOP-APP>"
                }
                _ => "<LAMBDA>",
            }),
            Type::Thunk => self.text("<CODE>"),
        }
        Ok(())
    }

    fn set(&mut self, value: Value, depth: u32) -> R<()> {
        let Some(set) = value.as_set() else { return Ok(()) };
        if set.len() > 0 && !self.seen.insert(value.bits()) {
            self.text("«repeated»");
            return Ok(());
        }
        self.text("{ ");
        let flat = self.interp.heap.flat(set);
        for (name, value, _) in flat.sorted(&self.interp.heap, &self.interp.symbols) {
            print_attribute_name(&mut self.out, self.interp.symbols.name(name));
            self.text(" = ");
            self.value(value, depth + 1)?;
            self.text("; ");
        }
        self.text("}");
        Ok(())
    }

    /// Lists are told apart by the slot they are in, as Nix does by value address.
    fn list(&mut self, slot: Value, value: Value, depth: u32) -> R<()> {
        let items = value.as_list().unwrap_or_default();
        if !items.is_empty() && !self.seen.insert(slot.bits()) {
            self.text("«repeated»");
            return Ok(());
        }
        self.text("[ ");
        for item in items {
            self.value(*item, depth + 1)?;
            self.text(" ");
        }
        self.text("]");
        Ok(())
    }
}
