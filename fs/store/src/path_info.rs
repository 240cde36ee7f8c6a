//! What is known of a store path.
//!
//! Invariants of every `PathInfoStore` (the suite in `integration/testkit` checks them)
//! - a path info that is registered is whole: its content was durable before, and everything it refers to is registered
//!   before it or with it;
//! - registering is all or nothing, and durable when it returns;
//! - registering a path again keeps what was there first, and succeeds.

mod memory;
pub mod record;
#[cfg(feature = "rocksdb")]
mod rocks;

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use igloo_castore::error::{BackendError, WriteError};
use igloo_castore::node::Node;
use igloo_status::Code;
use nix_compat::content_address::ContentAddress;
use nix_compat::signature::Signature;
use nix_compat::store_path::{DIGEST_LEN, StorePath};

pub use memory::MemoryPathInfoStore;
#[cfg(feature = "rocksdb")]
pub use rocks::{PATH_INFOS_TABLE, RocksPathInfoStore};

/// A store path's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// The path.
    pub path: StorePath,
    /// The tree it stands for.
    pub node: Node,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// SHA-256 of its NAR.
    pub nar_sha256: [u8; 32],
    /// Store paths that occur in it, itself included where it does.
    pub references: BTreeSet<StorePath>,
    /// The derivation it is an output of.
    pub deriver: Option<StorePath>,
    /// Who vouches for it.
    pub signatures: Vec<Signature>,
    /// Its content address, where its path follows from its content.
    pub content_address: Option<ContentAddress>,
}

/// Path infos by store path.
#[async_trait]
pub trait PathInfoStore: fmt::Debug + Send + Sync {
    /// The record of the path whose hash part stands for these bytes, or `None`. Two paths never share one.
    async fn get_by_digest(&self, digest: &[u8; DIGEST_LEN]) -> Result<Option<PathInfo>, ReadPathInfoError>;

    /// The record of a path, or `None` when it is not registered; a path with that hash part and another name is not it.
    async fn get(&self, path: &StorePath) -> Result<Option<PathInfo>, ReadPathInfoError> {
        let found = self.get_by_digest(path.digest()).await?;
        Ok(found.filter(|info| info.path == *path))
    }

    /// Registers records in one step. Content must be durable before ([`igloo_castore::Castore::sync`]).
    ///
    /// # Errors
    /// `Dangling` when a reference is neither registered nor among `infos`; then nothing is registered.
    async fn register(&self, infos: Vec<PathInfo>) -> Result<(), RegisterError>;

    /// All records, in no promised order; bounded memory.
    fn list(&self) -> BoxStream<'_, Result<PathInfo, ReadPathInfoError>>;
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadPathInfoError {
    /// The record is damaged.
    #[error("the record of {path} is damaged: {reason}")]
    Corrupt {
        /// The path, or the key where not even that can be read.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The store gave no answer.
    #[error("the store's records cannot be read")]
    Backend(#[from] BackendError),
}

/// Why records could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A record refers to what is not there.
    #[error("{path} refers to {reference}, which is not in the store")]
    Dangling {
        /// The path.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// A record of the same path could not be read.
    #[error("the store's records cannot be read")]
    Read(#[from] ReadPathInfoError),
    /// The store could not take it.
    #[error("the records cannot be stored")]
    Backend(#[from] BackendError),
    /// The store refused them.
    #[error("the records cannot be stored")]
    Write(#[source] WriteError),
}

/// The first reference that neither comes along nor is there already: `is_there` says what is.
pub(crate) async fn check_references<F>(
    infos: &[PathInfo],
    mut is_there: impl FnMut(StorePath) -> F,
) -> Result<(), RegisterError>
where
    F: Future<Output = Result<bool, ReadPathInfoError>>,
{
    let along: BTreeSet<&StorePath> = infos.iter().map(|info| &info.path).collect();
    for info in infos {
        for reference in &info.references {
            if !along.contains(reference) && !is_there(reference.clone()).await? {
                return Err(RegisterError::Dangling {
                    path: info.path.clone(),
                    reference: reference.clone(),
                });
            }
        }
    }
    Ok(())
}

impl ReadPathInfoError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Corrupt { .. } => Code::DataLoss,
            Self::Backend(error) => error.code(),
        }
    }
}

impl RegisterError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Dangling { .. } => Code::FailedPrecondition,
            Self::Read(error) => error.code(),
            Self::Backend(error) => error.code(),
            Self::Write(error) => error.code(),
        }
    }
}
