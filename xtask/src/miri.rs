//! `cargo xtask miri`: the evaluator's unsafe code under Miri.
//!
//! Miri runs unit tests of `igloo-eval`: the heap, the stack of variables, thunks, symbols and whole small evaluations. It
//! cannot run the assembly that switches native stacks, so nothing that waits (fibers) is run there, and an evaluation stays
//! on its caller's stack. Addresses are made into words and back, so provenance is only checked as far as it is exposed.
//!
//! It needs a nightly toolchain with `miri` and `rust-src`, and has a target folder of its own.

use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// Tests that Miri runs when none are named; each ends in minutes.
const TESTS: &[&str] = &["heap::", "tests::miri::"];

/// Runs Miri on unit tests; words are filters in place of the usual ones.
pub fn run(words: &[String]) -> Result<()> {
    need(&["miri", "rust-src"])?;
    let usual: Vec<String> = TESTS.iter().map(ToString::to_string).collect();
    let filters = if words.is_empty() { &usual } else { words };
    let mut command = shell::nightly_cargo();
    command
        .args(["miri", "test", "--package", "igloo-eval", "--lib", "--"])
        .args(filters)
        .env("CARGO_TARGET_DIR", shell::target().join("miri"))
        // tests look for seeds of earlier failures; values are words with tags beside the address
        .env(
            "MIRIFLAGS",
            "-Zmiri-disable-isolation -Zmiri-permissive-provenance",
        )
        // every case is a thousand times slower
        .env("PROPTEST_CASES", "4");
    shell::run(&mut command)
}

fn need(components: &[&str]) -> Result<()> {
    let listed = Command::new("rustup")
        .args(["component", "list", "--installed", "--toolchain", "nightly"])
        .output();
    let listed = listed.map(|listed| String::from_utf8_lossy(&listed.stdout).into_owned());
    let listed = listed.unwrap_or_default();
    let missing: Vec<&str> = components
        .iter()
        .copied()
        .filter(|component| !listed.contains(component))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "a nightly toolchain with {} is wanted: rustup toolchain install nightly --component {}",
        components.join(" and "),
        components.join(",")
    )
}
