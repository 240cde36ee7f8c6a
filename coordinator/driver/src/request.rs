//! Derivation to build request, by Nix's rules. This is the only place that knows them.
//!
//! Invariants
//! - a rule that is not implemented is an error, never left out in silence ([`RequestError::Unsupported`]);
//! - the request depends on the derivation, its input closure and [`RequestOptions`] alone.
//!
//! Source: Nix 2.36 `unix/build/derivation-builder.cc` (initEnv, runChild), `build/derivation-env-desugar.cc`; the order in which
//! defaults and overrides apply was recorded from Nix 2.8 (tests below).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use igloo_build::path::{ParsePathError, RelativePath};
use igloo_build::request::{BuildRequest, Constraints, Limits};
use igloo_castore::node::{NodeName, ParseNameError};
use igloo_status::Code;
use igloo_store::{PathInfo, Store};
use nix_compat::derivation::{Derivation, DerivationKind, OutputKindError, OutputName};
use nix_compat::store_path::{ComputePathError, StoreDir, StorePath};

/// Where a build works, relative to its root.
const BUILD_DIR: &str = "build";

/// Attributes that ask for something that is not done yet, and what it is.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("__json", "structured attributes"),
    ("exportReferencesGraph", "exporting the graph of references"),
    ("allowedReferences", "checks of references"),
    ("allowedRequisites", "checks of requisites"),
    ("disallowedReferences", "checks of references"),
    ("disallowedRequisites", "checks of requisites"),
];

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
    /// Outputs in the request's order.
    pub outputs: Vec<(OutputName, StorePath)>,
    /// The store path each needle stands for.
    pub candidates: Vec<StorePath>,
}

/// Makes the request that builds `derivation`, which is that of `drv_path`. Linear in the closure.
///
/// A derivation whose input derivations have floating outputs must be resolved first (`igloo_coordinator::resolve`).
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
    let _ = drv_path; // provisional paths of floating outputs are made of it
    let kind = derivation.kind()?;
    refuse_unsupported(derivation, kind)?;
    let outputs = output_paths(dir, derivation)?;
    let inputs_dir = relative(dir.as_str().as_bytes())?;
    let mut environment = default_environment(dir, options);
    let additional_files = add_own_environment(&mut environment, derivation)?;
    add_fixed_environment(&mut environment, derivation, kind, options);
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
        arguments: arguments(derivation),
        environment,
        working_dir: relative(BUILD_DIR.as_bytes())?,
        // Nix lets a build write beside its inputs, and throws away what is no output
        scratch_paths: BTreeSet::from([relative(BUILD_DIR.as_bytes())?, inputs_dir]),
        outputs: outputs
            .iter()
            .map(|(_, path)| relative(dir.print(path).as_bytes()))
            .collect::<Result<_, _>>()?,
        additional_files,
        constraints: constraints(derivation, kind, options),
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
    })
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
            None => Err(RequestError::Unsupported {
                what: "outputs whose path is not known before the build",
            }),
        })
        .collect()
}

fn refuse_unsupported(derivation: &Derivation, kind: DerivationKind) -> Result<(), RequestError> {
    match kind {
        DerivationKind::InputAddressed | DerivationKind::CaFixed => {}
        DerivationKind::CaFloating | DerivationKind::Deferred => {
            return Err(RequestError::Unsupported {
                what: "floating content-addressed outputs",
            });
        }
        DerivationKind::Impure => {
            return Err(RequestError::Unsupported {
                what: "impure derivations",
            });
        }
    }
    if derivation.builder.starts_with(b"builtin:") {
        return Err(RequestError::Unsupported {
            what: "builtin builders such as builtin:fetchurl",
        });
    }
    if derivation
        .env
        .get(&b"__noChroot"[..])
        .is_some_and(|value| value == b"1")
    {
        return Err(RequestError::NoSandbox);
    }
    match UNSUPPORTED
        .iter()
        .find(|(name, _)| derivation.env.contains_key(name.as_bytes()))
    {
        Some((_, what)) => Err(RequestError::Unsupported { what }),
        None => Ok(()),
    }
}

fn arguments(derivation: &Derivation) -> Vec<Bytes> {
    let base_name = derivation
        .builder
        .rsplit(|byte| *byte == b'/')
        .next()
        .unwrap_or_default();
    std::iter::once(base_name)
        .chain(derivation.args.iter().map(Vec::as_slice))
        .map(Bytes::copy_from_slice)
        .collect()
}

type Environment = BTreeMap<Bytes, Bytes>;

