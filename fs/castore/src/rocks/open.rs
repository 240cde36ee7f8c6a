//! Opening a store: who may, what is there, which version it has.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use igloo_status::Code;
use rocksdb::{DB, ErrorKind, IteratorMode};

use super::packs::Packs;
use super::{Access, PACKS, PendingRows, Puts, RocksOptions, Shared, options};
use crate::store::StoreName;

const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";
const FORMAT_PREFIX: &str = "igloo store, format ";
const LOCK_FILE: &str = "lock";
const DATABASE_DIR: &str = "db";
const PACKS_DIR: &str = "packs";
const TMP_DIR: &str = "tmp";
/// More than any format or lock file has, bytes.
const SMALL_FILE_SIZE_MAX: u64 = 4096;

pub(super) fn open(dir: &Path, options: &RocksOptions) -> Result<Shared, OpenRocksError> {
    make_dir(dir)?;
    check_format(dir, true)?;
    let lock = lock(dir, &options.owner)?;
    let tmp = dir.join(TMP_DIR);
    match fs::remove_dir_all(&tmp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&tmp, error)),
        _ => make_dir(&tmp)?,
    }
    let path = dir.join(DATABASE_DIR);
    make_dir(&path)?;
    let db_options = options::database(options);
    let existing = if path.join("CURRENT").exists() {
        DB::list_cf(&db_options, &path).map_err(|error| database_error(&path, error))?
    } else {
        Vec::new()
    };
    let tables = options::tables(options, existing.iter().map(String::as_str));
    let db =
        DB::open_cf_descriptors(&db_options, &path, tables).map_err(|error| database_error(&path, error))?;
    let packs_dir = dir.join(PACKS_DIR);
    make_dir(&packs_dir)?;
    let last = last_pack(&db).map_err(|error| database_error(&path, error))?;
    let packs = Packs::for_writing(&packs_dir, last).map_err(|error| io_error(&packs_dir, error))?;
    Ok(shared(db, packs, dir, options, Access::Exclusive { _lock: lock }))
}

pub(super) fn open_read_only(dir: &Path, options: &RocksOptions) -> Result<Shared, OpenRocksError> {
    check_format(dir, false)?;
    let path = dir.join(DATABASE_DIR);
    let scratch = Scratch::new(&dir.join(TMP_DIR))?;
    let mut db_options = options::database(options);
    // a follower must hold every file: the writer may remove it
    db_options.set_max_open_files(-1);
    let existing = DB::list_cf(&db_options, &path).map_err(|error| database_error(&path, error))?;
    let mut known = RocksOptions::clone(options);
    known.tables = &[];
    let tables = options::tables(&known, existing.iter().map(String::as_str));
    let db = DB::open_cf_descriptors_as_secondary(&db_options, &path, &scratch.0, tables)
        .map_err(|error| database_error(&path, error))?;
    let access = Access::ReadOnly {
        caught_up: Mutex::new(Instant::now()),
        _scratch: scratch,
    };
    let packs = Packs::for_reading(&dir.join(PACKS_DIR));
    Ok(shared(db, packs, dir, options, access))
}

/// The last pack and its durable size; a damaged row counts as full, so that nothing is cut off.
fn last_pack(db: &DB) -> Result<Option<(u32, u64)>, rocksdb::Error> {
    let Some(family) = db.cf_handle(PACKS) else {
        return Ok(None);
    };
    let Some(row) = db.iterator_cf(family, IteratorMode::End).next() else {
        return Ok(None);
    };
    let (key, value) = row?;
    let id = key
        .as_ref()
        .try_into()
        .map(u32::from_be_bytes)
        .unwrap_or(u32::MAX);
    let size = value
        .as_ref()
        .try_into()
        .map(u64::from_le_bytes)
        .unwrap_or(u64::MAX);
    Ok(Some((id, size)))
}

fn shared(db: DB, packs: Packs, dir: &Path, options: &RocksOptions, access: Access) -> Shared {
    Shared {
        db,
        dir: dir.to_owned(),
        name: StoreName::from(format!("rocksdb://{}", dir.display()).as_str()),
        access,
        free_space_min: options.free_space_min_bytes,
        written_bytes: AtomicU64::new(0),
        packs,
        rows: PendingRows::default(),
        puts: Puts::default(),
        flush: Mutex::new(()),
    }
}

/// A directory of a reader's own, for the database's messages; gone with it.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    fn new(tmp: &Path) -> Result<Self, OpenRocksError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = tmp.join(format!("reader-{}-{count}", std::process::id()));
        make_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // at worst the next writer removes it
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes a directory only its owner can enter, and its parents.
fn make_dir(path: &Path) -> Result<(), OpenRocksError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| io_error(path, error))
}

