//! The traits of running builds.

use async_trait::async_trait;
use bytes::Bytes;
use igloo_castore::store::Castore;
use igloo_castore::tree::TreeEvent;

use crate::event::EventSender;
use crate::lease::{Lease, LeaseError, LeaseOwner, LeaseStatus};
use crate::offer::{BuilderLoad, BuilderOffer};
use crate::outcome::{BuildError, BuildReport};
use crate::output::OutputSink;
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

    /// What it offers. A builder that says no more than its systems has no bound that it knows of.
    fn offer(&self) -> BuilderOffer {
        BuilderOffer {
            systems: self.systems().into_iter().collect(),
            ..BuilderOffer::default()
        }
    }

    /// How busy it is; an answer says that it is there.
    ///
    /// # Errors
    /// It gives no answer.
    async fn load(&self) -> Result<BuilderLoad, BuildError> {
        Ok(BuilderLoad::default())
    }

    /// Runs one build to its end as [`Builder::build`] does, under a lease: dropping the future leaves the build alone, for
    /// as long as [`BuilderOffer::unattended`] says, and only [`Builder::release`] stops it. Where that is `None` it is
    /// [`Builder::build`].
    ///
    /// While nobody attends it, reads of inputs that the caller alone has wait for the next caller, and so does the build
    /// itself once it has logged more than the builder keeps.
    ///
    /// # Errors
    /// As for a build; `Outdated` where an order as high or higher was given for the same subject.
    async fn build_leased(
        &self,
        lease: &Lease,
        request: BuildRequest,
        io: BuildIo,
    ) -> Result<BuildReport, BuildError> {
        let _ = lease; // nothing of it survives the call
        self.build(request, io).await
    }

    /// The leases of an owner that still run here, or whose end waits to be fetched. None where none survives its call.
    ///
    /// # Errors
    /// It gives no answer.
    async fn leases(&self, owner: &LeaseOwner) -> Result<Vec<LeaseStatus>, BuildError> {
        let _ = owner;
        Ok(Vec::new())
    }

    /// Attends a build that was started under a lease, in place of whom attended it before: all stages, the log from byte
    /// `log_from` on (or later, where the builder has it no more: see [`crate::BuildEvent::Log`]), all outputs, the end.
    /// Dropping the future leaves the build alone.
    ///
    /// # Errors
    /// As for a build; `Unknown` where there is no such lease.
    async fn attach(&self, lease: &Lease, log_from: u64, io: BuildIo) -> Result<BuildReport, BuildError> {
        let _ = (log_from, io);
        Err(LeaseError::Unknown { lease: lease.clone() }.into())
    }

    /// Stops the build of a lease if it runs, and forgets what was kept of it. To be called when its end has been dealt
    /// with, too. No error where there is none.
    ///
    /// # Errors
    /// It gives no answer.
    async fn release(&self, lease: &Lease) -> Result<(), BuildError> {
        let _ = lease;
        Ok(())
    }
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

impl BuildIo {
    /// Writes an output that is one plain file.
    ///
    /// # Errors
    /// What the sink says.
    pub async fn write_file(&mut self, output: &RelativePath, content: Bytes) -> Result<(), BuildError> {
        self.outputs.begin(output).await?;
        let begin = TreeEvent::FileBegin {
            name: None,
            executable: false,
            size: content.len() as u64,
        };
        self.outputs.event(begin).await?;
        if !content.is_empty() {
            self.outputs.event(TreeEvent::FileData(content)).await?;
        }
        self.outputs.end().await
    }
}
