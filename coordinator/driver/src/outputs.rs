//! What is done with finished outputs: from what a build left to checked records, by Nix's rules.
//!
//! Nothing is registered here: the caller does that with [`FinishedOutputs::infos`], all together.
//!
//! Invariants
//! - outputs are taken in the order they were asked for, and all of them are there;
//! - a record is given out only when every check of every output has passed.
//!
//! Source: Nix 2.36 `unix/build/derivation-builder.cc` (registerOutputs), `build/derivation-check.cc`.

mod error;
mod fixed;

use std::collections::{BTreeMap, BTreeSet};

use igloo_store::output::IngestedOutput;
use igloo_store::{PathInfo, Store};
use nix_compat::content_address::ContentAddress;
use nix_compat::derivation::{Derivation, DerivationOutput, OutputName};
use nix_compat::store_path::StorePath;

pub use error::OutputError;
pub use fixed::HashMismatch;

use crate::request::PreparedBuild;

/// Outputs that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedOutputs {
    /// What to register, all together.
    pub infos: Vec<PathInfo>,
    /// The path of each output.
    pub outputs: BTreeMap<OutputName, StorePath>,
}

/// Checks what a successful build of `drv_path` left, and makes the records to register.
///
/// Content that came in through `store`'s castore is read again only where a rule needs another hash of it.
///
/// # Errors
/// [`OutputError`], naming the rule that is broken; then nothing may be registered.
pub async fn finish(
    store: &Store,
    drv_path: &StorePath,
    derivation: &Derivation,
    prepared: &PreparedBuild,
    outputs: Vec<IngestedOutput>,
) -> Result<FinishedOutputs, OutputError> {
    if outputs.len() != prepared.outputs.len() {
        return Err(OutputError::Incomplete);
    }
    let mut infos = Vec::with_capacity(outputs.len());
    for ((name, path), output) in prepared.outputs.iter().zip(outputs) {
        let references = references(prepared, &output);
        let content_address = fixed_address(store, derivation, name, &output, &references).await?;
        infos.push(PathInfo {
            path: path.clone(),
            node: output.node,
            nar_size: output.nar_size,
            nar_sha256: output.nar_sha256,
            references,
            deriver: Some(drv_path.clone()),
            signatures: Vec::new(),
            content_address,
        });
    }
    Ok(FinishedOutputs {
        infos,
        outputs: prepared.outputs.iter().cloned().collect(),
    })
}

/// The store paths that an output names.
fn references(prepared: &PreparedBuild, output: &IngestedOutput) -> BTreeSet<StorePath> {
    let found = output.needles.iter();
    found
        .filter_map(|index| prepared.candidates.get(*index))
        .cloned()
        .collect()
}

/// The address of a fixed output, checked; `None` for others.
async fn fixed_address(
    store: &Store,
    derivation: &Derivation,
    name: &OutputName,
    output: &IngestedOutput,
    references: &BTreeSet<StorePath>,
) -> Result<Option<ContentAddress>, OutputError> {
    let Some(DerivationOutput::CaFixed { address }) = derivation.outputs.get(name) else {
        return Ok(None);
    };
    fixed::check(store, &output.node, &output.nar_sha256, address).await?;
    match references.iter().next() {
        Some(reference) => Err(OutputError::FixedReferences {
            reference: store.dir.print(reference),
        }),
        None => Ok(Some(*address)),
    }
}
