//! Paths and files.

use nix_compat::hash::{HashAlgo, NixHash};
use nix_compat::store_path::StorePath;

use crate::error::{Context, ErrorKind, EvalError, R, fail};
use crate::heap::attrs::Attr;
use crate::heap::context::{ContextElem, Ctx};
use crate::heap::value::Value;
use crate::interp::{Coerce, Interp, rewrite};
use crate::io::{FileType, IngestMethod};
use crate::pos::Pos;
use crate::pure::path_ops;
use crate::settings::Purity;
use crate::symbol::sym;

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

pub(super) fn to_path(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the first argument passed to builtins.toPath";
    let path = interp.coerce_path(args[0], &mut ctx, Pos::NONE, what)?;
    Ok(interp.heap.string_ctx(&path, ctx))
}

pub(super) fn store_path(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    if interp.settings.purity == Purity::Pure {
        return fail(
            ErrorKind::Eval,
            "'builtins.storePath' is not allowed in pure evaluation mode",
        );
    }
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the first argument passed to 'builtins.storePath'";
    let mut path = interp.coerce_path(args[0], &mut ctx, Pos::NONE, what)?;
    let io = std::rc::Rc::clone(&interp.io);
    if io.store_dir().parse_bytes(&path).is_err() {
        path = interp.resolve_symlinks(&path)?;
    }
    let Ok((stored, _)) = io.store_dir().split(&path) else {
        return fail(
            ErrorKind::Eval,
            format!("path '{}' is not in the Nix store", shown(&path)),
        );
    };
    let printed = io.store_dir().print(&stored);
    let elem = ContextElem::Opaque(printed.as_bytes().into());
    if io.lacks_path(&stored).map_err(|e| Interp::io_error(&e))? {
        let realised = interp.realise_elems(std::slice::from_ref(&elem));
        realised.map_err(|error| match error.kind {
            ErrorKind::InvalidPath => {
                let text =
                    format!("path '{printed}' is required, but there is no substituter that can build it");
                EvalError::new(ErrorKind::InvalidPath, text)
            }
            _ => error,
        })?;
    }
    let elem = interp.contexts.single(elem);
    let ctx = interp.union(ctx, elem);
    Ok(interp.heap.string_ctx(&path, ctx))
}

pub(super) fn path_exists(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let result = exists(interp, args[0]);
    match result {
        Err(error) if error.kind == ErrorKind::Restricted => Ok(Value::FALSE),
        other => other.map(Value::bool),
    }
}

fn exists(interp: &mut Interp, arg: Value) -> R<bool> {
    let value = interp.force(arg)?;
    let directory = value
        .as_str()
        .is_some_and(|s| s.ends_with(b"/") || s.ends_with(b"/."));
    let path = interp.realise_path(value)?;
    let path = if directory {
        interp.resolve_symlinks(&path)?
    } else {
        interp.resolve_ancestors(&path)?
    };
    let found = interp.file_type(&path)?;
    Ok(if directory {
        found == Some(FileType::Directory)
    } else {
        found.is_some()
    })
}

pub(super) fn base_name_of(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the first argument passed to builtins.baseNameOf";
    let text = interp.coerce(args[0], &mut ctx, Coerce::PLAIN, Pos::NONE, what)?;
    Ok(interp.heap.string_ctx(path_ops::base_name_of(&text), ctx))
}

pub(super) fn dir_of(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let value = interp.force(args[0])?;
    if let Some(path) = value.as_path() {
        return Ok(interp.heap.path(path_ops::dir_of_path(path)));
    }
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the first argument passed to 'builtins.dirOf'";
    let text = interp.coerce(value, &mut ctx, Coerce::PLAIN, Pos::NONE, what)?;
    Ok(interp.heap.string_ctx(path_ops::dir_of_string(&text), ctx))
}

pub(super) fn read_file(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let path = interp.realise_path(args[0])?;
    let bytes = interp.read_file(&path)?;
    if memchr::memchr(0, &bytes).is_some() {
        let text = format!(
            "the contents of the file '{}' cannot be represented as a Nix string",
            shown(&path)
        );
        return fail(ErrorKind::Eval, text);
    }
    let ctx = references_in(interp, &path, &bytes);
    Ok(interp.heap.string_ctx(&bytes, ctx))
}

/// References of the store path a file is in that occur in its text.
fn references_in(interp: &mut Interp, path: &[u8], bytes: &[u8]) -> Ctx {
    let io = std::rc::Rc::clone(&interp.io);
    let Ok((stored, _)) = io.store_dir().split(path) else {
        return Ctx::EMPTY;
    };
    let references = io.references(&stored).unwrap_or_default();
    let occurs = |r: &StorePath| memchr::memmem::find(bytes, &r.hash_part()).is_some();
    let elems: Vec<ContextElem> = references
        .iter()
        .filter(|r| occurs(r))
        .map(|r| ContextElem::Opaque(io.store_dir().print(r).into_bytes().into()))
        .collect();
    interp.contexts.of(elems)
}

pub(super) fn read_file_type(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let path = interp.realise_path(args[0])?;
    let path = interp.resolve_ancestors(&path)?;
    match interp.file_type(&path)? {
        Some(kind) => Ok(interp.file_type_value(kind)),
        None => Err(Interp::not_there(&path)),
    }
}

pub(super) fn read_dir(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let path = interp.realise_path(args[0])?;
    let path = interp.resolve_symlinks(&path)?;
    let entries = interp.io.read_dir(&path).map_err(|e| Interp::io_error(&e))?;
    let mut attrs: Vec<Attr> = Vec::with_capacity(entries.len());
    for (name, kind) in entries {
        let kind = interp.file_type_value(kind);
        attrs.push((interp.symbols.intern(&name), kind, Pos::NONE));
    }
    Ok(interp.heap.set_of(attrs))
}

