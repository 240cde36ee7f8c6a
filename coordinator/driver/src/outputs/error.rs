//! Why outputs are not kept.

use igloo_castore::ingest::IngestError;
use igloo_castore::node::{ParseNameError, ParseTargetError};
use igloo_status::Code;
use igloo_store::{ClosureError, DumpError};
use nix_compat::content_address::ContentAddressError;
use nix_compat::derivation::{HashModuloError, OutputKindError, OutputName};
use nix_compat::store_path::ComputePathError;

/// A build ran and succeeded, and what it left is not kept. Messages are Nix's where Nix has them.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A fixed output has other content.
    #[error("hash mismatch in fixed-output derivation")]
    HashMismatch(#[source] HashMismatch),
    /// An output whose address is that of a file is no plain file.
    #[error(
        "its output should be a non-executable regular file since recursive hashing is not enabled (one of outputHashMode={{flat,text}} is true)"
    )]
    NotFlat,
    /// A fixed output with the promised content refers to store paths.
    #[error(
        "fixed-output derivations must not reference store paths: '{drv_path}' references {count} distinct paths, e.g. '{first}'"
    )]
    FixedReferences {
        /// The derivation.
        drv_path: String,
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// A content-addressed output refers to store paths, and its method has no place for that.
    #[error(
        "fixed output derivation '{name}' is not allowed to refer to other store paths.\nYou may need to use the 'unsafeDiscardReferences' derivation attribute, see the manual for more details."
    )]
    References {
        /// Name of the output's path.
        name: String,
    },
    /// A text names itself.
    #[error("self-reference not allowed with text hashing")]
    TextSelfReference,
    /// Outputs refer to each other in a circle.
    #[error(
        "cycle detected in build of '{drv_path}' in the references of output '{output}' from output '{from}'"
    )]
    Cycle {
        /// The derivation.
        drv_path: String,
        /// An output in the circle.
        output: OutputName,
        /// One that refers to it.
        from: OutputName,
    },
    /// An output refers to, or needs, what it must not.
    #[error(
        "output '{output}' is not allowed to refer to the following paths:{}",
        lines(paths)
    )]
    Disallowed {
        /// The output.
        output: String,
        /// What it must not refer to.
        paths: Vec<String>,
    },
    /// An output is larger than it may be.
    #[error("path '{path}' is too large at {size} bytes; limit is {max} bytes")]
    TooLarge {
        /// The output.
        path: String,
        /// Bytes of its NAR.
        size: u64,
        /// What it may have.
        max: u64,
    },
    /// An output and all it needs are larger than they may be.
    #[error("closure of path '{path}' is too large at {size} bytes; limit is {max} bytes")]
    ClosureTooLarge {
        /// The output.
        path: String,
        /// Bytes of all NARs.
        size: u64,
        /// What they may have.
        max: u64,
    },
    /// The builder gave other outputs than asked for.
    #[error("the builder did not give every output")]
    Incomplete,
    /// Its outputs do not go together.
    #[error("its outputs do not go together")]
    Kind(#[from] OutputKindError),
    /// An output can have no path.
    #[error("an output can have no path")]
    Path(#[from] ComputePathError),
    /// An output can have no content address.
    #[error("an output can have no content address")]
    Address(#[from] ContentAddressError),
    /// The derivation has no hash.
    #[error("the derivation has no hash")]
    Hash(#[from] HashModuloError),
    /// What an output needs is not whole.
    #[error("what an output needs is not whole")]
    Closure(#[from] ClosureError),
    /// An output cannot be read back.
    #[error("an output cannot be read back")]
    Dump(#[from] DumpError),
    /// An output cannot be written again with its final path in it.
    #[error("an output cannot be written again with its final path in it")]
    Rewrite(#[from] IngestError),
    /// A file's name with the final path in it is none.
    #[error("a file name of an output cannot hold its final path")]
    Name(#[from] ParseNameError),
    /// A symlink's text with the final path in it is none.
    #[error("a symlink of an output cannot hold its final path")]
    Target(#[from] ParseTargetError),
}

/// A fixed output with other content than promised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("specified: {specified}\n   got:    {got}")]
pub struct HashMismatch {
    /// What the derivation says, as SRI.
    pub specified: String,
    /// What was built, as SRI.
    pub got: String,
}

impl OutputError {
    /// The first line of a message about it, in Nix's words where Nix has them.
    pub fn headline(&self, drv_path: &str) -> String {
        match self {
            Self::HashMismatch(_) => format!("hash mismatch in fixed-output derivation '{drv_path}'"),
            _ => format!("cannot build '{drv_path}'"),
        }
    }

    /// Whether a fixed output is not what was promised, which has an exit code of its own (102, as in Nix).
    pub fn is_broken_promise(&self) -> bool {
        matches!(self, Self::HashMismatch(_) | Self::FixedReferences { .. })
    }

    /// Whether the host failed, or its store, and not what was built.
    pub fn is_fault_of_host(&self) -> bool {
        matches!(
            self,
            Self::Incomplete | Self::Closure(_) | Self::Dump(_) | Self::Rewrite(IngestError::Store(_))
        )
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::HashMismatch(_)
            | Self::NotFlat
            | Self::FixedReferences { .. }
            | Self::References { .. }
            | Self::TextSelfReference
            | Self::Cycle { .. }
            | Self::Disallowed { .. }
            | Self::TooLarge { .. }
            | Self::ClosureTooLarge { .. } => Code::FailedPrecondition,
            Self::Incomplete => Code::DataLoss,
            Self::Kind(error) => error.code(),
            Self::Path(error) => error.code(),
            Self::Address(error) => error.code(),
            Self::Hash(error) => error.code(),
            Self::Closure(error) => error.code(),
            Self::Dump(error) => error.code(),
            Self::Rewrite(error) => error.code(),
            Self::Name(error) => error.code(),
            Self::Target(error) => error.code(),
        }
    }
}

fn lines(paths: &[String]) -> String {
    paths.iter().map(|path| format!("\n  {path}")).collect()
}
