//! Questions and fetches, sent when it is their turn.
//!
//! Invariants
//! - a node is out once in each lane at most: its flag (`reading`, `asked_store`, `asked_offers`, `fetching`) says so.

use nix_compat::store_path::StorePath;

use super::Machine;
use crate::action::Action;
use crate::event::StoreKey;
use crate::graph::NodeIx;
use crate::node::{FetchTrack, PathNode, PathState};
use crate::urgency::{Priority, Purpose, Urgency};

impl Machine {
    /// Has a derivation read, unless it is known or being read.
    pub(super) fn read(&mut self, node: NodeIx) {
        let urgency = self.urgency(node);
        self.reads.push(node, urgency);
    }

    pub(super) fn queue_store_query(&mut self, node: NodeIx) {
        let urgency = self.urgency(node);
        self.store_queries.push(node, urgency);
    }

    pub(super) fn queue_offer_query(&mut self, node: NodeIx) {
        let urgency = self.urgency(node);
        self.offer_queries.push(node, urgency);
    }

    pub(super) fn queue_fetch(&mut self, node: NodeIx) {
        let urgency = self.urgency(node);
        self.fetches.push(node, urgency);
    }

    fn urgency(&self, node: NodeIx) -> Urgency {
        let urgency = self.graph[node].demand.top();
        urgency.unwrap_or(Urgency::new(Purpose::Goal, Priority::Normal))
    }

    pub(super) fn send_questions(&mut self) {
        self.send_reads();
        self.send_store_queries();
        self.send_offer_queries();
        self.send_fetches();
    }

    fn send_reads(&mut self) {
        loop {
            let graph = &mut self.graph;
            let nodes = self.reads.take(self.config.query_batch_max, |node| {
                let build = graph.build_mut(node);
                build
                    .is_some_and(|build| build.info.is_none() && !std::mem::replace(&mut build.reading, true))
            });
            let drvs: Vec<StorePath> = nodes.iter().filter_map(|node| self.drv(*node).cloned()).collect();
            if drvs.is_empty() {
                return;
            }
            self.actions.push(Action::ReadDrvs { drvs });
        }
    }

    fn send_store_queries(&mut self) {
        loop {
            let graph = &mut self.graph;
            let nodes = self.store_queries.take(self.config.query_batch_max, |node| {
                let path = graph.path_mut(node);
                path.is_some_and(|path| {
                    matches!(path.state, PathState::Checking)
                        && !std::mem::replace(&mut path.asked_store, true)
                })
            });
            let keys: Vec<StoreKey> = nodes.iter().filter_map(|node| self.store_key(*node)).collect();
            if keys.is_empty() {
                return;
            }
            self.actions.push(Action::QueryStore { keys });
        }
    }

    /// Whether a path is known by its path, not only as an output that was found to have it.
    pub(super) fn is_named(&self, node: NodeIx) -> bool {
        let path = self.graph.path(node).and_then(|path| path.path.as_ref());
        path.is_some_and(|path| self.intern.paths.get(path) == Some(&node))
    }

    fn store_key(&self, node: NodeIx) -> Option<StoreKey> {
        let path = self.graph.path(node)?;
        if let Some(path) = &path.path
            && self.is_named(node)
        {
            return Some(StoreKey::Path(path.clone()));
        }
        let (drv, name) = path.output?;
        Some(StoreKey::Output {
            drv: self.drv(drv)?.clone(),
            output: self.intern.name_of(name).clone(),
        })
    }

    fn send_offer_queries(&mut self) {
        loop {
            let graph = &mut self.graph;
            let nodes = self.offer_queries.take(self.config.query_batch_max, |node| {
                let path = graph.path_mut(node);
                path.is_some_and(|path| {
                    path.fetch == FetchTrack::Asking && !std::mem::replace(&mut path.asked_offers, true)
                })
            });
            let path = |node: &NodeIx| self.graph.path(*node)?.path.clone();
            let paths: Vec<StorePath> = nodes.iter().filter_map(path).collect();
            if paths.is_empty() {
                return;
            }
            self.actions.push(Action::QuerySubstituters { paths });
        }
    }

    fn send_fetches(&mut self) {
        let graph = &mut self.graph;
        let start = |path: &mut PathNode| {
            let starts = path.fetch == FetchTrack::Queued && !path.fetching;
            if starts {
                path.fetching = true;
                path.fetch = FetchTrack::Running;
            }
            starts
        };
        let nodes = self
            .fetches
            .take(usize::MAX, |node| graph.path_mut(node).is_some_and(start));
        for node in nodes {
            let Some(path) = self.graph.path(node) else {
                continue;
            };
            if let (Some(offer), Some(path)) = (&path.offer, &path.path) {
                self.actions.push(Action::Fetch {
                    path: path.clone(),
                    source: offer.source,
                });
            }
        }
    }
}
