//! Values as JSON (`builtins.toJSON`, `--json`, structured attributes).

use crate::error::{Context, ErrorKind, EvalError, R};
use crate::heap::context::Ctx;
use crate::heap::value::{Type, Value};
use crate::interp::Interp;
use crate::interp::fibers::wide::{Items, Job, Outcome};
use crate::pos::Pos;
use crate::pure::{float_format, json};

impl Interp {
    /// A value as JSON; what its strings refer to is added to `ctx`.
    ///
    /// Without `strict`, what is not evaluated yet is an error. Paths are copied to the store, or are their own text.
    pub(crate) fn write_json(
        &mut self,
        value: Value,
        strict: bool,
        copy_to_store: bool,
        ctx: &mut Ctx,
        pos: Pos,
    ) -> R<Vec<u8>> {
        let mut out = Vec::new();
        let mut writer = Writer {
            strict,
            ctx,
            out: &mut out,
        };
        self.json(value, &mut writer, copy_to_store, pos)?;
        Ok(out)
    }

    fn json(&mut self, value: Value, w: &mut Writer<'_>, copy: bool, pos: Pos) -> R<()> {
        let value = if w.strict { self.force(value)? } else { value };
        match value.kind_of() {
            Type::Int => w.text(&value.as_int().unwrap_or_default().to_string()),
            Type::Float => w.text(&float_format::print_json(value.as_float().unwrap_or_default())),
            Type::Bool => w.text(if value == Value::TRUE { "true" } else { "false" }),
            Type::Null => w.text("null"),
            Type::String => {
                let more = value.ctx();
                *w.ctx = self.union(*w.ctx, more);
                w.string(value.as_str().unwrap_or_default())?;
            }
            Type::Path => {
                let path = value.as_path().unwrap_or_default();
                if copy {
                    let stored = self.copy_to_store(path, w.ctx)?;
                    w.string(&stored)?;
                } else {
                    w.string(path)?;
                }
            }
            Type::Set => return self.deeper(pos, |s| s.json_set(value, w, copy, pos)),
            Type::List => return self.deeper(pos, |s| s.json_list(value, w, copy, pos)),
            Type::Function | Type::Thunk => {
                let what = self.show_type(value);
                return Err(
                    EvalError::new(ErrorKind::Type, format!("cannot convert {what} to JSON")).at(pos),
                );
            }
        }
        Ok(())
    }

    fn json_set(&mut self, value: Value, w: &mut Writer<'_>, copy: bool, pos: Pos) -> R<()> {
        let peeled = self.peel(value, pos, true)?;
        let Some(set) = peeled.value.as_set() else {
            return self.json(peeled.value, w, copy && !peeled.through_to_string, pos);
        };
        w.text("{");
        let items = Items::sorted(self.heap.flat(set), self);
        let strict = w.strict;
        self.each_item(items, Job::Json { strict, copy, pos }, |s, i, early| {
            let (name, value, at) = items.get(i);
            if i > 0 {
                w.text(",");
            }
            let name = name.map(|n| s.symbols.name(n)).unwrap_or_default();
            w.string(name)?;
            w.text(":");
            let result = s.json_item(value, w, copy, at, early);
            result.context_with(at, || {
                format!(
                    "while evaluating attribute '{}'",
                    crate::syntax::show::identifier(name)
                )
            })
        })?;
        w.text("}");
        Ok(())
    }

    fn json_list(&mut self, value: Value, w: &mut Writer<'_>, copy: bool, pos: Pos) -> R<()> {
        w.text("[");
        let items = Items::list(value.as_list().unwrap_or_default());
        let strict = w.strict;
        self.each_item(items, Job::Json { strict, copy, pos }, |s, i, early| {
            if i > 0 {
                w.text(",");
            }
            let result = s.json_item(items.get(i).1, w, copy, pos, early);
            result.context_with(pos, || format!("while evaluating list element at index {i}"))
        })?;
        w.text("]");
        Ok(())
    }

    /// An item, which may have been written early. Only what is not evaluated yet is.
    fn json_item(
        &mut self,
        value: Value,
        w: &mut Writer<'_>,
        copy: bool,
        pos: Pos,
        early: R<Option<Outcome>>,
    ) -> R<()> {
        match early? {
            Some(Outcome::Text(text, ctx)) => {
                *w.ctx = self.union(*w.ctx, ctx);
                w.out.extend_from_slice(&text);
                Ok(())
            }
            _ => self.json(value, w, copy, pos),
        }
    }
}

struct Writer<'a> {
    strict: bool,
    ctx: &'a mut Ctx,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, text: &[u8]) -> R<()> {
        json::write_string(self.out, text)
            .map_err(|e| EvalError::new(ErrorKind::Eval, format!("JSON serialization error: {e}")))
    }
}
