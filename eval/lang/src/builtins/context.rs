//! String contexts.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::error::{ErrorKind, EvalError, R, fail};
use crate::heap::attrs::Attr;
use crate::heap::context::{ContextElem, Ctx};
use crate::heap::value::Value;
use crate::interp::{Coerce, Interp};
use crate::pos::Pos;
use crate::symbol::sym;

pub(super) fn has_context(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the argument passed to builtins.hasContext";
    interp.expect_string(args[0], &mut ctx, Pos::NONE, what)?;
    Ok(Value::bool(!ctx.is_empty()))
}

pub(super) fn unsafe_discard_string_context(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the argument passed to builtins.unsafeDiscardStringContext";
    let text = interp.coerce(args[0], &mut ctx, Coerce::STRICT, Pos::NONE, what)?;
    Ok(interp.heap.string(&text))
}

pub(super) fn unsafe_discard_output_dependency(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the argument passed to builtins.unsafeDiscardOutputDependency";
    let text = interp.coerce(args[0], &mut ctx, Coerce::STRICT, Pos::NONE, what)?;
    let elems = interp.contexts.elems(ctx).into_iter().map(|e| match e {
        ContextElem::DrvDeep(path) => ContextElem::Opaque(path),
        other => other,
    });
    let ctx = interp.contexts.of(elems);
    Ok(interp.heap.string_ctx(&text, ctx))
}

pub(super) fn add_drv_output_dependencies(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the argument passed to builtins.addDrvOutputDependencies";
    let text = interp.coerce(args[0], &mut ctx, Coerce::STRICT, Pos::NONE, what)?;
    let elems = interp.contexts.elems(ctx);
    let [elem] = elems.as_slice() else {
        let (shown, n) = (String::from_utf8_lossy(&text), elems.len());
        return fail(
            ErrorKind::Eval,
            format!("context of string '{shown}' must have exactly one element, but has {n}"),
        );
    };
    let path = match elem {
        ContextElem::DrvDeep(path) => Rc::clone(path),
        ContextElem::Opaque(path) if path.ends_with(b".drv") => Rc::clone(path),
        ContextElem::Opaque(path) => {
            let shown = String::from_utf8_lossy(path);
            return fail(ErrorKind::Eval, format!("path '{shown}' is not a derivation"));
        }
        ContextElem::Built { output, .. } => {
            let output = String::from_utf8_lossy(output);
            let text = format!(
                "`addDrvOutputDependencies` can only act on derivations, not on a derivation output such as '{output}'"
            );
            return fail(ErrorKind::Eval, text);
        }
    };
    let ctx = interp.contexts.single(ContextElem::DrvDeep(path));
    Ok(interp.heap.string_ctx(&text, ctx))
}

#[derive(Default)]
struct Info {
    path: bool,
    all_outputs: bool,
    outputs: Vec<Rc<[u8]>>,
}

pub(super) fn get_context(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the argument passed to builtins.getContext";
    interp.expect_string(args[0], &mut ctx, Pos::NONE, what)?;
    let mut infos: BTreeMap<Rc<[u8]>, Info> = BTreeMap::new();
    for elem in interp.contexts.elems(ctx) {
        match elem {
            ContextElem::Opaque(path) => infos.entry(path).or_default().path = true,
            ContextElem::DrvDeep(path) => infos.entry(path).or_default().all_outputs = true,
            ContextElem::Built { drv, output } => infos.entry(drv).or_default().outputs.push(output),
        }
    }
    let mut attrs: Vec<Attr> = Vec::new();
    for (path, info) in infos {
        let mut of_path = Vec::new();
        if info.path {
            of_path.push((sym::path, Value::TRUE));
        }
        if info.all_outputs {
            of_path.push((sym::all_outputs, Value::TRUE));
        }
        if !info.outputs.is_empty() {
            let outputs: Vec<Value> = info.outputs.iter().map(|o| interp.heap.string(o)).collect();
            of_path.push((sym::outputs, interp.heap.list(&outputs)));
        }
        attrs.push((
            interp.symbols.intern(&path),
            interp.small_set(&of_path),
            Pos::NONE,
        ));
    }
    Ok(interp.heap.set_of(attrs))
}

pub(super) fn append_context(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the first argument passed to builtins.appendContext";
    let text = interp.expect_string(args[0], &mut ctx, Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.appendContext";
    let more = interp.expect_set(args[1], Pos::NONE, what)?;
    let mut elems = Vec::new();
    for (name, info, pos) in interp.heap.flat(more).iter() {
        let path = interp.symbols.name(name);
        if interp.io.store_dir().parse_bytes(path).is_err() {
            let shown = String::from_utf8_lossy(path);
            let error = EvalError::new(
                ErrorKind::Eval,
                format!("context key '{shown}' is not a store path"),
            );
            return Err(error.at(pos));
        }
        append_path(interp, path, info, pos, &mut elems)?;
    }
    let more = interp.contexts.of(elems);
    let ctx = interp.union(ctx, more);
    Ok(interp.heap.string_ctx(text, ctx))
}

fn append_path(
    interp: &mut Interp,
    path: &'static [u8],
    info: Value,
    pos: Pos,
    elems: &mut Vec<ContextElem>,
) -> R<()> {
    let not_derivation = |what: &str| {
        let shown = String::from_utf8_lossy(path);
        let text = format!("tried to add {what} context of {shown}, which is not a derivation, to a string");
        Err(EvalError::new(ErrorKind::Eval, text).at(pos))
    };
    let is_derivation = path.ends_with(b".drv");
    let info = interp.expect_set(info, pos, "while evaluating the value of a string context")?;
    if let Some((flag, at)) = info.get(sym::path) {
        let what = "while evaluating the `path` attribute of a string context";
        if interp.expect_bool(flag, at, what)? {
            elems.push(ContextElem::Opaque(path.into()));
        }
    }
    if let Some((flag, at)) = info.get(sym::all_outputs) {
        let what = "while evaluating the `allOutputs` attribute of a string context";
        if interp.expect_bool(flag, at, what)? {
            if !is_derivation {
                return not_derivation("all-outputs");
            }
            elems.push(ContextElem::DrvDeep(path.into()));
        }
    }
    if let Some((outputs, at)) = info.get(sym::outputs) {
        let what = "while evaluating the `outputs` attribute of a string context";
        let outputs = interp.expect_list(outputs, at, what)?;
        if !outputs.is_empty() && !is_derivation {
            return not_derivation("derivation output");
        }
        for output in outputs {
            let what = "while evaluating an output name within a string context";
            let output = interp.plain_string(*output, at, what)?;
            elems.push(ContextElem::Built {
                drv: path.into(),
                output: output.into(),
            });
        }
    }
    Ok(())
}
