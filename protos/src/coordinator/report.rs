//! Reports of jobs on the wire: cut into parts of bounded size, and put together again.
//!
//! Invariants
//! - a report is given out only when as much has come as its end announces, and no goal refers to a failure there is not;
//! - a reader holds at most [`REPORT_ITEMS_MAX`] items of each kind and [`REPORT_BYTES_MAX`] bytes of messages.

use std::collections::BTreeMap;
use std::time::Duration;

use igloo_driver::job::{Built, Fetched, GoalReport, JobReport, Planned};
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;
use prost::Message as _;

use super::update::{failure_message, read_failure_report};
use crate::build::{PART_BYTES, at_most, exactly, form, order};
use crate::error::{InField, WireError};
use crate::evaluate::{
    OUTPUT_NAMES_MAX, evaluate_report_message, goal_message, micros, read_evaluate_report, read_goal,
    read_name, read_path,
};
use crate::event::{read_stats, stats_message, text};
use crate::igloo::coordinator::v1;

/// Most items of one kind in a report.
pub const REPORT_ITEMS_MAX: usize = 1 << 22;
/// Bytes of all messages of a report.
pub const REPORT_BYTES_MAX: usize = 1 << 30;

/// Cuts a report into parts, and what ends it.
pub fn report_parts(
    report: JobReport,
) -> (impl Iterator<Item = v1::ReportPart> + Send + use<>, v1::Finished) {
    let plan = report.plan;
    let is_planned = plan.is_some();
    let plan = plan.unwrap_or_default();
    let finished = v1::Finished {
        evaluation: report.evaluation.as_ref().map(evaluate_report_message),
        is_planned,
        goals_count: report.goals.len() as u64,
        built_count: report.built.len() as u64,
        fetched_count: report.fetched.len() as u64,
        failures_count: report.failures.len() as u64,
        not_tried_count: report.not_tried.len() as u64,
        planned_builds_count: plan.builds.len() as u64,
        planned_fetches_count: plan.fetches.len() as u64,
    };
    let goals = report.goals.into_iter().map(|goal| Item::Goal(goal_report(goal)));
    let built = report
        .built
        .into_iter()
        .map(|built| Item::Built(built_message(built)));
    let fetched = report.fetched.into_iter().map(|fetched| {
        Item::Fetched(v1::Fetched {
            path: fetched.path.to_string(),
            from: text(&fetched.from),
            nar_size: fetched.nar_size,
        })
    });
    let failures = report.failures.into_iter();
    let failures = failures.map(|failure| Item::Failure(failure_message(&failure)));
    let not_tried = report
        .not_tried
        .into_iter()
        .map(|path| Item::NotTried(path.to_string()));
    let builds = plan.builds.into_iter().map(|path| Item::Build(path.to_string()));
    let fetches = plan.fetches.into_iter().map(|(path, nar_size, download_size)| {
        Item::Fetch(v1::PlannedFetch {
            path: path.to_string(),
            nar_size,
            download_size,
        })
    });
    let items = goals.chain(built).chain(fetched).chain(failures);
    (
        parts(items.chain(not_tried).chain(builds).chain(fetches)),
        finished,
    )
}

/// One entry of one of the lists.
enum Item {
    Goal(v1::GoalReport),
    Built(v1::Built),
    Fetched(v1::Fetched),
    Failure(v1::Failure),
    NotTried(String),
    Build(String),
    Fetch(v1::PlannedFetch),
}

impl Item {
    /// Adds it to a part; its size, bytes.
    fn put(self, part: &mut v1::ReportPart) -> usize {
        fn push<T>(list: &mut Vec<T>, item: T, size: usize) -> usize {
            list.push(item);
            size
        }
        match self {
            Self::Goal(item) => {
                let size = item.encoded_len();
                push(&mut part.goals, item, size)
            }
            Self::Built(item) => {
                let size = item.encoded_len();
                push(&mut part.built, item, size)
            }
            Self::Fetched(item) => {
                let size = item.encoded_len();
                push(&mut part.fetched, item, size)
            }
            Self::Failure(item) => {
                let size = item.encoded_len();
                push(&mut part.failures, item, size)
            }
            Self::NotTried(item) => {
                let size = item.len();
                push(&mut part.not_tried, item, size)
            }
            Self::Build(item) => {
                let size = item.len();
                push(&mut part.planned_builds, item, size)
            }
            Self::Fetch(item) => {
                let size = item.encoded_len();
                push(&mut part.planned_fetches, item, size)
            }
        }
    }
}

fn parts(mut items: impl Iterator<Item = Item> + Send) -> impl Iterator<Item = v1::ReportPart> + Send {
    std::iter::from_fn(move || {
        let mut part = v1::ReportPart::default();
        let mut size = 0;
        while size < PART_BYTES
            && let Some(item) = items.next()
        {
            size += item.put(&mut part) + 1;
        }
        (size > 0).then_some(part)
    })
}

fn goal_report(report: GoalReport) -> v1::GoalReport {
    v1::GoalReport {
        goal: Some(goal_message(report.goal)),
        outputs: outputs_message(&report.outputs),
        failure: report.failure.map(|index| index as u64),
        is_valid: report.is_valid,
    }
}

fn outputs_message(outputs: &BTreeMap<OutputName, StorePath>) -> Vec<v1::Output> {
    outputs
        .iter()
        .map(|(name, path)| v1::Output {
            name: name.to_string(),
            path: path.to_string(),
        })
        .collect()
}

