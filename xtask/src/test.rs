//! `cargo xtask test`: everything needed to run every test, then every test, then one line that counts them.
//!
//! Tests that need what a machine lacks say so: they print `SKIPPED: test: reason` and append that line to the file named
//! by `IGLOO_TEST_SKIPS`; the lines are shown again at the end and counted apart, so nothing is skipped silently.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::{image, install, nix, shell, tidy};

/// Runs the task. Options are passed on to `cargo test` (a test name, `-p CRATE`).
pub fn run(options: &[String]) -> Result<()> {
    install::ensure(&[install::COMPILE, install::MACHINES, install::ORACLES])?;
    image::run(&[])?;
    let everything = options.is_empty();
    if !everything {
        // tests of whole commands run the command that lies beside them, which is made with all tests, but not with some
        shell::run(shell::cargo().args(["build", "--release", "--package", "igloo-cli"]))?;
    }
    let tidy = if everything { tidy::check() } else { Ok(()) };
    let skips = shell::target().join("test-skips.txt");
    std::fs::create_dir_all(shell::target()).context("cannot make the target folder")?;
    std::fs::write(&skips, "").with_context(|| format!("cannot write {}", skips.display()))?;
    let counts = cargo_test(options, &skips)?;
    let skipped = report_skips(&skips)?;
    if let Err(error) = &tidy {
        eprintln!("tidy: {error:#}");
    }
    let failed = counts.failed + u64::from(tidy.is_err());
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed.saturating_sub(skipped),
        failed,
        skipped + counts.ignored
    );
    if failed > 0 || !counts.clean_exit {
        bail!("tests failed");
    }
    Ok(())
}

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    clean_exit: bool,
}

fn cargo_test(options: &[String], skips: &Path) -> Result<Counts> {
    let mut command = shell::cargo();
    command.args(["test", "--release", "--no-fail-fast"]);
    if !options
        .iter()
        .any(|option| option == "-p" || option == "--package")
    {
        command.arg("--workspace");
    }
    command
        .args(options)
        .env("IGLOO_TEST_SKIPS", skips)
        .env("IGLOO_IMAGE", image::directory())
        .envs(language_suites()?)
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;
    let mut counts = Counts::default();
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read what cargo test prints")?;
        let text = String::from_utf8_lossy(&line);
        count(&text, &mut counts);
        writeln!(out, "{text}").context("cannot print")?;
    }
    counts.clean_exit = child.wait().context("cannot wait for cargo test")?.success();
    Ok(counts)
}

/// Where Nix's language suites lie; those that cannot be had are named.
fn language_suites() -> Result<Option<(&'static str, OsString)>> {
    let mut folders = Vec::new();
    for (name, found) in nix::suites() {
        match found {
            Ok(folder) => folders.push(folder),
            Err(error) => eprintln!("SKIPPED: the language suite of {name}: {error:#}"),
        }
    }
    if folders.is_empty() {
        return Ok(None); // the test then says that it is skipped
    }
    let list = std::env::join_paths(folders).context("a suite's folder has a colon in its name")?;
    Ok(Some(("IGLOO_LANG_SUITES", list)))
}

/// Adds up `test result: ok. 5 passed; 0 failed; 1 ignored; ...`.
fn count(line: &str, counts: &mut Counts) {
    let Some(result) = line.strip_prefix("test result: ") else {
        return;
    };
    let words: Vec<&str> = result.split_whitespace().collect();
    for pair in words.windows(2) {
        let Ok(number) = pair[0].parse::<u64>() else {
            continue;
        };
        match pair[1] {
            "passed;" => counts.passed += number,
            "failed;" => counts.failed += number,
            "ignored;" => counts.ignored += number,
            _ => {}
        }
    }
}

fn report_skips(skips: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(skips).with_context(|| format!("cannot read {}", skips.display()))?;
    for line in text.lines() {
        println!("{line}");
    }
    Ok(text.lines().count() as u64)
}
