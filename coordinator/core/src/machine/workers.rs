//! Builders come, go, fall silent, and come back.
//!
//! Invariants
//! - a builder that is gone holds no slot; what it ran is tried elsewhere, and its late results are still welcome;
//! - a builder that comes back keeps what it runs, where nobody else has it by now, and that is attended again.

use std::collections::BTreeSet;

use super::Machine;
use crate::action::{Action, Dispatch};
use crate::event::BuilderOffer;
use crate::id::{BuilderId, LeaseId};
use crate::journal::Record;
use crate::leases::{Lease, LeaseState};
use crate::node::BuildState;
use crate::timers::Timer;

impl Machine {
    pub(super) fn builder_up(&mut self, id: BuilderId, offer: BuilderOffer, running: &BTreeSet<LeaseId>) {
        self.builders.up(id, offer, self.now);
        let at = self.now.after(self.config.builder_silence_max);
        self.timers.set(at, Timer::Silence(id));
        let known: BTreeSet<LeaseId> = self.leases.of(id).into_iter().collect();
        for lease in &known {
            if running.contains(lease) {
                self.lease_found(*lease);
            } else {
                self.lease_not_found(*lease);
            }
        }
        for lease in running.difference(&known) {
            self.actions.push(Action::CancelBuild {
                lease: *lease,
                builder: id,
            });
        }
        self.place_due = true;
    }

    /// A builder that is there again still has a lease.
    fn lease_found(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.get(id).cloned() else {
            return;
        };
        let was_lost = lease.state == LeaseState::Lost;
        let build = self.graph.build(lease.build);
        let is_held = build.is_some_and(|build| build.lease() == Some(id) || build.restored == Some(id));
        // nobody else has it, and its result is still of use
        let takes_back = was_lost
            && build.is_some_and(|build| {
                matches!(
                    build.state,
                    BuildState::Backoff(_) | BuildState::Ready | BuildState::NeedsInputs
                )
            });
        self.leases.set(id, LeaseState::Live);
        self.builders.occupy(lease.builder, lease.memory_mib, self.now);
        if was_lost || lease.state == LeaseState::Restored {
            self.ready.started(lease.owner);
        }
        if takes_back {
            self.take_back(id, &lease);
        } else if !is_held || lease.state == LeaseState::Cancelling {
            self.cancel_lease(id);
            return;
        }
        self.attach(id, &lease);
    }

    fn attach(&mut self, id: LeaseId, lease: &Lease) {
        let Some(drv) = self.drv(lease.build).cloned() else {
            return;
        };
        self.actions.push(Action::Attach(Dispatch {
            lease: id,
            attempt: lease.attempt,
            builder: lease.builder,
            drv,
            memory_mib: lease.memory_mib,
        }));
    }

    fn take_back(&mut self, id: LeaseId, lease: &Lease) {
        let Some(drv) = self.drv(lease.build).cloned() else {
            return;
        };
        self.actions.push(Action::Journal(Record::Leased {
            lease: id,
            attempt: lease.attempt,
            builder: lease.builder,
            drv,
        }));
        self.let_go(lease.build);
        self.set_build(lease.build, BuildState::Leased(id));
    }

    /// A builder that is there again does not have a lease.
    fn lease_not_found(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.get(id).cloned() else {
            return;
        };
        if lease.state.has_slot() {
            self.ready.stopped(lease.owner);
        }
        // its slot was not counted anew
        let was_lost = lease.state == LeaseState::Lost;
        self.leases.set(id, LeaseState::Lost);
        if !was_lost {
            self.actions.push(Action::Journal(Record::Released { lease: id }));
        }
        self.release(id);
        self.give_elsewhere(id, lease.build, lease.builder, "the builder started anew");
    }

    fn give_elsewhere(&mut self, id: LeaseId, node: crate::graph::NodeIx, builder: BuilderId, reason: &str) {
        let build = self.graph.build_mut(node);
        let Some(build) = build else {
            return;
        };
        if build.restored == Some(id) {
            build.restored = None;
        }
        if build.lease() == Some(id) {
            self.try_elsewhere(node, Some(builder), reason);
        }
    }

    pub(super) fn builder_draining(&mut self, id: BuilderId) {
        self.builders.drain(id);
        self.watch_stranded();
    }

    pub(super) fn builder_down(&mut self, id: BuilderId) {
        if self.builders.get(id).is_none_or(|builder| !builder.up) {
            self.stats.ignored += 1;
            return;
        }
        self.lose_builder(id, "the builder is gone");
    }

    pub(super) fn check_silence(&mut self, id: BuilderId) {
        let Some(builder) = self.builders.get(id).filter(|builder| builder.up) else {
            return;
        };
        let due = builder.last_heard.after(self.config.builder_silence_max);
        if due <= self.now {
            self.lose_builder(id, "the builder has fallen silent");
        } else {
            self.timers.set(due, Timer::Silence(id));
        }
    }

    fn lose_builder(&mut self, id: BuilderId, reason: &str) {
        let leases = self.leases.of(id);
        if !leases.is_empty() {
            self.distrust(id);
        }
        self.builders.down(id);
        for lease in leases {
            self.lose_lease(lease, reason);
        }
        self.watch_stranded();
    }

    fn lose_lease(&mut self, id: LeaseId, reason: &str) {
        let Some(lease) = self.leases.get(id).cloned() else {
            return;
        };
        match lease.state {
            LeaseState::Lost | LeaseState::Restored => return,
            LeaseState::Live | LeaseState::Cancelling => self.ready.stopped(lease.owner),
        }
        self.actions.push(Action::Journal(Record::Released { lease: id }));
        if let Some(forgotten) = self.leases.lose(id) {
            self.release(forgotten);
        }
        self.give_elsewhere(id, lease.build, lease.builder, reason);
    }

    pub(super) fn end_quarantine(&mut self, id: BuilderId) {
        self.builders.refresh(id, self.now);
        self.place_due = true;
    }

    /// Builders went: what only they could run waits so long for others.
    fn watch_stranded(&mut self) {
        self.place_due = true; // those that were to be avoided are now better than none
        let at = self.now.after(self.config.no_builder_max);
        let stranded = self
            .ready
            .all_that(|fit| !self.builders.any_fits(&fit.needs, &[]));
        for node in stranded {
            self.timers.set(at, Timer::NoBuilder(node));
        }
    }
}
