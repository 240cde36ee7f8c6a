//! Build requests of snix's clients.
//!
//! What igloo does not have is refused, or becomes a feature that the builder must have: `/dev/kvm` is `kvm`, a shell at
//! `/bin/sh` is [`FEATURE_BIN_SH`].
//!
//! Source: `snix.build.v1` and the rules its server checks (inputs strictly ascending; lists of paths sorted, equal
//! neighbours pass; environment keys sorted).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use igloo_build::path::RelativePath;
use igloo_build::request::{
    ADDITIONAL_FILES_SIZE_MAX, BuildRequest, Constraints, INPUTS_MAX, Limits, NEEDLES_MAX, OUTPUTS_MAX,
};

use crate::build::{at_most, form, order, path};
use crate::castore::named;
use crate::error::{InField, WireError};
use crate::snix::build::v1;

/// Feature of builders that show a shell at `/bin/sh`.
pub const FEATURE_BIN_SH: &str = "bin-sh";
/// Feature of builders that show `/dev/kvm`.
pub const FEATURE_KVM: &str = "kvm";

impl TryFrom<v1::BuildRequest> for BuildRequest {
    type Error = WireError;

    /// The result is checked; its limits are the builder's defaults.
    fn try_from(message: v1::BuildRequest) -> Result<Self, WireError> {
        at_most(message.inputs.len(), INPUTS_MAX, "inputs")?;
        at_most(message.outputs.len(), OUTPUTS_MAX, "outputs")?;
        at_most(message.refscan_needles.len(), NEEDLES_MAX, "refscan_needles")?;
        let arguments: Vec<Bytes> = message.command_args.into_iter().map(Bytes::from).collect();
        let request = Self {
            inputs_dir: path(message.inputs_dir.as_bytes(), "inputs_dir")?,
            program: arguments.first().cloned().field("command_args")?,
            arguments,
            inputs: inputs(message.inputs)?,
            environment: environment(message.environment_vars)?,
            working_dir: path(message.working_dir.as_bytes(), "working_dir")?,
            scratch_paths: sorted_paths(&message.scratch_paths, "scratch_paths")?
                .into_iter()
                .collect(),
            outputs: sorted_paths(&message.outputs, "outputs")?,
            additional_files: files(message.additional_files)?,
            constraints: constraints(message.constraints.field("constraints")?)?,
            limits: Limits::default(),
            needles: message.refscan_needles.into_iter().map(Bytes::from).collect(),
        };
        request.check().field("request")?;
        Ok(request)
    }
}

fn inputs(
    entries: Vec<crate::snix::castore::v1::Entry>,
) -> Result<BTreeMap<igloo_castore::NodeName, igloo_castore::Node>, WireError> {
    let mut inputs = BTreeMap::new();
    for entry in entries {
        let (name, node) = named(entry)?;
        if inputs.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(order("inputs", name.as_bytes()));
        }
        inputs.insert(name, node);
    }
    Ok(inputs)
}

fn environment(variables: Vec<v1::build_request::EnvVar>) -> Result<BTreeMap<Bytes, Bytes>, WireError> {
    let mut environment = BTreeMap::new();
    for variable in variables {
        let name = Bytes::from(variable.key);
        // snix lets equal neighbours pass; what they would mean is nobody's promise
        if environment
            .last_key_value()
            .is_some_and(|(last, _)| *last >= name)
        {
            return Err(order("environment_vars", &name));
        }
        environment.insert(name, variable.value);
    }
    Ok(environment)
}

fn sorted_paths(texts: &[String], field: &'static str) -> Result<Vec<RelativePath>, WireError> {
    at_most(texts.len(), OUTPUTS_MAX, field)?;
    if let Some([_, late]) = texts.array_windows().find(|[a, b]| a > b) {
        return Err(order(field, late.as_bytes()));
    }
    texts.iter().map(|text| path(text.as_bytes(), field)).collect()
}

fn files(files: Vec<v1::build_request::AdditionalFile>) -> Result<BTreeMap<RelativePath, Bytes>, WireError> {
    let size = files.iter().map(|file| file.contents.len()).sum();
    at_most(size, ADDITIONAL_FILES_SIZE_MAX, "additional_files")?;
    let mut placed = BTreeMap::new();
    for file in files {
        let path = path(file.path.as_bytes(), "additional_files")?;
        if placed.last_key_value().is_some_and(|(last, _)| *last >= path) {
            return Err(order("additional_files", path.as_bytes()));
        }
        placed.insert(path, file.contents);
    }
    Ok(placed)
}

fn constraints(constraints: v1::build_request::BuildConstraints) -> Result<Constraints, WireError> {
    let mut features = BTreeSet::new();
    if constraints.provide_bin_sh {
        features.insert(FEATURE_BIN_SH.to_owned());
    }
    for path in &constraints.available_ro_paths {
        if path != "/dev/kvm" {
            return Err(form(
                "available_ro_paths",
                "`/dev/kvm`: no other path of the host is shown",
            ));
        }
        features.insert(FEATURE_KVM.to_owned());
    }
    let memory_mib = u32::try_from(constraints.min_memory.div_ceil(1 << 20));
    Ok(Constraints {
        system: constraints.system,
        memory_mib: memory_mib
            .map_err(|_| crate::error::WireReason::Range {
                value: constraints.min_memory,
            })
            .field("min_memory")?,
        cores: 0,
        network: constraints.network_access,
        features,
    })
}

#[cfg(test)]
mod tests;
