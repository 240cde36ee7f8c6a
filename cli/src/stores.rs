//! Opening what URLs name.

use std::sync::Arc;

use igloo_build::Builder;
use igloo_status::Code;
use igloo_store::{Access, OpenOptions, Store, StoreUrl};
use nix_compat::store_path::StoreDir;

use crate::context::Context;
use crate::failure::Failure;

/// The store of this command, for reading and writing.
pub async fn open(context: &Context) -> Result<Store, Failure> {
    open_for(context, Access::Write).await
}

/// The store of this command, for reading beside a process that writes.
pub async fn open_to_read(context: &Context) -> Result<Store, Failure> {
    open_for(context, Access::Read).await
}

async fn open_for(context: &Context, access: Access) -> Result<Store, Failure> {
    let url: StoreUrl = context.store_url.parse()?;
    let options = OpenOptions {
        dir: StoreDir::default(),
        access,
        owner: context.command_name.into(),
    };
    if let StoreUrl::Remote { url } = &url {
        return Err(Failure::coded(
            anyhow::anyhow!("cannot open {url}"),
            Code::Unimplemented,
        ));
    }
    let opened = tokio::task::spawn_blocking(move || igloo_store::open(&url, &options)).await;
    Ok(opened.map_err(|error| Failure::new(anyhow::Error::new(error)))??)
}

/// A builder in another process.
pub async fn remote_builder(_context: &Context, url: &str) -> Result<Arc<dyn Builder>, Failure> {
    Err(Failure::coded(
        anyhow::anyhow!("cannot reach {url}"),
        Code::Unimplemented,
    ))
}
