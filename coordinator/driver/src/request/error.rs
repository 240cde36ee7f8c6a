//! Why a derivation makes no request.

use igloo_build::path::ParsePathError;
use igloo_castore::error::ReadBlobError;
use igloo_castore::node::ParseNameError;
use igloo_status::Code;
use igloo_store::ClosureError;
use nix_compat::derivation::{OutputKindError, ParseDerivationError};
use nix_compat::store_path::{ComputePathError, ParseAbsolutePathError};

use super::attributes::AttributeError;
use crate::json::PrintJsonError;

/// Why a derivation makes no request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Something igloo does not do.
    #[error("it asks for {what}, which igloo does not do")]
    Unsupported {
        /// What.
        what: String,
    },
    /// It wants to run outside the sandbox.
    #[error("it has '__noChroot' set, and igloo builds nothing outside a machine; unset it")]
    NoSandbox,
    /// It wants to see files of the host.
    #[error(
        "it wants the host's '{path}' (`__impureHostDeps`), and a build sees no file of the host; make it an input"
    )]
    HostPath {
        /// One of them.
        path: String,
    },
    /// It needs outputs of other derivations that were not put in their places.
    #[error("it has input derivations whose outputs' paths follow from their content; resolve it first")]
    Unresolved,
    /// Its outputs do not go together.
    #[error("its outputs do not go together")]
    Kind(#[from] OutputKindError),
    /// An attribute is of the wrong type.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// A check names an output there is not.
    #[error(
        "output check for '{output}' contains output name '{name}', but this is not a valid output of this derivation. (Valid outputs are [{valid}].)"
    )]
    Specifier {
        /// The output to check.
        output: String,
        /// What the check names.
        name: String,
        /// What it could name.
        valid: String,
    },
    /// `exportReferencesGraph` has a name without a path.
    #[error("odd number of tokens in 'exportReferencesGraph': '{words}'")]
    GraphWords {
        /// All of it.
        words: String,
    },
    /// `exportReferencesGraph` wants a file that cannot be called so.
    #[error("invalid file name '{name}' in 'exportReferencesGraph'")]
    GraphName {
        /// The name.
        name: String,
    },
    /// `exportReferencesGraph` names no store path.
    #[error("'exportReferencesGraph' names what is no store path")]
    GraphPath(#[from] ParseAbsolutePathError),
    /// `exportReferencesGraph` names what is no input.
    #[error(
        "cannot export references of path '{path}' because it is not in the input closure of the derivation"
    )]
    GraphInput {
        /// The path.
        path: String,
    },
    /// A derivation among the exported paths has outputs whose paths are not known.
    #[error("cannot export references of the outputs of '{path}': their paths follow from their content")]
    GraphFloating {
        /// The derivation.
        path: String,
    },
    /// A derivation among the exported paths is none.
    #[error("'{path}', whose references it wants exported, cannot be read as a derivation")]
    GraphDerivation {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: Box<ParseDerivationError>,
    },
    /// A derivation among the exported paths cannot be read.
    #[error("'{path}', whose references it wants exported, cannot be read")]
    GraphRead {
        /// The path.
        path: String,
        /// Why; `None` when it is no file, or too large.
        #[source]
        source: Option<Box<ReadBlobError>>,
    },
    /// Outputs of a derivation among the exported paths are not there.
    #[error("the outputs of a derivation whose references it wants exported are not all there; build them")]
    GraphClosure(#[from] ClosureError),
    /// An output can have no path.
    #[error("an output can have no path")]
    Output(#[from] ComputePathError),
    /// A path does not fit a build's root.
    #[error("a path does not fit a build's root")]
    Path(#[from] ParsePathError),
    /// A store path is no file name.
    #[error("a store path is no file name")]
    Name(#[from] ParseNameError),
    /// Structured attributes cannot be written.
    #[error("its structured attributes cannot be written")]
    Print(#[from] PrintJsonError),
}

impl RequestError {
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Unsupported { .. } | Self::GraphFloating { .. } => Code::Unimplemented,
            Self::NoSandbox | Self::HostPath { .. } => Code::PermissionDenied,
            Self::Unresolved => Code::FailedPrecondition,
            Self::Kind(error) => error.code(),
            Self::Attribute(error) => error.code(),
            Self::Specifier { .. } | Self::GraphWords { .. } | Self::GraphName { .. } => {
                Code::InvalidArgument
            }
            Self::GraphInput { .. } => Code::InvalidArgument,
            Self::GraphPath(error) => error.code(),
            Self::GraphDerivation { .. } | Self::GraphRead { source: None, .. } => Code::DataLoss,
            Self::GraphRead {
                source: Some(error), ..
            } => error.code(),
            Self::GraphClosure(error) => error.code(),
            Self::Output(error) => error.code(),
            Self::Path(error) => error.code(),
            Self::Name(error) => error.code(),
            Self::Print(error) => error.code(),
        }
    }
}
