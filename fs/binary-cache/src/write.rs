//! A binary cache written to a directory, as stock Nix reads it with `file://`, or from a server of such files.
//!
//! Invariants
//! - a file is there whole or not at all: written beside its place, synced, then renamed;
//! - a narinfo comes after its archive, and after the narinfos of all it refers to;
//! - what is there already stays as it is.
//!
//! Source: Nix 2.36 `BinaryCacheStore::addToStoreCommon` (src/libstore/binary-cache-store.cc).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use igloo_castore::blocking;
use igloo_status::Code;
use igloo_store::nar::NarStream;
use igloo_store::{ClosureError, DumpError, PathInfo, Store};
use nix_compat::NarInfo;
use nix_compat::hash::{HashAlgo, Hasher, NixHash};
use nix_compat::nixbase32;
use nix_compat::signature::SecretKey;
use nix_compat::store_path::{StoreDir, StorePath};

use crate::compression::{Compression, Encoder};
use crate::substituter::CacheInfo;

/// Names of files that are not whole yet begin with this; the number of the process and a counter follow.
const PARTIAL_PREFIX: &str = ".partial-";

/// Writes paths of a store into a binary cache.
#[derive(Debug)]
pub struct CacheWriter {
    dir: PathBuf,
    store_dir: StoreDir,
    compression: Compression,
    keys: Vec<SecretKey>,
}

impl CacheWriter {
    /// Opens the cache in `dir`, or makes one. New narinfos are signed with `keys`.
    ///
    /// # Errors
    /// `Other` when the cache there is for another store directory, `Compression` for what cannot be written (only none,
    /// xz and zstd can), `Write`.
    pub async fn open(
        dir: &Path,
        info: &CacheInfo,
        compression: Compression,
        keys: Vec<SecretKey>,
    ) -> Result<Self, WriteCacheError> {
        Encoder::new(compression).ok_or(WriteCacheError::Compression { compression })?;
        let writer = Self {
            dir: dir.to_owned(),
            store_dir: info.store_dir.clone(),
            compression,
            keys,
        };
        let (dir, info) = (dir.to_owned(), info.clone());
        blocking::run(move || open_dir(&dir, &info)).await?;
        Ok(writer)
    }

    /// Writes `roots` and all they refer to; how many paths were not there before.
    ///
    /// # Errors
    /// See [`WriteCacheError`]. What was written before it is whole.
    pub async fn write_closure(
        &self,
        store: &Store,
        roots: impl IntoIterator<Item = StorePath>,
    ) -> Result<usize, WriteCacheError> {
        let closure = store.closure(roots).await?;
        let mut written = 0;
        // references first: an explicit stack of paths whose references are being written
        let mut done = std::collections::BTreeSet::new();
        for root in closure.keys() {
            let mut stack = vec![(root, false)];
            while let Some((path, references_done)) = stack.pop() {
                let Some(info) = closure.get(path) else { continue };
                if references_done {
                    written += usize::from(self.write(store, info).await?);
                } else if done.insert(path) {
                    stack.push((path, true));
                    stack.extend(info.references.iter().map(|reference| (reference, false)));
                }
            }
        }
        Ok(written)
    }

    /// Writes one path; `false` when it was there. What it refers to must be there or follow.
    ///
    /// # Errors
    /// See [`WriteCacheError`].
    pub async fn write(&self, store: &Store, info: &PathInfo) -> Result<bool, WriteCacheError> {
        if store.dir != self.store_dir {
            return Err(WriteCacheError::Other {
                dir: self.dir.display().to_string(),
                theirs: self.store_dir.as_str().to_owned(),
                ours: store.dir.as_str().to_owned(),
            });
        }
        let hash_part = String::from_utf8_lossy(&info.path.hash_part()).into_owned();
        let narinfo = self.dir.join(format!("{hash_part}.narinfo"));
        let place = narinfo.clone();
        if blocking::run(move || place.exists()).await {
            return Ok(false);
        }
        let (url, file_hash, file_size) = self.write_archive(store, info).await?;
        let text = self
            .narinfo(info, url, file_hash, file_size)
            .print(&self.store_dir);
        blocking::run(move || write_file(&narinfo, text.as_bytes())).await?;
        Ok(true)
    }

