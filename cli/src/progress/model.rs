//! What is known of a running job: updates in, story lines out. No clock, no terminal.
//!
//! Invariants
//! - a [`Line`] given back is told once and stays; what changes is shown by [`super::block`];
//! - memory is bounded by what runs at once, not by what the job does in all.

use std::collections::VecDeque;
use std::time::Duration;

use igloo_build::BuildEvent;
use igloo_driver::job::{BuildEnded, Remaining, Update};
use igloo_eval::io::Notice;
use nix_compat::store_path::{StoreDir, StorePath};

use super::figures::{bytes, counted, elapsed, exact};
use super::log::Log;
use super::style::{Line, Style};

/// Lines of logs that are shown while builds run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// None but the last, where there is a display.
    None,
    /// All, each after the name of its build.
    Named,
    /// All, as they are.
    Raw,
}

/// How much is told.
#[derive(Clone, Copy, Debug)]
pub struct Telling {
    /// Nothing but what the expression itself says, and what fails.
    pub quiet: bool,
    /// More: every fetch, what builds read.
    pub verbose: bool,
    /// Whether beginnings are told as lines, for there is no display that shows them.
    pub beginnings: bool,
    /// Whether failures are told when they happen, for others go on.
    pub failures: bool,
    /// Lines of logs.
    pub logs: Logs,
}

/// What is known of a job.
#[derive(Debug)]
pub struct Model {
    dir: StoreDir,
    telling: Telling,
    /// The evaluation, once it has said something.
    pub evaluation: Option<Evaluating>,
    /// What is known to remain.
    pub remaining: Remaining,
    /// Fetches that run, in the order they began.
    pub fetches: Vec<Fetching>,
    /// Builds that run, in the order they began.
    pub builds: Vec<Building>,
    /// What has ended.
    pub done: Done,
    /// Bytes fetched at the last seconds: for the rate.
    rates: VecDeque<(Duration, u64)>,
    /// When a line was told last.
    told: Duration,
}

/// An evaluation that runs.
#[derive(Clone, Debug)]
pub struct Evaluating {
    /// Derivations so far.
    pub count: u64,
    /// The latest.
    pub latest: Option<StorePath>,
    /// Whether it has ended.
    pub ended: bool,
}

/// A fetch that runs.
#[derive(Clone, Debug)]
pub struct Fetching {
    /// Of what.
    pub path: StorePath,
    /// From where.
    pub from: String,
    /// Bytes there are.
    pub size: u64,
    /// Bytes that have come.
    pub come: u64,
}

/// A build that runs.
#[derive(Clone, Debug)]
pub struct Building {
    /// Of what.
    pub drv: StorePath,
    /// Since when.
    pub since: Duration,
    /// How long it took before.
    pub expected: Option<Duration>,
    /// Which try.
    pub attempt: u32,
    /// Whether an evaluation waits for it.
    pub for_evaluation: bool,
    /// Where it is.
    pub stage: Stage,
    /// Its log.
    pub log: Log,
}

/// Where a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A machine is awaited.
    Waiting,
    /// A machine is being prepared.
    Preparing,
    /// The program runs.
    Running,
    /// Outputs are being taken in.
    Collecting,
}

/// What has ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Builds whose outputs are registered.
    pub built: u64,
    /// Builds that failed.
    pub failed: u64,
    /// Paths that were fetched.
    pub fetched: u64,
    /// Bytes of fetches that ended well.
    pub fetched_bytes: u64,
    /// Bytes of inputs that builds read.
    pub read_bytes: u64,
}

/// How far back the rate of fetches looks.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// How often the rate is noted.
const RATE_STEP: Duration = Duration::from_millis(250);
/// How often a silent story tells that it goes on, where there is no display.
const REMINDER: Duration = Duration::from_secs(30);

impl Model {
    /// Nothing has happened yet.
    pub fn new(dir: StoreDir, telling: Telling) -> Self {
        Self {
            dir,
            telling,
            evaluation: None,
            remaining: Remaining::default(),
            fetches: Vec::new(),
            builds: Vec::new(),
            done: Done::default(),
            rates: VecDeque::new(),
            told: Duration::ZERO,
        }
    }

    /// Takes an update that came `now` after the start; returns what is to be told.
    pub fn take(&mut self, update: Update, now: Duration) -> Vec<Line> {
        let lines = self.change(update, now);
        if !lines.is_empty() {
            self.told = now;
        }
        lines
    }

