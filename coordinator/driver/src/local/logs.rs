//! Logs of builds, kept compressed: the last of each derivation.
//!
//! On disk: `STATE/logs/AB/REST.gz`, where `ABREST` is the derivation's base name; `STATE/logs/.tmp-LEASE` while it is written.
//! Each portion is a gzip member of its own, whose comment is the number of log bytes up to its end: what a crash leaves of the
//! log of a build that goes on is whole members, and says where to go on.
//!
//! Invariants
//! - a log appears whole, in one step, when its build has ended;
//! - each byte of a build's output is in it once, wherever calls broke; what is missing is said;
//! - one log has at most `log_bytes_max` bytes, all together at most `total_bytes_max` and what is being written.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::read::MultiGzDecoder;
use flate2::{Compression, GzBuilder};
use igloo_castore::blocking;
use nix_compat::store_path::StorePath;

use super::config::LogConfig;

/// Bytes gathered before they are compressed.
const PENDING_MAX: usize = 256 << 10;
/// Bytes kept of the end, for reports.
const TAIL_MAX: usize = 64 << 10;
/// Longest file name that is being written.
const TEMPORARY: &str = ".tmp-";

/// The log of the last build of a derivation that coordinators with these state folders kept.
///
/// # Errors
/// When one is there and cannot be read.
pub async fn read_log(state_dirs: &[PathBuf], drv: &StorePath) -> std::io::Result<Option<Bytes>> {
    let written = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let logs = state_dirs.iter().map(|dir| log_path(&dir.join("logs"), drv));
    let newest = logs.filter(|path| path.exists()).max_by_key(written);
    match newest {
        Some(path) => read(path, LogConfig::default().log_bytes_max).await,
        None => Ok(None),
    }
}

fn log_path(dir: &Path, drv: &StorePath) -> PathBuf {
    let name = drv.to_string();
    let (folder, rest) = name.split_at_checked(2).unwrap_or(("", &name));
    dir.join(folder).join(format!("{rest}.gz"))
}

async fn read(path: PathBuf, log_bytes_max: u64) -> std::io::Result<Option<Bytes>> {
    let bound = bytes_bound(log_bytes_max);
    blocking::run(move || {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        MultiGzDecoder::new(file).take(bound).read_to_end(&mut bytes)?;
        Ok(Some(Bytes::from(bytes)))
    })
    .await
}

/// Where logs are. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    dir: Arc<Path>,
    config: LogConfig,
    /// Bytes of all logs, as last counted, and of those written since.
    total: Arc<AtomicU64>,
    /// Logs that were found half written, of builds that may go on.
    left: Arc<Mutex<BTreeSet<u64>>>,
}

