//! Consequences: what being settled, doomed, wanted or unwanted does to the neighbours of a node.
//!
//! Invariants
//! - *settled* is final for the edge, *doomed* is early news: the node will fail, though other things it needs go on for
//!   those who keep going;
//! - a node's neighbours are marked doomed in the same step in which its failure closes their edges, so nobody takes "nothing
//!   left to wait for" for "all is well".

use std::sync::Arc;

use super::Machine;
use crate::failure::Failure;
use crate::graph::{NodeIx, Role};
use crate::id::Time;
use crate::node::{BuildState, Failed, FetchTrack, Kind, PathState};

/// A consequence to be worked off.
#[derive(Debug)]
pub(super) enum Work {
    /// Something the node needed is settled, well or not.
    Settled {
        node: NodeIx,
        role: Role,
        failure: Option<Arc<Failure>>,
    },
    /// The node is doomed: its dependents are told.
    Doomed(NodeIx),
    /// Some reference of the path cannot be had.
    Broken(NodeIx),
}

/// What a node is to one that comes to need it.
enum Standing {
    Valid,
    Failed(Arc<Failure>),
    Open,
}

impl Machine {
    /// `from` needs `to` from now on, unless that is valid already.
    ///
    /// # Errors
    /// It has failed, not long ago; then there is no edge.
    pub(super) fn need(&mut self, from: NodeIx, to: NodeIx, role: Role) -> Result<(), Arc<Failure>> {
        match self.standing(to) {
            Standing::Valid => return Ok(()),
            Standing::Failed(failure) => return Err(failure),
            Standing::Open => {}
        }
        self.graph.link(from, to, role);
        self.spread.linked(&mut self.graph, from, to);
        self.activate(to);
        if let Some(failure) = self.graph[to].doomed.clone() {
            self.need_doomed(from, role, &failure);
        }
        Ok(())
    }

    fn standing(&self, node: NodeIx) -> Standing {
        let failed = |failed: &Failed| {
            if failed.until > self.now {
                Standing::Failed(failed.failure.clone())
            } else {
                Standing::Open
            }
        };
        match &self.graph[node].kind {
            Kind::Path(path) => match &path.state {
                PathState::Valid { since } if since.after(self.config.valid_for) > self.now => {
                    Standing::Valid
                }
                PathState::Failed(at) => failed(at),
                _ => Standing::Open,
            },
            Kind::Build(build) => match &build.state {
                BuildState::Failed(at) => failed(at),
                _ => Standing::Open,
            },
            Kind::Want(_) | Kind::Free => Standing::Open,
        }
    }

    /// Starts a node that is wanted and does nothing yet.
    pub(super) fn activate(&mut self, node: NodeIx) {
        match &self.graph[node].kind {
            Kind::Path(path) => {
                if matches!(
                    path.state,
                    PathState::Idle | PathState::Valid { .. } | PathState::Failed(_)
                ) {
                    self.start_path(node);
                }
            }
            Kind::Build(build) => {
                if matches!(build.state, BuildState::Idle | BuildState::Failed(_)) {
                    self.start_build(node);
                }
            }
            Kind::Want(_) | Kind::Free => {}
        }
    }

    /// A node has what was wanted of it.
    pub(super) fn succeed(&mut self, node: NodeIx) {
        self.graph[node].doomed = None;
        self.cut(node);
        for (from, role) in self.graph.settle(node) {
            self.work.push_back(Work::Settled {
                node: from,
                role,
                failure: None,
            });
        }
        self.spread.demand_changed(&mut self.graph, node);
        self.park(node);
    }

    /// A node has failed, for as long as failures are remembered.
    pub(super) fn fail(&mut self, node: NodeIx, failure: &Arc<Failure>) {
        let failed = Failed {
            failure: failure.clone(),
            until: self.remember_failure(),
        };
        match &mut self.graph[node].kind {
            Kind::Path(path) => {
                path.state = PathState::Failed(failed);
                path.fetch = FetchTrack::Off;
            }
            Kind::Build(build) => build.state = BuildState::Failed(failed),
            Kind::Want(_) | Kind::Free => return,
        }
        self.graph[node].doomed = None;
        self.stop_fetch(node);
        self.cut(node);
        for (from, role) in self.graph.settle(node) {
            self.mark_need_failed(from, role, failure);
            self.work.push_back(Work::Settled {
                node: from,
                role,
                failure: Some(failure.clone()),
            });
        }
        self.spread.demand_changed(&mut self.graph, node);
        self.park(node);
    }

