//! What is to be looked at later.
//!
//! A timer is a reminder, not a promise: whoever is reminded checks whether there is still cause.
//!
//! Invariants
//! - reminders of one moment come in the order they were set.

use std::collections::BTreeMap;

use crate::graph::NodeIx;
use crate::id::{BuilderId, LeaseId, Time};

/// Reminders by time.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<(Time, u64), Timer>,
    next: u64,
}

/// A reminder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Has the builder been heard of?
    Silence(BuilderId),
    /// May the builder be used again?
    Quarantine(BuilderId),
    /// A build or a path may be tried again.
    Again(NodeIx),
    /// May a build race this fetch?
    Hedge(NodeIx),
    /// Is there a builder for it by now?
    NoBuilder(NodeIx),
    /// Does anybody want this build again?
    Unwanted(LeaseId),
    /// Has the builder come back with this lease?
    Reattach(LeaseId),
}

impl Timers {
    pub(crate) fn set(&mut self, at: Time, timer: Timer) {
        if at < Time::NEVER {
            self.due.insert((at, self.next), timer);
            self.next += 1;
        }
    }

    /// The next that is due, taken out.
    pub(crate) fn pop(&mut self, now: Time) -> Option<Timer> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(crate) fn next_at(&self) -> Option<Time> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }
}
