//! The table of commands: how each is called, and how it runs.

use std::future::Future;
use std::pin::Pin;

use crate::args::{Command, StoreCommand};
use crate::commands as verbs;
use crate::context::Context;
use crate::failure::Failure;
use crate::stop::Stop;

/// A command on its way.
type Running = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// One row.
pub struct Entry {
    /// What other processes are told when this one has the store.
    pub name: &'static str,
    /// How it runs.
    pub run: Run,
}

/// How a command runs.
pub enum Run {
    /// On the main thread, waiting for nothing but files: a signal simply ends the process.
    Plain(Box<dyn FnOnce(Context) -> Result<(), Failure>>),
    /// In the runtime. When the user stops it, its future is dropped: that stops what it started and removes what it left.
    Dropped(Box<dyn FnOnce(Context) -> Running>),
    /// In the runtime, and it hears itself that it should stop: for servers that is how they end well.
    Told(Box<dyn FnOnce(Context, Stop) -> Running>),
}

/// The row of a command.
pub fn entry(command: Command) -> Entry {
    use Command as C;
    use StoreCommand as S;
    match command {
        C::Build(a) => told("igloo build", |c, stop| async move {
            verbs::build::run(&c, *a, stop).await
        }),
        C::Builder(a) => told("igloo builder", |c, stop| async move {
            verbs::builder::run(&c, a, stop).await
        }),
        C::Coordinator(a) => told("igloo coordinator", |c, stop| async move {
            verbs::coordinator::run(&c, a, stop).await
        }),
        C::Doctor(a) => dropped(
            "igloo doctor",
            |c| async move { verbs::doctor::run(&c, &a).await },
        ),
        C::Eval(a) => plain("igloo eval", |c| verbs::eval::run(&c, a)),
        C::Evaluator(a) => told("igloo evaluator", |c, stop| async move {
            verbs::evaluator::run(&c, &a, stop).await
        }),
        C::Log(a) => dropped("igloo log", |c| async move { verbs::log::run(&c, &a).await }),
        C::Mount(a) => told("igloo mount", |c, stop| async move {
            verbs::mount::run(&c, &a, stop).await
        }),
        C::NixBuild(a) => told("nix-build", |c, stop| async move {
            verbs::nix_build::run(c, a.words, stop).await
        }),
        C::NixInstantiate(a) => plain("nix-instantiate", |c| verbs::nix_instantiate::run(&c, a.words)),
        C::PathInfo(a) => dropped("igloo path-info", |c| async move {
            verbs::path_info::run(&c, &a).await
        }),
        C::Repl(a) => plain("igloo repl", |c| verbs::repl::run(&c, a)),
        C::Store(S::Add(a)) => dropped("igloo store", |c| async move { verbs::store::add(&c, a).await }),
        C::Store(S::Daemon(a)) => told("igloo store daemon", |c, stop| async move {
            verbs::daemon::run(&c, &a, stop).await
        }),
        C::Store(S::Dump(a)) => dropped("igloo store", |c| async move { verbs::store::dump(&c, &a).await }),
        C::Store(S::Info(a)) => dropped("igloo store", |c| async move { verbs::store::info(&c, &a).await }),
        C::Store(S::List(a)) => dropped("igloo store", |c| async move { verbs::store::list(&c, &a).await }),
        C::Store(S::Verify(a)) => dropped(
            "igloo store",
            |c| async move { verbs::store::verify(&c, &a).await },
        ),
        C::WhyDepends(a) => dropped("igloo why-depends", |c| async move {
            verbs::why_depends::run(&c, &a).await
        }),
    }
}

fn plain(name: &'static str, run: impl FnOnce(Context) -> Result<(), Failure> + 'static) -> Entry {
    let run = Run::Plain(Box::new(run));
    Entry { name, run }
}

fn dropped<F>(name: &'static str, run: impl FnOnce(Context) -> F + 'static) -> Entry
where
    F: Future<Output = Result<(), Failure>> + 'static,
{
    let run = Run::Dropped(Box::new(move |context| Box::pin(run(context))));
    Entry { name, run }
}

fn told<F>(name: &'static str, run: impl FnOnce(Context, Stop) -> F + 'static) -> Entry
where
    F: Future<Output = Result<(), Failure>> + 'static,
{
    let run = Run::Told(Box::new(move |context, stop| Box::pin(run(context, stop))));
    Entry { name, run }
}
