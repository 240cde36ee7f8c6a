//! Lock files: which tree each input was, by `flake.lock` of versions 5 to 7.
//!
//! Invariant: a lock file is small next to what it names; more than [`NODES_MAX`] nodes, or containers deeper than
//! [`DEPTH_MAX`], are refused.

use std::collections::BTreeMap;

use super::reference::Reference;
use super::{Attr, flake_error};
use crate::error::R;
use crate::io::FetchAttr;
use crate::pure::json::{Event, Parser};

const NODES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 16;
const VERSIONS: std::ops::RangeInclusive<i64> = 5..=7;

/// A lock file.
#[derive(Clone, Debug, Default)]
pub(super) struct LockFile {
    pub(super) nodes: BTreeMap<String, LockNode>,
    pub(super) root: String,
}

/// What a lock file knows of a flake or tree.
#[derive(Clone, Debug)]
pub(super) struct LockNode {
    /// What was asked for, and what it was; absent for the root.
    pub(super) original: Option<Reference>,
    pub(super) locked: Option<Reference>,
    pub(super) is_flake: bool,
    pub(super) inputs: BTreeMap<String, LockEdge>,
}

/// What an input of a node is.
#[derive(Clone, Debug)]
pub(super) enum LockEdge {
    /// A node of the file.
    Node(String),
    /// Another input, by names from the root.
    Follows(Vec<String>),
}

/// A JSON value.
#[derive(Clone, Debug)]
enum Json {
    Object(BTreeMap<String, Json>),
    Array(Vec<Json>),
    Text(String),
    Int(i64),
    Bool(bool),
    Other,
}

impl LockFile {
    /// Reads a lock file; `shown` names it in messages.
    pub(super) fn parse(text: &[u8], shown: &str) -> R<Self> {
        let wrong = |what: &str| flake_error(format!("lock file '{shown}' {what}"));
        let json = parse_json(text).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        let Json::Object(mut top) = json else {
            return Err(wrong("holds no object"));
        };
        match top.get("version") {
            Some(Json::Int(version)) if VERSIONS.contains(version) => {}
            Some(Json::Int(version)) => {
                return Err(wrong(&format!("has unsupported version {version}")));
            }
            _ => return Err(wrong("has no version")),
        }
        let (Some(Json::Text(root)), Some(Json::Object(nodes))) = (top.remove("root"), top.remove("nodes"))
        else {
            return Err(wrong("has no root or no nodes"));
        };
        if nodes.len() > NODES_MAX {
            return Err(wrong("has too many nodes"));
        }
        let mut file = Self {
            nodes: BTreeMap::new(),
            root,
        };
        for (name, node) in nodes {
            let node = lock_node(node).ok_or_else(|| wrong(&format!("has a node '{name}' that is none")))?;
            file.nodes.insert(name, node);
        }
        Ok(file)
    }

    /// What an input of a node was.
    pub(super) fn edge(&self, node: &str, input: &str) -> Option<&LockEdge> {
        self.nodes.get(node)?.inputs.get(input)
    }
}

fn lock_node(node: Json) -> Option<LockNode> {
    let Json::Object(mut node) = node else {
        return None;
    };
    let mut reference = |name: &str| match node.remove(name) {
        None => Some(None),
        Some(Json::Object(attrs)) => attrs_of(attrs).map(|attrs| Some(Reference::of(attrs))),
        Some(_) => None,
    };
    let (original, locked) = (reference("original")?, reference("locked")?);
    let mut inputs = BTreeMap::new();
    if let Some(Json::Object(edges)) = node.remove("inputs") {
        for (name, edge) in edges {
            let edge = match edge {
                Json::Text(node) => LockEdge::Node(node),
                Json::Array(names) => LockEdge::Follows(names.into_iter().map(text).collect::<Option<_>>()?),
                _ => return None,
            };
            inputs.insert(name, edge);
        }
    }
    Some(LockNode {
        original,
        locked,
        is_flake: !matches!(node.get("flake"), Some(Json::Bool(false))),
        inputs,
    })
}

