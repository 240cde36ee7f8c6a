//! `igloo coordinator --listen ADDRESS`

use igloo_remote::{Address, Listener, Services};

use super::{machines, say};
use crate::args::CoordinatorArguments;
use crate::context::Context;
use crate::coordination::{self, Parts};
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
    if let Some(builder) = arguments.builder {
        config.builder = Some(builder);
    }
    // a builder that cannot be set up is a matter of the job that needs it
    let Parts { coordinator, .. } = coordination::open(context, &config).await?;
    let listener = Listener::bind(&address).await?;
    say(format_args!("listening on {}", listener.address()))?;
    let services = Services::new().with_coordinator(coordinator);
    Ok(services.serve(listener, stop.asked()).await?)
}
