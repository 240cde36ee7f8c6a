//! Arguments of `igloo coordinator`.

use clap::Args;

use super::MachineArguments;

/// Arguments of `coordinator`.
#[derive(Debug, Args)]
pub struct CoordinatorArguments {
    /// Where to listen: unix:SOCKET, or 127.0.0.1:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub listen: String,
    /// Let another process build: grpc+unix://SOCKET, or a name of the configuration; may be repeated [default: this process]
    #[arg(long, env = "IGLOO_BUILDER", value_name = "URL")]
    pub builder: Vec<String>,
    /// Let another process evaluate [default: this process]
    #[arg(long, env = "IGLOO_EVALUATOR", value_name = "URL")]
    pub evaluator: Option<String>,
    /// Where machines come from, when builds run here.
    #[command(flatten)]
    pub machines: MachineArguments,
}
