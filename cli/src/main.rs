//! The `igloo` command.
//!
//! The only part of igloo that reads the environment, prints, or exits. stdout is the answer, stderr the story.
//!
//! Map: [`args`] what can be asked; [`context`] where things are; [`commands`] one file for each verb; [`progress`] what is
//! shown while builds run; [`failure`] messages, hints, exit codes.
#![allow(clippy::print_stderr, reason = "this is the part that prints")]

mod args;
mod commands;
mod context;
mod evaluation;
mod failure;
mod progress;
mod roots;
mod stop;
mod stores;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Arguments, Command, StoreCommand};
use crate::context::Context;
use crate::failure::Failure;
use crate::stop::Stop;

/// Exit code of a panic.
const EXIT_BUG: u8 = 255;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(as_called(std::env::args_os().collect())) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    log_to_stderr();
    match std::panic::catch_unwind(|| run(arguments)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            if !failure.is_broken_pipe() {
                eprint!("{}", failure.message());
            }
            failure.exit()
        }
        Err(_) => {
            eprintln!("hint: this is a bug of igloo; please report it with the lines above");
            ExitCode::from(EXIT_BUG)
        }
    }
}

/// The command line of `igloo nix-instantiate` when that is the name of the link we were started by.
fn as_called(mut words: Vec<OsString>) -> Vec<OsString> {
    const LINK: &str = "nix-instantiate";
    let name = words.first().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|name| name == LINK) {
        words.insert(1, LINK.into());
    }
    words
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let command = match arguments.command {
        // these wait for nothing but files, and a signal may simply end them
        Command::Eval(arguments) => return commands::eval::run(arguments),
        Command::NixInstantiate(arguments) => return commands::nix_instantiate::run(arguments.words),
        command => command,
    };
    let arguments = Arguments { command, ..arguments };
    let context = Context::new(&arguments);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(anyhow::Error::new(error).context("cannot start worker threads")))?;
    let result = runtime.block_on(async {
        let stop = Stop::listen()?;
        if arguments.command.serves() {
            return dispatch(arguments.command, &context, stop).await; // being stopped is how these end well
        }
        tokio::select! {
            result = dispatch(arguments.command, &context, Stop::never()) => result,
            // dropping a command's future stops what it started and removes what it left
            () = stop.asked() => Err(Failure::new(anyhow::anyhow!("interrupted"))),
        }
    });
    // work that cannot be cancelled (a database being written) ends by itself; a thread that waits for a peer may not
    runtime.shutdown_timeout(std::time::Duration::from_secs(10));
    result
}

async fn dispatch(command: Command, context: &Context, stop: Stop) -> Result<(), Failure> {
    match command {
        Command::Build(arguments) => commands::build::run(context, arguments).await,
        Command::Builder(arguments) => commands::builder::run(context, arguments, stop).await,
        Command::Doctor(arguments) => commands::doctor::run(context, &arguments).await,
        Command::Eval(arguments) => commands::eval::run(arguments),
        Command::NixInstantiate(arguments) => commands::nix_instantiate::run(arguments.words),
        Command::Mount(arguments) => commands::mount::run(context, &arguments, stop).await,
        Command::Store(command) => match command {
            StoreCommand::Add(arguments) => commands::store::add(context, arguments).await,
            StoreCommand::Daemon(arguments) => commands::daemon::run(context, &arguments, stop).await,
            StoreCommand::Dump(arguments) => commands::store::dump(context, &arguments).await,
            StoreCommand::Info(arguments) => commands::store::info(context, &arguments).await,
            StoreCommand::List(arguments) => commands::store::list(context, &arguments).await,
            StoreCommand::Verify(arguments) => commands::store::verify(context, &arguments).await,
        },
    }
}

/// Help and version are answers; anything else is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print(); // nowhere left to say that printing failed
    if error.use_stderr() {
        ExitCode::from(failure::EXIT_USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// What libraries have to say: warnings and errors, more with `IGLOO_LOG=debug`.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("IGLOO_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time();
    subscriber.with_target(false).init();
}
