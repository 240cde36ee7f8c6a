//! What is done with finished outputs: from what a build left to checked records, by Nix's rules.
//!
//! Nothing is registered here: the caller does that with [`FinishedOutputs::infos`], all together.
//!
//! Map
//! - `order`: outputs before those that name them; `address`: content addresses, of fixed and of floating outputs;
//! - `rewrite`: a tree with other hash parts in it; `checks`: what outputs may refer to, and how large they may be.
//!
//! Invariants
//! - outputs are taken in the order they were asked for, and all of them are there;
//! - a record is given out only when every check of every output has passed;
//! - no record names a provisional path, unless the derivation gave up on its references (`unsafeDiscardReferences`).
//!
//! Source: Nix 2.36 `unix/build/derivation-builder.cc` (registerOutputs), `build/derivation-check.cc`; recorded from 2.34.

mod address;
mod checks;
mod error;
mod order;
mod rewrite;

use std::collections::{BTreeMap, BTreeSet};

use igloo_build::StoredOutput;
use igloo_store::nar::NarDigest;
use igloo_store::{PathInfo, Store};
use nix_compat::content_address::{ContentAddress, ContentAddressMethod};
use nix_compat::derivation::{Derivation, DerivationKind, DerivationOutput, HashModuloMemo, OutputName};
use nix_compat::hash::{HashAlgo, HashFormat, NixHash};
use nix_compat::store_path::{StorePath, StoreReferences, output_path_name};

pub use error::{HashMismatch, OutputError};

use self::address::Content;
use crate::request::PreparedBuild;

/// Outputs that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedOutputs {
    /// What to register, all together.
    pub infos: Vec<PathInfo>,
    /// The path of each output.
    pub outputs: BTreeMap<OutputName, StorePath>,
    /// Which floating output came out where; none for outputs of other kinds, and none for impure ones, which are made anew
    /// each time.
    pub realisations: Vec<Realisation>,
}

/// Where a floating output came out, as binary caches tell each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realisation {
    /// SHA-256 of the resolved derivation without its outputs' paths.
    pub derivation_hash: [u8; 32],
    /// The output.
    pub output: OutputName,
    /// Its path.
    pub path: StorePath,
}

impl Realisation {
    /// `sha256:HEX!OUTPUT`, by which Nix knows it.
    pub fn id(&self) -> String {
        let hash = NixHash::Sha256(self.derivation_hash).encode_with_algo(HashFormat::Base16);
        format!("{hash}!{}", self.output)
    }
}

/// Checks what a successful build of `drv_path` left, and makes the records to register.
///
/// Content that came in through `store`'s castore is read again only where a rule needs another hash of it; a floating
/// output that names itself is read twice and written once more.
///
/// # Errors
/// [`OutputError`], naming the rule that is broken; then nothing may be registered.
pub async fn finish(
    store: &Store,
    drv_path: &StorePath,
    derivation: &Derivation,
    prepared: &PreparedBuild,
    outputs: Vec<StoredOutput>,
) -> Result<FinishedOutputs, OutputError> {
    if outputs.len() != prepared.outputs.len() {
        return Err(OutputError::Incomplete);
    }
    let written: Vec<Written> = prepared
        .outputs
        .iter()
        .zip(outputs)
        .map(|((name, path), output)| Written::new(prepared, name, path, output))
        .collect();
    let mut finish = Finish {
        store,
        drv_path,
        derivation,
        moved: BTreeMap::new(),
        infos: BTreeMap::new(),
    };
    for index in order::inputs_first(&written, &store.dir.print(drv_path))? {
        finish.settle(&written[index]).await?;
    }
    checks::check(store, &prepared.options, &finish.infos).await?;
    let outputs = finish.infos.iter();
    let outputs: BTreeMap<_, _> = outputs
        .map(|(name, info)| (name.clone(), info.path.clone()))
        .collect();
    Ok(FinishedOutputs {
        realisations: realisations(store, derivation, &outputs)?,
        infos: finish.infos.into_values().collect(),
        outputs,
    })
}

/// An output as the build left it.
struct Written {
    name: OutputName,
    /// Where.
    path: StorePath,
    content: Content,
    /// Store paths whose hash parts occur in it.
    names: BTreeSet<StorePath>,
    /// Those that count.
    references: BTreeSet<StorePath>,
}

impl Written {
    fn new(prepared: &PreparedBuild, name: &OutputName, path: &StorePath, output: StoredOutput) -> Self {
        let found = output.needles.iter();
        let names: BTreeSet<_> = found
            .filter_map(|index| prepared.candidates.get(*index))
            .cloned()
            .collect();
        let is_discarded = prepared.options.discard_references.contains(name.as_str());
        Self {
            name: name.clone(),
            path: path.clone(),
            content: Content {
                node: output.node,
                nar: NarDigest {
                    sha256: output.nar_sha256,
                    size: output.nar_size,
                },
            },
            references: if is_discarded {
                BTreeSet::new()
            } else {
                names.clone()
            },
            names,
        }
    }

    fn names_itself(&self) -> bool {
        self.names.contains(&self.path)
    }
}

