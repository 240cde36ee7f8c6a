//! Serves `igloo.build.v1.BuildService` over any [`Builder`].

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, Stream};
use igloo_build::{BuildRequest, Builder};
use igloo_castore::store::Castore;
use igloo_protos::build::{InputSource, REQUEST_MESSAGE_BYTES_MAX, RequestReader};
use igloo_protos::igloo::build::v1 as wire;
use igloo_protos::igloo::build::v1::build_service_server::{self, BuildServiceServer};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Request, Response, Status, Streaming};

use super::relay;
use super::tunnel::{FRAME_BYTES_MAX, Tunnels};
use crate::castore::ContentCache;
use crate::limits::SEND_BYTES;
use crate::status::{answer, refuse};
use crate::task::OwnedTask;

/// Messages that wait for the caller: with [`SEND_BYTES`] each, 2 MiB.
const MESSAGES: usize = 8;

/// A builder as it is offered to others.
#[derive(Debug)]
pub struct BuildService {
    /// Runs the builds.
    pub builder: Arc<dyn Builder>,
    /// Stores that callers know as well, by the URL they know them under: inputs are read there when a caller asks for
    /// it. A URL that is not here is never connected to.
    pub stores: BTreeMap<String, Castore>,
    /// Where the builds of snix's clients find their inputs and leave their outputs: the store these clients wrote to.
    /// Without one they are not served.
    pub snix_store: Option<Castore>,
    /// Most builds at once; more wait for their turn.
    pub builds_max: u32,
    /// Keeps what was read from callers.
    pub cache: Arc<ContentCache>,
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
}

type Events = Pin<Box<dyn Stream<Item = Result<wire::BuildEvent, Status>> + Send>>;
type Frames = Pin<Box<dyn Stream<Item = Result<wire::TunnelFrame, Status>> + Send>>;

impl BuildServer {
    pub(crate) fn service(service: BuildService, turns: Arc<Semaphore>) -> BuildServiceServer<Self> {
        let server = Self {
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

    /// The first source this builder can read.
    fn inputs(&self, sources: &[InputSource]) -> Result<Castore, Status> {
        let found = sources.iter().find_map(|source| match source {
            InputSource::Url(url) => self.stores.get(url).cloned(),
            InputSource::Tunnel(token) => self.tunnels.find(token),
        });
        found.ok_or_else(|| {
            Status::failed_precondition("this builder can reach none of the stores that hold the inputs")
        })
    }
}

#[tonic::async_trait]
impl build_service_server::BuildService for BuildServer {
    type BuildStream = Events;
    type ServeInputsStream = Frames;

    async fn get_capabilities(
        &self,
        _: Request<wire::GetCapabilitiesRequest>,
    ) -> Result<Response<wire::Capabilities>, Status> {
        Ok(Response::new(wire::Capabilities {
            systems: self.builder.systems(),
            stores: self.stores.keys().cloned().collect(),
            builds_max: self.builds_max,
        }))
    }

    async fn build(
        &self,
        request: Request<Streaming<wire::BuildRequestPart>>,
    ) -> Result<Response<Events>, Status> {
        let (request, sources) = read_request(request.into_inner()).await?;
        let inputs = self.inputs(&sources)?;
        let (out, events) = mpsc::channel(MESSAGES);
        let (builder, turns) = (Arc::clone(&self.builder), Arc::clone(&self.turns));
        let run = async move {
            // the semaphore is never closed
            let _turn = turns.acquire().await;
            relay::run(builder, request, inputs, out).await;
        };
        // the stream owns the task: a caller that leaves takes the build along
        let state = (events, OwnedTask::spawn(run));
        Ok(Response::new(Box::pin(stream::unfold(
            state,
            |(mut events, task)| async { Some((Ok(events.recv().await?), (events, task))) },
        ))))
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

async fn read_request(
    mut parts: Streaming<wire::BuildRequestPart>,
) -> Result<(BuildRequest, Vec<InputSource>), Status> {
    let refused = |error: igloo_protos::WireError| refuse(error.code(), &error);
    let first = answer(parts.message()).await?.unwrap_or_default();
    let mut reader = RequestReader::new(first).map_err(refused)?;
    while let Some(part) = answer(parts.message()).await? {
        reader.part(part).map_err(refused)?;
    }
    reader.finish().map_err(refused)
}
