//! Orders that builders have been given.
//!
//! Invariants
//! - ids count up and are never given twice;
//! - at most one lease of a derivation is `Live` or `Restored`; the others are over but for the builder's last word;
//! - of lost ones at most [`LOST_MAX`] are remembered, the latest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::graph::NodeIx;
use crate::id::{BuilderId, ClientId, LeaseId, Time};

/// Most lost leases remembered.
const LOST_MAX: usize = 4096;

/// All leases that may still be heard of.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    all: BTreeMap<LeaseId, Lease>,
    of_builder: BTreeMap<BuilderId, BTreeSet<LeaseId>>,
    lost: VecDeque<LeaseId>,
    last: u64,
}

/// One order.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub build: NodeIx,
    pub builder: BuilderId,
    pub attempt: u32,
    pub memory_mib: u32,
    pub ordered: Time,
    pub owner: ClientId,
    pub state: LeaseState,
}

/// How an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseState {
    /// It runs, in a slot.
    Live,
    /// The builder was told to stop; it still has the slot.
    Cancelling,
    /// The builder is gone. A result that comes yet is welcome while there is none.
    Lost,
    /// Known from before a restart; the builder has not come back yet.
    Restored,
}

impl Leases {
    /// A new id.
    pub(crate) fn next_id(&mut self) -> LeaseId {
        self.last += 1;
        LeaseId(self.last)
    }

    /// Ids up to this one are taken.
    pub(crate) fn given(&mut self, last: LeaseId) {
        self.last = self.last.max(last.0);
    }

    pub(crate) fn last(&self) -> LeaseId {
        LeaseId(self.last)
    }

    pub(crate) fn insert(&mut self, id: LeaseId, lease: Lease) {
        self.of_builder.entry(lease.builder).or_default().insert(id);
        self.all.insert(id, lease);
    }

    pub(crate) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.all.get(&id)
    }

    pub(crate) fn set(&mut self, id: LeaseId, state: LeaseState) {
        if let Some(lease) = self.all.get_mut(&id) {
            lease.state = state;
        }
    }

    /// Keeps a lease that is over, for a late result. Returns one that is forgotten instead.
    pub(crate) fn lose(&mut self, id: LeaseId) -> Option<LeaseId> {
        self.set(id, LeaseState::Lost);
        self.lost.push_back(id);
        if self.lost.len() <= LOST_MAX {
            return None;
        }
        let oldest = self.lost.pop_front()?;
        let is_lost = |lease: &Lease| lease.state == LeaseState::Lost;
        self.all.get(&oldest).is_some_and(is_lost).then_some(oldest)
    }

    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.all.remove(&id)?;
        if let Some(ids) = self.of_builder.get_mut(&lease.builder) {
            ids.remove(&id);
            if ids.is_empty() {
                self.of_builder.remove(&lease.builder);
            }
        }
        Some(lease)
    }

    /// All of one builder.
    pub(crate) fn of(&self, builder: BuilderId) -> Vec<LeaseId> {
        let ids = self.of_builder.get(&builder);
        ids.into_iter().flatten().copied().collect()
    }

    /// All, in order of id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.all.iter().map(|(id, lease)| (*id, lease))
    }
}

impl LeaseState {
    /// Whether it takes up a slot of its builder.
    pub(crate) fn has_slot(self) -> bool {
        matches!(self, Self::Live | Self::Cancelling)
    }
}
