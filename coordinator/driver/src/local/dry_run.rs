//! What a job would fetch and build, without doing it.
//!
//! Found as the machine would: the store first, then substituters, then what makes it; from the goals down, a layer of
//! derivations at a time, so that a layer's look-ups are in flight together. Nothing is descended into that is there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use igloo_coordinator::{Answer, DrvInfo};
use igloo_evaluator::{EvaluateReport, Goal};
use igloo_status::Code;
use igloo_store::FactKind;
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;
use tokio::sync::mpsc;

use super::fault::{chain, verb};
use super::run::{Client, Evaluation};
use super::steps::resolve::realisation_key;
use super::watch::GoalEnd;
use crate::job::{FailureKind, FailureReport, GoalReport, JobError, JobReport, Planned};

/// Runs the evaluation, if there is one, and gathers goals without wanting them.
pub(super) async fn collect(
    mut evaluation: Evaluation<'_>,
    goals: &mut mpsc::UnboundedReceiver<Goal>,
) -> Result<(Vec<GoalEnd>, Option<EvaluateReport>), JobError> {
    let evaluated = evaluation.as_mut().await?;
    drop(evaluation); // and with it the sender
    let mut ends = Vec::new();
    while let Some(goal) = goals.recv().await {
        let answer = Answer::Cancelled; // it was never wanted
        ends.push(GoalEnd { goal, answer });
    }
    Ok((ends, evaluated))
}

/// Plans goals, and makes the report of that.
pub(super) async fn report(
    client: &Arc<Client>,
    goals: Vec<GoalEnd>,
    evaluation: Option<EvaluateReport>,
    is_path: bool,
) -> Result<JobReport, JobError> {
    let mut walk = Walk::new(client);
    let mut wanted = Vec::new();
    for end in &goals {
        let outputs = if is_path {
            BTreeMap::new()
        } else {
            walk.want(&end.goal.drv, &end.goal.outputs).await?
        };
        if is_path {
            walk.frontier.insert(end.goal.drv.clone());
        }
        wanted.push(outputs);
    }
    while !walk.frontier.is_empty() || !walk.to_build.is_empty() {
        walk.layer().await?;
    }
    let mut reports = Vec::new();
    for (end, outputs) in goals.into_iter().zip(wanted) {
        reports.push(walk.goal(end.goal, outputs, is_path));
    }
    Ok(JobReport {
        goals: reports,
        failures: walk.failures.clone(),
        evaluation,
        plan: Some(walk.planned()),
        ..JobReport::default()
    })
}

struct Walk<'a> {
    client: &'a Client,
    infos: HashMap<StorePath, Arc<DrvInfo>>,
    /// Which derivation makes a path, of those that were read.
    makers: HashMap<StorePath, StorePath>,
    /// Paths not looked at yet.
    frontier: BTreeSet<StorePath>,
    /// Derivations that must be built and whose inputs were not looked at yet.
    to_build: Vec<StorePath>,
    builds: HashSet<StorePath>,
    looked_at: HashSet<StorePath>,
    present: HashSet<StorePath>,
    fetches: Vec<(StorePath, u64, Option<u64>)>,
    failures: Vec<FailureReport>,
}

