//! What nobody wants is forgotten when there is too much of it; and what goes round is broken open.
//!
//! Invariants
//! - a node is forgotten only when nobody wants it, no other node names it, and nothing about it is in flight;
//! - each call forgets a bounded number.

use std::collections::BTreeSet;

use super::Machine;
use crate::failure::FailureKind;
use crate::graph::{NodeIx, Role};
use crate::node::{BuildState, FetchTrack, Kind, PathState};
use crate::spread::Spread;

/// Nodes looked at in one call.
const RETIRED_MAX: usize = 256;

impl Machine {
    /// A node may be forgotten some time.
    pub(super) fn park(&mut self, node: NodeIx) {
        if !self.graph[node].idle_queued {
            self.graph[node].idle_queued = true;
            self.idle.push_back(node);
        }
    }

    pub(super) fn retire(&mut self) {
        if !self.work.is_empty() {
            return;
        }
        self.free_answered();
        for _ in 0..RETIRED_MAX {
            if self.graph.len() <= self.config.nodes_max {
                return;
            }
            let Some(node) = self.idle.pop_front() else {
                return;
            };
            self.graph[node].idle_queued = false;
            if self.is_unused(node) {
                self.forget_node(node);
            }
        }
    }

    fn free_answered(&mut self) {
        for node in std::mem::take(&mut self.answered) {
            if Spread::is_queued(&self.graph, node) {
                self.answered.push(node);
            } else {
                self.graph.remove(node);
            }
        }
    }

    fn is_unused(&self, place: NodeIx) -> bool {
        let node = &self.graph[place];
        let is_free =
            node.needed_by.is_empty() && node.mentions == 0 && !Spread::is_queued(&self.graph, place);
        is_free
            && match &node.kind {
                Kind::Path(path) => {
                    let is_out = path.asked_store || path.asked_offers || path.fetching;
                    let rests = matches!(
                        path.state,
                        PathState::Idle | PathState::Valid { .. } | PathState::Failed(_)
                    );
                    !is_out && rests
                }
                Kind::Build(build) => {
                    let rests = matches!(build.state, BuildState::Idle | BuildState::Failed(_));
                    rests && !build.reading && build.waiting_for_info.is_empty()
                }
                Kind::Want(_) | Kind::Free => false,
            }
    }

    fn forget_node(&mut self, node: NodeIx) {
        let mut named = Vec::new();
        match &self.graph[node].kind {
            Kind::Path(path) => {
                named.extend(path.producers.iter().copied());
                if let Some(path) = &path.path
                    && self.intern.paths.get(path) == Some(&node)
                {
                    let path = path.clone();
                    self.intern.paths.remove(&path);
                }
            }
            Kind::Build(build) => {
                let info = build.info.iter();
                named.extend(
                    info.clone()
                        .flat_map(|info| info.inputs.iter().map(|(drv, _)| *drv)),
                );
                named.extend(info.flat_map(|info| info.sources.iter().copied()));
                let drv = build.drv.clone();
                self.intern.drvs.remove(&drv);
            }
            Kind::Want(_) | Kind::Free => return,
        }
        self.graph.remove(node);
        for other in named {
            if let Some(build) = self.graph.build_mut(other) {
                build.outputs.retain(|(_, output)| *output != node);
            }
            self.unmention(other);
        }
    }

    /// A way to this node is so long that it may go round. Then something needs itself, and is broken open where that does
    /// least harm: a path that another derivation makes as well is made by that one (a source that is needed to build what
    /// fetches it, nixpkgs' `fetchurlBoot`); a fetch is given up; else a derivation fails.
    pub(super) fn look_for_cycle(&mut self, node: NodeIx) {
        let cycle = self.cycle_above(node);
        if cycle.is_empty() {
            self.spread.trust(self.graph[node].hops);
            return;
        }
        for member in &cycle {
            self.graph[*member].hops = 0;
            self.graph[*member].level = 0;
        }
        let broken = cycle.iter().any(|member| self.switch_producer(*member, &cycle))
            || cycle.iter().any(|member| self.give_up_fetch(*member))
            || cycle.iter().any(|member| self.fail_cyclic(*member));
        debug_assert!(broken, "a cycle of nodes that wait for nothing");
    }

    fn switch_producer(&mut self, member: NodeIx, cycle: &[NodeIx]) -> bool {
        let Some(path) = self.graph.path_mut(member) else {
            return false;
        };
        let is_made = path
            .producers
            .get(path.tried)
            .is_some_and(|drv| cycle.contains(drv));
        if !is_made || path.tried + 1 >= path.producers.len() {
            return false;
        }
        path.tried += 1;
        self.cut_roles(member, |role| role == Role::Producer);
        self.make(member);
        true
    }

    fn give_up_fetch(&mut self, member: NodeIx) -> bool {
        let waits = |path: &crate::node::PathNode| path.fetch == FetchTrack::References;
        let gives_up = self.graph.path(member).is_some_and(waits);
        if gives_up {
            self.fall_back(member);
        }
        gives_up
    }

    fn fail_cyclic(&mut self, member: NodeIx) -> bool {
        let waits = |build: &crate::node::BuildNode| {
            matches!(build.state, BuildState::NeedsInputs | BuildState::Joined)
        };
        let fails = self.graph.build(member).is_some_and(waits);
        if fails {
            let failure = self.failure_of(member, FailureKind::Cycle, "it needs itself");
            self.fail_for_good(member, failure);
        }
        fails
    }

    /// Nodes that need each other in a ring, among those that need this one. Linear in those; only called on a fault.
    fn cycle_above(&self, start: NodeIx) -> Vec<NodeIx> {
        let mut seen = BTreeSet::from([start]);
        let mut on_way = seen.clone();
        let mut way: Vec<(NodeIx, usize)> = vec![(start, 0)];
        while let Some((node, next)) = way.last_mut() {
            let edge = self.graph[*node].needed_by.get(*next).copied();
            *next += 1;
            let Some(edge) = edge else {
                on_way.remove(node);
                way.pop();
                continue;
            };
            if on_way.contains(&edge.from) {
                let from = way.iter().position(|(other, _)| *other == edge.from).unwrap_or(0);
                return way.iter().skip(from).map(|(node, _)| *node).collect();
            }
            if seen.insert(edge.from) {
                on_way.insert(edge.from);
                way.push((edge.from, 0));
            }
        }
        Vec::new()
    }
}
