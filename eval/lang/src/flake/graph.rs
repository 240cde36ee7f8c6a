//! The inputs of a flake, of its inputs, and so on: which tree each is, by lock file or fetched now.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::inputs::{self, Input, Inputs};
use super::lock::{LockEdge, LockFile};
use super::reference::Reference;
use super::{Attr, fetch, flake_error};
use crate::error::{EvalError, R};
use crate::interp::Interp;
use crate::io::{FetchAttr, Fetched, Notice};
use crate::pos::Pos;
use crate::pure::path_ops;
use crate::settings::Purity;

/// Flakes inside each other, and inputs that follow each other.
const DEPTH_MAX: usize = 128;
/// Flakes and trees of one graph.
const NODES_MAX: usize = 100_000;
/// Inputs looked at to find what one input follows.
const FOLLOWED_MAX: usize = 100_000;

/// A flake and all it depends on; the first node is the flake itself.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    /// Whether the flake's lock file would have to be written anew.
    pub(super) is_changed: bool,
}

/// A flake or tree.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) source: Source,
    pub(super) is_flake: bool,
    /// The folder of `flake.nix`, without slashes at its ends.
    dir: String,
    /// Names from the root.
    path: String,
    inputs: BTreeMap<String, Edge>,
}

/// Where a node's tree comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// It is there.
    Fetched(Fetched),
    /// It is fetched when it is needed, by these attributes.
    Locked(Vec<Attr>),
    /// It is part of another node's tree.
    Inside(usize),
}

#[derive(Clone, Debug)]
enum Edge {
    Node(usize),
    /// By names from the root.
    Follows(Vec<String>),
}

/// What an input is to be instead of what its flake says.
struct Override {
    input: Input,
    /// Names from the root to the flake that says so.
    said_by: Vec<String>,
}

/// What a lock file says of a node: the file, and the node's name in it.
#[derive(Clone)]
struct Known {
    file: Rc<LockFile>,
    node: String,
    /// Names from the root to the flake whose lock file it is.
    root: Vec<String>,
}

/// Where the inputs of a node are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Its `flake.nix`.
    Flake,
    /// The lock file, which is taken at its word.
    Lock,
}

/// Whose registries say what a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// The user's and the machine's, then the global one.
    Own,
    /// The global one.
    Global,
}

/// A flake that was fetched.
struct Flake {
    tree: Fetched,
    dir: String,
    folder: Vec<u8>,
    inputs: Inputs,
}

struct Locker<'i> {
    interp: &'i mut Interp,
    graph: Graph,
    overrides: HashMap<Vec<String>, Override>,
    /// Flakes whose inputs are being settled, but for the first.
    parents: Vec<Reference>,
}

/// What was looked at on the way to what an input follows.
#[derive(Default)]
struct Walk<'g> {
    open: Vec<&'g [String]>,
    steps: usize,
}

impl Graph {
    /// The graph of the flake a reference names.
    pub(super) fn of(interp: &mut Interp, reference: &Reference) -> R<Self> {
        let flake = fetch_flake(interp, reference, Names::Own)?;
        let locked = Reference {
            attrs: flake.tree.attrs.clone(),
            dir: flake.dir.clone(),
        };
        let of_flake = |error: Box<EvalError>| {
            let shown = locked.shown();
            error.frame(
                Pos::NONE,
                format!("while updating the lock file of flake '{shown}'"),
            )
        };
        let known = read_lock(interp, &flake.folder, &[]).map_err(of_flake)?;
        let mut locker = Locker {
            interp,
            graph: Self::default(),
            overrides: HashMap::new(),
            parents: Vec::new(),
        };
        let root = locker.add(Source::Fetched(flake.tree), true, &flake.dir, &[])?;
        let done = locker.lock(root, &[], &flake.inputs, known.as_ref(), Asked::Flake);
        done.and_then(|()| locker.graph.check()).map_err(of_flake)?;
        if locker.graph.is_changed {
            let shown = reference.shown();
            let text = format!("warning: not writing modified lock file of flake '{shown}'");
            locker.interp.io.notice(Notice::Warning(text));
        }
        Ok(locker.graph)
    }

