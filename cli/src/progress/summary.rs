//! What is told of a job at its end: what it did, what it read of what it could have read, and what it had to wait for.

use std::time::Duration;

use igloo_driver::job::{Built, JobReport};
use nix_compat::store_path::StorePath;

use super::figures::{bytes, count, counted, exact};
use super::model::short;
use super::style::{Line, Style};

/// Steps of a critical path that are named; the shortest are left out of a longer one.
const STEPS_MAX: usize = 6;

/// The lines of a summary; none when nothing was done. `each` adds a line for each build.
pub fn lines(report: &JobReport, took: Duration, each: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    if each {
        lines.extend(report.built.iter().map(reads));
    }
    lines.extend(totals(report, took));
    lines.extend(critical_path(report));
    lines
}

fn reads(built: &Built) -> Line {
    Line::plain(format!(
        "{}: read {} of {} in {} of {} input files",
        short(&built.drv),
        bytes(built.stats.input_bytes_read),
        bytes(built.input_bytes),
        count(built.stats.input_files_read),
        count(built.input_files)
    ))
}

fn totals(report: &JobReport, took: Duration) -> Option<Line> {
    let mut parts = Vec::new();
    if !report.built.is_empty() {
        parts.push(format!(
            "built {}",
            counted(report.built.len() as u64, "derivation", "derivations")
        ));
    }
    if !report.fetched.is_empty() {
        let size: u64 = report.fetched.iter().map(|fetched| fetched.nar_size).sum();
        let paths = counted(report.fetched.len() as u64, "path", "paths");
        parts.push(format!("fetched {paths} ({})", bytes(size)));
    }
    if parts.is_empty() {
        return None;
    }
    let line = Line::plain(format!("{} in {}", parts.join(", "), exact(took)));
    let read: u64 = report
        .built
        .iter()
        .map(|built| built.stats.input_bytes_read)
        .sum();
    let all: u64 = report.built.iter().map(|built| built.input_bytes).sum();
    if all == 0 {
        return Some(line);
    }
    Some(line.with(
        Style::Plain,
        format!("; builds read {} of {} of inputs", bytes(read), bytes(all)),
    ))
}

/// `critical path: glibc 3.2s (fetched), gcc 1m03s, hello 12s`
fn critical_path(report: &JobReport) -> Option<Line> {
    let mut steps = steps(report);
    if steps.len() < 2 {
        return None;
    }
    let all = steps.len();
    while steps.len() > STEPS_MAX {
        let shortest = steps.iter().enumerate().min_by_key(|(_, step)| step.took)?.0;
        steps.remove(shortest);
    }
    let names: Vec<String> = steps
        .iter()
        .map(|step| match step.took {
            Some(took) => format!("{} {}", step.name, exact(took)),
            None => format!("{} (fetched)", step.name),
        })
        .collect();
    let left_out = match all - steps.len() {
        0 => String::new(),
        some => format!(" and {some} more"),
    };
    Some(Line::default().with(
        Style::Faint,
        format!("critical path: {}{left_out}", names.join(", ")),
    ))
}

struct Step {
    name: String,
    /// `None` for a fetch.
    took: Option<Duration>,
}

/// From what was waited for first to what ended last. A circle, which there cannot be, ends after as many steps as builds.
fn steps(report: &JobReport) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = report.built.iter().max_by_key(|built| built.ended);
    while let Some(built) = at.filter(|_| steps.len() < report.built.len()) {
        let before = built.waited_for.as_ref();
        let earlier = before.and_then(|path| find(report, path));
        let since = earlier
            .map_or(Duration::ZERO, |earlier| earlier.ended)
            .max(built.started);
        steps.push(Step {
            name: short(&built.drv).to_string(),
            took: Some(built.ended.saturating_sub(since)),
        });
        let fetched = before.filter(|path| report.fetched.iter().any(|fetched| fetched.path == **path));
        if let (None, Some(path)) = (earlier, fetched) {
            steps.push(Step {
                name: short(path).to_string(),
                took: None,
            });
        }
        at = earlier;
    }
    steps.reverse();
    steps
}

/// What was built under this name: a derivation's own, or an output's.
fn find<'a>(report: &'a JobReport, path: &StorePath) -> Option<&'a Built> {
    let is_it = |built: &&Built| built.drv == *path || built.outputs.values().any(|output| output == path);
    report.built.iter().find(is_it)
}
