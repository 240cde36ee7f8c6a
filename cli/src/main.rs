//! The `igloo` command.
//!
//! The only part of igloo that reads the environment, prints, or exits. stdout is the answer, stderr the story.
//!
//! Map: [`args`] what can be asked; [`table`] what each command runs, and how; [`config`] and [`context`] what is configured
//! and where things are; [`commands`] one file for each verb; [`coordination`] how the parts are put together; [`progress`]
//! what is shown while a job runs; [`failure`] messages, hints, exit codes;
//! [`leave`](mod@leave) the end.
#![allow(clippy::print_stderr, reason = "this is the part that prints")]

mod args;
mod commands;
mod config;
mod context;
mod coordination;
mod evaluation;
mod failure;
mod leave;
mod progress;
mod roots;
mod stop;
mod stores;
mod suggest;
mod table;

use std::ffi::OsString;
use std::path::Path;

use clap::Parser as _;

use crate::args::Arguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::leave::leave;
use crate::stop::Stop;
use crate::table::Run;

/// Exit code of a panic.
const EXIT_BUG: u8 = 255;

fn main() {
    leave(execute())
}

/// Does what is asked, tells what went wrong, and gives the exit code.
fn execute() -> u8 {
    let arguments = match Arguments::try_parse_from(as_called(std::env::args_os().collect())) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    log_to_stderr();
    match std::panic::catch_unwind(|| run(arguments)) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            if !failure.is_broken_pipe() {
                eprint!("{}", failure.message());
            }
            failure.exit()
        }
        Err(_) => {
            eprintln!("hint: this is a bug of igloo; please report it with the lines above");
            EXIT_BUG
        }
    }
}

/// Names of links under which commands are reached, as Nix's own are.
const LINKS: &[&str] = &["nix-build", "nix-instantiate"];

/// The command line of `igloo NAME` when NAME is that of the link we were started by.
fn as_called(mut words: Vec<OsString>) -> Vec<OsString> {
    let name = words.first().map(Path::new).and_then(Path::file_name);
    if let Some(link) = LINKS.iter().find(|link| name.is_some_and(|name| name == **link)) {
        words.insert(1, link.into());
    }
    words
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let entry = table::entry(arguments.command);
    let context = Context::new(&arguments.common, entry.name)?;
    if context.verbosity > 0 {
        for note in &context.config.without_effect {
            eprintln!("note: {note}");
        }
    }
    let work = match entry.run {
        Run::Plain(work) => return work(context),
        work => work,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(anyhow::Error::new(error).context("cannot start worker threads")))?;
    let result = runtime.block_on(async {
        let stop = Stop::listen()?;
        match work {
            Run::Plain(work) => work(context),
            Run::Told(work) => work(context, stop).await,
            Run::Dropped(work) => tokio::select! {
                result = work(context) => result,
                () = stop.asked() => Err(Failure::interrupted("interrupted")),
            },
        }
    });
    // work that cannot be cancelled (a database being written) ends by itself; a thread that waits for a peer may not
    runtime.shutdown_timeout(std::time::Duration::from_secs(10));
    result
}

/// Help and version are answers; anything else is wrong usage.
fn usage(error: &clap::Error) -> u8 {
    let _ = error.print(); // nowhere left to say that printing failed
    if error.use_stderr() {
        failure::EXIT_USAGE
    } else {
        0
    }
}

/// What libraries have to say: warnings and errors, more with `IGLOO_LOG=debug`.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("IGLOO_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| progress::AboveBlock)
        .without_time();
    subscriber.with_target(false).init();
}
