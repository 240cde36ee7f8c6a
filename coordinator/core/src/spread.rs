//! Urgency and critical path, kept as edges come and go.
//!
//! Both flow from wants down to what they need. Urgency is exact, up and down, since nodes count who wants them; the level
//! (longest time to the end of a want) only rises while a node is wanted. Each call does a bounded number of steps and keeps
//! the rest for the next: order may lag, what is built does not change.
//!
//! Invariants
//! - queues are first in, first out, and a node is in each at most once, so a level settles in at most nodes times edges;
//! - a way that goes round grows without end, so it is reported as suspect some time; whoever looks and finds nothing says so
//!   ([`Spread::trust`]), and is asked again only at twice the length.

use std::collections::VecDeque;

use crate::graph::{Graph, NodeIx};

/// Work left over.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    urgency: VecDeque<NodeIx>,
    level: VecDeque<NodeIx>,
    /// Edges of a way that is looked at for going round, past [`SUSPECT_MIN`].
    trusted: u32,
}

/// Ways shorter than this are not looked at: real graphs of packages are some hundred edges deep.
const SUSPECT_MIN: u32 = 512;

/// What a call found.
#[derive(Debug, Default)]
pub(crate) struct Spreading {
    /// Nodes whose urgency changed; none where nobody wants them any more.
    pub changed: Vec<NodeIx>,
    /// Nodes whose level rose.
    pub raised: Vec<NodeIx>,
    /// The end of a way so long that it may go round.
    pub suspect: Option<NodeIx>,
}

impl Spread {
    /// A node's demand may have changed.
    pub(crate) fn demand_changed(&mut self, graph: &mut Graph, node: NodeIx) {
        if !graph[node].urgency_queued && graph[node].demand.top() != graph[node].passed {
            graph[node].urgency_queued = true;
            self.urgency.push_back(node);
        }
    }

    /// A node got a new edge: what it leads to may now be further from the end.
    pub(crate) fn linked(&mut self, graph: &mut Graph, from: NodeIx, to: NodeIx) {
        self.demand_changed(graph, to);
        self.raise(graph, from, to);
    }

    /// A node's own time has become known.
    pub(crate) fn weigh(&mut self, graph: &mut Graph, node: NodeIx, weight: u64) {
        let weight = weight.max(1);
        let target = &mut graph[node];
        let longer = weight.saturating_sub(target.weight);
        target.weight = weight;
        if target.level > 0 && longer > 0 {
            target.level = target.level.saturating_add(longer);
            self.queue_level(graph, node);
        }
    }

    /// Ways of that length do not go round.
    pub(crate) fn trust(&mut self, hops: u32) {
        self.trusted = self.trusted.max(hops.saturating_mul(2));
    }

    fn raise(&mut self, graph: &mut Graph, from: NodeIx, to: NodeIx) {
        let (level, hops) = (graph[from].level, graph[from].hops);
        let target = &mut graph[to];
        let level = level.saturating_add(target.weight);
        if level > target.level {
            target.level = level;
            target.hops = hops.saturating_add(1);
            self.queue_level(graph, to);
        }
    }

    fn queue_level(&mut self, graph: &mut Graph, node: NodeIx) {
        if !graph[node].level_queued {
            graph[node].level_queued = true;
            self.level.push_back(node);
        }
    }

    /// Whether nothing is left over.
    pub(crate) fn is_settled(&self) -> bool {
        self.urgency.is_empty() && self.level.is_empty()
    }

    /// Goes on, for about `left` edges, and counts them off.
    pub(crate) fn run(&mut self, graph: &mut Graph, left: &mut usize) -> Spreading {
        let mut found = Spreading::default();
        while *left > 0
            && let Some(node) = self.urgency.pop_front()
        {
            *left = left.saturating_sub(1 + graph[node].needs.len());
            self.pass_urgency(graph, node);
            found.changed.push(node);
        }
        while *left > 0
            && let Some(node) = self.level.pop_front()
        {
            *left = left.saturating_sub(1 + graph[node].needs.len());
            self.pass_level(graph, node, &mut found);
        }
        found
    }

    fn pass_urgency(&mut self, graph: &mut Graph, node: NodeIx) {
        let (old, new) = (graph[node].passed, graph[node].demand.top());
        graph[node].urgency_queued = false;
        graph[node].passed = new;
        for slot in 0..graph[node].needs.len() {
            let need = graph[node].needs[slot];
            if !need.open {
                continue;
            }
            let target = &mut graph[need.to];
            if let Some(urgency) = old {
                target.demand.sub(urgency);
            }
            if let Some(urgency) = new {
                target.demand.add(urgency);
            }
            self.demand_changed(graph, need.to);
        }
    }

    fn pass_level(&mut self, graph: &mut Graph, node: NodeIx, found: &mut Spreading) {
        graph[node].level_queued = false;
        found.raised.push(node);
        if graph[node].hops > self.trusted.max(SUSPECT_MIN) && found.suspect.is_none() {
            found.suspect = Some(node);
        }
        for slot in 0..graph[node].needs.len() {
            let need = graph[node].needs[slot];
            if need.open {
                self.raise(graph, node, need.to);
            }
        }
    }

    /// Whether a queue names a node: then it may not be freed.
    pub(crate) fn is_queued(graph: &Graph, node: NodeIx) -> bool {
        graph[node].urgency_queued || graph[node].level_queued
    }
}