    async fn write_archive(
        &self,
        store: &Store,
        info: &PathInfo,
    ) -> Result<(String, NixHash, u64), WriteCacheError> {
        let unreadable = |source| WriteCacheError::Dump {
            path: info.path.clone(),
            source: Box::new(source),
        };
        let (nar_dir, compression) = (self.dir.join("nar"), self.compression);
        let mut archive = blocking::run(move || PartialFile::create(&nar_dir, compression)).await?;
        let mut nar = NarStream::new(store.castore.clone(), info.node.clone());
        while let Some(bytes) = nar.next().await.map_err(unreadable)? {
            let (back, result) = blocking::run(move || {
                let result = archive.write(&bytes, false);
                (archive, result)
            })
            .await;
            archive = back;
            result?;
        }
        let (nar_sha256, nar_size) = (info.nar_sha256, info.nar_size);
        let finished = blocking::run(move || archive.finish(nar_sha256, nar_size)).await?;
        finished.ok_or_else(|| WriteCacheError::Modified {
            path: info.path.clone(),
        })
    }

    fn narinfo(&self, info: &PathInfo, url: String, file_hash: NixHash, file_size: u64) -> NarInfo {
        let mut narinfo = NarInfo {
            store_path: info.path.clone(),
            url,
            compression: self.compression.name().to_owned(),
            file_hash: Some(file_hash),
            file_size: Some(file_size),
            nar_hash: info.nar_sha256,
            nar_size: info.nar_size,
            references: info.references.clone(),
            deriver: info.deriver.clone(),
            signatures: info.signatures.clone(),
            ca: info.content_address,
        };
        let fingerprint = narinfo.fingerprint(&self.store_dir);
        for key in &self.keys {
            let signature = key.sign(fingerprint.as_bytes());
            if !narinfo.signatures.contains(&signature) {
                narinfo.signatures.push(signature);
            }
        }
        narinfo
    }
}

/// An archive being written; its file goes when it is dropped unfinished.
struct PartialFile {
    dir: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
    compression: Compression,
    encoder: Encoder,
    nar: Hasher,
    nar_size: u64,
    hasher: Hasher,
    size: u64,
    finished: bool,
}

impl PartialFile {
    fn create(dir: &Path, compression: Compression) -> Result<Self, WriteCacheError> {
        let (path, file) = create_partial(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            path,
            file: BufWriter::with_capacity(256 << 10, file),
            compression,
            encoder: Encoder::new(compression).ok_or(WriteCacheError::Compression { compression })?,
            nar: Hasher::new(HashAlgo::Sha256),
            nar_size: 0,
            hasher: Hasher::new(HashAlgo::Sha256),
            size: 0,
            finished: false,
        })
    }

    fn write(&mut self, bytes: &Bytes, last: bool) -> Result<(), WriteCacheError> {
        self.nar.update(bytes);
        self.nar_size += bytes.len() as u64;
        let (file, hasher, size) = (&mut self.file, &mut self.hasher, &mut self.size);
        let encoded = self.encoder.encode(bytes, last, |packed| {
            hasher.update(packed);
            *size += packed.len() as u64;
            file.write_all(packed)
        });
        encoded.map_err(|source| not_written(&self.path, source))
    }

    /// Puts it in its place; `None` when the NAR is not what it should be.
    fn finish(
        mut self,
        nar_sha256: [u8; 32],
        nar_size: u64,
    ) -> Result<Option<(String, NixHash, u64)>, WriteCacheError> {
        self.write(&Bytes::new(), true)?;
        let nar = std::mem::replace(&mut self.nar, Hasher::new(HashAlgo::Sha256));
        if nar.finish() != NixHash::Sha256(nar_sha256) || self.nar_size != nar_size {
            return Ok(None);
        }
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(HashAlgo::Sha256));
        let hash = hasher.finish();
        let name = format!(
            "{}.nar{}",
            nixbase32::encode(hash.digest()),
            self.compression.extension()
        );
        let wrong = |source| not_written(&self.path, source);
        self.file.flush().map_err(wrong)?;
        self.file.get_ref().sync_all().map_err(wrong)?;
        fs::rename(&self.path, self.dir.join(&name)).map_err(wrong)?;
        self.finished = true;
        sync_dir(&self.dir)?;
        Ok(Some((format!("nar/{name}"), hash, self.size)))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a file that is not whole is left behind");
        }
    }
}

