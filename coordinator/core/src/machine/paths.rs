//! Paths: in the store, or fetched, or made.
//!
//! Invariants
//! - the store is asked before substituters, and these before anything is built;
//! - a path that is valid holds nothing: what was fetched or built for it is let go in the same step;
//! - it fails only when the store lacks it, no fetch is under way, and every derivation that makes it has failed.

use std::sync::Arc;

use nix_compat::store_path::StorePath;

use super::Machine;
use crate::builders::backoff;
use crate::event::{StoreAnswer, StoreKey};
use crate::failure::{Failure, FailureKind};
use crate::graph::{NodeIx, Role};
use crate::id::Time;
use crate::node::{BuildState, FetchTrack, PathNode, PathState};
use crate::timers::Timer;

impl Machine {
    /// Begins with a path that is wanted.
    pub(super) fn start_path(&mut self, node: NodeIx) {
        self.graph[node].doomed = None;
        let Some(path) = self.graph.path_mut(node) else {
            return;
        };
        path.tried = 0;
        path.attempts = 0;
        path.fetch = FetchTrack::Off;
        let (has_path, output) = (path.path.is_some(), path.output);
        let Some((drv, name)) = output.filter(|_| !has_path) else {
            self.check_store(node);
            return;
        };
        let Some(build) = self.graph.build(drv) else {
            return;
        };
        match (&build.info, &build.state) {
            (Some(info), _) if info.output(name).is_none() => {
                let failure = self.no_such_output(drv, name);
                self.fail_at_root(node, failure);
            }
            (Some(_), _) => self.check_store(node),
            (None, BuildState::Failed(failed)) if failed.until > self.now => {
                let failure = failed.failure.clone();
                self.fail(node, &failure);
            }
            (None, _) => {
                self.set_path(node, PathState::Info);
                self.read(drv);
            }
        }
    }

    /// The derivation is known now.
    pub(super) fn restart_path(&mut self, node: NodeIx) {
        let waits = |path: &PathNode| matches!(path.state, PathState::Info);
        if self.graph.path(node).is_some_and(waits) {
            self.start_path(node);
        }
    }

    fn check_store(&mut self, node: NodeIx) {
        self.set_path(node, PathState::Checking);
        self.queue_store_query(node);
    }

    pub(super) fn store_answers(&mut self, answers: Vec<(StoreKey, StoreAnswer)>) {
        for (key, answer) in answers {
            let node = match &key {
                StoreKey::Path(path) => self.intern.paths.get(path).copied(),
                StoreKey::Output { drv, output } => {
                    let build = self.intern.drvs.get(drv).and_then(|node| self.graph.build(*node));
                    let name = self.intern.name(output);
                    build.zip(name).and_then(|(build, name)| build.output(name))
                }
            };
            let asked = node.and_then(|node| self.graph.path_mut(node));
            match (node, asked) {
                (Some(node), Some(path)) if path.asked_store => {
                    path.asked_store = false;
                    self.store_queries.answered();
                    self.store_answer(node, answer);
                }
                _ => self.stats.ignored += 1,
            }
        }
    }

    fn store_answer(&mut self, node: NodeIx, answer: StoreAnswer) {
        let Some(path) = self.graph.path_mut(node) else {
            return;
        };
        let waits = matches!(path.state, PathState::Checking);
        match answer {
            StoreAnswer::Present {
                path: found,
                nar_size,
            } => {
                path.nar_size = nar_size;
                path.path.get_or_insert(found);
                if !path.is_valid() {
                    self.path_valid(node);
                }
            }
            StoreAnswer::Absent if waits => {
                path.attempts = 0;
                path.state = PathState::Obtaining;
                self.ask_substituters_or_make(node);
            }
            StoreAnswer::Error { reason } if waits => {
                path.attempts += 1;
                let attempts = path.attempts;
                if attempts < self.config.fetch_attempts_max {
                    let at = self.wait_before(attempts);
                    self.set_path(node, PathState::Retry(at));
                    self.timers.set(at, Timer::Again(node));
                } else {
                    let reason = format!("the store does not answer: {reason}");
                    let failure = self.failure_of(node, FailureKind::Infrastructure, reason);
                    self.fail_at_root(node, failure);
                }
            }
            StoreAnswer::Absent | StoreAnswer::Error { .. } => {}
        }
    }

