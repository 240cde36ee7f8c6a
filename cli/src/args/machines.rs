//! Where machines come from: shared by commands that build, and what asks about them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Where machines come from.
#[derive(Clone, Debug, Args)]
pub struct MachineArguments {
    /// Folder with the guest kernel and initramfs, made by `cargo xtask image`
    #[arg(long, env = "IGLOO_IMAGE", value_name = "DIR")]
    pub image: Option<PathBuf>,
    /// Builds at once, or `auto` [default: 2]
    #[arg(long, short = 'j', value_name = "COUNT")]
    pub max_jobs: Option<String>,
    /// Processors of each machine [default: 2]
    #[arg(long, value_name = "COUNT")]
    pub cores: Option<u32>,
    /// Whether fixed-output builds may reach the network, this host's own services included [default: allow for `build`,
    /// refuse for `builder`]
    #[arg(long, value_name = "POLICY")]
    pub network: Option<NetworkChoice>,
    /// Memory of each machine, MiB [default: 2048]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,
}

/// Whether fixed-output builds may reach the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkChoice {
    /// They may.
    Allow,
    /// They fail.
    Refuse,
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
