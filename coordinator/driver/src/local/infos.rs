//! Path infos that were read before: a build's closure is mostly what the builds before it had.
//!
//! A path that is registered does not change; one that was removed is found missing on the second try, which reads all anew.

use std::collections::BTreeMap;

use igloo_store::{ClosureError, PathInfo, Store};
use nix_compat::store_path::StorePath;
use quick_cache::sync::Cache;

/// Path infos kept, the latest.
const INFOS_MAX: usize = 1 << 15;

/// Whether what was read before counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It does.
    Remembered,
    /// Everything is read from the store.
    Anew,
}

/// Path infos by path.
#[derive(Debug)]
pub(crate) struct Infos(Cache<StorePath, PathInfo>);

impl Infos {
    pub(crate) fn new() -> Self {
        Self(Cache::new(INFOS_MAX))
    }

    /// The records of `roots` and of all they refer to, as [`Store::closure`] gives them.
    pub(crate) async fn closure(
        &self,
        store: &Store,
        roots: impl IntoIterator<Item = StorePath>,
        reading: Reading,
    ) -> Result<BTreeMap<StorePath, PathInfo>, ClosureError> {
        let mut closure = BTreeMap::new();
        let mut to_visit: Vec<(StorePath, Option<StorePath>)> =
            roots.into_iter().map(|root| (root, None)).collect();
        while let Some((path, referrer)) = to_visit.pop() {
            if closure.contains_key(&path) {
                continue;
            }
            let Some(info) = self.get(store, &path, reading).await? else {
                return Err(ClosureError::Missing { path, referrer });
            };
            let new = info.references.iter();
            let new = new.filter(|reference| !closure.contains_key(*reference));
            to_visit.extend(new.map(|reference| (reference.clone(), Some(path.clone()))));
            closure.insert(path, info);
        }
        Ok(closure)
    }

    async fn get(
        &self,
        store: &Store,
        path: &StorePath,
        reading: Reading,
    ) -> Result<Option<PathInfo>, ClosureError> {
        if reading == Reading::Remembered
            && let Some(info) = self.0.get(path)
        {
            return Ok(Some(info));
        }
        let info = store.path_infos.get(path).await?;
        match &info {
            Some(info) => self.0.insert(path.clone(), info.clone()),
            None => {
                self.0.remove(path);
            }
        }
        Ok(info)
    }
}
