//! `cargo xtask TASK`: the chores of the project.
//!
//! Invariants
//! - a task installs or builds what it needs, so a fresh machine with a Rust toolchain is enough;
//! - a task that is run twice does nothing the second time but what it is for;
//! - everything made goes below `target/`, nothing outside it but installed packages.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod apt;
mod bench;
mod compare;
mod demo;
mod image;
mod install;
mod miri;
mod nix;
mod serving;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

/// One chore.
struct Task {
    name: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result<()>,
}

const TASKS: &[Task] = &[
    Task {
        name: "demo",
        help: "install what is missing, build igloo, and build GNU hello with it (--fresh: from an empty store)",
        run: demo::run,
    },
    Task {
        name: "bench",
        help: "measure: bench first-light, bench eval [--nixpkgs DIR] [--only TEXT] [--runs N]",
        run: bench::run,
    },
    Task {
        name: "compare",
        help: "every derivation of a package set, as igloo and as current Nix have it: compare --nixpkgs DIR",
        run: compare::run,
    },
    Task {
        name: "test",
        help: "install what tests need, build, run every test, count them",
        run: test::run,
    },
    Task {
        name: "image",
        help: "the kernel and initramfs that build machines boot, in target/image/SYSTEM",
        run: image::run,
    },
    Task {
        name: "miri",
        help: "the evaluator's unsafe code under Miri [FILTER...]; needs a nightly toolchain",
        run: miri::run,
    },
    Task {
        name: "tidy",
        help: "formatting, lints, and the crate graph in docs/architecture.md (--fix mends)",
        run: tidy::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted = arguments.first().map_or("", String::as_str);
    let Some(task) = TASKS.iter().find(|task| task.name == wanted) else {
        return usage(wanted);
    };
    match (task.run)(&arguments[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask {}: {error:#}", task.name);
            ExitCode::FAILURE
        }
    }
}

fn usage(wanted: &str) -> ExitCode {
    let asked_for_help = matches!(wanted, "help" | "--help" | "-h");
    if !asked_for_help && !wanted.is_empty() {
        eprintln!("there is no task `{wanted}`");
    }
    println!("usage: cargo xtask TASK [OPTIONS]\n");
    for task in TASKS {
        println!("  {:<8} {}", task.name, task.help);
    }
    if asked_for_help {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    }
}
