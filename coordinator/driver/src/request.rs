//! Derivation to build request, by Nix's rules. With [`crate::outputs`], this is the only place that knows them.
//!
//! Map
//! - `attributes`: plain variables and structured attributes alike; `options`: what a derivation asks for in them;
//! - `environment`: the variables and files a build finds; `structured`: `.attrs.json` and `.attrs.sh`;
//! - `graph`: closures described to a build (`exportReferencesGraph`).
//!
//! Invariants
//! - a rule that is not implemented is an error, never left out in silence ([`RequestError::Unsupported`]);
//! - the request depends on the derivation, the records of its input closure and [`RequestOptions`] alone.
//!
//! Source: Nix 2.36 `unix/build/derivation-builder.cc` (initEnv, runChild), `build/derivation-env-desugar.cc`; behaviour was
//! recorded from Nix 2.8 and 2.34, and where they differ 2.34 is followed.

mod attributes;
mod environment;
mod error;
mod graph;
mod options;
mod structured;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use igloo_build::path::RelativePath;
use igloo_build::request::{BuildRequest, Constraints, Limits};
use igloo_castore::node::NodeName;
use igloo_coordinator::{DescribeDerivationError, DrvInfo};
use igloo_store::{PathInfo, Store};
use nix_compat::derivation::{Derivation, DerivationKind, OutputName};
use nix_compat::store_path::{StoreDir, StorePath, placeholder};

use crate::builtin;

use self::attributes::Attributes;
use self::environment::Surroundings;

pub use attributes::AttributeError;
pub use error::RequestError;
pub use options::{DerivationOptions, OutputCheck, OutputChecks, Specifier};

/// The file with structured attributes, in the build's directory.
pub(crate) const STRUCTURED_FILE: &str = ".attrs.json";
/// Where a build works, relative to its root.
const BUILD_DIR: &str = "build";

/// Features that say something of the coordinator, not of a machine: never asked of a builder.
const OWN_FEATURES: &[&str] = &["ca-derivations"];

/// Features that change what a build sees, and are not done.
const UNSUPPORTED_FEATURES: &[&str] = &["uid-range", "recursive-nix", "builder-rpc-v0"];

