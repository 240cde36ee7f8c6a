//! `igloo coordinator --listen ADDRESS`

use std::sync::Arc;

use igloo_remote::{Address, Listener, Services};

use super::{machines, say};
use crate::args::CoordinatorArguments;
use crate::context::Context;
use crate::coordination::{self, Life};
use crate::failure::Failure;
use crate::stop::Stop;

/// Runs jobs of other processes until it is told to stop.
///
/// Only this user's processes can reach the socket, and they are trusted as much as the user: folders they name are read.
pub async fn run(context: &Context, arguments: CoordinatorArguments, stop: Stop) -> Result<(), Failure> {
    let address = Address::parse_listen(&arguments.listen)?;
    let mut config = context.config.clone();
    machines::configure(&mut config, &arguments.machines)?;
    config.coordinator = None; // this process is it
    config.evaluator = arguments.evaluator.or(config.evaluator);
    let builders = match arguments.builder.is_empty() {
        true => config.builder.clone().into_iter().collect(),
        false => arguments.builder,
    };
    let mut parts = coordination::open_with(context, &config, &builders, Life::Server).await?;
    parts.broken.close(); // machines that cannot be set up are a matter of the job that needs them
    let listener = Listener::bind(&address).await?;
    say(format_args!("listening on {}", listener.address()))?;
    let services = Services::new().with_coordinator(Arc::clone(&parts.coordinator));
    let served = services.serve(listener, stop.asked()).await;
    parts.close().await;
    Ok(served?)
}
