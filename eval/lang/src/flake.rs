//! Flakes: `builtins.getFlake`.
//!
//! A flake is a tree with a `flake.nix` that names its inputs and makes outputs of them. [`inputs`] reads what `flake.nix`
//! asks for, [`lock`] reads `flake.lock`, [`graph`] puts both together, fetching what no lock file settles, and
//! this file makes the values: every input is fetched and evaluated only when something looks at it.
//!
//! Invariants
//! - what a lock file settles is never looked up anew, as long as `flake.nix` still asks for the same;
//! - nothing is written: locks made here live as long as the evaluation.
//!
//! Source: Nix manual 2.34, `nix3-flake` (flake format, lock files, follows); behaviour recorded from Nix 2.34.

mod graph;
mod inputs;
mod lock;
mod reference;

use crate::error::{ErrorKind, EvalError, R, fail};
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::io::{FetchAttr, FetchRequest, Fetched};
use crate::pos::{Origin, Pos};
use crate::pure::path_ops;
use crate::settings::Purity;
use crate::symbol::sym;
use graph::{Graph, Source};
use reference::Reference;

/// A fetcher attribute with its name.
pub(crate) type Attr = (String, FetchAttr);

/// Makes values of the nodes of a graph. A node's `source` is what its tree is known by; `dir` is empty or starts with a
/// slash.
const CALL: &[u8] = br#"
nodes: root:
let
  make = _: node:
    let
      source = if node ? parent then made.${node.parent}.source else node.source;
      folder = source.outPath + node.dir;
      flake = import (folder + "/flake.nix");
      inputs = builtins.mapAttrs (_: key: made.${key}.value) node.inputs;
      outputs = flake.outputs (inputs // { self = whole; });
      whole = outputs // source // {
        outPath = folder;
        inherit inputs outputs;
        sourceInfo = source;
        _type = "flake";
      };
      plain = source // { outPath = folder; sourceInfo = source; };
    in
    { inherit source; value = if node.flake then whole else plain; };
  made = builtins.mapAttrs make nodes;
in
made.${root}.value
"#;

/// The value of the flake a reference names.
pub(crate) fn get_flake(interp: &mut Interp, text: &str) -> R<Value> {
    let reference = Reference::parse(text)?;
    if interp.settings.purity == Purity::Pure && !reference.is_locked() {
        return fail(
            ErrorKind::Restricted,
            format!("cannot call 'getFlake' on unlocked flake reference '{text}' (use --impure to override)"),
        );
    }
    let graph = Graph::of(interp, &reference)?;
    call(interp, &graph)
}

fn call(interp: &mut Interp, graph: &Graph) -> R<Value> {
    let origin = Origin::Internal("«nix-internal»/call-flake.nix");
    let code = interp.compile(&CALL.into(), origin, path_ops::dir_of_path(b"/"), &[])?;
    let function = interp.run_code(code)?;
    let names: Vec<_> = [&b"source"[..], b"dir", b"flake", b"inputs", b"parent"]
        .iter()
        .map(|name| interp.symbols.intern(name))
        .collect();
    let &[source, dir, flake, inputs, parent] = names.as_slice() else {
        return fail(ErrorKind::Eval, "the names of a flake's node are missing");
    };
    let of_root = if graph.is_changed {
        Fallback::LeftOut
    } else {
        Fallback::None
    };
    let mut nodes = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let mut keys = Vec::new();
        for (name, target) in graph.inputs_of(index)? {
            let name = interp.symbols.intern(name.as_bytes());
            keys.push((name, key_value(interp, target), Pos::NONE));
        }
        let mut attrs = vec![
            (dir, interp.heap.string(node.dir().as_bytes()), Pos::NONE),
            (flake, Value::bool(node.is_flake), Pos::NONE),
            (inputs, interp.heap.set_of(keys), Pos::NONE),
        ];
        match &node.source {
            Source::Fetched(fetched) => {
                let commit = if index == 0 { of_root } else { Fallback::None };
                attrs.push((source, tree_value(interp, fetched, commit), Pos::NONE));
            }
            Source::Locked(locked) => attrs.push((source, fetched_later(interp, locked), Pos::NONE)),
            Source::Inside(owner) => attrs.push((parent, key_value(interp, *owner), Pos::NONE)),
        }
        let key = interp.symbols.intern(key(index).as_bytes());
        nodes.push((key, interp.heap.set_of(attrs), Pos::NONE));
    }
    let nodes = interp.heap.set_of(nodes);
    let root = key_value(interp, 0);
    interp.call(function, &[nodes, root], Pos::NONE)
}

