//! The input closure of a build.

use std::collections::{BTreeMap, BTreeSet};

use igloo_store::path_info::ReadPathInfoError;
use igloo_store::{PathInfoStore, Store};
use nix_compat::store_path::StorePath;

use crate::request::InputClosure;

/// Everything `roots` refer to, directly or not, themselves included, with the tree of each.
///
/// One look-up for each path of the closure. The second set holds paths that are not registered: only a damaged store has
/// any besides missing roots.
///
/// # Errors
/// The store's records cannot be read.
pub async fn input_closure(
    store: &Store,
    roots: impl IntoIterator<Item = &StorePath>,
) -> Result<(InputClosure, BTreeSet<StorePath>), ReadPathInfoError> {
    let mut closure = BTreeMap::new();
    let mut missing = BTreeSet::new();
    let mut to_visit: Vec<StorePath> = roots.into_iter().cloned().collect();
    while let Some(path) = to_visit.pop() {
        if closure.contains_key(&path) || missing.contains(&path) {
            continue;
        }
        match store.path_infos.get(&path).await? {
            Some(info) => {
                to_visit.extend(info.references);
                closure.insert(path, info.node);
            }
            None => {
                missing.insert(path);
            }
        }
    }
    Ok((closure, missing))
}
