//! Where a coordinator keeps its journal and its logs: beside the embedded store, which has one writer at a time; for a store in
//! another process in a folder of the user, one for each such store.

use std::path::PathBuf;

use igloo_store::StoreUrl;

use crate::context::Context;
use crate::failure::Failure;

/// The folder, which need not be there.
pub fn dir(context: &Context) -> Result<PathBuf, Failure> {
    Ok(match context.store_url.parse()? {
        StoreUrl::Rocksdb { dir } => dir.join("coordinator"),
        StoreUrl::Memory => context
            .runtime_dir
            .join(format!("coordinator-{}", std::process::id())),
        StoreUrl::Remote { url } => {
            let digest = blake3::hash(url.as_bytes());
            let name = nix_compat::nixbase32::encode(&digest.as_bytes()[..20]);
            context.state_dir.join("coordinators").join(name)
        }
    })
}
