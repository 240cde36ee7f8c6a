//! Builds that have all they need and wait for a builder.
//!
//! They stand in groups of those that any builder takes or refuses alike, so looking for work for a slot looks at the head of
//! each group, not at each build. In a group: urgency first, then the client that has least running for its weight, then the
//! longest way to the end, then age.
//!
//! Invariants
//! - a build is in the queue exactly while it is `Ready`;
//! - no group is empty.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::drv::Requirements;
use crate::graph::NodeIx;
use crate::id::{BuilderId, ClientId};
use crate::urgency::Urgency;

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    groups: BTreeMap<Arc<Fit>, Group>,
    places: BTreeMap<NodeIx, Place>,
    shares: BTreeMap<ClientId, Share>,
    next_age: u64,
}

/// What decides which builders take a build.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fit {
    pub needs: Arc<Requirements>,
    /// Builders that failed with it, in order.
    pub avoid: Vec<BuilderId>,
}

type Line = BTreeSet<(Reverse<u64>, u64, NodeIx)>;
type Group = BTreeMap<Urgency, BTreeMap<ClientId, Line>>;

#[derive(Debug)]
struct Place {
    fit: Arc<Fit>,
    urgency: Urgency,
    client: ClientId,
    level: u64,
    age: u64,
}

/// What a client has of the builders.
#[derive(Debug, Clone, Copy)]
struct Share {
    running: u64,
    weight: u64,
}

/// The first of a group.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub fit: Arc<Fit>,
    pub urgency: Urgency,
    pub node: NodeIx,
    order: (Urgency, u64, Reverse<u64>, u64),
}

impl Ready {
    /// A client's weight against others.
    pub(crate) fn weigh(&mut self, client: ClientId, weight: u32) {
        let share = self.shares.entry(client).or_default();
        share.weight = u64::from(weight.max(1));
    }

    /// A client is gone; what it has running still counts.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.weigh(client, 1);
        self.drop_share(client);
    }

    /// A share like that of a client never heard of need not be kept.
    fn drop_share(&mut self, client: ClientId) {
        let is_default = |share: &Share| share.running == 0 && share.weight == 1;
        if self.shares.get(&client).is_some_and(is_default) {
            self.shares.remove(&client);
        }
    }

    pub(crate) fn started(&mut self, client: ClientId) {
        self.shares.entry(client).or_default().running += 1;
    }

    pub(crate) fn stopped(&mut self, client: ClientId) {
        if let Some(share) = self.shares.get_mut(&client) {
            share.running = share.running.saturating_sub(1);
            self.drop_share(client);
        }
    }

    pub(crate) fn push(&mut self, node: NodeIx, fit: Fit, urgency: Urgency, client: ClientId, level: u64) {
        let fit = match self.groups.get_key_value(&fit) {
            Some((known, _)) => known.clone(),
            None => Arc::new(fit),
        };
        let place = Place {
            fit,
            urgency,
            client,
            level,
            age: self.next_age,
        };
        self.next_age += 1;
        self.insert(node, place);
    }

    /// A node's order has changed, if it is here.
    pub(crate) fn reorder(&mut self, node: NodeIx, urgency: Urgency, level: u64) {
        let same = |place: &Place| place.urgency == urgency && place.level == level;
        if self.places.get(&node).is_none_or(same) {
            return;
        }
        if let Some(place) = self.take(node) {
            self.insert(
                node,
                Place {
                    urgency,
                    level,
                    ..place
                },
            );
        }
    }

    /// Takes a node out, if it is here.
    pub(crate) fn remove(&mut self, node: NodeIx) {
        self.take(node);
    }

    /// The first of each group.
    pub(crate) fn heads(&self) -> impl Iterator<Item = Head> + '_ {
        self.groups
            .iter()
            .filter_map(|(fit, group)| self.head(fit, group))
    }

    /// All builds of the groups that are such.
    pub(crate) fn all_that(&self, such: impl Fn(&Fit) -> bool) -> Vec<NodeIx> {
        let groups = self.groups.iter().filter(|(fit, _)| such(fit));
        let lines = groups.flat_map(|(_, group)| group.values().flat_map(BTreeMap::values));
        lines.flatten().map(|(_, _, node)| *node).collect()
    }

    /// Whether a build is here.
    pub(crate) fn holds(&self, node: NodeIx) -> bool {
        self.places.contains_key(&node)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    fn head(&self, fit: &Arc<Fit>, group: &Group) -> Option<Head> {
        let (urgency, clients) = group.first_key_value()?;
        let firsts = clients.iter().filter_map(|(client, line)| {
            let (level, age, node) = *line.first()?;
            Some(((*urgency, self.served(*client), level, age), node))
        });
        let (order, node) = firsts.min()?;
        Some(Head {
            fit: fit.clone(),
            urgency: *urgency,
            node,
            order,
        })
    }

    /// How much of its share a client has.
    fn served(&self, client: ClientId) -> u64 {
        let share = self.shares.get(&client).copied().unwrap_or_default();
        share.running.saturating_mul(1 << 16) / share.weight
    }

    fn insert(&mut self, node: NodeIx, place: Place) {
        let group = self.groups.entry(place.fit.clone()).or_default();
        let line = group
            .entry(place.urgency)
            .or_default()
            .entry(place.client)
            .or_default();
        line.insert((Reverse(place.level), place.age, node));
        self.places.insert(node, place);
    }

    fn take(&mut self, node: NodeIx) -> Option<Place> {
        let place = self.places.remove(&node)?;
        let group = self.groups.get_mut(&place.fit)?;
        let clients = group.get_mut(&place.urgency)?;
        let line = clients.get_mut(&place.client)?;
        line.remove(&(Reverse(place.level), place.age, node));
        if line.is_empty() {
            clients.remove(&place.client);
        }
        if clients.is_empty() {
            group.remove(&place.urgency);
        }
        if group.is_empty() {
            self.groups.remove(&place.fit);
        }
        Some(place)
    }
}

impl Head {
    /// Whether this one is to be served before the other.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.order < other.order
    }
}

impl Default for Share {
    fn default() -> Self {
        Self {
            running: 0,
            weight: 1,
        }
    }
}
