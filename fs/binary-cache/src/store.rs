//! Another igloo store as a substituter: in this process, or over gRPC behind the same traits.
//!
//! Trees are not sent as archives: directories are walked, and only what this store lacks is copied.
//!
//! Invariants
//! - every directory is looked at, also those that are here already: an ingest that was cut short may have left a
//!   directory without its files;
//! - bytes go to the store only after they matched their digest, files before the directories that name them;
//! - what a signature covers is the NAR, not the tree: the NAR is rendered from the copy and hashed, unless the other store
//!   is trusted as it is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use igloo_castore::chunking::UNCUT_SIZE_MAX;
use igloo_castore::digest::{BlobDigest, DirectoryDigest};
use igloo_castore::directory::Directory;
use igloo_castore::error::{ReadBlobError, ReadDirectoryError};
use igloo_castore::node::Node;
use igloo_castore::store::StoreName;
use igloo_store::nar::{NarDigest, NarStream};
use igloo_store::{DeclaredNar, PathInfo, Store};
use nix_compat::hash::{HashAlgo, Hasher, NixHash};
use nix_compat::store_path::StorePath;

use crate::progress::{Progress, ProgressEvent};
use crate::substituter::{
    CacheInfo, FetchError, LookUpError, Offer, OfferPlace, Refusal, Substituter, check_dir,
};
use crate::trust::{Trust, Vouched};

/// Directories and files asked for at once.
const WINDOW: usize = 32;
/// Bytes of a large file asked for at a time.
const READ_SIZE: usize = 1 << 20;
/// Directories stored at a time.
const DIRECTORIES_BATCH: usize = 256;
/// A NAR has at least this many bytes for each entry of a directory: the words `entry ( name node ( type )`, padded.
const NAR_ENTRY_SIZE_MIN: u64 = 96;

/// A store that paths are copied from.
#[derive(Debug)]
pub struct StoreSubstituter {
    name: StoreName,
    store: Store,
    trust: Trust,
    priority: u32,
}

impl StoreSubstituter {
    /// Copies from `store`, which is called `name` in messages.
    pub fn new(name: StoreName, store: Store, trust: Trust, priority: u32) -> Self {
        Self {
            name,
            store,
            trust,
            priority,
        }
    }

    fn offer(&self, info: PathInfo) -> Result<Offer, Arc<Refusal>> {
        let nar = DeclaredNar {
            path: info.path,
            nar_sha256: info.nar_sha256,
            nar_size: info.nar_size,
            references: info.references,
            deriver: info.deriver,
            signatures: info.signatures,
            content_address: info.content_address,
        };
        let Some(vouched) = self.trust.vouch(&self.store.dir, &nar) else {
            let keys = nar
                .signatures
                .iter()
                .map(|signature| signature.key_name().to_owned());
            return Err(Arc::new(Refusal::Untrusted {
                url: self.name.to_string(),
                signed_by: keys.take(8).collect(),
                path: nar.path,
            }));
        };
        Ok(Offer {
            nar,
            vouched,
            download_size: None,
            from: self.name.clone(),
            place: OfferPlace::Tree { node: info.node },
        })
    }
}

#[async_trait]
impl Substituter for StoreSubstituter {
    fn name(&self) -> &StoreName {
        &self.name
    }

    async fn info(&self) -> Result<CacheInfo, LookUpError> {
        Ok(CacheInfo {
            store_dir: self.store.dir.clone(),
            priority: self.priority,
            want_mass_query: true,
        })
    }

    async fn look_up(&self, path: &StorePath) -> Result<Option<Arc<Offer>>, LookUpError> {
        let found = self.store.path_infos.get(path).await;
        let found = found.map_err(|source| LookUpError::Read {
            store: self.name.clone(),
            source,
        })?;
        // the other side may be a stranger: it can answer with another path
        match found.filter(|info| info.path == *path) {
            Some(info) => Ok(Some(Arc::new(self.offer(info)?))),
            None => Ok(None),
        }
    }

    async fn fetch(
        &self,
        offer: &Offer,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<PathInfo, FetchError> {
        let OfferPlace::Tree { node } = &offer.place else {
            return Err(FetchError::NotOffered {
                from: self.name.clone(),
                path: offer.nar.path.clone(),
            });
        };
        check_dir(&self.name, &self.store.dir, store)?;
        let copy = Copy {
            name: &self.name,
            from: &self.store,
            to: store,
            nar: &offer.nar,
            progress,
        };
        copy.tree(node).await?;
        let digest = if offer.vouched == Vouched::Anyone {
            NarDigest {
                sha256: offer.nar.nar_sha256,
                size: offer.nar.nar_size,
            }
        } else {
            copy.nar_digest(node).await?
        };
        let checked = store
            .check_declared(offer.nar.clone(), node.clone(), digest)
            .await;
        checked.map_err(|source| FetchError::Add {
            url: self.name.to_string(),
            source: source.into(),
        })
    }
}

/// One tree being copied.
struct Copy<'a> {
    name: &'a StoreName,
    from: &'a Store,
    to: &'a Store,
    nar: &'a DeclaredNar,
    progress: &'a dyn Progress,
}

