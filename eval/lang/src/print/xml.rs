//! Values as XML (`builtins.toXML`, `--xml`).

use rustc_hash::FxHashSet;

use crate::code::Param;
use crate::error::R;
use crate::heap::attrs::SetRef;
use crate::heap::context::Ctx;
use crate::heap::object::Func;
use crate::heap::value::{Type, Value};
use crate::interp::Interp;
use crate::pos::{Origin, Pos};
use crate::pure::float_format;
use crate::pure::xml::XmlWriter;
use crate::symbol::sym;

struct Writer<'a> {
    doc: XmlWriter,
    strict: bool,
    location: bool,
    ctx: &'a mut Ctx,
    derivations: FxHashSet<Vec<u8>>,
}

impl Interp {
    /// A value as an XML document; what its strings refer to is added to `ctx`.
    pub(crate) fn write_xml(
        &mut self,
        value: Value,
        strict: bool,
        location: bool,
        ctx: &mut Ctx,
    ) -> R<Vec<u8>> {
        let doc = XmlWriter::new();
        let mut writer = Writer {
            doc,
            strict,
            location,
            ctx,
            derivations: FxHashSet::default(),
        };
        writer.doc.open("expr", &[]);
        self.xml(value, &mut writer)?;
        writer.doc.close();
        Ok(writer.doc.finish())
    }

    fn xml(&mut self, value: Value, w: &mut Writer<'_>) -> R<()> {
        let value = if w.strict {
            self.force(value)?
        } else {
            evaluated(value)
        };
        let scalar = |w: &mut Writer<'_>, name, text: &[u8]| w.doc.empty(name, &[("value", text)]);
        match value.kind_of() {
            Type::Int => scalar(
                w,
                "int",
                value.as_int().unwrap_or_default().to_string().as_bytes(),
            ),
            Type::Float => {
                scalar(
                    w,
                    "float",
                    float_format::print_value(value.as_float().unwrap_or_default()).as_bytes(),
                );
            }
            Type::Bool => scalar(w, "bool", if value == Value::TRUE { b"true" } else { b"false" }),
            Type::Null => w.doc.empty("null", &[]),
            Type::String => {
                let more = value.ctx();
                *w.ctx = self.union(*w.ctx, more);
                scalar(w, "string", value.as_str().unwrap_or_default());
            }
            Type::Path => scalar(w, "path", value.as_path().unwrap_or_default()),
            Type::Set => return self.deeper(Pos::NONE, |s| s.xml_set(value, w)),
            Type::List => {
                w.doc.open("list", &[]);
                self.deeper(Pos::NONE, |s| {
                    value
                        .as_list()
                        .unwrap_or_default()
                        .iter()
                        .try_for_each(|item| s.xml(*item, w))
                })?;
                w.doc.close();
            }
            Type::Function => self.xml_function(value, w),
            Type::Thunk => w.doc.empty("unevaluated", &[]),
        }
        Ok(())
    }

    fn xml_set(&mut self, value: Value, w: &mut Writer<'_>) -> R<()> {
        let Some(set) = value.as_set() else { return Ok(()) };
        if !self.is_derivation(set)? {
            w.doc.open("attrs", &[]);
            self.xml_attrs(set, w)?;
            w.doc.close();
            return Ok(());
        }
        let drv_path = self.xml_path(set, sym::drv_path, w.strict)?;
        let out_path = self.xml_path(set, sym::out_path, w.strict)?;
        let attrs = [("drvPath", &drv_path), ("outPath", &out_path)];
        let attrs: Vec<(&str, &[u8])> = attrs
            .into_iter()
            .filter_map(|(n, p)| Some((n, p.as_deref()?)))
            .collect();
        w.doc.open("derivation", &attrs);
        let first = drv_path.is_some_and(|path| !path.is_empty() && w.derivations.insert(path));
        if first {
            self.xml_attrs(set, w)?;
        } else {
            w.doc.empty("repeated", &[]);
        }
        w.doc.close();
        Ok(())
    }

    fn xml_path(&mut self, set: SetRef, name: crate::symbol::Symbol, strict: bool) -> R<Option<Vec<u8>>> {
        let Some(value) = set.value_of(name) else {
            return Ok(None);
        };
        let value = if strict {
            self.force(value)?
        } else {
            evaluated(value)
        };
        Ok(value.as_str().map(<[u8]>::to_vec))
    }

    fn xml_attrs(&mut self, set: SetRef, w: &mut Writer<'_>) -> R<()> {
        let flat = self.heap.flat(set);
        for (name, value, pos) in flat.sorted(&self.heap, &self.symbols) {
            let place = if w.location {
                self.xml_location(pos)
            } else {
                Vec::new()
            };
            let mut attrs: Vec<(&str, &[u8])> = vec![("name", self.symbols.name(name))];
            attrs.extend(place.iter().map(|(n, v)| (*n, v.as_slice())));
            w.doc.open("attr", &attrs);
            self.xml(value, w)?;
            w.doc.close();
        }
        Ok(())
    }

    fn xml_location(&self, pos: Pos) -> Vec<(&'static str, Vec<u8>)> {
        let Some((line, column)) = self.sources.line_column(pos) else {
            return Vec::new();
        };
        let mut attrs = Vec::new();
        if let Some(Origin::File(path)) = self.sources.origin(pos) {
            attrs.push(("path", path.to_vec()));
        }
        attrs.push(("line", line.to_string().into_bytes()));
        attrs.push(("column", column.to_string().into_bytes()));
        attrs
    }

    fn xml_function(&self, value: Value, w: &mut Writer<'_>) {
        let param = match value.as_func() {
            Some(Func::Closure(code, _)) => code.params.first(),
            Some(Func::Partial(inner, args)) => match inner.as_func() {
                Some(Func::Closure(code, _)) => code.params.get(args.len()),
                _ => None,
            },
            _ => None,
        };
        let Some(param) = param else {
            return w.doc.empty("unevaluated", &[]);
        };
        let place = if w.location {
            self.xml_location(param.pos)
        } else {
            Vec::new()
        };
        let place: Vec<(&str, &[u8])> = place.iter().map(|(n, v)| (*n, v.as_slice())).collect();
        w.doc.open("function", &place);
        self.xml_param(param, w);
        w.doc.close();
    }

    fn xml_param(&self, param: &Param, w: &mut Writer<'_>) {
        let arg = param.arg.map(|a| self.symbols.name(a));
        let Some(formals) = param.formals else {
            return w.doc.empty("varpat", &[("name", arg.unwrap_or_default())]);
        };
        let mut attrs: Vec<(&str, &[u8])> = Vec::new();
        if let Some(arg) = arg {
            attrs.push(("name", arg));
        }
        if formals.ellipsis {
            attrs.push(("ellipsis", b"1"));
        }
        w.doc.open("attrspat", &attrs);
        let mut names: Vec<&[u8]> = formals.list.iter().map(|f| self.symbols.name(f.name)).collect();
        names.sort_unstable();
        for name in names {
            w.doc.empty("attr", &[("name", name)]);
        }
        w.doc.close();
    }
}

/// The value of a thunk that has been evaluated; anything else as it is.
fn evaluated(value: Value) -> Value {
    value
        .as_thunk()
        .and_then(crate::heap::thunk::Thunk::done)
        .unwrap_or(value)
}