    /// Whether all that is followed is there.
    fn check(&self) -> R<()> {
        (0..self.nodes.len()).try_for_each(|node| self.inputs_of(node).map(|_| ()))
    }

    /// Names and nodes of a node's inputs.
    pub(super) fn inputs_of(&self, node: usize) -> R<Vec<(&str, usize)>> {
        let mut found = Vec::new();
        for (name, edge) in &self.nodes[node].inputs {
            let target = self.resolve(edge, &mut Walk::default())?;
            let target = target.ok_or_else(|| {
                let (path, followed) = (joined(&self.nodes[node].path, name), edge.shown());
                flake_error(format!(
                    "input '{path}' follows a non-existent input '{followed}'"
                ))
            })?;
            found.push((name.as_str(), target));
        }
        Ok(found)
    }

    /// The node an edge leads to; `None` when it follows what is not there.
    fn resolve<'g>(&'g self, edge: &'g Edge, walk: &mut Walk<'g>) -> R<Option<usize>> {
        let names = match edge {
            Edge::Node(node) => return Ok(Some(*node)),
            Edge::Follows(names) => names,
        };
        if walk.open.contains(&names.as_slice()) {
            let shown = walk.open.iter().copied().chain([names.as_slice()]);
            let shown: Vec<String> = shown.map(|names| names.join("/")).collect();
            return Err(flake_error(format!(
                "follow cycle detected: [{}]",
                shown.join(" -> ")
            )));
        }
        walk.open.push(names);
        let mut node = 0;
        for name in names {
            walk.steps += 1;
            if walk.steps > FOLLOWED_MAX || walk.open.len() > DEPTH_MAX {
                let path = names.join("/");
                return Err(flake_error(format!(
                    "the flake input '{path}' follows too many others"
                )));
            }
            let Some(edge) = self.nodes[node].inputs.get(name) else {
                return Ok(None);
            };
            let Some(next) = self.resolve(edge, walk)? else {
                return Ok(None);
            };
            node = next;
        }
        walk.open.pop();
        Ok(Some(node))
    }
}

impl Edge {
    /// For messages.
    fn shown(&self) -> String {
        match self {
            Self::Node(_) => String::new(),
            Self::Follows(names) => names.join("/"),
        }
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}/{name}")
    }
}

impl Node {
    /// The folder of `flake.nix`, with a slash in front, or nothing.
    pub(super) fn dir(&self) -> String {
        if self.dir.is_empty() {
            String::new()
        } else {
            format!("/{}", self.dir)
        }
    }
}

