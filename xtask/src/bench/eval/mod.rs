//! `cargo xtask bench eval`: igloo's evaluator beside current Nix and beside the Nix installed here.
//!
//! Questions: what does an evaluation cost in CPU time and memory beside Nix doing the same; does the cost of a builtin grow
//! as its input does; how much sooner two threads answer. Input: small programs in two sizes, and jobs of a nixpkgs tree where one is given. Every evaluator
//! must give the same answer; the runs of a row are interleaved.

mod jobs;
mod table;
mod threads;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use self::jobs::Job;
use self::table::{Row, Sample};
use super::measure::{Used, measure_into, median};
use crate::nix::Evaluator;
use crate::{install, shell};

/// Runs of each evaluator for a row, unless `--runs` says otherwise.
const RUNS: usize = 3;

/// Names the nixpkgs tree if `--nixpkgs` does not.
const NIXPKGS: &str = "IGLOO_NIXPKGS";

/// What was asked for.
struct Options {
    nixpkgs: Option<PathBuf>,
    only: String,
    runs: usize,
}

/// Runs the benchmark and prints its table.
pub fn run(words: &[String]) -> Result<()> {
    let options = options(words)?;
    install::ensure(&[install::COMPILE])?;
    shell::run(shell::cargo().args(["build", "--release", "--package", "igloo-cli"]))?;
    let contest = Contest::new(options.runs)?;
    let mut jobs = match &options.nixpkgs {
        Some(tree) => jobs::nixpkgs(tree)?,
        None => {
            println!(
                "SKIPPED: nixpkgs hello, nixpkgs firefox, NixOS minimal, nixpkgs on two threads: give a nixpkgs 24.11 tree with --nixpkgs DIR or {NIXPKGS}"
            );
            Vec::new()
        }
    };
    jobs.extend(jobs::programs()?);
    jobs.retain(|job| job.name.contains(&options.only));
    let threads = options
        .nixpkgs
        .as_ref()
        .filter(|_| threads::NAME.contains(&options.only));
    if jobs.is_empty() && threads.is_none() {
        bail!("no row is called like `{}`", options.only);
    }
    println!(
        "machine: {} cores; every row interleaved, medians of {}; the larger size is {} times the work",
        std::thread::available_parallelism()?,
        options.runs,
        jobs::GROWTH
    );
    if let Some(tree) = threads {
        threads::row(&contest.evaluators[0], tree, options.runs, &contest.folder)?;
    }
    if jobs.is_empty() {
        return Ok(());
    }
    let mut rows = Vec::new();
    table::head(&contest.names());
    for job in &jobs {
        let row = contest.row(job).with_context(|| job.name.clone())?;
        table::show(&row);
        rows.push(row);
    }
    table::verdict(&rows);
    Ok(())
}

fn options(words: &[String]) -> Result<Options> {
    let mut options = Options {
        nixpkgs: std::env::var_os(NIXPKGS).map(PathBuf::from),
        only: String::new(),
        runs: RUNS,
    };
    for pair in words.chunks(2) {
        let [name, value] = pair else {
            bail!("`{}` needs a value", pair[0])
        };
        match name.as_str() {
            "--nixpkgs" => options.nixpkgs = Some(value.into()),
            "--only" => options.only.clone_from(value),
            "--runs" => options.runs = value.parse().context("--runs wants a number")?,
            _ => bail!("`{name}` is no option; there are --nixpkgs DIR, --only TEXT, --runs N"),
        }
    }
    options.runs = options.runs.max(1);
    Ok(options)
}

/// Who takes part: igloo first, then current Nix, then the Nix of this machine, as far as they can be had.
struct Contest {
    evaluators: Vec<Evaluator>,
    runs: usize,
    folder: PathBuf,
}

impl Contest {
    fn new(runs: usize) -> Result<Self> {
        let mut evaluators = vec![Evaluator::igloo()?];
        for (what, found) in [
            ("current Nix", Evaluator::current()),
            ("the installed Nix", Evaluator::installed()),
        ] {
            match found {
                Ok(evaluator) => evaluators.push(evaluator),
                Err(error) => println!("SKIPPED: {what}: {error:#}"),
            }
        }
        let folder = shell::target().join("bench");
        fs::create_dir_all(&folder).context("cannot make the benchmark's folder")?;
        Ok(Self {
            evaluators,
            runs,
            folder,
        })
    }

    fn names(&self) -> Vec<&str> {
        self.evaluators
            .iter()
            .map(|evaluator| evaluator.name.as_str())
            .collect()
    }

    fn row(&self, job: &Job) -> Result<Row> {
        let small = self.samples(&job.expression)?;
        let large = job
            .larger
            .as_ref()
            .map(|larger| self.samples(larger))
            .transpose()?;
        Ok(Row {
            name: job.name.clone(),
            target: job.target,
            small,
            large,
        })
    }

    /// Medians for every evaluator, in their order.
    fn samples(&self, expression: &str) -> Result<Vec<Sample>> {
        let mut used: Vec<Vec<Used>> = vec![Vec::new(); self.evaluators.len()];
        let mut answer: Option<Vec<u8>> = None;
        let printed = self.folder.join("answer");
        for _ in 0..self.runs {
            for (index, evaluator) in self.evaluators.iter().enumerate() {
                used[index].push(run_once(evaluator, expression, &printed)?);
                let said = fs::read(&printed).context("cannot read what was answered")?;
                if let Some(first) = &answer
                    && *first != said
                {
                    bail!("{} answers otherwise than igloo", evaluator.name);
                }
                answer.get_or_insert(said);
            }
        }
        Ok(used.iter().map(|runs| sample(runs)).collect())
    }
}

fn run_once(evaluator: &Evaluator, expression: &str, printed: &Path) -> Result<Used> {
    let answer = fs::File::create(printed).context("cannot make a file for the answer")?;
    let mut command = evaluator.command();
    command.args(["--eval", "--strict", "-E", expression]);
    measure_into(&mut command, Stdio::from(answer))
}

fn sample(runs: &[Used]) -> Sample {
    Sample {
        cpu_seconds: median(runs, |used| used.cpu).as_secs_f64(),
        rss_kib: median(runs, |used| used.rss_kib),
    }
}
