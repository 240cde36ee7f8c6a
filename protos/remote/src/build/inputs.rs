//! Where a build's inputs come from, while callers come and go.
//!
//! Invariants
//! - a read that fails because its source does not answer waits for the next source, and is made again there; the build
//!   sees an error only when none has come for as long as the builder waits;
//! - an input that could not be read is noted: a build that fails after that is the builder's failure, not the build's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use igloo_build::BuildError;
use igloo_castore::digest::{BlobDigest, DirectoryDigest};
use igloo_castore::directory::Directory;
use igloo_castore::error::{BackendError, ReadBlobError, ReadDirectoryError, WriteError};
use igloo_castore::store::{BlobStat, BlobStore, BlobWriter, Castore, DirectoryStore};
use igloo_status::Code;
use tokio::sync::watch;

/// See the module.
#[derive(Debug)]
pub(crate) struct InputSwitch {
    source: watch::Sender<Source>,
    patience: Duration,
    failure: Mutex<Option<(Code, String)>>,
}

/// Where inputs are read.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub(crate) castore: Castore,
    pub(crate) reach: Reach,
}

/// Where a build reads and writes.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) inputs: Inputs,
    /// The store that outputs are put into; without one they go to who attends the build.
    pub(crate) output_store: Option<Castore>,
}

/// Who can be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The caller has them.
    Caller,
    /// The builder reads them by itself.
    Builder,
}

/// The latest to come; none while the caller that has them is lost.
#[derive(Clone, Debug)]
struct Source {
    number: u64,
    inputs: Option<Inputs>,
}

impl InputSwitch {
    /// Inputs from there; a read that gets no answer waits so long for another place.
    pub(crate) fn new(inputs: Inputs, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            source: watch::Sender::new(Source {
                number: 0,
                inputs: Some(inputs),
            }),
            patience,
            failure: Mutex::default(),
        })
    }

    /// From now on from there.
    pub(crate) fn set(&self, inputs: Inputs) {
        self.source.send_modify(|source| {
            source.number += 1;
            source.inputs = Some(inputs);
        });
    }

    /// The caller is lost: reads of what it had wait.
    pub(crate) fn lose(&self) {
        self.source.send_modify(|source| {
            source.inputs.take_if(|inputs| inputs.reach == Reach::Caller);
        });
    }

    /// The inputs as a build reads them.
    pub(crate) fn castore(self: &Arc<Self>) -> Castore {
        Castore {
            blobs: Arc::new(Switched(Arc::clone(self))),
            directories: Arc::new(Switched(Arc::clone(self))),
        }
    }

    /// What a build that failed must be told as, if an input could not be read.
    pub(crate) fn failure(&self) -> Option<BuildError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|(code, reason)| BuildError::Host {
            reason: format!("inputs could not be read while it ran: {reason}"),
            code: *code,
            source: None,
        })
    }

    async fn read<T, E, F>(&self, read: impl Fn(Castore) -> F) -> Result<T, E>
    where
        E: ReadFailure,
        F: Future<Output = Result<T, E>>,
    {
        let mut sources = self.source.subscribe();
        let mut tried = None;
        let mut last = None;
        loop {
            let fresh = sources.wait_for(|source| source.inputs.is_some() && Some(source.number) != tried);
            let source = match tokio::time::timeout(self.patience, fresh).await {
                Ok(Ok(source)) => source.clone(),
                // the sender lives in self
                Ok(Err(_)) | Err(_) => return Err(self.noted(last.unwrap_or_else(E::lost))),
            };
            let Some(inputs) = source.inputs else { continue };
            tried = Some(source.number);
            match read(inputs.castore).await {
                Err(error) if error.class() == Code::Unavailable => last = Some(error),
                Err(error) => return Err(self.noted(error)),
                done => return done,
            }
        }
    }

    fn noted<E: ReadFailure>(&self, error: E) -> E {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| (error.class(), error.to_string()));
        error
    }
}

/// What is common to the ways in which a read fails.
trait ReadFailure: std::error::Error {
    fn class(&self) -> Code;
    /// There is nobody to read from.
    fn lost() -> Self;
}

impl ReadFailure for ReadBlobError {
    fn class(&self) -> Code {
        self.code()
    }

    fn lost() -> Self {
        Self::Backend(nobody())
    }
}

impl ReadFailure for ReadDirectoryError {
    fn class(&self) -> Code {
        self.code()
    }

    fn lost() -> Self {
        Self::Backend(nobody())
    }
}

fn nobody() -> BackendError {
    BackendError {
        store: "inputs".into(),
        code: Code::Unavailable,
        message: "the caller that has the inputs was lost, and nobody came in its place".into(),
        source: None,
    }
}

#[derive(Debug)]
struct Switched(Arc<InputSwitch>);

impl Switched {
    fn refused() -> WriteError {
        WriteError::Backend(BackendError {
            store: "inputs".into(),
            code: Code::PermissionDenied,
            message: "the inputs of a build can only be read".into(),
            source: None,
        })
    }
}

#[async_trait]
impl BlobStore for Switched {
    async fn stat(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError> {
        let digest = *digest;
        let read = move |castore: Castore| async move { castore.blobs.stat(&digest).await };
        self.0.read(read).await
    }

    async fn read_range(&self, digest: &BlobDigest, offset: u64, len: usize) -> Result<Bytes, ReadBlobError> {
        let digest = *digest;
        let read =
            move |castore: Castore| async move { castore.blobs.read_range(&digest, offset, len).await };
        self.0.read(read).await
    }

    async fn put_small(&self, _: Vec<(BlobDigest, Bytes)>) -> Result<(), WriteError> {
        Err(Self::refused())
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, WriteError> {
        Err(Self::refused())
    }

    async fn sync(&self) -> Result<(), WriteError> {
        Ok(())
    }
}

#[async_trait]
impl DirectoryStore for Switched {
    async fn get(&self, digest: &DirectoryDigest) -> Result<Option<Arc<Directory>>, ReadDirectoryError> {
        let digest = *digest;
        let read = move |castore: Castore| async move { castore.directories.get(&digest).await };
        self.0.read(read).await
    }

    async fn put(&self, _: Vec<Directory>) -> Result<(), WriteError> {
        Err(Self::refused())
    }

    async fn sync(&self) -> Result<(), WriteError> {
        Ok(())
    }
}
