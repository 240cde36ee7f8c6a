//! The lines at the bottom of a terminal that show what runs now: a function of the [`Model`], the time and the size.
//!
//! Every line fits the width. Builds come before fetches; what does not fit is counted.

use std::time::Duration;

use super::figures::{bytes, count, counted, elapsed};
use super::model::{Building, Fetching, Model, Stage, short};
use super::style::{Line, Style, pad, pad_left};

/// A terminal's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

/// Most rows, however high the terminal is: the story above should stay in sight.
const ROWS_MAX: usize = 16;
/// Columns of a name.
const NAME_COLUMNS: usize = 28;
/// Columns of a time.
const TIME_COLUMNS: usize = 6;
/// Columns of a phase.
const PHASE_COLUMNS: usize = 14;

/// The lines to show, the last of them a summary; none when nothing runs.
pub fn lines(model: &Model, now: Duration, size: Size) -> Vec<Line> {
    let mut lines = Vec::new();
    let rows = size.rows.saturating_sub(1).clamp(1, ROWS_MAX);
    if rows > 1 {
        lines.extend(evaluating(model, now));
    }
    let room = rows - 1 - lines.len();
    let items = model.builds.len() + model.fetches.len();
    let shown = if items > room {
        room.saturating_sub(1)
    } else {
        items
    };
    let names = name_columns(model, size.columns);
    let all = model
        .builds
        .iter()
        .map(|build| building(build, now, names))
        .chain(model.fetches.iter().map(|fetch| fetching(fetch, names)));
    lines.extend(all.take(shown));
    if items > shown && shown > 0 {
        lines.push(Line::default().with(Style::Faint, format!("  … and {} more", items - shown)));
    }
    if !lines.is_empty() || items > 0 || model.remaining.builds + model.remaining.fetches > 0 {
        lines.push(footer(model, now));
    }
    // a full last column makes some terminals wrap
    let columns = size.columns.saturating_sub(1);
    lines.into_iter().map(|line| line.cut(columns)).collect()
}

fn evaluating(model: &Model, now: Duration) -> Option<Line> {
    let evaluation = model.evaluation.as_ref().filter(|evaluation| !evaluation.ended)?;
    let latest = evaluation.latest.as_ref().map_or("", short);
    Some(
        Line::default()
            .with(Style::Busy, "evaluating")
            .with(
                Style::Plain,
                format!(
                    "  {}  {}  ",
                    counted(evaluation.count, "derivation", "derivations"),
                    elapsed(now)
                ),
            )
            .with(Style::Faint, latest),
    )
}

fn name_columns(model: &Model, columns: usize) -> usize {
    let names = model
        .builds
        .iter()
        .map(|build| short(&build.drv))
        .chain(model.fetches.iter().map(|fetch| short(&fetch.path)));
    let longest = names.map(str::len).max().unwrap_or(0);
    longest.min(NAME_COLUMNS).min(columns / 3)
}

fn building(build: &Building, now: Duration, names: usize) -> Line {
    let ran = now.saturating_sub(build.since);
    let time = match build.expected {
        Some(expected) => format!("{} of ~{}", elapsed(ran), elapsed(expected)),
        None => elapsed(ran),
    };
    let stage = match (build.stage, &build.log.phase) {
        (Stage::Waiting, _) => "waiting",
        (Stage::Preparing, _) => "machine starts",
        (Stage::Running, Some(phase)) => phase.as_str(),
        (Stage::Running, None) => "",
        (Stage::Collecting, _) => "storing",
    };
    let mut line = Line::default()
        .with(Style::Plain, "  ")
        .with(Style::Strong, pad(short(&build.drv), names))
        .with(Style::Plain, format!(" {} ", pad_left(&time, TIME_COLUMNS)))
        .with(Style::Busy, format!(" {} ", pad(stage, PHASE_COLUMNS)));
    if build.attempt > 1 {
        line = line.with(Style::Busy, format!(" try {} ", build.attempt));
    }
    if build.for_evaluation {
        line = line.with(Style::Busy, " evaluation waits ");
    }
    line.with(Style::Faint, format!(" {}", build.log.last().replace('\t', " ")))
}

fn fetching(fetch: &Fetching, names: usize) -> Line {
    let share = (fetch.come.min(fetch.size) * 100)
        .checked_div(fetch.size)
        .unwrap_or(0);
    let share = format!("{share}%");
    Line::default()
        .with(Style::Plain, "  ")
        .with(Style::Strong, pad(short(&fetch.path), names))
        .with(Style::Plain, format!(" {} ", pad_left(&share, TIME_COLUMNS)))
        .with(Style::Busy, format!(" {} ", pad("fetching", PHASE_COLUMNS)))
        .with(
            Style::Faint,
            format!(
                " {} of {} from {}",
                bytes(fetch.come),
                bytes(fetch.size),
                fetch.from
            ),
        )
}

/// `3/8 built, 1 failed · 5/12 fetched, 45.2 of 120.3 MB, 8.1 MB/s · 12.3 MB of inputs read · 1m12s`
fn footer(model: &Model, now: Duration) -> Line {
    let done = &model.done;
    let mut parts = Vec::new();
    let builds = done.built + done.failed + model.remaining.builds;
    if builds > 0 {
        let failed = if done.failed > 0 {
            format!(", {} failed", count(done.failed))
        } else {
            String::new()
        };
        parts.push(format!("{}/{} built{failed}", count(done.built), count(builds)));
    }
    let fetches = done.fetched + model.remaining.fetches;
    if fetches > 0 {
        let come = model.fetched_so_far();
        let running: u64 = model.fetches.iter().map(|fetch| fetch.come).sum();
        let all = done.fetched_bytes + model.remaining.fetch_bytes.max(running);
        let rate = match model.rate(now) {
            0 => String::new(),
            rate => format!(", {}/s", bytes(rate)),
        };
        parts.push(format!(
            "{}/{} fetched, {} of {}{rate}",
            count(done.fetched),
            count(fetches),
            bytes(come),
            bytes(all)
        ));
    }
    if done.read_bytes > 0 {
        parts.push(format!("{} of inputs read", bytes(done.read_bytes)));
    }
    parts.push(elapsed(now));
    let style = if done.failed > 0 { Style::Bad } else { Style::Good };
    Line::default()
        .with(style, "• ")
        .with(Style::Plain, parts.join(" · "))
}
