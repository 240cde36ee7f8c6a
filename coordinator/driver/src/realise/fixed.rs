//! The check of a fixed output: what came out must be what the derivation promised.

use igloo_castore::error::ReadBlobError;
use igloo_castore::node::Node;
use igloo_store::Store;
use nix_compat::content_address::{ContentAddress, ContentAddressMethod};
use nix_compat::hash::{HashAlgo, HashFormat, Hasher, NixHash};

use super::build::BuildFailure;

/// Bytes read at a time.
const READ_SIZE: usize = 1 << 20;

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
) -> Result<(), BuildFailure> {
    let algo = promised.hash().algo();
    let got = match promised.method() {
        ContentAddressMethod::Recursive if algo == HashAlgo::Sha256 => NixHash::Sha256(*nar_sha256),
        ContentAddressMethod::Recursive => nar_hash(store, node, algo).await?,
        ContentAddressMethod::Flat | ContentAddressMethod::Text => flat_hash(store, node, algo).await?,
    };
    if got == promised.hash() {
        return Ok(());
    }
    Err(BuildFailure::HashMismatch(HashMismatch {
        specified: promised.hash().encode_with_algo(HashFormat::Sri),
        got: got.encode_with_algo(HashFormat::Sri),
    }))
}

async fn flat_hash(store: &Store, node: &Node, algo: HashAlgo) -> Result<NixHash, BuildFailure> {
    let Node::File { digest, size, executable: false } = node else {
        return Err(BuildFailure::NotFlat);
    };
    let mut hasher = Hasher::new(algo);
    let mut offset = 0;
    while offset < *size {
        let bytes = store.castore.blobs.read_range(digest, offset, READ_SIZE).await?;
        if bytes.is_empty() {
            return Err(ReadBlobError::Missing { digest: *digest, store: "the store".into() }.into());
        }
        hasher.update(&bytes);
        offset += bytes.len() as u64;
    }
    Ok(hasher.finish())
}
