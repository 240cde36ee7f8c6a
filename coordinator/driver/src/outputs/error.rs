//! Why outputs are not kept.

use igloo_status::Code;
use igloo_store::DumpError;

use super::fixed::HashMismatch;

/// A build ran and succeeded, and what it left is not kept.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A fixed output has other content.
    #[error("hash mismatch in fixed-output derivation")]
    HashMismatch(#[source] HashMismatch),
    /// A fixed output by flat hash is no plain file.
    #[error("its output should be a regular file that is not executable, because its hash is that of a file")]
    NotFlat,
    /// A fixed output refers to store paths.
    #[error("its output is fixed and may not refer to store paths, but refers to {reference}")]
    FixedReferences {
        /// One of them.
        reference: String,
    },
    /// The builder gave other outputs than asked for.
    #[error("the builder did not give every output")]
    Incomplete,
    /// An output cannot be read back.
    #[error("an output cannot be read back")]
    Dump(#[from] DumpError),
}

impl OutputError {
    /// The first line of a message about it, in Nix's words where Nix has them.
    pub fn headline(&self, drv_path: &str) -> String {
        match self {
            Self::HashMismatch(_) => format!("hash mismatch in fixed-output derivation '{drv_path}'"),
            _ => format!("cannot build '{drv_path}'"),
        }
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::HashMismatch(_) | Self::NotFlat | Self::FixedReferences { .. } => Code::FailedPrecondition,
            Self::Incomplete => Code::DataLoss,
            Self::Dump(error) => error.code(),
        }
    }
}
