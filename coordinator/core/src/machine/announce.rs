//! Derivations become known.
//!
//! Invariants
//! - what is known of a derivation never changes: its path is a hash of it. A second account is ignored;
//! - knowing a derivation starts nothing that was not wanted.

use std::sync::Arc;

use nix_compat::derivation::{DerivationKind, OutputName};
use nix_compat::store_path::StorePath;

use super::Machine;
use super::settle::Work;
use crate::drv::{DrvInfo, RefuseDerivationError};
use crate::failure::{Failure, FailureKind};
use crate::graph::{NodeIx, Role};
use crate::id::millis;
use crate::intern::NameIx;
use crate::node::{BuildState, Failed, Info, PathState};

impl Machine {
    pub(super) fn drv_known(&mut self, info: DrvInfo) {
        let node = self.build_node(&info.path);
        self.know(node, info);
    }

    pub(super) fn drv_unreadable(&mut self, drv: &StorePath, reason: String) {
        let Some(node) = self.intern.drvs.get(drv).copied() else {
            self.stats.ignored += 1;
            return;
        };
        self.end_reading(node);
        if self.graph.build(node).is_some_and(|build| build.info.is_none()) {
            let failure = self.failure_of(node, FailureKind::Unreadable, reason);
            self.give_up_reading(node, failure);
        }
    }

    /// Takes in what is said of a derivation.
    pub(super) fn know(&mut self, node: NodeIx, info: DrvInfo) {
        self.end_reading(node);
        if self.graph.build(node).is_none_or(|build| build.info.is_some()) {
            return;
        }
        let estimate = info.estimate.unwrap_or(self.config.estimate);
        let taken = info.check().map_err(|error| refusal(&error));
        let taken = taken.and_then(|()| self.intern_info(info).ok_or_else(too_many_names));
        match taken {
            Ok(info) => {
                self.spread.weigh(&mut self.graph, node, millis(estimate));
                self.set_info(node, info);
            }
            Err((kind, reason)) => {
                let failure = self.failure_of(node, kind, reason);
                self.give_up_reading(node, failure);
            }
        }
    }

    /// `None` when there are too many output names.
    fn intern_info(&mut self, info: DrvInfo) -> Option<Info> {
        let mut outputs = Vec::with_capacity(info.outputs.len());
        for (name, path) in info.outputs {
            outputs.push((self.intern.name(&name)?, path));
        }
        let mut named = Vec::with_capacity(info.inputs.len());
        for (_, names) in &info.inputs {
            let names: Option<Vec<_>> = names.iter().map(|name| self.intern.name(name)).collect();
            named.push(names?);
        }
        let mut inputs = Vec::with_capacity(named.len());
        for ((drv, _), names) in info.inputs.iter().zip(named) {
            let input = self.build_node(drv);
            for name in names {
                self.mention(input);
                inputs.push((input, name));
            }
        }
        let mut sources = Vec::with_capacity(info.sources.len());
        for path in &info.sources {
            let source = self.path_node(path);
            self.mention(source);
            sources.push(source);
        }
        Some(Info {
            kind: info.kind,
            inputs: inputs.into(),
            sources: sources.into(),
            outputs: outputs.into(),
            estimate_millis: millis(info.estimate.unwrap_or(self.config.estimate)),
            needs: self.intern.needs(info.needs),
            substitutable: info.substitutable,
        })
    }

    fn set_info(&mut self, node: NodeIx, info: Info) {
        let Some(build) = self.graph.build_mut(node) else {
            return;
        };
        build.info = Some(Box::new(info));
        let named = std::mem::take(&mut build.outputs);
        let wants = std::mem::take(&mut build.waiting_for_info);
        let was_reading = matches!(build.state, BuildState::Reading);
        if was_reading || matches!(build.state, BuildState::Failed(_)) {
            build.state = BuildState::Idle; // it could not be read before
        }
        for (name, output) in named {
            self.output_known(node, name, output);
        }
        for want in wants {
            self.expand_want(want);
        }
        if was_reading {
            self.start_build(node);
        }
    }

