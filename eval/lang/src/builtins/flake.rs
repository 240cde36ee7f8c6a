//! Flake references.

use crate::error::{ErrorKind, EvalError, R, fail};
use crate::heap::attrs::Attr;
use crate::heap::value::{Type, Value};
use crate::interp::Interp;
use crate::io::FetchAttr;
use crate::pos::Pos;
use crate::pure::flakeref::{
    Attributes, FlakeRefError, VerifiedFetches, flake_ref_to_string, parse_flake_ref as parse,
};

fn failed(error: &FlakeRefError) -> Box<EvalError> {
    EvalError::new(ErrorKind::Eval, error.to_string())
}

pub(super) fn parse_flake_ref(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    super::derivation::require(true, interp.settings.features.flakes, "flakes")?;
    let what = "while evaluating the argument passed to builtins.parseFlakeRef";
    let text = String::from_utf8_lossy(interp.plain_string(args[0], Pos::NONE, what)?).into_owned();
    let parsed = parse(&text, VerifiedFetches::Disabled).map_err(|e| failed(&e))?;
    let mut attrs: Vec<Attr> = Vec::with_capacity(parsed.len());
    for (name, attr) in parsed {
        let value = match attr {
            FetchAttr::String(text) => interp.heap.string(text.as_bytes()),
            FetchAttr::Int(n) => interp.heap.int(i64::try_from(n).unwrap_or(i64::MAX)),
            FetchAttr::Bool(b) => Value::bool(b),
        };
        attrs.push((interp.symbols.intern(name.as_bytes()), value, Pos::NONE));
    }
    Ok(interp.heap.set_of(attrs))
}

pub(super) fn flake_ref_to_string_(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    super::derivation::require(true, interp.settings.features.flakes, "flakes")?;
    let what = "while evaluating the argument passed to builtins.flakeRefToString";
    let set = interp.expect_set(args[0], Pos::NONE, what)?;
    let mut attrs = Attributes::new();
    let flat = interp.heap.flat(set);
    for (name, value, _) in flat.sorted(&interp.heap, &interp.symbols) {
        let name = interp.symbols.text(name);
        let value = interp.force(value)?;
        let attr = match value.kind_of() {
            Type::Int => {
                let n = value.as_int().unwrap_or_default();
                let Ok(n) = u64::try_from(n) else {
                    let text = format!("negative value given for flake ref attr {name}: {n}");
                    return fail(ErrorKind::Eval, text);
                };
                FetchAttr::Int(n)
            }
            Type::Bool => FetchAttr::Bool(value == Value::TRUE),
            Type::String => {
                FetchAttr::String(String::from_utf8_lossy(value.as_str().unwrap_or_default()).into_owned())
            }
            _ => {
                let what = interp.show_type(value);
                let text = format!(
                    "flake reference attribute sets may only contain integers, Booleans, and strings, but attribute '{name}' is {what}"
                );
                return fail(ErrorKind::Eval, text);
            }
        };
        attrs.insert(name, attr);
    }
    let text = flake_ref_to_string(&attrs, VerifiedFetches::Disabled).map_err(|e| failed(&e))?;
    Ok(interp.heap.string(text.as_bytes()))
}
