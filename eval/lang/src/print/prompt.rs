//! Values as a prompt shows them: indented, evaluated while they are printed, errors in their place.
//!
//! The form is that of `nix repl` in Nix 2.34: sets and lists below the depth asked for are `{ ... }` and `[ ... ]`,
//! derivations are named by their store path, and what was printed before is `«repeated»`.

use rustc_hash::FxHashSet;

use crate::error::{Context, ErrorKind, R};
use crate::heap::attrs::SetRef;
use crate::heap::context::Ctx;
use crate::heap::value::{Type, Value};
use crate::interp::{Coerce, Interp};
use crate::pos::Pos;
use crate::pure::float_format;
use crate::pure::string_ops::{print_attribute_name, print_string};
use crate::symbol::{Symbol, sym};

/// How deep a value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptDepth {
    /// Sets and lists inside the value are not opened.
    Outermost,
    /// Everything is evaluated and shown; a string is its own text.
    Whole,
}

/// Whether terminal colours are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptStyle {
    /// Text only.
    Plain,
    /// With ANSI colours, those of Nix.
    Colored,
}

/// Bytes kept before they are handed on.
const CHUNK_BYTES: usize = 64 << 10;
const INDENT: &str = "  ";

const BLUE: &str = "\x1b[34;1m";
const CYAN: &str = "\x1b[36;1m";
const GREEN: &str = "\x1b[32;1m";
const MAGENTA: &str = "\x1b[35;1m";
const RED: &str = "\x1b[31;1m";
const NORMAL: &str = "\x1b[0m";

struct Printer<'i, 'o> {
    interp: &'i mut Interp,
    out: Vec<u8>,
    sink: &'o mut dyn FnMut(&[u8]),
    depth: PromptDepth,
    style: PromptStyle,
    indent: usize,
    seen: FxHashSet<u64>,
}

impl Interp {
    /// Evaluates and prints a value, handing the text on in parts. An error of the value itself is the caller's.
    pub(crate) fn print_at_prompt(
        &mut self,
        value: Value,
        depth: PromptDepth,
        style: PromptStyle,
        sink: &mut dyn FnMut(&[u8]),
    ) -> R<()> {
        let forced = self.force(value)?;
        if let (PromptDepth::Whole, Some(text)) = (depth, forced.as_str()) {
            sink(text);
            return Ok(());
        }
        let mut printer = Printer {
            interp: self,
            out: Vec::new(),
            sink,
            depth,
            style,
            indent: 0,
            seen: FxHashSet::default(),
        };
        printer.value(value, 0)?;
        (printer.sink)(&printer.out);
        Ok(())
    }
}

impl Printer<'_, '_> {
    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn colored(&mut self, color: &str, text: &[u8]) {
        if self.style == PromptStyle::Colored {
            self.text(color);
        }
        self.out.extend_from_slice(text);
        if self.style == PromptStyle::Colored {
            self.text(NORMAL);
        }
    }

    fn line_break(&mut self, is_split: bool) {
        if !is_split {
            return self.text(" ");
        }
        self.text("\n");
        for _ in 0..self.indent {
            self.text(INDENT);
        }
        if self.out.len() > CHUNK_BYTES {
            (self.sink)(&self.out);
            self.out.clear();
        }
    }

    /// Prints what stands in a slot of a set or list; an error is printed in its place, unless the user asked to stop.
    fn inner(&mut self, slot: Value, depth: usize) -> R<()> {
        let (mark, indent) = (self.interp.mark(), self.indent);
        let Err(error) = self.value(slot, depth) else {
            return Ok(());
        };
        if error.kind == ErrorKind::Interrupted {
            return Err(error);
        }
        self.interp.restore(mark);
        self.indent = indent;
        let message = self.interp.report(&error).message.clone();
        self.colored(RED, format!("«error: {message}»").as_bytes());
        Ok(())
    }

