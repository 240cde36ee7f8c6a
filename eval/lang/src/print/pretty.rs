//! Values as messages quote them: nothing is evaluated, and large values are cut.

use rustc_hash::FxHashSet;

use crate::heap::attrs::Attr;
use crate::heap::object::Func;
use crate::heap::value::{Type, Value};
use crate::interp::Interp;
use crate::pure::float_format;
use crate::pure::string_ops::{print_attribute_name, print_string};

/// What is left out.
#[derive(Clone, Copy)]
struct Limits {
    depth: usize,
    attrs: usize,
    items: usize,
    string_bytes: usize,
}

const IN_ERRORS: Limits = Limits {
    depth: 10,
    attrs: 10,
    items: 10,
    string_bytes: 1024,
};
const NONE: Limits = Limits {
    depth: 10_000,
    attrs: usize::MAX,
    items: usize::MAX,
    string_bytes: usize::MAX,
};

struct Printer<'i> {
    interp: &'i Interp,
    out: Vec<u8>,
    limits: Limits,
    seen: FxHashSet<u64>,
    attrs: usize,
    items: usize,
}

impl Interp {
    /// A value as an error quotes it.
    pub(crate) fn show_error_value(&self, value: Value) -> String {
        self.show_with(value, IN_ERRORS)
    }

    /// A value as `builtins.trace` prints it.
    pub(crate) fn show_value(&self, value: Value) -> String {
        self.show_with(value, NONE)
    }

    fn show_with(&self, value: Value, limits: Limits) -> String {
        let seen = FxHashSet::default();
        let mut printer = Printer {
            interp: self,
            out: Vec::new(),
            limits,
            seen,
            attrs: 0,
            items: 0,
        };
        printer.value(value, 0);
        String::from_utf8_lossy(&printer.out).into_owned()
    }
}

impl Printer<'_> {
    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn elided(&mut self, count: usize, one: &str, many: &str) {
        let what = if count == 1 { one } else { many };
        self.text(&format!("«{count} {what} elided»"));
    }

    fn value(&mut self, slot: Value, depth: usize) {
        let value = match slot.as_thunk() {
            None => slot,
            Some(thunk) => match thunk.done() {
                Some(value) => value,
                None => {
                    return self.text(if self.interp.is_being_computed(thunk) {
                        "«potential infinite recursion»"
                    } else {
                        "«thunk»"
                    });
                }
            },
        };
        match value.kind_of() {
            Type::Int => self.text(&value.as_int().unwrap_or_default().to_string()),
            Type::Float => self.text(&float_format::print_value(value.as_float().unwrap_or_default())),
            Type::Bool => self.text(if value == Value::TRUE { "true" } else { "false" }),
            Type::Null => self.text("null"),
            Type::String => self.string(value.as_str().unwrap_or_default()),
            Type::Path => self.out.extend_from_slice(value.as_path().unwrap_or_default()),
            Type::Set => self.set(value, depth),
            Type::List => self.list(slot, value, depth),
            // A function that stands in a set or list as written is a thunk in Nix, until somebody looks at it.
            Type::Function
                if depth > 0 && !slot.is_thunk() && matches!(value.as_func(), Some(Func::Closure(..))) =>
            {
                self.text("«thunk»");
            }
            Type::Function => self.function(value),
            Type::Thunk => self.text("«thunk»"),
        }
    }

    fn string(&mut self, text: &[u8]) {
        if text.len() <= self.limits.string_bytes {
            return print_string(&mut self.out, text);
        }
        print_string(&mut self.out, &text[..self.limits.string_bytes]);
        self.text(" ");
        self.elided(text.len() - self.limits.string_bytes, "byte", "bytes");
    }

    fn set(&mut self, value: Value, depth: usize) {
        let Some(set) = value.as_set() else { return };
        if !self.seen.insert(value.bits()) {
            return self.text("«repeated»");
        }
        if depth >= self.limits.depth {
            return self.text("{ ... }");
        }
        let flat = self.interp.heap.flat(set);
        let mut sorted: Vec<Attr> = flat.sorted(&self.interp.heap, &self.interp.symbols).collect();
        if self.limits.attrs != usize::MAX {
            let important = |a: &Attr| !matches!(self.interp.symbols.name(a.0), b"type" | b"_type");
            sorted.sort_by_key(important);
        }
        self.text("{");
        for (i, (name, value, _)) in sorted.iter().enumerate() {
            self.text(" ");
            if self.attrs >= self.limits.attrs {
                self.elided(sorted.len() - i, "attribute", "attributes");
                break;
            }
            print_attribute_name(&mut self.out, self.interp.symbols.name(*name));
            self.text(" = ");
            self.value(*value, depth + 1);
            self.text(";");
            self.attrs += 1;
        }
        self.text(" }");
    }

    fn list(&mut self, slot: Value, value: Value, depth: usize) {
        let items = value.as_list().unwrap_or_default();
        if !items.is_empty() && !self.seen.insert(slot.bits()) {
            return self.text("«repeated»");
        }
        if depth >= self.limits.depth {
            return self.text("[ ... ]");
        }
        self.text("[");
        for (i, item) in items.iter().enumerate() {
            self.text(" ");
            if self.items >= self.limits.items {
                self.elided(items.len() - i, "item", "items");
                break;
            }
            self.value(*item, depth + 1);
            self.items += 1;
        }
        self.text(" ]");
    }

    fn function(&mut self, value: Value) {
        let (func, done) = match value.as_func() {
            Some(Func::Partial(inner, args)) => (inner.as_func(), args.len()),
            other => (other, 0),
        };
        match func {
            Some(Func::Builtin(b)) => {
                let partial = if done > 0 { "partially applied " } else { "" };
                self.text(&format!("«{partial}primop {}»", b.public_name()));
            }
            Some(Func::Closure(code, _)) => {
                self.text("«lambda");
                let param = code.params.get(done);
                if let Some(name) = param.and_then(|p| p.name) {
                    self.text(" ");
                    print_attribute_name(&mut self.out, self.interp.symbols.name(name));
                }
                let place = self
                    .interp
                    .sources
                    .place(param.map_or(crate::pos::Pos::NONE, |p| p.pos));
                self.text(&format!(" @ {place}»"));
            }
            _ => self.text("«unknown»"),
        }
    }
}
