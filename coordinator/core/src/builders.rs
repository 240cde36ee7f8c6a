//! Who can build what, and who shall.
//!
//! A build is given to a builder that may run it and has room; among those, to one that can write to the goal store, then to
//! the one that misses the fewest bytes of its inputs, then to the least busy.
//!
//! Invariants
//! - `free` names exactly the builders that are up, trusted for now, and have a slot;
//! - what a builder runs, slots and memory, is what its live leases say;
//! - a builder that keeps failing as a builder is left out for longer each time, so that it cannot eat the tries of many
//!   derivations.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher as _;
use std::time::Duration;

use rustc_hash::FxHashSet;

use crate::drv::Requirements;
use crate::event::BuilderOffer;
use crate::graph::NodeIx;
use crate::id::{BuilderId, Time};
use crate::intern::SeededState;
use crate::ready::Fit;
use crate::urgency::Urgency;

/// Paths remembered as being near a builder.
const NEAR_MAX: usize = 4096;
/// Builders compared for one build.
const COMPARED_MAX: usize = 16;

/// All builders that were ever up and are not forgotten.
#[derive(Debug)]
pub(crate) struct Builders {
    known: BTreeMap<BuilderId, Builder>,
    free: BTreeSet<BuilderId>,
    store: String,
    seed: SeededState,
}

/// One builder.
#[derive(Debug)]
pub(crate) struct Builder {
    pub offer: BuilderOffer,
    pub up: bool,
    pub draining: bool,
    pub last_heard: Time,
    pub running: u32,
    pub memory_used_mib: u64,
    pub load_permille: u32,
    /// Failures of its own in a row.
    pub streak: u32,
    pub quarantined_until: Time,
    /// Asked, never iterated.
    near: FxHashSet<NodeIx>,
    near_order: VecDeque<NodeIx>,
}

impl Builders {
    pub(crate) fn new(store: String, seed: u64) -> Self {
        Self {
            known: BTreeMap::new(),
            free: BTreeSet::new(),
            store,
            seed: SeededState(seed),
        }
    }

    pub(crate) fn get(&self, id: BuilderId) -> Option<&Builder> {
        self.known.get(&id)
    }

    /// A builder comes, or comes back: what it runs is counted anew by [`Builders::occupy`].
    pub(crate) fn up(&mut self, id: BuilderId, offer: BuilderOffer, now: Time) {
        let streak = self.known.get(&id).map_or(0, |old| old.streak);
        let quarantined_until = self
            .known
            .get(&id)
            .map_or(Time::ZERO, |old| old.quarantined_until);
        let builder = Builder {
            offer,
            up: true,
            draining: false,
            last_heard: now,
            running: 0,
            memory_used_mib: 0,
            load_permille: 0,
            streak,
            quarantined_until,
            near: FxHashSet::default(),
            near_order: VecDeque::new(),
        };
        self.known.insert(id, builder);
        self.refresh(id, now);
    }

    pub(crate) fn down(&mut self, id: BuilderId) {
        self.free.remove(&id);
        // kept for its streak only
        if let Some(builder) = self.known.get_mut(&id) {
            builder.up = false;
            builder.running = 0;
            builder.memory_used_mib = 0;
            builder.near.clear();
            builder.near_order.clear();
        }
        if self.known.get(&id).is_some_and(|builder| builder.streak == 0) {
            self.known.remove(&id);
        }
    }

    pub(crate) fn drain(&mut self, id: BuilderId) {
        self.free.remove(&id);
        if let Some(builder) = self.known.get_mut(&id) {
            builder.draining = true;
        }
    }

    pub(crate) fn heard(&mut self, id: BuilderId, now: Time, load_permille: Option<u32>) {
        if let Some(builder) = self.known.get_mut(&id) {
            builder.last_heard = now;
            builder.load_permille = load_permille.unwrap_or(builder.load_permille);
        }
    }

    pub(crate) fn occupy(&mut self, id: BuilderId, memory_mib: u32, now: Time) {
        if let Some(builder) = self.known.get_mut(&id) {
            builder.running += 1;
            builder.memory_used_mib += u64::from(memory_mib);
        }
        self.refresh(id, now);
    }

    pub(crate) fn vacate(&mut self, id: BuilderId, memory_mib: u32, now: Time) {
        if let Some(builder) = self.known.get_mut(&id) {
            builder.running = builder.running.saturating_sub(1);
            builder.memory_used_mib = builder.memory_used_mib.saturating_sub(u64::from(memory_mib));
        }
        self.refresh(id, now);
    }

    /// It failed as a builder: left out for a while, longer each time. Returns until when.
    pub(crate) fn failed(&mut self, id: BuilderId, now: Time, base: Duration, max: Duration) -> Option<Time> {
        let builder = self.known.get_mut(&id)?;
        builder.streak = builder.streak.saturating_add(1);
        // the first failure may be chance
        if builder.streak < 2 {
            return None;
        }
        let wait = backoff(base, max, builder.streak - 2);
        builder.quarantined_until = now.after(wait);
        let until = builder.quarantined_until;
        self.refresh(id, now);
        Some(until)
    }

