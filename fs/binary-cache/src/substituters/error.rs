//! Why a path could not be substituted.

use std::error::Error;
use std::fmt;

use igloo_castore::store::StoreName;
use igloo_status::Code;
use igloo_store::CommitError;
use igloo_store::path_info::ReadPathInfoError;
use nix_compat::store_path::StorePath;

use crate::substituter::{FetchError, LookUpError};

/// Why a path could not be substituted.
#[derive(Debug, thiserror::Error)]
pub enum SubstituteError {
    /// Nobody has it.
    #[error("no substituter has {path}")]
    NotFound {
        /// The path.
        path: StorePath,
    },
    /// Nobody offers it, and some gave no usable answer.
    #[error("no substituter offers {path}")]
    LookUp {
        /// The path.
        path: StorePath,
        /// What each said.
        #[source]
        errors: ManyErrors<LookUpError>,
    },
    /// Nobody who offers it could give it.
    #[error("{path} cannot be fetched")]
    Fetch {
        /// The path.
        path: StorePath,
        /// What happened with each.
        #[source]
        errors: ManyErrors<FetchError>,
    },
    /// What it refers to cannot be had.
    #[error("{path} refers to {reference}, which cannot be had")]
    Reference {
        /// The path.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// It refers to itself in a circle; only a wrong cache says so.
    #[error("{path} is said to refer to itself through other paths")]
    Cycle {
        /// The path.
        path: StorePath,
    },
    /// More paths than a plan may have.
    #[error("more than {paths_max} paths would have to be fetched")]
    TooMany {
        /// The bound.
        paths_max: usize,
    },
    /// The store's records cannot be read.
    #[error(transparent)]
    Read(#[from] ReadPathInfoError),
    /// It is here but cannot be registered; registering several at once failed for all of them.
    #[error("{path} is fetched but cannot be registered: {reason}")]
    Register {
        /// The path.
        path: StorePath,
        /// Why, with all causes.
        reason: String,
        /// The class of that.
        code: Code,
    },
}

impl SubstituteError {
    pub(super) fn register(path: &StorePath, error: &CommitError) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason.push_str(": ");
            reason.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::Register {
            path: path.clone(),
            reason,
            code: error.code(),
        }
    }

    /// The class of the failure. `NotFound` only when every substituter said so.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::LookUp { errors, .. } => errors.code(LookUpError::code),
            Self::Fetch { errors, .. } => errors.code(FetchError::code),
            Self::Reference { .. } => Code::FailedPrecondition,
            Self::Cycle { .. } => Code::DataLoss,
            Self::TooMany { .. } => Code::ResourceExhausted,
            Self::Read(error) => error.code(),
            Self::Register { code, .. } => *code,
        }
    }
}

/// What several substituters said; its message is all of theirs, each with its causes.
#[derive(Debug)]
pub struct ManyErrors<E>(Vec<(StoreName, E)>);

impl<E> ManyErrors<E> {
    pub(super) fn new(errors: Vec<(StoreName, E)>) -> Self {
        Self(errors)
    }

    /// Each, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = &(StoreName, E)> {
        self.0.iter()
    }

    /// That of the one that may pass, when there is one: trying the whole again can help then.
    fn code(&self, code: impl Fn(&E) -> Code) -> Code {
        let codes: Vec<_> = self.0.iter().map(|(_, error)| code(error)).collect();
        let transient = codes.iter().find(|code| code.is_transient());
        transient.or(codes.first()).copied().unwrap_or(Code::Internal)
    }
}

impl<E: Error> fmt::Display for ManyErrors<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (_, error)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
            let mut source = error.source();
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

impl<E: Error> Error for ManyErrors<E> {}
