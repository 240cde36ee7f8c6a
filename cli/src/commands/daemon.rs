//! `igloo store daemon --listen ADDRESS`

use crate::args::DaemonArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::stores;

/// Serves the store to other processes until it is told to stop.
pub async fn run(context: &Context, arguments: &DaemonArguments) -> Result<(), Failure> {
    let _store = stores::open(context).await?;
    Err(Failure::usage(format!("cannot listen on {}", arguments.listen)))
}
