//! Random trees: the model that a castore is compared with.
//!
//! Trees are meant to be nasty: names that are no text, empty files and directories, executables, links that lead
//! nowhere, long chains of directories, equal contents in many places, files around the sizes where blobs are cut.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use bytes::Bytes;
use igloo_castore::chunking::{CHUNK_SIZE_MAX, UNCUT_SIZE_MAX};
use igloo_castore::export::{ExportError, TreeExport};
use igloo_castore::ingest::{IngestError, IngestLimits, TreeIngest};
use igloo_castore::node::{Node, NodeName, SymlinkTarget};
use igloo_castore::store::Castore;
use igloo_castore::tree::TreeEvent;
use proptest::prelude::*;

/// A tree in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Entries by name.
    Directory(BTreeMap<NodeName, Tree>),
    /// Contents, and whether it may be executed.
    File(Bytes, bool),
    /// A link's text.
    Symlink(SymlinkTarget),
}

impl Tree {
    /// The tree's events, contents in pieces of `piece` bytes.
    pub fn events(&self, piece: usize) -> Vec<TreeEvent> {
        let mut events = Vec::new();
        push_events(&mut events, None, self, piece.max(1));
        events
    }

    /// Puts the tree into a castore.
    ///
    /// # Errors
    /// What the ingest says.
    pub async fn ingest(&self, castore: &Castore) -> Result<Node, IngestError> {
        let mut ingest = TreeIngest::new(castore.clone(), IngestLimits::default(), ());
        for event in self.events(100_000) {
            ingest.event(event).await?;
        }
        Ok(ingest.finish().await?.root)
    }

    /// Reads a tree from a castore. The whole of it is held in memory.
    ///
    /// # Errors
    /// What the export says.
    pub async fn export(castore: &Castore, root: Node) -> Result<Self, ExportError> {
        let mut export = TreeExport::new(castore.clone(), root);
        let mut events = Vec::new();
        while let Some(event) = export.next().await? {
            events.push(event);
        }
        Ok(Self::from_events(events).expect("an export is one whole tree"))
    }

    /// The tree of a whole sequence of events.
    pub fn from_events(events: impl IntoIterator<Item = TreeEvent>) -> Option<Self> {
        let mut open: Vec<(Option<NodeName>, Self)> = vec![(None, Self::Directory(BTreeMap::new()))];
        for event in events {
            match event {
                TreeEvent::DirectoryBegin { name } => open.push((name, Self::Directory(BTreeMap::new()))),
                TreeEvent::DirectoryEnd => close(&mut open)?,
                TreeEvent::Symlink { name, target } => {
                    open.push((name, Self::Symlink(target)));
                    close(&mut open)?;
                }
                TreeEvent::FileBegin {
                    name,
                    executable,
                    size,
                } => {
                    open.push((name, Self::File(Bytes::new(), executable)));
                    if size == 0 {
                        close(&mut open)?;
                    } else {
                        // the size is remembered by the contents that must follow
                        open.push((
                            None,
                            Self::File(vec![0; usize::try_from(size).ok()?].into(), false),
                        ));
                    }
                }
                TreeEvent::FileData(bytes) => take_data(&mut open, &bytes)?,
            }
        }
        match open.pop()? {
            (None, Self::Directory(mut roots)) if open.is_empty() && roots.len() == 1 => {
                roots.pop_first().map(|(_, root)| root)
            }
            _ => None,
        }
    }

    /// Writes the tree to the file system, at a path where nothing is.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_to(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Symlink(target) => symlink(OsStr::from_bytes(target.as_bytes()), path),
            Self::File(bytes, executable) => {
                fs::write(path, bytes)?;
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(path, fs::Permissions::from_mode(mode))
            }
            Self::Directory(entries) => {
                fs::create_dir(path)?;
                for (name, tree) in entries {
                    tree.write_to(&path.join(OsStr::from_bytes(name.as_bytes())))?;
                }
                Ok(())
            }
        }
    }
}

/// The name a root gets while a tree is put together; no entry can clash with it there.
fn root_name() -> NodeName {
    NodeName::try_from("root").expect("a name")
}

fn close(open: &mut Vec<(Option<NodeName>, Tree)>) -> Option<()> {
    let (name, tree) = open.pop()?;
    let (_, Tree::Directory(parent)) = open.last_mut()? else {
        return None;
    };
    parent
        .insert(name.unwrap_or_else(root_name), tree)
        .is_none()
        .then_some(())
}

