//! What the machine knows of a derivation: names, not contents.
//!
//! Identities are Nix's own ([`StorePath`], [`OutputName`]): checked, cheap to clone, and knowing no I/O. A generic identity
//! would buy nothing, since output paths and resolution are computed from derivations, which are Nix's.
//!
//! Invariants
//! - [`DrvInfo::of`] describes a derivation whose text hashes to its path, so a graph made of such has no cycle;
//! - [`DrvInfo::check`] bounds what anybody says of a derivation; the machine calls it on all it is told.

use std::collections::BTreeSet;
use std::time::Duration;

use igloo_status::Code;
use nix_compat::derivation::{Derivation, DerivationKind, OutputKindError, OutputName};
use nix_compat::store_path::{ComputePathError, StoreDir, StorePath};

/// Most derivations or sources that one derivation may need.
pub const INPUTS_MAX: usize = 1 << 20;
/// Most outputs of one derivation.
pub const OUTPUTS_MAX: usize = 1 << 10;
/// Most features that one derivation may ask for.
pub const FEATURES_MAX: usize = 64;

/// A derivation as the machine needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrvInfo {
    /// Its path.
    pub path: StorePath,
    /// How its outputs' paths come about.
    pub kind: DerivationKind,
    /// Its outputs, with their paths where these are known before the build.
    pub outputs: Vec<(OutputName, Option<StorePath>)>,
    /// Outputs of other derivations that it needs.
    pub inputs: Vec<(StorePath, Vec<OutputName>)>,
    /// Store paths that it needs as they are.
    pub sources: Vec<StorePath>,
    /// What its builder must offer.
    pub needs: Requirements,
    /// How long the build may take, where anybody knows ([`crate::History`]).
    pub estimate: Option<Duration>,
    /// Whether its outputs may come from elsewhere (`allowSubstitutes`).
    pub substitutable: bool,
}

/// What a build needs of its builder. The machine takes it as it is; it counts nothing but `memory_mib`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirements {
    /// Architecture and kernel as Nix names them, `x86_64-linux`.
    pub system: String,
    /// Named abilities, all needed.
    pub features: BTreeSet<String>,
    /// Memory, MiB; 0 where nobody knows.
    pub memory_mib: u32,
    /// Whether it reaches for the network.
    pub network: bool,
}

impl DrvInfo {
    /// Describes a derivation: its output paths, what it needs, where it can be built.
    ///
    /// Attributes are read from plain environment variables (`requiredSystemFeatures`, `allowSubstitutes`); with structured
    /// attributes the caller sets the fields. Cost: prints the derivation once, to check its path.
    ///
    /// # Errors
    /// `Mismatch` when `path` is not the derivation's; outputs that do not go together.
    ///
    /// Source: Nix 2.36 `derivation-options.cc`.
    pub fn of(
        dir: &StoreDir,
        path: &StorePath,
        derivation: &Derivation,
    ) -> Result<Self, DescribeDerivationError> {
        let computed = derivation.store_path(dir)?;
        if computed != *path {
            return Err(DescribeDerivationError::Mismatch {
                path: path.clone(),
                computed,
            });
        }
        let kind = derivation.kind()?;
        let mut outputs = Vec::with_capacity(derivation.outputs.len());
        for (name, output) in &derivation.outputs {
            outputs.push((name.clone(), output.path(dir, &derivation.name, name)?));
        }
        let inputs = derivation.input_drvs.iter();
        Ok(Self {
            path: computed,
            kind,
            outputs,
            inputs: inputs
                .map(|(path, names)| (path.clone(), names.iter().cloned().collect()))
                .collect(),
            sources: derivation.input_srcs.iter().cloned().collect(),
            needs: Requirements {
                system: String::from_utf8_lossy(&derivation.platform).into_owned(),
                features: features(derivation),
                memory_mib: 0,
                network: matches!(kind, DerivationKind::CaFixed | DerivationKind::Impure),
            },
            estimate: None,
            substitutable: variable(derivation, "allowSubstitutes").is_none_or(|value| value == b"1"),
        })
    }

    /// Whether the machine can take it. Linear in its size.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn check(&self) -> Result<(), RefuseDerivationError> {
        use RefuseDerivationError as Refuse;
        if self.kind == DerivationKind::Impure {
            return Err(Refuse::Impure);
        }
        let inputs: usize = self.inputs.iter().map(|(_, names)| names.len().max(1)).sum();
        at_most("inputs", inputs + self.sources.len(), INPUTS_MAX)?;
        at_most("outputs", self.outputs.len(), OUTPUTS_MAX)?;
        at_most("features", self.needs.features.len(), FEATURES_MAX)?;
        if self.outputs.is_empty() {
            return Err(Refuse::NoOutputs);
        }
        if self.inputs.iter().any(|(input, _)| *input == self.path) {
            return Err(Refuse::NeedsItself);
        }
        let known = matches!(
            self.kind,
            DerivationKind::InputAddressed | DerivationKind::CaFixed
        );
        match self.outputs.iter().find(|(_, path)| path.is_some() != known) {
            Some((name, _)) => Err(Refuse::OutputPath { output: name.clone() }),
            None => Ok(()),
        }
    }
}

/// A derivation cannot be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeDerivationError {
    /// It is not the derivation of that path.
    #[error("{path} holds the derivation of {computed}; read it again from a store you trust")]
    Mismatch {
        /// Where it was found.
        path: StorePath,
        /// Where it belongs.
        computed: StorePath,
    },
    /// Its outputs do not go together.
    #[error("its outputs cannot be")]
    Outputs(#[from] OutputKindError),
    /// A path cannot be computed.
    #[error("its paths cannot be computed")]
    Path(#[from] ComputePathError),
}

impl DescribeDerivationError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Mismatch { .. } => Code::DataLoss,
            Self::Outputs(error) => error.code(),
            Self::Path(error) => error.code(),
        }
    }
}

/// The machine does not take a derivation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefuseDerivationError {
    /// Made anew at each build, so never valid: nothing here can answer for it.
    #[error("impure derivations are not supported; make it a fixed-output one")]
    Impure,
    /// Over one of the bounds of this module.
    #[error("it has {count} {what}, more than the {count_max} allowed")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// The bound.
        count_max: usize,
    },
    /// Nothing to build.
    #[error("it has no output")]
    NoOutputs,
    /// It is its own input.
    #[error("it needs itself")]
    NeedsItself,
    /// An output has a path where its kind has none, or none where it must.
    #[error("the path of its output `{output}` does not fit its kind")]
    OutputPath {
        /// The output.
        output: OutputName,
    },
}

impl RefuseDerivationError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Impure => Code::Unimplemented,
            Self::TooMany { .. } => Code::ResourceExhausted,
            Self::NoOutputs | Self::NeedsItself | Self::OutputPath { .. } => Code::InvalidArgument,
        }
    }
}

fn at_most(what: &'static str, count: usize, count_max: usize) -> Result<(), RefuseDerivationError> {
    if count <= count_max {
        return Ok(());
    }
    Err(RefuseDerivationError::TooMany {
        what,
        count,
        count_max,
    })
}

fn variable<'a>(derivation: &'a Derivation, name: &str) -> Option<&'a [u8]> {
    derivation.env.get(name.as_bytes()).map(Vec::as_slice)
}

fn features(derivation: &Derivation) -> BTreeSet<String> {
    let text = variable(derivation, "requiredSystemFeatures").unwrap_or_default();
    let words = text.split(|byte| b" \t\n\r".contains(byte));
    words
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}