    /// It built something, or failed to as any builder would.
    pub(crate) fn served(&mut self, id: BuilderId) {
        if let Some(builder) = self.known.get_mut(&id) {
            builder.streak = 0;
        }
    }

    /// Brings `free` up to date.
    pub(crate) fn refresh(&mut self, id: BuilderId, now: Time) {
        let has_room = self
            .known
            .get(&id)
            .is_some_and(|builder| builder.has_slot(true, now));
        if has_room {
            self.free.insert(id);
        } else {
            self.free.remove(&id);
        }
    }

    /// Whether anybody has a slot.
    pub(crate) fn any_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether any builder that is up could run it, busy or not, but for those to be avoided.
    pub(crate) fn any_fits(&self, needs: &Requirements, avoid: &[BuilderId]) -> bool {
        let mut all = self.known.iter();
        all.any(|(id, builder)| builder.takes(needs) && !avoid.contains(id))
    }

    /// The builder to give a build to; `missing` counts the bytes of its inputs that one lacks.
    pub(crate) fn choose(
        &self,
        fit: &Fit,
        urgency: Urgency,
        salt: u64,
        now: Time,
        missing: impl Fn(&Builder) -> u64,
    ) -> Option<BuilderId> {
        let mut fitting = self.fitting(fit, urgency, now);
        let first = fitting.next()?;
        let Some(second) = fitting.next() else {
            return Some(first.0);
        };
        let compared = [first, second].into_iter().chain(fitting).take(COMPARED_MAX);
        let scored = compared.map(|(id, builder)| {
            let tie = self.seed.hash_one((salt, id));
            let shares_store = builder.offer.stores.contains(&self.store);
            let busy = u64::from(builder.running) * 1000 / u64::from(builder.offer.slots.max(1));
            let score = (
                !shares_store,
                missing(builder),
                busy + u64::from(builder.load_permille),
                tie,
            );
            (score, id)
        });
        scored.min().map(|(_, id)| id)
    }

    /// Whether a builder would take it now.
    pub(crate) fn can_place(&self, fit: &Fit, urgency: Urgency, now: Time) -> bool {
        self.fitting(fit, urgency, now).next().is_some()
    }

    fn fitting<'a>(
        &'a self,
        fit: &'a Fit,
        urgency: Urgency,
        now: Time,
    ) -> impl Iterator<Item = (BuilderId, &'a Builder)> + 'a {
        // those that failed with it come into question only when nobody else is there
        let elsewhere = !fit.avoid.is_empty() && self.any_fits(&fit.needs, &fit.avoid);
        let free = self.free.iter().filter_map(|id| Some((*id, self.known.get(id)?)));
        free.filter(move |(id, builder)| {
            builder.takes(&fit.needs)
                && builder.has_slot(urgency.holds_evaluation(), now)
                && builder.has_memory(fit.needs.memory_mib)
                && !(elsewhere && fit.avoid.contains(id))
        })
    }

    /// Remembers that a path is near a builder now.
    pub(crate) fn brought(&mut self, id: BuilderId, path: NodeIx) {
        let Some(builder) = self.known.get_mut(&id) else {
            return;
        };
        if builder.near.insert(path) {
            builder.near_order.push_back(path);
            if builder.near_order.len() > NEAR_MAX
                && let Some(oldest) = builder.near_order.pop_front()
            {
                builder.near.remove(&oldest);
            }
        }
    }
}

impl Builder {
    /// Whether it may run such builds at all.
    pub(crate) fn takes(&self, needs: &Requirements) -> bool {
        let offer = &self.offer;
        self.up
            && !self.draining
            && (offer.slots > 0 || offer.slots_for_evaluation > 0)
            && offer.systems.contains(&needs.system)
            && needs.features.is_subset(&offer.features)
            && offer.mandatory_features.is_subset(&needs.features)
            && (offer.network || !needs.network)
            && (offer.memory_mib == 0 || needs.memory_mib <= offer.memory_mib)
    }

    fn has_slot(&self, for_evaluation: bool, now: Time) -> bool {
        let reserved = if for_evaluation {
            self.offer.slots_for_evaluation
        } else {
            0
        };
        self.up
            && !self.draining
            && self.quarantined_until <= now
            && self.running < self.offer.slots.saturating_add(reserved)
    }

    fn has_memory(&self, memory_mib: u32) -> bool {
        let offer = u64::from(self.offer.memory_mib);
        offer == 0 || self.memory_used_mib + u64::from(memory_mib) <= offer
    }

    /// Whether a path was brought there lately.
    pub(crate) fn is_near(&self, path: NodeIx) -> bool {
        self.near.contains(&path)
    }
}

/// `base`, doubled `times` times, at most `max`.
pub(crate) fn backoff(base: Duration, max: Duration, times: u32) -> Duration {
    base.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
        .min(max)
}
