//! `igloo build`, and what `nix-build` shares with it.
//!
//! Map: [`wish`] what was asked for; [`inputs`] words of the command line as jobs; [`links`] links to what was built;
//! [`dry_run`] what would be done; [`report`] failures and exit codes; [`answer`] stdout.
//!
//! Invariant: stdout says nothing unless everything that was asked for is registered; links are made before that.

pub mod answer;
pub mod dry_run;
pub mod inputs;
pub mod links;
pub mod report;
pub mod wish;

use std::time::{Duration, Instant};

use igloo_driver::job::{Job, JobError, JobReport};
use tokio::sync::mpsc;

pub use wish::Wish;

use crate::args::BuildArguments;
use crate::context::Context;
use crate::coordination::{self, Parts};
use crate::failure::Failure;
use crate::progress::figures::counted;
use crate::progress::model::Model;
use crate::progress::{Progress, summary, tell};
use crate::stop::Stop;

/// Updates on their way to the screen.
const UPDATES_MAX: usize = 1024;
/// How long a coordinator may take to stop what was cancelled before we stop listening.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs with the arguments of `igloo build`.
pub async fn run(context: &Context, arguments: BuildArguments, stop: Stop) -> Result<(), Failure> {
    let wish = Wish::from_arguments(context, arguments)?;
    fulfil(context, &wish, stop).await
}

/// Builds what was asked for, links to it and prints it.
pub async fn fulfil(context: &Context, wish: &Wish, stop: Stop) -> Result<(), Failure> {
    let stdin = tokio::select! {
        stdin = inputs::stdin(wish) => stdin?,
        () = stop.clone().asked() => return Err(Failure::interrupted("interrupted")),
    };
    let jobs = inputs::jobs(context, wish, stdin.as_ref())?;
    if wish.config.keep_failed && !context.quiet {
        eprintln!(
            "warning: --keep-failed has no effect: a build's machine and its disk are gone when it ends; `igloo log` shows what \
             it said"
        );
    }
    let mut parts = coordination::open(context, &wish.config).await?;
    let start = Instant::now();
    let reports = run_all(context, wish, &mut parts, jobs, stop).await;
    parts.close().await;
    let reports = reports?;
    if !context.quiet && !wish.dry_run {
        for line in reports
            .iter()
            .flat_map(|report| summary::lines(report, start.elapsed(), context.verbosity > 0))
        {
            tell(&line, context.colours);
        }
    }
    report::failures(&parts.dir, wish, &reports)?;
    if wish.dry_run {
        dry_run::tell(&parts.dir, &reports);
        return answer::dry_run(&parts.dir, wish, &reports);
    }
    links::make(context, wish, &parts.dir, &reports)?;
    answer::built(&parts.dir, wish, &reports)
}

/// Runs jobs one after the other, until one fails or the user stops them.
async fn run_all(
    context: &Context,
    wish: &Wish,
    parts: &mut Parts,
    jobs: Vec<Job>,
    stop: Stop,
) -> Result<Vec<JobReport>, Failure> {
    let mut reports = Vec::new();
    for job in jobs {
        let report = watch(context, wish, parts, job, stop.clone()).await?;
        let goes_on = report.failures.is_empty() || wish.config.keep_going;
        reports.push(report);
        if !goes_on {
            break;
        }
    }
    Ok(reports)
}

/// Runs one job and shows what happens, until it ends or the user stops it.
async fn watch(
    context: &Context,
    wish: &Wish,
    parts: &mut Parts,
    job: Job,
    stop: Stop,
) -> Result<JobReport, Failure> {
    let progress = Progress::new(context, parts.dir.clone(), wish.logs, wish.config.keep_going);
    let (sender, receiver) = mpsc::channel(UPDATES_MAX);
    let runtime = tokio::runtime::Handle::current();
    // a terminal that is held (Ctrl-S) blocks only the thread that writes to it
    let shown = tokio::task::spawn_blocking(move || runtime.block_on(progress.follow(receiver)));
    let ended = tokio::select! {
        report = parts.coordinator.run(job, sender) => Ended::Report(report),
        Some(failure) = parts.broken.recv() => Ended::Broken(failure),
        () = stop.asked() => Ended::Stopped,
    };
    let model = tokio::time::timeout(PATIENCE, shown).await;
    match ended {
        Ended::Report(report) => report.map_err(report::job_failed),
        Ended::Broken(failure) => Err(failure),
        Ended::Stopped => {
            let model = model.ok().and_then(Result::ok);
            Err(Failure::interrupted(interrupted(model.as_ref())))
        }
    }
}

/// Why a job is not watched any more.
enum Ended {
    Report(Result<JobReport, JobError>),
    /// This machine cannot build.
    Broken(Failure),
    Stopped,
}

/// What was stopped; what was registered stays.
fn interrupted(model: Option<&Model>) -> String {
    let Some(model) = model.filter(|model| !model.builds.is_empty() || !model.fetches.is_empty()) else {
        return "interrupted".into();
    };
    let stopped = [
        (model.builds.len() as u64, "build", "builds"),
        (model.fetches.len() as u64, "fetch", "fetches"),
    ];
    let stopped = stopped.into_iter().filter(|(count, ..)| *count > 0);
    let stopped: Vec<String> = stopped
        .map(|(count, one, many)| counted(count, one, many))
        .collect();
    let stay = model.done.built + model.done.fetched;
    format!(
        "interrupted: stopped {}; {}",
        stopped.join(" and "),
        match stay {
            1 => "1 finished result stays".into(),
            stay => format!("{stay} finished results stay"),
        }
    )
}