fn key(index: usize) -> String {
    format!("n{index}")
}

fn key_value(interp: &Interp, index: usize) -> Value {
    interp.heap.string(key(index).as_bytes())
}

/// A tree that is fetched when it is looked at.
fn fetched_later(interp: &mut Interp, locked: &[Attr]) -> Value {
    let mut attrs = Vec::new();
    for (name, attr) in locked {
        let name = interp.symbols.intern(name.as_bytes());
        attrs.push((name, attr_value(interp, attr), Pos::NONE));
    }
    let attrs = interp.heap.set_of(attrs);
    let fetch = crate::builtins::fetch_locked_tree(interp);
    interp.heap.apply(fetch, &[attrs])
}

/// What `rev` and `revCount` are of a tree that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// They are left out.
    None,
    /// They are zero, as `fetchGit` has it.
    Zero,
    /// They are left out even if it has some: with a lock file of its own it would be another commit.
    LeftOut,
}

pub(crate) fn attr_value(interp: &Interp, attr: &FetchAttr) -> Value {
    match attr {
        FetchAttr::String(text) => interp.heap.string(text.as_bytes()),
        FetchAttr::Int(n) => interp.heap.int(i64::try_from(*n).unwrap_or(i64::MAX)),
        FetchAttr::Bool(b) => Value::bool(*b),
    }
}

/// Fetches a tree by exact attributes.
pub(crate) fn fetch(interp: &mut Interp, attrs: Vec<Attr>) -> R<Fetched> {
    interp.fetch(&FetchRequest::Tree { attrs })
}

/// A fetched tree as `fetchTree` gives it.
pub(crate) fn tree_value(interp: &mut Interp, fetched: &Fetched, fallback: Fallback) -> Value {
    let find = |wanted: &str| {
        fetched
            .attrs
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, attr)| attr)
    };
    let text = |wanted: &str| match find(wanted) {
        Some(FetchAttr::String(text)) => Some(text.clone()),
        _ => None,
    };
    let mut out: Vec<(&str, FetchAttr)> = Vec::new();
    out.extend(text("narHash").map(|hash| ("narHash", FetchAttr::String(hash))));
    if text("type").as_deref() == Some("git") {
        let submodules = find("submodules") == Some(&FetchAttr::Bool(true));
        out.push(("submodules", FetchAttr::Bool(submodules)));
    }
    let zero = fallback == Fallback::Zero;
    let known = fallback != Fallback::LeftOut;
    let rev = text("rev").filter(|_| known);
    let rev = rev.or_else(|| zero.then(|| "0".repeat(40)));
    if let Some(rev) = rev {
        let short = rev.get(..7).unwrap_or(&rev).to_owned();
        out.push(("rev", FetchAttr::String(rev)));
        out.push(("shortRev", FetchAttr::String(short)));
    }
    match find("revCount") {
        Some(count) if known => out.push(("revCount", count.clone())),
        None if zero => out.push(("revCount", FetchAttr::Int(0))),
        _ => {}
    }
    for name in ["dirtyRev", "dirtyShortRev"] {
        out.extend(text(name).map(|text| (name, FetchAttr::String(text))));
    }
    if let Some(FetchAttr::Int(time)) = find("lastModified") {
        out.push(("lastModified", FetchAttr::Int(*time)));
        let date = crate::pure::time::utc_digits(*time);
        out.push(("lastModifiedDate", FetchAttr::String(date)));
    }
    let path = interp.io.store_dir().print(&fetched.path);
    let mut attrs = vec![(sym::out_path, interp.store_string(path.as_bytes()), Pos::NONE)];
    for (name, attr) in &out {
        let name = interp.symbols.intern(name.as_bytes());
        attrs.push((name, attr_value(interp, attr), Pos::NONE));
    }
    interp.heap.set_of(attrs)
}

fn flake_error(text: impl Into<String>) -> Box<EvalError> {
    EvalError::new(ErrorKind::Eval, text)
}
