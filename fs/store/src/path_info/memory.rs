//! Path infos in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use nix_compat::store_path::{DIGEST_LEN, StorePath};

use super::{PathInfo, PathInfoStore, ReadPathInfoError, RegisterError, check_references};

/// Path infos in memory: for tests and throw-away work.
#[derive(Debug, Default)]
pub struct MemoryPathInfoStore {
    infos: Mutex<BTreeMap<[u8; DIGEST_LEN], PathInfo>>,
}

impl MemoryPathInfoStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn infos(&self) -> MutexGuard<'_, BTreeMap<[u8; DIGEST_LEN], PathInfo>> {
        // a panic elsewhere leaves it whole: entries are only ever added
        self.infos.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, path: &StorePath) -> bool {
        self.infos()
            .get(path.digest())
            .is_some_and(|info| info.path == *path)
    }
}

#[async_trait]
impl PathInfoStore for MemoryPathInfoStore {
    async fn get_by_digest(&self, digest: &[u8; DIGEST_LEN]) -> Result<Option<PathInfo>, ReadPathInfoError> {
        Ok(self.infos().get(digest).cloned())
    }

    async fn register(&self, infos: Vec<PathInfo>) -> Result<(), RegisterError> {
        check_references(&infos, async |path| Ok(self.holds(&path))).await?;
        let mut table = self.infos();
        for info in infos {
            table.entry(*info.path.digest()).or_insert(info);
        }
        Ok(())
    }

    fn list(&self) -> BoxStream<'_, Result<PathInfo, ReadPathInfoError>> {
        let infos: Vec<_> = self.infos().values().cloned().map(Ok).collect();
        stream::iter(infos).boxed()
    }
}