impl LogStore {
    /// Opens the logs in `dir`; removes what a crash left, but for logs of these leases, and the oldest where there is too
    /// much. Blocks.
    pub(crate) fn open(dir: PathBuf, config: LogConfig, open: &BTreeSet<u64>) -> std::io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let store = Self {
            dir: dir.into(),
            config,
            total: Arc::default(),
            left: Arc::default(),
        };
        store.sort_out(open)?;
        store.clear()?;
        Ok(store)
    }

    /// The log of a build that begins.
    pub(crate) fn begin(&self, drv: &StorePath, lease: u64) -> LogWriter {
        LogWriter {
            store: self.clone(),
            path: self.path(drv),
            temporary: self.temporary(lease),
            file: None,
            pending: Vec::new(),
            size: 0,
            tail: Vec::new(),
            survives: false,
            failed: false,
        }
    }

    /// The log of a build that goes on, as far as it was written before.
    pub(crate) async fn resume(&self, drv: &StorePath, lease: u64) -> LogWriter {
        let mut log = self.begin(drv, lease);
        let (temporary, bound) = (log.temporary.clone(), bytes_bound(self.config.log_bytes_max));
        match blocking::run(move || recover(&temporary, bound)).await {
            Ok(Some(found)) => {
                log.size = found.size;
                log.tail = found.tail;
                log.file = Some(found.file);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(log = %log.path.display(), %error, "the first part of a log is lost");
            }
        }
        log
    }

    /// What was written of the log of a build that does not go on. Blocks, shortly.
    pub(crate) fn forget(&self, lease: u64) {
        self.left().remove(&lease);
        let _ = std::fs::remove_file(self.temporary(lease)); // else the next start removes it
    }

    /// The same, where it was left by a crash.
    pub(crate) fn forget_left(&self, lease: u64) {
        if self.left().contains(&lease) {
            self.forget(lease);
        }
    }

    fn left(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn temporary(&self, lease: u64) -> PathBuf {
        self.dir.join(format!("{TEMPORARY}{lease}"))
    }

    /// The last log of a derivation.
    pub(crate) async fn read(&self, drv: &StorePath) -> std::io::Result<Option<Bytes>> {
        read(self.path(drv), self.config.log_bytes_max).await
    }

    fn path(&self, drv: &StorePath) -> PathBuf {
        log_path(&self.dir, drv)
    }

    /// Half-written logs: those of open leases are kept.
    fn sort_out(&self, open: &BTreeSet<u64>) -> std::io::Result<()> {
        for file in std::fs::read_dir(&self.dir)? {
            let file = file?;
            let Some(lease) = lease_of(&file.file_name()) else {
                continue;
            };
            match lease.filter(|lease| open.contains(lease)) {
                Some(lease) => drop(self.left().insert(lease)),
                None => std::fs::remove_file(file.path())?,
            }
        }
        Ok(())
    }

    fn clear(&self) -> std::io::Result<()> {
        let mut logs: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for folder in std::fs::read_dir(&self.dir)? {
            let folder = folder?;
            if lease_of(&folder.file_name()).is_some() {
                continue; // it is being written
            }
            for log in std::fs::read_dir(folder.path())? {
                let log = log?;
                let metadata = log.metadata()?;
                logs.push((metadata.modified()?, metadata.len(), log.path()));
            }
        }
        let mut total: u64 = logs.iter().map(|(_, size, _)| size).sum();
        if total > self.config.total_bytes_max {
            logs.sort_unstable();
            // some room, so that this is not done after every build
            let enough = self.config.total_bytes_max / 10 * 9;
            for (_, size, path) in logs {
                if total <= enough {
                    break;
                }
                std::fs::remove_file(path)?;
                total -= size;
            }
        }
        self.total.store(total, Ordering::Relaxed);
        Ok(())
    }

    fn grew(&self, size: u64) -> std::io::Result<()> {
        let before = self.total.fetch_add(size, Ordering::Relaxed);
        if before.saturating_add(size) > self.config.total_bytes_max {
            self.clear()?;
        }
        Ok(())
    }
}

/// A log being written. Dropping it forgets it.
#[derive(Debug)]
pub(crate) struct LogWriter {
    store: LogStore,
    path: PathBuf,
    temporary: PathBuf,
    file: Option<File>,
    pending: Vec<u8>,
    /// Bytes the build has logged, kept or not.
    size: u64,
    tail: Vec<u8>,
    /// Its build outlives this process.
    survives: bool,
    failed: bool,
}

impl LogWriter {
    /// Bytes the build has logged so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The build outlives this process: what was written is left for the next one.
    pub(crate) fn survive(&mut self) {
        self.survives = true;
    }

    /// Takes the bytes that follow the first `sequence` of the build's; how many of them it has already. A disk that refuses
    /// costs the log, not the build.
    pub(crate) async fn write(&mut self, sequence: u64, bytes: Bytes) -> usize {
        let known = usize::try_from(self.size.saturating_sub(sequence)).unwrap_or(usize::MAX);
        let known = known.min(bytes.len());
        if sequence > self.size {
            let lost = sequence - self.size;
            self.note(&format!("\n[{lost} bytes of this log were lost]\n"));
            self.size = sequence;
        }
        self.push(&bytes[known..]);
        if self.pending.len() >= PENDING_MAX {
            self.flush(false).await;
        }
        known
    }

    fn push(&mut self, bytes: &[u8]) {
        self.add_tail(bytes);
        let size_max = self.store.config.log_bytes_max;
        let room = size_max.saturating_sub(self.size);
        let kept = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        self.pending.extend_from_slice(&bytes[..kept]);
        let was_whole = self.size <= size_max;
        self.size = self.size.saturating_add(bytes.len() as u64);
        if was_whole && self.size > size_max {
            self.pending
                .extend_from_slice(b"\n[the rest of this log was not kept]\n");
        }
    }

    /// Says something of the log in it, where there is room.
    fn note(&mut self, text: &str) {
        if self.size < self.store.config.log_bytes_max {
            self.pending.extend_from_slice(text.as_bytes());
        }
    }

