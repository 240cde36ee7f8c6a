//! Giving trees out: a root node becomes the sequence of its events.
//!
//! The opposite of [`crate::ingest`]; what it gives out is well formed, whatever the store answers.
//!
//! Invariants
//! - memory: the directories open now, and at most [`READ_AHEAD`] pieces of [`PIECE_SIZE`] bytes;
//! - iterative: depth costs memory, never stack;
//! - a file gives exactly the bytes its node announces, or an error.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use igloo_status::Code;

use crate::digest::{BlobDigest, DirectoryDigest};
use crate::directory::Directory;
use crate::error::{ReadBlobError, ReadDirectoryError};
use crate::node::{Node, NodeName};
use crate::store::{BlobStore, Castore, StoreName};
use crate::tree::TreeEvent;

/// File contents come in pieces of at most this size, bytes.
pub const PIECE_SIZE: usize = 512 << 10;
/// Pieces, and other events, that are fetched before they are asked for.
pub const READ_AHEAD: usize = 16;

/// A tree being read.
pub struct TreeExport {
    castore: Castore,
    open: Vec<OpenDirectory>,
    root: Option<Node>,
    file: Option<OpenFile>,
    ahead: FuturesOrdered<BoxFuture<'static, Result<TreeEvent, ExportError>>>,
}

struct OpenDirectory {
    name: Option<NodeName>,
    directory: Arc<Directory>,
    next: usize,
}

struct OpenFile {
    path: Arc<str>,
    digest: BlobDigest,
    size: u64,
    offset: u64,
}

impl TreeExport {
    /// Starts at `root`. Nothing is read yet.
    pub fn new(castore: Castore, root: Node) -> Self {
        Self {
            castore,
            open: Vec::new(),
            root: Some(root),
            file: None,
            ahead: FuturesOrdered::new(),
        }
    }

    /// The next event, `None` after the last.
    ///
    /// # Errors
    /// [`ExportError`] names the entry. After an error the rest cannot be read.
    pub async fn next(&mut self) -> Result<Option<TreeEvent>, ExportError> {
        while self.ahead.len() < READ_AHEAD {
            let Some(item) = self.plan().await else {
                break;
            };
            self.ahead.push_back(item);
        }
        self.ahead.next().await.transpose()
    }

    async fn plan(&mut self) -> Option<BoxFuture<'static, Result<TreeEvent, ExportError>>> {
        if let Some(piece) = self.plan_piece() {
            return Some(piece);
        }
        let event = match self.step().await {
            Ok(event) => event.map(Ok)?,
            Err(error) => {
                // nothing follows an error
                (self.open, self.root, self.file) = (Vec::new(), None, None);
                Err(error)
            }
        };
        Some(Box::pin(std::future::ready(event)))
    }

    fn plan_piece(&mut self) -> Option<BoxFuture<'static, Result<TreeEvent, ExportError>>> {
        let file = self.file.as_mut()?;
        let left = file.size - file.offset;
        let len = usize::try_from(left).map_or(PIECE_SIZE, |left| left.min(PIECE_SIZE));
        let read = read_piece(
            Arc::clone(&self.castore.blobs),
            Arc::clone(&file.path),
            file.digest,
            file.offset,
            len,
            left == len as u64,
        );
        file.offset += len as u64;
        if file.offset == file.size {
            self.file = None;
        }
        Some(Box::pin(read))
    }

    async fn step(&mut self) -> Result<Option<TreeEvent>, ExportError> {
        if let Some(root) = self.root.take() {
            return self.enter(None, root).await.map(Some);
        }
        let Some(top) = self.open.last_mut() else {
            return Ok(None);
        };
        match top.directory.entries().get(top.next) {
            Some((name, node)) => {
                top.next += 1;
                let (name, node) = (name.clone(), node.clone());
                self.enter(Some(name), node).await.map(Some)
            }
            None => {
                self.open.pop();
                Ok(Some(TreeEvent::DirectoryEnd))
            }
        }
    }

    async fn enter(&mut self, name: Option<NodeName>, node: Node) -> Result<TreeEvent, ExportError> {
        match node {
            Node::Symlink { target } => Ok(TreeEvent::Symlink { name, target }),
            Node::File {
                digest,
                size,
                executable,
            } => {
                self.file = (size > 0).then(|| OpenFile {
                    path: self.path_of(name.as_ref()).into(),
                    digest,
                    size,
                    offset: 0,
                });
                Ok(TreeEvent::FileBegin {
                    name,
                    executable,
                    size,
                })
            }
            Node::Directory { digest, .. } => {
                let directory = match self.castore.directories.get(&digest).await {
                    Ok(Some(directory)) => Ok(directory),
                    Ok(None) => Err(ReadDirectoryError::Missing {
                        digest,
                        store: StoreName::from("the store"),
                    }),
                    Err(error) => Err(error),
                };
                let directory = directory.map_err(|source| ExportError::Directory {
                    path: self.path_of(name.as_ref()),
                    source,
                })?;
                self.open.push(OpenDirectory {
                    name: name.clone(),
                    directory,
                    next: 0,
                });
                Ok(TreeEvent::DirectoryBegin { name })
            }
        }
    }

    fn path_of(&self, name: Option<&NodeName>) -> String {
        let parents = self.open.iter().filter_map(|directory| directory.name.as_ref());
        let parts: Vec<_> = parents.chain(name).map(ToString::to_string).collect();
        if parts.is_empty() {
            ".".to_owned()
        } else {
            parts.join("/")
        }
    }
}