fn text(json: Json) -> Option<String> {
    match json {
        Json::Text(text) => Some(text),
        _ => None,
    }
}

fn attrs_of(attrs: BTreeMap<String, Json>) -> Option<Vec<Attr>> {
    let attr = |(name, value)| {
        let value = match value {
            Json::Text(text) => FetchAttr::String(text),
            Json::Int(n) => FetchAttr::Int(u64::try_from(n).ok()?),
            Json::Bool(b) => FetchAttr::Bool(b),
            _ => return None,
        };
        Some((name, value))
    };
    attrs.into_iter().map(attr).collect()
}

/// A container being read.
enum Open {
    Object(BTreeMap<String, Json>, String),
    Array(Vec<Json>),
}

fn parse_json(text: &[u8]) -> Result<Json, String> {
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new(text).with_depth_max(DEPTH_MAX) {
        let value = match event.map_err(|error| error.to_string())? {
            Event::BeginObject => {
                open.push(Open::Object(BTreeMap::new(), String::new()));
                continue;
            }
            Event::BeginArray => {
                open.push(Open::Array(Vec::new()));
                continue;
            }
            Event::Key(name) => {
                if let Some(Open::Object(_, key)) = open.last_mut() {
                    *key = name.into_owned();
                }
                continue;
            }
            Event::EndObject | Event::EndArray => match open.pop() {
                Some(Open::Object(members, _)) => Json::Object(members),
                Some(Open::Array(items)) => Json::Array(items),
                None => Json::Other,
            },
            Event::String(text) => Json::Text(text.into_owned()),
            Event::Int(n) => Json::Int(n),
            Event::Bool(b) => Json::Bool(b),
            Event::Null | Event::Float(_) => Json::Other,
        };
        match open.last_mut() {
            Some(Open::Object(members, key)) => {
                members.insert(std::mem::take(key), value);
            }
            Some(Open::Array(items)) => items.push(value),
            None => return Ok(value),
        }
    }
    Err("it is empty".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_edges_and_references_are_read() {
        let text = br#"{"nodes": {"root": {"inputs": {"a": "a_2", "b": ["a", "b"]}},
            "a_2": {"flake": false, "locked": {"type": "path", "path": "/a", "narHash": "x", "lastModified": 5},
                    "original": {"type": "path", "path": "/a", "dir": "d"}}}, "root": "root", "version": 7}"#;
        let file = LockFile::parse(text, "flake.lock").expect("a lock file");
        assert!(matches!(file.edge("root", "a"), Some(LockEdge::Node(node)) if node == "a_2"));
        assert!(matches!(file.edge("root", "b"), Some(LockEdge::Follows(names)) if names == &["a", "b"]));
        let node = &file.nodes["a_2"];
        assert!(!node.is_flake);
        assert_eq!(node.original.as_ref().map(|r| r.dir.as_str()), Some("d"));
        assert_eq!(node.locked.as_ref().and_then(|r| r.text("narHash")), Some("x"));
    }

    #[test]
    fn damaged_lock_files_are_refused() {
        for text in [
            &b""[..],
            b"[]",
            br#"{"version": 8, "root": "r", "nodes": {}}"#,
            br#"{"root": "r", "nodes": {}}"#,
            br#"{"version": 7, "root": "r", "nodes": {"r": 1}}"#,
            br#"{"version": 7, "root": "r", "nodes": {"r": {"inputs": {"a": 1}}}}"#,
            br#"{"version": 7, "root": "r", "nodes": {"r": {"locked": {"a": -1}}}}"#,
        ] {
            assert!(
                LockFile::parse(text, "x").is_err(),
                "{}",
                String::from_utf8_lossy(text)
            );
        }
        let deep = "[".repeat(100_000);
        assert!(LockFile::parse(deep.as_bytes(), "x").is_err());
    }
}
