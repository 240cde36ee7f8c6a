//! A server: services on a listener, until told to stop.
//!
//! Invariants
//! - on shutdown no new call is taken; calls under way have [`DRAIN_WITHIN`] to end;
//! - every service a server offers is known to its health service by its full name.

use std::sync::Arc;

use futures::stream;
use igloo_castore::store::Castore;
use igloo_driver::Coordinator;
use igloo_status::Code;
use igloo_store::Store;
use tokio::sync::Semaphore;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use crate::build::{BuildServer, BuildService, SnixBuildServer};
use crate::castore::{BlobServer, ChunkLists, ContentServer, DirectoryServer};
use crate::coordinator::CoordinatorServer;
use crate::evaluator::{EvaluatorServer, EvaluatorService};
use crate::facts::FactServer;
use crate::limits::{CONNECTION_WINDOW_BYTES, DRAIN_WITHIN, KEEP_ALIVE, STREAM_WINDOW_BYTES, STREAMS_MAX};
use crate::listen::Listener;
use crate::path_info::{Admission, PathInfoServer, RegistryServer};

/// Adds a service, and its name for the health service.
macro_rules! add {
    ($services:ident, $service:expr) => {{
        let service = $service;
        $services.names.push(name_of(&service));
        $services.routes.add_service(service);
    }};
}

/// What a server offers.
pub struct Services {
    routes: RoutesBuilder,
    health: HealthReporter,
    names: Vec<&'static str>,
}

impl Services {
    /// Nothing but the health service.
    pub fn new() -> Self {
        let (health, service) = tonic_health::server::health_reporter();
        let mut routes = RoutesBuilder::default();
        add_health(&mut routes, service);
        Self {
            routes,
            health,
            names: Vec::new(),
        }
    }

    /// Offers blobs and directories.
    #[must_use]
    pub fn with_castore(self, castore: &Castore, lists: ChunkLists) -> Self {
        let mut services = self.with_snix_castore(castore, lists);
        add!(services, ContentServer::service(castore.clone()));
        services
    }

    /// Offers blobs and directories as snix does, without what only igloo has: slower, for comparison and tests.
    #[must_use]
    pub fn with_snix_castore(mut self, castore: &Castore, lists: ChunkLists) -> Self {
        add!(self, BlobServer::service(Arc::clone(&castore.blobs), lists));
        add!(self, DirectoryServer::service(Arc::clone(&castore.directories)));
        self
    }

    /// Offers a store: its content and its path infos.
    #[must_use]
    pub fn with_store(self, store: &Store, lists: ChunkLists, admission: Admission) -> Self {
        let mut services = self.with_castore(&store.castore, lists);
        add!(services, PathInfoServer::service(store.clone(), admission));
        add!(services, RegistryServer::service(store.clone(), admission));
        add!(services, FactServer::service(Arc::clone(&store.facts)));
        services
    }

    /// Offers a store as snix does, without what only igloo has: slower, for comparison and tests.
    #[must_use]
    pub fn with_snix_store(self, store: &Store, lists: ChunkLists, admission: Admission) -> Self {
        let mut services = self.with_snix_castore(&store.castore, lists);
        add!(services, PathInfoServer::service(store.clone(), admission));
        services
    }

    /// Offers a builder, to igloo's clients and, where it has a store for them, to snix's.
    #[must_use]
    pub fn with_builder(mut self, service: BuildService) -> Self {
        let turns = usize::try_from(service.builds_max).unwrap_or(usize::MAX);
        let turns = Arc::new(Semaphore::new(turns.clamp(1, Semaphore::MAX_PERMITS)));
        if let Some(store) = service.snix_store.clone() {
            let builder = Arc::clone(&service.builder);
            add!(self, SnixBuildServer::service(builder, store, Arc::clone(&turns)));
        }
        add!(self, BuildServer::service(service, turns));
        self
    }

    /// Offers a coordinator.
    #[must_use]
    pub fn with_coordinator(mut self, coordinator: Arc<dyn Coordinator>) -> Self {
        add!(self, CoordinatorServer::service(coordinator));
        self
    }

    /// Offers an evaluator.
    #[must_use]
    pub fn with_evaluator(mut self, service: EvaluatorService) -> Self {
        add!(self, EvaluatorServer::service(service));
        self
    }

    /// Serves until `shutdown` is ready and the calls under way have ended, or [`DRAIN_WITHIN`] is over.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn serve(
        self,
        listener: Listener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let address = listener.address().to_string();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let incoming = stream::unfold(listener, |listener| async {
            loop {
                match listener.accept().await {
                    Ok(stream) => return Some((Ok::<_, std::io::Error>(stream), listener)),
                    // out of file descriptors, or a client that left at once: neither ends the service
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    }
                }
            }
        });
        for name in &self.names {
            self.health
                .set_service_status(*name, tonic_health::ServingStatus::Serving)
                .await;
        }
        let stopped = async {
            let _ = stopped.await; // a dropped sender stops as well
        };
        let serving = server().serve_with_incoming_shutdown(self.routes.routes(), incoming, stopped);
        let mut serving = std::pin::pin!(serving);
        let fail = |source| ServeError { address, source };
        tokio::select! {
            ended = &mut serving => return ended.map_err(fail),
            () = shutdown => drop(stop),
        }
        match tokio::time::timeout(DRAIN_WITHIN, serving).await {
            Ok(ended) => ended.map_err(fail),
            Err(_) => Ok(()), // who still holds a call open is left behind
        }
    }

    pub(crate) fn routes(self) -> Routes {
        self.routes.routes()
    }
}

impl Default for Services {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

fn name_of<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}

fn add_health(routes: &mut RoutesBuilder, service: HealthServer<impl Health>) {
    routes.add_service(service);
}

/// How every server is set up.
pub(crate) fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
}

/// Why a server ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("the service on {address} failed")]
pub struct ServeError {
    address: String,
    #[source]
    source: tonic::transport::Error,
}

impl ServeError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        Code::Unavailable
    }
}
