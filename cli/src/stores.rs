//! Opening what URLs name.

use std::sync::Arc;

use igloo_build::Builder;
use igloo_castore::blocking;
use igloo_remote::{Connection, ContentCache, GrpcBuilder};
use igloo_status::Code;
use igloo_store::lazy::{OpenFailure, Opening};
use igloo_store::{Access, OpenOptions, Store, StoreUrl};
use igloo_store_io::Writes;
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

/// The directory paths are printed with: what `NIX_STORE_DIR` says, as for Nix's commands.
pub fn dir() -> Result<StoreDir, Failure> {
    match std::env::var("NIX_STORE_DIR") {
        Ok(dir) => StoreDir::new(&dir).map_err(|error| Failure::usage(error.to_string())),
        Err(_) => Ok(StoreDir::default()),
    }
}

/// Whether Nix's commands are told to keep nothing (`NIX_REMOTE=dummy://`).
pub fn is_dummy() -> bool {
    std::env::var("NIX_REMOTE").is_ok_and(|remote| remote.starts_with("dummy:"))
}

/// The store of this command, opened when it is first used: to write where evaluations do, else to read what is there.
pub fn lazy(context: &Context, writes: Writes) -> Result<Store, Failure> {
    let url: StoreUrl = context.store_url.parse()?;
    let (dir, owner) = (dir()?, context.command_name);
    let options = OpenOptions {
        dir: dir.clone(),
        access: Access::Write,
        owner: owner.into(),
    };
    let name = context.store_url.clone();
    let opener = move || {
        let (url, options) = (url.clone(), options.clone());
        let opening: Opening = Box::pin(async move {
            match (url, writes) {
                (StoreUrl::Remote { url }, _) => {
                    let cache = Arc::new(ContentCache::default());
                    let opened = igloo_remote::path_info::open(&url, options.dir, cache).await;
                    opened.map_err(|error| open_failure(error.code(), error))
                }
                (url, Writes::Stored) => blocking::run(move || open_here(&url, &options)).await,
                (url, Writes::Computed) => blocking::run(move || open_what_is_there(&url, options)).await,
            }
        });
        opening
    };
    Ok(igloo_store::lazy::lazy(dir, &name, Box::new(opener)))
}

fn open_here(url: &StoreUrl, options: &OpenOptions) -> Result<Store, OpenFailure> {
    igloo_store::open(url, options).map_err(|error| open_failure(error.code(), error))
}

/// A store that is not there, whatever else is, is empty, and not made for having been looked at; one that another process
/// writes is read.
fn open_what_is_there(url: &StoreUrl, options: OpenOptions) -> Result<Store, OpenFailure> {
    if let StoreUrl::Rocksdb { dir } = url
        && !dir.exists()
    {
        return Ok(Store::memory(options.dir));
    }
    open_here(url, &options).or_else(|_| {
        let (access, dir) = (Access::Read, options.dir.clone());
        match open_here(url, &OpenOptions { access, ..options }) {
            Err(failure) if failure.code == Code::NotFound => Ok(Store::memory(dir)),
            opened => opened,
        }
    })
}

fn open_failure(code: Code, error: impl Into<anyhow::Error>) -> OpenFailure {
    OpenFailure {
        code,
        message: format!("{:#}", error.into()),
    }
}

/// A builder in another process. It reads inputs from the store and puts outputs there by itself where it knows it under the
/// same URL; else both go through us.
pub async fn remote_builder(context: &Context, url: &str) -> Result<Arc<dyn Builder>, Failure> {
    let connection = Connection::open(&context.builder_url(url)?).await?;
    let builder = GrpcBuilder::new(&connection).await?;
    Ok(Arc::new(builder.with_store(&context.store_url)))
}
