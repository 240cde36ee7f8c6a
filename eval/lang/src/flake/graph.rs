//! The inputs of a flake, of its inputs, and so on: which tree each is, by lock file or fetched now.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::inputs::{self, Input, Inputs};
use super::lock::{LockEdge, LockFile};
use super::reference::Reference;
use super::{Attr, fetch, flake_error};
use crate::error::R;
use crate::interp::Interp;
use crate::io::{FetchAttr, Fetched};
use crate::pure::path_ops;
use crate::settings::Purity;

/// Flakes inside each other, and inputs that follow each other.
const DEPTH_MAX: usize = 128;
/// Flakes and trees of one graph.
const NODES_MAX: usize = 100_000;

/// A flake and all it depends on; the first node is the flake itself.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
}

/// A flake or tree.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) source: Source,
    pub(super) is_flake: bool,
    /// The folder of `flake.nix`, without slashes at its ends.
    dir: String,
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

struct Locker<'i> {
    interp: &'i mut Interp,
    graph: Graph,
    overrides: HashMap<Vec<String>, Override>,
}

impl Graph {
    /// The graph of the flake a reference names.
    pub(super) fn of(interp: &mut Interp, reference: &Reference) -> R<Self> {
        let fetched = fetch_reference(interp, reference)?;
        let folder = tree_folder(interp, &fetched, &reference.dir);
        let asked = read_inputs(interp, &folder, reference)?;
        let known = read_lock(interp, &folder, &[])?;
        let mut locker = Locker {
            interp,
            graph: Self::default(),
            overrides: HashMap::new(),
        };
        let root = locker.add(Source::Fetched(fetched), true, &reference.dir)?;
        locker.lock(root, &[], &asked, known.as_ref())?;
        Ok(locker.graph)
    }

    /// Names and nodes of a node's inputs.
    pub(super) fn inputs_of(&self, node: usize) -> R<Vec<(&str, usize)>> {
        let mut found = Vec::new();
        for (name, edge) in &self.nodes[node].inputs {
            let target = self.resolve(edge, 0)?;
            found.push((name.as_str(), target));
        }
        Ok(found)
    }

