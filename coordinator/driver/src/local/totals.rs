//! What a build could have read: files and bytes of its input closure.
//!
//! Counted once for each store path and remembered, so a build costs a look-up for each path of its closure.

use igloo_castore::error::ReadDirectoryError;
use igloo_castore::node::Node;
use igloo_castore::store::Castore;
use igloo_store::PathInfo;
use nix_compat::store_path::StorePath;
use quick_cache::sync::Cache;

/// Paths remembered.
const PATHS_MAX: usize = 1 << 16;

/// Counts, by path.
#[derive(Debug)]
pub(crate) struct Totals {
    known: Cache<StorePath, Total>,
}

/// Files, and bytes in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub bytes: u64,
    pub files: u64,
}

impl Totals {
    pub(crate) fn new() -> Self {
        Self {
            known: Cache::new(PATHS_MAX),
        }
    }

    /// The sum over these paths. A directory that cannot be read counts as empty: this is for people only.
    pub(crate) async fn of<'a>(
        &self,
        castore: &Castore,
        infos: impl IntoIterator<Item = &'a PathInfo>,
    ) -> Total {
        let mut sum = Total::default();
        for info in infos {
            let total = match self.known.get(&info.path) {
                Some(total) => total,
                None => {
                    let total = count(castore, &info.node).await.unwrap_or_default();
                    self.known.insert(info.path.clone(), total);
                    total
                }
            };
            sum.bytes = sum.bytes.saturating_add(total.bytes);
            sum.files = sum.files.saturating_add(total.files);
        }
        sum
    }
}

async fn count(castore: &Castore, root: &Node) -> Result<Total, ReadDirectoryError> {
    let mut total = Total::default();
    let mut open = Vec::new();
    add(root, &mut total, &mut open);
    while let Some(digest) = open.pop() {
        let Some(directory) = castore.directories.get(&digest).await? else {
            continue;
        };
        for (_, node) in directory.entries() {
            add(node, &mut total, &mut open);
        }
    }
    Ok(total)
}

fn add(node: &Node, total: &mut Total, open: &mut Vec<igloo_castore::digest::DirectoryDigest>) {
    match node {
        Node::Directory { digest, .. } => open.push(*digest),
        Node::File { size, .. } => {
            total.files += 1;
            total.bytes = total.bytes.saturating_add(*size);
        }
        Node::Symlink { .. } => {}
    }
}
