//! Arguments that all commands which evaluate have in common.

use clap::Args;
use igloo_evaluator::Argument;

/// How expressions are evaluated.
#[derive(Debug, Args)]
pub struct ExpressionArguments {
    /// An argument for functions: a name and an expression
    #[arg(long, num_args = 2, value_names = ["NAME", "EXPR"])]
    arg: Vec<String>,
    /// An argument for functions: a name and a string
    #[arg(long, num_args = 2, value_names = ["NAME", "TEXT"])]
    argstr: Vec<String>,
    /// Search path entry, PATH or NAME=PATH
    #[arg(long, short = 'I', value_name = "ENTRY")]
    pub include: Vec<String>,
    /// A setting, as in the configuration file or nix.conf
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"])]
    option: Vec<String>,
    /// Show every call in errors of the evaluation
    #[arg(long)]
    pub show_trace: bool,
}

impl ExpressionArguments {
    /// What `--arg` and `--argstr` give.
    pub fn arguments(&self) -> Vec<Argument> {
        let by_expression = pairs(&self.arg).map(|(name, text)| Argument::Expression(name, text.into()));
        let by_text = pairs(&self.argstr).map(|(name, text)| Argument::Text(name, text));
        by_expression.chain(by_text).collect()
    }

    /// What `--option` gives.
    pub fn options(&self) -> Vec<(String, String)> {
        pairs(&self.option).collect()
    }
}

/// clap gives both words of each pair in one list.
fn pairs(flat: &[String]) -> impl Iterator<Item = (String, String)> {
    flat.chunks_exact(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
}
