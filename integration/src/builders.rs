//! Builders that are part of a test, so that no machine is needed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use igloo_build::Builder;
use igloo_castore::store::Castore;
use igloo_remote::{Address, BuildService, ContentCache, LeasePolicy, Listener, Services};
use tokio::task::JoinHandle;

/// The URL of what listens at a socket.
pub fn url(socket: &Path) -> String {
    format!("grpc+unix://{}", socket.display())
}

/// Serves a builder that knows these stores and does two builds at once at a socket, with its leases in `spool`, until the
/// runtime ends.
pub async fn serve(
    builder: Arc<dyn Builder>,
    stores: BTreeMap<String, Castore>,
    socket: &Path,
    spool: &Path,
) -> JoinHandle<()> {
    let service = BuildService {
        builder,
        stores,
        snix_store: None,
        builds_max: 2,
        cache: Arc::new(ContentCache::default()),
        leases: Some(LeasePolicy::in_dir(spool.to_owned())),
    };
    let address = Address::Unix(socket.to_owned());
    let listener = Listener::bind(&address).await.expect("a socket");
    let services = Services::new().with_builder(service);
    tokio::spawn(async move {
        services
            .serve(listener, std::future::pending())
            .await
            .expect("served");
    })
}
