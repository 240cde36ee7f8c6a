//! The command line, as one definition that help, completions and the parser share: a file for each command's arguments.
//!
//! What each command runs, and how, is in [`crate::table`].

mod build;
mod coordinator;
mod eval;
mod expression;
mod machines;
mod mount;
mod query;
mod repl;
mod store;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use build::BuildArguments;
pub use coordinator::CoordinatorArguments;
pub use eval::{EvalArguments, EvaluatorArguments, NixArguments};
pub use expression::ExpressionArguments;
pub use machines::{BuilderArguments, DoctorArguments, MachineArguments, NetworkChoice};
pub use mount::MountArguments;
pub use query::{LogArguments, PathInfoArguments, WhyDependsArguments};
pub use repl::ReplArguments;
pub use store::{
    AddArguments, DaemonArguments, DumpArguments, InfoArguments, ListArguments, StoreCommand, VerifyArguments,
};

/// Builds software in sealed microVMs, and shows a content-addressed store as files that are fetched when they are read.
#[derive(Debug, Parser)]
#[command(
    name = "igloo",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// What all commands have in common.
    #[command(flatten)]
    pub common: CommonArguments,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands have in common.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CommonArguments {
    /// The store: rocksdb:///DIR, grpc+unix://SOCKET, memory:, or a name of the configuration [default: below the XDG data
    /// home; /var/lib/igloo for root]
    #[arg(long, global = true, env = "IGLOO_STORE", value_name = "URL")]
    pub store: Option<String>,

    /// The configuration file [default: igloo/config.toml below the XDG configuration home; /etc/igloo/config.toml for root]
    #[arg(long, global = true, env = "IGLOO_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Say only what went wrong
    #[arg(long, short, global = true)]
    pub quiet: bool,

    /// Say more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build what Nix expressions and derivations describe, and print where it is
    Build(Box<BuildArguments>),
    /// Run builds for others over gRPC
    Builder(BuilderArguments),
    /// Run jobs for others over gRPC: what they want is evaluated, fetched and built from here
    Coordinator(CoordinatorArguments),
    /// Say what this machine can do, and how to mend what is missing
    Doctor(DoctorArguments),
    /// Evaluate a Nix expression and print its whole value
    Eval(EvalArguments),
    /// Run evaluations for others over gRPC; files are read on this machine
    Evaluator(EvaluatorArguments),
    /// Print the log of a derivation's last build
    Log(LogArguments),
    /// Show the store as files, until Ctrl-C
    Mount(MountArguments),
    /// Build with the flags and output of Nix's nix-build
    NixBuild(NixArguments),
    /// Evaluate with the flags and output of Nix's nix-instantiate
    NixInstantiate(NixArguments),
    /// Say what is known of store paths, as nix path-info does
    PathInfo(PathInfoArguments),
    /// Evaluate what is typed, as nix repl does
    Repl(ReplArguments),
    /// Work with the store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Say why a store path has another in its closure
    WhyDepends(WhyDependsArguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
