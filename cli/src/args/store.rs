//! Arguments of `igloo store …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
