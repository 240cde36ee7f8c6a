//! Arguments of commands that evaluate.

use clap::Args;

use super::ExpressionArguments;

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
    /// How it is evaluated.
    #[command(flatten)]
    pub expressions: ExpressionArguments,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print XML
    #[arg(long, conflicts_with = "json")]
    pub xml: bool,
    /// See nothing but the expression and the store
    #[arg(long)]
    pub pure: bool,
    /// Write nothing to the store: derivations are only computed
    #[arg(long)]
    pub read_only: bool,
}

/// Arguments of `evaluator`.
#[derive(Debug, Args)]
pub struct EvaluatorArguments {
    /// Where to listen: unix:SOCKET, or 127.0.0.1:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub listen: String,
    /// Evaluations at once
    #[arg(long, short = 'j', value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_jobs: u16,
}

/// Words for a command that parses them itself.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct NixArguments {
    /// As for Nix's command of this name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}