/// Outputs settled so far.
struct Finish<'a> {
    store: &'a Store,
    drv_path: &'a StorePath,
    derivation: &'a Derivation,
    /// Where provisional paths have gone.
    moved: BTreeMap<StorePath, StorePath>,
    infos: BTreeMap<OutputName, PathInfo>,
}

impl Finish<'_> {
    async fn settle(&mut self, written: &Written) -> Result<(), OutputError> {
        let output = self.derivation.outputs.get(&written.name);
        let info = match output.ok_or(OutputError::Incomplete)? {
            DerivationOutput::InputAddressed { .. } | DerivationOutput::Deferred => {
                self.info(written, written.content.clone(), written.path.clone(), None)
            }
            DerivationOutput::CaFixed { address } => self.fixed(written, address).await?,
            DerivationOutput::CaFloating { method, algo } | DerivationOutput::Impure { method, algo } => {
                self.floating(written, *method, *algo).await?
            }
        };
        self.infos.insert(written.name.clone(), info);
        Ok(())
    }

    /// Content must be what was promised, and name no store path.
    async fn fixed(&self, written: &Written, promised: &ContentAddress) -> Result<PathInfo, OutputError> {
        let references = self.references(written);
        let (method, algo) = (promised.method(), promised.hash().algo());
        let found = self
            .address(written, &written.content, &references, method, algo)
            .await?;
        if found.hash() != promised.hash() {
            return Err(OutputError::HashMismatch(HashMismatch {
                specified: promised.hash().encode_with_algo(HashFormat::Sri),
                got: found.hash().encode_with_algo(HashFormat::Sri),
            }));
        }
        match written.references.first() {
            Some(first) => Err(OutputError::FixedReferences {
                drv_path: self.store.dir.print(self.drv_path),
                count: written.references.len(),
                first: self.store.dir.print(first),
            }),
            None => Ok(self.info(
                written,
                written.content.clone(),
                written.path.clone(),
                Some(found),
            )),
        }
    }

    /// The path follows from the content; where the content names provisional paths, they are replaced.
    async fn floating(
        &mut self,
        written: &Written,
        method: ContentAddressMethod,
        algo: HashAlgo,
    ) -> Result<PathInfo, OutputError> {
        let mut content = written.content.clone();
        let siblings = self.moved.iter();
        let siblings: Vec<_> = siblings
            .filter(|(from, _)| written.names.contains(*from))
            .map(|(from, to)| (from.hash_part(), to.hash_part()))
            .collect();
        if !siblings.is_empty() {
            content = rewrite::rewrite(&self.store.castore, &content.node, &siblings).await?;
        }
        let references = self.references(written);
        let address = self.address(written, &content, &references, method, algo).await?;
        let name = output_path_name(&self.derivation.name, &written.name)?;
        let path = self
            .store
            .dir
            .content_addressed_path(&name, &address, &references)?;
        if written.names_itself() {
            let own = [(written.path.hash_part(), path.hash_part())];
            content = rewrite::rewrite(&self.store.castore, &content.node, &own).await?;
        }
        self.moved.insert(written.path.clone(), path.clone());
        Ok(self.info(written, content, path, Some(address)))
    }

    async fn address(
        &self,
        written: &Written,
        content: &Content,
        references: &StoreReferences,
        method: ContentAddressMethod,
        algo: HashAlgo,
    ) -> Result<ContentAddress, OutputError> {
        let own = written.names_itself().then_some(&written.path);
        let hash = address::hash(&self.store.castore, content, method, algo, own).await?;
        address::check_references(&self.derivation.name, &written.name, references, method, algo)?;
        Ok(ContentAddress::new(method, hash)?)
    }

    /// What an output refers to, with final paths for provisional ones.
    fn references(&self, written: &Written) -> StoreReferences {
        let others = written.references.iter().filter(|path| **path != written.path);
        StoreReferences {
            others: others
                .map(|path| self.moved.get(path).unwrap_or(path).clone())
                .collect(),
            to_self: written.references.contains(&written.path),
        }
    }

    fn info(
        &self,
        written: &Written,
        content: Content,
        path: StorePath,
        content_address: Option<ContentAddress>,
    ) -> PathInfo {
        let StoreReferences { others, to_self } = self.references(written);
        let mut references = others;
        references.extend(to_self.then(|| path.clone()));
        PathInfo {
            path,
            node: content.node,
            nar_size: content.nar.size,
            nar_sha256: content.nar.sha256,
            references,
            deriver: Some(self.drv_path.clone()),
            signatures: Vec::new(),
            content_address,
        }
    }
}

fn realisations(
    store: &Store,
    derivation: &Derivation,
    outputs: &BTreeMap<OutputName, StorePath>,
) -> Result<Vec<Realisation>, OutputError> {
    if derivation.kind()? != DerivationKind::CaFloating || !derivation.input_drvs.is_empty() {
        return Ok(Vec::new()); // what is not resolved has no hash here
    }
    let Some(derivation_hash) = HashModuloMemo::new(store.dir.clone()).output_hash(derivation)? else {
        return Ok(Vec::new());
    };
    let one = |(output, path): (&OutputName, &StorePath)| Realisation {
        derivation_hash,
        output: output.clone(),
        path: path.clone(),
    };
    Ok(outputs.iter().map(one).collect())
}

#[cfg(test)]
mod tests;
