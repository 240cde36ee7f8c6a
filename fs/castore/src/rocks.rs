//! The embedded backend: one RocksDB database holding chunks, chunk lists, directories, and the caller's own tables.
//!
//! On disk
//! - `DIR/format`: which layout this is; read before anything else is touched;
//! - `DIR/lock`: locked by the one process that may write, and says who that is;
//! - `DIR/db/`: the database, one column family for each table;
//! - `DIR/tmp/`: temporary files, removed whenever the store is opened for writing.
//!
//! Invariants
//! - large puts of content skip the write-ahead log and small ones do not wait for the disk; [`RocksDatabase::sync`]
//!   makes all of them durable, and only then may something durable refer to them;
//! - [`Batch`]es of the caller's tables are all or nothing and on disk when `commit` returns;
//! - after a crash at any moment the database opens, with everything that was synced or committed;
//! - memory: block cache and write buffers stay within [`RocksMemory`]; open files within `open_files_max`;
//! - a write is refused while less than `free_space_min_bytes` are free, so the disk never fills under the database.
//!
//! The bytes of chunks lie in blob files beside the sorted tables (values of [`options::BLOB_SIZE_MIN`] bytes and more), so
//! compaction does not move them.

mod content;
mod open;
mod options;
mod table;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use igloo_status::Code;
use rocksdb::{ColumnFamily, DB, FlushOptions, WriteBatch, WriteOptions};

use crate::blocking;
use crate::cache::BlobCache;
use crate::chunked::ChunkedBlobStore;
use crate::error::{BackendError, WriteError};
use crate::store::{Castore, StoreName};
use content::{RocksBlobIndex, RocksChunkStore, RocksDirectoryStore};

pub use open::OpenRocksError;
pub use options::{RocksMemory, RocksOptions};
pub use table::{Batch, Table};

const CHUNKS: &str = "chunks";
const BLOBS: &str = "blobs";
const DIRECTORIES: &str = "directories";
/// Tables of this crate; the caller's come on top.
const CONTENT_TABLES: [&str; 3] = [CHUNKS, BLOBS, DIRECTORIES];

/// Content puts of at least this many bytes skip the write-ahead log.
const UNLOGGED_SIZE_MIN: usize = 1 << 20;
/// A reader looks for what the writer has added at most this often.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(100);
/// Pause between two looks at the free space of the disk.
const FREE_SPACE_EVERY_BYTES: u64 = 4 << 20;

/// An open database. Cheap to clone; the last clone dropped closes it.
#[derive(Clone, Debug)]
pub struct RocksDatabase {
    shared: Arc<Shared>,
}

impl RocksDatabase {
    /// Opens the store in `dir` for reading and writing; makes it, and its parents, when it is not there.
    ///
    /// One process at a time. Blocks for some tens of milliseconds.
    ///
    /// # Errors
    /// `Locked` names who has it open; `Foreign` and `Version` when `dir` is no store or not one of this version.
    pub fn open(dir: &Path, options: &RocksOptions) -> Result<Self, OpenRocksError> {
        open::open(dir, options).map(Self::from_shared)
    }

    /// Opens the store in `dir` for reading, beside the process that writes it or without one.
    ///
    /// Sees what the writer has committed, with a delay of at most 100 ms; content that is not yet synced may be
    /// missing. Keeps every file of the database open. Writes fail with `PermissionDenied`.
    ///
    /// # Errors
    /// `Absent` when there is no store; else as [`Self::open`], without `Locked`.
    pub fn open_read_only(dir: &Path, options: &RocksOptions) -> Result<Self, OpenRocksError> {
        open::open_read_only(dir, options).map(Self::from_shared)
    }

    /// The content side of the store.
    pub fn castore(&self, cache: Arc<BlobCache>) -> Castore {
        let blobs = ChunkedBlobStore::new(
            self.shared.name.clone(),
            RocksBlobIndex::new(self.clone()),
            RocksChunkStore::new(self.clone()),
            cache,
        );
        Castore {
            blobs: Arc::new(blobs),
            directories: Arc::new(RocksDirectoryStore::new(self.clone())),
        }
    }

    /// A table of the caller's, `None` when its name was not among [`RocksOptions::tables`].
    pub fn table(&self, name: &'static str) -> Option<Table> {
        self.shared.db.cf_handle(name)?;
        Some(Table::new(self.clone(), name))
    }