/// Why a cache could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteCacheError {
    /// The cache is for another store directory.
    #[error("the cache in {dir} is for the store directory {theirs}, not {ours}; write to another directory")]
    Other {
        /// The cache.
        dir: String,
        /// What it is for.
        theirs: String,
        /// What this store has.
        ours: String,
    },
    /// What is there is no cache.
    #[error("{path} cannot be understood; is there something else than a binary cache?")]
    CacheInfo {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: crate::cache_info::ParseCacheInfoError,
    },
    /// A compression that is only read.
    #[error("archives cannot be written with {compression}; use none, xz or zstd")]
    Compression {
        /// Which.
        compression: Compression,
    },
    /// The closure is not there.
    #[error(transparent)]
    Closure(#[from] ClosureError),
    /// A path cannot be read.
    #[error("{path} cannot be read")]
    Dump {
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: Box<DumpError>,
    },
    /// A path is not what its record says.
    #[error("{path} has been modified: its NAR is not the one recorded")]
    Modified {
        /// The path.
        path: StorePath,
    },
    /// A file cannot be written.
    #[error("{path} cannot be written")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl WriteCacheError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Other { .. } => Code::FailedPrecondition,
            Self::CacheInfo { .. } | Self::Modified { .. } => Code::DataLoss,
            Self::Compression { .. } => Code::InvalidArgument,
            Self::Closure(error) => error.code(),
            Self::Dump { source, .. } => source.code(),
            Self::Write { source, .. } => Code::from_io(source),
        }
    }
}

fn open_dir(dir: &Path, info: &CacheInfo) -> Result<(), WriteCacheError> {
    let nar = dir.join("nar");
    fs::create_dir_all(&nar).map_err(|source| not_written(&nar, source))?;
    let path = dir.join("nix-cache-info");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return write_file(&path, info.print().as_bytes());
        }
        Err(source) => return Err(not_written(&path, source)),
    };
    let there = CacheInfo::parse(&text, &info.store_dir).map_err(|source| WriteCacheError::CacheInfo {
        path: path.display().to_string(),
        source,
    })?;
    if there.store_dir == info.store_dir {
        return Ok(());
    }
    Err(WriteCacheError::Other {
        dir: dir.display().to_string(),
        theirs: there.store_dir.as_str().to_owned(),
        ours: info.store_dir.as_str().to_owned(),
    })
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), WriteCacheError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let (partial, mut file) = create_partial(dir)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&partial, path));
    if let Err(source) = written {
        let _ = fs::remove_file(&partial); // the first failure is the one to tell
        return Err(not_written(path, source));
    }
    sync_dir(dir)
}

fn create_partial(dir: &Path) -> Result<(PathBuf, File), WriteCacheError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("{PARTIAL_PREFIX}{}-{number}", std::process::id()));
    match OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
    {
        Ok(file) => Ok((path, file)),
        Err(source) => Err(not_written(&path, source)),
    }
}

fn sync_dir(dir: &Path) -> Result<(), WriteCacheError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| not_written(dir, source))
}

fn not_written(path: &Path, source: io::Error) -> WriteCacheError {
    WriteCacheError::Write {
        path: path.display().to_string(),
        source,
    }
}
