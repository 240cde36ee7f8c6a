//! Path infos in the embedded database: digest to [`record`].

use std::collections::HashSet;
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use igloo_castore::error::WriteError;
use igloo_castore::rocks::{Batch, RocksDatabase, Table};
use nix_compat::nixbase32;
use nix_compat::store_path::{DIGEST_LEN, StorePath};

use super::{PathInfo, PathInfoStore, ReadPathInfoError, RegisterError, check_references, record};

/// The table's name; must be among the tables the database is opened with.
pub const PATH_INFOS_TABLE: &str = "path-infos";
/// Records read at a time by `list`.
const PAGE_COUNT: usize = 1024;

/// Path infos beside the content they describe.
#[derive(Debug)]
pub struct RocksPathInfoStore {
    database: RocksDatabase,
    table: Table,
    /// Held from the look for what is there until the commit: the first to register a path wins.
    registering: tokio::sync::Mutex<()>,
}

impl RocksPathInfoStore {
    /// The path infos of a database; `None` when it was opened without [`PATH_INFOS_TABLE`].
    pub fn new(database: RocksDatabase) -> Option<Self> {
        let table = database.table(PATH_INFOS_TABLE)?;
        Some(Self {
            database,
            table,
            registering: tokio::sync::Mutex::default(),
        })
    }

    async fn holds(&self, path: &StorePath) -> Result<bool, ReadPathInfoError> {
        Ok(self.get(path).await?.is_some())
    }
}

#[async_trait]
impl PathInfoStore for RocksPathInfoStore {
    async fn get_by_digest(&self, digest: &[u8; DIGEST_LEN]) -> Result<Option<PathInfo>, ReadPathInfoError> {
        match self.table.get(digest).await? {
            Some(record) => decode(digest, &record).map(Some),
            None => Ok(None),
        }
    }

    async fn register(&self, infos: Vec<PathInfo>) -> Result<(), RegisterError> {
        check_references(&infos, async |path| self.holds(&path).await).await?;
        let _registering = self.registering.lock().await;
        let mut batch = Batch::new();
        let mut put = HashSet::new();
        for info in &infos {
            let digest = *info.path.digest();
            if self.table.get(&digest).await?.is_none() && put.insert(digest) {
                batch.put(&self.table, Bytes::copy_from_slice(&digest), record::encode(info));
            }
        }
        if put.is_empty() {
            return Ok(());
        }
        self.database.commit(batch).await.map_err(|error| match error {
            WriteError::Backend(error) => error.into(),
            error => RegisterError::Write(error),
        })
    }

    fn list(&self) -> BoxStream<'_, Result<PathInfo, ReadPathInfoError>> {
        stream::try_unfold(Bound::Unbounded, |start: Bound<Bytes>| async {
            let rows = self.table.page(start, PAGE_COUNT).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(None);
            };
            let next = Bound::Excluded(last.clone());
            let infos = stream::iter(rows).map(|(key, record)| decode(&key, &record));
            Ok::<_, ReadPathInfoError>(Some((infos, next)))
        })
        .try_flatten()
        .boxed()
    }
}

fn decode(key: &[u8], bytes: &[u8]) -> Result<PathInfo, ReadPathInfoError> {
    let corrupt = |reason: String| ReadPathInfoError::Corrupt {
        path: nixbase32::encode(key),
        reason,
    };
    let info = record::decode(bytes).map_err(|error| corrupt(error.to_string()))?;
    if info.path.digest() != key {
        return Err(corrupt(format!("it is the record of {}", info.path)));
    }
    Ok(info)
}
