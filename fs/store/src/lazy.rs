//! A store that is opened when it is first used.
//!
//! For commands that may need no store at all: opening one costs more than they do.
//!
//! Invariant: it is opened at most once; a failure is kept, and every later use gets it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use igloo_castore::digest::{BlobDigest, DirectoryDigest};
use igloo_castore::directory::Directory;
use igloo_castore::error::{BackendError, ReadBlobError, ReadDirectoryError, WriteError};
use igloo_castore::store::{BlobStat, BlobStore, BlobWriter, Castore, DirectoryStore, StoreName};
use igloo_status::Code;
use nix_compat::store_path::{DIGEST_LEN, StoreDir};
use tokio::sync::OnceCell;

use crate::facts::{Fact, FactKind, FactStore};
use crate::path_info::{PathInfo, PathInfoStore, ReadPathInfoError, RegisterError};
use crate::store::Store;

/// Opens a store; asked once.
pub type Opener = Box<dyn Fn() -> Opening + Send + Sync>;
/// A store on its way.
pub type Opening = Pin<Box<dyn Future<Output = Result<Store, OpenFailure>> + Send>>;

/// Why there is no store, in a form that can be told more than once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OpenFailure {
    /// The class.
    pub code: Code,
    /// The whole story in one line.
    pub message: String,
}

/// A store of that directory which `opener` opens when it is first used; `name` stands for it in messages.
pub fn lazy(dir: StoreDir, name: &str, opener: Opener) -> Store {
    let inner = Arc::new(Lazy {
        name: name.into(),
        opener,
        opened: OnceCell::new(),
    });
    Store {
        castore: Castore {
            blobs: Arc::<Lazy>::clone(&inner),
            directories: Arc::<Lazy>::clone(&inner),
        },
        facts: Arc::<Lazy>::clone(&inner),
        path_infos: inner,
        dir,
    }
}

struct Lazy {
    name: StoreName,
    opener: Opener,
    opened: OnceCell<Result<Store, OpenFailure>>,
}

impl Lazy {
    async fn store(&self) -> Result<&Store, BackendError> {
        let opened = self.opened.get_or_init(|| (self.opener)()).await;
        opened.as_ref().map_err(|failure| {
            BackendError::new(
                &self.name,
                failure.code,
                "the store cannot be opened",
                failure.clone(),
            )
        })
    }
}

impl fmt::Debug for Lazy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy")
            .field("name", &self.name)
            .field("opened", &self.opened.get())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for Lazy {
    async fn stat(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError> {
        self.store().await?.castore.blobs.stat(digest).await
    }

    async fn read_range(&self, digest: &BlobDigest, offset: u64, len: usize) -> Result<Bytes, ReadBlobError> {
        let store = self.store().await?;
        store.castore.blobs.read_range(digest, offset, len).await
    }

    async fn put_small(&self, blobs: Vec<(BlobDigest, Bytes)>) -> Result<(), WriteError> {
        self.store().await?.castore.blobs.put_small(blobs).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, WriteError> {
        self.store().await?.castore.blobs.writer().await
    }

    async fn sync(&self) -> Result<(), WriteError> {
        match self.opened.get() {
            Some(Ok(store)) => store.castore.blobs.sync().await,
            _ => Ok(()), // nothing was put
        }
    }
}

#[async_trait]
impl DirectoryStore for Lazy {
    async fn get(&self, digest: &DirectoryDigest) -> Result<Option<Arc<Directory>>, ReadDirectoryError> {
        self.store().await?.castore.directories.get(digest).await
    }

    async fn put(&self, directories: Vec<Directory>) -> Result<(), WriteError> {
        self.store().await?.castore.directories.put(directories).await
    }

    async fn sync(&self) -> Result<(), WriteError> {
        match self.opened.get() {
            Some(Ok(store)) => store.castore.directories.sync().await,
            _ => Ok(()), // nothing was put
        }
    }
}

#[async_trait]
impl PathInfoStore for Lazy {
    async fn get_by_digest(&self, digest: &[u8; DIGEST_LEN]) -> Result<Option<PathInfo>, ReadPathInfoError> {
        self.store().await?.path_infos.get_by_digest(digest).await
    }

    async fn register(&self, infos: Vec<PathInfo>) -> Result<(), RegisterError> {
        self.store().await?.path_infos.register(infos).await
    }

    fn list(&self) -> BoxStream<'_, Result<PathInfo, ReadPathInfoError>> {
        let listed = async { Ok::<_, ReadPathInfoError>(self.store().await?.path_infos.list()) };
        stream::once(listed).try_flatten().boxed()
    }
}

#[async_trait]
impl FactStore for Lazy {
    async fn get(&self, kind: FactKind, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        self.store().await?.facts.get(kind, key).await
    }

    async fn put(&self, facts: Vec<Fact>) -> Result<(), WriteError> {
        self.store().await?.facts.put(facts).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn counted(result: Result<Store, OpenFailure>) -> (Store, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let opens = Arc::clone(&count);
        let opener = move || {
            opens.fetch_add(1, Ordering::SeqCst);
            let result = result.clone();
            Box::pin(async move { result }) as Opening
        };
        (lazy(StoreDir::default(), "lazy", Box::new(opener)), count)
    }

    #[tokio::test]
    async fn a_store_is_opened_once_and_only_when_used() {
        let (store, opens) = counted(Ok(Store::memory(StoreDir::default())));
        store.castore.sync().await.unwrap();
        assert_eq!(
            opens.load(Ordering::SeqCst),
            0,
            "there is nothing to make durable"
        );
        assert!(store.path_infos.list().next().await.is_none());
        let blob = Bytes::from_static(b"x");
        let digest = BlobDigest::of(&blob);
        store
            .castore
            .blobs
            .put_small(vec![(digest, blob.clone())])
            .await
            .unwrap();
        assert_eq!(store.castore.blobs.read_range(&digest, 0, 1).await.unwrap(), blob);
        assert_eq!(opens.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failure_is_told_every_time_and_tried_once() {
        let (store, opens) = counted(Err(OpenFailure {
            code: Code::FailedPrecondition,
            message: "it is locked".to_owned(),
        }));
        for _ in 0..2 {
            let error = store
                .path_infos
                .get_by_digest(&[0; DIGEST_LEN])
                .await
                .unwrap_err();
            assert_eq!(error.code(), Code::FailedPrecondition);
        }
        assert_eq!(opens.load(Ordering::SeqCst), 1);
    }
}
