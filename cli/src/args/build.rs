//! Arguments of `igloo build`.

use clap::Args;

use super::{ExpressionArguments, MachineArguments};

/// Arguments of `build`.
#[derive(Debug, Args)]
pub struct BuildArguments {
    /// Nix files, folders with a default.nix, <NAMES> of the search path, derivations (FILE.drv, FILE.drv!OUTPUT,OUTPUT), or
    /// store paths; without any, ./default.nix
    #[arg(value_name = "FILE")]
    pub inputs: Vec<String>,
    /// The file to evaluate, like FILE
    #[arg(long, short, value_name = "FILE", conflicts_with = "inputs")]
    pub file: Option<String>,
    /// An expression instead of a file
    #[arg(long, short = 'E', conflicts_with_all = ["inputs", "file"])]
    pub expr: Option<String>,
    /// Attribute path to build; may be repeated
    #[arg(long, short = 'A')]
    pub attr: Vec<String>,
    /// How it is evaluated.
    #[command(flatten)]
    pub expressions: ExpressionArguments,

    /// Let another process build: grpc+unix://SOCKET, or a name of the configuration
    #[arg(long, env = "IGLOO_BUILDER", value_name = "URL")]
    pub builder: Option<String>,
    /// Let another process coordinate
    #[arg(long, env = "IGLOO_COORDINATOR", value_name = "URL")]
    pub coordinator: Option<String>,
    /// Let another process evaluate
    #[arg(long, env = "IGLOO_EVALUATOR", value_name = "URL")]
    pub evaluator: Option<String>,
    /// Where machines come from, when builds run here.
    #[command(flatten)]
    pub machines: MachineArguments,
    /// Go on with other builds when one fails
    #[arg(long, short)]
    pub keep_going: bool,
    /// Keep the folder of a failed build; machines cannot, and say so
    #[arg(long, short = 'K')]
    pub keep_failed: bool,
    /// Build again what is there, and compare
    #[arg(long)]
    pub check: bool,
    /// Only say what would be built and fetched
    #[arg(long)]
    pub dry_run: bool,
    /// Fetch nothing that could be built
    #[arg(long)]
    pub no_substitute: bool,
    /// Places to fetch from, instead of the configured ones
    #[arg(long, value_name = "URLS")]
    pub substituters: Option<String>,
    /// Stop a build that runs longer; 0 for no limit
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Stop a build that is silent for longer; 0 for no limit
    #[arg(long, value_name = "SECONDS")]
    pub max_silent_time: Option<u64>,

    /// Name of the links to what was built
    #[arg(long, short, value_name = "NAME", default_value = "result")]
    pub out_link: String,
    /// Make no links
    #[arg(long, visible_alias = "no-out-link", conflicts_with = "out_link")]
    pub no_link: bool,
    /// Print JSON: [{"drvPath": ..., "outputs": {NAME: PATH}}]
    #[arg(long)]
    pub json: bool,
    /// Show the whole log of every build on stderr
    #[arg(long, short = 'L', conflicts_with = "no_build_output")]
    pub print_build_logs: bool,
    /// Show no log while builds run, as is the default here
    #[arg(long, short = 'Q')]
    pub no_build_output: bool,
}
