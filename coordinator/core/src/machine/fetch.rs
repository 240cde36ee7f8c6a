//! The way of a path from a substituter.
//!
//! Invariants
//! - a path is fetched only when all it refers to is valid, so what a fetch makes valid is whole;
//! - a fetch that cannot be had, or goes wrong, falls back to building;
//! - a race between fetch and build is ended by whichever makes the path valid.

use std::time::Duration;

use nix_compat::store_path::StorePath;

use super::Machine;
use crate::action::Action;
use crate::config::Hedge;
use crate::drv::INPUTS_MAX;
use crate::event::{FetchResult, Offer, OfferAnswer};
use crate::graph::{NodeIx, Role};
use crate::node::{FetchTrack, PathNode, PathState};
use crate::timers::Timer;

impl Machine {
    /// A path is not in the store.
    pub(super) fn ask_substituters_or_make(&mut self, node: NodeIx) {
        if self.may_ask(node) {
            self.set_fetch(node, FetchTrack::Asking);
            self.queue_offer_query(node);
        } else {
            self.make(node);
        }
    }

    fn may_ask(&self, node: NodeIx) -> bool {
        let Some(path) = self.graph.path(node) else {
            return false;
        };
        let mut producers = path.producers.iter();
        let forbids = producers.any(|drv| {
            let info = self.graph.build(*drv).and_then(|build| build.info.as_ref());
            info.is_some_and(|info| !info.substitutable)
        });
        self.config.substituter_queries_max > 0
            && self.is_named(node)
            && path.no_offer_until <= self.now
            && !forbids
    }

    pub(super) fn offers(&mut self, answers: Vec<(StorePath, OfferAnswer)>) {
        for (path, answer) in answers {
            let node = self.intern.paths.get(&path).copied();
            let asked = node.and_then(|node| self.graph.path_mut(node));
            match (node, asked) {
                (Some(node), Some(path)) if path.asked_offers => {
                    path.asked_offers = false;
                    let waits = path.fetch == FetchTrack::Asking;
                    self.offer_queries.answered();
                    if waits {
                        self.offer(node, answer);
                    }
                }
                _ => self.stats.ignored += 1,
            }
        }
    }

    fn offer(&mut self, node: NodeIx, answer: OfferAnswer) {
        match answer {
            OfferAnswer::Offer(offer) if offer.references.len() <= INPUTS_MAX => {
                self.accept_offer(node, offer);
            }
            OfferAnswer::Offer(_) | OfferAnswer::None => self.no_offer(node),
            OfferAnswer::Error { .. } => {
                self.set_fetch(node, FetchTrack::Off);
                self.make(node);
            }
        }
    }

    /// No substituter has it, or none that can be believed: not asked again for a while.
    fn no_offer(&mut self, node: NodeIx) {
        let until = self.now.after(self.config.absent_for);
        if let Some(path) = self.graph.path_mut(node) {
            path.no_offer_until = until;
        }
        self.fall_back(node);
    }

    fn accept_offer(&mut self, node: NodeIx, offer: Offer) {
        let own = self.graph.path(node).and_then(|path| path.path.clone());
        let references: Vec<_> = offer
            .references
            .iter()
            .filter(|path| own.as_ref() != Some(*path))
            .cloned()
            .collect();
        let estimate = offer.estimate;
        if let Some(path) = self.graph.path_mut(node) {
            path.nar_size = offer.nar_size;
            path.offer = Some(Box::new(offer));
        }
        self.set_fetch(node, FetchTrack::References);
        for reference in references {
            let reference = self.path_node(&reference);
            if self.need(node, reference, Role::Reference).is_err() {
                self.fall_back(node);
                return;
            }
        }
        self.reference_settled(node);
        self.set_hedge(node, estimate);
    }

    /// Fetches it if all it refers to is valid.
    pub(super) fn reference_settled(&mut self, node: NodeIx) {
        let waiting = self.graph[node].waiting;
        let path = self.graph.path(node);
        if waiting == 0 && path.is_some_and(|path| path.fetch == FetchTrack::References) {
            self.set_fetch(node, FetchTrack::Queued);
            self.queue_fetch(node);
        }
    }

    pub(super) fn references_broken(&mut self, node: NodeIx) {
        let path = self.graph.path(node);
        if path.is_some_and(|path| path.fetch == FetchTrack::Broken) {
            self.fall_back(node);
        }
    }