    /// The build has ended: its log takes the place of the last one. The last lines of it.
    pub(crate) async fn finish(mut self) -> Vec<Bytes> {
        self.flush(true).await;
        self.last_lines()
    }

    /// The last lines so far.
    fn last_lines(&self) -> Vec<Bytes> {
        let text = self.tail.strip_suffix(b"\n").unwrap_or(&self.tail);
        if text.is_empty() {
            return Vec::new();
        }
        let mut lines: Vec<Bytes> = text
            .rsplit(|byte| *byte == b'\n')
            .take(self.store.config.tail_lines)
            .map(Bytes::copy_from_slice)
            .collect();
        lines.reverse();
        lines
    }

    fn add_tail(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_MAX)..];
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL_MAX {
            self.tail.drain(..self.tail.len() - TAIL_MAX);
        }
    }

    async fn flush(&mut self, is_last: bool) {
        if self.failed {
            self.pending.clear();
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let size = self.size;
        let (file, temporary, path) = (self.file.take(), self.temporary.clone(), self.path.clone());
        let store = self.store.clone();
        let result = blocking::run(move || {
            if file.is_none() && pending.is_empty() && is_last {
                return remove(&path).map(|()| None); // it wrote nothing
            }
            let mut file = match file {
                Some(file) => file,
                None => File::create(&temporary)?,
            };
            write_member(&mut file, &pending, size)?;
            if !is_last {
                return Ok(Some(file));
            }
            let size = file.metadata()?.len();
            rename(&temporary, &path)?;
            store.grew(size)?;
            Ok(None)
        });
        match result.await {
            Ok(file) => self.file = file,
            Err(error) => {
                tracing::warn!(log = %self.path.display(), %error, "the log of a build cannot be kept");
                self.failed = true;
            }
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if self.file.take().is_some() && !self.survives {
            let _ = std::fs::remove_file(&self.temporary); // else the next start removes it
        }
    }
}

/// The lease whose log a file is while it is written: `Some(None)` where that cannot be told.
#[expect(
    clippy::option_option,
    reason = "no such file, and one without a lease, are two things"
)]
fn lease_of(name: &OsStr) -> Option<Option<u64>> {
    let number = name.as_encoded_bytes().strip_prefix(TEMPORARY.as_bytes())?;
    Some(
        std::str::from_utf8(number)
            .ok()
            .and_then(|number| number.parse().ok()),
    )
}

/// Appends a portion of a log, up to that many bytes of it.
fn write_member(file: &mut File, bytes: &[u8], size: u64) -> std::io::Result<()> {
    let mut member = GzBuilder::new()
        .comment(size.to_string())
        .write(Vec::new(), Compression::fast());
    member.write_all(bytes)?;
    file.write_all(&member.finish()?)
}

/// A log that a crash left.
struct Recovered {
    file: File,
    size: u64,
    tail: Vec<u8>,
}

/// The whole members of a half-written log, the rest cut off. Blocks.
fn recover(path: &Path, bytes_max: u64) -> std::io::Result<Option<Recovered>> {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::new(file);
    let (mut whole, mut size, mut tail) = (0, 0, Vec::new());
    while let Some((bytes, end)) = read_member(&mut reader, bytes_max) {
        (whole, size) = (reader.stream_position()?, end);
        tail.extend_from_slice(&bytes);
        tail.drain(..tail.len().saturating_sub(TAIL_MAX));
    }
    let mut file = reader.into_inner();
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    Ok(Some(Recovered { file, size, tail }))
}

/// A whole member, and the size of the log with it; `None` at the end, or where it was torn off.
fn read_member(reader: &mut BufReader<File>, bytes_max: u64) -> Option<(Vec<u8>, u64)> {
    let mut decoder = GzDecoder::new(reader);
    let mut bytes = Vec::new();
    decoder.by_ref().take(bytes_max).read_to_end(&mut bytes).ok()?;
    let comment = decoder.header()?.comment()?;
    let size = std::str::from_utf8(comment).ok()?.parse().ok()?;
    // not only as much as is allowed, but all of it, with its checksum
    matches!(decoder.read(&mut [0]), Ok(0)).then_some((bytes, size))
}

/// Bytes of a log, with what it says of itself.
fn bytes_bound(log_bytes_max: u64) -> u64 {
    log_bytes_max.saturating_add(4096)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(folder) = to.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::rename(from, to)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests;
