//! The machine checks itself, for tests and for whoever suspects it.

use super::Machine;
use crate::graph::{NodeIx, Role};
use crate::leases::LeaseState;
use crate::node::{BuildState, Kind};
use crate::urgency::Demand;

impl Machine {
    /// Checks the invariants of all parts against each other. Cost: the whole graph; nothing but tests should call it often.
    ///
    /// # Errors
    /// The first invariant that does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        for node in self.graph.places() {
            self.check_edges(node)?;
            if self.work.is_empty() && self.spread.is_settled() {
                self.check_demand(node)?;
            }
            self.check_state(node)?;
        }
        self.check_leases()?;
        self.check_work_conserved()
    }

    fn check_edges(&self, place: NodeIx) -> Result<(), String> {
        let node = &self.graph[place];
        let open = || node.needs.iter().filter(|need| need.open);
        let waiting = open().filter(|need| need.role != Role::Producer).count();
        ensure(waiting == node.waiting as usize, || {
            format!("{place:?} counts {} edges, has {waiting}", node.waiting)
        })?;
        for need in open() {
            let back = self.graph[need.to].needed_by.iter();
            let back = back.filter(|edge| edge.from == place).count();
            ensure(back > 0, || {
                format!("{place:?} needs {:?}, which does not know", need.to)
            })?;
        }
        for edge in &node.needed_by {
            let mut needs = self.graph[edge.from].needs.iter();
            let known = needs.any(|need| need.open && need.to == place);
            ensure(known, || format!("{place:?} is not needed by {:?}", edge.from))?;
        }
        Ok(())
    }

    fn check_demand(&self, place: NodeIx) -> Result<(), String> {
        let node = &self.graph[place];
        if matches!(node.kind, Kind::Want(_)) {
            return Ok(());
        }
        let mut demand = Demand::default();
        for edge in &node.needed_by {
            if let Some(urgency) = self.graph[edge.from].passed {
                demand.add(urgency);
            }
        }
        ensure(demand == node.demand && node.passed == demand.top(), || {
            format!(
                "{place:?} is wanted {demand:?}, has {:?}, passes {:?}",
                node.demand, node.passed
            )
        })
    }

    fn check_state(&self, place: NodeIx) -> Result<(), String> {
        let Some(build) = self.graph.build(place) else {
            return Ok(());
        };
        let is_ready = matches!(build.state, BuildState::Ready);
        ensure(is_ready == self.ready.holds(place), || {
            format!("{place:?} is {:?}, and in the queue or not", build.state)
        })?;
        let lease = build.lease();
        let out = lease.is_none_or(|lease| self.leases.get(lease).is_some_and(|lease| lease.build == place));
        ensure(out, || format!("{place:?} runs under a lease that is not"))
    }

    fn check_leases(&self) -> Result<(), String> {
        for (id, lease) in self.leases.iter() {
            let build = self.graph.build(lease.build);
            let Some(build) = build else {
                return Err(format!("lease {id} is of no build"));
            };
            // one that was restored may run before its derivation is needed
            let holds = build.lease() == Some(id) || build.restored == Some(id);
            let ends_unheard = matches!(
                build.state,
                BuildState::Committing | BuildState::Idle | BuildState::Failed(_)
            );
            ensure(lease.state != LeaseState::Live || holds || ends_unheard, || {
                format!("lease {id} runs for nobody: {:?}", build.state)
            })?;
        }
        Ok(())
    }

    fn check_work_conserved(&self) -> Result<(), String> {
        if !self.work.is_empty() {
            return Ok(());
        }
        for head in self.ready.heads() {
            let idle = self.builders.can_place(&head.fit, head.urgency, self.now);
            ensure(!idle, || format!("{:?} is ready, and a builder idle", head.node))?;
        }
        Ok(())
    }
}

fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(text()) }
}
