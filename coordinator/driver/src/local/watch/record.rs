//! What happened in a job, and the report it makes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use igloo_build::BuildStats;
use igloo_coordinator::{Answer, ClientId, Failure};
use igloo_evaluator::{EvaluateReport, Goal};
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;
use tokio::time::Instant;

use super::Watch;
use super::state::State;
use crate::job::{Built, FailureReport, Fetched, GoalReport, JobReport};
use crate::local::fault;

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub built: Vec<BuiltRecord>,
    pub fetched: Vec<FetchedRecord>,
    failures: Vec<FailureReport>,
}

/// A build that ended well.
#[derive(Clone, Debug)]
pub(crate) struct BuiltRecord {
    pub drv: StorePath,
    pub outputs: BTreeMap<OutputName, StorePath>,
    pub stats: BuildStats,
    pub input_bytes: u64,
    pub input_files: u64,
    pub started: Instant,
    pub ended: Instant,
}

/// A fetch that ended well.
#[derive(Clone, Debug)]
pub(crate) struct FetchedRecord {
    pub fetched: Fetched,
    pub ended: Instant,
}

/// A goal and how it ended.
#[derive(Debug)]
pub(crate) struct GoalEnd {
    pub goal: Goal,
    pub answer: Answer,
}

impl Record {
    fn has_failure(&self, path: &StorePath) -> bool {
        self.failures.iter().any(|failure| failure.path == *path)
    }

    pub(super) fn add_failure(&mut self, report: FailureReport) {
        match self
            .failures
            .iter_mut()
            .find(|failure| failure.path == report.path)
        {
            Some(failure) => *failure = report,
            None => self.failures.push(report),
        }
    }
}

impl Watch {
    /// What failed, with all that is known of it.
    pub(crate) fn failure_report(&self, failure: &Failure, wanted: &StorePath) -> FailureReport {
        self.state().failure_report(failure, wanted)
    }

    /// A failed check of a job.
    pub(crate) fn check_failed(&self, client: ClientId, report: FailureReport) {
        if let Some(job) = self.state().jobs.get_mut(&client) {
            job.record.add_failure(report);
        }
    }

    /// Whether a derivation was built for this job.
    pub(crate) fn has_built(&self, client: ClientId, drv: &StorePath) -> bool {
        let state = self.state();
        let built = state.jobs.get(&client).map(|job| job.record.built.iter());
        built.into_iter().flatten().any(|record| record.drv == *drv)
    }

    /// Something that one job built for itself.
    pub(crate) fn checked(&self, client: ClientId, record: BuiltRecord) {
        if let Some(job) = self.state().jobs.get_mut(&client) {
            job.record.built.push(record);
        }
    }

    /// The report of a job, whose goals ended so.
    pub(crate) fn report(
        &self,
        client: ClientId,
        goals: Vec<GoalEnd>,
        evaluation: Option<EvaluateReport>,
    ) -> JobReport {
        let mut state = self.state();
        state.add_failures(client, &goals);
        let Some(job) = state.jobs.get(&client) else {
            return JobReport::default();
        };
        let failures = job.record.failures.clone();
        let failed: HashSet<StorePath> = failures.iter().map(|failure| failure.path.clone()).collect();
        let roots: Vec<StorePath> = goals.iter().map(|end| end.goal.drv.clone()).collect();
        let not_tried = if failed.is_empty() {
            Vec::new()
        } else {
            state.graph.need_failed(roots, &failed)
        };
        let goals = goals.into_iter().map(|end| goal_report(end, &failures));
        JobReport {
            goals: goals.collect(),
            built: state.built_of(client),
            fetched: job
                .record
                .fetched
                .iter()
                .map(|record| record.fetched.clone())
                .collect(),
            failures,
            not_tried,
            evaluation,
            plan: None,
        }
    }
}

impl State {
    fn failure_report(&self, failure: &Failure, wanted: &StorePath) -> FailureReport {
        let root = failure.root.as_ref().unwrap_or(wanted);
        match self.failures.get(root) {
            Some(report) => report.clone(),
            None => fault::report_of(&self.dir, failure, wanted),
        }
    }

    /// What only the answers tell: paths that nobody has, derivations that nobody can build.
    fn add_failures(&mut self, client: ClientId, goals: &[GoalEnd]) {
        for end in goals {
            if let Answer::Failed(failure) = &end.answer {
                let root = failure.root.as_ref().unwrap_or(&end.goal.drv);
                let record = self.jobs.get(&client).map(|job| &job.record);
                if record.is_some_and(|record| record.has_failure(root)) {
                    continue;
                }
                let report = self.failure_report(failure, &end.goal.drv);
                self.remember_failure(report.clone());
                if let Some(job) = self.jobs.get_mut(&client) {
                    job.record.add_failure(report);
                }
            }
        }
    }

    fn built_of(&self, client: ClientId) -> Vec<Built> {
        let Some(job) = self.jobs.get(&client) else {
            return Vec::new();
        };
        let ended = job.record.built.iter().map(|record| (&record.drv, record.ended));
        let fetched = job.record.fetched.iter();
        let fetched = fetched.map(|record| (&record.fetched.path, record.ended));
        let ended: HashMap<&StorePath, Instant> = ended.chain(fetched).collect();
        let built = job.record.built.iter();
        built
            .map(|record| Built {
                drv: record.drv.clone(),
                outputs: record.outputs.clone(),
                stats: record.stats.clone(),
                input_bytes: record.input_bytes,
                input_files: record.input_files,
                started: record.started.saturating_duration_since(job.started),
                ended: record.ended.saturating_duration_since(job.started),
                waited_for: self.waited_for(record, &ended),
            })
            .collect()
    }

    /// The input that came last before a build could start.
    fn waited_for(&self, record: &BuiltRecord, ended: &HashMap<&StorePath, Instant>) -> Option<StorePath> {
        let info: &Arc<_> = self.graph.drv(&record.drv)?;
        let inputs = self.graph.inputs(info);
        let inputs = inputs.chain(self.graph.resolved_from(&record.drv));
        let came = inputs.filter_map(|input| Some((*ended.get(&input)?, input)));
        let before = came.filter(|(at, _)| *at <= record.started);
        before.max().map(|(_, input)| input)
    }
}

fn goal_report(end: GoalEnd, failures: &[FailureReport]) -> GoalReport {
    let GoalEnd { goal, answer } = end;
    match answer {
        Answer::Valid { outputs } => GoalReport {
            goal,
            outputs: outputs.into_iter().collect(),
            failure: None,
            is_valid: true,
        },
        Answer::Failed(failure) => {
            let root = failure.root.as_ref().unwrap_or(&goal.drv);
            let position = failures.iter().position(|report| report.path == *root);
            GoalReport {
                outputs: BTreeMap::new(),
                failure: position,
                is_valid: false,
                goal,
            }
        }
        Answer::Cancelled => GoalReport {
            goal,
            outputs: BTreeMap::new(),
            failure: None,
            is_valid: false,
        },
    }
}
