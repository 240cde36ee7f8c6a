//! Resolution: a derivation with its inputs' paths in it instead of its input derivations.
//!
//! Two derivations that differ only in how their inputs were made resolve to one, and then need one build: early cut-off.
//!
//! Source: Nix 2.36 `derivations.cc`, `Derivation::tryResolve`, `rewriteDerivation`.

use std::collections::BTreeMap;

use igloo_status::Code;
use nix_compat::derivation::{Derivation, HashModuloMemo, OutputName, OutputPathError};
use nix_compat::store_path::{ComputePathError, StoreDir, StorePath, downstream_placeholder};

/// An output of an input, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedInput {
    /// The input derivation.
    pub drv: StorePath,
    /// The output.
    pub output: OutputName,
    /// Its path.
    pub path: StorePath,
}

/// Resolves a derivation: what [`crate::Action::Resolve`] asks for.
///
/// Returns the path of the resolved derivation and itself: it has no input derivations, and deferred outputs have their
/// paths. Cost: a pass over its strings for each input. Write it to the store under that path if anybody is to read it again.
///
/// # Errors
/// `Missing` when an input that the derivation names is not among `inputs`.
pub fn resolve(
    dir: &StoreDir,
    derivation: &Derivation,
    inputs: &[ResolvedInput],
) -> Result<(StorePath, Derivation), ResolveError> {
    let mut resolved = derivation.clone();
    let mut rewrites = BTreeMap::new();
    for (drv, outputs) in std::mem::take(&mut resolved.input_drvs) {
        for output in outputs {
            let found = inputs
                .iter()
                .find(|input| input.drv == drv && input.output == output);
            let Some(found) = found else {
                return Err(ResolveError::Missing { drv, output });
            };
            let placeholder = downstream_placeholder(&drv, &output)?;
            rewrites.insert(placeholder.into_bytes(), dir.print(&found.path).into_bytes());
            resolved.input_srcs.insert(found.path.clone());
        }
    }
    resolved.rewrite(&rewrites);
    resolved.fill_output_paths(&HashModuloMemo::new(dir.clone()))?;
    Ok((resolved.store_path(dir)?, resolved))
}

/// A derivation cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// An input's path was not given.
    #[error("the path of output `{output}` of {drv} is not given; realise it first")]
    Missing {
        /// The input derivation.
        drv: StorePath,
        /// Its output.
        output: OutputName,
    },
    /// A path cannot be computed.
    #[error("its paths cannot be computed")]
    Path(#[from] ComputePathError),
    /// An output cannot have its path.
    #[error("its output paths cannot be computed")]
    Output(#[from] OutputPathError),
}

impl ResolveError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => Code::FailedPrecondition,
            Self::Path(error) => error.code(),
            Self::Output(error) => error.code(),
        }
    }
}