    fn resolve(&self, edge: &Edge, depth: usize) -> R<usize> {
        let names = match edge {
            Edge::Node(node) => return Ok(*node),
            Edge::Follows(names) => names,
        };
        let path = names.join("/");
        if depth > DEPTH_MAX {
            return Err(flake_error(format!(
                "follow cycle detected: the input '{path}' follows itself"
            )));
        }
        let mut node = 0;
        for name in names {
            let edge = self.nodes[node]
                .inputs
                .get(name)
                .ok_or_else(|| flake_error(format!("a flake input follows a non-existent input '{path}'")))?;
            node = self.resolve(edge, depth + 1)?;
        }
        Ok(node)
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
    fn add(&mut self, source: Source, is_flake: bool, dir: &str) -> R<usize> {
        if self.graph.nodes.len() >= NODES_MAX {
            return Err(flake_error(format!("a flake has more than {NODES_MAX} inputs")));
        }
        self.graph.nodes.push(Node {
            source,
            is_flake,
            dir: dir.to_owned(),
            inputs: BTreeMap::new(),
        });
        Ok(self.graph.nodes.len() - 1)
    }

    /// Settles the inputs of a node; `path` are the names that lead to it.
    fn lock(&mut self, node: usize, path: &[String], asked: &Inputs, known: Option<&Known>) -> R<()> {
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
            let edge = self.edge(node, &here, input, known)?;
            self.graph.nodes[node].inputs.insert(name.clone(), edge);
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

    fn edge(&mut self, owner: usize, path: &[String], input: &Input, known: Option<&Known>) -> R<Edge> {
        let [above @ .., name] = path else {
            return Err(flake_error("a flake input has no name"));
        };
        let overridden = self.overrides.get(path);
        let is_overridden = overridden.is_some();
        let (input, said_by) = match overridden {
            Some(found) => (
                Input {
                    is_flake: input.is_flake && found.input.is_flake,
                    ..found.input.clone()
                },
                found.said_by.clone(),
            ),
            None => (input.clone(), above.to_vec()),
        };
        if let Some(follows) = &input.follows {
            return Ok(Edge::Follows([&said_by[..], follows].concat()));
        }
        let reference = match &input.reference {
            Some(reference) => reference.clone(),
            None => Reference::parse(name)?,
        };
        // a relative path is relative to the flake that says so
        if let Some(inside) = reference.relative_path() {
            let owner = if is_overridden {
                self.node_at(&said_by)?
            } else {
                owner
            };
            return self.inside(owner, path, &input, inside, known);
        }
        if let Some(found) = settled(known, name, &reference, input.is_flake) {
            return self.locked(path, &found);
        }
        self.fetched(path, &input, &reference)
    }

    fn node_at(&self, names: &[String]) -> R<usize> {
        self.graph.resolve(&Edge::Follows(names.to_vec()), 0)
    }

    /// An input by what the lock file says; its own inputs come from there too.
    fn locked(&mut self, path: &[String], known: &Known) -> R<Edge> {
        let file = Rc::clone(&known.file);
        let Some(node) = file.nodes.get(&known.node) else {
            return Err(flake_error(format!("the lock file has no node '{}'", known.node)));
        };
        let locked = node.locked.clone().unwrap_or_else(|| Reference::of(Vec::new()));
        let index = self.add(Source::Locked(locked.attrs.clone()), node.is_flake, &locked.dir)?;
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
        self.lock(index, path, &asked, Some(known))?;
        Ok(Edge::Node(index))
    }

    /// An input no lock file settles.
    fn fetched(&mut self, path: &[String], input: &Input, reference: &Reference) -> R<Edge> {
        if self.interp.settings.purity == Purity::Pure && !reference.is_locked() {
            let (path, shown) = (path.join("/"), reference.shown());
            return Err(flake_error(format!(
                "in pure evaluation mode, the flake input '{path}' ('{shown}') is not locked; lock the flake first"
            )));
        }
        let fetched = fetch_reference(self.interp, reference)?;
        let folder = tree_folder(self.interp, &fetched, &reference.dir);
        let index = self.add(Source::Fetched(fetched), input.is_flake, &reference.dir)?;
        if input.is_flake {
            let asked = read_inputs(self.interp, &folder, reference)?;
            let known = read_lock(self.interp, &folder, path)?;
            self.lock(index, path, &asked, known.as_ref())?;
        }
        Ok(Edge::Node(index))
    }

    /// An input inside the tree of the flake that asks for it.
    fn inside(
        &mut self,
        owner: usize,
        path: &[String],
        input: &Input,
        inside: &str,
        known: Option<&Known>,
    ) -> R<Edge> {
        let start = format!("/{}", self.graph.nodes[owner].dir);
        if climbs_out(&start, inside) {
            return Err(flake_error(format!(
                "the flake input path '{inside}' leads out of its tree"
            )));
        }
        let place = path_ops::resolve_path(start.as_bytes(), inside.as_bytes());
        let dir = String::from_utf8_lossy(&place).trim_matches('/').to_owned();
        let index = self.add(Source::Inside(owner), input.is_flake, &dir)?;
        if input.is_flake {
            let folder = self.folder_of(index)?;
            let reference = Reference::of(vec![
                ("type".to_owned(), FetchAttr::String("path".to_owned())),
                ("path".to_owned(), FetchAttr::String(inside.to_owned())),
            ]);
            let asked = read_inputs(self.interp, &folder, &reference)?;
            let name = path.last().map(String::as_str).unwrap_or_default();
            let known = match settled(known, name, &reference, true) {
                Some(known) => Some(known),
                None => read_lock(self.interp, &folder, path)?,
            };
            self.lock(index, path, &asked, known.as_ref())?;
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

/// What the lock file has for an input, if the same is still asked for.
fn settled(known: Option<&Known>, name: &str, reference: &Reference, is_flake: bool) -> Option<Known> {
    let known = known?;
    let LockEdge::Node(target) = known.file.edge(&known.node, name)? else {
        return None;
    };
    let node = known.file.nodes.get(target)?;
    let is_same = node.original.as_ref() == Some(reference) && node.is_flake == is_flake;
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

fn fetch_reference(interp: &mut Interp, reference: &Reference) -> R<Fetched> {
    if reference.text("type") == Some("indirect") {
        let shown = reference.shown();
        return Err(flake_error(format!(
            "cannot find flake '{shown}' in the flake registries"
        )));
    }
    fetch(interp, reference.attrs.clone())
}

fn tree_folder(interp: &Interp, fetched: &Fetched, dir: &str) -> Vec<u8> {
    let mut folder = interp.io.store_dir().print(&fetched.path).into_bytes();
    if !dir.is_empty() {
        folder.push(b'/');
        folder.extend_from_slice(dir.as_bytes());
    }
    folder
}

fn read_inputs(interp: &mut Interp, folder: &[u8], reference: &Reference) -> R<Inputs> {
    let file = [folder, b"/flake.nix"].concat();
    if interp.file_type(&file)?.is_none() {
        let shown = reference.shown();
        let file = String::from_utf8_lossy(&file);
        return Err(flake_error(format!(
            "source tree referenced by '{shown}' does not contain a '{file}' file"
        )));
    }
    inputs::of_flake(interp, &file, &reference.shown())
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
