//! Arguments of `igloo repl`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `repl`.
#[derive(Debug, Args)]
pub struct ReplArguments {
    /// Files whose attributes are in scope from the start, as with :load
    pub files: Vec<String>,
    /// An expression whose attributes are in scope from the start, as with :add
    #[arg(long, short = 'E')]
    pub expr: Option<String>,
    /// An argument for functions in loaded files: a name and an expression
    #[arg(long, num_args = 2, value_names = ["NAME", "EXPR"])]
    pub arg: Vec<String>,
    /// An argument for functions in loaded files: a name and a string
    #[arg(long, num_args = 2, value_names = ["NAME", "TEXT"])]
    pub argstr: Vec<String>,
    /// Search path entry, PATH or NAME=PATH
    #[arg(long, short = 'I')]
    pub include: Vec<String>,
    /// A setting as in nix.conf
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"])]
    pub option: Vec<String>,
    /// Show every call in errors
    #[arg(long)]
    pub show_trace: bool,
    /// Where lines typed are kept; an empty name keeps none [default: igloo/repl-history below the XDG state home]
    #[arg(long, env = "IGLOO_REPL_HISTORY", value_name = "FILE")]
    pub history: Option<PathBuf>,
}
