//! Blobs and directories over the wire.
//!
//! What is checked, and when
//! - a blob that fits one group (256 KiB at an igloo peer) or [`crate::limits::WHOLE_BYTES_MAX`] (at others) is fetched
//!   whole and hashed before a byte of it is given out;
//! - a larger blob of an igloo peer: its outline ([`outline`]) is merged to the blob's digest when it is opened, which
//!   proves its size too; then each group of bytes is checked by itself before a byte of it is given out;
//! - a larger blob of another peer: its chunk list is a claim. On first use the whole blob is streamed once, and digest,
//!   size and every chunk of the list are checked; only then are chunks fetched one by one, and checked again;
//! - a larger blob that a peer has in one piece only: every read streams and hashes all of it;
//! - a directory is encoded again and hashed before it is given out;
//! - `stat` passes on what the peer claims: who needs bytes reads them.
//!
//! Checked pieces stay in a [`ContentCache`], so a mount or a build fetches nothing twice while it fits.

mod blob_client;
mod blob_server;
mod blob_writer;
mod cache;
mod content_server;
mod directory_client;
mod directory_server;
mod fetch;
pub(crate) mod outline;

pub use blob_client::GrpcBlobStore;
pub use blob_server::ChunkLists;
pub(crate) use blob_server::{BlobServer, stat};
pub use cache::ContentCache;
pub(crate) use content_server::ContentServer;
pub use directory_client::GrpcDirectoryStore;
pub(crate) use directory_server::DirectoryServer;
use igloo_castore::store::{Castore, StoreName};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::connect::{ConnectError, Connection};

/// The content side of a store that another process serves.
///
/// # Errors
/// See [`ConnectError`].
pub async fn open(url: &str, cache: Arc<ContentCache>) -> Result<Castore, ConnectError> {
    let connection = Connection::open(url).await?;
    connection.check("snix.castore.v1.BlobService").await?;
    Ok(over(&connection, cache))
}

/// The content side of a store behind a connection.
pub fn over(connection: &Connection, cache: Arc<ContentCache>) -> Castore {
    let name = StoreName::from(connection.url());
    let peer = Arc::new(Peer::default());
    Castore {
        blobs: Arc::new(GrpcBlobStore::new(
            connection,
            name.clone(),
            Arc::clone(&peer),
            Arc::clone(&cache),
        )),
        directories: Arc::new(GrpcDirectoryStore::new(connection, name, peer, cache)),
    }
}

/// What is known of a peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    lacks_content_service: AtomicBool,
}

impl Peer {
    /// Whether `igloo.castore.v1.ContentService` is worth a try.
    pub(crate) fn is_igloo(&self) -> bool {
        !self.lacks_content_service.load(Ordering::Relaxed)
    }

    /// Takes a refused call into account: true when the peer lacks the service and the caller must do without.
    pub(crate) fn lacks(&self, status: &tonic::Status) -> bool {
        let lacks = status.code() == tonic::Code::Unimplemented;
        if lacks {
            self.lacks_content_service.store(true, Ordering::Relaxed);
        }
        lacks
    }
}
