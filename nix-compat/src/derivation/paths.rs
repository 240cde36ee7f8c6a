//! Output paths of a derivation: computed for a new one, checked in one from elsewhere.
//!
//! The environment variable named after an output holds its path, so it is filled or checked with it.
//!
//! Source: Nix 2.36 `derivations.cc`, `processDerivationOutputPaths`.

use igloo_status::Code;

use super::{Derivation, DerivationKind, DerivationOutput, HashModuloError, HashModuloMemo, OutputName};
use crate::store_path::{ComputePathError, StorePath, printable};

impl Derivation {
    /// Gives deferred outputs their paths, where all inputs have theirs, and sets the outputs' environment variables.
    ///
    /// For a new derivation: begin with every output [`DerivationOutput::Deferred`] (or of a content-addressed kind) and its
    /// variable empty or absent. Floating and impure outputs are left alone: their variables hold placeholders. All input
    /// derivations must be known to `memo`. Calling it again changes nothing.
    ///
    /// # Errors
    /// See [`OutputPathError`]; the derivation may then be changed in part.
    pub fn fill_output_paths(&mut self, memo: &HashModuloMemo) -> Result<(), OutputPathError> {
        let dir = memo.dir();
        self.add_variables()?;
        for (name, path) in self.expected_paths(memo)? {
            let value = dir.print(&path).into_bytes();
            let variable = self.env.entry(name.as_str().as_bytes().to_vec()).or_default();
            let output = self.outputs.get_mut(&name);
            match output {
                Some(output @ DerivationOutput::Deferred) => {
                    *output = DerivationOutput::InputAddressed { path };
                    *variable = value;
                }
                _ if variable.is_empty() => *variable = value,
                _ if *variable == value => {}
                _ => return Err(OutputPathError::variable(&name, variable, &value)),
            }
        }
        Ok(())
    }

    /// The variables' names are hashed, so they must be there first.
    fn add_variables(&mut self) -> Result<(), OutputPathError> {
        if matches!(
            self.kind().map_err(HashModuloError::from)?,
            DerivationKind::InputAddressed | DerivationKind::Deferred
        ) {
            for name in self.outputs.keys() {
                self.env.entry(name.as_str().as_bytes().to_vec()).or_default();
            }
        }
        Ok(())
    }

    /// Checks that every output has the path that follows from the derivation, and its variable says so.
    ///
    /// For a derivation from an untrusted place, before anything is built into those paths.
    ///
    /// # Errors
    /// See [`OutputPathError`]; a deferred output that need not be is one.
    pub fn check_output_paths(&self, memo: &HashModuloMemo) -> Result<(), OutputPathError> {
        let dir = memo.dir();
        for (name, path) in self.expected_paths(memo)? {
            if self.outputs.get(&name) == Some(&DerivationOutput::Deferred) {
                return Err(OutputPathError::NeedlesslyDeferred {
                    output: name,
                    path: dir.print(&path),
                });
            }
            let value = dir.print(&path).into_bytes();
            let variable = self.env.get(name.as_str().as_bytes());
            if variable != Some(&value) {
                let variable = variable.map_or(&[][..], Vec::as_slice);
                return Err(OutputPathError::variable(&name, variable, &value));
            }
        }
        Ok(())
    }

    /// The path of every output that can have one now. Stated paths are checked.
    fn expected_paths(&self, memo: &HashModuloMemo) -> Result<Vec<(OutputName, StorePath)>, OutputPathError> {
        let kind = self.kind().map_err(HashModuloError::from)?;
        let hash = match kind {
            DerivationKind::InputAddressed | DerivationKind::Deferred => memo.output_hash(self)?,
            DerivationKind::CaFixed | DerivationKind::CaFloating | DerivationKind::Impure => None,
        };
        let mut paths = Vec::with_capacity(self.outputs.len());
        for (name, output) in &self.outputs {
            let stated = output.path(memo.dir(), &self.name, name)?;
            let computed = match (&hash, kind) {
                (Some(hash), _) => Some(memo.dir().output_path(&self.name, name, hash)?),
                (None, DerivationKind::CaFixed) => stated.clone(),
                (None, _) => None,
            };
            if stated.is_some() && stated != computed {
                return Err(OutputPathError::Path {
                    output: name.clone(),
                    stated: stated.map(|path| memo.dir().print(&path)).unwrap_or_default(),
                    computed: computed.map_or("deferred".into(), |path| memo.dir().print(&path)),
                });
            }
            paths.extend(computed.map(|path| (name.clone(), path)));
        }
        Ok(paths)
    }
}

/// Why a derivation's outputs cannot have, or do not have, the right paths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputPathError {
    /// An output states another path than follows from the derivation.
    #[error("derivation has incorrect output '{stated}' for '{output}', should be '{computed}'")]
    Path {
        /// The output.
        output: OutputName,
        /// What the derivation says.
        stated: String,
        /// What it should say: a path, or `deferred`.
        computed: String,
    },
    /// An output has no path, though its path is known.
    #[error("derivation has incorrect deferred output '{output}', should be '{path}'")]
    NeedlesslyDeferred {
        /// The output.
        output: OutputName,
        /// What it should be.
        path: String,
    },
    /// The output's environment variable says something else.
    #[error(
        "derivation has incorrect environment variable '{output}', should be '{computed}' but is actually '{stated}'"
    )]
    Variable {
        /// Name of variable and output.
        output: OutputName,
        /// What the variable says, escaped; empty when there is none.
        stated: String,
        /// What it should say.
        computed: String,
    },
    /// The derivation has no hash.
    #[error(transparent)]
    Hash(#[from] HashModuloError),
    /// An output can have no path.
    #[error(transparent)]
    Compute(#[from] ComputePathError),
}

impl OutputPathError {
    fn variable(output: &OutputName, stated: &[u8], computed: &[u8]) -> Self {
        Self::Variable {
            output: output.clone(),
            stated: printable(stated),
            computed: printable(computed),
        }
    }

    /// The class of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Hash(error) => error.code(),
            _ => Code::InvalidArgument,
        }
    }
}
