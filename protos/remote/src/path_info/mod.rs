//! Path infos over the wire.
//!
//! Invariants
//! - a record is registered by a server only after its content was made durable, and only when the root of the content is
//!   there and is what the record says; with [`Admission::Nar`] the whole content was read and its NAR hash compared;
//! - a client gives out a record only for the path it was asked for. Whether its content is the right one for that path is
//!   what signatures are for: the wire says nothing about it.

mod client;
mod server;

use std::sync::Arc;

use igloo_store::Store;
use nix_compat::store_path::StoreDir;

pub use client::GrpcPathInfoStore;
pub use server::Admission;
pub(crate) use server::{PathInfoServer, RegistryServer};

use crate::castore::{self, ContentCache};
use crate::connect::{ConnectError, Connection};
use crate::facts::GrpcFactStore;

/// Metadata with the two ends of a reference that leads nowhere.
pub(crate) const PATH_KEY: &str = "igloo-path";
pub(crate) const REFERENCE_KEY: &str = "igloo-reference";

/// The store that another process serves. `dir` is what its paths are printed with: the wire does not say.
///
/// # Errors
/// See [`ConnectError`].
pub async fn open(url: &str, dir: StoreDir, cache: Arc<ContentCache>) -> Result<Store, ConnectError> {
    let connection = Connection::open(url).await?;
    for service in ["snix.castore.v1.BlobService", "snix.store.v1.PathInfoService"] {
        connection.check(service).await?;
    }
    Ok(Store {
        castore: castore::over(&connection, cache),
        path_infos: Arc::new(GrpcPathInfoStore::new(&connection)),
        facts: Arc::new(GrpcFactStore::new(&connection)),
        dir,
    })
}
