//! Hashes of derivations modulo what cannot matter: how fixed outputs are fetched, and a derivation's own output paths.
//!
//! An input derivation counts by such a hash instead of its path, so that another mirror for a source changes no output path.
//! Every hash needs those of all inputs first, down to the leaves: [`HashModuloMemo`] keeps them.
//!
//! Invariants
//! - one memo serves one store directory, since paths are hashed;
//! - loading a graph is iterative; each derivation is looked up and hashed once per memo.
//!
//! Source: Nix 2.36 `src/libstore/derivation/modulo.cc`, `doc/manual/source/store/derivation/outputs/input-address.md`.

use std::collections::{BTreeMap, HashMap, HashSet};

use igloo_status::Code;

use super::aterm::print::{InputHashes, Outputs, print_modulo};
use super::{Derivation, DerivationKind, DerivationOutput, OutputKindError, OutputName};
use crate::hash::{HashFormat, sha256};
use crate::store_path::{ComputePathError, StoreDir, StorePath};

/// Derivations that one [`HashModuloMemo::load`] follows at most; all of nixpkgs has some hundred thousand.
const LOAD_COUNT_MAX: usize = 10_000_000;

/// What stands for a derivation in the hashes of those that need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashModulo {
    /// One hash for all outputs: input-addressed.
    Derivation([u8; 32]),
    /// A hash for each output, from its content: fixed outputs.
    Outputs(BTreeMap<OutputName, [u8; 32]>),
    /// None yet: some output path is not known before a build.
    Deferred,
}

/// Hashes of derivations, by their paths.
#[derive(Clone, Debug)]
pub struct HashModuloMemo {
    dir: StoreDir,
    known: HashMap<StorePath, HashModulo>,
}

impl HashModuloMemo {
    /// An empty memo for derivations in that store directory.
    pub fn new(dir: StoreDir) -> Self {
        Self {
            dir,
            known: HashMap::new(),
        }
    }

    /// The store directory.
    pub fn dir(&self) -> &StoreDir {
        &self.dir
    }

    /// The hash of the derivation at that path, if it is known.
    pub fn get(&self, path: &StorePath) -> Option<&HashModulo> {
        self.known.get(path)
    }

    /// Hashes a derivation whose inputs are all known, and keeps the result under its path.
    ///
    /// Cost: prints and hashes the derivation once. An evaluator calls this for each derivation it makes, bottom up.
    ///
    /// # Errors
    /// See [`HashModuloError`].
    pub fn add(&mut self, path: StorePath, derivation: &Derivation) -> Result<&HashModulo, HashModuloError> {
        let hash = self.hash(derivation)?;
        Ok(self.known.entry(path).insert_entry(hash).into_mut())
    }

    /// Makes the given derivations known, and all they need, by looking up those that are not.
    ///
    /// Each derivation is looked up once, inputs before what needs them are hashed, on a stack of its own.
    ///
    /// # Errors
    /// A look-up fails, or finds derivations that need each other, or cannot be hashed. What was hashed before stays known.
    pub fn load<E>(
        &mut self,
        paths: impl IntoIterator<Item = StorePath>,
        mut look_up: impl FnMut(&StorePath) -> Result<Derivation, E>,
    ) -> Result<(), LoadDerivationsError<E>> {
        let mut stack: Vec<Frame> = Vec::new();
        let mut open: HashSet<StorePath> = HashSet::new();
        let mut roots: Vec<StorePath> = paths.into_iter().collect();
        let mut count = 0;
        loop {
            let missing = stack.last_mut().map_or(&mut roots, |frame| &mut frame.missing);
            if let Some(path) = missing.pop() {
                if self.known.contains_key(&path) {
                    continue;
                }
                if !open.insert(path.clone()) {
                    return Err(LoadDerivationsError::Cycle { path });
                }
                count += 1;
                if count > LOAD_COUNT_MAX {
                    return Err(LoadDerivationsError::TooMany { max: LOAD_COUNT_MAX });
                }
                let derivation = look_up(&path);
                let derivation = derivation.map_err(|source| LoadDerivationsError::LookUp {
                    path: path.clone(),
                    source,
                })?;
                stack.push(Frame::new(path, derivation));
            } else if let Some(Frame { path, derivation, .. }) = stack.pop() {
                open.remove(&path);
                let hash = self.hash(&derivation);
                let hash = hash.map_err(|source| LoadDerivationsError::Hash {
                    path: path.clone(),
                    source,
                })?;
                self.known.insert(path, hash);
            } else {
                return Ok(());
            }
        }
    }

    /// The hash that stands for a derivation in those that need it; all its inputs must be known.
    ///
    /// # Errors
    /// See [`HashModuloError`].
    pub fn hash(&self, derivation: &Derivation) -> Result<HashModulo, HashModuloError> {
        match derivation.kind()? {
            DerivationKind::CaFixed => Ok(HashModulo::Outputs(self.fixed_hashes(derivation)?)),
            DerivationKind::InputAddressed => match self.input_hashes(derivation)? {
                Some(inputs) => {
                    let text = print_modulo(derivation, &self.dir, Outputs::AsTheyAre, &inputs)?;
                    Ok(HashModulo::Derivation(sha256(&text)))
                }
                None => Ok(HashModulo::Deferred),
            },
            DerivationKind::Deferred | DerivationKind::CaFloating | DerivationKind::Impure => {
                Ok(HashModulo::Deferred)
            }
        }
    }

