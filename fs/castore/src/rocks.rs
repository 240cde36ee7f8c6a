//! The embedded backend: one RocksDB database holding chunks, chunk lists, directories, and the caller's own tables.
//!
//! On disk
//! - `DIR/format`: which layout this is; read before anything else is touched;
//! - `DIR/lock`: locked by the one process that may write, and says who that is;
//! - `DIR/db/`: the database, one column family for each table;
//! - `DIR/packs/`: the bytes of chunks, see `packs`;
//! - `DIR/tmp/`: temporary files, removed whenever the store is opened for writing.
//!
//! Invariants
//! - content puts do not wait for the disk: chunk bytes are appended to a pack, and all rows wait in memory until
//!   [`RocksDatabase::sync`] has synced the packs and commits them in one batch; so a crash leaves the content of some sync,
//!   in which everything that can be seen is whole;
//! - [`Batch`]es of the caller's tables are all or nothing and on disk when `commit` returns;
//! - after a crash at any moment the database opens, with everything that was synced or committed;
//! - memory: block cache and write buffers stay within [`RocksMemory`]; open files within `open_files_max` and 128 packs;
//! - a write is refused while less than `free_space_min_bytes` are free, so the disk never fills under the database.

mod content;
mod open;
mod options;
mod packs;
mod table;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use igloo_status::Code;
use rocksdb::{ColumnFamily, DB, WriteBatch, WriteOptions};

use crate::blocking;
use crate::cache::BlobCache;
use crate::chunked::ChunkedBlobStore;
use crate::digest::{ChunkDigest, DIGEST_SIZE};
use crate::error::{BackendError, WriteError};
use crate::store::{Castore, StoreName};
use content::{RocksBlobIndex, RocksChunkStore, RocksDirectoryStore};
use packs::{PENDING_MAX, Packs, Place};

pub use open::OpenRocksError;
pub use options::{RocksMemory, RocksOptions};
pub use table::{Batch, Table};

const CHUNKS: &str = "chunks";
const BLOBS: &str = "blobs";
const DIRECTORIES: &str = "directories";
const PACKS: &str = "packs";
/// Tables of this crate; the caller's come on top.
const CONTENT_TABLES: [&str; 4] = [CHUNKS, BLOBS, DIRECTORIES, PACKS];

