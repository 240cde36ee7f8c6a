//! Tunnels: one HTTP/2 connection inside a gRPC call, on which the caller is the server.
//!
//! Works over whatever carries the call, needs no socket and no address, and ends with the call.
//!
//! Invariants
//! - a tunnel is known by a random token, from its first frame to its last;
//! - each direction holds at most [`PIPE_BYTES`] and [`FRAMES`] frames.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{self, Stream, StreamExt};
use hyper_util::rt::TokioIo;
use igloo_castore::store::Castore;
use igloo_protos::build::TunnelToken;
use igloo_protos::igloo::build::v1 as wire;
use igloo_protos::igloo::build::v1::build_service_client::BuildServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tonic::transport::{Channel, Uri};
use tonic::{Status, Streaming};

use super::read_only::read_only;
use crate::castore::{ChunkLists, ContentCache, over};
use crate::connect::{Connection, endpoint};
use crate::limits::SEND_BYTES;
use crate::serve::{Services, server};
use crate::status::answer;
use crate::task::OwnedTask;

const PIPE_BYTES: usize = 1 << 20;
const FRAMES: usize = 8;
/// Most tunnels into one server.
const TUNNELS_MAX: usize = 1024;
/// Longest frame, bytes.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 20;

/// The caller's end: serves a store while it lives.
pub(super) struct TunnelService {
    pub(super) token: TunnelToken,
    _tasks: [OwnedTask<()>; 3],
}

impl TunnelService {
    /// Opens a tunnel and waits until the builder knows its token.
    pub(super) async fn open(
        mut client: BuildServiceClient<Channel>,
        castore: Castore,
    ) -> Result<Self, Status> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| Status::internal(format!("no random bytes: {error}")))?;
        let token = TunnelToken::from_bytes(secret);
        let (frames, receiver) = mpsc::channel(FRAMES);
        let hello = wire::TunnelFrame {
            data: token.to_bytes(),
        };
        let sent = stream::iter([hello]).chain(received(receiver));
        let mut incoming = answer(client.serve_inputs(sent)).await?.into_inner();
        if answer(incoming.message()).await?.is_none() {
            return Err(Status::unavailable(
                "the builder closed the way to the inputs at once",
            ));
        }
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let (read, write) = tokio::io::split(far);
        let services = Services::new().with_castore(&read_only(castore), ChunkLists::Hidden);
        let connections = stream::iter([Ok::<_, io::Error>(near)]).chain(stream::pending());
        let serve = async move {
            if let Err(error) = server().serve_with_incoming(services.routes(), connections).await {
                tracing::debug!(%error, "the way to the inputs broke");
            }
        };
        let tasks = [
            OwnedTask::spawn(serve),
            OwnedTask::spawn(pour_in(incoming, write)),
            OwnedTask::spawn(pour_out(read, frames)),
        ];
        Ok(Self { token, _tasks: tasks })
    }
}

fn received<T: Send>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(receiver, |mut receiver| async {
        Some((receiver.recv().await?, receiver))
    })
}

/// From frames into the pipe, until either end closes.
async fn pour_in(mut frames: Streaming<wire::TunnelFrame>, mut pipe: WriteHalf<DuplexStream>) {
    while let Ok(Some(frame)) = frames.message().await {
        if pipe.write_all(&frame.data).await.is_err() {
            return;
        }
    }
    let _ = pipe.shutdown().await; // the other end sees the end, or is gone
}

/// From the pipe into frames, until either end closes.
async fn pour_out(mut pipe: ReadHalf<DuplexStream>, frames: mpsc::Sender<wire::TunnelFrame>) {
    while let Some(frame) = next_frame(&mut pipe).await {
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

async fn next_frame(pipe: &mut ReadHalf<DuplexStream>) -> Option<wire::TunnelFrame> {
    let mut data = bytes::BytesMut::with_capacity(SEND_BYTES / 4);
    match pipe.read_buf(&mut data).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(wire::TunnelFrame { data: data.freeze() }),
    }
}

/// The tunnels into a builder, by token.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    open: Mutex<HashMap<TunnelToken, Castore>>,
}

impl Tunnels {
    /// The store at the other end.
    pub(super) fn find(&self, token: &TunnelToken) -> Option<Castore> {
        self.lock().get(token).cloned()
    }

    /// Takes a tunnel in; the answer's frames, which keep it open.
    pub(super) async fn accept(
        self: &Arc<Self>,
        mut frames: Streaming<wire::TunnelFrame>,
        cache: Arc<ContentCache>,
    ) -> Result<impl Stream<Item = Result<wire::TunnelFrame, Status>> + Send + use<>, Status> {
        let hello = answer(frames.message()).await?;
        let hello = hello.ok_or_else(|| Status::invalid_argument("no token was sent"))?;
        let token = TunnelToken::read(&hello.data);
        let token = token.map_err(|error| crate::status::refuse(error.code(), &error))?;
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let connection = Connection::over("the caller's store", channel(near));
        let registration = self.register(token, over(&connection, cache))?;
        let (read, write) = tokio::io::split(far);
        let inward = OwnedTask::spawn(pour_in(frames, write));
        let welcome = wire::TunnelFrame::default();
        let rest = stream::unfold(
            (read, inward, registration),
            |(mut read, inward, registration)| async {
                let frame = next_frame(&mut read).await?;
                Some((Ok(frame), (read, inward, registration)))
            },
        );
        Ok(stream::iter([Ok(welcome)]).chain(rest))
    }

    fn register(self: &Arc<Self>, token: TunnelToken, castore: Castore) -> Result<Registration, Status> {
        let mut open = self.lock();
        if open.len() >= TUNNELS_MAX {
            return Err(Status::resource_exhausted(
                "too many builds read their inputs from their callers",
            ));
        }
        if open.contains_key(&token) {
            return Err(Status::already_exists("the token is in use"));
        }
        open.insert(token.clone(), castore);
        Ok(Registration {
            tunnels: Arc::clone(self),
            token,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TunnelToken, Castore>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Registration {
    tunnels: Arc<Tunnels>,
    token: TunnelToken,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.tunnels.lock().remove(&self.token);
    }
}

/// A channel over one pipe; when that breaks, there is no other.
fn channel(pipe: DuplexStream) -> Channel {
    let pipe = Arc::new(Mutex::new(Some(TokioIo::new(pipe))));
    let connector = tower::service_fn(move |_: Uri| {
        let pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(pipe.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    endpoint("http://localhost").connect_with_connector_lazy(connector)
}
