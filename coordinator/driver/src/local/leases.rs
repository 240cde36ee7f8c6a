//! Leases at builders: what the machine's orders are called there, and which builders are there at all.
//!
//! A builder whose builds outlive their calls is given each under a lease: owner is this state folder, subject the
//! derivation, id the machine's. After a restart, or a silence, a builder says which it still has; the machine says which of
//! these are attended again, and the others are released.
//!
//! Invariants
//! - a lease is released only when its end has been dealt with (committed, or told as failed), or nobody wants it;
//! - the owner's name changes with a new journal: its ids begin anew, and builders would take them for outdated.
//!
//! On disk: `STATE/owner`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use igloo_build::{Builder, Lease, LeaseOwner};
use igloo_coordinator::{BuilderId, Event, LeaseId};
use nix_compat::store_path::StorePath;
use tokio::time::timeout;

use super::config::NamedBuilder;
use super::shared::Shared;

/// How long a builder may take to let a build go; longer, and it lets go by itself some time.
const RELEASE_WITHIN: Duration = Duration::from_secs(3);
/// Longest time between two looks whether builders are there.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a builder may take to say what it has.
const LIST_WITHIN: Duration = Duration::from_secs(20);

/// A lease that a builder keeps.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub builder: Arc<dyn Builder>,
    pub lease: Lease,
}

impl Held {
    /// Has the builder stop it, or forget it.
    pub(crate) async fn release(self) {
        let released = timeout(RELEASE_WITHIN, self.builder.release(&self.lease)).await;
        if !matches!(released, Ok(Ok(()))) {
            let lease = self.lease;
            tracing::debug!(%lease, "it is not released: the builder lets go of it in time");
        }
    }
}

impl Shared {
    /// What an order is called at a builder.
    pub(crate) fn lease(&self, drv: &StorePath, id: LeaseId) -> Option<Lease> {
        // the name of a derivation is a subject
        Lease::new(self.owner.clone(), drv.to_string().into(), id.0).ok()
    }

    /// A builder needs not keep a lease any more, if it does.
    pub(crate) async fn release(&self, id: LeaseId) {
        if let Some(held) = self.transfers.take_held(id) {
            held.release().await;
        }
    }

    /// Releases all.
    pub(crate) async fn release_all(&self) {
        let held = self.transfers.take_all_held().into_iter();
        future::join_all(held.map(Held::release)).await;
    }

    /// A builder need not keep what the machine does not know, or does not want.
    pub(crate) async fn release_at(&self, builder: BuilderId, id: LeaseId) {
        self.release(id).await;
        let Some(builder) = self.pool.get(builder) else {
            return;
        };
        let Ok(Ok(leases)) = timeout(LIST_WITHIN, builder.builder.leases(&self.owner)).await else {
            return; // it is asked again when it answers again
        };
        for status in leases {
            if status.lease.id() == id.0 {
                let builder = Arc::clone(&builder.builder);
                let lease = status.lease;
                Held { builder, lease }.release().await;
            }
        }
    }

    /// A builder comes, or answers again: what it still has is told.
    pub(crate) async fn builder_up(&self, id: BuilderId, builder: &NamedBuilder) {
        let leases = timeout(LIST_WITHIN, builder.builder.leases(&self.owner)).await;
        let Ok(Ok(leases)) = leases else {
            let builder = &builder.name;
            tracing::warn!(%builder, "a builder does not answer; it is asked again");
            self.pool.set_silent(id, true);
            return;
        };
        self.pool.set_silent(id, false);
        let kept = leases.into_iter().map(|status| LeaseId(status.lease.id()));
        // those that are attended are there, whatever was listed while they were being ordered
        let running: BTreeSet<LeaseId> = kept.chain(self.transfers.runs_of(id)).collect();
        let event = Event::BuilderUp {
            builder: id,
            offers: super::pool::offer(builder),
            running,
        };
        self.tell(event).await;
    }
}

/// Looks whether builders are there, and how busy they are.
pub(super) async fn watch_builders(shared: Arc<Shared>) {
    let every = shared.config.heartbeat().min(LOOK_EVERY);
    loop {
        tokio::time::sleep(every).await;
        let builders = shared.pool.all().into_iter();
        future::join_all(builders.map(|(id, builder)| look(&shared, id, builder, every))).await;
    }
}

async fn look(shared: &Shared, id: BuilderId, builder: Arc<NamedBuilder>, within: Duration) {
    match timeout(within, builder.builder.load()).await {
        Ok(Ok(_)) if shared.pool.is_silent(id) => shared.builder_up(id, &builder).await,
        Ok(Ok(load)) => {
            let event = Event::Heartbeat {
                builder: id,
                load_permille: load.permille,
            };
            shared.tell(event).await;
        }
        _ => shared.pool.set_silent(id, true),
    }
}

/// The name under which this state folder gives orders. Blocks.
pub(super) fn owner(dir: &Path, seed: u64, is_new: bool) -> std::io::Result<LeaseOwner> {
    let path = dir.join("owner");
    if !is_new {
        match std::fs::read_to_string(&path) {
            Ok(name) => {
                if let Ok(owner) = LeaseOwner::try_from(name.trim_end()) {
                    return Ok(owner);
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&seed.to_le_bytes())
        .update(dir.as_os_str().as_encoded_bytes());
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    hasher.update(&since.as_nanos().to_le_bytes());
    let name = format!("coordinator-{}", &hasher.finalize().to_hex()[..32]);
    let new = dir.join("owner.new");
    let mut file = File::create(&new)?;
    file.write_all(format!("{name}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, &path)?; // the journal's first sync of the folder makes it last
    LeaseOwner::try_from(name.as_str()).map_err(std::io::Error::other)
}
