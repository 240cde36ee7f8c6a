//! Derivations: what to build, from what, into what.
//!
//! - [`Derivation::parse`] and [`Derivation::to_aterm`]: the text of a `.drv` file;
//! - [`HashModuloMemo`]: hashes of derivations that leave out what does not matter for their outputs;
//! - [`Derivation::fill_output_paths`], [`Derivation::check_output_paths`]: output paths from those hashes;
//! - [`Derivation::store_path`]: where the `.drv` file itself lives.
//!
//! Invariants
//! - text and value are one to one: a text that Nix would not have written (unsorted, other escapes) is refused, so
//!   printing what was parsed gives the same bytes, and with them the same store path;
//! - nothing recurses: neither a deep graph of derivations nor a hostile text can overflow the stack.
//!
//! Source: Nix 2.36 `src/libstore/derivation/{aterm,modulo}.cc`, `derivations.cc`; agreed upon by 2.8 and 2.34. Dynamic
//! derivations (`DrvWithVersion("xp-dyn-drv",…)`, experimental) are refused as unsupported.

mod aterm;
mod modulo;
mod output;
mod paths;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use igloo_status::Code;
use memchr::memmem;

pub use aterm::{ParseDerivationError, ParseDerivationReason, TEXT_SIZE_MAX};
pub use modulo::{HashModulo, HashModuloError, HashModuloMemo, LoadDerivationsError};
pub use output::{DerivationOutput, OutputName, OutputNameError};
pub use paths::OutputPathError;

use crate::hash::sha256;
use crate::store_path::{
    ComputePathError, DRV_EXTENSION, StoreDir, StorePath, StorePathName, StorePathNameError,
};

/// One build step. Strings of the build are bytes, as in Nix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// Name without `.drv`; not part of the text, but of the output paths.
    pub name: StorePathName,
    /// What is built.
    pub outputs: BTreeMap<OutputName, DerivationOutput>,
    /// Derivations whose outputs are needed, with the outputs needed of each (never none).
    pub input_drvs: BTreeMap<StorePath, BTreeSet<OutputName>>,
    /// Store paths needed as they are.
    pub input_srcs: BTreeSet<StorePath>,
    /// System to build on, such as `x86_64-linux`. Nix writes it without escapes: one with `"` or `\` prints to a text that
    /// reads as something else, or as nothing.
    pub platform: Vec<u8>,
    /// Program to run.
    pub builder: Vec<u8>,
    /// Its arguments, without the program's own name.
    pub args: Vec<Vec<u8>>,
    /// Its environment; structured attributes are one variable, `__json`.
    pub env: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Derivation {
    /// What kind of outputs the derivation has; all must be of one kind.
    ///
    /// # Errors
    /// See [`OutputKindError`].
    ///
    /// Source: `derivation::type`.
    pub fn kind(&self) -> Result<DerivationKind, OutputKindError> {
        let mut kinds = self.outputs.values().map(DerivationKind::of);
        let kind = kinds.next().ok_or(OutputKindError::NoOutputs)?;
        if kinds.any(|other| other != kind) {
            return Err(OutputKindError::Mixed);
        }
        let is_lone_out =
            || self.outputs.len() == 1 && self.outputs.keys().all(|name| name.as_str() == "out");
        if kind == DerivationKind::CaFixed && !is_lone_out() {
            return Err(OutputKindError::FixedNames);
        }
        Ok(kind)
    }

    /// Path of the `.drv` file: that of its text, referring to all inputs.
    ///
    /// Cost: prints the derivation once.
    ///
    /// # Errors
    /// `name` and `.drv` together are too long, or an output has no path name.
    pub fn store_path(&self, dir: &StoreDir) -> Result<StorePath, ComputePathError> {
        let text = self.to_aterm(dir)?;
        self.store_path_of_text(dir, &text)
    }

    /// [`Derivation::store_path`] where the text is at hand.
    ///
    /// # Errors
    /// `name` and `.drv` together are too long.
    pub fn store_path_of_text(&self, dir: &StoreDir, text: &[u8]) -> Result<StorePath, ComputePathError> {
        let name = format!("{}{DRV_EXTENSION}", self.name);
        let name =
            StorePathName::new(&name).map_err(|source| ComputePathError::OutputName { name, source })?;
        Ok(dir.text_path(&name, &sha256(text), &self.references()))
    }

    /// What the `.drv` file refers to: all input sources and input derivations, but not the outputs.
    pub fn references(&self) -> BTreeSet<StorePath> {
        self.input_srcs
            .iter()
            .chain(self.input_drvs.keys())
            .cloned()
            .collect()
    }

    /// Replaces strings in builder, arguments and environment (names and values): placeholders by paths, before a build.
    ///
    /// Pairs are applied one after the other, in order, to the result of those before, as Nix does. Where two variables get
    /// one name, the first by the old names stays.
    ///
    /// Source: `derivation::applyRewrites`, `rewriteStrings`.
    pub fn rewrite(&mut self, rewrites: &BTreeMap<Vec<u8>, Vec<u8>>) {
        if rewrites.is_empty() {
            return;
        }
        rewrite_bytes(&mut self.builder, rewrites);
        self.args.iter_mut().for_each(|arg| rewrite_bytes(arg, rewrites));
        let mut env = BTreeMap::new();
        for (mut name, mut value) in std::mem::take(&mut self.env) {
            rewrite_bytes(&mut name, rewrites);
            rewrite_bytes(&mut value, rewrites);
            env.entry(name).or_insert(value);
        }
        self.env = env;
    }
}

