//! A whole store as the top directory of a mount.

use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use igloo_castore::NodeName;
use igloo_mount::roots::{RootEntry, Roots, RootsError, Stability};
use igloo_store::{PathInfo, Store};
use nix_compat::store_path::StorePath;

/// How long the kernel may keep a name: a path that is registered stays what it is.
const ENTRY_TTL: Duration = Duration::from_secs(3600);

/// Shows every registered store path under its base name.
///
/// A listing reads all records; look-ups read one. A path registered after it was looked for in vain is seen at the next
/// look-up, for misses are not kept.
#[derive(Debug)]
pub struct StoreRoots {
    store: Store,
}

impl StoreRoots {
    /// Shows this store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Roots for StoreRoots {
    async fn lookup(&self, name: &NodeName) -> Result<Option<RootEntry>, RootsError> {
        let Ok(path) = StorePath::parse_bytes(name.as_bytes()) else {
            return Ok(None); // not the name of a store path: nothing here is called that
        };
        let info = self.store.path_infos.get(&path).await;
        let info =
            info.map_err(|error| RootsError::new(error.code(), "its records are unreadable", error))?;
        info.map(|info| entry(&info)).transpose()
    }

    async fn list(&self, after: u64, count_max: usize) -> Result<Vec<RootEntry>, RootsError> {
        let failed = |error: igloo_store::path_info::ReadPathInfoError| {
            RootsError::new(error.code(), "its records are unreadable", error)
        };
        let mut entries = Vec::new();
        let mut infos = self.store.path_infos.list();
        while let Some(info) = infos.try_next().await.map_err(failed)? {
            let entry = entry(&info)?;
            if entry.cursor > after {
                entries.push(entry);
            }
            if entries.len() >= 2 * count_max.max(1) {
                keep_first(&mut entries, count_max);
            }
        }
        keep_first(&mut entries, count_max);
        Ok(entries)
    }

    fn stability(&self) -> Stability {
        Stability::Changing {
            version: 0,
            entry_ttl: ENTRY_TTL,
        }
    }
}

fn keep_first(entries: &mut Vec<RootEntry>, count: usize) {
    entries.sort_unstable_by_key(|entry| entry.cursor);
    entries.truncate(count);
}

/// The place of a path in the listing follows from its hash, so it never changes. Two paths in one place (one chance in
/// 2^62 for each pair) would show as one in listings, never in look-ups.
fn entry(info: &PathInfo) -> Result<RootEntry, RootsError> {
    let mut first = [0; 8];
    first.copy_from_slice(&info.path.digest()[..8]);
    let cursor = (u64::from_be_bytes(first) >> 2).max(1);
    let name = NodeName::try_from(info.path.to_string().as_str())
        .map_err(|error| RootsError::new(error.code(), "a store path is no file name", error))?;
    Ok(RootEntry {
        name,
        node: info.node.clone(),
        cursor,
    })
}
