//! `cargo xtask bench coordinator`: what a derivation costs besides its build.
//!
//! The same expression is built by igloo's coordinator with a builder that runs nothing, evaluation, store and commit
//! included, and by Nix in its sandbox with a shell that writes one line: a chain of trivial derivations, and independent ones.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::measure::{Used, interleave, measure, median};
use crate::{install, shell};

const EXPRESSION: &str = include_str!("coordinator.nix");
/// Derivations of a job, as the expression has it.
const DERIVATIONS: f64 = 100.0;
const TIMES: usize = 5;

/// One job: what of the expression is built, and how much at once.
struct Row {
    name: &'static str,
    attribute: &'static str,
    slots: u32,
}

const ROWS: &[Row] = &[
    Row {
        name: "chain of 100",
        attribute: "chain",
        slots: 1,
    },
    Row {
        name: "100 independent, 1 slot",
        attribute: "wide",
        slots: 1,
    },
    Row {
        name: "100 independent, 2 slots",
        attribute: "wide",
        slots: 2,
    },
    Row {
        name: "100 independent, 8 slots",
        attribute: "wide",
        slots: 8,
    },
];

/// Runs the benchmark.
pub fn run() -> Result<()> {
    install::ensure(&[install::COMPILE, install::ORACLES])?;
    let example = ["--package", "igloo-driver", "--example", "front_end"];
    shell::run(shell::cargo().args(["build", "--release"]).args(example))?;
    let work = shell::target().join("bench-coordinator");
    if work.exists() {
        std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    std::fs::write(work.join("graph.nix"), EXPRESSION).context("cannot write the expression")?;
    println!(
        "CPU milliseconds for each derivation, medians of {TIMES} interleaved runs; wall seconds for the job"
    );
    println!(
        "{:<26} {:>9} {:>9} {:>7} {:>11} {:>9}",
        "", "igloo", "Nix 2.8", "ratio", "igloo wall", "Nix wall"
    );
    let mut jobs = 0;
    for row in ROWS {
        let mut files = Vec::new();
        for _ in 0..TIMES {
            jobs += 1;
            files.push(job(&work, jobs)?);
        }
        let (mut ours, mut theirs) = (files.iter(), files.iter());
        let (ours, theirs) = interleave(
            TIMES,
            || measure(&mut igloo(&work, ours.next().context("no job left")?, row)),
            || measure(&mut nix(&work, theirs.next().context("no job left")?, row)),
        )?;
        print(row, &ours, &theirs);
    }
    Ok(())
}

/// A file of its own for each run: its derivations were never built before.
fn job(work: &Path, number: u32) -> Result<PathBuf> {
    let file = work.join(format!("job-{number}.nix"));
    let text = format!("import ./graph.nix {{ salt = \"{number}\"; }}\n");
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn igloo(work: &Path, file: &Path, row: &Row) -> Command {
    let mut command = Command::new(shell::target().join("release/examples/front_end"));
    let slots = row.slots.to_string();
    command
        .arg(work.join("igloo"))
        .arg(file)
        .args([&slots, row.attribute]);
    command.stderr(Stdio::null());
    command
}

fn nix(work: &Path, file: &Path, row: &Row) -> Command {
    let root = work.join("nix");
    let mut command = Command::new("nix-build");
    command.arg(file).args(["--attr", row.attribute, "--no-out-link"]);
    command.args(["--max-jobs", &row.slots.to_string()]);
    let config =
        "build-users-group =\nsandbox = true\nsandbox-paths = /bin/sh=/bin/busybox\nsubstitute = false\n";
    command.env("NIX_REMOTE", "").env("NIX_CONFIG", config);
    for (variable, folder) in [
        ("NIX_STORE_DIR", "store"),
        ("NIX_STATE_DIR", "var"),
        ("NIX_LOG_DIR", "log"),
        ("NIX_CONF_DIR", "etc"),
    ] {
        command.env(variable, root.join(folder));
    }
    command.stderr(Stdio::null());
    command
}

fn print(row: &Row, ours: &[Used], theirs: &[Used]) {
    let cpu = |runs: &[Used]| median(runs, |used| used.cpu.as_secs_f64()) * 1000.0 / DERIVATIONS;
    let wall = |runs: &[Used]| median(runs, |used| used.wall.as_secs_f64());
    println!(
        "{:<26} {:>6.2} ms {:>6.2} ms {:>6.2}x {:>9.2} s {:>7.2} s",
        row.name,
        cpu(ours),
        cpu(theirs),
        cpu(ours) / cpu(theirs),
        wall(ours),
        wall(theirs),
    );
}