    fn change(&mut self, update: Update, now: Duration) -> Vec<Line> {
        match update {
            Update::Notice(notice) => vec![noticed(&notice)],
            Update::Instantiated { count, drv } => {
                let ended = self
                    .evaluation
                    .as_ref()
                    .is_some_and(|evaluation| evaluation.ended);
                self.evaluation = Some(Evaluating {
                    count,
                    latest: Some(drv),
                    ended,
                });
                Vec::new()
            }
            Update::Goal(_) => Vec::new(),
            Update::Evaluated(report) => {
                let latest = self.evaluation.take().and_then(|evaluation| evaluation.latest);
                self.evaluation = Some(Evaluating {
                    count: report.derivations,
                    latest,
                    ended: true,
                });
                let text = format!(
                    "evaluated {} in {}",
                    counted(report.derivations, "derivation", "derivations"),
                    exact(report.elapsed)
                );
                self.when(self.telling.verbose, Line::default().with(Style::Faint, text))
            }
            Update::Remaining(remaining) => {
                self.remaining = remaining;
                Vec::new()
            }
            Update::FetchStarted {
                path, from, nar_size, ..
            } => self.fetch_started(path, from, nar_size, now),
            Update::FetchProgress { path, nar_bytes } => {
                if let Some(fetch) = self.fetches.iter_mut().find(|fetch| fetch.path == path) {
                    fetch.come = nar_bytes;
                }
                self.note_rate(now);
                Vec::new()
            }
            Update::FetchEnded { path, failure } => self.fetch_ended(&path, failure, now),
            Update::BuildStarted {
                drv,
                attempt,
                builder,
                expected,
                for_evaluation,
            } => {
                let text = format!("building '{}'", self.dir.print(&drv));
                let again = if attempt > 1 {
                    format!(" (try {attempt})")
                } else {
                    String::new()
                };
                let on = if self.telling.verbose {
                    format!(" on {builder}")
                } else {
                    String::new()
                };
                self.builds.push(Building {
                    drv,
                    since: now,
                    expected,
                    attempt,
                    for_evaluation,
                    stage: Stage::Waiting,
                    log: Log::default(),
                });
                self.when(
                    self.telling.beginnings,
                    Line::plain(format!("{text}{again}{on}...")),
                )
            }
            Update::Build { drv, event } => self.build_event(&drv, event),
            Update::BuildEnded { drv, end } => self.build_ended(&drv, end, now),
        }
    }

    fn fetch_started(&mut self, path: StorePath, from: String, size: u64, now: Duration) -> Vec<Line> {
        self.note_rate(now);
        let text = format!(
            "fetching '{}' ({}) from {from}",
            self.dir.print(&path),
            bytes(size)
        );
        self.fetches.push(Fetching {
            path,
            from,
            size,
            come: 0,
        });
        let told = self.telling.beginnings || self.telling.verbose;
        self.when(told, Line::plain(text))
    }

    fn fetch_ended(&mut self, path: &StorePath, failure: Option<String>, now: Duration) -> Vec<Line> {
        let index = self.fetches.iter().position(|fetch| fetch.path == *path);
        let fetch = index.map(|index| self.fetches.remove(index));
        let Some(reason) = failure else {
            self.done.fetched += 1;
            self.done.fetched_bytes += fetch.map_or(0, |fetch| fetch.size);
            self.note_rate(now);
            return Vec::new();
        };
        let text = format!("cannot fetch '{}': {reason}", self.dir.print(path));
        self.when(
            true,
            Line::default()
                .with(Style::Busy, "warning: ")
                .with(Style::Plain, text),
        )
    }

    fn build_event(&mut self, drv: &StorePath, event: BuildEvent) -> Vec<Line> {
        let logs = self.telling.logs;
        let Some(build) = self.builds.iter_mut().find(|build| build.drv == *drv) else {
            return Vec::new();
        };
        match event {
            BuildEvent::Preparing { .. } => build.stage = Stage::Preparing,
            BuildEvent::Started => build.stage = Stage::Running,
            BuildEvent::Collecting => build.stage = Stage::Collecting,
            BuildEvent::Log { bytes, .. } => {
                build.stage = Stage::Running;
                let lines = build.log.take(&bytes);
                return logged(logs, drv, lines);
            }
        }
        Vec::new()
    }

