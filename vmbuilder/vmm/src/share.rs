//! What a build's machine sees of the store: the request's inputs, by name, and nothing else.
//!
//! Invariants
//! - the server knows the inputs only: no request of a guest can name other content, whatever it guesses;
//! - memory is bounded by [`DIRECTORY_CACHE_BYTES`] and [`INODES_MAX`], not by the inputs' size.

use std::collections::BTreeMap;
use std::sync::Arc;

use igloo_castore::{Castore, Node, NodeName};
use igloo_mount::vhost::StartVhostError;
use igloo_mount::{CastoreFs, Counts, FsLimits, MapRoots, Tree, VhostServer};
use tokio::runtime::Handle;

use crate::machine::ShareSocket;

/// Most request queues of one machine: a guest uses one for each processor, more cost memory and give nothing.
pub const QUEUES_MAX: u32 = 4;
/// Decoded directories kept, bytes.
const DIRECTORY_CACHE_BYTES: u64 = 16 << 20;
/// Inodes a guest may hold at once; about 250 bytes each. A closure of a million files fits.
const INODES_MAX: usize = 1 << 20;
/// Reads from the store at a time: a distant store's latency is hidden by asking for several things.
const THREADS: usize = 4;

/// A running file server; stopped on drop.
#[derive(Debug)]
pub struct Share {
    server: VhostServer,
}

impl Share {
    /// Serves inputs on a machine's socket, on threads of its own; store requests run on the current runtime.
    ///
    /// # Errors
    /// When the socket or threads cannot be had.
    pub fn serve(
        socket: &ShareSocket,
        inputs: BTreeMap<NodeName, Node>,
        castore: Castore,
    ) -> Result<Self, StartVhostError> {
        let queues = usize::try_from(socket.queues).unwrap_or(usize::MAX);
        let tree = Tree::new(castore, DIRECTORY_CACHE_BYTES);
        let limits = FsLimits {
            inodes_max: INODES_MAX,
            ..FsLimits::default()
        };
        let fs = CastoreFs::new(Arc::new(MapRoots::new(inputs)), tree, Handle::current(), limits);
        let server = VhostServer::start(&socket.path, Arc::new(fs), THREADS, queues)?;
        Ok(Self { server })
    }

    /// What the guest has read so far.
    pub fn counts(&self) -> Counts {
        self.server.fs().counters().snapshot()
    }
}
