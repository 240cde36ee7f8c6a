//! The check of a fixed output: what came out must be what the derivation promised.

use igloo_castore::node::Node;
use igloo_store::Store;
use igloo_store::nar::{flat_hash, nar_hash};
use nix_compat::content_address::{ContentAddress, ContentAddressMethod};
use nix_compat::hash::{HashAlgo, HashFormat, NixHash};

use super::error::OutputError;

/// A fixed output with other content than promised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("specified: {specified}\n   got:    {got}")]
pub struct HashMismatch {
    /// What the derivation says, as SRI.
    pub specified: String,
    /// What was built, as SRI.
    pub got: String,
}

/// Compares an output with the address its derivation promised. Reads it once more unless the NAR's SHA-256 decides.
pub(super) async fn check(
    store: &Store,
    node: &Node,
    nar_sha256: &[u8; 32],
    promised: &ContentAddress,
) -> Result<(), OutputError> {
    let algo = promised.hash().algo();
    let got = match promised.method() {
        ContentAddressMethod::Recursive if algo == HashAlgo::Sha256 => NixHash::Sha256(*nar_sha256),
        ContentAddressMethod::Recursive => nar_hash(&store.castore, node, algo).await?,
        ContentAddressMethod::Flat | ContentAddressMethod::Text
            if matches!(node, Node::File { executable: true, .. }) =>
        {
            return Err(OutputError::NotFlat);
        }
        ContentAddressMethod::Flat | ContentAddressMethod::Text => flat_hash(&store.castore, node, algo)
            .await?
            .ok_or(OutputError::NotFlat)?,
    };
    if got == promised.hash() {
        return Ok(());
    }
    Err(OutputError::HashMismatch(HashMismatch {
        specified: promised.hash().encode_with_algo(HashFormat::Sri),
        got: got.encode_with_algo(HashFormat::Sri),
    }))
}