fn set(environment: &mut Environment, name: &'static str, value: impl Into<Bytes>) {
    environment.insert(Bytes::from_static(name.as_bytes()), value.into());
}

/// What a derivation may override.
fn default_environment(dir: &StoreDir, options: &RequestOptions) -> Environment {
    let mut environment = Environment::new();
    set(&mut environment, "PATH", "/path-not-set");
    set(&mut environment, "HOME", "/homeless-shelter");
    set(&mut environment, "NIX_STORE", dir.as_str().to_string());
    set(&mut environment, "NIX_BUILD_CORES", options.cores.to_string());
    environment
}

/// The derivation's own variables; those named by `passAsFile` become files, with the variable `NAMEPath` in their place.
fn add_own_environment(
    environment: &mut Environment,
    derivation: &Derivation,
) -> Result<BTreeMap<RelativePath, Bytes>, RequestError> {
    let as_file = derivation
        .env
        .get(&b"passAsFile"[..])
        .map(Vec::as_slice)
        .unwrap_or_default();
    let as_file: BTreeSet<&[u8]> = words(as_file).collect();
    let mut files = BTreeMap::new();
    for (name, value) in &derivation.env {
        if !as_file.contains(name.as_slice()) {
            environment.insert(Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
            continue;
        }
        let digest = nix_compat::nixbase32::encode(&nix_compat::hash::sha256(name));
        let path = format!("{BUILD_DIR}/.attr-{digest}");
        files.insert(relative(path.as_bytes())?, Bytes::copy_from_slice(value));
        environment.insert([name, &b"Path"[..]].concat().into(), format!("/{path}").into());
    }
    Ok(files)
}

/// What no derivation can override.
fn add_fixed_environment(
    environment: &mut Environment,
    derivation: &Derivation,
    kind: DerivationKind,
    options: &RequestOptions,
) {
    for name in ["NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"] {
        set(environment, name, format!("/{BUILD_DIR}"));
    }
    set(environment, "NIX_LOG_FD", "2");
    set(environment, "TERM", "xterm-256color");
    if kind != DerivationKind::CaFixed {
        return;
    }
    set(environment, "NIX_OUTPUT_CHECKED", "1");
    let impure = derivation
        .env
        .get(&b"impureEnvVars"[..])
        .map(Vec::as_slice)
        .unwrap_or_default();
    for name in words(impure) {
        let value = options.impure_environment.get(name).cloned().unwrap_or_default();
        environment.insert(Bytes::copy_from_slice(name), value.into());
    }
}

fn constraints(derivation: &Derivation, kind: DerivationKind, options: &RequestOptions) -> Constraints {
    let features = derivation
        .env
        .get(&b"requiredSystemFeatures"[..])
        .map(Vec::as_slice)
        .unwrap_or_default();
    Constraints {
        system: String::from_utf8_lossy(&derivation.platform).into_owned(),
        memory_mib: options.memory_mib,
        cores: options.cores,
        network: kind == DerivationKind::CaFixed,
        features: words(features)
            .map(|feature| String::from_utf8_lossy(feature).into_owned())
            .collect(),
    }
}

/// Nix's `tokenizeString`: separated by any run of blanks.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        .filter(|word| !word.is_empty())
}

fn relative(path: &[u8]) -> Result<RelativePath, RequestError> {
    Ok(RelativePath::try_from(path.strip_prefix(b"/").unwrap_or(path))?)
}

fn node_name(path: &StorePath) -> Result<NodeName, RequestError> {
    Ok(NodeName::try_from(path.to_string().as_str())?)
}

/// Why a derivation makes no request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// Something igloo does not do yet.
    #[error("it asks for {what}, which igloo cannot do yet")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// It wants to run outside the sandbox.
    #[error("it has `__noChroot` set, and igloo builds nothing outside a machine")]
    NoSandbox,
    /// Its outputs do not go together.
    #[error("its outputs do not go together")]
    Kind(#[from] OutputKindError),
    /// An output can have no path.
    #[error("an output can have no path")]
    Output(#[from] ComputePathError),
    /// A path does not fit a build's root.
    #[error("a path does not fit a build's root")]
    Path(#[from] ParsePathError),
    /// A store path is no file name.
    #[error("a store path is no file name")]
    Name(#[from] ParseNameError),
}

impl RequestError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Unsupported { .. } => Code::Unimplemented,
            Self::NoSandbox => Code::PermissionDenied,
            Self::Kind(error) => error.code(),
            Self::Output(error) => error.code(),
            Self::Path(error) => error.code(),
            Self::Name(error) => error.code(),
        }
    }
}

#[cfg(test)]
mod tests;