    /// Gives the fetch up; builds it, unless that goes on already.
    pub(super) fn fall_back(&mut self, node: NodeIx) {
        self.set_fetch(node, FetchTrack::Off);
        self.cut_roles(node, |role| role == Role::Reference);
        let mut needs = self.graph[node].needs.iter();
        if !needs.any(|need| need.open && need.role == Role::Producer) {
            self.make(node);
        }
    }

    pub(super) fn fetched(&mut self, path: &StorePath, result: &FetchResult) {
        let node = self.intern.paths.get(path).copied();
        let Some((node, path)) = node.and_then(|node| Some((node, self.graph.path_mut(node)?))) else {
            self.stats.ignored += 1;
            return;
        };
        let was_fetching = std::mem::take(&mut path.fetching);
        let waits = path.fetch == FetchTrack::Running;
        if was_fetching {
            self.fetches.answered();
        }
        match result {
            // also when it was not waited for any more: the store has it
            FetchResult::Valid if !path.is_valid() => self.path_valid(node),
            FetchResult::Corrupt { .. } if waits => self.no_offer(node),
            FetchResult::Error { .. } if waits => self.fetch_again(node),
            FetchResult::Valid | FetchResult::Corrupt { .. } | FetchResult::Error { .. } => {}
        }
    }

    fn fetch_again(&mut self, node: NodeIx) {
        let Some(path) = self.graph.path_mut(node) else {
            return;
        };
        path.attempts += 1;
        let attempts = path.attempts;
        if attempts >= self.config.fetch_attempts_max {
            self.fall_back(node);
            return;
        }
        let at = self.wait_before(attempts);
        self.set_fetch(node, FetchTrack::Retry(at));
        self.timers.set(at, Timer::Again(node));
    }

    /// Stops a fetch that is out.
    pub(super) fn stop_fetch(&mut self, node: NodeIx) {
        let Some(path) = self.graph.path_mut(node) else {
            return;
        };
        if std::mem::take(&mut path.fetching) {
            let path = path.path.clone();
            self.fetches.answered();
            self.actions.extend(path.map(|path| Action::CancelFetch { path }));
        }
    }

    /// When a fetch is expected to be slower than the build, or turns out to be, the build may race it.
    fn set_hedge(&mut self, node: NodeIx, fetch: Duration) {
        let Hedge::Slack(slack) = self.config.hedge else {
            return;
        };
        let producer = self
            .graph
            .path(node)
            .and_then(|path| path.producers.first().copied());
        let info = producer.and_then(|drv| self.graph.build(drv)?.info.as_ref());
        let Some(build) = info.map(|info| Duration::from_millis(info.estimate_millis)) else {
            return;
        };
        if fetch > build.saturating_add(slack) {
            self.hedge(node);
        } else {
            let at = self.now.after(fetch.saturating_add(slack));
            self.timers.set(at, Timer::Hedge(node));
        }
    }

    pub(super) fn hedge(&mut self, node: NodeIx) {
        let urgency = self.graph[node].demand.top();
        let Some(path) = self.graph.path(node) else {
            return;
        };
        let is_slow = matches!(path.state, PathState::Obtaining)
            && !matches!(path.fetch, FetchTrack::Off | FetchTrack::Asking);
        let mut needs = self.graph[node].needs.iter();
        let is_made = needs.any(|need| need.open && need.role == Role::Producer);
        if is_slow && !is_made && urgency.is_some_and(|urgency| urgency.is_asked_for()) {
            self.make(node);
        }
    }

    /// A node that waited for its next try.
    pub(super) fn again(&mut self, node: NodeIx) {
        let now = self.now;
        let due = |at: crate::id::Time| at <= now;
        let path = self.graph.path(node);
        if path.is_some_and(|path| matches!(path.state, PathState::Retry(at) if due(at))) {
            self.set_path(node, PathState::Checking);
            self.queue_store_query(node);
        } else if path.is_some_and(|path| matches!(path.fetch, FetchTrack::Retry(at) if due(at))) {
            self.set_fetch(node, FetchTrack::Queued);
            self.queue_fetch(node);
        } else {
            self.build_again(node);
        }
    }

    pub(super) fn requeue_fetch(&mut self, node: NodeIx) {
        let path = self.graph.path(node);
        let (track, asked) = path.map_or((FetchTrack::Off, true), |path: &PathNode| {
            (path.fetch, path.asked_offers)
        });
        match track {
            FetchTrack::Asking if !asked => self.queue_offer_query(node),
            FetchTrack::Queued => self.queue_fetch(node),
            _ => {}
        }
    }

    pub(super) fn set_fetch(&mut self, node: NodeIx, track: FetchTrack) {
        if let Some(path) = self.graph.path_mut(node) {
            path.fetch = track;
        }
    }
}
