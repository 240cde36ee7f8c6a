//! The errors of reading and writing content, one enum for each action.

use igloo_status::Code;

use crate::digest::{BlobDigest, ChunkDigest, DirectoryDigest};
use crate::directory::DecodeDirectoryError;
use crate::store::StoreName;

/// A backend (database, disk, peer) failed; says which class of failure it was.
#[derive(Debug, thiserror::Error)]
#[error("{store}: {message}")]
pub struct BackendError {
    /// Which store.
    pub store: StoreName,
    /// The class, as the backend knows it.
    pub code: Code,
    /// What was tried, without the cause.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl BackendError {
    /// A backend error with its cause.
    pub fn new(
        store: &StoreName,
        code: Code,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            store: store.clone(),
            code,
            message: message.into(),
            source: Some(source.into()),
        }
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        self.code
    }
}

/// Why a blob or a chunk could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadBlobError {
    /// No store has the blob.
    #[error("blob {digest} is not in {store}")]
    Missing {
        /// The blob.
        digest: BlobDigest,
        /// Where it was looked for.
        store: StoreName,
    },
    /// A chunk that a blob's index names is gone.
    #[error("blob {digest}: its chunk {chunk} at byte {offset} is not in {store}")]
    MissingChunk {
        /// The blob.
        digest: BlobDigest,
        /// The chunk.
        chunk: ChunkDigest,
        /// Where in the blob the chunk starts.
        offset: u64,
        /// Where it was looked for.
        store: StoreName,
    },
    /// Stored or received bytes are not what the digest names.
    #[error("bytes from {store} do not match {digest}")]
    Corrupt {
        /// The digest they should have, in text.
        digest: String,
        /// Who gave the bytes.
        store: StoreName,
    },
    /// The store gave no answer.
    #[error("the blob cannot be read")]
    Backend(#[from] BackendError),
}

impl ReadBlobError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => Code::NotFound,
            Self::MissingChunk { .. } | Self::Corrupt { .. } => Code::DataLoss,
            Self::Backend(error) => error.code(),
        }
    }
}

/// Why a directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadDirectoryError {
    /// A directory that another one names is not there.
    #[error("directory {digest} is not in {store}")]
    Missing {
        /// The directory.
        digest: DirectoryDigest,
        /// Where it was looked for.
        store: StoreName,
    },
    /// Stored or received bytes are not what the digest names.
    #[error("bytes from {store} do not match directory {digest}")]
    Corrupt {
        /// The digest they should have.
        digest: DirectoryDigest,
        /// Who gave the bytes.
        store: StoreName,
    },
    /// The digest matches, yet the bytes are no canonical directory.
    #[error("directory {digest} from {store} is not a canonical directory")]
    Malformed {
        /// The directory.
        digest: DirectoryDigest,
        /// Who gave the bytes.
        store: StoreName,
        /// What is wrong with it.
        #[source]
        source: DecodeDirectoryError,
    },
    /// The store gave no answer.
    #[error("the directory cannot be read")]
    Backend(#[from] BackendError),
}

impl ReadDirectoryError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => Code::NotFound,
            Self::Corrupt { .. } | Self::Malformed { .. } => Code::DataLoss,
            Self::Backend(error) => error.code(),
        }
    }
}

/// Why content could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The caller's item is over a documented bound.
    #[error("{what} has {size} bytes, more than the {size_max} allowed")]
    TooLarge {
        /// What was to be stored.
        what: &'static str,
        /// Its size, bytes.
        size: u64,
        /// The bound, bytes.
        size_max: u64,
    },
    /// A directory names a child that the store lacks, or with a wrong size.
    #[error("a directory refers to {child}, which was not stored before it")]
    Dangling {
        /// The child.
        child: DirectoryDigest,
    },
    /// The store could not take it.
    #[error("the content cannot be stored")]
    Backend(#[from] BackendError),
}

impl WriteError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::InvalidArgument,
            Self::Dangling { .. } => Code::FailedPrecondition,
            Self::Backend(error) => error.code(),
        }
    }
}
