//! Walking castore trees and reading files by content: what every view of a store needs, FUSE or not.
//!
//! Invariants
//! - a directory is decoded once and shared: a look-up is a binary search in an `Arc<Directory>`;
//! - concurrent requests for one directory make one fetch;
//! - the cache is bounded in bytes and shared by all mounts made from one `Tree`;
//! - a file read never returns fewer bytes than its directory promised: a shorter blob is an error, for a kernel would
//!   fill the rest with zeros.

use bytes::Bytes;
use igloo_castore::error::{ReadBlobError, ReadDirectoryError};
use igloo_castore::{
    BlobDigest, Castore, Directory, DirectoryDigest, DirectoryStore, Node, NodeName, StoreName,
};
use igloo_status::Code;
use quick_cache::sync::Cache;

use crate::sync::Arc;

/// Bytes of decoded directories kept by default: enough for the trees of a large build.
pub const DIRECTORY_CACHE_BYTES: u64 = 64 << 20;

/// A content store with its decoded directories at hand. Clones share the cache.
#[derive(Clone, Debug)]
pub struct Tree {
    castore: Castore,
    cache: Arc<Cache<DirectoryDigest, Arc<Directory>, Weight>>,
}

impl Tree {
    /// Reads from `castore`, keeping up to `cache_bytes` of decoded directories.
    pub fn new(castore: Castore, cache_bytes: u64) -> Self {
        let items = usize::try_from(cache_bytes / ITEM_BYTES_TYPICAL).unwrap_or(usize::MAX);
        Self {
            castore,
            cache: Arc::new(Cache::with_weighter(
                items.clamp(16, 1 << 20),
                cache_bytes,
                Weight,
            )),
        }
    }

    /// The stores behind it.
    pub fn castore(&self) -> &Castore {
        &self.castore
    }

    /// A directory. Free when cached, else one request to the store.
    ///
    /// # Errors
    /// As the store says; a directory that is not there is `Missing`.
    pub async fn directory(&self, digest: &DirectoryDigest) -> Result<Arc<Directory>, ReadDirectoryError> {
        self.cache
            .get_or_insert_async(digest, load(&*self.castore.directories, digest))
            .await
    }

    /// The entry of that name and its position, found by binary search.
    pub async fn child(
        &self,
        digest: &DirectoryDigest,
        name: &[u8],
    ) -> Result<Option<(u64, Node)>, ReadDirectoryError> {
        Ok(find(self.directory(digest).await?.entries(), name))
    }

    /// Bytes of a file whose directory says it has `size`: exactly `min(len, size - offset)`, none at or past the end.
    ///
    /// # Errors
    /// As the store says; `Short` when the blob ends before `size`.
    pub async fn read(
        &self,
        digest: &BlobDigest,
        size: u64,
        offset: u64,
        len: u32,
    ) -> Result<Bytes, ReadFileError> {
        let wanted = size.saturating_sub(offset).min(u64::from(len));
        let Ok(wanted) = usize::try_from(wanted) else {
            return Ok(Bytes::new()); // not reachable: `len` is 32 bits
        };
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let mut bytes = self.castore.blobs.read_range(digest, offset, wanted).await?;
        if bytes.len() < wanted {
            let (digest, got) = (*digest, bytes.len());
            return Err(ReadFileError::Short {
                digest,
                size,
                offset,
                wanted,
                got,
            });
        }
        bytes.truncate(wanted);
        Ok(bytes)
    }
}

/// Finds a name in sorted entries: its position and its node.
pub(crate) fn find(entries: &[(NodeName, Node)], name: &[u8]) -> Option<(u64, Node)> {
    let index = entries
        .binary_search_by(|(entry, _)| entry.as_bytes().cmp(name))
        .ok()?;
    let (_, node) = entries.get(index)?;
    Some((u64::try_from(index).ok()?, node.clone()))
}

/// Reads a directory that must be there.
pub(crate) async fn load(
    store: &dyn DirectoryStore,
    digest: &DirectoryDigest,
) -> Result<Arc<Directory>, ReadDirectoryError> {
    store
        .get(digest)
        .await?
        .ok_or_else(|| ReadDirectoryError::Missing {
            digest: *digest,
            store: StoreName::from("the mounted store"),
        })
}

/// Why bytes of a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFileError {
    /// The store failed.
    #[error(transparent)]
    Blob(#[from] ReadBlobError),
    /// The blob is shorter than the directory that names it says.
    #[error("blob {digest} should have {size} bytes, but at byte {offset} it gave {got} of {wanted}")]
    Short {
        /// The blob.
        digest: BlobDigest,
        /// Bytes it should have.
        size: u64,
        /// Where the read started.
        offset: u64,
        /// Bytes there should have been.
        wanted: usize,
        /// Bytes there were.
        got: usize,
    },
}

impl ReadFileError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Blob(error) => error.code(),
            Self::Short { .. } => Code::DataLoss,
        }
    }
}

/// What a cached directory weighs, bytes: a guess, for `Bytes` are shared.
#[derive(Clone, Copy, Debug)]
struct Weight;

const ITEM_BYTES_TYPICAL: u64 = 2048;
const ENTRY_BYTES: u64 = 160; // the tuple, and its part of the encoding that names and targets point into

impl quick_cache::Weighter<DirectoryDigest, Arc<Directory>> for Weight {
    fn weight(&self, _: &DirectoryDigest, directory: &Arc<Directory>) -> u64 {
        let entries = u64::try_from(directory.len()).unwrap_or(u64::MAX);
        entries.saturating_mul(ENTRY_BYTES).saturating_add(128)
    }
}
