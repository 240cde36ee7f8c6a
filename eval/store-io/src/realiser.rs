//! Whom an evaluation asks for builds: the coordinator's part of import from derivation.

use std::collections::BTreeSet;

use async_trait::async_trait;
use igloo_status::Code;
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

/// Something an evaluation cannot go on without.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// A store path, from a substituter.
    Path(StorePath),
    /// Outputs of a derivation that is in the store.
    Outputs {
        /// The derivation.
        derivation: StorePath,
        /// Its outputs; never none.
        outputs: BTreeSet<OutputName>,
    },
}

/// An output that is in the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealisedOutput {
    /// The derivation.
    pub derivation: StorePath,
    /// The output.
    pub output: OutputName,
    /// Where it is.
    pub path: StorePath,
}

/// Makes things exist in the store that the evaluation reads: the coordinator's part of import from derivation.
#[async_trait]
pub trait Realiser: Send + Sync {
    /// Brings everything wanted into the store: built, substituted, or there already. What needs it waits.
    ///
    /// Called by many evaluations at once, and by one for several things at once; dropped when nobody wants the answer any
    /// more. The derivations wanted, and all they refer to, are registered, and the
    /// [`crate::DerivationSink`] has heard of those this evaluation wrote.
    ///
    /// # Errors
    /// The first thing that cannot be had; others may be there all the same.
    async fn realise(&self, wanted: Vec<Wanted>) -> Result<Vec<RealisedOutput>, RealiseError>;
}

/// Why something wanted cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RealiseError {
    /// A build failed. The reason begins with what failed, in the coordinator's words; that may be something it needs.
    #[error("{reason}")]
    Build {
        /// The derivation.
        derivation: StorePath,
        /// Why.
        reason: String,
        /// Exit status Nix has for it: 100, 101 after a timeout, 102 where an output has a wrong hash.
        exit: u8,
    },
    /// A path is in no store that is known.
    #[error("path '{path}' is in no store, and nothing is known that makes it")]
    Missing {
        /// The path.
        path: StorePath,
    },
    /// Whoever asked for the evaluation stopped it.
    #[error("the evaluation was cancelled while it waited for a build")]
    Cancelled,
    /// The coordinator gave no answer.
    #[error("the coordinator cannot be asked for builds")]
    Unavailable {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl RealiseError {
    /// The class of the failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Build { .. } => Code::Aborted,
            Self::Missing { .. } => Code::NotFound,
            Self::Cancelled => Code::Cancelled,
            Self::Unavailable { .. } => Code::Unavailable,
        }
    }
}
