//! Ready builds meet free builders.
//!
//! Invariants
//! - when this returns, no builder has room for any build that is ready and fits it;
//! - the lease is in the journal before the builder hears of it.

use super::Machine;
use crate::action::{Action, Dispatch};
use crate::builders::Builder;
use crate::graph::NodeIx;
use crate::id::{BuilderId, LeaseId};
use crate::journal::Record;
use crate::leases::{Lease, LeaseState};
use crate::node::BuildState;
use crate::ready::{Fit, Head};

/// Inputs looked at to tell how near a builder is.
const INPUTS_COMPARED_MAX: usize = 32;

impl Machine {
    pub(super) fn place(&mut self) {
        if !std::mem::take(&mut self.place_due) {
            return;
        }
        while self.builders.any_free()
            && let Some(head) = self.best_head()
        {
            self.ready.remove(head.node);
            if self.graph[head.node].demand.top().is_none() {
                self.let_go(head.node);
            } else if !self.place_one(&head) {
                return;
            }
        }
    }

    fn best_head(&self) -> Option<Head> {
        let fitting = self.ready.heads();
        let mut fitting = fitting.filter(|head| self.builders.can_place(&head.fit, head.urgency, self.now));
        let first = fitting.next()?;
        Some(fitting.fold(
            first,
            |best, head| if head.is_before(&best) { head } else { best },
        ))
    }

    fn place_one(&mut self, head: &Head) -> bool {
        let inputs = self.inputs_near(head.node);
        let missing = |builder: &Builder| {
            let far = inputs.iter().filter(|(node, _)| !builder.is_near(*node));
            far.fold(0u64, |sum, (_, size)| sum.saturating_add(*size))
        };
        let salt = self.leases.last().0;
        let builder = self
            .builders
            .choose(&head.fit, head.urgency, salt, self.now, missing);
        let Some(builder) = builder else {
            return false;
        };
        for (input, _) in inputs {
            self.builders.brought(builder, input);
        }
        self.lease(head.node, &head.fit, builder);
        true
    }

    /// Some inputs of a build, with their sizes.
    fn inputs_near(&self, node: NodeIx) -> Vec<(NodeIx, u64)> {
        let info = self.graph.build(node).and_then(|build| build.info.as_ref());
        let Some(info) = info else {
            return Vec::new();
        };
        let outputs = info.inputs.iter();
        let outputs = outputs.filter_map(|(drv, name)| self.graph.build(*drv)?.output(*name));
        let all = outputs
            .chain(info.sources.iter().copied())
            .take(INPUTS_COMPARED_MAX);
        all.filter_map(|input| Some((input, self.graph.path(input)?.nar_size)))
            .collect()
    }

    fn lease(&mut self, node: NodeIx, fit: &Fit, builder: BuilderId) {
        let id = self.leases.next_id();
        let owner = self.graph[node].owner;
        let Some(build) = self.graph.build_mut(node) else {
            return;
        };
        build.attempt += 1;
        build.state = BuildState::Leased(id);
        let (attempt, drv) = (build.attempt, build.drv.clone());
        let memory_mib = fit.needs.memory_mib;
        let lease = Lease {
            build: node,
            builder,
            attempt,
            memory_mib,
            ordered: self.now,
            owner,
            state: LeaseState::Live,
        };
        self.add_lease(id, lease);
        self.builders.occupy(builder, memory_mib, self.now);
        self.ready.started(owner);
        self.stats.dispatched += 1;
        self.actions.push(Action::Journal(Record::Leased {
            lease: id,
            attempt,
            builder,
            drv: drv.clone(),
        }));
        self.actions.push(Action::Dispatch(Dispatch {
            lease: id,
            attempt,
            builder,
            drv,
            memory_mib,
        }));
    }

    pub(super) fn add_lease(&mut self, id: LeaseId, lease: Lease) {
        self.mention(lease.build);
        self.leases.insert(id, lease);
    }
}
