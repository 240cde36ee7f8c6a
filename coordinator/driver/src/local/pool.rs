//! Builders by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use igloo_coordinator::{BuilderId, BuilderOffer};

use super::config::NamedBuilder;

/// Builders that are there.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    builders: Mutex<BTreeMap<BuilderId, Arc<NamedBuilder>>>,
    /// Those that gave no answer last time.
    silent: Mutex<BTreeSet<BuilderId>>,
}

impl Pool {
    /// A builder comes.
    pub(crate) fn add(&self, builder: NamedBuilder) -> (BuilderId, Arc<NamedBuilder>) {
        let (id, builder) = (id_of(&builder.name), Arc::new(builder));
        self.builders().insert(id, Arc::clone(&builder));
        (id, builder)
    }

    /// A builder goes. Its id, when it was there.
    pub(crate) fn remove(&self, name: &str) -> Option<BuilderId> {
        let id = id_of(name);
        self.builders().remove(&id).map(|_| id)
    }

    pub(crate) fn get(&self, id: BuilderId) -> Option<Arc<NamedBuilder>> {
        self.builders().get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(BuilderId, Arc<NamedBuilder>)> {
        let builders = self.builders();
        builders
            .iter()
            .map(|(id, builder)| (*id, Arc::clone(builder)))
            .collect()
    }

    /// Whether a builder gave no answer last time.
    pub(crate) fn is_silent(&self, id: BuilderId) -> bool {
        self.silent().contains(&id)
    }

    pub(crate) fn set_silent(&self, id: BuilderId, is_silent: bool) {
        let mut silent = self.silent();
        if is_silent {
            silent.insert(id);
        } else {
            silent.remove(&id);
        }
    }

    /// A builder for this system, whether it is busy or not.
    pub(crate) fn any_for(&self, system: &str) -> Option<Arc<NamedBuilder>> {
        let builders = self.builders();
        let mut fitting = builders
            .values()
            .filter(|builder| builder.builder.systems().iter().any(|other| other == system));
        fitting.next().cloned()
    }

    fn silent(&self) -> MutexGuard<'_, BTreeSet<BuilderId>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn builders(&self) -> MutexGuard<'_, BTreeMap<BuilderId, Arc<NamedBuilder>>> {
        self.builders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a builder offers, in the machine's words.
pub(crate) fn offer(builder: &NamedBuilder) -> BuilderOffer {
    BuilderOffer {
        systems: builder.builder.systems().into_iter().collect(),
        features: builder.features.clone(),
        mandatory_features: builder.mandatory_features.clone(),
        memory_mib: builder.memory_mib,
        slots: builder.slots,
        slots_for_evaluation: builder.slots_for_evaluation,
        network: builder.network,
        stores: builder.builder.offer().stores,
    }
}

/// The same name has the same id, over restarts too.
fn id_of(name: &str) -> BuilderId {
    let digest = blake3::hash(name.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    BuilderId(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}