fn take_data(open: &mut Vec<(Option<NodeName>, Tree)>, bytes: &Bytes) -> Option<()> {
    let (_, Tree::File(left, _)) = open.last_mut()? else {
        return None;
    };
    if bytes.len() > left.len() {
        return None;
    }
    drop(left.split_to(bytes.len()));
    let whole = left.is_empty();
    let file = open.len().checked_sub(2)?;
    let (_, Tree::File(contents, _)) = open.get_mut(file)? else {
        return None;
    };
    *contents = [contents.as_ref(), bytes].concat().into();
    if whole {
        open.pop();
        close(open)?;
    }
    Some(())
}

fn push_events(events: &mut Vec<TreeEvent>, name: Option<NodeName>, tree: &Tree, piece: usize) {
    match tree {
        Tree::Symlink(target) => events.push(TreeEvent::Symlink {
            name,
            target: target.clone(),
        }),
        Tree::File(bytes, executable) => {
            events.push(TreeEvent::FileBegin {
                name,
                executable: *executable,
                size: bytes.len() as u64,
            });
            let pieces = bytes
                .chunks(piece)
                .map(|piece| TreeEvent::FileData(bytes.slice_ref(piece)));
            events.extend(pieces);
        }
        Tree::Directory(entries) => {
            events.push(TreeEvent::DirectoryBegin { name });
            for (name, tree) in entries {
                push_events(events, Some(name.clone()), tree, piece);
            }
            events.push(TreeEvent::DirectoryEnd);
        }
    }
}

/// Bytes that do not repeat and do not compress, the same for the same seed.
pub fn noise(size: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; size];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes.into()
}

/// Names, many of them no text.
pub fn names() -> impl Strategy<Value = NodeName> {
    let byte = prop_oneof![8 => b'a'..=b'e', 1 => Just(b'.'), 1 => Just(0xff), 1 => Just(b'\n'), 1 => 1u8..];
    let short = prop::collection::vec(byte, 1..6);
    let long = Just(vec![b'n'; 255]);
    prop_oneof![30 => short, 1 => long]
        .prop_filter_map("no name", |bytes| NodeName::try_from(bytes.as_slice()).ok())
}

/// Files of all sizes where something changes, most of them small.
pub fn files() -> impl Strategy<Value = Tree> {
    let edges = [
        0,
        1,
        UNCUT_SIZE_MAX - 1,
        UNCUT_SIZE_MAX,
        UNCUT_SIZE_MAX + 1,
        CHUNK_SIZE_MAX,
        CHUNK_SIZE_MAX + 1,
        1 << 20,
        3 << 20,
    ];
    let size =
        prop_oneof![10 => 0usize..200, 2 => prop::sample::select(edges.to_vec()), 1 => 0usize..600_000];
    // few seeds, so that contents repeat
    (size, 0u64..4, any::<bool>())
        .prop_map(|(size, seed, executable)| Tree::File(noise(size, seed), executable))
}

/// Links, most of them to nowhere.
pub fn symlinks() -> impl Strategy<Value = Tree> {
    let target = prop_oneof![
        10 => prop::collection::vec(1u8.., 1..20),
        1 => Just(vec![b'x'; 4095]),
        1 => Just(b"../..".to_vec()),
    ];
    target.prop_map(|target| Tree::Symlink(SymlinkTarget::try_from(target.as_slice()).expect("a target")))
}

/// Trees of a few dozen nodes; some are a file or a link only, some a long chain of directories.
pub fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![4 => files(), 1 => symlinks()];
    let tree = leaf.prop_recursive(5, 48, 8, |inner| {
        prop::collection::btree_map(names(), inner, 0..8).prop_map(Tree::Directory)
    });
    prop_oneof![12 => tree.clone(), 1 => (tree, 10usize..60).prop_map(|(tree, depth)| chain(tree, depth))]
}

fn chain(tree: Tree, depth: usize) -> Tree {
    let name = NodeName::try_from("d").expect("a name");
    (0..depth).fold(tree, |tree, _| {
        Tree::Directory(BTreeMap::from([(name.clone(), tree)]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// The model itself: a tree is what its events say.
        #[test]
        fn events_make_the_tree(tree in trees(), piece in 1usize..100_000) {
            prop_assert_eq!(Tree::from_events(tree.events(piece.max(500))), Some(tree));
        }
    }

    #[test]
    fn broken_sequences_make_no_tree() {
        let events = Tree::File(noise(10, 1), false).events(4);
        assert_eq!(Tree::from_events(events[..3].to_vec()), None);
        assert_eq!(Tree::from_events(Vec::new()), None);
        assert_eq!(Tree::from_events([TreeEvent::DirectoryEnd]), None);
    }
}
