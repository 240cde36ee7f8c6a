//! Registers what an evaluation makes, without the evaluation waiting for the disk.
//!
//! One task takes what is waiting, stores it, and registers it in one step: making things durable costs the same for one
//! as for hundreds, so the batches grow by themselves exactly when the disk is the bottleneck.
//!
//! Invariants
//! - everything is registered in the order it was given, or together with what came before it;
//! - the sink hears of a derivation after it is registered, once, and of all in the order given;
//! - after the first failure nothing more is registered, and every later call says so;
//! - at most [`QUEUE_MAX`] things wait; then the evaluation does.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use igloo_castore::error::WriteError;
use igloo_castore::ingest::{TreeObserver, put_blob};
use igloo_castore::node::Node;
use igloo_castore::tree::TreeEvent;
use igloo_eval::io::IoError;
use igloo_status::Code;
use igloo_store::nar::NarObserver;
use igloo_store::path_info::ReadPathInfoError;
use igloo_store::{CommitError, PathInfo, Store};
use nix_compat::content_address::{ContentAddress, ContentAddressError, ContentAddressMethod};
use nix_compat::derivation::Derivation;
use nix_compat::hash::{HashAlgo, NixHash};
use nix_compat::nar::WriteNarError;
use nix_compat::store_path::{ComputePathError, DIGEST_LEN, StoreDir, StorePath};
use tokio::sync::{mpsc, oneshot};

use crate::error::{chain, store_error};
use crate::view::Runtime;

/// Things that may wait.
const QUEUE_MAX: usize = 1024;
/// Things registered in one step.
const BATCH_MAX: usize = 256;

/// Hears of derivations as they are instantiated: how they stream to a coordinator.
///
/// Nothing more is registered while it takes its time, and in the end the evaluation waits.
#[async_trait]
pub trait DerivationSink: Send + Sync {
    /// A derivation that is in the store now, with all it refers to. Called in the order of instantiation, inputs
    /// first, once for each derivation of an evaluation.
    async fn derivation(&self, path: &StorePath, derivation: &Arc<Derivation>);

    /// All that was made before a call of [`crate::StoreIo::mark`] is in the store, and this has heard of it. Called once
    /// for each mark, in order.
    async fn mark(&self) {}
}

/// Hears nothing.
#[async_trait]
impl DerivationSink for () {
    async fn derivation(&self, _: &StorePath, _: &Arc<Derivation>) {}
}

/// The evaluation's end of the queue.
#[derive(Debug)]
pub(crate) struct Registrar {
    jobs: mpsc::Sender<Job>,
    failed: Arc<OnceLock<Arc<RegisterError>>>,
    runtime: Runtime,
}

#[derive(Debug)]
enum Job {
    Register(Arc<PathInfo>),
    Derivation(StorePath, Arc<Derivation>, Bytes),
    /// The sink hears of it when all before it is done.
    Mark,
    /// Answered when all before it is done.
    Barrier(oneshot::Sender<()>),
}

impl Registrar {
    /// Starts the task.
    pub(crate) fn start(runtime: Runtime, store: Store, sink: Arc<dyn DerivationSink>) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let failed = Arc::new(OnceLock::new());
        runtime.handle.spawn(run(queue, store, sink, Arc::clone(&failed)));
        Self {
            jobs,
            failed,
            runtime,
        }
    }

    /// Registers a path whose content is in the castore.
    pub(crate) fn register(&self, info: Arc<PathInfo>) -> Result<(), IoError> {
        self.send(Job::Register(info))
    }

    /// Writes a derivation, whose text this is.
    pub(crate) fn derivation(
        &self,
        path: StorePath,
        derivation: Arc<Derivation>,
        text: Bytes,
    ) -> Result<(), IoError> {
        self.send(Job::Derivation(path, derivation, text))
    }

    /// Tells the sink when everything given so far is registered.
    pub(crate) fn mark(&self) -> Result<(), IoError> {
        self.send(Job::Mark)
    }

    /// Waits until everything given so far is registered.
    pub(crate) fn flush(&self) -> Result<(), IoError> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Barrier(done))?;
        // a dropped answer means that the runtime is gone; the check tells
        let answer = self.runtime.wait(wait)?;
        self.check()?;
        answer.map_err(|_| stopped())
    }

    /// The failure as callers outside an evaluation see it.
    pub(crate) fn failure(&self) -> Option<FlushError> {
        self.failed.get().map(|error| FlushError::Store {
            what: chain(&**error),
            code: error.code(),
        })
    }

    fn send(&self, job: Job) -> Result<(), IoError> {
        self.check()?;
        let job = match self.jobs.try_send(job) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job)) => job,
        };
        let sent = self.runtime.wait(self.jobs.send(job))?;
        sent.map_err(|_| stopped())
    }

    fn check(&self) -> Result<(), IoError> {
        match self.failed.get() {
            Some(error) => Err(store_error("the store", error.code(), Arc::clone(error))),
            None => Ok(()),
        }
    }
}

fn stopped() -> IoError {
    IoError::Unsupported {
        what: "the runtime that serves the store has been shut down".to_owned(),
    }
}

