//! Arguments of `igloo mount`.

use std::path::PathBuf;

use clap::Args;

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
