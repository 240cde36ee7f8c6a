//! Builds end, well or not, and outputs become valid.
//!
//! Invariants
//! - nothing is valid before the store has said so: a build that succeeded is committed first;
//! - the first result of a derivation is committed, whichever lease it came under; those after it are dropped;
//! - a lease whose result is committed is open in the journal until that is done: after a crash amid it, a builder that
//!   still has the result gives it again, and nothing is built twice;
//! - a builder's failure is counted against the builder, never told as the derivation's.

use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use super::Machine;
use crate::action::{Action, Provenance};
use crate::event::{BuildEnd, BuildFault, CommitResult, MadeOutput};
use crate::failure::FailureKind;
use crate::graph::NodeIx;
use crate::id::{BuilderId, LeaseId};
use crate::journal::Record;
use crate::leases::{Lease, LeaseState};
use crate::node::BuildState;
use crate::timers::Timer;

/// Outputs on their way into the store.
#[derive(Debug)]
pub(super) struct Committing {
    pub lease: Lease,
    outputs: Vec<MadeOutput>,
}

impl Machine {
    pub(super) fn ended(&mut self, id: LeaseId, end: BuildEnd) {
        let Some(lease) = self.let_lease_go(id) else {
            self.stats.ignored += 1;
            return;
        };
        let holds = self.graph.build(lease.build).and_then(|build| build.lease()) == Some(id);
        match end {
            BuildEnd::Built { outputs, .. } => {
                self.builders.served(lease.builder);
                self.built(id, lease, outputs);
            }
            BuildEnd::Failed(fault) => {
                self.note_released(id, &lease);
                if holds {
                    self.fault(&lease, fault);
                }
            }
        }
    }

    /// A lease is over, and so it stands in the journal.
    pub(super) fn release(&mut self, id: LeaseId) {
        if let Some(lease) = self.let_lease_go(id) {
            self.note_released(id, &lease);
        }
    }

    /// That of a lost one stands there since it was lost.
    fn note_released(&mut self, id: LeaseId, lease: &Lease) {
        if lease.state != LeaseState::Lost {
            self.actions.push(Action::Journal(Record::Released { lease: id }));
        }
    }

    /// A lease is over: its slot is free.
    fn let_lease_go(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(id)?;
        self.unmention(lease.build);
        if lease.state.has_slot() {
            self.builders.vacate(lease.builder, lease.memory_mib, self.now);
            self.ready.stopped(lease.owner);
            self.place_due = true;
        }
        if let Some(build) = self.graph.build_mut(lease.build)
            && build.restored == Some(id)
        {
            build.restored = None;
        }
        Some(lease)
    }

    fn built(&mut self, id: LeaseId, lease: Lease, outputs: Vec<MadeOutput>) {
        let node = lease.build;
        let Some(build) = self.graph.build(node) else {
            return self.note_released(id, &lease);
        };
        let drv = build.drv.clone();
        match build.state {
            BuildState::Committing | BuildState::Failed(_) => return self.note_released(id, &lease),
            // a late result when another is valid already
            BuildState::Idle if !build.outputs.is_empty() && !self.lacks_outputs(build) => {
                return self.note_released(id, &lease);
            }
            BuildState::Leased(other) if other != id => self.cancel_lease(other),
            BuildState::Leased(_) => {}
            _ => self.let_go(node),
        }
        self.set_build(node, BuildState::Committing);
        let provenance = Provenance {
            lease: id,
            attempt: lease.attempt,
            builder: lease.builder,
            ordered: lease.ordered,
            ended: self.now,
        };
        self.actions.push(Action::Commit {
            drv,
            outputs: outputs.clone(),
            provenance,
        });
        self.mention(node);
        self.committing.insert(id, Committing { lease, outputs });
    }

    pub(super) fn committed(&mut self, id: LeaseId, result: CommitResult) {
        let Some(Committing { lease, outputs }) = self.committing.remove(&id) else {
            self.stats.ignored += 1;
            return;
        };
        let node = lease.build;
        self.unmention(node);
        self.note_released(id, &lease);
        match result {
            CommitResult::Valid => self.made(node, id, &outputs),
            CommitResult::Rejected { reason } => {
                let failure = self.failure_of(node, FailureKind::Permanent, reason);
                self.fail_for_good(node, failure);
            }
            CommitResult::Error { reason } => self.try_elsewhere(node, None, &reason),
        }
    }

    /// A derivation's outputs are valid.
    fn made(&mut self, node: NodeIx, lease: LeaseId, made: &[MadeOutput]) {
        let Some(build) = self.graph.build(node) else {
            return;
        };
        let drv = build.drv.clone();
        let outputs: Vec<(OutputName, StorePath)> = made
            .iter()
            .map(|output| (output.name.clone(), output.path.clone()))
            .collect();
        let named = build.outputs.clone();
        self.stats.committed += 1;
        self.actions
            .push(Action::Journal(Record::Committed { drv, lease, outputs }));
        for (name, output) in named {
            let name = self.intern.name_of(name);
            match made.iter().find(|made| made.name == *name) {
                Some(made) => self.output_made(output, made),
                None => {
                    let reason = format!("the builder did not give output `{name}`");
                    let failure = self.failure_of(node, FailureKind::Infrastructure, reason);
                    self.fail_at_root(output, failure);
                }
            }
        }
        if let Some(build) = self.graph.build_mut(node) {
            build.state = BuildState::Idle;
            build.infrastructure_failures = 0;
            build.transient_failures = 0;
            build.avoid.clear();
        }
        self.succeed(node);
    }

    fn output_made(&mut self, node: NodeIx, made: &MadeOutput) {
        self.output_found(node, &made.path, made.nar_size);
    }

