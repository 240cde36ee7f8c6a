//! Registering: what comes at about the same time is made durable and registered in one step.
//!
//! Invariants
//! - facts are put before the path infos they are about, and are durable with them;
//! - one that is refused takes no other along: what was refused together is tried one by one.

use std::sync::Arc;

use igloo_status::Code;
use igloo_store::facts::Fact;
use igloo_store::{PathInfo, Store};
use tokio::sync::{mpsc, oneshot};

use super::fault::chain;

/// Registrations in one step.
const GROUP_MAX: usize = 64;
/// Registrations that wait.
const WAITING_MAX: usize = 256;

/// The way to the one task that registers.
#[derive(Clone, Debug)]
pub(crate) struct Commits(mpsc::Sender<Commit>);

/// Why something was not registered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct CommitRefused {
    pub reason: Arc<str>,
    pub code: Code,
}

#[derive(Debug)]
struct Commit {
    infos: Vec<PathInfo>,
    facts: Vec<Fact>,
    done: oneshot::Sender<Result<(), CommitRefused>>,
}

impl Commits {
    /// A way to register in `store`, and the task that does it, to be run.
    pub(crate) fn new(store: Store) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), work(store, receiver))
    }

    /// Registers paths, with what is known of them.
    pub(crate) async fn register(&self, infos: Vec<PathInfo>, facts: Vec<Fact>) -> Result<(), CommitRefused> {
        let (done, answer) = oneshot::channel();
        let gone = || CommitRefused {
            reason: "the coordinator is closing down".into(),
            code: Code::Unavailable,
        };
        let commit = Commit { infos, facts, done };
        self.0.send(commit).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn work(store: Store, mut receiver: mpsc::Receiver<Commit>) {
    let mut group = Vec::new();
    while receiver.recv_many(&mut group, GROUP_MAX).await > 0 {
        let infos = group.iter().flat_map(|commit| commit.infos.clone()).collect();
        let facts = group.iter().flat_map(|commit| commit.facts.clone()).collect();
        let together = register(&store, infos, facts).await;
        let is_refused = together.is_err() && group.len() > 1;
        for commit in group.drain(..) {
            let result = if is_refused {
                register(&store, commit.infos, commit.facts).await
            } else {
                together.clone()
            };
            let _ = commit.done.send(result); // whoever asked has gone
        }
    }
}

async fn register(store: &Store, infos: Vec<PathInfo>, facts: Vec<Fact>) -> Result<(), CommitRefused> {
    if !facts.is_empty() {
        let put = store.facts.put(facts).await;
        put.map_err(|error| refused(&error, error.code()))?;
    }
    let registered = store.register(infos).await;
    registered.map_err(|error| refused(&error, error.code()))
}

fn refused(error: &dyn std::error::Error, code: Code) -> CommitRefused {
    CommitRefused {
        reason: chain(error).join(": ").into(),
        code,
    }
}
