//! Builds, up to the queue of those that are ready.
//!
//! Invariants
//! - a build's inputs are looked at only when it must be built (lazy closure);
//! - it becomes ready only when all inputs are valid and have paths, by resolution where the derivation does not name them;
//! - a build that runs is let run on for [`crate::Config::unwanted_grace`] when nobody wants it any more.

use std::sync::Arc;

use nix_compat::derivation::DerivationKind;
use nix_compat::store_path::StorePath;

use super::Machine;
use super::settle::Work;
use crate::action::Action;
use crate::drv::DrvInfo;
use crate::failure::{Failure, FailureKind};
use crate::graph::{NodeIx, Role};
use crate::id::Time;
use crate::intern::NameIx;
use crate::journal::Record;
use crate::node::{BuildNode, BuildState};
use crate::ready::Fit;
use crate::resolve::ResolvedInput;
use crate::timers::Timer;

impl Machine {
    /// Begins with a build that is wanted.
    pub(super) fn start_build(&mut self, node: NodeIx) {
        self.graph[node].doomed = None;
        let Some(build) = self.graph.build_mut(node) else {
            return;
        };
        if matches!(build.state, BuildState::Failed(_)) {
            build.infrastructure_failures = 0;
            build.transient_failures = 0;
            build.avoid.clear();
            build.larger = None;
        }
        if build.info.is_some() {
            self.expand(node);
        } else {
            build.state = BuildState::Reading;
            self.read(node);
        }
    }

    /// Needs all inputs.
    pub(super) fn expand(&mut self, node: NodeIx) {
        self.set_build(node, BuildState::NeedsInputs);
        let Some(info) = self.graph.build(node).and_then(|build| build.info.as_ref()) else {
            return;
        };
        let (inputs, mut needs) = (info.inputs.clone(), info.sources.to_vec());
        for (drv, name) in inputs {
            match self.output_node(drv, name) {
                Some(input) => needs.push(input),
                None => {
                    let failure = self.no_such_output(drv, name);
                    self.doom(node, Arc::new(failure));
                }
            }
        }
        self.hold(node, &needs);
        for input in needs {
            if let Err(failure) = self.need(node, input, Role::Input) {
                self.doom(node, failure);
            }
        }
        self.recheck(node);
    }

    /// A build wants to know these paths later, when they are valid and nothing else holds them.
    fn hold(&mut self, node: NodeIx, paths: &[NodeIx]) {
        for path in paths {
            self.mention(*path);
        }
        self.drop_held(node);
        if let Some(build) = self.graph.build_mut(node) {
            build.held = paths.to_vec();
        }
    }

    pub(super) fn drop_held(&mut self, node: NodeIx) {
        let held = self
            .graph
            .build_mut(node)
            .map(|build| std::mem::take(&mut build.held));
        for path in held.into_iter().flatten() {
            self.unmention(path);
        }
    }

    /// Looks at a build again after all that is under way.
    fn recheck(&mut self, node: NodeIx) {
        self.work.push_back(Work::Settled {
            node,
            role: Role::Input,
            failure: None,
        });
    }

    /// Something a build needed is settled.
    pub(super) fn build_need_settled(&mut self, node: NodeIx) {
        if self.graph[node].waiting > 0 {
            return;
        }
        let Some(build) = self.graph.build(node) else {
            return;
        };
        match (&build.state, self.graph[node].doomed.clone()) {
            (BuildState::NeedsInputs | BuildState::Joined, Some(failure)) => {
                self.leave_joined(node);
                self.fail(node, &failure);
            }
            (BuildState::NeedsInputs, None) if self.needs_resolution(node) => self.ask_resolution(node),
            (BuildState::NeedsInputs, None) => self.make_ready(node),
            (BuildState::Joined, None) => self.joined_done(node),
            _ => {}
        }
    }

