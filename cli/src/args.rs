//! The command line, as one definition that help, completions and the parser share.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds software in sealed microVMs, and shows a content-addressed store as files that are fetched when they are read.
#[derive(Debug, Parser)]
#[command(
    name = "igloo",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// The store: rocksdb:///DIR, grpc+unix://SOCKET, or memory: [default: below the XDG data home; /var/lib/igloo for root]
    #[arg(long, global = true, env = "IGLOO_STORE", value_name = "URL")]
    pub store: Option<String>,

    /// Say only what went wrong
    #[arg(long, short, global = true)]
    pub quiet: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build derivations (.drv files) and print their output paths
    Build(BuildArguments),
    /// Run builds for others over gRPC
    Builder(BuilderArguments),
    /// Say what this machine can do, and how to mend what is missing
    Doctor(DoctorArguments),
    /// Evaluate a Nix expression and print its whole value
    Eval(EvalArguments),
    /// Show the store as files, until Ctrl-C
    Mount(MountArguments),
    /// Evaluate with the flags and output of Nix's nix-instantiate
    NixInstantiate(NixArguments),
    /// Work with the store
    #[command(subcommand)]
    Store(StoreCommand),
}

impl Command {
    /// What other processes are told when this one has the store.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Build(_) => "igloo build",
            Self::Builder(_) => "igloo builder",
            Self::Doctor(_) => "igloo doctor",
            Self::Eval(_) | Self::NixInstantiate(_) => "igloo eval",
            Self::Mount(_) => "igloo mount",
            Self::Store(StoreCommand::Daemon(_)) => "igloo store daemon",
            Self::Store(_) => "igloo store",
        }
    }

    /// Whether it goes on until it is told to stop.
    pub fn serves(&self) -> bool {
        matches!(
            self,
            Self::Builder(_) | Self::Mount(_) | Self::Store(StoreCommand::Daemon(_))
        )
    }
}

/// Work with the store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Add files or folders and print their store paths, as nix-store --add does
    Add(AddArguments),
    /// Serve the store to other processes over gRPC
    Daemon(DaemonArguments),
    /// Write a store path as a NAR to stdout, as nix-store --dump does
    Dump(DumpArguments),
    /// Say what is known of store paths
    Info(InfoArguments),
    /// List all store paths
    List(ListArguments),
    /// Read store paths whole and compare them with their NAR hashes
    Verify(VerifyArguments),
}

/// Arguments of `store add`.
#[derive(Debug, Args)]
pub struct AddArguments {
    /// Files or folders
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Name in the store, instead of the file's own
    #[arg(long)]
    pub name: Option<String>,
}

/// Arguments of `store daemon`.
#[derive(Debug, Args)]
pub struct DaemonArguments {
    /// Where to listen: unix:SOCKET, or 127.0.0.1:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub listen: String,
}

/// Arguments of `store dump`.
#[derive(Debug, Args)]
pub struct DumpArguments {
    /// A store path
    pub path: String,
}

/// Arguments of `store info`.
#[derive(Debug, Args)]
pub struct InfoArguments {
    /// Store paths
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `store list`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `store verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Store paths; all of them if none is named
    pub paths: Vec<String>,
}

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArguments {
    /// The file to evaluate [default: ./default.nix]
    #[arg(long, short)]
    pub file: Option<String>,
    /// An expression instead of a file
    #[arg(long, short = 'E', conflicts_with = "file")]
    pub expr: Option<String>,
    /// Attribute path to select; may be repeated
    #[arg(long, short = 'A')]
    pub attr: Vec<String>,
    /// An argument for functions: a name and an expression
    #[arg(long, num_args = 2, value_names = ["NAME", "EXPR"])]
    pub arg: Vec<String>,
    /// An argument for functions: a name and a string
    #[arg(long, num_args = 2, value_names = ["NAME", "TEXT"])]
    pub argstr: Vec<String>,
    /// Search path entry, PATH or NAME=PATH
    #[arg(long, short = 'I')]
    pub include: Vec<String>,
    /// A setting as in nix.conf
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"])]
    pub option: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print XML
    #[arg(long, conflicts_with = "json")]
    pub xml: bool,
    /// See nothing but the expression and the store
    #[arg(long)]
    pub pure: bool,
    /// Show every call in errors
    #[arg(long)]
    pub show_trace: bool,
}

/// Words for a command that parses them itself.
#[derive(Debug, Args)]
pub struct NixArguments {
    /// As for Nix's command of this name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// Arguments of `mount`.
#[derive(Debug, Args)]
pub struct MountArguments {
    /// An empty folder
    pub dir: PathBuf,
    /// Let other users see it too
    #[arg(long)]
    pub allow_other: bool,
    /// Mount over a folder that is not empty, hiding what is in it
    #[arg(long)]
    pub over_content: bool,
    /// Threads that answer the kernel
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
}

/// Where machines come from.
#[derive(Debug, Args)]
pub struct MachineArguments {
    /// Folder with the guest kernel and initramfs, made by `cargo xtask image`
    #[arg(long, env = "IGLOO_IMAGE", value_name = "DIR")]
    pub image: Option<PathBuf>,
    /// Builds at once
    #[arg(long, short = 'j', value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_jobs: u16,
    /// Processors of each machine
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub cores: u32,
    /// Whether fixed-output builds may reach the network, this host's own services included [default: allow for `build`,
    /// refuse for `builder`]
    #[arg(long, value_name = "POLICY")]
    pub network: Option<NetworkChoice>,
    /// Memory of each machine, MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(128..))]
    pub memory: u32,
}

/// Whether fixed-output builds may reach the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkChoice {
    /// They may.
    Allow,
    /// They fail.
    Refuse,
}

/// Arguments of `build`.
#[derive(Debug, Args)]
pub struct BuildArguments {
    /// Derivations; FILE.drv!OUTPUT,OUTPUT asks for some outputs only
    #[arg(required = true, value_name = "FILE.drv")]
    pub derivations: Vec<String>,
    /// Let another process build: grpc+unix://SOCKET
    #[arg(long, env = "IGLOO_BUILDER", value_name = "URL")]
    pub builder: Option<String>,
    /// Where machines come from, when builds run here.
    #[command(flatten)]
    pub machines: MachineArguments,
    /// Go on with other builds when one fails
    #[arg(long, short)]
    pub keep_going: bool,
    /// Stop a build that runs longer; 0 for no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub timeout: u64,
    /// Stop a build that is silent for longer; 0 for no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub max_silent_time: u64,
    /// Print JSON: [{"drvPath": ..., "outputs": {NAME: PATH}}]
    #[arg(long)]
    pub json: bool,
    /// Show the whole log of every build on stderr
    #[arg(long, short = 'L')]
    pub print_build_logs: bool,
}

/// Arguments of `builder`.
#[derive(Debug, Args)]
pub struct BuilderArguments {
    /// Where to listen: unix:SOCKET, or 127.0.0.1:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub listen: String,
    /// Where machines come from.
    #[command(flatten)]
    pub machines: MachineArguments,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Folder with the guest kernel and initramfs
    #[arg(long, env = "IGLOO_IMAGE", value_name = "DIR")]
    pub image: Option<PathBuf>,
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