async fn run(
    mut queue: mpsc::Receiver<Job>,
    store: Store,
    sink: Arc<dyn DerivationSink>,
    failed: Arc<OnceLock<Arc<RegisterError>>>,
) {
    let mut batch = Vec::new();
    // several threads of one evaluation may make the same
    let mut told = HashSet::new();
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        if failed.get().is_none() {
            match write(&store, &batch).await {
                Ok(()) => tell(&*sink, &batch, &mut told).await,
                Err(error) => drop(failed.set(Arc::new(error))),
            }
        }
        for job in batch.drain(..) {
            if let Job::Barrier(done) = job {
                // nobody waits any more: fine
                let _gone = done.send(());
            }
        }
    }
}

async fn tell(sink: &dyn DerivationSink, batch: &[Job], told: &mut HashSet<[u8; DIGEST_LEN]>) {
    for job in batch {
        match job {
            Job::Derivation(path, derivation, _) => {
                if told.insert(*path.digest()) {
                    sink.derivation(path, derivation).await;
                }
            }
            Job::Mark => sink.mark().await,
            Job::Register(_) | Job::Barrier(_) => {}
        }
    }
}

async fn write(store: &Store, batch: &[Job]) -> Result<(), RegisterError> {
    let mut infos = Vec::with_capacity(batch.len());
    let mut seen = HashSet::with_capacity(batch.len());
    for job in batch {
        let path = match job {
            Job::Register(info) => &info.path,
            Job::Derivation(path, ..) => path,
            Job::Mark | Job::Barrier(_) => continue,
        };
        // what an earlier evaluation wrote costs one look-up
        if !seen.insert(path) || store.path_infos.get(path).await?.is_some() {
            continue;
        }
        infos.push(match job {
            Job::Register(info) => PathInfo::clone(info),
            Job::Derivation(path, derivation, text) => {
                let references = derivation.references();
                check_path(store, path, derivation, text)?;
                text_info(store, path.clone(), text.clone(), references).await?
            }
            Job::Mark | Job::Barrier(_) => continue,
        });
    }
    if infos.is_empty() {
        return Ok(());
    }
    Ok(store.register(infos).await?)
}

/// A derivation's path is that of its text.
fn check_path(
    store: &Store,
    path: &StorePath,
    derivation: &Derivation,
    text: &[u8],
) -> Result<(), RegisterError> {
    let computed = derivation.store_path_of_text(&store.dir, text)?;
    if computed == *path {
        return Ok(());
    }
    Err(RegisterError::OtherPath {
        claimed: path.clone(),
        computed,
    })
}

/// Puts a text in the castore: the record of its path.
pub(crate) async fn text_info(
    store: &Store,
    path: StorePath,
    text: Bytes,
    references: std::collections::BTreeSet<StorePath>,
) -> Result<PathInfo, RegisterError> {
    let hash = NixHash::of(HashAlgo::Sha256, &text);
    let mut observer = NarObserver::new();
    observer.event(&TreeEvent::FileBegin {
        name: None,
        executable: false,
        size: text.len() as u64,
    });
    if !text.is_empty() {
        observer.event(&TreeEvent::FileData(text.clone()));
    }
    let nar = observer.finish()?.digest;
    let (digest, size) = put_blob(&store.castore, text).await?;
    Ok(PathInfo {
        path,
        node: Node::File {
            digest,
            size,
            executable: false,
        },
        nar_size: nar.size,
        nar_sha256: nar.sha256,
        references,
        deriver: None,
        signatures: Vec::new(),
        content_address: Some(ContentAddress::new(ContentAddressMethod::Text, hash)?),
    })
}

/// The path of a text.
pub(crate) fn text_path(
    dir: &StoreDir,
    name: &nix_compat::store_path::StorePathName,
    text: &[u8],
    references: &std::collections::BTreeSet<StorePath>,
) -> StorePath {
    dir.text_path(name, &nix_compat::hash::sha256(text), references)
}

/// Why something could not be registered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("the derivation given as {claimed} is {computed}")]
    OtherPath { claimed: StorePath, computed: StorePath },
    #[error("the derivation cannot be written")]
    Print(#[from] ComputePathError),
    #[error("the text makes no NAR")]
    Nar(#[from] WriteNarError),
    #[error("the text has no content address")]
    Address(#[from] ContentAddressError),
    #[error(transparent)]
    Read(#[from] ReadPathInfoError),
    #[error("the text cannot be stored")]
    Write(#[from] WriteError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl RegisterError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::OtherPath { .. } => Code::Internal,
            Self::Print(error) => error.code(),
            Self::Nar(error) => error.code(),
            Self::Address(error) => error.code(),
            Self::Read(error) => error.code(),
            Self::Write(error) => error.code(),
            Self::Commit(error) => error.code(),
        }
    }
}

/// Why what an evaluation made is not all in the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// The store refused something; nothing that was made after it is registered.
    #[error("what the evaluation made could not be written to the store: {what}")]
    Store {
        /// What, and why.
        what: String,
        /// The class of the failure.
        code: Code,
    },
    /// Nobody serves the store any more.
    #[error(
        "the runtime that serves the store cannot be waited for: it is shut down, or this is one of its tasks"
    )]
    Runtime,
}

impl FlushError {
    /// The class of the failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Store { code, .. } => *code,
            Self::Runtime => Code::FailedPrecondition,
        }
    }
}
