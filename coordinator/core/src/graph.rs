//! Who needs what: nodes in an arena, edges in both directions.
//!
//! An edge goes from a node to one that it needs, and is *open* until that is settled. Edges exist only where something is
//! wanted: what a derivation would need if it had to be built is no edge yet.
//!
//! Invariants
//! - an open edge stands in `needs` of one end and in `needed_by` of the other, and each entry knows the other's place, so
//!   taking an edge out costs the same whatever hangs on its ends;
//! - `waiting` counts a node's open edges that are no alternatives ([`Role::Producer`] is one);
//! - `demand` counts, by urgency, what the open edges into a node pass on.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use crate::failure::Failure;
use crate::id::ClientId;
use crate::node::{BuildNode, Kind, PathNode, WantNode};
use crate::urgency::{Demand, Urgency};

/// Place of a node in the arena. Used anew after the node is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeIx(u32);

/// The nodes.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    free: Vec<NodeIx>,
}

/// A node, and its edges.
#[derive(Debug)]
pub(crate) struct Node {
    pub kind: Kind,
    pub needs: Vec<Need>,
    pub needed_by: Vec<NeededBy>,
    pub demand: Demand,
    /// The urgency that its open edges pass on now. Follows `demand` ([`crate::spread`]).
    pub passed: Option<Urgency>,
    /// Open edges that must all be settled.
    pub waiting: u32,
    /// Edges of the longest known way from a want to it.
    pub hops: u32,
    /// Its own time, milliseconds, at least 1.
    pub weight: u64,
    /// Longest known time from its start to the end of a want, milliseconds.
    pub level: u64,
    /// In a queue of [`crate::spread`].
    pub urgency_queued: bool,
    pub level_queued: bool,
    /// In the queue of [`crate::retire`].
    pub idle_queued: bool,
    /// It cannot succeed, though some of what it needs is still under way.
    pub doomed: Option<Arc<Failure>>,
    /// The client on whose account it is.
    pub owner: ClientId,
    /// How often other nodes' data names it, open edges aside.
    pub mentions: u32,
}

/// Why a node needs another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A build: its input. A want: what is wanted.
    Input,
    /// A path that is being fetched refers to it.
    Reference,
    /// A path: the derivation that makes it. An alternative to the fetch.
    Producer,
    /// It is the same thing by another name.
    Same,
}

/// One end of an edge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub to: NodeIx,
    back: u32,
    pub role: Role,
    pub open: bool,
}

/// The other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeededBy {
    pub from: NodeIx,
    slot: u32,
}

impl Graph {
    pub(crate) fn add(&mut self, kind: Kind, owner: ClientId) -> NodeIx {
        let node = Node {
            kind,
            needs: Vec::new(),
            needed_by: Vec::new(),
            demand: Demand::default(),
            passed: None,
            waiting: 0,
            hops: 0,
            weight: 1,
            level: 0,
            urgency_queued: false,
            level_queued: false,
            idle_queued: false,
            doomed: None,
            owner,
            mentions: 0,
        };
        if let Some(place) = self.free.pop() {
            self[place] = node;
            return place;
        }
        // ids are 32 bits; so many nodes do not fit in any memory (300 bytes each)
        let place = NodeIx(index32(self.nodes.len()));
        self.nodes.push(node);
        place
    }

    /// Takes a node out. It must have no open edge.
    pub(crate) fn remove(&mut self, place: NodeIx) {
        debug_assert!(self[place].needed_by.is_empty(), "freed while needed");
        let node = &mut self[place];
        node.kind = Kind::Free;
        node.needs = Vec::new();
        node.needed_by = Vec::new();
        self.free.push(place);
    }

