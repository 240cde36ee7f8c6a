//! What a derivation asks for beside its program: checks, exports, features.
//!
//! Attributes that only Hydra reads (`timeout`, `maxSilent`, `meta`) or only macOS (`__darwinAllowLocalNetworking`,
//! `__sandboxProfile`) are left alone, as Nix leaves them on Linux (recorded from 2.8 and 2.34).
//!
//! Source: Nix 2.34 `derivation-options.cc`.

use std::collections::{BTreeMap, BTreeSet};

use nix_compat::derivation::Derivation;
use nix_compat::store_path::{StoreDir, StorePath};

use super::attributes::{self, AttributeError, Attributes};
use super::error::RequestError;
use crate::json::Json;

/// What a derivation asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DerivationOptions {
    /// What its outputs must keep to.
    pub checks: OutputChecks,
    /// Outputs whose references are not looked for (`unsafeDiscardReferences`).
    pub discard_references: BTreeSet<String>,
    /// Closures it wants described, by name of the file or attribute (`exportReferencesGraph`).
    pub export_graphs: BTreeMap<String, BTreeSet<StorePath>>,
    /// Variables it wants from the caller, if its outputs are fixed or impure (`impureEnvVars`).
    pub impure_variables: Vec<Vec<u8>>,
    /// What its builder must offer (`requiredSystemFeatures`).
    pub required_features: BTreeSet<String>,
    /// Files of the host that it wants to see (`__impureHostDeps`).
    pub host_paths: Vec<String>,
    /// Whether it wants to run outside the sandbox (`__noChroot`).
    pub no_sandbox: bool,
    /// Whether its outputs may come from elsewhere (`allowSubstitutes`).
    pub allow_substitutes: bool,
}

/// What outputs must keep to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputChecks {
    /// The same for all.
    All(OutputCheck),
    /// By name of the output.
    Each(BTreeMap<String, OutputCheck>),
}

/// What an output must keep to; `None` and empty lists of what is disallowed ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputCheck {
    /// Whether an output may always need itself, as far as requisites go.
    pub ignore_self_requisite: bool,
    /// Most bytes of its NAR.
    pub size_max: Option<u64>,
    /// Most bytes of the NARs of its closure.
    pub closure_size_max: Option<u64>,
    /// All it may refer to.
    pub allowed_references: Option<Vec<Specifier>>,
    /// All it may need, directly or not.
    pub allowed_requisites: Option<Vec<Specifier>>,
    /// What it may not refer to.
    pub disallowed_references: Vec<Specifier>,
    /// What it may not need, directly or not.
    pub disallowed_requisites: Vec<Specifier>,
}

/// What a check names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Specifier {
    /// A store path.
    Path(StorePath),
    /// An output of the derivation.
    Output(String),
}

impl DerivationOptions {
    /// Reads them from a derivation's attributes, plain or structured. Linear in these.
    ///
    /// # Errors
    /// An attribute is not what Nix takes it for; an export names no store path.
    pub fn of(dir: &StoreDir, derivation: &Derivation) -> Result<Self, RequestError> {
        Self::read(dir, derivation, &Attributes::of(derivation)?)
    }

    pub(super) fn read(
        dir: &StoreDir,
        derivation: &Derivation,
        attributes: &Attributes<'_>,
    ) -> Result<Self, RequestError> {
        let (checks, discard_references, export_graphs) = match attributes {
            Attributes::Plain(_) => (
                OutputChecks::All(plain_check(dir, attributes)?),
                BTreeSet::new(),
                plain_graphs(dir, attributes)?,
            ),
            Attributes::Structured(members) => (
                OutputChecks::Each(structured_checks(dir, members)?),
                discarded(members)?,
                structured_graphs(dir, members)?,
            ),
        };
        check_specifiers(derivation, &checks)?;
        let words = |name| attributes.words(name).map(Option::unwrap_or_default);
        let texts = |name| {
            let all = words(name)?.into_iter();
            Ok::<_, AttributeError>(all.map(|word| String::from_utf8_lossy(&word).into_owned()))
        };
        // checked as Nix does, and without effect: no builder is nearer to the store than another that we know of
        attributes.bool("preferLocalBuild", false)?;
        Ok(Self {
            checks,
            discard_references,
            export_graphs,
            impure_variables: words("impureEnvVars")?,
            required_features: texts("requiredSystemFeatures")?.collect(),
            host_paths: texts("__impureHostDeps")?.collect(),
            no_sandbox: attributes.bool("__noChroot", false)?,
            allow_substitutes: attributes.bool("allowSubstitutes", true)?,
        })
    }
}

impl OutputChecks {
    /// The check of one output.
    pub fn of(&self, output: &str) -> Option<&OutputCheck> {
        match self {
            Self::All(check) => Some(check),
            Self::Each(checks) => checks.get(output),
        }
    }
}

impl Default for OutputChecks {
    fn default() -> Self {
        Self::Each(BTreeMap::new())
    }
}

fn specifiers(dir: &StoreDir, words: Vec<Vec<u8>>) -> Vec<Specifier> {
    let one = |word: Vec<u8>| match dir.parse_bytes(&word) {
        Ok(path) => Specifier::Path(path),
        Err(_) => Specifier::Output(String::from_utf8_lossy(&word).into_owned()),
    };
    words.into_iter().map(one).collect()
}

