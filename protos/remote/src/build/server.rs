//! Serves `igloo.build.v1.BuildService` over any [`Builder`].

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use igloo_build::Builder;
use igloo_castore::store::Castore;
use igloo_protos::build::{InputSource, REQUEST_MESSAGE_BYTES_MAX, ReceivedRequest, RequestReader};
use igloo_protos::igloo::build::v1 as wire;
use igloo_protos::igloo::build::v1::build_event::Event;
use igloo_protos::igloo::build::v1::build_service_server::{self, BuildServiceServer};
use igloo_protos::lease::{
    lease_failure_message, leases_message, load_message, offer_message, read_attach, read_lease, read_owner,
};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Request, Response, Status, Streaming};

use super::inputs::{InputSwitch, Inputs, Places, Reach};
use super::lease::{Attendance, LeasePolicy, Leases, StartError};
use super::relay;
use super::tunnel::{FRAME_BYTES_MAX, Tunnels};
use crate::castore::ContentCache;
use crate::limits::SEND_BYTES;
use crate::status::{answer, refuse};
use crate::task::OwnedTask;

/// Messages that wait for the caller: with [`SEND_BYTES`] each, 2 MiB.
pub(super) const MESSAGES: usize = 8;

/// A builder as it is offered to others.
#[derive(Debug)]
pub struct BuildService {
    /// Runs the builds.
    pub builder: Arc<dyn Builder>,
    /// Stores that callers know as well, by the URL they know them under: inputs are read there, and outputs put there, when a
    /// caller asks for it. A URL that is not here is never connected to.
    pub stores: BTreeMap<String, Castore>,
    /// Where the builds of snix's clients find their inputs and leave their outputs: the store these clients wrote to.
    /// Without one they are not served.
    pub snix_store: Option<Castore>,
    /// Most builds at once; more wait for their turn.
    pub builds_max: u32,
    /// Keeps what was read from callers.
    pub cache: Arc<ContentCache>,
    /// How builds under leases are kept; without it builds end with their calls.
    pub leases: Option<LeasePolicy>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct BuildServer {
    builder: Arc<dyn Builder>,
    stores: BTreeMap<String, Castore>,
    builds_max: u32,
    turns: Arc<Semaphore>,
    tunnels: Arc<Tunnels>,
    cache: Arc<ContentCache>,
    leases: Option<Arc<Leases>>,
}

type Events = Pin<Box<dyn Stream<Item = Result<wire::BuildEvent, Status>> + Send>>;
type Frames = Pin<Box<dyn Stream<Item = Result<wire::TunnelFrame, Status>> + Send>>;

impl BuildServer {
    pub(crate) fn service(service: BuildService, turns: Arc<Semaphore>) -> BuildServiceServer<Self> {
        let leases = service.leases.map(|policy| {
            let (builder, turns) = (Arc::clone(&service.builder), Arc::clone(&turns));
            Leases::new(policy, builder, turns)
        });
        let server = Self {
            leases,
            builder: service.builder,
            stores: service.stores,
            builds_max: service.builds_max,
            turns,
            tunnels: Arc::default(),
            cache: service.cache,
        };
        BuildServiceServer::new(server)
            .max_decoding_message_size(REQUEST_MESSAGE_BYTES_MAX.max(FRAME_BYTES_MAX))
            .max_encoding_message_size(4 * SEND_BYTES)
    }

    fn leases(&self) -> Result<&Arc<Leases>, Status> {
        let leases = self.leases.as_ref();
        leases.ok_or_else(|| {
            Status::unimplemented("this builder knows no leases: its builds end with their calls")
        })
    }

    /// The first source this builder can read.
    fn inputs(&self, sources: &[InputSource]) -> Result<Inputs, Status> {
        let found = sources.iter().find_map(|source| {
            let (castore, reach) = match source {
                InputSource::Url(url) => (self.stores.get(url).cloned(), Reach::Builder),
                InputSource::Tunnel(token) => (self.tunnels.find(token), Reach::Caller),
            };
            castore.map(|castore| Inputs { castore, reach })
        });
        found.ok_or_else(|| {
            Status::failed_precondition("this builder can reach none of the stores that hold the inputs")
        })
    }

    fn places(&self, received: &ReceivedRequest) -> Result<Places, Status> {
        let output_store = received.output_store.as_ref();
        Ok(Places {
            inputs: self.inputs(&received.sources)?,
            output_store: output_store.and_then(|url| self.stores.get(url).cloned()),
        })
    }
}

#[tonic::async_trait]
impl build_service_server::BuildService for BuildServer {
    type BuildStream = Events;
    type AttachStream = Events;
    type ServeInputsStream = Frames;

