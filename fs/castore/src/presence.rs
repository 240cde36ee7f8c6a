//! Whether a whole tree is in a castore.
//!
//! For trees that somebody else put there: directories are read and blobs looked up, contents are not read.

use std::collections::HashSet;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::digest::{BlobDigest, DirectoryDigest};
use crate::error::{ReadBlobError, ReadDirectoryError};
use crate::export::ExportError;
use crate::node::Node;
use crate::store::{Castore, StoreName};

/// Questions under way at one time.
const ASKED_MAX: usize = 64;

/// Checks that every part of a tree is there and has the size its node says.
///
/// Asks once for each distinct directory and blob, some of them at a time; keeps their digests meanwhile, 32 bytes each.
///
/// # Errors
/// The first part found to be absent or of another size, by the path it was first met at; the store's own failures.
pub async fn check_present(castore: &Castore, root: &Node) -> Result<(), ExportError> {
    let mut seen_directories = HashSet::new();
    let mut seen_blobs = HashSet::new();
    let mut left = vec![(".".to_owned(), root.clone())];
    let mut asked = FuturesUnordered::new();
    loop {
        while asked.len() < ASKED_MAX
            && let Some((path, node)) = left.pop()
        {
            let is_new = match &node {
                Node::Directory { digest, size } => seen_directories.insert((*digest, *size)),
                Node::File { digest, size, .. } => seen_blobs.insert((*digest, *size)),
                Node::Symlink { .. } => false,
            };
            if is_new {
                asked.push(ask(castore, path, node));
            }
        }
        match asked.next().await {
            Some(children) => left.extend(children?),
            None => return Ok(()),
        }
    }
}

/// The children of a node that is there.
async fn ask(castore: &Castore, path: String, node: Node) -> Result<Vec<(String, Node)>, ExportError> {
    match node {
        Node::Directory { digest, size } => directory(castore, path, &digest, size).await,
        Node::File { digest, size, .. } => blob(castore, path, &digest, size).await,
        Node::Symlink { .. } => Ok(Vec::new()),
    }
}

async fn directory(
    castore: &Castore,
    path: String,
    digest: &DirectoryDigest,
    size: u64,
) -> Result<Vec<(String, Node)>, ExportError> {
    let found = castore.directories.get(digest).await;
    let found = found.and_then(|found| {
        found.ok_or_else(|| ReadDirectoryError::Missing {
            digest: *digest,
            store: StoreName::from("the store"),
        })
    });
    let directory = match found {
        Ok(directory) => directory,
        Err(source) => return Err(ExportError::Directory { path, source }),
    };
    if directory.size() != size {
        return Err(ExportError::DirectorySize {
            path,
            digest: *digest,
        });
    }
    let child = |(name, node): &(crate::node::NodeName, Node)| {
        let name = name.as_bytes().escape_ascii();
        (format!("{path}/{name}"), node.clone())
    };
    Ok(directory.entries().iter().map(child).collect())
}

async fn blob(
    castore: &Castore,
    path: String,
    digest: &BlobDigest,
    size: u64,
) -> Result<Vec<(String, Node)>, ExportError> {
    let found = castore.blobs.stat(digest).await;
    let found = found.and_then(|found| {
        found.ok_or_else(|| ReadBlobError::Missing {
            digest: *digest,
            store: StoreName::from("the store"),
        })
    });
    match found {
        Ok(stat) if stat.size == size => Ok(Vec::new()),
        Ok(_) => Err(ExportError::Size {
            path,
            digest: *digest,
        }),
        Err(source) => Err(ExportError::Blob { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use igloo_status::Code;

    use super::*;
    use crate::directory::Directory;
    use crate::ingest::put_blob;
    use crate::memory;
    use crate::node::NodeName;

    fn file(digest: BlobDigest, size: u64) -> Node {
        Node::File {
            digest,
            size,
            executable: false,
        }
    }

    fn directory_of(name: &str, node: Node) -> Directory {
        Directory::from_entries(vec![(NodeName::try_from(name).unwrap(), node)]).unwrap()
    }

    #[tokio::test]
    async fn a_tree_is_there_when_all_of_it_is() {
        let castore = memory::castore("test");
        let (digest, _) = put_blob(&castore, Bytes::from_static(b"text")).await.unwrap();
        let inner = directory_of("f", file(digest, 4));
        let outer = directory_of("d", inner.node());
        let failed = async |root: Node| check_present(&castore, &root).await.unwrap_err();

        let error = failed(outer.node()).await;
        assert_eq!(error.to_string(), "cannot read the directory `.`");
        assert_eq!(error.code(), Code::DataLoss);
        let both = vec![inner.clone(), outer.clone()];
        castore.directories.put(both).await.unwrap();
        check_present(&castore, &outer.node()).await.unwrap();

        let absent = directory_of("x\n", file(BlobDigest::of(b"absent"), 6));
        castore.directories.put(vec![absent.clone()]).await.unwrap();
        let error = failed(absent.node()).await;
        assert_eq!(error.to_string(), "cannot read the file `./x\\n`");
        let error = failed(file(digest, 5)).await;
        assert!(matches!(error, ExportError::Size { .. }), "{error}");
        let Node::Directory { digest, size } = outer.node() else {
            unreachable!("made above")
        };
        let error = failed(Node::Directory {
            digest,
            size: size + 1,
        })
        .await;
        assert!(matches!(error, ExportError::DirectorySize { .. }), "{error}");
    }
}