async fn read_piece(
    blobs: Arc<dyn BlobStore>,
    path: Arc<str>,
    digest: BlobDigest,
    offset: u64,
    len: usize,
    last: bool,
) -> Result<TreeEvent, ExportError> {
    // one byte more at the end, to notice a blob longer than its node says
    let bytes: Bytes = blobs
        .read_range(&digest, offset, if last { len + 1 } else { len })
        .await
        .map_err(|source| ExportError::Blob {
            path: path.to_string(),
            source,
        })?;
    if bytes.len() != len {
        return Err(ExportError::Size {
            path: path.to_string(),
            digest,
        });
    }
    Ok(TreeEvent::FileData(bytes))
}

impl std::fmt::Debug for TreeExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeExport")
            .field("depth", &self.open.len())
            .field("ahead", &self.ahead.len())
            .finish_non_exhaustive()
    }
}

/// Why a tree could not be read. Paths are relative to its root, escaped; `.` is the root.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A directory could not be read.
    #[error("cannot read the directory `{path}`")]
    Directory {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: ReadDirectoryError,
    },
    /// A file's contents could not be read.
    #[error("cannot read the file `{path}`")]
    Blob {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: ReadBlobError,
    },
    /// The blob has fewer or more bytes than the node says.
    #[error("the file `{path}` has another size than its directory says (contents {digest})")]
    Size {
        /// The file.
        path: String,
        /// Its contents.
        digest: BlobDigest,
    },
    /// The directory has fewer or more entries below it than the node says.
    #[error("the directory `{path}` has another size than the one it is in says ({digest})")]
    DirectorySize {
        /// The directory.
        path: String,
        /// Which it is.
        digest: DirectoryDigest,
    },
}

impl ExportError {
    /// The class of the failure. What a root refers to must be there: an absent part is lost data.
    pub fn code(&self) -> Code {
        let code = match self {
            Self::Directory { source, .. } => source.code(),
            Self::Blob { source, .. } => source.code(),
            Self::Size { .. } | Self::DirectorySize { .. } => Code::DataLoss,
        };
        if code == Code::NotFound {
            Code::DataLoss
        } else {
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::DirectoryDigest;
    use crate::ingest::put_blob;
    use crate::memory;

    async fn events(castore: &Castore, root: Node) -> Result<Vec<TreeEvent>, ExportError> {
        let mut export = TreeExport::new(castore.clone(), root);
        let mut events = Vec::new();
        while let Some(event) = export.next().await? {
            events.push(event);
        }
        Ok(events)
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let castore = memory::castore("test");
        let lost = Node::Directory {
            digest: DirectoryDigest::of(b"lost"),
            size: 0,
        };
        let error = events(&castore, lost).await.unwrap_err();
        assert_eq!(error.code(), Code::DataLoss);
        let name = NodeName::try_from("file").unwrap();
        let file = Node::File {
            digest: BlobDigest::of(b"lost"),
            size: 4,
            executable: false,
        };
        let directory = Directory::from_entries(vec![(name, file)]).unwrap();
        let root = directory.node();
        castore.directories.put(vec![directory]).await.unwrap();
        let error = events(&castore, root).await.unwrap_err();
        assert!(
            matches!(&error, ExportError::Blob { path, .. } if path == "file"),
            "{error}"
        );
    }

    /// A node that lies about its file's size gives an error, never other bytes than announced.
    #[tokio::test]
    async fn a_wrong_size_is_noticed() {
        let castore = memory::castore("test");
        for real in [10usize, 700_000] {
            let (digest, _) = put_blob(&castore, vec![7; real].into()).await.unwrap();
            for claimed in [real - 1, real + 1, real] {
                let size = claimed as u64;
                let file = Node::File {
                    digest,
                    size,
                    executable: false,
                };
                let result = events(&castore, file).await;
                assert_eq!(result.is_ok(), claimed == real, "{real} {claimed}");
            }
        }
    }
}