    async fn get_capabilities(
        &self,
        _: Request<wire::GetCapabilitiesRequest>,
    ) -> Result<Response<wire::Capabilities>, Status> {
        let mut offer = self.builder.offer();
        offer.slots = self.builds_max;
        offer.unattended = self.leases.as_deref().map(Leases::unattended_max);
        offer.stores = self.stores.keys().cloned().collect();
        Ok(Response::new(offer_message(offer)))
    }

    async fn get_load(&self, _: Request<wire::GetLoadRequest>) -> Result<Response<wire::Load>, Status> {
        let load = self.builder.load().await;
        let load = load.map_err(|error| refuse(error.code(), &error))?;
        Ok(Response::new(load_message(load)))
    }

    async fn build(
        &self,
        request: Request<Streaming<wire::BuildRequestPart>>,
    ) -> Result<Response<Events>, Status> {
        let received = read_request(request.into_inner()).await?;
        let places = self.places(&received)?;
        if let Some(lease) = &received.lease {
            let started = self.leases()?.start(lease, received.request, places);
            return attend(None, started);
        }
        let (out, events) = mpsc::channel(MESSAGES);
        let (builder, turns) = (Arc::clone(&self.builder), Arc::clone(&self.turns));
        let run = async move {
            // the semaphore is never closed
            let _turn = turns.acquire().await;
            let inputs = InputSwitch::new(places.inputs, Duration::ZERO);
            relay::run(builder, received.request, inputs, places.output_store, out).await;
        };
        // the stream owns the task: a caller that leaves takes the build along
        let state = (events, OwnedTask::spawn(run));
        Ok(Response::new(Box::pin(stream::unfold(
            state,
            |(mut events, task)| async { Some((Ok(events.recv().await?), (events, task))) },
        ))))
    }

    async fn attach(&self, request: Request<wire::AttachRequest>) -> Result<Response<Events>, Status> {
        let read = read_attach(request.into_inner());
        let (lease, log_from, sources) = read.map_err(|error| refuse(error.code(), &error))?;
        let (leases, inputs) = (self.leases()?, self.inputs(&sources)?);
        match leases.attach(&lease, log_from, inputs) {
            Ok((attendance, attached)) => attend(Some(attached), Ok(attendance)),
            Err(error) => attend(None, Err(error)),
        }
    }

    async fn list_leases(
        &self,
        request: Request<wire::ListLeasesRequest>,
    ) -> Result<Response<wire::ListLeasesResponse>, Status> {
        let owner = read_owner(&request.into_inner().owner);
        let owner = owner.map_err(|error| refuse(error.code(), &error))?;
        let leases = self.leases.as_ref().map(|leases| leases.of(&owner));
        Ok(Response::new(leases_message(&leases.unwrap_or_default())))
    }

    async fn release_lease(
        &self,
        request: Request<wire::ReleaseLeaseRequest>,
    ) -> Result<Response<wire::ReleaseLeaseResponse>, Status> {
        let lease = read_lease(request.into_inner().lease);
        let lease = lease.map_err(|error| refuse(error.code(), &error))?;
        if let Some(leases) = &self.leases {
            leases.release(&lease);
        }
        Ok(Response::new(wire::ReleaseLeaseResponse {}))
    }

    async fn serve_inputs(
        &self,
        request: Request<Streaming<wire::TunnelFrame>>,
    ) -> Result<Response<Frames>, Status> {
        let frames = self
            .tunnels
            .accept(request.into_inner(), Arc::clone(&self.cache))
            .await?;
        Ok(Response::new(Box::pin(frames)))
    }
}

/// The messages of a build that is attended, `first` before them. Dropping the stream leaves the build alone.
fn attend(
    first: Option<wire::Attached>,
    started: Result<Attendance, StartError>,
) -> Result<Response<Events>, Status> {
    let message = |event| wire::BuildEvent { event: Some(event) };
    let attendance = match started {
        Ok(attendance) => attendance,
        // as an event it keeps its kind
        Err(StartError::Lease(error)) => {
            let failed = message(Event::Failed(lease_failure_message(&error)));
            return Ok(Response::new(Box::pin(stream::iter([Ok(failed)]))));
        }
        Err(error) => return Err(error.into()),
    };
    let rest = stream::unfold(attendance, |mut attendance| async {
        Some((Ok(attendance.next().await?), attendance))
    });
    let first = first.map(|attached| Ok(message(Event::Attached(attached))));
    Ok(Response::new(Box::pin(stream::iter(first).chain(rest))))
}

async fn read_request(mut parts: Streaming<wire::BuildRequestPart>) -> Result<ReceivedRequest, Status> {
    let refused = |error: igloo_protos::WireError| refuse(error.code(), &error);
    let first = answer(parts.message()).await?.unwrap_or_default();
    let mut reader = RequestReader::new(first).map_err(refused)?;
    while let Some(part) = answer(parts.message()).await? {
        reader.part(part).map_err(refused)?;
    }
    reader.finish().map_err(refused)
}