/// What a request takes from the caller, not from the derivation.
#[derive(Clone, Debug)]
pub struct RequestOptions {
    /// Processors a build may use (`NIX_BUILD_CORES`).
    pub cores: u32,
    /// Memory of the machine, MiB; 0 leaves it to the builder.
    pub memory_mib: u32,
    /// When to stop.
    pub limits: Limits,
    /// The caller's environment, for `impureEnvVars` of fixed-output derivations.
    pub impure_environment: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What is known of a derivation's inputs: their whole closure, as [`Store::closure`] gives it.
pub type InputClosure = BTreeMap<StorePath, PathInfo>;

/// A request, and how to read its answer.
#[derive(Clone, Debug)]
pub struct PreparedBuild {
    /// For the builder.
    pub request: BuildRequest,
    /// Outputs in the request's order, with the paths the build writes; those of floating outputs are provisional.
    pub outputs: Vec<(OutputName, StorePath)>,
    /// The store path each needle stands for.
    pub candidates: Vec<StorePath>,
    /// What the derivation asks for.
    pub options: DerivationOptions,
}

/// Makes the request that builds `derivation`, which is that of `drv_path`. Linear in the closure.
///
/// A derivation whose input derivations have floating outputs must be resolved first (`igloo_coordinator::resolve`), and
/// `drv_path` is then that of the resolved derivation.
///
/// # Errors
/// [`RequestError`], naming what cannot be done.
pub async fn prepare(
    store: &Store,
    drv_path: &StorePath,
    derivation: &Derivation,
    closure: &InputClosure,
    options: &RequestOptions,
) -> Result<PreparedBuild, RequestError> {
    let dir = &store.dir;
    let kind = derivation.kind()?;
    let attributes = Attributes::of(derivation)?;
    let wishes = DerivationOptions::read(dir, derivation, &attributes)?;
    refuse_unsupported(derivation, kind, &wishes)?;
    let outputs = build_paths(dir, drv_path, derivation)?;
    let inputs_dir = relative(dir.as_str().as_bytes())?;
    let surroundings = Surroundings::new(store, derivation, attributes, &wishes, closure, options).await?;
    let rewrites = OwnPlaceholders::new(dir, &outputs);
    let candidates: Vec<StorePath> = closure
        .keys()
        .chain(outputs.iter().map(|(_, path)| path))
        .cloned()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let request = BuildRequest {
        inputs: closure
            .iter()
            .map(|(path, info)| Ok((node_name(path)?, info.node.clone())))
            .collect::<Result<_, RequestError>>()?,
        inputs_dir: inputs_dir.clone(),
        program: Bytes::copy_from_slice(&derivation.builder),
        arguments: arguments(derivation, &rewrites),
        environment: rewrites.in_values(surroundings.environment),
        working_dir: relative(BUILD_DIR.as_bytes())?,
        // Nix lets a build write beside its inputs, and throws away what is no output
        scratch_paths: BTreeSet::from([relative(BUILD_DIR.as_bytes())?, inputs_dir]),
        outputs: outputs
            .iter()
            .map(|(_, path)| relative(dir.print(path).as_bytes()))
            .collect::<Result<_, _>>()?,
        additional_files: rewrites.in_values(surroundings.files),
        constraints: constraints(derivation, kind, &wishes, options),
        limits: options.limits.clone(),
        needles: candidates
            .iter()
            .map(|path| Bytes::copy_from_slice(&path.hash_part()))
            .collect(),
    };
    Ok(PreparedBuild {
        request,
        outputs,
        candidates,
        options: wishes,
    })
}

/// Describes a derivation to the coordinator's core: [`DrvInfo::of`], with what structured attributes say, and with features
/// and system as builders are asked for them.
///
/// Attributes that cannot be read are left out: [`prepare`] says what is wrong with them.
///
/// # Errors
/// As [`DrvInfo::of`].
pub fn describe(
    dir: &StoreDir,
    drv_path: &StorePath,
    derivation: &Derivation,
) -> Result<DrvInfo, DescribeDerivationError> {
    let mut info = DrvInfo::of(dir, drv_path, derivation)?;
    if let Ok(wishes) = DerivationOptions::of(dir, derivation) {
        info.needs.features = builder_features(&wishes);
        info.substitutable = wishes.allow_substitutes;
    }
    info.needs.system = builder_system(derivation);
    Ok(info)
}

/// Paths of all outputs, in the order of their names.
///
/// # Errors
/// An output has no path before it is built.
pub fn output_paths(
    dir: &StoreDir,
    derivation: &Derivation,
) -> Result<Vec<(OutputName, StorePath)>, RequestError> {
    let outputs = derivation.outputs.iter();
    outputs
        .map(|(name, output)| match output.path(dir, &derivation.name, name)? {
            Some(path) => Ok((name.clone(), path)),
            None => Err(RequestError::Unresolved),
        })
        .collect()
}

/// Where the build writes each output: its path, or a provisional one where the path follows from what is written.
fn build_paths(
    dir: &StoreDir,
    drv_path: &StorePath,
    derivation: &Derivation,
) -> Result<Vec<(OutputName, StorePath)>, RequestError> {
    let outputs = derivation.outputs.iter();
    outputs
        .map(|(name, output)| {
            let path = match output.path(dir, &derivation.name, name)? {
                Some(path) => path,
                None => dir.provisional_path(drv_path, &derivation.name, name)?,
            };
            Ok((name.clone(), path))
        })
        .collect()
}

/// What stands for the derivation's own outputs in its strings, and what is put there.
struct OwnPlaceholders(BTreeMap<Vec<u8>, Vec<u8>>);

impl OwnPlaceholders {
    fn new(dir: &StoreDir, outputs: &[(OutputName, StorePath)]) -> Self {
        let one = |(name, path): &(OutputName, StorePath)| {
            (placeholder(name).into_bytes(), dir.print(path).into_bytes())
        };
        Self(outputs.iter().map(one).collect())
    }