/// Refuses what is not ours before anything in it is touched; marks an empty directory as ours.
fn check_format(dir: &Path, create: bool) -> Result<(), OpenRocksError> {
    let path = dir.join(FORMAT_FILE);
    let text = match File::open(&path) {
        Ok(file) => read_small(file).map_err(|error| io_error(&path, error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if create {
                claim(dir, &path)
            } else {
                Err(absent(dir))
            };
        }
        Err(error) => return Err(io_error(&path, error)),
    };
    let number = text
        .strip_prefix(FORMAT_PREFIX)
        .and_then(|number| number.strip_suffix('\n'))
        .ok_or_else(|| foreign(dir, FORMAT_FILE))?;
    if number.parse() == Ok(FORMAT) {
        return Ok(());
    }
    Err(OpenRocksError::Version {
        path: dir.to_owned(),
        found: number.escape_default().to_string(),
    })
}

fn claim(dir: &Path, path: &Path) -> Result<(), OpenRocksError> {
    let partial = dir.join("format.new");
    // a lock or an unfinished format file is what a first opening leaves that was killed
    for entry in fs::read_dir(dir).map_err(|error| io_error(dir, error))? {
        let name = entry.map_err(|error| io_error(dir, error))?.file_name();
        if name != LOCK_FILE && name != "format.new" && name != FORMAT_FILE {
            if path.exists() {
                return check_format(dir, false); // another process was faster
            }
            return Err(foreign(dir, &name.to_string_lossy()));
        }
    }
    let write = || {
        let mut file = File::create(&partial)?;
        writeln!(file, "{FORMAT_PREFIX}{FORMAT}")?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        File::open(dir)?.sync_all()
    };
    match write() {
        // another process was faster and renamed the file: its work is ours
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => Ok(()),
        result => result.map_err(|error| io_error(path, error)),
    }
}

fn lock(dir: &Path, owner: &str) -> Result<File, OpenRocksError> {
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| io_error(&path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = read_small(file).unwrap_or_default();
            return Err(OpenRocksError::Locked {
                path: dir.to_owned(),
                holder: match holder.trim() {
                    "" => "another process".to_owned(),
                    holder => holder.escape_default().to_string(),
                },
            });
        }
        Err(TryLockError::Error(error)) => return Err(io_error(&path, error)),
    }
    let mut note = || {
        file.set_len(0)?;
        writeln!(file, "process {} ({owner})", std::process::id())
    };
    note().map_err(|error| io_error(&path, error))?;
    Ok(file)
}

fn read_small(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_SIZE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenRocksError {
    /// Another process writes it.
    #[error(
        "the store in {path} is in use by {holder}; end that, open the store read-only, or let both use it through a daemon"
    )]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// Who has it: process id and name.
        holder: String,
    },
    /// There is something else.
    #[error("{path} is not an igloo store: it holds `{found}`; give a new or an empty directory")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// A name found in it.
        found: String,
    },
    /// There is no store to read.
    #[error("there is no store in {path}; it is made when something is first added")]
    Absent {
        /// The directory.
        path: PathBuf,
    },
    /// A layout this version does not know.
    #[error(
        "the store in {path} has format {found}, this igloo knows format {FORMAT}; use the igloo that wrote it"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// What the format file says.
        found: String,
    },
    /// The operating system refused.
    #[error("cannot use {path} as a store")]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database refused.
    #[error("the database in {path} does not open")]
    Database {
        /// Its directory.
        path: PathBuf,
        /// The class of the cause.
        code: Code,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl OpenRocksError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Locked { .. } | Self::Version { .. } => Code::FailedPrecondition,
            Self::Foreign { .. } => Code::InvalidArgument,
            Self::Absent { .. } => Code::NotFound,
            Self::Io { source, .. } => Code::from_io(source),
            Self::Database { code, .. } => *code,
        }
    }
}

fn foreign(dir: &Path, found: &str) -> OpenRocksError {
    OpenRocksError::Foreign {
        path: dir.to_owned(),
        found: found.escape_default().to_string(),
    }
}

fn absent(dir: &Path) -> OpenRocksError {
    OpenRocksError::Absent { path: dir.to_owned() }
}

fn io_error(path: &Path, source: io::Error) -> OpenRocksError {
    OpenRocksError::Io {
        path: path.to_owned(),
        source,
    }
}

fn database_error(path: &Path, error: rocksdb::Error) -> OpenRocksError {
    OpenRocksError::Database {
        path: path.to_owned(),
        code: code_of(&error),
        source: error.into(),
    }
}

/// The class of a database error. The binding keeps only RocksDB's text, so a full disk is known by the fixed words of
/// RocksDB's `Status::kNoSpace` (util/status.cc) or of strerror(ENOSPC), which are the same.
pub(super) fn code_of(error: &rocksdb::Error) -> Code {
    let no_space = || error.as_ref().contains("No space left on device");
    match error.kind() {
        ErrorKind::Corruption => Code::DataLoss,
        ErrorKind::IOError | ErrorKind::Aborted if no_space() => Code::ResourceExhausted,
        ErrorKind::IOError => Code::Unknown,
        ErrorKind::Busy | ErrorKind::TimedOut | ErrorKind::TryAgain | ErrorKind::Aborted => Code::Unavailable,
        _ => Code::Internal,
    }
}
