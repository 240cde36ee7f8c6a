//! A builder in another process.

use async_trait::async_trait;
use futures::stream;
use igloo_build::{
    BuildError, BuildIo, BuildReport, BuildRequest, Builder, BuilderLoad, BuilderOffer, Lease, LeaseOwner,
    LeaseStatus,
};
use igloo_castore::store::Castore;
use igloo_protos::build::{Call, InputSource, input_stores, request_parts};
use igloo_protos::igloo::build::v1 as wire;
use igloo_protos::igloo::build::v1::build_service_client::BuildServiceClient;
use igloo_protos::lease::{lease_message, read_leases, read_load, read_offer};
use igloo_status::Code;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::tunnel::TunnelService;
use super::watch::{Watch, wrong};
use crate::connect::{ConnectError, Connection};
use crate::limits::BLOB_MESSAGE_BYTES_MAX;
use crate::status::{RemoteError, answer, code, retrying};

/// A builder behind a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GrpcBuilder {
    url: String,
    client: BuildServiceClient<Channel>,
    offer: BuilderOffer,
    /// The caller's store, as builders know it.
    store: Option<String>,
}

impl GrpcBuilder {
    /// Asks the builder what it can do.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn new(connection: &Connection) -> Result<Self, ConnectError> {
        connection.check("igloo.build.v1.BuildService").await?;
        let client = BuildServiceClient::new(connection.channel());
        let client = client.max_decoding_message_size(BLOB_MESSAGE_BYTES_MAX);
        let ask = || async {
            client
                .clone()
                .get_capabilities(wire::GetCapabilitiesRequest {})
                .await
        };
        let broken = |code, source| ConnectError::Broken {
            url: connection.url().to_owned(),
            code,
            source,
        };
        let capabilities = retrying(ask)
            .await
            .map_err(|status| broken(code(&status), Box::new(RemoteError::from(&status))))?;
        let offer =
            read_offer(capabilities.get_ref()).map_err(|error| broken(Code::DataLoss, Box::new(error)))?;
        Ok(Self {
            url: connection.url().to_owned(),
            client,
            offer,
            store: None,
        })
    }

    /// Says that the store of all builds, with their inputs and for their outputs, is the one of that URL. A builder that
    /// knows the URL reads and writes there by itself; for others inputs are served from `BuildIo::inputs`, and outputs come
    /// back.
    #[must_use]
    pub fn with_store(mut self, url: &str) -> Self {
        self.store = Some(url.to_owned());
        self
    }

    /// The store that the caller and the builder have in common.
    fn common_store(&self) -> Option<&str> {
        self.store
            .as_deref()
            .filter(|url| self.offer.stores.contains(*url))
    }

    /// Builds it runs at once; 0 when it does not say.
    pub fn builds_max(&self) -> u32 {
        self.offer.slots
    }

    async fn source(&self, inputs: Castore) -> Result<(InputSource, Option<TunnelService>), BuildError> {
        if let Some(url) = self.common_store() {
            return Ok((InputSource::Url(url.to_owned()), None));
        }
        let tunnel = TunnelService::open(self.client.clone(), inputs).await;
        let tunnel = tunnel.map_err(|status| self.failed(&status))?;
        Ok((InputSource::Tunnel(tunnel.token.clone()), Some(tunnel)))
    }

    fn failed(&self, status: &Status) -> BuildError {
        let error = RemoteError::from(status);
        match error.code {
            Code::InvalidArgument | Code::Unimplemented | Code::FailedPrecondition => {
                BuildError::Unsupported {
                    reason: format!("{}: {}", self.url, error.message),
                }
            }
            _ => BuildError::Machine {
                reason: format!("the builder {} is gone", self.url),
                source: Some(Box::new(error)),
            },
        }
    }
}

type Events = Streaming<wire::BuildEvent>;

impl GrpcBuilder {
    async fn run(
        &self,
        lease: Option<&Lease>,
        request: BuildRequest,
        io: BuildIo,
    ) -> Result<BuildReport, BuildError> {
        request.check()?;
        let (source, _tunnel) = self.source(io.inputs).await?;
        let watch = Watch::of_start(request.outputs.clone(), io.outputs, io.events);
        let call = Call {
            sources: &[source],
            lease,
            output_store: self.common_store(),
        };
        let parts = stream::iter(request_parts(request, &call));
        let events = self.client.clone().build(parts).await;
        self.watch(watch, events).await
    }

    async fn watch(
        &self,
        mut watch: Watch,
        events: Result<Response<Events>, Status>,
    ) -> Result<BuildReport, BuildError> {
        let mut events = events.map_err(|status| self.failed(&status))?.into_inner();
        loop {
            match events.message().await {
                Ok(Some(message)) => {
                    if let Some(report) = watch.event(message).await? {
                        return Ok(report);
                    }
                }
                Ok(None) => {
                    return Err(self.failed(&Status::unavailable("it ended the call without a result")));
                }
                Err(status) => return Err(self.failed(&status)),
            }
        }
    }

    fn knows_leases(&self) -> bool {
        self.offer.unattended.is_some()
    }
}

#[async_trait]
impl Builder for GrpcBuilder {
    async fn build(&self, request: BuildRequest, io: BuildIo) -> Result<BuildReport, BuildError> {
        self.run(None, request, io).await
    }

    fn systems(&self) -> Vec<String> {
        self.offer.systems.iter().cloned().collect()
    }

    fn offer(&self) -> BuilderOffer {
        self.offer.clone()
    }

    async fn load(&self) -> Result<BuilderLoad, BuildError> {
        // a builder that does not answer at once is asked again by whoever asks every few seconds
        let asked = answer(self.client.clone().get_load(wire::GetLoadRequest {})).await;
        Ok(read_load(
            asked.map_err(|status| self.failed(&status))?.into_inner(),
        ))
    }

    async fn build_leased(
        &self,
        lease: &Lease,
        request: BuildRequest,
        io: BuildIo,
    ) -> Result<BuildReport, BuildError> {
        let lease = self.knows_leases().then_some(lease);
        self.run(lease, request, io).await
    }

    async fn leases(&self, owner: &LeaseOwner) -> Result<Vec<LeaseStatus>, BuildError> {
        if !self.knows_leases() {
            return Ok(Vec::new());
        }
        let ask = || async {
            let owner = owner.as_str().to_owned();
            self.client
                .clone()
                .list_leases(wire::ListLeasesRequest { owner })
                .await
        };
        let leases = retrying(ask).await.map_err(|status| self.failed(&status))?;
        read_leases(leases.into_inner(), owner).map_err(|error| wrong(&error))
    }

    async fn attach(&self, lease: &Lease, log_from: u64, io: BuildIo) -> Result<BuildReport, BuildError> {
        let (source, _tunnel) = self.source(io.inputs).await?;
        let watch = Watch::of_attach(log_from, io.outputs, io.events);
        let request = wire::AttachRequest {
            lease: Some(lease_message(lease)),
            log_from,
            input_stores: input_stores(&[source]),
        };
        let events = self.client.clone().attach(request).await;
        self.watch(watch, events).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), BuildError> {
        if !self.knows_leases() {
            return Ok(());
        }
        let ask = || async {
            let lease = Some(lease_message(lease));
            self.client
                .clone()
                .release_lease(wire::ReleaseLeaseRequest { lease })
                .await
        };
        retrying(ask).await.map_err(|status| self.failed(&status))?;
        Ok(())
    }
}
