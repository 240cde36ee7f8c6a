//! What is known of paths and derivations beside path infos: small rows in a few tables.
//!
//! Invariants of every `FactStore`
//! - a put is all or nothing, and seen at once by whoever reads through the same store;
//! - it is durable at the latest when the next registration of path infos is, so what is put before a registration outlives
//!   whatever that outlives. What is lost in a crash before was about nothing that is there.

#[cfg(feature = "rocksdb")]
mod rocks;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use igloo_castore::error::{BackendError, WriteError};

#[cfg(feature = "rocksdb")]
pub use rocks::{FACT_TABLES, RocksFactStore};

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKind {
    /// Which path an output of a derivation has, where its text does not say.
    Realisation,
    /// Where a path that was built comes from.
    Provenance,
}

/// A row: which table, key, value.
pub type Fact = (FactKind, Bytes, Bytes);

/// Small rows by key.
#[async_trait]
pub trait FactStore: fmt::Debug + Send + Sync {
    /// The value under a key.
    async fn get(&self, kind: FactKind, key: &[u8]) -> Result<Option<Bytes>, BackendError>;

    /// Sets values, over those that were there.
    async fn put(&self, facts: Vec<Fact>) -> Result<(), WriteError>;
}

/// Facts in memory: for tests, and beside stores that cannot keep them.
#[derive(Debug, Default)]
pub struct MemoryFactStore {
    rows: Mutex<BTreeMap<(FactKind, Bytes), Bytes>>,
}

impl MemoryFactStore {
    /// No facts.
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<(FactKind, Bytes), Bytes>> {
        // a panic elsewhere leaves it whole: rows are only ever set
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl FactStore for MemoryFactStore {
    async fn get(&self, kind: FactKind, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        Ok(self.rows().get(&(kind, Bytes::copy_from_slice(key))).cloned())
    }

    async fn put(&self, facts: Vec<Fact>) -> Result<(), WriteError> {
        let facts = facts.into_iter();
        self.rows()
            .extend(facts.map(|(kind, key, value)| ((kind, key), value)));
        Ok(())
    }
}