/// A reader looks for what the writer has added at most this often.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(100);
/// With this much waiting in memory, bytes, a put of rows syncs by itself.
const PENDING_ROWS_BYTES: usize = 16 << 20;
/// What a waiting row costs besides its value, bytes; an estimate.
const PENDING_ROW_OVERHEAD: usize = 128;
/// The free space of the disk is looked at whenever this much was written.
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
        Ok(blocking::run(move || shared.write(batch, true)).await?)
    }

    /// Writes a batch, all or nothing; seen at once, on disk when the next [`Self::commit`] returns.
    pub async fn put(&self, batch: Batch) -> Result<(), WriteError> {
        let shared = Arc::clone(&self.shared);
        Ok(blocking::run(move || shared.write(batch, false)).await?)
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
    packs: Packs,
    rows: PendingRows,
    puts: Puts,
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

type Key = [u8; DIGEST_SIZE];
type PendingRow = ((&'static str, Key), Bytes);

/// Content rows that are not in the database yet.
#[derive(Default)]
struct PendingRows(RwLock<Pending>);

#[derive(Default)]
struct Pending {
    rows: HashMap<(&'static str, Key), Bytes>,
    bytes: usize,
}

impl PendingRows {
    fn get(&self, table: &'static str, key: &[u8]) -> Option<Bytes> {
        let key = key.try_into().ok()?;
        let pending = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pending.rows.get(&(table, key)).cloned()
    }

    /// Whether they have become so many that it is time to sync.
    fn insert(&self, table: &'static str, rows: Vec<(Key, Bytes)>) -> bool {
        let mut pending = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in rows {
            pending.bytes += PENDING_ROW_OVERHEAD + value.len();
            pending.rows.insert((table, key), value);
        }
        pending.bytes > PENDING_ROWS_BYTES
    }

    fn snapshot(&self) -> Vec<PendingRow> {
        let pending = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pending
            .rows
            .iter()
            .map(|(key, value)| (*key, value.clone()))
            .collect()
    }

    /// They are in the database now. A row that was put again meanwhile says the same: its key is a digest.
    fn written(&self, rows: &[PendingRow]) {
        let mut pending = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in rows {
            if pending.rows.remove(key).is_some() {
                pending.bytes = pending.bytes.saturating_sub(PENDING_ROW_OVERHEAD + value.len());
            }
        }
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
        self.db
            .cf_handle(name)
            .ok_or_else(|| self.failure(Code::Internal, format!("the table `{name}` was not opened")))
    }

    fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        if let Some(value) = self.rows.get(table, key) {
            return Ok(Some(value));
        }
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
    fn holds(&self, table: &'static str, key: &Key, value: &[u8]) -> Result<bool, BackendError> {
        if self.rows.get(table, key).is_none() && !self.db.key_may_exist_cf(self.family(table)?, key) {
            return Ok(false);
        }
        match self.get(table, key) {
            Ok(stored) => Ok(stored.is_some_and(|stored| *stored == *value)),
            Err(error) if error.code() == Code::DataLoss => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes content rows: durable after the next `sync`, visible at once.
    fn put_content(&self, table: &'static str, mut rows: Vec<(Key, Bytes)>) -> Result<(), BackendError> {
        let mut size = 0;
        let mut kept = Vec::with_capacity(rows.len());
        for (key, value) in rows.drain(..) {
            if !self.holds(table, &key, &value)? {
                size += value.len() as u64;
                kept.push((key, value));
            }
        }
        if kept.is_empty() {
            // what is there may still be unsynced, but then an earlier put has counted it
            return Ok(());
        }
        self.check_writable(size)?;
        let full = self.puts.count(|| self.rows.insert(table, kept));
        if full { self.sync() } else { Ok(()) }
    }

    fn chunk_place(&self, digest: &ChunkDigest) -> Result<Option<Place>, BackendError> {
        if let Some(place) = self.packs.pending(digest) {
            return Ok(Some(place));
        }
        let Some(value) = self.get(CHUNKS, digest.as_bytes())? else {
            return Ok(None);
        };
        match Place::decode(&value) {
            Some(place) => Ok(Some(place)),
            None => Err(self.failure(
                Code::DataLoss,
                format!("the index entry of chunk {digest} is damaged"),
            )),
        }
    }

    /// A chunk's bytes, checked; `Some(None)` when the chunk should be there, but its bytes are gone or wrong.
    fn chunk(&self, digest: &ChunkDigest) -> Result<Option<Option<Bytes>>, BackendError> {
        let place = match self.chunk_place(digest) {
            Ok(Some(place)) => place,
            Ok(None) => return Ok(None),
            Err(error) if error.code() == Code::DataLoss => return Ok(Some(None)),
            Err(error) => return Err(error),
        };
        let bytes = self
            .packs
            .read(place)
            .map_err(|error| self.io_error("cannot read a pack", error))?;
        Ok(Some(bytes.filter(|bytes| digest.matches(bytes)).map(Bytes::from)))
    }

    /// Writes chunks that are not there or damaged.
    fn put_chunks(&self, mut chunks: Vec<(ChunkDigest, Bytes)>) -> Result<(), BackendError> {
        let mut seen = std::collections::HashSet::with_capacity(chunks.len());
        let mut failed = None;
        chunks.retain(|(digest, bytes)| {
            seen.insert(*digest)
                && match self.holds_chunk(digest, bytes) {
                    Ok(holds) => !holds,
                    Err(error) => {
                        failed = Some(error);
                        false
                    }
                }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if chunks.is_empty() {
            return Ok(());
        }
        self.check_writable(chunks.iter().map(|(_, bytes)| bytes.len() as u64).sum())?;
        self.puts
            .count(|| self.packs.append(&chunks))
            .map_err(|error| self.io_error("cannot write to a pack", error))?;
        if self.packs.pending_count() > PENDING_MAX {
            return self.sync();
        }
        Ok(())
    }

    fn holds_chunk(&self, digest: &ChunkDigest, bytes: &Bytes) -> Result<bool, BackendError> {
        let known = self.packs.pending(digest).is_some()
            || self.db.key_may_exist_cf(self.family(CHUNKS)?, digest.as_bytes());
        // compared, so that a put mends what is damaged
        Ok(known
            && self
                .chunk(digest)?
                .flatten()
                .is_some_and(|stored| stored == bytes))
    }

    fn sync(&self) -> Result<(), BackendError> {
        let _guard = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.puts.outstanding() {
            return Ok(());
        }
        let puts = self.puts.done.load(Ordering::SeqCst);
        // rows first: the chunks they name were appended before, so they are among the places taken after
        let rows = self.rows.snapshot();
        let synced = self
            .packs
            .sync()
            .map_err(|error| self.io_error("cannot sync the packs to disk", error))?;
        let mut batch = WriteBatch::default();
        if !synced.places.is_empty() {
            let (chunks, packs) = (self.family(CHUNKS)?, self.family(PACKS)?);
            for (digest, place) in &synced.places {
                batch.put_cf(chunks, digest.as_bytes(), place.encode());
            }
            for (id, size) in &synced.sizes {
                batch.put_cf(packs, id.to_be_bytes(), size.to_le_bytes());
            }
        }
        for ((table, key), value) in &rows {
            batch.put_cf(self.family(table)?, key, value);
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db
            .write_opt(batch, &options)
            .map_err(|error| self.error("cannot sync the database to disk", error))?;
        self.packs.indexed(&synced);
        self.rows.written(&rows);
        self.puts.synced.store(puts, Ordering::SeqCst);
        Ok(())
    }

    /// Writes to the log, which is one for all tables: a synced write takes all earlier ones to the disk.
    fn write(&self, batch: Batch, sync: bool) -> Result<(), BackendError> {
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
        options.set_sync(sync);
        self.db
            .write_opt(rocks_batch, &options)
            .map_err(|error| self.error("cannot commit to the database", error))
    }

    fn check_writable(&self, bytes: u64) -> Result<(), BackendError> {
        if matches!(self.access, Access::ReadOnly { .. }) {
            return Err(self.failure(
                Code::PermissionDenied,
                "the store is open for reading only".to_owned(),
            ));
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
            return Err(self.failure(Code::ResourceExhausted, message));
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

    fn failure(&self, code: Code, message: String) -> BackendError {
        BackendError {
            store: self.name.clone(),
            code,
            message,
            source: None,
        }
    }

    fn io_error(&self, message: &str, error: std::io::Error) -> BackendError {
        let code = Code::from_io(&error);
        BackendError::new(&self.name, code, self.message(code, message), error)
    }

    /// A full disk is named in the message itself: it is what the user acts on.
    fn message(&self, code: Code, message: &str) -> String {
        match code {
            Code::ResourceExhausted => format!("the disk of {} is full: {message}", self.dir.display()),
            _ => message.to_owned(),
        }
    }

    fn error(&self, message: &str, error: rocksdb::Error) -> BackendError {
        let code = open::code_of(&error);
        BackendError::new(&self.name, code, self.message(code, message), error)
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
