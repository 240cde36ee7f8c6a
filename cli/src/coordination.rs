//! How the parts of a build are put together: store, builders, evaluator, substituters, keys, coordinator.
//!
//! Map: [`builders`] who builds; [`substituters`] where paths are fetched from, and who signs; [`state`] where the coordinator
//! keeps its journal and logs.
//!
//! Invariant: a builder of this machine is set up when the first build needs it. What needs no build needs no machine.

mod builders;
mod state;
mod substituters;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use igloo_driver::job::Coordinator;
use igloo_driver::local::config::{JournalConfig, JournalSync};
use igloo_driver::{LocalConfig, LocalCoordinator};
use igloo_evaluator::{Evaluator, LocalEvaluator};
use igloo_remote::{Connection, RemoteCoordinator, RemoteEvaluator};
use igloo_store::{Store, StoreUrl};
use igloo_store_io::FetchLimits;
use nix_compat::store_path::{StoreDir, StorePath};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::context::Context;
use crate::evaluation::{fetcher, machine, trees};
use crate::failure::Failure;
use crate::stores;
use state::State;

/// How long what was stopped may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a command that builds needs.
#[derive(Debug)]
pub struct Parts {
    /// Runs its jobs.
    pub coordinator: Arc<dyn Coordinator>,
    /// How its paths are printed.
    pub dir: StoreDir,
    /// The same, where it is in this process.
    local: Option<Arc<LocalCoordinator>>,
    /// Its folder, as long as it works.
    _state: Option<State>,
    /// Says that this machine cannot build at all, and what to do about it: the command ends with that.
    pub broken: mpsc::Receiver<Failure>,
}

/// How long a coordinator is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// For one command: what builders still do for it at its end is stopped.
    Command,
    /// For others: what was wanted when it ended is wanted again after a restart, and builders go on meanwhile.
    Server,
}

/// The parts of this configuration.
///
/// # Errors
/// When the store, a key or a substituter cannot be used, or a peer does not answer.
pub async fn open(context: &Context, config: &Config) -> Result<Parts, Failure> {
    open_with(context, config, config.builder.as_slice(), Life::Command).await
}

/// The same with these builders, URLs or names, in place of the configured one; none means this machine.
///
/// # Errors
/// As for [`open`].
pub async fn open_with(
    context: &Context,
    config: &Config,
    builders: &[String],
    life: Life,
) -> Result<Parts, Failure> {
    if let Some(url) = &config.coordinator {
        return elsewhere(url).await;
    }
    let store = stores::open(context).await?;
    let evaluator = evaluator(context, config, &store).await?;
    here(context, config, builders, &store, Some(evaluator), life).await
}

/// The same over a store that is open already, for jobs without an evaluation.
///
/// # Errors
/// As for [`open`].
pub async fn open_over(context: &Context, config: &Config, store: &Store) -> Result<Parts, Failure> {
    match &config.coordinator {
        Some(url) => elsewhere(url).await,
        None => {
            here(
                context,
                config,
                config.builder.as_slice(),
                store,
                None,
                Life::Command,
            )
            .await
        }
    }
}

async fn elsewhere(url: &str) -> Result<Parts, Failure> {
    let connection = Connection::open(url).await?;
    Ok(Parts {
        dir: StoreDir::default(),
        coordinator: Arc::new(RemoteCoordinator::new(&connection).await?),
        local: None,
        _state: None,
        broken: mpsc::channel(1).1,
    })
}

async fn here(
    context: &Context,
    config: &Config,
    builders: &[String],
    store: &Store,
    evaluator: Option<Arc<dyn Evaluator>>,
    life: Life,
) -> Result<Parts, Failure> {
    let (teller, broken) = mpsc::channel(1);
    let state = state::take(context)?;
    let mut local = LocalConfig::new(
        store.clone(),
        state.dir.clone(),
        builders::configured(context, config, builders, teller).await?,
    );
    local.evaluator = evaluator;
    local.substituters = substituters::open(config, &store.dir).await?;
    local.secret_keys = substituters::secret_keys(config)?;
    local.journal = JournalConfig {
        sync: match builders.is_empty() {
            true => JournalSync::Written, // what is lost with this machine, its builders lose too
            false => JournalSync::Group,  // others remember what they were given
        },
        resume: life == Life::Server,
        ..JournalConfig::default()
    };
    // no other builder will come: what none can build need not wait for one
    local.machine.no_builder_max = Duration::ZERO;
    local.machine.store.clone_from(&context.store_url);
    local.seed = RandomState::new().hash_one(std::process::id());
    let dir = store.dir.clone();
    let coordinator = LocalCoordinator::open(local).await.map_err(|error| {
        let code = error.code();
        Failure::coded(error, code)
    })?;
    let coordinator = Arc::new(coordinator);
    Ok(Parts {
        coordinator: Arc::<LocalCoordinator>::clone(&coordinator),
        dir,
        local: Some(coordinator),
        _state: Some(state),
        broken,
    })
}

impl Parts {
    /// Stops what still goes on, machines included. Waits for that, but not for ever.
    pub async fn close(&self) {
        if let Some(local) = &self.local {
            let _ = tokio::time::timeout(PATIENCE, local.close()).await; // the end of the process stops it too
        }
    }
}

/// The log of the last build of a derivation. Reads beside a coordinator that runs.
///
/// # Errors
/// When it cannot be read.
pub async fn log(context: &Context, config: &Config, drv: &StorePath) -> Result<Option<Bytes>, Failure> {
    if config.coordinator.is_some() {
        let parts = open(context, config).await?;
        return parts.coordinator.log(drv).await.map_err(|error| {
            let code = error.code();
            Failure::coded(error, code)
        });
    }
    let log = igloo_driver::local::read_log(&state::all(context)?, drv).await;
    log.map_err(|error| {
        let code = igloo_status::Code::from_io(&error);
        Failure::coded(anyhow::Error::new(error).context("the log cannot be read"), code)
    })
}

/// The configured evaluator, else this process.
async fn evaluator(context: &Context, config: &Config, store: &Store) -> Result<Arc<dyn Evaluator>, Failure> {
    let Some(url) = &config.evaluator else {
        let runtime = tokio::runtime::Handle::current();
        let local = LocalEvaluator::new(store.clone(), runtime, Arc::new(machine));
        return Ok(Arc::new(
            local
                .with_fetcher(Arc::new(fetcher()), FetchLimits::default())
                .with_trees(trees()),
        ));
    };
    if !matches!(context.store_url.parse()?, StoreUrl::Remote { .. }) {
        let message = format!("the evaluator {url} cannot write to {}", context.store_url);
        return Err(Failure::usage(message).with_hint(
            "serve the store with `igloo store daemon`, and give its URL to this command and to the evaluator",
        ));
    }
    let connection = Connection::open(url).await?;
    Ok(Arc::new(
        RemoteEvaluator::new(&connection, store.dir.clone()).await?,
    ))
}
