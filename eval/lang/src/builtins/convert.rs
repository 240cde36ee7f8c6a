//! JSON, TOML and XML.

use crate::error::{ErrorKind, EvalError, R};
use crate::heap::context::Ctx;
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::pos::Pos;
use crate::pure::json::{Event, ParseJsonError, Parser};
use crate::pure::toml::{Document, ParseTomlError, Timestamps, Value as Toml, ValueId};
use crate::symbol::{Symbol, sym};
use rustc_hash::FxHashMap;

pub(super) fn to_json(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let text = interp.write_json(args[0], true, true, &mut ctx, Pos::NONE)?;
    Ok(interp.heap.string_ctx(&text, ctx))
}

pub(super) fn to_xml(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let text = interp.write_xml(args[0], true, false, &mut ctx)?;
    Ok(interp.heap.string_ctx(&text, ctx))
}

/// A container that is being read.
enum Open {
    List(Vec<Value>),
    Set(FxHashMap<Symbol, Value>, Symbol),
}

pub(super) fn from_json(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.fromJSON";
    let text = interp.plain_string(args[0], Pos::NONE, what)?;
    let mut open: Vec<Open> = Vec::new();
    let mut result = Value::NULL;
    for event in Parser::new(text) {
        let event = event.map_err(|e| {
            let error = EvalError::new(ErrorKind::Eval, e.to_string());
            match e {
                ParseJsonError::Syntax { .. } => error.frame(Pos::NONE, "while decoding a JSON string"),
                _ => error,
            }
        })?;
        let value = match event {
            Event::Null => Value::NULL,
            Event::Bool(b) => Value::bool(b),
            Event::Int(n) => interp.heap.int(n),
            Event::Float(x) => interp.heap.float(x),
            Event::String(s) => interp.heap.string(s.as_bytes()),
            Event::BeginArray => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::BeginObject => {
                open.push(Open::Set(FxHashMap::default(), sym::empty));
                continue;
            }
            Event::Key(name) => {
                let name = interp.symbols.intern(name.as_bytes());
                if let Some(Open::Set(_, key)) = open.last_mut() {
                    *key = name;
                }
                continue;
            }
            Event::EndArray | Event::EndObject => match open.pop() {
                Some(Open::List(items)) => interp.heap.list(&items),
                Some(Open::Set(attrs, _)) => interp
                    .heap
                    .set_of(attrs.into_iter().map(|(n, v)| (n, v, Pos::NONE)).collect()),
                None => Value::NULL,
            },
        };
        match open.last_mut() {
            Some(Open::List(items)) => items.push(value),
            Some(Open::Set(attrs, key)) => {
                attrs.insert(*key, value);
            }
            None => result = value,
        }
    }
    Ok(result)
}

pub(super) fn from_toml(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the argument passed to builtins.fromTOML";
    let text = interp.plain_string(args[0], Pos::NONE, what)?;
    let stamps = interp.settings.features.parse_toml_timestamps;
    let stamps = if stamps {
        Timestamps::Accept
    } else {
        Timestamps::Refuse
    };
    let document =
        Document::parse(text, stamps).map_err(|e| EvalError::new(ErrorKind::Eval, toml_message(&e)))?;
    toml_value(interp, &document, document.root())
}

/// The place of a syntax error stands on lines of its own, as toml11 prints it.
fn toml_message(error: &ParseTomlError) -> String {
    match error {
        ParseTomlError::Syntax { what, line, column } => {
            format!("while parsing TOML: [error] {what}\n --> fromTOML\n     | line {line}, column {column}")
        }
        other => other.to_string(),
    }
}

fn toml_value(interp: &mut Interp, document: &Document, id: ValueId) -> R<Value> {
    interp.check_stack()?;
    Ok(match document.get(id) {
        Some(Toml::Bool(b)) => Value::bool(*b),
        Some(Toml::Int(n)) => interp.heap.int(*n),
        Some(Toml::Float(x)) => interp.heap.float(*x),
        Some(Toml::String(s)) => interp.heap.string(s.as_bytes()),
        Some(Toml::Timestamp(text)) => {
            let (kind, text) = (
                interp.heap.string(b"timestamp"),
                interp.heap.string(text.as_bytes()),
            );
            interp.small_set(&[(sym::underscore_type, kind), (sym::value, text)])
        }
        Some(Toml::Array(items)) => {
            let items = items
                .iter()
                .map(|i| toml_value(interp, document, *i))
                .collect::<R<Vec<_>>>()?;
            interp.heap.list(&items)
        }
        Some(Toml::Table(members)) => {
            let mut attrs = Vec::with_capacity(members.len());
            for (name, value) in members {
                let value = toml_value(interp, document, *value)?;
                attrs.push((interp.symbols.intern(name.as_bytes()), value, Pos::NONE));
            }
            interp.heap.set_of(attrs)
        }
        None => Value::NULL,
    })
}
