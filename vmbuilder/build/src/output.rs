//! Where outputs go: into a sink, as trees; or by the builder itself into the store the sink is for.

use async_trait::async_trait;
use igloo_castore::node::Node;
use igloo_castore::tree::TreeEvent;

use crate::outcome::BuildError;
use crate::path::RelativePath;

/// Takes outputs as trees.
///
/// Everything it is given comes from a machine that may be hostile: it checks the sequence of events (see
/// [`igloo_castore::tree`]). Dropping it forgets what it was given; only the caller, after `Success`, decides that
/// outputs count.
#[async_trait]
pub trait OutputSink: std::fmt::Debug + Send {
    /// Starts an output.
    async fn begin(&mut self, output: &RelativePath) -> Result<(), BuildError>;

    /// The next step of the output started last.
    async fn event(&mut self, event: TreeEvent) -> Result<(), BuildError>;

    /// Ends the output started last: it is whole.
    async fn end(&mut self) -> Result<(), BuildError>;

    /// Takes an output that the builder put into the sink's own store, in place of its tree. The builder vouches for its
    /// NAR hash and its needles.
    ///
    /// # Errors
    /// The sink has no store that builders may write to, or the output is not there.
    async fn stored(&mut self, output: StoredOutput) -> Result<(), BuildError> {
        Err(BuildError::Protocol {
            reason: format!(
                "the builder put the output {} into a store that is not the caller's",
                output.path
            ),
        })
    }
}

/// An output that is in a store's castore, under no name there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOutput {
    /// Which.
    pub path: RelativePath,
    /// Its tree.
    pub node: Node,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// SHA-256 of its NAR.
    pub nar_sha256: [u8; 32],
    /// Positions of the request's needles that its NAR has, ascending.
    pub needles: Vec<usize>,
}