    fn build_ended(&mut self, drv: &StorePath, end: BuildEnded, now: Duration) -> Vec<Line> {
        let index = self.builds.iter().position(|build| build.drv == *drv);
        let mut build = index.map(|index| self.builds.remove(index));
        let last = build.as_mut().and_then(|build| build.log.end());
        let mut lines = logged(self.telling.logs, drv, last.into_iter().collect());
        let took = exact(build.map_or(Duration::ZERO, |build| now.saturating_sub(build.since)));
        let shown = self.dir.print(drv);
        match end {
            BuildEnded::Registered(stats) => {
                self.done.built += 1;
                self.done.read_bytes += stats.input_bytes_read;
                let mut line = Line::default()
                    .with(Style::Good, "built")
                    .with(Style::Plain, format!(" '{shown}' in {took}"));
                if self.telling.verbose {
                    let text = format!(
                        ": machine ready in {}, ran {}; read {} in {}, wrote {}",
                        exact(stats.boot),
                        exact(stats.run),
                        bytes(stats.input_bytes_read),
                        counted(stats.input_files_read, "input file", "input files"),
                        bytes(stats.output_bytes)
                    );
                    line = line.with(Style::Faint, text);
                }
                lines.extend(self.when(true, line));
            }
            BuildEnded::Retried { reason } => {
                let text = format!("'{shown}' is tried again after {took}: {reason}");
                lines.extend(
                    self.when(
                        true,
                        Line::default()
                            .with(Style::Busy, "warning: ")
                            .with(Style::Plain, text),
                    ),
                );
            }
            BuildEnded::Failed(failure) => {
                self.done.failed += 1;
                if self.telling.failures {
                    let first = failure.headline.lines().next().unwrap_or_default().to_string();
                    let line = Line::default()
                        .with(Style::Bad, "failed")
                        .with(Style::Plain, format!(": {first}"));
                    lines.extend(self.when(true, line));
                }
            }
            BuildEnded::Cancelled => {}
        }
        lines
    }

    /// Lines that say what runs, when nothing was told for long and there is no display.
    pub fn remind(&mut self, now: Duration) -> Vec<Line> {
        if self.telling.quiet || !self.telling.beginnings || now.saturating_sub(self.told) < REMINDER {
            return Vec::new();
        }
        self.told = now;
        let mut lines = Vec::new();
        if let Some(evaluation) = self.evaluation.as_ref().filter(|evaluation| !evaluation.ended) {
            let so_far = counted(evaluation.count, "derivation", "derivations");
            lines.push(format!("evaluating: {so_far} so far"));
        }
        for build in &self.builds {
            let phase = build.log.phase.as_deref().map(|phase| format!(" {phase}"));
            lines.push(format!(
                "{}: {}{}: {}",
                short(&build.drv),
                elapsed(now.saturating_sub(build.since)),
                phase.unwrap_or_default(),
                build.log.last()
            ));
        }
        for fetch in &self.fetches {
            lines.push(format!(
                "{}: {} of {}",
                short(&fetch.path),
                bytes(fetch.come),
                bytes(fetch.size)
            ));
        }
        lines.into_iter().map(Line::plain).collect()
    }

    /// Bytes each second that fetches brought lately.
    pub fn rate(&self, now: Duration) -> u64 {
        let lately = now.saturating_sub(RATE_WINDOW);
        let before = self.rates.iter().rev().find(|(then, _)| *then <= lately);
        let Some((then, bytes)) = before.or(self.rates.front()) else {
            return 0;
        };
        let millis = now.saturating_sub((*then).max(lately)).as_millis().max(1000);
        let brought = self.fetched_so_far().saturating_sub(*bytes);
        u64::try_from(u128::from(brought) * 1000 / millis).unwrap_or(u64::MAX)
    }

    /// Bytes that have come of all fetches, those that ended included.
    pub fn fetched_so_far(&self) -> u64 {
        let running: u64 = self.fetches.iter().map(|fetch| fetch.come).sum();
        self.done.fetched_bytes + running
    }

    fn note_rate(&mut self, now: Duration) {
        let so_far = self.fetched_so_far();
        let is_due = |(last, _): &(Duration, u64)| now.saturating_sub(*last) >= RATE_STEP;
        if self.rates.back().is_none_or(is_due) {
            self.rates.push_back((now, so_far));
        }
        // one that is older than the window stays: the rate is counted from there
        while self
            .rates
            .get(1)
            .is_some_and(|(then, _)| now.saturating_sub(*then) > RATE_WINDOW)
        {
            self.rates.pop_front();
        }
    }

    fn when(&self, condition: bool, line: Line) -> Vec<Line> {
        if condition && !self.telling.quiet {
            vec![line]
        } else {
            Vec::new()
        }
    }
}

/// The name without hash and extension.
pub fn short(path: &StorePath) -> &str {
    let name = path.name().as_str();
    name.strip_suffix(".drv").unwrap_or(name)
}

/// What the expression says is told as Nix tells it, quiet or not.
pub fn noticed(notice: &Notice) -> Line {
    Line::plain(match notice {
        Notice::Trace(text) => format!("trace: {text}"),
        Notice::EvaluationWarning(text) => format!("evaluation warning: {text}"),
        Notice::Warning(text) => text.clone(),
    })
}

fn logged(logs: Logs, drv: &StorePath, lines: Vec<String>) -> Vec<Line> {
    let line = |text: String| match logs {
        Logs::None => None,
        Logs::Named => Some(
            Line::default()
                .with(Style::Busy, format!("{}> ", short(drv)))
                .with(Style::Plain, text),
        ),
        Logs::Raw => Some(Line::plain(text)),
    };
    lines.into_iter().filter_map(line).collect()
}
