//! A tree again, with other hash parts in it: in contents, names and symlinks' texts.
//!
//! Hash parts are as long as what they replace, so nothing moves, and replacing in each string alone is replacing in the
//! NAR: lengths and padding between its strings hold no digit of 32.
//!
//! Invariants
//! - memory: what export and ingest hold, and one piece of content.
//!
//! Source: Nix 2.36 `RewritingSink` (libstore/references.cc), `rewriteOutput` (unix/build/derivation-builder.cc).

use bytes::Bytes;
use igloo_castore::export::TreeExport;
use igloo_castore::ingest::{IngestLimits, TreeIngest};
use igloo_castore::node::{Node, NodeName, ParseNameError, ParseTargetError, SymlinkTarget};
use igloo_castore::store::Castore;
use igloo_castore::tree::TreeEvent;
use igloo_store::DumpError;
use igloo_store::nar::NarObserver;
use nix_compat::self_reference::{HashPartRewriter, Rewritten};
use nix_compat::store_path::HASH_PART_LEN;

use super::address::Content;
use super::error::OutputError;

/// What is replaced by what.
pub(super) type Pair = ([u8; HASH_PART_LEN], [u8; HASH_PART_LEN]);

/// Writes the tree of `node` once more with each first hash part replaced by its second. Reads all of it; durable after the
/// castore's next sync.
///
/// # Errors
/// The tree cannot be read or written. New names that are not in order are refused, as in Nix.
pub(super) async fn rewrite(castore: &Castore, node: &Node, pairs: &[Pair]) -> Result<Content, OutputError> {
    let mut export = TreeExport::new(castore.clone(), node.clone());
    let mut ingest = TreeIngest::new(castore.clone(), IngestLimits::default(), NarObserver::new());
    let mut file = None;
    while let Some(event) = export.next().await.map_err(DumpError::from)? {
        let event = match event {
            TreeEvent::DirectoryBegin { name } => TreeEvent::DirectoryBegin {
                name: in_name(name, pairs)?,
            },
            TreeEvent::DirectoryEnd => TreeEvent::DirectoryEnd,
            TreeEvent::FileBegin {
                name,
                executable,
                size,
            } => {
                file = (size > 0).then(|| FileRewriter::new(pairs, size));
                TreeEvent::FileBegin {
                    name: in_name(name, pairs)?,
                    executable,
                    size,
                }
            }
            TreeEvent::FileData(bytes) => {
                let data = file.as_mut().map_or(bytes.clone(), |file| file.feed(&bytes));
                if data.is_empty() {
                    continue;
                }
                TreeEvent::FileData(data)
            }
            TreeEvent::Symlink { name, target } => TreeEvent::Symlink {
                name: in_name(name, pairs)?,
                target: in_target(&target, pairs)?,
            },
        };
        ingest.event(event).await?;
    }
    let ingested = ingest.finish().await?;
    Ok(Content {
        node: ingested.root,
        nar: ingested.observer.finish().map_err(DumpError::from)?.digest,
    })
}

/// The content of one file; one rewriter for each pair, the next fed by the one before.
struct FileRewriter {
    stages: Vec<HashPartRewriter>,
    left: u64,
}

impl FileRewriter {
    fn new(pairs: &[Pair], size: u64) -> Self {
        Self {
            stages: pairs
                .iter()
                .map(|(from, to)| HashPartRewriter::new(from, to))
                .collect(),
            left: size,
        }
    }

    /// The next bytes; those held back come with the file's last.
    fn feed(&mut self, bytes: &[u8]) -> Bytes {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        let mut data = bytes.to_vec();
        if self.left > 0 {
            for stage in &mut self.stages {
                let mut out = Vec::with_capacity(data.len() + HASH_PART_LEN);
                stage.feed(&data, |rewritten| append(&mut out, rewritten));
                data = out;
            }
            return data.into();
        }
        for mut stage in std::mem::take(&mut self.stages) {
            let mut out = Vec::with_capacity(data.len() + HASH_PART_LEN);
            stage.feed(&data, |rewritten| append(&mut out, rewritten));
            stage.finish(|rewritten| append(&mut out, rewritten));
            data = out;
        }
        data.into()
    }
}

fn append(out: &mut Vec<u8>, rewritten: Rewritten<'_>) {
    if let Rewritten::Data(bytes) = rewritten {
        out.extend_from_slice(bytes);
    }
}

fn in_name(name: Option<NodeName>, pairs: &[Pair]) -> Result<Option<NodeName>, ParseNameError> {
    name.map(|name| NodeName::try_from(in_bytes(name.as_bytes(), pairs)))
        .transpose()
}

fn in_target(target: &SymlinkTarget, pairs: &[Pair]) -> Result<SymlinkTarget, ParseTargetError> {
    SymlinkTarget::try_from(in_bytes(target.as_bytes(), pairs))
}

fn in_bytes(bytes: &[u8], pairs: &[Pair]) -> Bytes {
    FileRewriter::new(pairs, 0).feed(bytes)
}
