//! Inputs in a memory store.

use std::collections::BTreeMap;

use bytes::Bytes;
use igloo_castore::ingest::put_blob;
use igloo_castore::{Castore, Directory, Node, NodeName, SymlinkTarget};

/// Inputs, and the store that holds them.
pub struct Inputs {
    pub castore: Castore,
    pub nodes: BTreeMap<NodeName, Node>,
}

pub fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

impl Inputs {
    pub fn new() -> Self {
        Self {
            castore: igloo_castore::memory::castore("test"),
            nodes: BTreeMap::new(),
        }
    }

    pub fn with(mut self, text: &str, node: Node) -> Self {
        self.nodes.insert(name(text), node);
        self
    }

    pub async fn file(&self, contents: impl Into<Bytes>, executable: bool) -> Node {
        let (digest, size) = put_blob(&self.castore, contents.into()).await.unwrap();
        Node::File {
            digest,
            size,
            executable,
        }
    }

    pub async fn dir(&self, entries: Vec<(&str, Node)>) -> Node {
        let entries = entries
            .into_iter()
            .map(|(text, node)| (name(text), node))
            .collect();
        let directory = Directory::from_entries(entries).unwrap();
        let node = directory.node();
        self.castore.directories.put(vec![directory]).await.unwrap();
        node
    }
}

pub fn symlink(target: &str) -> Node {
    Node::Symlink {
        target: SymlinkTarget::try_from(target.as_bytes()).unwrap(),
    }
}