impl Locker<'_> {
    fn add(&mut self, source: Source, is_flake: bool, dir: &str, path: &[String]) -> R<usize> {
        if self.graph.nodes.len() >= NODES_MAX {
            return Err(flake_error(format!("a flake has more than {NODES_MAX} inputs")));
        }
        self.graph.nodes.push(Node {
            source,
            is_flake,
            dir: dir.to_owned(),
            path: path.join("/"),
            inputs: BTreeMap::new(),
        });
        Ok(self.graph.nodes.len() - 1)
    }

    /// Settles the inputs of a node; `path` are the names that lead to it.
    fn lock(
        &mut self,
        node: usize,
        path: &[String],
        asked: &Inputs,
        known: Option<&Known>,
        from: Asked,
    ) -> R<()> {
        if path.len() > DEPTH_MAX {
            let path = path.join("/");
            return Err(flake_error(format!(
                "the flake input '{path}' lies too deep; do flakes depend on themselves?"
            )));
        }
        for (name, input) in asked {
            self.note_overrides(
                &[path, std::slice::from_ref(name)].concat(),
                path,
                &input.overrides,
            );
        }
        for (name, input) in asked {
            let here = [path, std::slice::from_ref(name)].concat();
            let edge = self.edge(node, &here, input, known, from).map_err(|error| {
                let here = here.join("/");
                error.frame(Pos::NONE, format!("while updating the flake input '{here}'"))
            })?;
            self.graph.nodes[node].inputs.insert(name.clone(), edge);
        }
        if let Some(known) = known.and_then(|known| known.file.nodes.get(&known.node)) {
            self.graph.is_changed |= known.inputs.keys().any(|name| !asked.contains_key(name));
        }
        Ok(())
    }

    /// Remembers overrides; what was said further out counts.
    fn note_overrides(&mut self, path: &[String], said_by: &[String], overrides: &Inputs) {
        for (name, input) in overrides {
            let here = [path, std::slice::from_ref(name)].concat();
            self.note_overrides(&here, said_by, &input.overrides);
            if input.reference.is_none() && input.follows.is_none() {
                continue; // it only says something of inputs further in
            }
            self.overrides.entry(here).or_insert_with(|| Override {
                input: input.clone(),
                said_by: said_by.to_vec(),
            });
        }
    }

    fn edge(
        &mut self,
        owner: usize,
        path: &[String],
        input: &Input,
        known: Option<&Known>,
        from: Asked,
    ) -> R<Edge> {
        let [above @ .., name] = path else {
            return Err(flake_error("a flake input has no name"));
        };
        let overridden = self.overrides.get(path);
        let is_overridden = overridden.is_some();
        let (input, said_by) = match overridden {
            Some(found) => (
                Input {
                    is_flake: input.is_flake,
                    ..found.input.clone()
                },
                found.said_by.clone(),
            ),
            None => (input.clone(), above.to_vec()),
        };
        if let Some(follows) = &input.follows {
            let target = [&said_by[..], follows].concat();
            self.graph.is_changed |= !known.is_some_and(|known| known.follows(name, &target));
            return Ok(Edge::Follows(target));
        }
        let reference = match &input.reference {
            Some(reference) => reference.clone(),
            None => Reference::parse(name)?,
        };
        // a relative path is relative to the flake that says so
        if reference.relative_path().is_some() {
            let owner = if is_overridden {
                self.node_at(&said_by)?
            } else {
                owner
            };
            return self.inside(owner, path, input.is_flake, &reference, known);
        }
        if let Some(found) = settled(known, name, &reference) {
            return self.locked(path, &found, from);
        }
        self.graph.is_changed = true;
        self.fetched(path, &input, &reference)
    }

    fn node_at(&self, names: &[String]) -> R<usize> {
        let edge = Edge::Follows(names.to_vec());
        let node = self.graph.resolve(&edge, &mut Walk::default())?;
        node.ok_or_else(|| flake_error(format!("there is no flake input '{}'", names.join("/"))))
    }

    /// An input by what the lock file says; its own inputs come from there too.
    fn locked(&mut self, path: &[String], known: &Known, from: Asked) -> R<Edge> {
        let file = Rc::clone(&known.file);
        let Some(node) = file.nodes.get(&known.node) else {
            return Err(flake_error(format!("the lock file has no node '{}'", known.node)));
        };
        let locked = node.locked.clone().unwrap_or_else(|| Reference::of(Vec::new()));
        if !locked.is_locked() {
            let shown = locked.shown();
            return Err(flake_error(format!(
                "lock file contains unlocked input '{shown}'"
            )));
        }
        let source = Source::Locked(locked.attrs.clone());
        let index = self.add(source, node.is_flake, &locked.dir, path)?;
        let overridden = |name: &String| {
            let here = [path, std::slice::from_ref(name)].concat();
            self.overrides.contains_key(&here)
        };
        let is_stale =
            |(name, edge): (&String, &LockEdge)| matches!(edge, LockEdge::Follows(_)) && !overridden(name);
        if from == Asked::Flake && node.is_flake && node.inputs.iter().any(is_stale) {
            // an override may have been taken back, so what the lock file says follows may be something of its own again
            let flake = fetch_flake(self.interp, &locked, Names::Global)?;
            self.lock(index, path, &flake.inputs, Some(known), Asked::Flake)?;
            return Ok(Edge::Node(index));
        }
        let mut asked = Inputs::new();
        for (name, edge) in &node.inputs {
            let input = match edge {
                LockEdge::Node(target) => {
                    let target = file.nodes.get(target);
                    Input {
                        reference: target.and_then(|node| node.original.clone()),
                        is_flake: target.is_none_or(|node| node.is_flake),
                        ..Input::default()
                    }
                }
                LockEdge::Follows(names) => {
                    // from the root of the lock file; an input's `follows` starts at its own flake
                    let full = [&known.root[..], names].concat();
                    self.graph.nodes[index]
                        .inputs
                        .insert(name.clone(), Edge::Follows(full));
                    if !self
                        .overrides
                        .contains_key(&[path, std::slice::from_ref(name)].concat())
                    {
                        continue;
                    }
                    Input::default()
                }
            };
            asked.insert(name.clone(), input);
        }
        self.lock(index, path, &asked, Some(known), Asked::Lock)?;
        Ok(Edge::Node(index))
    }

    /// An input no lock file settles.
    fn fetched(&mut self, path: &[String], input: &Input, reference: &Reference) -> R<Edge> {
        if self.interp.settings.purity == Purity::Pure && !reference.is_locked() {
            let path = path.join("/");
            return Err(flake_error(format!(
                "cannot update unlocked flake input '{path}' in pure mode"
            )));
        }
        if !input.is_flake {
            let (tree, dir) = fetch_reference(self.interp, reference, Names::Global)?;
            let index = self.add(Source::Fetched(tree), false, &dir, path)?;
            return Ok(Edge::Node(index));
        }
        if self.parents.contains(reference) {
            let shown = reference.shown();
            return Err(flake_error(format!("found circular import of flake '{shown}'")));
        }
        let flake = fetch_flake(self.interp, reference, Names::Global)?;
        let known = read_lock(self.interp, &flake.folder, path)?;
        let index = self.add(Source::Fetched(flake.tree), true, &flake.dir, path)?;
        self.parents.push(reference.clone());
        self.lock(index, path, &flake.inputs, known.as_ref(), Asked::Flake)?;
        self.parents.pop();
        Ok(Edge::Node(index))
    }

    /// An input inside the tree of the flake that asks for it.
    fn inside(
        &mut self,
        owner: usize,
        path: &[String],
        is_flake: bool,
        reference: &Reference,
        known: Option<&Known>,
    ) -> R<Edge> {
        let inside = reference.relative_path().unwrap_or_default();
        let start = format!("/{}", self.graph.nodes[owner].dir);
        if climbs_out(&start, inside) {
            return Err(flake_error(format!(
                "the flake input path '{inside}' leads out of its tree"
            )));
        }
        let place = path_ops::resolve_path(start.as_bytes(), inside.as_bytes());
        let dir = String::from_utf8_lossy(&place).trim_matches('/').to_owned();
        let dir = joined(&dir, &reference.dir);
        let index = self.add(Source::Inside(owner), is_flake, dir.trim_matches('/'), path)?;
        let name = path.last().map(String::as_str).unwrap_or_default();
        let settled = settled(known, name, reference);
        self.graph.is_changed |= settled.is_none();
        if is_flake {
            let folder = self.folder_of(index)?;
            let asked = read_flake(self.interp, &folder, reference)?.inputs;
            let known = match settled {
                Some(known) => Some(known),
                None => read_lock(self.interp, &folder, path)?,
            };
            self.lock(index, path, &asked, known.as_ref(), Asked::Flake)?;
        }
        Ok(Edge::Node(index))
    }

    /// The folder of a node's `flake.nix`; its tree is fetched for it.
    fn folder_of(&mut self, index: usize) -> R<Vec<u8>> {
        let dir = self.graph.nodes[index].dir.clone();
        let mut owner = index;
        loop {
            match &self.graph.nodes[owner].source {
                Source::Inside(next) => owner = *next,
                Source::Fetched(fetched) => return Ok(tree_folder(self.interp, fetched, &dir)),
                Source::Locked(locked) => {
                    let mut attrs = locked.clone();
                    attrs.push(("__final".to_owned(), FetchAttr::Bool(true)));
                    let fetched = fetch(self.interp, attrs)?;
                    return Ok(tree_folder(self.interp, &fetched, &dir));
                }
            }
        }
    }
}