    fn needs_resolution(&self, node: NodeIx) -> bool {
        let Some(info) = self.graph.build(node).and_then(|build| build.info.as_ref()) else {
            return false;
        };
        let floats = |drv: NodeIx| {
            let info = self.graph.build(drv).and_then(|build| build.info.as_ref());
            info.is_some_and(|info| info.is_floating())
        };
        !info.inputs.is_empty() && (info.is_floating() || info.inputs.iter().any(|(drv, _)| floats(*drv)))
    }

    fn ask_resolution(&mut self, node: NodeIx) {
        let Some(build) = self.graph.build(node) else {
            return;
        };
        let inputs = build.info.iter().flat_map(|info| info.inputs.iter());
        let inputs: Option<Vec<_>> = inputs
            .map(|(drv, name)| self.resolved_input(*drv, *name))
            .collect();
        let Some(inputs) = inputs else {
            let code = igloo_status::Code::Internal;
            let reason = "the path of a valid input is not known; this is a bug of the coordinator";
            let failure = self.failure_of(node, FailureKind::Refused(code), reason);
            self.fail_for_good(node, failure);
            return;
        };
        let drv = build.drv.clone();
        self.set_build(node, BuildState::Resolving);
        self.actions.push(Action::Resolve { drv, inputs });
    }

    fn resolved_input(&self, drv: NodeIx, name: NameIx) -> Option<ResolvedInput> {
        Some(ResolvedInput {
            drv: self.drv(drv)?.clone(),
            output: self.intern.name_of(name).clone(),
            path: self.output_path(drv, name)?.0,
        })
    }

    /// The path of a valid output, and its size as far as known.
    fn output_path(&self, drv: NodeIx, name: NameIx) -> Option<(StorePath, u64)> {
        let build = self.graph.build(drv)?;
        let node = build.output(name).and_then(|output| self.graph.path(output));
        let nar_size = node.map_or(0, |node| node.nar_size);
        let stated = build.info.as_ref()?.output(name)?.clone();
        Some((stated.or_else(|| node?.path.clone())?, nar_size))
    }

    pub(super) fn resolved(&mut self, drv: &StorePath, resolved: Result<Box<DrvInfo>, String>) {
        let node = self.intern.drvs.get(drv).copied();
        let state = node.and_then(|node| Some((node, &self.graph.build(node)?.state)));
        let Some((node, BuildState::Resolving)) = state else {
            self.stats.ignored += 1;
            return;
        };
        match resolved {
            Err(reason) => {
                let failure = self.failure_of(node, FailureKind::Permanent, reason);
                self.fail_for_good(node, failure);
            }
            Ok(info) if info.path == *drv => self.make_ready(node),
            Ok(info) if !info.inputs.is_empty() => {
                let code = igloo_status::Code::Internal;
                let reason = "what it was resolved to still has input derivations";
                let failure = self.failure_of(node, FailureKind::Refused(code), reason);
                self.fail_for_good(node, failure);
            }
            Ok(info) => self.join(node, *info),
        }
    }

    /// A build is the same as a resolved one: it waits for that one's outputs, however they come to be.
    fn join(&mut self, node: NodeIx, info: DrvInfo) {
        let resolved = self.build_node(&info.path);
        self.mention(resolved);
        self.know(resolved, info);
        if let Some(build) = self.graph.build_mut(node) {
            build.state = BuildState::Joined;
            build.joined = Some(resolved);
        }
        self.stats.joined += 1;
        let others = self.outputs_to_join(node, resolved);
        let resolved = self.graph.build(resolved).map(|build| build.outputs.as_slice());
        let held: Vec<NodeIx> = resolved
            .iter()
            .flat_map(|outputs| outputs.iter())
            .map(|(_, output)| *output)
            .collect();
        self.hold(node, &held);
        for other in others {
            let need = other.and_then(|other| self.need(node, other, Role::Same));
            if let Err(failure) = need {
                self.doom(node, failure);
            }
        }
        self.recheck(node);
    }

