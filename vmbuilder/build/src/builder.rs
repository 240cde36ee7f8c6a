//! The traits of running builds.

use async_trait::async_trait;
use igloo_castore::store::Castore;
use igloo_castore::tree::TreeEvent;

use crate::event::EventSender;
use crate::outcome::{BuildError, BuildReport};
use crate::path::RelativePath;
use crate::request::BuildRequest;

/// Runs builds.
#[async_trait]
pub trait Builder: std::fmt::Debug + Send + Sync {
    /// Runs one build to its end.
    ///
    /// Inputs are read from `io.inputs` only as the program reads them. When the program has succeeded, each output goes
    /// to `io.outputs`, in the order of the request. Dropping the future cancels the build: the machine is killed and
    /// everything it left on the host is removed before `drop` returns.
    ///
    /// # Errors
    /// [`BuildError`] for what is wrong with the request or this machine. A program that fails is no error: see
    /// [`crate::BuildOutcome`].
    async fn build(&self, request: BuildRequest, io: BuildIo) -> Result<BuildReport, BuildError>;

    /// Systems this builder runs builds for, as in [`crate::Constraints::system`].
    fn systems(&self) -> Vec<String>;
}

/// What a build reads from, writes to, and reports to.
#[derive(Debug)]
pub struct BuildIo {
    /// Holds the inputs.
    pub inputs: Castore,
    /// Takes the outputs.
    pub outputs: Box<dyn OutputSink>,
    /// Hears what happens.
    pub events: EventSender,
}

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
}
