//! `igloo builder --listen ADDRESS`

use super::machines;
use crate::args::BuilderArguments;
use crate::context::Context;
use crate::failure::Failure;

/// Runs builds for others until it is told to stop.
pub async fn run(context: &Context, arguments: BuilderArguments) -> Result<(), Failure> {
    let _builder = machines::builder(context, &arguments.machines).await?;
    Err(Failure::usage(format!("cannot listen on {}", arguments.listen)))
}
