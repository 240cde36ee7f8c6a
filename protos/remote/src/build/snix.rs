//! Serves `snix.build.v1.BuildService` over any [`Builder`].
//!
//! Inputs and outputs are in the store that the client and this server share; outputs are durable when the call answers.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use igloo_build::{BuildEvent, BuildIo, BuildOutcome, BuildRequest, Builder};
use igloo_castore::store::Castore;
use igloo_protos::castore::root_entry;
use igloo_protos::snix::build::v1 as wire;
use igloo_protos::snix::build::v1::build_service_server::{BuildService, BuildServiceServer};
use igloo_status::Code;
use igloo_store::output::{CollectedOutputs, OutputIngest};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Request, Response, Status};

use crate::status::{refuse, refuse_write};
use crate::task::OwnedTask;

/// Largest request, bytes: additional files and inputs come in one message.
const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// What is kept of the log, for the message of a build that fails, bytes.
const LOG_TAIL_BYTES: usize = 2 << 10;
/// How long the end of the log is waited for.
const LOG_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct SnixBuildServer {
    builder: Arc<dyn Builder>,
    store: Castore,
    turns: Arc<Semaphore>,
}

impl SnixBuildServer {
    pub(crate) fn service(
        builder: Arc<dyn Builder>,
        store: Castore,
        turns: Arc<Semaphore>,
    ) -> BuildServiceServer<Self> {
        BuildServiceServer::new(Self {
            builder,
            store,
            turns,
        })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl BuildService for SnixBuildServer {
    async fn do_build(
        &self,
        request: Request<wire::BuildRequest>,
    ) -> Result<Response<wire::BuildResponse>, Status> {
        let request = BuildRequest::try_from(request.into_inner());
        let request = request.map_err(|error| refuse(error.code(), &error))?;
        let paths = request.outputs.clone();
        let (sink, collected) = OutputIngest::new(self.store.clone(), request.needles.clone());
        let (events, receiver) = mpsc::channel(16);
        let mut tail = OwnedTask::spawn(log_tail(receiver));
        let io = BuildIo {
            inputs: self.store.clone(),
            outputs: Box::new(sink),
            events,
        };
        let _turn = self.turns.acquire().await;
        let report = self.builder.build(request, io).await;
        let report = report.map_err(|error| refuse(error.code(), &error))?;
        if report.outcome != BuildOutcome::Success {
            // a builder that has ended sends nothing more, but one that kept its end of the channel must not keep us
            let log = tokio::time::timeout(LOG_WITHIN, tail.join()).await;
            let log = log.ok().and_then(Result::ok).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let failed = std::io::Error::other(format!("the build failed: {:?}\n{log}", report.outcome));
            return Err(refuse(Code::FailedPrecondition, &failed));
        }
        self.store.sync().await.map_err(|error| refuse_write(&error))?;
        response(&paths, &collected).map(Response::new)
    }
}

fn response(
    paths: &[igloo_build::RelativePath],
    collected: &CollectedOutputs,
) -> Result<wire::BuildResponse, Status> {
    let outputs: HashMap<_, _> = collected
        .take()
        .into_iter()
        .map(|output| (output.path.clone(), output))
        .collect();
    let outputs = paths.iter().map(|path| {
        let output = outputs.get(path);
        let output =
            output.ok_or_else(|| Status::internal(format!("the builder did not hand over {path}")))?;
        Ok(wire::build_response::Output {
            output: Some(root_entry(&output.node)),
            needles: output.needles.iter().map(|needle| *needle as u64).collect(),
        })
    });
    Ok(wire::BuildResponse {
        outputs: outputs.collect::<Result<_, Status>>()?,
    })
}

async fn log_tail(mut events: mpsc::Receiver<BuildEvent>) -> Bytes {
    let mut tail = BytesMut::new();
    while let Some(event) = events.recv().await {
        if let BuildEvent::Log { bytes, .. } = event {
            tail.extend_from_slice(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..]);
            let cut = tail.len().saturating_sub(LOG_TAIL_BYTES);
            let _ = tail.split_to(cut);
        }
    }
    tail.freeze()
}
