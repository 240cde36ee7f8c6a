//! Arguments of commands that ask about store paths.

use clap::Args;

/// Arguments of `log`.
#[derive(Debug, Args)]
pub struct LogArguments {
    /// A derivation, or a store path that was built
    pub path: String,
    /// Ask the coordinator of another process
    #[arg(long, env = "IGLOO_COORDINATOR", value_name = "URL")]
    pub coordinator: Option<String>,
}

/// Arguments of `path-info`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct PathInfoArguments {
    /// Store paths, or links to them
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The shape of the JSON: 1 (paths as keys) or 2 (as Nix 2.34 prints it when asked for 2)
    #[arg(long, value_name = "VERSION", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub json_format: u8,
    /// Print the NAR size
    #[arg(long, short)]
    pub size: bool,
    /// Print the NAR size of the whole closure
    #[arg(long, short = 'S')]
    pub closure_size: bool,
    /// Print sizes for people
    #[arg(long, short = 'h')]
    pub human_readable: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// Print the whole closure
    #[arg(long, short)]
    pub recursive: bool,
    /// Print signatures
    #[arg(long)]
    pub sigs: bool,
}

/// Arguments of `why-depends`.
#[derive(Debug, Args)]
pub struct WhyDependsArguments {
    /// A store path, or a link to one
    pub path: String,
    /// What it is asked about
    pub dependency: String,
    /// Look for the files that hold the references however long it takes, not only in the first 64 MiB of each path
    #[arg(long)]
    pub precise: bool,
    /// Do not look for files
    #[arg(long, conflicts_with = "precise")]
    pub no_files: bool,
}