impl<'a> Walk<'a> {
    fn new(client: &'a Client) -> Self {
        Self {
            client,
            infos: HashMap::new(),
            makers: HashMap::new(),
            frontier: BTreeSet::new(),
            to_build: Vec::new(),
            builds: HashSet::new(),
            looked_at: HashSet::new(),
            present: HashSet::new(),
            fetches: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Wants outputs of a derivation, all where none is named: those whose paths are known, with these.
    async fn want(
        &mut self,
        drv: &StorePath,
        names: &BTreeSet<OutputName>,
    ) -> Result<BTreeMap<OutputName, StorePath>, JobError> {
        let Some(info) = self.info(drv).await else {
            return Ok(BTreeMap::new());
        };
        let mut known = BTreeMap::new();
        for (name, path) in &info.outputs {
            if !names.is_empty() && !names.contains(name) {
                continue;
            }
            let path = match path {
                Some(path) => Some(path.clone()),
                None => self.realised(drv, name).await?,
            };
            match path {
                Some(path) => {
                    self.makers.entry(path.clone()).or_insert_with(|| drv.clone());
                    if !self.looked_at.contains(&path) {
                        self.frontier.insert(path.clone());
                    }
                    known.insert(name.clone(), path);
                }
                None => self.build(drv),
            }
        }
        Ok(known)
    }

    /// Looks at all paths that were not looked at, then at what the derivations need that must be built for them.
    async fn layer(&mut self) -> Result<(), JobError> {
        let frontier = std::mem::take(&mut self.frontier);
        let mut missing = Vec::new();
        for path in frontier {
            if !self.looked_at.insert(path.clone()) {
                continue;
            }
            if self.is_there(&path).await? {
                self.present.insert(path);
            } else if self.client.shared.beside(&path).is_none() {
                missing.push(path);
            }
        }
        self.obtain(missing).await?;
        for drv in std::mem::take(&mut self.to_build) {
            let Some(info) = self.info(&drv).await else {
                continue;
            };
            for (input, names) in &info.inputs {
                let names = names.iter().cloned().collect();
                self.want(input, &names).await?;
            }
            let sources = info.sources.iter().cloned();
            self.frontier
                .extend(sources.filter(|path| !self.looked_at.contains(path)));
        }
        Ok(())
    }

    async fn obtain(&mut self, missing: Vec<StorePath>) -> Result<(), JobError> {
        let may_fetch = |path: &StorePath| {
            let maker = self.makers.get(path).and_then(|drv| self.infos.get(drv));
            self.client.options.substitute && maker.is_none_or(|info| info.substitutable)
        };
        let (ask, mut make): (Vec<_>, Vec<_>) = missing.into_iter().partition(may_fetch);
        match &self.client.shared.substituters {
            Some(substituters) if !ask.is_empty() => {
                let mut plan = substituters.plan(&ask).await.map_err(|error| JobError::Host {
                    reason: chain(&error).join(": "),
                    code: error.code(),
                })?;
                make.extend(ask.into_iter().filter(|path| plan.failed.contains_key(path)));
                for path in plan.order {
                    self.looked_at.insert(path.clone());
                    if let Some(candidate) = plan.candidates.remove(&path) {
                        let offer = &candidate.offer;
                        self.fetches.push((path, offer.nar.nar_size, offer.download_size));
                    }
                }
            }
            _ => make.extend(ask),
        }
        for path in make {
            match self.makers.get(&path).cloned() {
                Some(drv) => self.build(&drv),
                None => self.unavailable(
                    &path,
                    vec!["nobody has it, and no derivation makes it".to_owned()],
                ),
            }
        }
        Ok(())
    }

    fn build(&mut self, drv: &StorePath) {
        if self.builds.insert(drv.clone()) {
            self.to_build.push(drv.clone());
        }
    }

    fn unavailable(&mut self, path: &StorePath, causes: Vec<String>) {
        let dir = &self.client.shared.store().dir;
        self.failures.push(FailureReport {
            path: path.clone(),
            kind: FailureKind::Unavailable,
            headline: format!("cannot {} '{}'", verb(path), dir.print(path)),
            causes,
            log_tail: Vec::new(),
            code: Code::NotFound,
        });
    }

    async fn info(&mut self, drv: &StorePath) -> Option<Arc<DrvInfo>> {
        if let Some(info) = self.infos.get(drv) {
            return Some(Arc::clone(info));
        }
        let shared = &self.client.shared;
        let derivation = shared.derivation(drv).await;
        let described = match &derivation {
            Ok(derivation) => shared.describe(drv, derivation).map_err(|error| chain(&error)),
            Err(error) => Err(chain(error)),
        };
        match described {
            Ok(info) => {
                let info = Arc::new(info);
                self.infos.insert(drv.clone(), Arc::clone(&info));
                Some(info)
            }
            Err(causes) => {
                if !self.failures.iter().any(|failure| failure.path == *drv) {
                    self.unavailable(drv, causes);
                }
                None
            }
        }
    }

    async fn realised(&self, drv: &StorePath, name: &OutputName) -> Result<Option<StorePath>, JobError> {
        let key = realisation_key(drv, name);
        let facts = &self.client.shared.store().facts;
        let found = facts.get(FactKind::Realisation, &key).await;
        let found = found.map_err(|error| host(&error, error.code()))?;
        Ok(found.and_then(|bytes| StorePath::parse_bytes(&bytes).ok()))
    }

    async fn is_there(&self, path: &StorePath) -> Result<bool, JobError> {
        let info = self.client.shared.store().path_infos.get(path).await;
        let info = info.map_err(|error| host(&error, error.code()))?;
        Ok(info.is_some())
    }

    fn goal(&self, goal: Goal, outputs: BTreeMap<OutputName, StorePath>, is_path: bool) -> GoalReport {
        let failure = self.failures.iter().position(|report| report.path == goal.drv);
        let is_valid = if is_path {
            self.present.contains(&goal.drv)
        } else {
            // every wanted output has a path, and it is there
            !outputs.is_empty()
                && !self.builds.contains(&goal.drv)
                && outputs.values().all(|path| self.present.contains(path))
        };
        GoalReport {
            goal,
            outputs,
            failure,
            is_valid,
        }
    }

    /// The builds in an order that works.
    fn planned(self) -> Planned {
        let mut order = Vec::with_capacity(self.builds.len());
        let mut entered = HashSet::new();
        let mut roots: Vec<StorePath> = self.builds.iter().cloned().collect();
        roots.sort_unstable(); // the same job has the same plan
        let mut stack: Vec<(StorePath, bool)> = roots.into_iter().map(|drv| (drv, false)).collect();
        while let Some((drv, is_left)) = stack.pop() {
            if is_left {
                order.push(drv);
            } else if entered.insert(drv.clone()) {
                let info = self.infos.get(&drv);
                let inputs = info.into_iter().flat_map(|info| info.inputs.iter());
                let inputs: Vec<StorePath> = inputs
                    .map(|(input, _)| input.clone())
                    .filter(|input| self.builds.contains(input))
                    .collect();
                stack.push((drv, true));
                stack.extend(inputs.into_iter().map(|input| (input, false)));
            }
        }
        Planned {
            builds: order,
            fetches: self.fetches,
        }
    }
}

fn host(error: &dyn std::error::Error, code: Code) -> JobError {
    JobError::Host {
        reason: chain(error).join(": "),
        code,
    }
}
