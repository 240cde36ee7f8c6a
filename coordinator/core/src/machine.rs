//! The machine: one door in, one door out.
//!
//! [`Machine::handle`] hands the event to a small handler (`machine/`), works off what that settles, lets urgency and critical
//! path follow, gives ready builds to free builders, and sends the questions whose turn it is.
//!
//! Invariants
//! - consequences go through `work`, never through recursion, so no depth of a graph can overflow the stack;
//! - one call does at most about [`STEPS_MAX`] steps of consequences; the rest waits for the next call, and a wake-up is ordered;
//! - places in the arena are freed only when no work is left that could name them.

mod announce;
mod builds;
mod check;
mod clients;
mod ends;
mod fetch;
mod lanes;
mod names;
mod paths;
mod place;
mod restart;
mod retire;
mod settle;
mod workers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::action::Action;
use crate::builders::Builders;
use crate::config::Config;
use crate::event::Event;
use crate::failure::Failure;
use crate::graph::{Graph, NodeIx};
use crate::id::{ClientId, LeaseId, Time};
use crate::intern::Intern;
use crate::lane::Lane;
use crate::leases::Leases;
use crate::ready::Ready;
use crate::spread::Spread;
use crate::timers::{Timer, Timers};
use clients::Client;
use ends::Committing;
use settle::Work;

/// Steps of consequences in one call: edges looked at, about 50 ns each.
const STEPS_MAX: usize = 20_000;

/// The coordinator's state. See the crate's page for what it promises.
///
/// Memory: about 300 bytes for each path or derivation and 20 for each need; [`Config::nodes_max`] bounds what nobody wants.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    now: Time,
    graph: Graph,
    intern: Intern,
    spread: Spread,
    ready: Ready,
    builders: Builders,
    leases: Leases,
    committing: BTreeMap<LeaseId, Committing>,
    clients: BTreeMap<ClientId, Client>,
    timers: Timers,
    reads: Lane,
    store_queries: Lane,
    offer_queries: Lane,
    fetches: Lane,
    work: VecDeque<Work>,
    idle: VecDeque<NodeIx>,
    answered: Vec<NodeIx>,
    place_due: bool,
    woken_at: Option<Time>,
    actions: Vec<Action>,
    stats: Stats,
}

/// Counts, for metrics. None of them decides anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Paths and derivations known.
    pub nodes: usize,
    /// Builds waiting for a builder.
    pub ready: usize,
    /// Leases that run.
    pub running: usize,
    /// Questions to the store that are out.
    pub store_queries: usize,
    /// Fetches that are out.
    pub fetches: usize,
    /// Events that fitted nothing: late, repeated, or wrong.
    pub ignored: u64,
    /// Builds given to builders.
    pub dispatched: u64,
    /// Builds whose outputs were committed.
    pub committed: u64,
    /// Derivations that another build did for them, or that had been built under another name (early cut-off).
    pub joined: u64,
}

impl Machine {
    /// A machine that knows nothing. The seed breaks ties, and keeps hostile names from slowing its tables.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            graph: Graph::default(),
            intern: Intern::new(seed),
            spread: Spread::default(),
            ready: Ready::default(),
            builders: Builders::new(config.store.clone(), seed),
            leases: Leases::default(),
            committing: BTreeMap::new(),
            clients: BTreeMap::new(),
            timers: Timers::default(),
            reads: Lane::new(config.reads_max),
            store_queries: Lane::new(config.store_queries_max),
            offer_queries: Lane::new(config.substituter_queries_max),
            fetches: Lane::new(config.fetches_max),
            work: VecDeque::new(),
            idle: VecDeque::new(),
            answered: Vec::new(),
            place_due: false,
            woken_at: None,
            actions: Vec::new(),
            stats: Stats::default(),
            config,
        }
    }

    /// Takes in one event; what is to be done now, in this order.
    ///
    /// Time never goes back: an earlier `now` counts as the last one. Cost: the event's own size, and what it settles, in
    /// portions of a few milliseconds.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        if self.woken_at.is_some_and(|at| at <= self.now) {
            self.woken_at = None;
        }
        self.remind();
        self.apply(event);
        self.finish()
    }

    /// Counts, now.
    pub fn stats(&self) -> Stats {
        let live = self.leases.iter().filter(|(_, lease)| lease.state.has_slot());
        Stats {
            nodes: self.graph.len(),
            ready: self.ready.len(),
            running: live.count(),
            store_queries: self.store_queries.out(),
            fetches: self.fetches.out(),
            ..self.stats
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::ClientCame { client, options } => self.client_came(client, options),
            Event::ClientGone { client } => self.client_gone(client),
            Event::Wanted { client, want } => self.wanted(client, want),
            Event::Cancelled { client, want } => self.cancelled(client, want),
            Event::DrvKnown(info) => self.drv_known(*info),
            Event::DrvUnreadable { drv, reason } => self.drv_unreadable(&drv, reason),
            Event::Resolved { drv, resolved } => self.resolved(&drv, resolved),
            Event::StoreAnswers(answers) => self.store_answers(answers),
            Event::Offers(answers) => self.offers(answers),
            Event::Fetched { path, result } => self.fetched(&path, &result),
            Event::PathGone { path } => self.path_gone(&path),
            Event::BuilderUp {
                builder,
                offers,
                running,
            } => self.builder_up(builder, offers, &running),
            Event::BuilderDraining { builder } => self.builder_draining(builder),
            Event::BuilderDown { builder } => self.builder_down(builder),
            Event::Heartbeat {
                builder,
                load_permille,
            } => self.builders.heard(builder, self.now, Some(load_permille)),
            Event::Ended { lease, end } => self.ended(lease, end),
            Event::Committed { lease, result } => self.committed(lease, result),
            Event::Forget { path } => self.forget(&path),
            Event::Tick => {}
        }
    }

    fn remind(&mut self) {
        while let Some(timer) = self.timers.pop(self.now) {
            match timer {
                Timer::Silence(builder) => self.check_silence(builder),
                Timer::Quarantine(builder) => self.end_quarantine(builder),
                Timer::Again(node) => self.again(node),
                Timer::Hedge(node) => self.hedge(node),
                Timer::NoBuilder(node) => self.check_no_builder(node),
                Timer::Unwanted(lease) => self.check_unwanted(lease),
                Timer::Reattach(lease) => self.check_reattached(lease),
            }
        }
    }

    fn finish(&mut self) -> Vec<Action> {
        let mut steps = STEPS_MAX;
        while steps > 0 && !(self.work.is_empty() && self.spread.is_settled()) {
            self.work_off(&mut steps);
            self.follow(&mut steps);
        }
        self.place();
        self.send_questions();
        self.retire();
        self.order_wake_up();
        std::mem::take(&mut self.actions)
    }

    fn order_wake_up(&mut self) {
        let is_done = self.work.is_empty() && self.spread.is_settled();
        let next = if is_done {
            self.timers.next_at()
        } else {
            Some(self.now)
        };
        if let Some(at) = next
            && self.woken_at != Some(at)
        {
            self.woken_at = Some(at);
            self.actions.push(Action::WakeAt(at));
        }
    }

    fn fail_at_root(&mut self, node: NodeIx, failure: Failure) {
        self.fail(node, &Arc::new(failure));
    }
}