    /// What to wait for: the resolved derivation's outputs, or itself where the outputs are the same paths.
    fn outputs_to_join(&mut self, node: NodeIx, resolved: NodeIx) -> Vec<Result<NodeIx, Arc<Failure>>> {
        let info = self.graph.build(node).and_then(|build| build.info.as_ref());
        let Some(info) = info else {
            return Vec::new();
        };
        let is_fixed = info.kind == DerivationKind::CaFixed;
        if let Some(BuildState::Failed(failed)) = self.graph.build(resolved).map(|build| &build.state) {
            return vec![Err(failed.failure.clone())];
        }
        let names: Vec<NameIx> = info.outputs.iter().map(|(name, _)| *name).collect();
        let mut outputs = Vec::with_capacity(names.len());
        for name in names {
            let output = self.output_node(resolved, name);
            outputs.push(output.ok_or_else(|| Arc::new(self.no_such_output(resolved, name))));
        }
        if is_fixed {
            outputs = vec![Ok(resolved)];
        }
        outputs
    }

    fn joined_done(&mut self, node: NodeIx) {
        let Some(build) = self.graph.build(node) else {
            return;
        };
        let Some(resolved) = build.joined else {
            return;
        };
        let outputs = build.outputs.iter();
        let outputs: Vec<_> = outputs
            .map(|(name, output)| (*output, self.output_path(resolved, *name)))
            .collect();
        self.note_realisations(node, resolved);
        self.leave_joined(node);
        for (output, found) in outputs {
            if let Some((found, nar_size)) = found {
                self.output_found(output, &found, nar_size);
            }
        }
        self.set_build(node, BuildState::Idle);
        self.succeed(node);
    }

    fn note_realisations(&mut self, node: NodeIx, joined: NodeIx) {
        let (Some(build), Some(resolved)) = (self.graph.build(node), self.graph.build(joined)) else {
            return;
        };
        let names = resolved.info.iter().flat_map(|info| info.outputs.iter());
        let outputs = names.filter_map(|(name, _)| {
            let (path, _) = self.output_path(joined, *name)?;
            Some((self.intern.name_of(*name).clone(), path))
        });
        let action = Action::NoteRealisations {
            drv: build.drv.clone(),
            outputs: outputs.collect(),
        };
        self.actions.push(action);
    }

    fn leave_joined(&mut self, node: NodeIx) -> Option<NodeIx> {
        self.drop_held(node);
        let joined = self.graph.build_mut(node)?.joined.take()?;
        self.unmention(joined);
        Some(joined)
    }

    /// All inputs are there.
    pub(super) fn make_ready(&mut self, node: NodeIx) {
        self.drop_held(node);
        if self.adopt_restored(node) {
            return;
        }
        let Some(build) = self.graph.build_mut(node) else {
            return;
        };
        let Some(info) = &build.info else {
            return;
        };
        build.state = BuildState::Ready;
        let needs = build.larger.clone().unwrap_or_else(|| info.needs.clone());
        let fit = Fit {
            needs,
            avoid: build.avoid.clone(),
        };
        let has_builder = self.builders.any_fits(&fit.needs, &[]);
        let (urgency, owner, level) = {
            let node = &self.graph[node];
            (node.demand.top(), node.owner, node.level)
        };
        let Some(urgency) = urgency else {
            self.set_build(node, BuildState::Idle);
            return; // nobody wants it: it comes back when somebody does
        };
        self.ready.push(node, fit, urgency, owner, level);
        self.place_due = true;
        if !has_builder {
            let at = self.now.after(self.config.no_builder_max);
            self.timers.set(at, Timer::NoBuilder(node));
        }
    }

    pub(super) fn check_no_builder(&mut self, node: NodeIx) {
        let Some(build) = self.graph.build(node) else {
            return;
        };
        let (BuildState::Ready, Some(info)) = (&build.state, &build.info) else {
            return;
        };
        let needs = build.larger.as_ref().unwrap_or(&info.needs);
        if !self.builders.any_fits(needs, &[]) {
            let reason = describe_needs(needs);
            let failure = self.failure_of(node, FailureKind::NoBuilder, reason);
            self.fail_for_good(node, failure);
        }
    }