/// A directory, and whether it is here already.
type Found = (Arc<Directory>, bool);

impl Copy<'_> {
    async fn tree(&self, root: &Node) -> Result<(), FetchError> {
        let mut files = BTreeMap::new();
        match root {
            Node::Symlink { .. } => Ok(()),
            Node::File { digest, size, .. } => {
                files.insert(digest.as_bytes().to_owned(), *size);
                self.check_size(*size)?;
                self.files(files).await
            }
            Node::Directory { digest, .. } => {
                let directories = self.directories(*digest, &mut files).await?;
                self.files(files).await?;
                self.put_directories(*digest, &directories).await
            }
        }
    }

    /// All directories of a tree, level by level, and the files they name.
    async fn directories(
        &self,
        root: DirectoryDigest,
        files: &mut BTreeMap<[u8; 32], u64>,
    ) -> Result<HashMap<DirectoryDigest, Found>, FetchError> {
        let mut directories = HashMap::new();
        let mut seen = HashSet::from([root]);
        let mut level = vec![root];
        let (mut entries, mut bytes) = (0u64, 0u64);
        while !level.is_empty() {
            let asked = stream::iter(
                level
                    .drain(..)
                    .map(|digest| self.directory(digest))
                    .collect::<Vec<_>>(),
            );
            let found: Vec<_> = asked.buffer_unordered(WINDOW).try_collect().await?;
            for (digest, (directory, here)) in found {
                entries += directory.len() as u64;
                self.check_size(entries.saturating_mul(NAR_ENTRY_SIZE_MIN))?;
                for (_, node) in directory.entries() {
                    match node {
                        Node::Directory { digest, .. } if seen.insert(*digest) => level.push(*digest),
                        Node::File { digest, size, .. } if !files.contains_key(digest.as_bytes()) => {
                            files.insert(*digest.as_bytes(), *size);
                            bytes = bytes.saturating_add(*size);
                            self.check_size(bytes)?;
                        }
                        _ => {}
                    }
                }
                directories.insert(digest, (directory, here));
            }
        }
        Ok(directories)
    }

    async fn directory(&self, digest: DirectoryDigest) -> Result<(DirectoryDigest, Found), FetchError> {
        let wrong = |source| FetchError::Directory {
            from: self.name.clone(),
            path: self.nar.path.clone(),
            source: Box::new(source),
        };
        if let Some(directory) = self.to.castore.directories.get(&digest).await.map_err(wrong)? {
            return Ok((digest, (directory, true)));
        }
        let found = self.from.castore.directories.get(&digest).await.map_err(wrong)?;
        let Some(directory) = found else {
            return Err(wrong(ReadDirectoryError::Missing {
                digest,
                store: self.name.clone(),
            }));
        };
        if directory.digest() != digest {
            return Err(wrong(ReadDirectoryError::Corrupt {
                digest,
                store: self.name.clone(),
            }));
        }
        Ok((digest, (directory, false)))
    }

    /// Children before parents.
    async fn put_directories(
        &self,
        root: DirectoryDigest,
        directories: &HashMap<DirectoryDigest, Found>,
    ) -> Result<(), FetchError> {
        let mut batch = Vec::new();
        let mut entered = HashSet::new();
        let mut stack = vec![(root, false)];
        while let Some((digest, left)) = stack.pop() {
            let Some((directory, here)) = directories.get(&digest) else {
                continue; // all that are named were found
            };
            if left {
                if !here {
                    batch.push(Directory::clone(directory));
                }
                if batch.len() >= DIRECTORIES_BATCH {
                    self.put(std::mem::take(&mut batch)).await?;
                }
            } else if entered.insert(digest) {
                stack.push((digest, true));
                let children = directory.entries().iter().filter_map(|(_, node)| match node {
                    Node::Directory { digest, .. } => Some((*digest, false)),
                    _ => None,
                });
                stack.extend(children);
            }
        }
        self.put(batch).await
    }

    async fn put(&self, directories: Vec<Directory>) -> Result<(), FetchError> {
        if directories.is_empty() {
            return Ok(());
        }
        let put = self.to.castore.directories.put(directories).await;
        put.map_err(|source| FetchError::Write {
            path: self.nar.path.clone(),
            source,
        })
    }

    async fn files(&self, files: BTreeMap<[u8; 32], u64>) -> Result<(), FetchError> {
        let copies: Vec<_> = files
            .into_iter()
            .map(|(digest, size)| self.file(BlobDigest::from_bytes(digest), size))
            .collect();
        stream::iter(copies)
            .buffer_unordered(WINDOW)
            .try_collect::<()>()
            .await
    }

    async fn file(&self, digest: BlobDigest, size: u64) -> Result<(), FetchError> {
        let wrong = |source| self.blob_error(source);
        let stat = self.to.castore.blobs.stat(&digest).await.map_err(wrong)?;
        if let Some(stat) = stat {
            let right = stat.size == size;
            return right.then_some(()).ok_or_else(|| self.corrupt(&digest));
        }
        if size <= UNCUT_SIZE_MAX as u64 {
            self.small_file(digest, size).await
        } else {
            self.large_file(digest, size).await
        }
    }

    async fn small_file(&self, digest: BlobDigest, size: u64) -> Result<(), FetchError> {
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let blobs = &self.from.castore.blobs;
        let bytes = blobs
            .read_range(&digest, 0, length)
            .await
            .map_err(|source| self.blob_error(source))?;
        if bytes.len() != length || !digest.matches(&bytes) {
            return Err(self.corrupt(&digest));
        }
        self.copied(size);
        let put = self.to.castore.blobs.put_small(vec![(digest, bytes)]).await;
        put.map_err(|source| self.write_error(source))
    }

    async fn large_file(&self, digest: BlobDigest, size: u64) -> Result<(), FetchError> {
        let writing = |source| self.write_error(source);
        let mut writer = self.to.castore.blobs.writer().await.map_err(writing)?;
        let mut at = 0;
        while at < size {
            let blobs = &self.from.castore.blobs;
            let bytes = blobs
                .read_range(&digest, at, READ_SIZE)
                .await
                .map_err(|source| self.blob_error(source))?;
            at += bytes.len() as u64;
            if bytes.is_empty() || at > size {
                return Err(self.corrupt(&digest));
            }
            self.copied(bytes.len() as u64);
            writer.write(bytes).await.map_err(writing)?;
        }
        let (found, _) = writer.finish().await.map_err(writing)?;
        if found == digest {
            Ok(())
        } else {
            Err(self.corrupt(&digest))
        }
    }

    /// Hash and size of the NAR of the copy; stops where it gets too long.
    async fn nar_digest(&self, node: &Node) -> Result<NarDigest, FetchError> {
        let mut hasher = Hasher::new(HashAlgo::Sha256);
        let mut size = 0;
        let mut stream = NarStream::new(self.to.castore.clone(), node.clone());
        loop {
            let bytes = stream.next().await.map_err(|source| FetchError::ReadBack {
                path: self.nar.path.clone(),
                source: source.into(),
            })?;
            let Some(bytes) = bytes else { break };
            size += bytes.len() as u64;
            self.check_size(size)?;
            hasher.update(&bytes);
        }
        let mut sha256 = [0; 32];
        if let NixHash::Sha256(digest) = hasher.finish() {
            sha256 = digest;
        }
        Ok(NarDigest { sha256, size })
    }

    fn check_size(&self, size: u64) -> Result<(), FetchError> {
        if size <= self.nar.nar_size {
            return Ok(());
        }
        Err(FetchError::TreeTooLarge {
            from: self.name.clone(),
            path: self.nar.path.clone(),
            nar_size: self.nar.nar_size,
        })
    }

    fn copied(&self, size: u64) {
        let path = &self.nar.path;
        self.progress.event(ProgressEvent::Downloaded { path, size });
        self.progress.event(ProgressEvent::Unpacked { path, size });
    }

    fn corrupt(&self, digest: &BlobDigest) -> FetchError {
        self.blob_error(ReadBlobError::Corrupt {
            digest: digest.to_string(),
            store: self.name.clone(),
        })
    }

    fn blob_error(&self, source: ReadBlobError) -> FetchError {
        FetchError::Blob {
            from: self.name.clone(),
            path: self.nar.path.clone(),
            source: source.into(),
        }
    }

    fn write_error(&self, source: igloo_castore::error::WriteError) -> FetchError {
        FetchError::Write {
            path: self.nar.path.clone(),
            source,
        }
    }
}
