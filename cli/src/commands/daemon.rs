//! `igloo store daemon --listen ADDRESS`

use igloo_remote::{Address, Admission, ChunkLists, Listener, Services};

use super::say;
use crate::args::DaemonArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::stop::Stop;
use crate::stores;

/// Serves the store to other processes until it is told to stop.
///
/// Only this user's processes can reach the socket, and they are trusted as much as the files of the store.
pub async fn run(context: &Context, arguments: &DaemonArguments, stop: Stop) -> Result<(), Failure> {
    let address = Address::parse_listen(&arguments.listen)?;
    let store = stores::open(context).await?;
    let listener = Listener::bind(&address).await?;
    say(format_args!("listening on {}", listener.address()))?;
    let services = Services::new().with_store(&store, ChunkLists::Told, Admission::Root);
    Ok(services.serve(listener, stop.asked()).await?)
}
