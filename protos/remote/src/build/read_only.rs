//! A content store that may be read but not written.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use igloo_castore::digest::{BlobDigest, DirectoryDigest};
use igloo_castore::directory::Directory;
use igloo_castore::error::{BackendError, ReadBlobError, ReadDirectoryError, WriteError};
use igloo_castore::store::{BlobStat, BlobStore, BlobWriter, Castore, DirectoryStore};
use igloo_status::Code;

/// The same content, without any way to add to it.
pub(super) fn read_only(castore: Castore) -> Castore {
    Castore {
        blobs: Arc::new(ReadOnly(castore.blobs)),
        directories: Arc::new(ReadOnly(castore.directories)),
    }
}

#[derive(Debug)]
struct ReadOnly<T: ?Sized>(Arc<T>);

fn refused() -> WriteError {
    let message = "the inputs of a build can only be read";
    WriteError::Backend(BackendError {
        store: "inputs".into(),
        code: Code::PermissionDenied,
        message: message.into(),
        source: None,
    })
}

#[async_trait]
impl BlobStore for ReadOnly<dyn BlobStore> {
    async fn stat(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError> {
        self.0.stat(digest).await
    }

    async fn read_range(&self, digest: &BlobDigest, offset: u64, len: usize) -> Result<Bytes, ReadBlobError> {
        self.0.read_range(digest, offset, len).await
    }

    async fn put_small(&self, _: Vec<(BlobDigest, Bytes)>) -> Result<(), WriteError> {
        Err(refused())
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, WriteError> {
        Err(refused())
    }

    async fn sync(&self) -> Result<(), WriteError> {
        Ok(())
    }
}

#[async_trait]
impl DirectoryStore for ReadOnly<dyn DirectoryStore> {
    async fn get(&self, digest: &DirectoryDigest) -> Result<Option<Arc<Directory>>, ReadDirectoryError> {
        self.0.get(digest).await
    }

    async fn put(&self, _: Vec<Directory>) -> Result<(), WriteError> {
        Err(refused())
    }

    async fn sync(&self) -> Result<(), WriteError> {
        Ok(())
    }
}