pub(super) fn find_file(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.findFile";
    let items = interp.expect_list(args[0], Pos::NONE, what)?;
    let mut entries = Vec::with_capacity(items.len());
    for item in items {
        let what = "while evaluating an element of the list passed to builtins.findFile";
        let set = interp.expect_set(*item, Pos::NONE, what)?;
        let prefix = match set.value_of(sym::prefix) {
            None => Vec::new(),
            Some(prefix) => {
                let what = "while evaluating the `prefix` attribute of an element of the list passed to builtins.findFile";
                interp.plain_string(prefix, Pos::NONE, what)?.to_vec()
            }
        };
        let (path, _) = interp.expect_attr(set, sym::path, "in an element of the __nixPath")?;
        let mut ctx = Ctx::EMPTY;
        let what =
            "while evaluating the `path` attribute of an element of the list passed to builtins.findFile";
        let path = interp
            .coerce(path, &mut ctx, Coerce::PLAIN, Pos::NONE, what)?
            .into_owned();
        let path = if ctx.is_empty() {
            path
        } else {
            let rewrites = interp.realise(ctx)?;
            rewrite(path, &rewrites)
        };
        entries.push((prefix, path));
    }
    let what = "while evaluating the second argument passed to builtins.findFile";
    let name = interp.plain_string(args[1], Pos::NONE, what)?;
    let found = interp.find_file(&entries, name)?;
    Ok(interp.heap.path(&found))
}

pub(super) fn to_file(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.toFile";
    let name = interp.plain_string(args[0], Pos::NONE, what)?;
    let name = String::from_utf8_lossy(name).into_owned();
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the second argument passed to builtins.toFile";
    let text = interp.expect_string(args[1], &mut ctx, Pos::NONE, what)?;
    let io = std::rc::Rc::clone(&interp.io);
    let mut references = Vec::new();
    for elem in interp.contexts.elems(ctx) {
        match &elem {
            ContextElem::Opaque(path) => references.extend(io.store_dir().parse_bytes(path).ok()),
            other => {
                let other = shown(&other.encode());
                let text = format!(
                    "files created by builtins.toFile may not reference derivations, but {name} references {other}"
                );
                return fail(ErrorKind::Eval, text);
            }
        }
    }
    let stored = io
        .add_text(&name, text, &references)
        .map_err(|e| Interp::io_error(&e))?;
    Ok(interp.store_string(io.store_dir().print(&stored).as_bytes()))
}

fn add_path(
    interp: &mut Interp,
    path: &[u8],
    ctx: Ctx,
    name: &[u8],
    method: IngestMethod,
    filter: Option<Value>,
    expected: Option<&NixHash>,
) -> R<Value> {
    let mut path = path.to_vec();
    if !ctx.is_empty() {
        let rewrites = interp.realise(ctx)?;
        path = rewrite(path, &rewrites);
    }
    let add = |interp: &mut Interp| {
        let real = interp.resolve_symlinks(&path)?;
        interp.import_filtered(&real, &String::from_utf8_lossy(name), method, filter, expected)
    };
    let stored = add(interp).context_with(Pos::NONE, || format!("while adding path '{}'", shown(&path)))?;
    Ok(interp.store_string(&stored))
}

pub(super) fn filter_source(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the second argument (the path to filter) passed to 'builtins.filterSource'";
    let path = interp.coerce_path(args[1], &mut ctx, Pos::NONE, what)?;
    let what = "while evaluating the first argument passed to builtins.filterSource";
    let filter = interp.expect_function(args[0], Pos::NONE, what)?;
    let name = path_ops::base_name_of(&path).to_vec();
    add_path(interp, &path, ctx, &name, IngestMethod::Nar, Some(filter), None)
}

pub(super) fn path(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let set = interp.expect_set(
        args[0],
        Pos::NONE,
        "while evaluating the argument passed to 'builtins.path'",
    )?;
    let mut ctx = Ctx::EMPTY;
    let (mut path, mut name, mut filter, mut expected) = (None, Vec::new(), None, None);
    let mut method = IngestMethod::Nar;
    for (attr, value, pos) in interp.heap.flat(set).iter() {
        match attr {
            sym::path => {
                let what = "while evaluating the 'path' attribute passed to 'builtins.path'";
                path = Some(interp.coerce_path(value, &mut ctx, pos, what)?);
            }
            sym::name => {
                let what = "while evaluating the `name` attribute passed to builtins.path";
                name = interp.plain_string(value, pos, what)?.to_vec();
            }
            sym::filter => {
                let what = "while evaluating the `filter` parameter passed to builtins.path";
                filter = Some(interp.expect_function(value, pos, what)?);
            }
            sym::recursive => {
                let what = "while evaluating the `recursive` attribute passed to builtins.path";
                method = if interp.expect_bool(value, pos, what)? {
                    IngestMethod::Nar
                } else {
                    IngestMethod::Flat
                };
            }
            sym::sha256 => {
                let what = "while evaluating the `sha256` attribute passed to builtins.path";
                let text = interp.plain_string(value, pos, what)?;
                expected = Some(super::hash::parse_or_empty(interp, text, Some(HashAlgo::Sha256))?);
            }
            other => {
                let name = interp.symbols.text(other);
                let text = format!("unsupported argument '{name}' to 'builtins.path'");
                return Err(EvalError::new(ErrorKind::Eval, text).at(pos));
            }
        }
    }
    let Some(path) = path else {
        return fail(
            ErrorKind::Eval,
            "missing required 'path' attribute in the first argument to 'builtins.path'",
        );
    };
    if name.is_empty() {
        name = path_ops::base_name_of(&path).to_vec();
    }
    add_path(interp, &path, ctx, &name, method, filter, expected.as_ref())
}