    fn value(&mut self, slot: Value, depth: usize) -> R<()> {
        let value = self.interp.force(slot)?;
        match value.kind_of() {
            Type::Int => self.colored(CYAN, value.as_int().unwrap_or_default().to_string().as_bytes()),
            Type::Float => {
                let text = float_format::print_value(value.as_float().unwrap_or_default());
                self.colored(CYAN, text.as_bytes());
            }
            Type::Bool if value == Value::TRUE => self.colored(CYAN, b"true"),
            Type::Bool => self.colored(CYAN, b"false"),
            Type::Null => self.colored(CYAN, b"null"),
            Type::String => {
                let mut quoted = Vec::new();
                print_string(&mut quoted, value.as_str().unwrap_or_default());
                self.colored(MAGENTA, &quoted);
            }
            Type::Path => self.colored(GREEN, value.as_path().unwrap_or_default()),
            Type::Set => {
                let Some(set) = value.as_set() else { return Ok(()) };
                // there is only one empty set in Nix
                let identity = if set.len() == 0 { 0 } else { value.bits() };
                if !self.seen.insert(identity) {
                    self.colored(MAGENTA, "«repeated»".as_bytes());
                    return Ok(());
                }
                return self.set(set, depth);
            }
            Type::List => return self.list(slot, value.as_list().unwrap_or_default(), depth),
            Type::Function | Type::Thunk => {
                let shown = self.interp.show_value(value);
                self.colored(BLUE, shown.as_bytes());
            }
        }
        Ok(())
    }

    fn opens(&self, depth: usize) -> bool {
        self.depth == PromptDepth::Whole || depth == 0
    }

    fn set(&mut self, set: SetRef, depth: usize) -> R<()> {
        if self.interp.is_derivation(set)? {
            return self.derivation(set);
        }
        if !self.opens(depth) {
            self.text("{ ... }");
            return Ok(());
        }
        let flat = self.interp.heap.flat(set);
        let attrs: Vec<(Symbol, Value)> = flat
            .sorted(&self.interp.heap, &self.interp.symbols)
            .map(|(name, value, _)| (name, value))
            .collect();
        let is_split = self.is_split(attrs.iter().map(|(_, value)| *value))?;
        self.text("{");
        self.indent += 1;
        for (name, value) in attrs {
            self.line_break(is_split);
            print_attribute_name(&mut self.out, self.interp.symbols.name(name));
            self.text(" = ");
            self.deeper(|s| s.inner(value, depth + 1))?;
            self.text(";");
        }
        self.indent -= 1;
        self.line_break(is_split);
        self.text("}");
        Ok(())
    }

    fn list(&mut self, slot: Value, items: &[Value], depth: usize) -> R<()> {
        if !items.is_empty() && !self.seen.insert(slot.bits()) {
            self.colored(MAGENTA, "«repeated»".as_bytes());
            return Ok(());
        }
        if !self.opens(depth) {
            self.text("[ ... ]");
            return Ok(());
        }
        let is_split = self.is_split(items.iter().copied())?;
        self.text("[");
        self.indent += 1;
        for item in items {
            self.line_break(is_split);
            self.deeper(|s| s.inner(*item, depth + 1))?;
        }
        self.indent -= 1;
        self.line_break(is_split);
        self.text("]");
        Ok(())
    }

    /// Whether every item gets a line of its own: several, or one that may need lines itself. An only item is evaluated,
    /// and an error of it is one of the whole.
    fn is_split(&mut self, mut items: impl ExactSizeIterator<Item = Value>) -> R<bool> {
        match (items.len(), items.next()) {
            (1, Some(item)) => {
                let kind = self.interp.force(item)?.kind_of();
                Ok(matches!(kind, Type::Set | Type::List))
            }
            (count, _) => Ok(count > 0),
        }
    }

    fn deeper(&mut self, print: impl FnOnce(&mut Self) -> R<()>) -> R<()> {
        self.interp.check_stack()?;
        self.interp.enter(Pos::NONE)?;
        let result = print(self);
        self.interp.leave();
        result
    }

    fn derivation(&mut self, set: SetRef) -> R<()> {
        let mut shown = "«derivation".to_owned();
        if let Some((path, pos)) = set.get(sym::drv_path) {
            let what = "while evaluating the drvPath of a derivation";
            let mut ctx = Ctx::EMPTY;
            let text = self.interp.coerce(path, &mut ctx, Coerce::PLAIN, pos, what);
            let text = text.context(pos, "")?;
            shown.push(' ');
            shown.push_str(&String::from_utf8_lossy(&text));
        }
        shown.push('»');
        self.colored(GREEN, shown.as_bytes());
        Ok(())
    }
}