    fn remember_failure(&self) -> Time {
        self.now.after(self.config.failed_for)
    }

    fn mark_need_failed(&mut self, from: NodeIx, role: Role, failure: &Arc<Failure>) {
        match role {
            Role::Input | Role::Same => self.doom(from, failure.clone()),
            Role::Reference => self.break_references(from),
            Role::Producer => {}
        }
    }

    /// A node will fail; its dependents will hear of it.
    pub(super) fn doom(&mut self, node: NodeIx, failure: Arc<Failure>) {
        if self.graph[node].doomed.is_none() {
            self.graph[node].doomed = Some(failure);
            self.work.push_back(Work::Doomed(node));
        }
    }

    fn need_doomed(&mut self, from: NodeIx, role: Role, failure: &Arc<Failure>) {
        match role {
            Role::Input | Role::Same => self.doom(from, failure.clone()),
            Role::Reference => self.break_references(from),
            Role::Producer => {
                let path = self.graph.path(from);
                let is_last = |path: &crate::node::PathNode| {
                    path.fetch == FetchTrack::Off && path.tried + 1 >= path.producers.len()
                };
                if path.is_some_and(is_last) {
                    self.doom(from, failure.clone());
                }
            }
        }
    }

    fn break_references(&mut self, node: NodeIx) {
        if let Some(path) = self.graph.path_mut(node)
            && path.fetch == FetchTrack::References
        {
            path.fetch = FetchTrack::Broken;
            self.work.push_back(Work::Broken(node));
        }
    }

    /// A node needs nothing any more.
    pub(super) fn cut(&mut self, node: NodeIx) {
        self.cut_roles(node, |_| true);
    }

    pub(super) fn cut_roles(&mut self, node: NodeIx, which: impl Fn(Role) -> bool) {
        let mut lost = Vec::new();
        self.graph.cut(node, which, |to| lost.push(to));
        for to in lost {
            self.spread.demand_changed(&mut self.graph, to);
        }
    }

    pub(super) fn work_off(&mut self, steps: &mut usize) {
        while *steps > 0
            && let Some(work) = self.work.pop_front()
        {
            *steps -= 1;
            match work {
                Work::Settled { node, role, failure } => self.settled(node, role, failure),
                Work::Doomed(node) => self.tell_doomed(node, steps),
                Work::Broken(node) => self.references_broken(node),
            }
        }
    }

    fn settled(&mut self, node: NodeIx, role: Role, failure: Option<Arc<Failure>>) {
        match &self.graph[node].kind {
            Kind::Path(_) => self.path_need_settled(node, role, failure),
            Kind::Build(_) => self.build_need_settled(node),
            Kind::Want(_) => self.want_need_settled(node),
            Kind::Free => {}
        }
    }

    fn tell_doomed(&mut self, node: NodeIx, steps: &mut usize) {
        let Some(failure) = self.graph[node].doomed.clone() else {
            return;
        };
        if matches!(self.graph[node].kind, Kind::Want(_)) {
            self.want_doomed(node);
            return;
        }
        let mut index = 0;
        while let Some(edge) = self.graph[node].needed_by.get(index).copied() {
            let role = self.graph.role(edge);
            self.need_doomed(edge.from, role, &failure);
            index += 1;
        }
        *steps = steps.saturating_sub(index);
    }

    /// Lets urgency and critical path follow, and acts on what changed.
    pub(super) fn follow(&mut self, steps: &mut usize) {
        let found = self.spread.run(&mut self.graph, steps);
        for node in found.changed {
            self.urgency_changed(node);
        }
        for node in found.raised {
            self.reorder(node);
        }
        if let Some(node) = found.suspect {
            self.look_for_cycle(node);
        }
    }

    fn urgency_changed(&mut self, node: NodeIx) {
        let is_wanted = self.graph[node].demand.top().is_some();
        match (&self.graph[node].kind, is_wanted) {
            (Kind::Path(_), true) => self.path_wanted(node),
            (Kind::Path(_), false) => self.path_unwanted(node),
            (Kind::Build(_), true) => self.build_wanted(node),
            (Kind::Build(_), false) => self.build_unwanted(node),
            (Kind::Want(_) | Kind::Free, _) => {}
        }
    }

    fn reorder(&mut self, node: NodeIx) {
        if let Some(urgency) = self.graph[node].demand.top() {
            self.ready.reorder(node, urgency, self.graph[node].level);
        }
    }
}