    /// An output was named before its derivation was known.
    fn output_known(&mut self, drv: NodeIx, name: NameIx, output: NodeIx) {
        let info = self.graph.build(drv).and_then(|build| build.info.as_ref());
        let Some(path) = info.and_then(|info| info.output(name).cloned()) else {
            let failure = self.no_such_output(drv, name);
            self.fail_at_root(output, failure);
            return;
        };
        let other = path
            .as_ref()
            .and_then(|path| self.intern.paths.get(path).copied());
        match (path, other) {
            (Some(path), Some(other)) => {
                if let Some(node) = self.graph.path_mut(output) {
                    node.path = Some(path);
                }
                self.add_output(drv, name, other);
                self.join_path(output, other);
                return;
            }
            (Some(path), None) => {
                self.intern.paths.insert(path.clone(), output);
                if let Some(node) = self.graph.path_mut(output) {
                    node.path = Some(path);
                }
            }
            (None, _) => {}
        }
        if let Some(build) = self.graph.build_mut(drv) {
            build.outputs.push((name, output));
        }
        self.restart_path(output);
    }

    /// Two nodes turn out to be one path: the younger waits for the other.
    fn join_path(&mut self, node: NodeIx, other: NodeIx) {
        let is_waiting = |path: &mut crate::node::PathNode| {
            let waits = matches!(path.state, PathState::Info);
            path.state = if waits { PathState::Joined } else { PathState::Idle };
            waits
        };
        if !self.graph.path_mut(node).is_some_and(is_waiting) {
            return;
        }
        if let Err(failure) = self.need(node, other, Role::Same) {
            self.fail(node, &failure);
        } else {
            // valid already, perhaps
            self.work.push_back(Work::Settled {
                node,
                role: Role::Same,
                failure: None,
            });
        }
    }

    pub(super) fn no_such_output(&self, drv: NodeIx, name: NameIx) -> Failure {
        let name = self.intern.name_of(name);
        self.failure_of(
            drv,
            FailureKind::Refused(igloo_status::Code::InvalidArgument),
            format!("it has no output `{name}`"),
        )
    }

    /// A derivation stays unknown: what waits for it fails.
    fn give_up_reading(&mut self, node: NodeIx, failure: Failure) {
        let failure = Arc::new(failure);
        let until = self.now.after(self.config.failed_for);
        let Some(build) = self.graph.build_mut(node) else {
            return;
        };
        let outputs = build.outputs.clone();
        let wants = std::mem::take(&mut build.waiting_for_info);
        build.state = BuildState::Failed(Failed {
            failure: failure.clone(),
            until,
        });
        self.fail(node, &failure);
        for (_, output) in outputs {
            let waits = |path: &crate::node::PathNode| matches!(path.state, PathState::Info);
            if self.graph.path(output).is_some_and(waits) {
                self.fail(output, &failure);
            }
        }
        for want in wants {
            self.doom(want, failure.clone());
            self.work.push_back(Work::Settled {
                node: want,
                role: Role::Input,
                failure: Some(failure.clone()),
            });
        }
    }

    fn end_reading(&mut self, node: NodeIx) {
        if let Some(build) = self.graph.build_mut(node)
            && build.reading
        {
            build.reading = false;
            self.reads.answered();
        }
    }
}

impl Info {
    /// The path of an output, where it is known before the build; `None` when there is no such output.
    pub(crate) fn output(&self, name: NameIx) -> Option<&Option<StorePath>> {
        let found = self.outputs.iter().find(|(other, _)| *other == name);
        found.map(|(_, path)| path)
    }

    /// Whether its outputs' paths are only known when it is resolved, or built.
    pub(crate) fn is_floating(&self) -> bool {
        matches!(self.kind, DerivationKind::CaFloating | DerivationKind::Deferred)
    }
}

fn refusal(error: &RefuseDerivationError) -> (FailureKind, String) {
    (FailureKind::Refused(error.code()), error.to_string())
}

fn too_many_names() -> (FailureKind, String) {
    let code = igloo_status::Code::ResourceExhausted;
    let reason = "too many different names of outputs are in use; start the coordinator anew";
    (FailureKind::Refused(code), reason.into())
}

/// Output names of a want, as numbers.
pub(super) fn names_of<'a>(
    intern: &mut crate::intern::Intern,
    names: impl Iterator<Item = &'a OutputName>,
) -> Option<Vec<NameIx>> {
    names.map(|name| intern.name(name)).collect()
}
