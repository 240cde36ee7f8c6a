//! Facts in the embedded database, in tables of their own.

use async_trait::async_trait;
use bytes::Bytes;
use igloo_castore::error::{BackendError, WriteError};
use igloo_castore::rocks::{Batch, RocksDatabase, Table};

use super::{Fact, FactKind, FactStore};

/// The tables' names; must be among the tables the database is opened with.
pub const FACT_TABLES: [&str; 2] = ["realisations", "provenance"];

/// Facts beside the path infos, in one log with them: what is put before a registration is durable with it.
#[derive(Debug)]
pub struct RocksFactStore {
    database: RocksDatabase,
    tables: [Option<Table>; 2],
}

impl RocksFactStore {
    /// The facts of a database. A table it was opened without is empty, and nothing can be put into it.
    pub fn new(database: RocksDatabase) -> Self {
        let tables = FACT_TABLES.map(|name| database.table(name));
        Self { database, tables }
    }

    fn table(&self, kind: FactKind) -> Option<&Table> {
        let [realisations, provenance] = &self.tables;
        match kind {
            FactKind::Realisation => realisations.as_ref(),
            FactKind::Provenance => provenance.as_ref(),
        }
    }
}

#[async_trait]
impl FactStore for RocksFactStore {
    async fn get(&self, kind: FactKind, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        match self.table(kind) {
            Some(table) => table.get(key).await,
            None => Ok(None),
        }
    }

    async fn put(&self, facts: Vec<Fact>) -> Result<(), WriteError> {
        let mut batch = Batch::new();
        for (kind, key, value) in facts {
            if let Some(table) = self.table(kind) {
                batch.put(table, key, value);
            }
        }
        self.database.put(batch).await
    }
}