    fn in_bytes(&self, bytes: Bytes) -> Bytes {
        // one search for what all placeholders begin with would find every slash: most strings have none of these
        if self
            .0
            .keys()
            .all(|from| memchr::memmem::find(&bytes, from).is_none())
        {
            return bytes;
        }
        let mut bytes = bytes.to_vec();
        nix_compat::derivation::rewrite_bytes(&mut bytes, &self.0);
        bytes.into()
    }

    fn in_values<K: Ord>(&self, map: BTreeMap<K, Bytes>) -> BTreeMap<K, Bytes> {
        let values = map.into_iter();
        values.map(|(key, value)| (key, self.in_bytes(value))).collect()
    }
}

fn refuse_unsupported(
    derivation: &Derivation,
    kind: DerivationKind,
    wishes: &DerivationOptions,
) -> Result<(), RequestError> {
    if kind == DerivationKind::Deferred {
        return Err(RequestError::Unresolved);
    }
    if let Some(name) = builtin_of(derivation)
        && !builtin::DONE.iter().any(|done| done.as_bytes() == name)
    {
        let name = String::from_utf8_lossy(name);
        return Err(RequestError::unsupported(format!(
            "the builder '{}{name}'",
            builtin::PREFIX
        )));
    }
    if wishes.no_sandbox {
        return Err(RequestError::NoSandbox);
    }
    if let Some(path) = wishes.host_paths.first() {
        return Err(RequestError::HostPath { path: path.clone() });
    }
    let features = &wishes.required_features;
    match UNSUPPORTED_FEATURES.iter().find(|name| features.contains(**name)) {
        Some(name) => Err(RequestError::unsupported(format!("the feature '{name}'"))),
        None => Ok(()),
    }
}

/// The name of a builder that is part of Nix.
fn builtin_of(derivation: &Derivation) -> Option<&[u8]> {
    derivation.builder.strip_prefix(builtin::PREFIX.as_bytes())
}

fn arguments(derivation: &Derivation, rewrites: &OwnPlaceholders) -> Vec<Bytes> {
    let base_name = derivation
        .builder
        .rsplit(|byte| *byte == b'/')
        .next()
        .unwrap_or_default();
    let arguments = derivation
        .args
        .iter()
        .map(|argument| Bytes::copy_from_slice(argument));
    std::iter::once(Bytes::copy_from_slice(base_name))
        .chain(arguments.map(|argument| rewrites.in_bytes(argument)))
        .collect()
}

fn constraints(
    derivation: &Derivation,
    kind: DerivationKind,
    wishes: &DerivationOptions,
    options: &RequestOptions,
) -> Constraints {
    Constraints {
        system: builder_system(derivation),
        memory_mib: options.memory_mib,
        cores: options.cores,
        network: matches!(kind, DerivationKind::CaFixed | DerivationKind::Impure),
        features: builder_features(wishes),
    }
}

fn builder_system(derivation: &Derivation) -> String {
    match builtin_of(derivation) {
        Some(_) => builtin::SYSTEM.to_owned(),
        None => String::from_utf8_lossy(&derivation.platform).into_owned(),
    }
}

fn builder_features(wishes: &DerivationOptions) -> BTreeSet<String> {
    let features = wishes.required_features.iter();
    let asked = features.filter(|feature| !OWN_FEATURES.contains(&feature.as_str()));
    asked.cloned().collect()
}

fn relative(path: &[u8]) -> Result<RelativePath, RequestError> {
    Ok(RelativePath::try_from(path.strip_prefix(b"/").unwrap_or(path))?)
}

fn node_name(path: &StorePath) -> Result<NodeName, RequestError> {
    Ok(NodeName::try_from(path.to_string().as_str())?)
}

#[cfg(test)]
mod tests;