    /// The hash that a derivation's own output paths are made of: without those paths, which it determines.
    ///
    /// `None` where some input's outputs are not known before a build. Only for input-addressed and deferred outputs; for
    /// others the result means nothing.
    ///
    /// # Errors
    /// See [`HashModuloError`].
    pub fn output_hash(&self, derivation: &Derivation) -> Result<Option<[u8; 32]>, HashModuloError> {
        let Some(inputs) = self.input_hashes(derivation)? else {
            return Ok(None);
        };
        let text = print_modulo(derivation, &self.dir, Outputs::Masked, &inputs)?;
        Ok(Some(sha256(&text)))
    }

    /// Hashes in place of the paths of input derivations; `None` when one is deferred.
    fn input_hashes<'a>(
        &self,
        derivation: &'a Derivation,
    ) -> Result<Option<InputHashes<'a>>, HashModuloError> {
        let mut inputs = InputHashes::new();
        for (path, outputs) in &derivation.input_drvs {
            let hash = self.known.get(path);
            match hash.ok_or_else(|| HashModuloError::UnknownInput { path: path.clone() })? {
                HashModulo::Derivation(hash) => inputs.entry(*hash).or_default().extend(outputs),
                HashModulo::Outputs(hashes) => {
                    for output in outputs {
                        // a fixed output is always `out`, see `Derivation::kind`
                        let hash = hashes.get(output).ok_or_else(|| HashModuloError::NoSuchOutput {
                            path: path.clone(),
                            output: output.clone(),
                        })?;
                        inputs.entry(*hash).or_default().insert(output);
                    }
                }
                HashModulo::Deferred => return Ok(None),
            }
        }
        Ok(Some(inputs))
    }

    fn fixed_hashes(
        &self,
        derivation: &Derivation,
    ) -> Result<BTreeMap<OutputName, [u8; 32]>, ComputePathError> {
        let mut hashes = BTreeMap::new();
        for (name, output) in &derivation.outputs {
            let (DerivationOutput::CaFixed { address }, Some(path)) =
                (output, output.path(&self.dir, &derivation.name, name)?)
            else {
                continue;
            };
            let (prefix, hash) = (
                address.method().prefix(),
                address.hash().encode_with_algo(HashFormat::Base16),
            );
            let text = format!("fixed:out:{prefix}{hash}:{}", self.dir.display(&path));
            hashes.insert(name.clone(), sha256(text.as_bytes()));
        }
        Ok(hashes)
    }
}

/// A derivation being loaded, and which of its inputs were not looked at yet.
struct Frame {
    path: StorePath,
    missing: Vec<StorePath>,
    derivation: Derivation,
}

impl Frame {
    fn new(path: StorePath, derivation: Derivation) -> Self {
        let missing = derivation.input_drvs.keys().rev().cloned().collect();
        Self {
            path,
            missing,
            derivation,
        }
    }
}

/// Why a derivation has no hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashModuloError {
    /// An input's hash is needed first.
    #[error("the hash of input derivation '{path}' is not known; load it first")]
    UnknownInput {
        /// Path of the input.
        path: StorePath,
    },
    /// An output is needed that the input does not have.
    #[error("input derivation '{path}' has no output '{output}'")]
    NoSuchOutput {
        /// Path of the input.
        path: StorePath,
        /// The output.
        output: OutputName,
    },
    /// The outputs do not go together.
    #[error(transparent)]
    Outputs(#[from] OutputKindError),
    /// An output can have no path.
    #[error(transparent)]
    Path(#[from] ComputePathError),
}

impl HashModuloError {
    /// The class of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownInput { .. } => Code::FailedPrecondition,
            Self::NoSuchOutput { .. } | Self::Outputs(_) | Self::Path(_) => Code::InvalidArgument,
        }
    }
}

/// Why a graph of derivations could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum LoadDerivationsError<E> {
    /// The look-up failed.
    #[error("derivation '{path}' could not be read")]
    LookUp {
        /// Path of the derivation.
        path: StorePath,
        /// Why.
        #[source]
        source: E,
    },
    /// Derivations need each other; the look-up gave a text that is not the path's.
    #[error("derivation '{path}' needs itself")]
    Cycle {
        /// One of them.
        path: StorePath,
    },
    /// A derivation has no hash.
    #[error("derivation '{path}' has no hash")]
    Hash {
        /// Path of the derivation.
        path: StorePath,
        /// Why.
        #[source]
        source: HashModuloError,
    },
    /// The graph does not end.
    #[error("more than {max} derivations are needed")]
    TooMany {
        /// Derivations allowed.
        max: usize,
    },
}

impl<E> LoadDerivationsError<E> {
    /// The class of this failure; that of a failed look-up is the caller's to know, and `Unknown` here.
    pub fn code(&self) -> Code {
        match self {
            Self::LookUp { .. } => Code::Unknown,
            Self::Cycle { .. } => Code::DataLoss,
            Self::Hash { source, .. } => source.code(),
            Self::TooMany { .. } => Code::ResourceExhausted,
        }
    }
}