fn built_message(built: Built) -> v1::Built {
    v1::Built {
        drv: built.drv.to_string(),
        outputs: outputs_message(&built.outputs),
        stats: Some(stats_message(built.stats)),
        input_bytes: built.input_bytes,
        input_files: built.input_files,
        started_us: micros(built.started),
        ended_us: micros(built.ended),
        waited_for: built.waited_for.map(|path| path.to_string()),
    }
}

/// Puts a report together again.
#[derive(Debug, Default)]
pub struct ReportReader {
    report: JobReport,
    plan: Planned,
    taken_bytes: usize,
}

impl ReportReader {
    /// Takes the next part.
    ///
    /// # Errors
    /// A report over its bounds, an entry that is wrong.
    pub fn part(&mut self, part: v1::ReportPart) -> Result<(), WireError> {
        self.taken_bytes = self.taken_bytes.saturating_add(part.encoded_len());
        at_most(self.taken_bytes, REPORT_BYTES_MAX, "report")?;
        let report = &mut self.report;
        extend(&mut report.goals, part.goals, "goals", read_goal_report)?;
        extend(&mut report.built, part.built, "built", read_built)?;
        extend(&mut report.fetched, part.fetched, "fetched", |fetched| {
            Ok(Fetched {
                path: read_path(&fetched.path, "path")?,
                from: text(&fetched.from),
                nar_size: fetched.nar_size,
            })
        })?;
        extend(
            &mut report.failures,
            part.failures,
            "failures",
            read_failure_report,
        )?;
        extend(&mut report.not_tried, part.not_tried, "not_tried", |path| {
            read_path(&path, "not_tried")
        })?;
        let plan = &mut self.plan;
        extend(&mut plan.builds, part.planned_builds, "planned_builds", |path| {
            read_path(&path, "planned_builds")
        })?;
        extend(
            &mut plan.fetches,
            part.planned_fetches,
            "planned_fetches",
            |fetch| {
                let path = read_path(&fetch.path, "path")?;
                Ok((path, fetch.nar_size, fetch.download_size))
            },
        )
    }

    /// Ends the report.
    ///
    /// # Errors
    /// Other counts than announced, a goal that refers to no failure, a plan where there was no dry run.
    pub fn finish(self, finished: &v1::Finished) -> Result<JobReport, WireError> {
        let (mut report, plan) = (self.report, self.plan);
        count(report.goals.len(), finished.goals_count, "goals")?;
        count(report.built.len(), finished.built_count, "built")?;
        count(report.fetched.len(), finished.fetched_count, "fetched")?;
        count(report.failures.len(), finished.failures_count, "failures")?;
        count(report.not_tried.len(), finished.not_tried_count, "not_tried")?;
        count(plan.builds.len(), finished.planned_builds_count, "planned_builds")?;
        count(
            plan.fetches.len(),
            finished.planned_fetches_count,
            "planned_fetches",
        )?;
        let failures = report.failures.len();
        let indexes = report.goals.iter().filter_map(|goal| goal.failure);
        if indexes.into_iter().any(|index| index >= failures) {
            return Err(form("failure", "a position in `failures`"));
        }
        let is_empty = plan.builds.is_empty() && plan.fetches.is_empty();
        if !finished.is_planned && !is_empty {
            return Err(form("planned_builds", "empty where nothing was planned"));
        }
        report.plan = finished.is_planned.then_some(plan);
        report.evaluation = finished.evaluation.as_ref().map(read_evaluate_report);
        Ok(report)
    }
}

fn extend<W, T>(
    list: &mut Vec<T>,
    items: Vec<W>,
    field: &'static str,
    read: impl Fn(W) -> Result<T, WireError>,
) -> Result<(), WireError> {
    at_most(list.len() + items.len(), REPORT_ITEMS_MAX, field)?;
    for item in items {
        list.push(read(item)?);
    }
    Ok(())
}

fn count(found: usize, announced: u64, field: &'static str) -> Result<(), WireError> {
    exactly(found, usize::try_from(announced).unwrap_or(usize::MAX), field)
}

fn read_goal_report(report: v1::GoalReport) -> Result<GoalReport, WireError> {
    let failure = report.failure.map(usize::try_from).transpose();
    Ok(GoalReport {
        goal: read_goal(report.goal.field("goal")?)?,
        outputs: read_outputs(report.outputs)?,
        failure: failure.map_err(|_| form("failure", "a position in `failures`"))?,
        is_valid: report.is_valid,
    })
}

fn read_outputs(outputs: Vec<v1::Output>) -> Result<BTreeMap<OutputName, StorePath>, WireError> {
    at_most(outputs.len(), OUTPUT_NAMES_MAX, "outputs")?;
    let mut read = BTreeMap::new();
    for output in outputs {
        let name = read_name(&output.name)?;
        if read.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(order("outputs", output.name.as_bytes()));
        }
        read.insert(name, read_path(&output.path, "path")?);
    }
    Ok(read)
}

fn read_built(built: v1::Built) -> Result<Built, WireError> {
    let waited_for = built.waited_for.as_deref();
    let waited_for = waited_for.map(|path| read_path(path, "waited_for"));
    Ok(Built {
        drv: read_path(&built.drv, "drv")?,
        outputs: read_outputs(built.outputs)?,
        stats: built.stats.as_ref().map(read_stats).unwrap_or_default(),
        input_bytes: built.input_bytes,
        input_files: built.input_files,
        started: Duration::from_micros(built.started_us),
        ended: Duration::from_micros(built.ended_us),
        waited_for: waited_for.transpose()?,
    })
}
