//! The caller's own tables: byte strings under byte strings, written in batches.

use std::ops::Bound;

use bytes::Bytes;
use rocksdb::{Direction, IteratorMode};

use super::{RocksDatabase, Shared};
use crate::error::BackendError;

/// A key and its value.
pub type Row = (Bytes, Bytes);

/// One table of the caller's. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Table {
    database: RocksDatabase,
    name: &'static str,
}

impl Table {
    pub(super) fn new(database: RocksDatabase, name: &'static str) -> Self {
        Self { database, name }
    }

    /// The value under `key`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let (name, key) = (self.name, Bytes::copy_from_slice(key));
        self.database.blocking(move |shared| shared.get(name, &key)).await
    }

    /// At most `count_max` rows in ascending order of key, starting at the bound. An empty answer means the end.
    pub async fn page(&self, start: Bound<Bytes>, count_max: usize) -> Result<Vec<Row>, BackendError> {
        let name = self.name;
        self.database
            .blocking(move |shared| page(shared, name, &start, count_max))
            .await
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

/// Changes that are made together or not at all, see [`RocksDatabase::commit`].
#[derive(Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
}

type Change = (&'static str, Bytes, Option<Bytes>);

impl Batch {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value under `key`.
    pub fn put(&mut self, table: &Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.changes.push((table.name(), key.into(), Some(value.into())));
    }

    /// Removes `key`.
    pub fn delete(&mut self, table: &Table, key: impl Into<Bytes>) {
        self.changes.push((table.name(), key.into(), None));
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

fn page(
    shared: &Shared,
    name: &'static str,
    start: &Bound<Bytes>,
    count_max: usize,
) -> Result<Vec<Row>, BackendError> {
    shared.catch_up();
    let family = shared.family(name)?;
    let (mode, skipped) = match start {
        Bound::Unbounded => (IteratorMode::Start, None),
        Bound::Included(key) => (IteratorMode::From(key, Direction::Forward), None),
        Bound::Excluded(key) => (IteratorMode::From(key, Direction::Forward), Some(key)),
    };
    let mut rows = Vec::new();
    for row in shared.db.iterator_cf(family, mode) {
        let (key, value) =
            row.map_err(|error| shared.error(&format!("cannot list the table `{name}`"), error))?;
        if skipped.is_some_and(|skipped| **skipped == *key) {
            continue;
        }
        rows.push((Bytes::from(key), Bytes::from(value)));
        if rows.len() >= count_max {
            break;
        }
    }
    Ok(rows)
}
