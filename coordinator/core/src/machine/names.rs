//! From names to nodes.
//!
//! Invariants
//! - a store path has one node, a derivation has one; an output whose path is not known has its own until it is;
//! - a node that another's data names is counted in its `mentions`, and not freed meanwhile.

use nix_compat::store_path::StorePath;

use super::Machine;
use crate::failure::{Failure, FailureKind};
use crate::graph::NodeIx;
use crate::id::ClientId;
use crate::intern::NameIx;
use crate::node::{BuildNode, Kind, PathNode};

/// Who pays for what nobody wants.
const NOBODY: ClientId = ClientId(u64::MAX);

impl Machine {
    /// The node of a store path, made if need be.
    pub(super) fn path_node(&mut self, path: &StorePath) -> NodeIx {
        if let Some(node) = self.intern.paths.get(path) {
            return *node;
        }
        let kind = Kind::Path(Box::new(PathNode::new(Some(path.clone()), None)));
        let node = self.graph.add(kind, NOBODY);
        self.intern.paths.insert(path.clone(), node);
        self.park(node);
        node
    }

    /// The node of a derivation, made if need be.
    pub(super) fn build_node(&mut self, drv: &StorePath) -> NodeIx {
        if let Some(node) = self.intern.drvs.get(drv) {
            return *node;
        }
        let kind = Kind::Build(Box::new(BuildNode::new(drv.clone())));
        let node = self.graph.add(kind, NOBODY);
        self.intern.drvs.insert(drv.clone(), node);
        self.park(node);
        node
    }

    /// The node of a derivation's output, made if need be. `None` when the derivation is known and has no such output.
    pub(super) fn output_node(&mut self, drv: NodeIx, name: NameIx) -> Option<NodeIx> {
        let build = self.graph.build(drv)?;
        if let Some(known) = build.output(name) {
            return Some(known);
        }
        let path = match &build.info {
            Some(info) => info.output(name)?.clone(),
            None => None,
        };
        let node = match path {
            Some(path) => self.path_node(&path),
            None => {
                let path = PathNode::new(None, Some((drv, name)));
                self.graph.add(Kind::Path(Box::new(path)), NOBODY)
            }
        };
        self.add_output(drv, name, node);
        Some(node)
    }

    /// Notes that a path is a derivation's output.
    pub(super) fn add_output(&mut self, drv: NodeIx, name: NameIx, node: NodeIx) {
        if let Some(build) = self.graph.build_mut(drv) {
            build.outputs.push((name, node));
        }
        if let Some(path) = self.graph.path_mut(node)
            && !path.producers.contains(&drv)
        {
            path.producers.push(drv);
            self.mention(drv);
        }
    }

    pub(super) fn mention(&mut self, node: NodeIx) {
        self.graph[node].mentions += 1;
    }

    pub(super) fn unmention(&mut self, node: NodeIx) {
        self.graph[node].mentions -= 1;
        if self.graph[node].mentions == 0 {
            self.park(node);
        }
    }

    /// The derivation of a build node.
    pub(super) fn drv(&self, node: NodeIx) -> Option<&StorePath> {
        self.graph.build(node).map(|build| &build.drv)
    }

    pub(super) fn failure_of(&self, node: NodeIx, kind: FailureKind, reason: impl Into<String>) -> Failure {
        let root = match &self.graph[node].kind {
            Kind::Build(build) => Some(build.drv.clone()),
            Kind::Path(path) => path.path.clone().or_else(|| self.drv(path.output?.0).cloned()),
            Kind::Want(_) | Kind::Free => None,
        };
        Failure {
            root,
            kind,
            reason: reason.into(),
        }
    }
}
