//! What the worlds of one evaluation on several threads have in common.
//!
//! Invariants
//! - a derivation that several of them make is registered, and told, once, behind all it refers to;
//! - without a hash, one URL gives the same to all of them; while one fetches it, the others wait.
//!
//! Lock order: `transfers`, then a transfer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use igloo_castore::node::Node;
use nix_compat::hash::NixHash;

use crate::fetch::FetchError;
use crate::registrar::Registrar;

/// What [`crate::StoreIo::beside`] takes: cheap to clone, and may go to other threads.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    pub(crate) registrar: Arc<OnceLock<Registrar>>,
    transfers: Arc<Mutex<HashMap<TransferKey, Transfer>>>,
}

/// What a fetch gave, once it did; locked while somebody is at it.
type Transfer = Arc<Mutex<Option<Got>>>;

/// URL, name, whether it is unpacked, and hash.
pub(crate) type TransferKey = (String, String, bool, Option<NixHash>);

/// The node fetched, the hash of the file if it is one, and the time of an archive's newest entry.
pub(crate) type Got = (Node, Option<NixHash>, Option<u64>);

impl Shared {
    /// What was fetched, by this or another thread. Blocks while another is at it; what failed is tried again.
    pub(crate) fn fetched(
        &self,
        key: TransferKey,
        fetch: impl FnOnce() -> Result<Got, FetchError>,
    ) -> Result<Got, FetchError> {
        let transfer = Arc::clone(lock(&self.transfers).entry(key).or_default());
        let mut got = lock(&transfer);
        if let Some(got) = &*got {
            return Ok(got.clone());
        }
        let new = fetch()?;
        *got = Some(new.clone());
        Ok(new)
    }
}

/// A panic elsewhere leaves both whole: every change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