/// The derivation's name in a `.drv` path: without `.drv`.
///
/// # Errors
/// The path is no derivation's, or nothing is left of the name.
pub fn derivation_name(path: &StorePath) -> Result<StorePathName, NotDerivationError> {
    let name = path.name().strip_suffix(DRV_EXTENSION);
    let name = name.ok_or_else(|| NotDerivationError::Extension { path: path.clone() })?;
    StorePathName::new(name).map_err(|source| NotDerivationError::Name {
        path: path.clone(),
        source,
    })
}

/// Replaces strings in one: pairs are applied one after the other, in order, to the result of those before.
///
/// Source: `rewriteStrings`.
pub fn rewrite_bytes(bytes: &mut Vec<u8>, rewrites: &BTreeMap<Vec<u8>, Vec<u8>>) {
    for (from, to) in rewrites
        .iter()
        .filter(|(from, to)| from != to && !from.is_empty())
    {
        let mut found = memmem::find_iter(bytes, from).peekable();
        if found.peek().is_none() {
            continue;
        }
        let mut out = Vec::with_capacity(bytes.len());
        let mut end = 0;
        for at in found {
            out.extend_from_slice(&bytes[end..at]);
            out.extend_from_slice(to);
            end = at + from.len();
        }
        out.extend_from_slice(&bytes[end..]);
        *bytes = out;
    }
}

/// How the paths of a derivation's outputs come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DerivationKind {
    /// From the derivation, known now.
    InputAddressed,
    /// From the derivation, known when some of its inputs are built.
    Deferred,
    /// From content known beforehand; one output, `out`, and network access.
    CaFixed,
    /// From content known after the build.
    CaFloating,
    /// As floating, with network access and built anew each time.
    Impure,
}

impl DerivationKind {
    fn of(output: &DerivationOutput) -> Self {
        match output {
            DerivationOutput::InputAddressed { .. } => Self::InputAddressed,
            DerivationOutput::Deferred => Self::Deferred,
            DerivationOutput::CaFixed { .. } => Self::CaFixed,
            DerivationOutput::CaFloating { .. } => Self::CaFloating,
            DerivationOutput::Impure { .. } => Self::Impure,
        }
    }
}

/// Outputs that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputKindError {
    /// There is none.
    #[error("must have at least one output")]
    NoOutputs,
    /// Of several kinds.
    #[error("can't mix derivation output types")]
    Mixed,
    /// A fixed output beside others, or by another name than `out`.
    #[error("only one fixed output is allowed, and it must be named \"out\"")]
    FixedNames,
}

impl OutputKindError {
    /// Always `InvalidArgument`: the derivation itself is wrong.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// A store path that is not a derivation's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDerivationError {
    /// It does not end in `.drv`.
    #[error("store path '{path}' is not a valid derivation path: it does not end in '.drv'")]
    Extension {
        /// The path.
        path: StorePath,
    },
    /// What comes before `.drv` is no name.
    #[error("store path '{path}' is not a valid derivation path")]
    Name {
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: StorePathNameError,
    },
}

impl NotDerivationError {
    /// Always `InvalidArgument`: the path itself is wrong.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}