fn plain_check(dir: &StoreDir, attributes: &Attributes<'_>) -> Result<OutputCheck, AttributeError> {
    let list = |name| Ok::<_, AttributeError>(attributes.words(name)?.map(|words| specifiers(dir, words)));
    Ok(OutputCheck {
        ignore_self_requisite: true,
        size_max: None,
        closure_size_max: None,
        allowed_references: list("allowedReferences")?,
        allowed_requisites: list("allowedRequisites")?,
        disallowed_references: list("disallowedReferences")?.unwrap_or_default(),
        disallowed_requisites: list("disallowedRequisites")?.unwrap_or_default(),
    })
}

type Members = BTreeMap<String, Json>;

fn structured_checks(
    dir: &StoreDir,
    members: &Members,
) -> Result<BTreeMap<String, OutputCheck>, AttributeError> {
    let Some(checks) = members.get("outputChecks") else {
        return Ok(BTreeMap::new());
    };
    let checks = attributes::object("outputChecks", checks)?.iter();
    checks
        .map(|(output, check)| Ok((output.clone(), structured_check(dir, output, check)?)))
        .collect()
}

fn structured_check(dir: &StoreDir, output: &str, check: &Json) -> Result<OutputCheck, AttributeError> {
    let prefix = format!("outputChecks.\"{output}\"");
    let members = attributes::object(&prefix, check)?;
    let size = |name: &str| {
        let value = members.get(name);
        value
            .map(|value| attributes::size(&format!("{prefix}.{name}"), value))
            .transpose()
    };
    let list = |name: &str| {
        let Some(value) = members.get(name) else {
            return Ok(None);
        };
        let strings = attributes::strings(&format!("{prefix}.{name}"), value)?;
        let words = strings.into_iter().map(String::into_bytes).collect();
        Ok::<_, AttributeError>(Some(specifiers(dir, words)))
    };
    Ok(OutputCheck {
        ignore_self_requisite: false,
        size_max: size("maxSize")?,
        closure_size_max: size("maxClosureSize")?,
        allowed_references: list("allowedReferences")?,
        allowed_requisites: list("allowedRequisites")?,
        disallowed_references: list("disallowedReferences")?.unwrap_or_default(),
        disallowed_requisites: list("disallowedRequisites")?.unwrap_or_default(),
    })
}

fn discarded(members: &Members) -> Result<BTreeSet<String>, AttributeError> {
    const NAME: &str = "unsafeDiscardReferences";
    let Some(value) = members.get(NAME) else {
        return Ok(BTreeSet::new());
    };
    let mut discarded = BTreeSet::new();
    for (output, value) in attributes::object(NAME, value)? {
        if attributes::boolean(NAME, value)? {
            discarded.insert(output.clone());
        }
    }
    Ok(discarded)
}

/// `NAME PATH NAME PATH …`
fn plain_graphs(
    dir: &StoreDir,
    attributes: &Attributes<'_>,
) -> Result<BTreeMap<String, BTreeSet<StorePath>>, RequestError> {
    let words = attributes.words("exportReferencesGraph")?.unwrap_or_default();
    let mut graphs = BTreeMap::new();
    let (pairs, rest) = words.as_chunks::<2>();
    if !rest.is_empty() {
        let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        return Err(RequestError::GraphWords {
            words: words.join(" "),
        });
    }
    for [name, path] in pairs {
        let name = String::from_utf8_lossy(name).into_owned();
        if !is_file_name(&name) {
            return Err(RequestError::GraphName { name });
        }
        graphs.insert(name, BTreeSet::from([graph_path(dir, path)?]));
    }
    Ok(graphs)
}

/// `{ NAME = PATH or lists of them; … }`; what is no object is ignored, as in Nix.
fn structured_graphs(
    dir: &StoreDir,
    members: &Members,
) -> Result<BTreeMap<String, BTreeSet<StorePath>>, RequestError> {
    let Some(Json::Object(wanted)) = members.get("exportReferencesGraph") else {
        return Ok(BTreeMap::new());
    };
    let mut graphs = BTreeMap::new();
    for (name, value) in wanted {
        let mut paths = BTreeSet::new();
        let mut to_visit = vec![value];
        while let Some(value) = to_visit.pop() {
            match value {
                Json::String(path) => _ = paths.insert(graph_path(dir, path.as_bytes())?),
                Json::Array(items) => to_visit.extend(items),
                other => {
                    let attribute = format!("exportReferencesGraph.\"{name}\"");
                    return Err(AttributeError::new(&attribute, "array or string", other).into());
                }
            }
        }
        graphs.insert(name.clone(), paths);
    }
    Ok(graphs)
}

fn graph_path(dir: &StoreDir, path: &[u8]) -> Result<StorePath, RequestError> {
    Ok(dir.split(path)?.0)
}

/// What Nix lets a graph's file be called.
fn is_file_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Names in checks must be outputs'. Nix finds out after the build; the answer is the same, and sooner.
fn check_specifiers(derivation: &Derivation, checks: &OutputChecks) -> Result<(), RequestError> {
    let outputs = || derivation.outputs.keys().map(|name| name.as_str());
    for output in outputs() {
        let Some(check) = checks.of(output) else {
            continue;
        };
        let lists = [
            check.allowed_references.as_deref().unwrap_or_default(),
            check.allowed_requisites.as_deref().unwrap_or_default(),
            &check.disallowed_references,
            &check.disallowed_requisites,
        ];
        for specifier in lists.into_iter().flatten() {
            if let Specifier::Output(name) = specifier
                && !outputs().any(|output| output == name)
            {
                return Err(RequestError::Specifier {
                    output: output.to_owned(),
                    name: name.clone(),
                    valid: outputs().collect::<Vec<_>>().join(", "),
                });
            }
        }
    }
    Ok(())
}
