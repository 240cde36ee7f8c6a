//! Content addresses of outputs.
//!
//! Source: Nix 2.36 `newInfoFromCA` (unix/build/derivation-builder.cc); recorded from 2.34, where it differs from 2.8: hashes
//! leave out an output's own name in every method, and references are refused where the method has no place for them.

use igloo_castore::export::TreeExport;
use igloo_castore::node::Node;
use igloo_castore::store::Castore;
use igloo_castore::tree::TreeEvent;
use igloo_store::DumpError;
use igloo_store::nar::{self, NarDigest};
use nix_compat::content_address::ContentAddressMethod;
use nix_compat::derivation::OutputName;
use nix_compat::hash::{HashAlgo, NixHash};
use nix_compat::self_reference::SelfHasher;
use nix_compat::store_path::{StorePath, StorePathName, StoreReferences, output_path_name};

use super::error::OutputError;

/// A tree in the castore, with the hash of its NAR.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) node: Node,
    pub(super) nar: NarDigest,
}

/// The hash of what a method hashes; `own` is the path that occurs in it and does not count. Reads the content, unless the
/// NAR's SHA-256 is what is asked for.
pub(super) async fn hash(
    castore: &Castore,
    content: &Content,
    method: ContentAddressMethod,
    algo: HashAlgo,
    own: Option<&StorePath>,
) -> Result<NixHash, OutputError> {
    let node = &content.node;
    match (method, own) {
        (ContentAddressMethod::Recursive, None) if algo == HashAlgo::Sha256 => {
            Ok(NixHash::Sha256(content.nar.sha256))
        }
        (ContentAddressMethod::Recursive, None) => Ok(nar::nar_hash(castore, node, algo).await?),
        (ContentAddressMethod::Recursive, Some(own)) => {
            Ok(nar::self_hash(castore, node, algo, own).await?.hash)
        }
        (ContentAddressMethod::Flat | ContentAddressMethod::Text, own) => {
            if !matches!(
                node,
                Node::File {
                    executable: false,
                    ..
                }
            ) {
                return Err(OutputError::NotFlat);
            }
            match own {
                Some(own) => flat_self_hash(castore, node, algo, own).await,
                None => nar::flat_hash(castore, node, algo)
                    .await?
                    .ok_or(OutputError::NotFlat),
            }
        }
    }
}

async fn flat_self_hash(
    castore: &Castore,
    node: &Node,
    algo: HashAlgo,
    own: &StorePath,
) -> Result<NixHash, OutputError> {
    let mut hasher = SelfHasher::new(algo, own);
    let mut export = TreeExport::new(castore.clone(), node.clone());
    while let Some(event) = export.next().await.map_err(DumpError::from)? {
        if let TreeEvent::FileData(bytes) = event {
            hasher.update(&bytes);
        }
    }
    Ok(hasher.finish().map_err(DumpError::from)?.hash)
}

/// Refuses references that the method has no place for.
pub(super) fn check_references(
    derivation: &StorePathName,
    output: &OutputName,
    references: &StoreReferences,
    method: ContentAddressMethod,
    algo: HashAlgo,
) -> Result<(), OutputError> {
    match method {
        ContentAddressMethod::Text if references.to_self => Err(OutputError::TextSelfReference),
        ContentAddressMethod::Text => Ok(()),
        ContentAddressMethod::Recursive if algo == HashAlgo::Sha256 => Ok(()),
        _ if references.is_empty() => Ok(()),
        _ => Err(OutputError::References {
            name: output_path_name(derivation, output)?.to_string(),
        }),
    }
}