    /// An output is valid at that path, which must be the one it was known to have, if it was.
    pub(super) fn output_found(&mut self, node: NodeIx, found: &StorePath, nar_size: u64) {
        let Some(path) = self.graph.path_mut(node) else {
            return;
        };
        path.nar_size = nar_size;
        if path.path.get_or_insert_with(|| found.clone()) == found {
            self.path_valid(node);
        } else {
            let reason =
                format!("it was committed as {found}; this is a bug of whoever drives the coordinator");
            let failure = self.failure_of(node, FailureKind::Refused(igloo_status::Code::Internal), reason);
            self.fail_at_root(node, failure);
        }
    }

    fn fault(&mut self, lease: &Lease, fault: BuildFault) {
        let node = lease.build;
        match fault {
            BuildFault::Permanent { reason } => {
                self.builders.served(lease.builder);
                let failure = self.failure_of(node, FailureKind::Permanent, reason);
                self.fail_for_good(node, failure);
            }
            BuildFault::Transient { reason } => self.try_later(node, reason),
            BuildFault::OutOfMemory { memory_mib } => self.try_larger(node, memory_mib),
            BuildFault::Infrastructure { reason } => {
                self.distrust(lease.builder);
                self.try_elsewhere(node, Some(lease.builder), &reason);
            }
            BuildFault::InputsMissing { paths } => self.look_again(node, &paths),
            // not by us: the builder wants to be rid of it
            BuildFault::Cancelled => {
                let reason = "the builder gave the build up";
                self.try_elsewhere(node, Some(lease.builder), reason);
            }
        }
    }

    /// A builder failed as a builder.
    pub(super) fn distrust(&mut self, builder: BuilderId) {
        let (base, max) = (self.config.backoff, self.config.backoff_max);
        if let Some(until) = self.builders.failed(builder, self.now, base, max) {
            self.timers.set(until, Timer::Quarantine(builder));
        }
    }

    pub(super) fn try_elsewhere(&mut self, node: NodeIx, builder: Option<BuilderId>, reason: &str) {
        let Some(build) = self.graph.build_mut(node) else {
            return;
        };
        build.infrastructure_failures += 1;
        let count = build.infrastructure_failures;
        if let Some(builder) = builder.filter(|builder| !build.avoid.contains(builder)) {
            build.avoid.push(builder);
            build.avoid.sort_unstable();
        }
        if count < self.config.infrastructure_attempts_max {
            self.back_off(node, count);
        } else {
            let reason = format!("builders failed {count} times, not the build; the last: {reason}");
            let failure = self.failure_of(node, FailureKind::Infrastructure, reason);
            self.fail_for_good(node, failure);
        }
    }

    fn try_later(&mut self, node: NodeIx, reason: String) {
        let Some(build) = self.graph.build_mut(node) else {
            return;
        };
        build.transient_failures += 1;
        let count = build.transient_failures;
        if count < self.config.transient_attempts_max {
            self.back_off(node, count);
        } else {
            let failure = self.failure_of(node, FailureKind::Transient, reason);
            self.fail_for_good(node, failure);
        }
    }

    fn try_larger(&mut self, node: NodeIx, memory_mib: u32) {
        let build = self.graph.build(node);
        let info = build.filter(|build| build.larger.is_none());
        let needs = info
            .and_then(|build| build.info.as_ref())
            .map(|info| info.needs.clone());
        let Some(needs) = needs else {
            let reason = format!("it ran out of memory, with {memory_mib} MiB");
            let failure = self.failure_of(node, FailureKind::OutOfMemory, reason);
            self.fail_for_good(node, failure);
            return;
        };
        let mut needs = (*needs).clone();
        needs.memory_mib = memory_mib.max(needs.memory_mib).max(1).saturating_mul(2);
        let larger = self.intern.needs(needs);
        if let Some(build) = self.graph.build_mut(node) {
            build.larger = Some(larger);
        }
        self.make_ready(node);
    }

    fn back_off(&mut self, node: NodeIx, attempts: u32) {
        if self.graph[node].demand.top().is_none() {
            self.let_go(node);
            return;
        }
        let at = self.wait_before(attempts);
        self.set_build(node, BuildState::Backoff(at));
        self.timers.set(at, Timer::Again(node));
    }

    /// Inputs are gone since they were found valid.
    fn look_again(&mut self, node: NodeIx, paths: &[StorePath]) {
        for path in paths {
            self.path_gone(path);
        }
        let Some(build) = self.graph.build_mut(node) else {
            return;
        };
        build.infrastructure_failures += 1;
        if build.infrastructure_failures < self.config.infrastructure_attempts_max {
            self.expand(node);
            return;
        }
        let path = paths.first().map(ToString::to_string).unwrap_or_default();
        let reason = format!("inputs go missing from the store again and again, such as {path}");
        let failure = self.failure_of(node, FailureKind::Infrastructure, reason);
        self.fail_for_good(node, failure);
    }

    /// Tells a builder to stop.
    pub(super) fn cancel_lease(&mut self, id: LeaseId) {
        let Some(lease) = self
            .leases
            .get(id)
            .filter(|lease| lease.state == LeaseState::Live)
        else {
            return;
        };
        let builder = lease.builder;
        self.leases.set(id, LeaseState::Cancelling);
        self.actions.push(Action::CancelBuild { lease: id, builder });
    }

    /// The grace of a build that nobody wanted is over.
    pub(super) fn check_unwanted(&mut self, id: LeaseId) {
        let Some(node) = self.leases.get(id).map(|lease| lease.build) else {
            return;
        };
        let holds = self.graph.build(node).and_then(|build| build.lease()) == Some(id);
        if holds && self.graph[node].demand.top().is_none() {
            self.cancel_lease(id);
            self.let_go(node);
        }
    }
}
