//! A plan carried out.
//!
//! Invariants
//! - fetches begin in the plan's order and end in any; records wait until their references are registered, then all that
//!   can be are registered in one step, one step at a time;
//! - a path that fails takes those that refer to it along, and no others.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use igloo_store::{CommitError, PathInfo};
use nix_compat::store_path::StorePath;

use super::{Candidate, Plan, SubstituteError, Substituted, Substituters};
use crate::progress::{Progress, ProgressEvent};

enum Step {
    Fetched(usize, Box<Result<PathInfo, SubstituteError>>),
    Registered(Vec<PathInfo>, Result<(), CommitError>),
}

pub(super) async fn execute(all: &Substituters, plan: Plan, progress: &dyn Progress) -> Substituted {
    for candidate in plan.candidates.values() {
        progress.event(ProgressEvent::Planned {
            path: &candidate.offer.nar.path,
            from: &candidate.offer.from,
            download_size: candidate.offer.download_size,
            nar_size: candidate.offer.nar.nar_size,
        });
    }
    let mut run = Run {
        all,
        progress,
        order: plan.order,
        candidates: plan.candidates,
        present: plan.present,
        started: 0,
        fetching: 0,
        registering: false,
        waiting: BTreeMap::new(),
        answer: Substituted {
            registered: Vec::new(),
            failed: plan.failed,
        },
    };
    let mut steps = FuturesUnordered::new();
    loop {
        run.start(&steps);
        let Some(step) = steps.next().await else { break };
        run.finish(step);
    }
    run.answer
}

type Steps<'a> = FuturesUnordered<BoxFuture<'a, Step>>;

struct Run<'a> {
    all: &'a Substituters,
    progress: &'a dyn Progress,
    /// Paths to fetch, references first; a position in it names a path.
    order: Vec<StorePath>,
    candidates: BTreeMap<StorePath, Candidate>,
    /// Registered, before or by this.
    present: BTreeSet<StorePath>,
    /// How many of `order` were begun.
    started: usize,
    fetching: usize,
    registering: bool,
    /// Fetched and not yet registered, by position.
    waiting: BTreeMap<usize, PathInfo>,
    answer: Substituted,
}

impl<'a> Run<'a> {
    fn start(&mut self, steps: &Steps<'a>) {
        while self.fetching < self.all.options.fetches_max.max(1) && self.started < self.order.len() {
            let position = self.started;
            self.started += 1;
            self.start_fetch(position, steps);
        }
        if self.registering {
            return;
        }
        let batch = self.ready();
        if !batch.is_empty() {
            self.registering = true;
            let store = &self.all.store;
            let register = async move {
                let result = store.register(batch.clone()).await;
                Step::Registered(batch, result)
            };
            steps.push(register.boxed());
        }
    }

    fn start_fetch(&mut self, position: usize, steps: &Steps<'a>) {
        let path = self.order[position].clone();
        let Some(candidate) = self.candidates.remove(&path) else {
            return; // every path in the order has one, once
        };
        if let Some(reference) = self.lost(&candidate.offer.nar.references) {
            self.fail(path, reference);
            return;
        }
        self.fetching += 1;
        let (all, progress) = (self.all, self.progress);
        let fetch = async move {
            let result = all.fetch(&path, candidate, progress).await;
            Step::Fetched(position, result.into())
        };
        steps.push(fetch.boxed());
    }

    /// All that may be registered now, references first: theirs are there, or come along.
    fn ready(&mut self) -> Vec<PathInfo> {
        let mut along = BTreeSet::new();
        let mut positions = Vec::new();
        for (position, info) in &self.waiting {
            let there = |to: &StorePath| *to == info.path || along.contains(to) || self.present.contains(to);
            if info.references.iter().all(there) {
                along.insert(info.path.clone());
                positions.push(*position);
            }
        }
        let infos = positions
            .iter()
            .filter_map(|position| self.waiting.remove(position));
        infos.collect()
    }

    fn finish(&mut self, step: Step) {
        match step {
            Step::Fetched(position, result) => {
                self.fetching -= 1;
                match *result {
                    Ok(info) => {
                        self.waiting.insert(position, info);
                    }
                    Err(error) => {
                        self.answer.failed.insert(self.order[position].clone(), error);
                    }
                }
            }
            Step::Registered(batch, result) => {
                self.registering = false;
                for info in batch {
                    self.registered(info, &result);
                }
            }
        }
        self.fail_referrers();
    }

    fn registered(&mut self, info: PathInfo, result: &Result<(), CommitError>) {
        match result {
            Ok(()) => {
                self.progress
                    .event(ProgressEvent::Registered { path: &info.path });
                self.present.insert(info.path.clone());
                self.answer.registered.push(info);
            }
            Err(error) => {
                let error = SubstituteError::register(&info.path, error);
                self.answer.failed.insert(info.path, error);
            }
        }
    }

    /// What was fetched and refers to what failed will never be registered. References come first, so one pass is enough.
    fn fail_referrers(&mut self) {
        if self.answer.failed.is_empty() {
            return;
        }
        for (position, info) in std::mem::take(&mut self.waiting) {
            match self.lost(&info.references) {
                Some(reference) => self.fail(info.path, reference),
                None => {
                    self.waiting.insert(position, info);
                }
            }
        }
    }

    /// The first of these that failed.
    fn lost(&self, references: &BTreeSet<StorePath>) -> Option<StorePath> {
        let failed = &self.answer.failed;
        if failed.is_empty() {
            return None;
        }
        references.iter().find(|to| failed.contains_key(*to)).cloned()
    }

    fn fail(&mut self, path: StorePath, reference: StorePath) {
        let error = SubstituteError::Reference {
            path: path.clone(),
            reference,
        };
        self.answer.failed.insert(path, error);
    }
}
