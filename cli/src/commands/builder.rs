//! `igloo builder --listen ADDRESS`

use std::collections::BTreeMap;
use std::sync::Arc;

use igloo_remote::{Address, BuildService, ContentCache, LeasePolicy, Listener, Services};
use igloo_store::StoreUrl;

use super::{machines, say};
use crate::args::{BuilderArguments, NetworkChoice};
use crate::context::Context;
use crate::failure::Failure;
use crate::stop::Stop;
use crate::stores;

/// Runs builds for others until it is told to stop.
///
/// Inputs come from the caller and outputs go to it, or to the store both were given, when that is a server.
pub async fn run(context: &Context, arguments: BuilderArguments, stop: Stop) -> Result<(), Failure> {
    let address = Address::parse_listen(&arguments.listen)?;
    let mut config = context.config.clone();
    machines::configure(&mut config, &arguments.machines)?;
    let builder = machines::builder(context, &config, NetworkChoice::Refuse).await?;
    let mut known = BTreeMap::new();
    if let StoreUrl::Remote { url } = context.store_url.parse()? {
        known.insert(url, stores::open(context).await?.castore);
    }
    let service = BuildService {
        builder,
        stores: known,
        snix_store: None,
        builds_max: u32::from(config.max_jobs),
        cache: Arc::new(ContentCache::default()),
        leases: Some(LeasePolicy::in_dir(context.cache_dir.join("leases"))),
    };
    let listener = Listener::bind(&address).await?;
    say(format_args!("listening on {}", listener.address()))?;
    Ok(Services::new()
        .with_builder(service)
        .serve(listener, stop.asked())
        .await?)
}