impl Known {
    /// Whether the lock file says that an input follows this one, named from the root.
    fn follows(&self, name: &str, target: &[String]) -> bool {
        let Some(LockEdge::Follows(names)) = self.file.edge(&self.node, name) else {
            return false;
        };
        target.strip_prefix(self.root.as_slice()) == Some(names)
    }
}

/// What the lock file has for an input, if the same is still asked for.
fn settled(known: Option<&Known>, name: &str, reference: &Reference) -> Option<Known> {
    let known = known?;
    let LockEdge::Node(target) = known.file.edge(&known.node, name)? else {
        return None;
    };
    let node = known.file.nodes.get(target)?;
    let is_same = node.original.as_ref() == Some(reference);
    (is_same && node.locked.is_some()).then(|| Known {
        node: target.clone(),
        ..known.clone()
    })
}

/// Whether `..` leads above the root.
fn climbs_out(start: &str, path: &str) -> bool {
    let mut depth = start.split('/').filter(|part| !part.is_empty()).count();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// The tree of a reference, and the folder of `flake.nix` in it: a registry's word counts before the reference's.
fn fetch_reference(interp: &mut Interp, reference: &Reference, names: Names) -> R<(Fetched, String)> {
    let mut attrs = reference.attrs.clone();
    if reference.text("type") == Some("indirect") {
        if !interp.settings.use_registries || interp.settings.purity == Purity::Pure {
            let shown = reference.shown();
            let text =
                format!("'{shown}' is an indirect flake reference, but registry lookups are not allowed");
            return Err(flake_error(text));
        }
        if names == Names::Own {
            attrs.push(("__registries".to_owned(), FetchAttr::Bool(true)));
        }
    }
    let mut tree = fetch(interp, attrs)?;
    let named = tree.attrs.iter().position(|(name, _)| name == "dir");
    let dir = match named.map(|at| tree.attrs.remove(at)) {
        Some((_, FetchAttr::String(dir))) => dir.trim_matches('/').to_owned(),
        _ => reference.dir.clone(),
    };
    Ok((tree, dir))
}

fn tree_folder(interp: &Interp, fetched: &Fetched, dir: &str) -> Vec<u8> {
    let mut folder = interp.io.store_dir().print(&fetched.path).into_bytes();
    if !dir.is_empty() {
        folder.push(b'/');
        folder.extend_from_slice(dir.as_bytes());
    }
    folder
}

/// A flake, with the submodules and so on that it says it consists of.
fn fetch_flake(interp: &mut Interp, reference: &Reference, names: Names) -> R<Flake> {
    let (mut tree, dir) = fetch_reference(interp, reference, names)?;
    let mut folder = tree_folder(interp, &tree, &dir);
    let mut asked = read_flake(interp, &folder, reference)?;
    if asked.itself.iter().any(|attr| !tree.attrs.contains(attr)) {
        let is_new = |(name, _): &&Attr| !asked.itself.iter().any(|(other, _)| name == other);
        let mut attrs: Vec<Attr> = tree.attrs.iter().filter(is_new).cloned().collect();
        attrs.retain(|(name, _)| name != "narHash");
        attrs.extend(asked.itself);
        tree = fetch(interp, attrs)?;
        folder = tree_folder(interp, &tree, &dir);
        asked = read_flake(interp, &folder, reference)?;
    }
    Ok(Flake {
        tree,
        dir,
        folder,
        inputs: asked.inputs,
    })
}

fn read_flake(interp: &mut Interp, folder: &[u8], reference: &Reference) -> R<inputs::Asked> {
    let file = [folder, b"/flake.nix"].concat();
    if interp.file_type(&file)?.is_none() {
        let shown = reference.shown();
        let file = String::from_utf8_lossy(&file);
        return Err(flake_error(format!(
            "source tree referenced by '{shown}' does not contain a '{file}' file"
        )));
    }
    inputs::of_flake(interp, folder, &reference.shown())
}

fn read_lock(interp: &mut Interp, folder: &[u8], root: &[String]) -> R<Option<Known>> {
    let path = [folder, b"/flake.lock"].concat();
    if interp.file_type(&path)?.is_none() {
        return Ok(None);
    }
    let text = interp.read_file(&path)?;
    let file = LockFile::parse(&text, &String::from_utf8_lossy(&path))?;
    Ok(Some(Known {
        node: file.root.clone(),
        file: Rc::new(file),
        root: root.to_vec(),
    }))
}

#[cfg(test)]
mod tests {
    use super::climbs_out;

    #[test]
    fn paths_stay_in_their_tree() {
        assert!(!climbs_out("/a", "../b"));
        assert!(!climbs_out("/", "./b/../c"));
        assert!(climbs_out("/", "../b"));
        assert!(climbs_out("/a", "../../b/c"));
    }
}
