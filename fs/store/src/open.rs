//! Opening a store by its URL.

#[cfg(feature = "rocksdb")]
use std::path::Path;
#[cfg(feature = "rocksdb")]
use std::sync::Arc;

#[cfg(feature = "rocksdb")]
use igloo_castore::rocks::{OpenRocksError, RocksDatabase, RocksOptions};
use igloo_status::Code;
use nix_compat::store_path::StoreDir;

#[cfg(feature = "rocksdb")]
use crate::facts::{FACT_TABLES, RocksFactStore};
#[cfg(feature = "rocksdb")]
use crate::path_info::{PATH_INFOS_TABLE, RocksPathInfoStore};
use crate::store::Store;
use crate::url::StoreUrl;

/// Tables of the embedded database beside those for content.
#[cfg(feature = "rocksdb")]
const TABLES: &[&str] = &[PATH_INFOS_TABLE, FACT_TABLES[0], FACT_TABLES[1]];

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The directory its paths are printed with.
    pub dir: StoreDir,
    /// What for.
    pub access: Access,
    /// Who opens it, for the message another process gets ("igloo mount").
    pub owner: String,
}

/// Nix's directory, for writing.
impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            dir: StoreDir::default(),
            access: Access::Write,
            owner: "another program".into(),
        }
    }
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing: one process at a time. An embedded store that is not there is made.
    Write,
    /// Reading, beside a process that writes.
    Read,
}

/// Opens a store of this process.
///
/// # Errors
/// `Remote` for a server: connecting is the remote crate's work. Else see [`OpenStoreError`].
pub fn open(url: &StoreUrl, options: &OpenOptions) -> Result<Store, OpenStoreError> {
    match url {
        StoreUrl::Memory => Ok(Store::memory(options.dir.clone())),
        StoreUrl::Remote { url } => Err(OpenStoreError::Remote { url: url.clone() }),
        #[cfg(feature = "rocksdb")]
        StoreUrl::Rocksdb { dir } => open_rocks(dir, options),
        #[cfg(not(feature = "rocksdb"))]
        StoreUrl::Rocksdb { .. } => Err(OpenStoreError::NotBuilt { url: url.to_string() }),
    }
}

#[cfg(feature = "rocksdb")]
fn open_rocks(dir: &Path, options: &OpenOptions) -> Result<Store, OpenStoreError> {
    let rocks_options = RocksOptions {
        tables: TABLES,
        owner: options.owner.clone(),
        ..RocksOptions::default()
    };
    let database = match options.access {
        Access::Write => RocksDatabase::open(dir, &rocks_options)?,
        Access::Read => RocksDatabase::open_read_only(dir, &rocks_options)?,
    };
    let castore = database.castore(Arc::default());
    let facts = RocksFactStore::new(database.clone());
    let path_infos = RocksPathInfoStore::new(database).ok_or(OpenStoreError::NoTable)?;
    Ok(Store {
        castore,
        path_infos: Arc::new(path_infos),
        facts: Arc::new(facts),
        dir: options.dir.clone(),
    })
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// A server.
    #[error("{url} is a server, not a store of this process")]
    Remote {
        /// Its URL.
        url: String,
    },
    /// The embedded store refused.
    #[cfg(feature = "rocksdb")]
    #[error(transparent)]
    Rocksdb(#[from] OpenRocksError),
    /// The embedded store is opened for reading and its writer has never registered a path.
    #[cfg(feature = "rocksdb")]
    #[error("the store has no table of store paths; open it for writing once")]
    NoTable,
    /// This igloo has no embedded store.
    #[cfg(not(feature = "rocksdb"))]
    #[error("this igloo was built without the embedded store that {url} names")]
    NotBuilt {
        /// The URL.
        url: String,
    },
}

impl OpenStoreError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Remote { .. } => Code::Unimplemented,
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb(error) => error.code(),
            #[cfg(feature = "rocksdb")]
            Self::NoTable => Code::FailedPrecondition,
            #[cfg(not(feature = "rocksdb"))]
            Self::NotBuilt { .. } => Code::Unimplemented,
        }
    }
}