    /// Nodes in use.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// All nodes in use; for checks and for rare whole-graph work.
    pub(crate) fn places(&self) -> impl Iterator<Item = NodeIx> + '_ {
        let all = (0..self.nodes.len()).map(|index| NodeIx(index32(index)));
        all.filter(|place| !matches!(self[*place].kind, Kind::Free))
    }

    /// Makes an open edge. Constant cost.
    pub(crate) fn link(&mut self, from: NodeIx, to: NodeIx, role: Role) {
        let slot = index32(self[from].needs.len());
        let back = index32(self[to].needed_by.len());
        let (passed, owner) = (self[from].passed, self[from].owner);
        let source = &mut self[from];
        source.needs.push(Need {
            to,
            back,
            role,
            open: true,
        });
        source.waiting += u32::from(role != Role::Producer);
        let target = &mut self[to];
        if target.needed_by.is_empty() {
            target.owner = owner;
        }
        target.needed_by.push(NeededBy { from, slot });
        if let Some(urgency) = passed {
            target.demand.add(urgency);
        }
    }

    /// Closes all edges into a node, since it is settled; who was waiting for it, and why. Linear in their number.
    pub(crate) fn settle(&mut self, node: NodeIx) -> Vec<(NodeIx, Role)> {
        let target = &mut self[node];
        let edges = std::mem::take(&mut target.needed_by);
        target.demand = Demand::default();
        let mut waiting = Vec::with_capacity(edges.len());
        for edge in edges {
            let source = &mut self[edge.from];
            let need = &mut source.needs[edge.slot as usize];
            need.open = false;
            let role = need.role;
            source.waiting -= u32::from(role != Role::Producer);
            waiting.push((edge.from, role));
        }
        waiting
    }

    /// Takes out a node's open edges of some roles. `lost` hears what each led to.
    pub(crate) fn cut(&mut self, node: NodeIx, which: impl Fn(Role) -> bool, mut lost: impl FnMut(NodeIx)) {
        for slot in 0..self[node].needs.len() {
            let need = self[node].needs[slot];
            if need.open && which(need.role) {
                self.detach(node, slot, need);
                lost(need.to);
            }
        }
        if self[node].needs.iter().all(|need| !need.open) {
            self[node].needs = Vec::new();
        }
    }

    /// Why the other end needs it.
    pub(crate) fn role(&self, edge: NeededBy) -> Role {
        self[edge.from].needs[edge.slot as usize].role
    }

    fn detach(&mut self, from: NodeIx, slot: usize, need: Need) {
        let source = &mut self[from];
        source.needs[slot].open = false;
        source.waiting -= u32::from(need.role != Role::Producer);
        let passed = source.passed;
        let target = &mut self[need.to];
        if let Some(urgency) = passed {
            target.demand.sub(urgency);
        }
        target.needed_by.swap_remove(need.back as usize);
        let moved = target.needed_by.get(need.back as usize).copied();
        if let Some(moved) = moved {
            self[moved.from].needs[moved.slot as usize].back = need.back;
        }
    }

    pub(crate) fn path(&self, node: NodeIx) -> Option<&PathNode> {
        match &self[node].kind {
            Kind::Path(path) => Some(path),
            _ => None,
        }
    }

    pub(crate) fn path_mut(&mut self, node: NodeIx) -> Option<&mut PathNode> {
        match &mut self[node].kind {
            Kind::Path(path) => Some(path),
            _ => None,
        }
    }

    pub(crate) fn build(&self, node: NodeIx) -> Option<&BuildNode> {
        match &self[node].kind {
            Kind::Build(build) => Some(build),
            _ => None,
        }
    }

    pub(crate) fn build_mut(&mut self, node: NodeIx) -> Option<&mut BuildNode> {
        match &mut self[node].kind {
            Kind::Build(build) => Some(build),
            _ => None,
        }
    }

    pub(crate) fn want(&self, node: NodeIx) -> Option<&WantNode> {
        match &self[node].kind {
            Kind::Want(want) => Some(want),
            _ => None,
        }
    }

    pub(crate) fn want_mut(&mut self, node: NodeIx) -> Option<&mut WantNode> {
        match &mut self[node].kind {
            Kind::Want(want) => Some(want),
            _ => None,
        }
    }
}

impl Index<NodeIx> for Graph {
    type Output = Node;

    fn index(&self, place: NodeIx) -> &Node {
        &self.nodes[place.0 as usize]
    }
}

impl IndexMut<NodeIx> for Graph {
    fn index_mut(&mut self, place: NodeIx) -> &mut Node {
        &mut self.nodes[place.0 as usize]
    }
}

/// Places and slots are 32 bits wide: what would need more does not fit in memory.
fn index32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