    /// Makes all content put so far durable. Concurrent calls share one flush.
    pub async fn sync(&self) -> Result<(), WriteError> {
        let shared = Arc::clone(&self.shared);
        Ok(blocking::run(move || shared.sync()).await?)
    }

    /// Writes a batch, all or nothing; it is on disk when this returns.
    pub async fn commit(&self, batch: Batch) -> Result<(), WriteError> {
        let shared = Arc::clone(&self.shared);
        Ok(blocking::run(move || shared.commit(batch)).await?)
    }

    /// Where temporary files go: same file system, emptied at the next open.
    pub fn tmp_dir(&self) -> PathBuf {
        self.shared.dir.join("tmp")
    }

    /// The store's name in messages.
    pub fn name(&self) -> &StoreName {
        &self.shared.name
    }

    fn from_shared(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> T + Send + 'static) -> T {
        let shared = Arc::clone(&self.shared);
        blocking::run(move || work(&shared)).await
    }
}

struct Shared {
    db: DB,
    dir: PathBuf,
    name: StoreName,
    access: Access,
    free_space_min: u64,
    /// Bytes written since the start, to look at the free space now and then.
    written_bytes: AtomicU64,
    /// Content puts, logged or not.
    puts: Puts,
    /// Content puts that skipped the log.
    unlogged: Puts,
    /// Serializes flushes.
    flush: Mutex<()>,
}

/// Counts puts, so that `sync` knows whether something is not on disk yet.
///
/// What a reader can see has begun, and what was done before a flush began is in it: so when `begun` equals `synced`,
/// all that can be seen is on disk.
#[derive(Default)]
struct Puts {
    begun: AtomicU64,
    done: AtomicU64,
    synced: AtomicU64,
}

impl Puts {
    fn outstanding(&self) -> bool {
        self.begun.load(Ordering::SeqCst) > self.synced.load(Ordering::SeqCst)
    }

    fn count<T>(&self, put: impl FnOnce() -> T) -> T {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let result = put();
        self.done.fetch_add(1, Ordering::SeqCst);
        result
    }
}

enum Access {
    /// Holds the lock file.
    Exclusive { _lock: std::fs::File },
    /// Follows another process.
    ReadOnly {
        caught_up: Mutex<Instant>,
        _scratch: open::Scratch,
    },
}

impl Shared {
    fn family(&self, name: &'static str) -> Result<&ColumnFamily, BackendError> {
        self.db.cf_handle(name).ok_or_else(|| BackendError {
            store: self.name.clone(),
            code: Code::Internal,
            message: format!("the table `{name}` was not opened"),
            source: None,
        })
    }

    fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let family = self.family(table)?;
        let first = self.db.get_cf(family, key);
        if !matches!(first, Ok(Some(_))) && self.catch_up() {
            return self.found(table, self.db.get_cf(family, key));
        }
        self.found(table, first)
    }

    fn found(
        &self,
        table: &'static str,
        value: Result<Option<Vec<u8>>, rocksdb::Error>,
    ) -> Result<Option<Bytes>, BackendError> {
        match value {
            Ok(value) => Ok(value.map(Bytes::from)),
            Err(error) => Err(self.error(&format!("cannot read the table `{table}`"), error)),
        }
    }

    /// Whether `value` is stored under `key`: wrong bytes count as absent, so that a put mends them.
    fn holds(&self, table: &'static str, key: &[u8], value: &[u8]) -> Result<bool, BackendError> {
        let family = self.family(table)?;
        if !self.db.key_may_exist_cf(family, key) {
            return Ok(false);
        }
        match self.db.get_pinned_cf(family, key) {
            Ok(stored) => Ok(stored.is_some_and(|stored| *stored == *value)),
            Err(error) if error.kind() == rocksdb::ErrorKind::Corruption => Ok(false),
            Err(error) => Err(self.error(&format!("cannot read the table `{table}`"), error)),
        }
    }

    fn contains(&self, table: &'static str, key: &[u8]) -> Result<bool, BackendError> {
        let family = self.family(table)?;
        if !self.db.key_may_exist_cf(family, key) {
            return Ok(false);
        }
        match self.db.get_pinned_cf(family, key) {
            Ok(stored) => Ok(stored.is_some()),
            Err(error) => Err(self.error(&format!("cannot read the table `{table}`"), error)),
        }
    }

    /// Writes content: durable after the next `sync`, visible at once.
    fn put_content<K: AsRef<[u8]>>(
        &self,
        table: &'static str,
        items: &[(K, Bytes)],
    ) -> Result<(), BackendError> {
        let family = self.family(table)?;
        let mut batch = WriteBatch::default();
        for (key, value) in items {
            if !self.holds(table, key.as_ref(), value)? {
                batch.put_cf(family, key, value);
            }
        }
        if batch.is_empty() {
            // what is there may still be unsynced, but then an earlier put has counted it
            return Ok(());
        }
        self.check_writable(batch.size_in_bytes() as u64)?;
        // once a put has skipped the log, later ones must not overtake it there: a crash keeps a prefix
        let skip_log = batch.size_in_bytes() >= UNLOGGED_SIZE_MIN || self.unlogged.outstanding();
        let mut options = WriteOptions::default();
        options.disable_wal(skip_log);
        let write = || self.puts.count(|| self.db.write_opt(batch, &options));
        let written = if skip_log {
            self.unlogged.count(write)
        } else {
            write()
        };
        written.map_err(|error| self.error("cannot store content", error))
    }

    fn sync(&self) -> Result<(), BackendError> {
        let _guard = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.puts.outstanding() {
            return Ok(());
        }
        let puts = self.puts.done.load(Ordering::SeqCst);
        let unlogged = self.unlogged.done.load(Ordering::SeqCst);
        if self.unlogged.outstanding() {
            self.flush_tables()?;
        }
        self.db
            .flush_wal(true)
            .map_err(|error| self.error("cannot sync the log to disk", error))?;
        self.puts.synced.store(puts, Ordering::SeqCst);
        self.unlogged.synced.store(unlogged, Ordering::SeqCst);
        Ok(())
    }

    fn flush_tables(&self) -> Result<(), BackendError> {
        let families: Vec<_> = CONTENT_TABLES
            .into_iter()
            .map(|table| self.family(table))
            .collect::<Result<_, _>>()?;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db
            .flush_cfs_opt(&families, &options)
            .map_err(|error| self.error("cannot flush content to disk", error))
    }

    fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        let mut rocks_batch = WriteBatch::default();
        for (table, key, value) in batch.into_changes() {
            let family = self.family(table)?;
            match value {
                Some(value) => rocks_batch.put_cf(family, key, value),
                None => rocks_batch.delete_cf(family, key),
            }
        }
        self.check_writable(rocks_batch.size_in_bytes() as u64)?;
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db
            .write_opt(rocks_batch, &options)
            .map_err(|error| self.error("cannot commit to the database", error))
    }

    fn check_writable(&self, bytes: u64) -> Result<(), BackendError> {
        let refuse = |code, message: String| {
            Err(BackendError {
                store: self.name.clone(),
                code,
                message,
                source: None,
            })
        };
        if matches!(self.access, Access::ReadOnly { .. }) {
            return refuse(
                Code::PermissionDenied,
                "the store is open for reading only".into(),
            );
        }
        let before = self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before != 0 && before / FREE_SPACE_EVERY_BYTES == (before + bytes) / FREE_SPACE_EVERY_BYTES {
            return Ok(());
        }
        let free = free_space(&self.dir);
        if free < self.free_space_min {
            // look again before the next write
            self.written_bytes.store(0, Ordering::Relaxed);
            let message = format!(
                "the disk of {} is full: {} MiB are free and {} MiB must stay free; make room and try again",
                self.dir.display(),
                free >> 20,
                self.free_space_min >> 20,
            );
            return refuse(Code::ResourceExhausted, message);
        }
        Ok(())
    }

    /// In a reader, looks for what the writer has added; `true` when a second try may find more.
    fn catch_up(&self) -> bool {
        let Access::ReadOnly { caught_up, .. } = &self.access else {
            return false;
        };
        let mut last = caught_up.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < CATCH_UP_INTERVAL {
            return false;
        }
        let done = self.db.try_catch_up_with_primary();
        *last = Instant::now();
        if let Err(error) = &done {
            tracing::warn!(store = %self.name, %error, "cannot follow the process that writes the store");
        }
        done.is_ok()
    }

    fn error(&self, message: &str, error: rocksdb::Error) -> BackendError {
        let code = open::code_of(&error);
        let message = match code {
            Code::ResourceExhausted => format!("the disk of {} is full: {message}", self.dir.display()),
            _ => message.to_owned(),
        };
        BackendError::new(&self.name, code, message, error)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksDatabase")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Bytes an unprivileged process may still write; everything when the file system does not say.
fn free_space(dir: &Path) -> u64 {
    match rustix::fs::statvfs(dir) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(_) => u64::MAX,
    }
}

#[cfg(test)]
mod tests;
