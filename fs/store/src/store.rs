//! A store: content, records, and the directory its paths are printed with.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use igloo_castore::error::WriteError;
use igloo_castore::memory;
use igloo_castore::node::Node;
use igloo_castore::store::Castore;
use igloo_status::Code;
use nix_compat::store_path::{StoreDir, StorePath};

use crate::facts::{FactStore, MemoryFactStore};
use crate::nar::{self, DumpError, NarDigest};
use crate::path_info::{MemoryPathInfoStore, PathInfo, PathInfoStore, ReadPathInfoError, RegisterError};

/// A store. Cheap to clone; clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    /// Contents and directories.
    pub castore: Castore,
    /// Records of store paths.
    pub path_infos: Arc<dyn PathInfoStore>,
    /// What else is known of paths and derivations.
    pub facts: Arc<dyn FactStore>,
    /// The directory paths are printed with and computed for.
    pub dir: StoreDir,
}

impl Store {
    /// An empty store in memory.
    pub fn memory(dir: StoreDir) -> Self {
        Self {
            castore: memory::castore("memory"),
            path_infos: Arc::new(MemoryPathInfoStore::new()),
            facts: Arc::new(MemoryFactStore::new()),
            dir,
        }
    }

    /// Makes all content durable, then registers the records, all or nothing: the outputs of one build together.
    ///
    /// # Errors
    /// The content cannot be made durable, or a record refers to what is not there; then nothing is registered.
    pub async fn register(&self, infos: Vec<PathInfo>) -> Result<(), CommitError> {
        self.castore.sync().await?;
        Ok(self.path_infos.register(infos).await?)
    }

    /// Writes the NAR of a tree to `out`, as `nix-store --dump` does; its size in bytes.
    ///
    /// # Errors
    /// See [`DumpError`].
    pub async fn dump(
        &self,
        node: &Node,
        out: &mut (impl io::Write + Send + ?Sized),
    ) -> Result<u64, DumpError> {
        nar::dump(&self.castore, node, out).await
    }

    /// The records of `roots` and of all they refer to, directly or not. One look-up for each path.
    ///
    /// # Errors
    /// `Missing` names the path that is not registered and who refers to it.
    pub async fn closure(
        &self,
        roots: impl IntoIterator<Item = StorePath>,
    ) -> Result<BTreeMap<StorePath, PathInfo>, ClosureError> {
        let mut closure = BTreeMap::new();
        let mut to_visit: Vec<_> = roots.into_iter().map(|root| (root, None)).collect();
        while let Some((path, referrer)) = to_visit.pop() {
            if closure.contains_key(&path) {
                continue;
            }
            let Some(info) = self.path_infos.get(&path).await? else {
                return Err(ClosureError::Missing { path, referrer });
            };
            let referrer = Some(path.clone());
            let new = info
                .references
                .iter()
                .filter(|reference| !closure.contains_key(*reference));
            to_visit.extend(new.map(|reference| (reference.clone(), referrer.clone())));
            closure.insert(path, info);
        }
        Ok(closure)
    }

    /// Reads all of a path and compares it with its record.
    ///
    /// # Errors
    /// `Mismatch` when it is whole but other than recorded; `Dump` when a part is missing or damaged.
    pub async fn verify(&self, info: &PathInfo) -> Result<(), VerifyError> {
        let found = nar::nar_digest(&self.castore, &info.node)
            .await
            .map_err(|source| VerifyError::Dump {
                path: info.path.clone(),
                source,
            })?;
        let recorded = NarDigest {
            sha256: info.nar_sha256,
            size: info.nar_size,
        };
        if found == recorded {
            return Ok(());
        }
        Err(VerifyError::Mismatch {
            path: info.path.clone(),
            recorded: print(&recorded),
            found: print(&found),
        })
    }
}

/// Why records were not registered.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The content cannot be made durable.
    #[error("the content cannot be made durable")]
    Sync(#[from] WriteError),
    /// The records were refused.
    #[error("the store paths cannot be registered")]
    Register(#[from] RegisterError),
}

impl CommitError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Sync(error) => error.code(),
            Self::Register(error) => error.code(),
        }
    }
}

/// Why a closure could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// A path is not registered.
    #[error("{path} is not in the store{}", needed_by(referrer.as_ref()))]
    Missing {
        /// The path.
        path: StorePath,
        /// Who refers to it; `None` for a root.
        referrer: Option<StorePath>,
    },
    /// The records cannot be read.
    #[error(transparent)]
    Read(#[from] ReadPathInfoError),
}

impl ClosureError {
    /// The class of the failure. A registered path whose reference is not there is damage.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { referrer: None, .. } => Code::NotFound,
            Self::Missing { .. } => Code::DataLoss,
            Self::Read(error) => error.code(),
        }
    }
}

/// Why a path is not what its record says.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It has other content.
    #[error("{path} has been modified: its record says {recorded}, its content is {found}")]
    Mismatch {
        /// The path.
        path: StorePath,
        /// NAR hash and size of the record.
        recorded: String,
        /// NAR hash and size of the content.
        found: String,
    },
    /// It cannot be read.
    #[error("{path} is damaged")]
    Dump {
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: DumpError,
    },
}

impl VerifyError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Mismatch { .. } => Code::DataLoss,
            Self::Dump { source, .. } => source.code(),
        }
    }
}

fn needed_by(referrer: Option<&StorePath>) -> String {
    referrer.map_or_else(String::new, |referrer| format!(", but {referrer} refers to it"))
}

pub(crate) fn print(digest: &NarDigest) -> String {
    let hash = nix_compat::NixHash::Sha256(digest.sha256);
    format!("{hash} ({} bytes)", digest.size)
}
