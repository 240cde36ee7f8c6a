//! Logs of builds, kept compressed: the last of each derivation.
//!
//! On disk: `STATE/logs/AB/REST.gz`, where `ABREST` is the derivation's base name.
//!
//! Invariants
//! - a log appears whole, in one step, when its build has ended;
//! - one log has at most `log_bytes_max` bytes, all together at most `total_bytes_max` and what is being written.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
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
    let bound = log_bytes_max.saturating_add(4096); // and the note that it was cut
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
}

impl LogStore {
    /// Opens the logs in `dir`; removes what a crash left, and the oldest where there is too much. Blocks.
    pub(crate) fn open(dir: PathBuf, config: LogConfig) -> std::io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let store = Self {
            dir: dir.into(),
            config,
            total: Arc::default(),
        };
        store.clear()?;
        Ok(store)
    }

    /// The log of a build that begins.
    pub(crate) fn begin(&self, drv: &StorePath, lease: u64) -> LogWriter {
        LogWriter {
            store: self.clone(),
            path: self.path(drv),
            temporary: self.dir.join(format!("{TEMPORARY}{lease}")),
            file: None,
            pending: Vec::new(),
            size: 0,
            tail: Vec::new(),
            failed: false,
        }
    }

    /// The last log of a derivation.
    pub(crate) async fn read(&self, drv: &StorePath) -> std::io::Result<Option<Bytes>> {
        read(self.path(drv), self.config.log_bytes_max).await
    }

    fn path(&self, drv: &StorePath) -> PathBuf {
        log_path(&self.dir, drv)
    }

    fn clear(&self) -> std::io::Result<()> {
        let mut logs: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for folder in std::fs::read_dir(&self.dir)? {
            let folder = folder?;
            if folder
                .file_name()
                .as_encoded_bytes()
                .starts_with(TEMPORARY.as_bytes())
            {
                std::fs::remove_file(folder.path())?;
                continue;
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
    file: Option<GzEncoder<File>>,
    pending: Vec<u8>,
    size: u64,
    tail: Vec<u8>,
    failed: bool,
}

impl LogWriter {
    /// Appends bytes. A disk that refuses costs the log, not the build.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.add_tail(bytes);
        let room = self.store.config.log_bytes_max.saturating_sub(self.size);
        let kept = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        self.pending.extend_from_slice(&bytes[..kept]);
        self.size = self.size.saturating_add(bytes.len() as u64);
        if kept > 0 && kept < bytes.len() {
            self.pending
                .extend_from_slice(b"\n[the rest of this log was not kept]\n");
        }
        if self.pending.len() >= PENDING_MAX {
            self.flush(false).await;
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
        let (file, temporary, path) = (self.file.take(), self.temporary.clone(), self.path.clone());
        let store = self.store.clone();
        let result = blocking::run(move || {
            if file.is_none() && pending.is_empty() && is_last {
                return remove(&path).map(|()| None); // it wrote nothing
            }
            let mut file = match file {
                Some(file) => file,
                None => GzEncoder::new(File::create(&temporary)?, Compression::fast()),
            };
            file.write_all(&pending)?;
            if !is_last {
                return Ok(Some(file));
            }
            let size = file.finish()?.metadata()?.len();
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
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(&self.temporary); // else the next start removes it
        }
    }
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
mod tests {
    use super::*;

    fn drv(number: u8) -> StorePath {
        let name = nix_compat::store_path::StorePathName::new("x.drv").unwrap();
        StorePath::new([number; 20], name)
    }

    async fn write(store: &LogStore, number: u8, bytes: &[u8]) -> Vec<Bytes> {
        let mut log = store.begin(&drv(number), u64::from(number));
        for part in bytes.chunks(100_000) {
            log.write(part).await;
        }
        log.finish().await
    }

    #[tokio::test]
    async fn the_last_log_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path().into(), LogConfig::default()).unwrap();
        assert_eq!(write(&store, 1, b"one\ntwo").await, ["one", "two"]);
        assert_eq!(store.read(&drv(1)).await.unwrap().unwrap(), "one\ntwo");
        let long = "a line\n".repeat(100_000);
        assert_eq!(write(&store, 1, long.as_bytes()).await.len(), 25);
        assert_eq!(store.read(&drv(1)).await.unwrap().unwrap(), long);
        assert!(write(&store, 1, b"").await.is_empty());
        assert_eq!(store.read(&drv(1)).await.unwrap(), None);
    }

    /// The oldest logs go when all together are too large; what a crash left is removed.
    #[tokio::test]
    async fn all_logs_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig {
            total_bytes_max: 10_000,
            ..LogConfig::default()
        };
        let store = LogStore::open(dir.path().into(), config).unwrap();
        // digests do not compress
        let noise = |number: u8| {
            let mut bytes = vec![0; 2000];
            blake3::Hasher::new()
                .update(&[number])
                .finalize_xof()
                .fill(&mut bytes);
            bytes
        };
        for number in 0..20 {
            write(&store, number, &noise(number)).await;
            std::thread::sleep(std::time::Duration::from_millis(2)); // files have their own times
        }
        let mut kept = Vec::new();
        for number in 0..20 {
            if store.read(&drv(number)).await.unwrap().is_some() {
                kept.push(number);
            }
        }
        assert!((2..=5).contains(&kept.len()) && kept.contains(&19), "{kept:?}");
        std::fs::write(dir.path().join(".tmp-7"), "left over").unwrap();
        LogStore::open(dir.path().into(), config).unwrap();
        assert!(!dir.path().join(".tmp-7").exists());
    }
}