    /// A build's wait is over.
    pub(super) fn build_again(&mut self, node: NodeIx) {
        let due = |at: Time| at <= self.now;
        let build = self.graph.build(node);
        if build.is_some_and(|build| matches!(build.state, BuildState::Backoff(at) if due(at))) {
            self.make_ready(node);
        }
    }

    /// A build's urgency changed, and somebody wants it.
    pub(super) fn build_wanted(&mut self, node: NodeIx) {
        let state = self.graph.build(node).map(|build| &build.state);
        match state {
            Some(BuildState::Idle) => self.activate(node),
            Some(BuildState::Reading) => self.read(node),
            Some(BuildState::Ready) => {
                if let Some(urgency) = self.graph[node].demand.top() {
                    let level = self.graph[node].level;
                    self.ready.reorder(node, urgency, level);
                    self.place_due |= urgency.holds_evaluation();
                }
            }
            _ => {}
        }
    }

    /// Nobody wants a build any more.
    pub(super) fn build_unwanted(&mut self, node: NodeIx) {
        self.graph[node].level = 0;
        self.graph[node].hops = 0;
        let state = self.graph.build(node).map(|build| build.state.clone());
        match state {
            Some(BuildState::Leased(lease)) => {
                let at = self.now.after(self.config.unwanted_grace);
                self.timers.set(at, Timer::Unwanted(lease));
            }
            Some(BuildState::Idle | BuildState::Failed(_) | BuildState::Committing) | None => {}
            Some(_) => self.let_go(node),
        }
        self.park(node);
    }

    /// A build that does not run stops being under way.
    pub(super) fn let_go(&mut self, node: NodeIx) {
        self.leave_joined(node);
        self.ready.remove(node);
        self.graph[node].doomed = None;
        self.set_build(node, BuildState::Idle);
        self.cut(node);
    }

    /// A derivation itself has failed.
    pub(super) fn fail_for_good(&mut self, node: NodeIx, failure: Failure) {
        self.ready.remove(node);
        self.leave_joined(node);
        if let Some(drv) = self.drv(node).cloned() {
            let reason = failure.reason.clone();
            self.actions.push(Action::Journal(Record::Failed { drv, reason }));
        }
        self.fail_at_root(node, failure);
    }

    pub(super) fn forget(&mut self, path: &StorePath) {
        let drv = self.intern.drvs.get(path).copied();
        if let Some(build) = drv.and_then(|node| self.graph.build_mut(node)) {
            if let BuildState::Failed(failed) = &mut build.state {
                failed.until = Time::ZERO;
            }
            for (_, output) in build.outputs.clone() {
                self.forget_path(output);
            }
        } else if let Some(node) = self.intern.paths.get(path).copied() {
            self.forget_path(node);
        } else {
            self.stats.ignored += 1;
        }
    }

    fn forget_path(&mut self, node: NodeIx) {
        if let Some(path) = self.graph.path_mut(node) {
            path.no_offer_until = Time::ZERO;
            if let crate::node::PathState::Failed(failed) = &mut path.state {
                failed.until = Time::ZERO;
            }
        }
    }

    pub(super) fn set_build(&mut self, node: NodeIx, state: BuildState) {
        if let Some(build) = self.graph.build_mut(node) {
            build.state = state;
        }
    }

    /// Whether some output of a build is wanted and not there.
    pub(super) fn lacks_outputs(&self, build: &BuildNode) -> bool {
        let mut outputs = build.outputs.iter();
        outputs.any(|(_, output)| self.graph.path(*output).is_some_and(|path| !path.is_valid()))
    }
}

fn describe_needs(needs: &crate::drv::Requirements) -> String {
    let mut text = format!("no builder takes builds for system '{}'", needs.system);
    if !needs.features.is_empty() {
        let features: Vec<&str> = needs.features.iter().map(String::as_str).collect();
        text.push_str(&format!(" with features {}", features.join(", ")));
    }
    if needs.memory_mib > 0 {
        text.push_str(&format!(" and {} MiB of memory", needs.memory_mib));
    }
    text.push_str("; add one");
    text
}
