//! Opening what URLs name.

use std::sync::Arc;

use igloo_build::Builder;
use igloo_remote::{Connection, ContentCache, GrpcBuilder};
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
    let dir = StoreDir::default();
    let url: StoreUrl = context.store_url.parse()?;
    if let StoreUrl::Remote { url } = &url {
        return Ok(igloo_remote::path_info::open(url, dir, Arc::new(ContentCache::default())).await?);
    }
    let options = OpenOptions {
        dir,
        access,
        owner: context.command_name.into(),
    };
    let opened = tokio::task::spawn_blocking(move || igloo_store::open(&url, &options)).await;
    Ok(opened.map_err(|error| Failure::new(anyhow::Error::new(error)))??)
}

/// A builder in another process. It reads inputs from the store itself where it knows it under the same URL, else from
/// us.
pub async fn remote_builder(context: &Context, url: &str) -> Result<Arc<dyn Builder>, Failure> {
    let connection = Connection::open(&context.builder_url(url)?).await?;
    let builder = GrpcBuilder::new(&connection).await?;
    Ok(Arc::new(builder.with_input_store(&context.store_url)))
}
