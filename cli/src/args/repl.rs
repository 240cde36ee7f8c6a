//! Arguments of `igloo repl`.

use std::path::PathBuf;

use clap::Args;

use super::ExpressionArguments;

/// Arguments of `repl`.
#[derive(Debug, Args)]
pub struct ReplArguments {
    /// Files whose attributes are in scope from the start, as with :load
    pub files: Vec<String>,
    /// An expression whose attributes are in scope from the start, as with :add
    #[arg(long, short = 'E')]
    pub expr: Option<String>,
    /// How expressions are evaluated.
    #[command(flatten)]
    pub expressions: ExpressionArguments,
    /// Where lines typed are kept; an empty name keeps none [default: repl-history in
    /// igloo's folder below the XDG state home; /var/lib/igloo-state for root]
    #[arg(long, env = "IGLOO_REPL_HISTORY", value_name = "FILE")]
    pub history: Option<PathBuf>,
}