    /// When to try the next time, after so many tries.
    pub(super) fn wait_before(&self, attempts: u32) -> Time {
        let times = attempts.saturating_sub(1);
        self.now
            .after(backoff(self.config.backoff, self.config.backoff_max, times))
    }

    /// A path is in the store, however it came there.
    pub(super) fn path_valid(&mut self, node: NodeIx) {
        self.stop_fetch(node);
        let since = self.now;
        if let Some(path) = self.graph.path_mut(node) {
            path.state = PathState::Valid { since };
            path.fetch = FetchTrack::Off;
            path.offer = None;
        }
        self.succeed(node);
    }

    /// Has a path made by the next derivation that can.
    pub(super) fn make(&mut self, node: NodeIx) {
        let mut last = None;
        loop {
            let Some(path) = self.graph.path(node) else {
                return;
            };
            let Some(producer) = path.producers.get(path.tried).copied() else {
                break;
            };
            match self.need(node, producer, Role::Producer) {
                Ok(()) => return,
                Err(failure) => last = Some(failure),
            }
            if let Some(path) = self.graph.path_mut(node) {
                path.tried += 1;
            }
        }
        self.nothing_makes(node, last);
    }

    fn nothing_makes(&mut self, node: NodeIx, last: Option<Arc<Failure>>) {
        if self
            .graph
            .path(node)
            .is_none_or(|path| path.fetch != FetchTrack::Off)
        {
            return; // it may still be fetched
        }
        match last {
            Some(failure) => self.fail(node, &failure),
            None => {
                let reason = "it is in no store, and no derivation is known that makes it";
                let failure = self.failure_of(node, FailureKind::Missing, reason);
                self.fail_at_root(node, failure);
            }
        }
    }

    /// Something a path needed is settled.
    pub(super) fn path_need_settled(&mut self, node: NodeIx, role: Role, failure: Option<Arc<Failure>>) {
        let Some(path) = self.graph.path(node) else {
            return;
        };
        match (role, &path.state) {
            (Role::Reference, PathState::Obtaining) => self.reference_settled(node),
            (Role::Producer, PathState::Obtaining) => {
                if let Some(failure) = failure {
                    self.producer_failed(node, failure);
                }
            }
            (Role::Same, PathState::Joined) => self.same_settled(node, failure),
            _ => {}
        }
    }

    fn producer_failed(&mut self, node: NodeIx, failure: Arc<Failure>) {
        let Some(path) = self.graph.path_mut(node) else {
            return;
        };
        path.tried += 1;
        if path.tried < path.producers.len() {
            self.make(node);
        } else {
            self.nothing_makes(node, Some(failure));
        }
    }

    fn same_settled(&mut self, node: NodeIx, failure: Option<Arc<Failure>>) {
        if self.graph[node].waiting > 0 {
            return;
        }
        match failure.or_else(|| self.graph[node].doomed.clone()) {
            Some(failure) => self.fail(node, &failure),
            None => self.path_valid(node),
        }
    }

    /// A path's urgency changed, and somebody wants it.
    pub(super) fn path_wanted(&mut self, node: NodeIx) {
        let Some(path) = self.graph.path(node) else {
            return;
        };
        match path.state {
            PathState::Idle => self.activate(node),
            PathState::Checking if !path.asked_store => self.queue_store_query(node),
            PathState::Obtaining => self.requeue_fetch(node),
            _ => {}
        }
    }

    /// Nobody wants a path any more.
    pub(super) fn path_unwanted(&mut self, node: NodeIx) {
        self.graph[node].level = 0;
        self.graph[node].hops = 0;
        let Some(path) = self.graph.path_mut(node) else {
            return;
        };
        if !matches!(path.state, PathState::Valid { .. } | PathState::Failed(_)) {
            path.state = PathState::Idle;
            path.fetch = FetchTrack::Off;
            path.offer = None;
            self.graph[node].doomed = None;
            self.stop_fetch(node);
            self.cut(node);
        }
        self.park(node);
    }

    pub(super) fn path_gone(&mut self, path: &StorePath) {
        let node = self.intern.paths.get(path).copied();
        match node.and_then(|node| self.graph.path_mut(node)) {
            Some(path) if path.is_valid() => path.state = PathState::Idle,
            Some(_) => {}
            None => self.stats.ignored += 1,
        }
    }

    pub(super) fn set_path(&mut self, node: NodeIx, state: PathState) {
        if let Some(path) = self.graph.path_mut(node) {
            path.state = state;
        }
    }
}
