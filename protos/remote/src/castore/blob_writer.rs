//! A blob on its way to a peer.
//!
//! Invariants
//! - the peer sees the end of the stream only after `finish`: a writer that is dropped breaks the call off, so half a
//!   blob is never taken for a whole one;
//! - the peer's digest must be ours;
//! - at most [`FRAMES`] messages of [`SEND_BYTES`] wait here.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use igloo_castore::digest::BlobDigest;
use igloo_castore::error::{BackendError, WriteError};
use igloo_castore::store::{BlobWriter, StoreName};
use igloo_protos::snix::castore::v1::{BlobChunk, PutBlobResponse, blob_service_client::BlobServiceClient};
use igloo_status::Code;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::transport::Channel;

use crate::limits::SEND_BYTES;
use crate::status::{RemoteError, answer, write_error};
use crate::task::OwnedTask;

const FRAMES: usize = 8;
const ACTION: &str = "store the blob";

/// Frames of a blob; without `End` the stream never ends.
enum Frame {
    Data(Bytes),
    End,
}

/// See the module.
pub(super) struct GrpcBlobWriter {
    name: StoreName,
    hasher: blake3::Hasher,
    pending: BytesMut,
    // dropped before the frames' sender, so the call is broken off before its stream could end
    call: OwnedTask<Result<PutBlobResponse, Status>>,
    frames: mpsc::Sender<Frame>,
}

impl GrpcBlobWriter {
    pub(super) fn new(name: StoreName, mut client: BlobServiceClient<Channel>) -> Self {
        let (frames, receiver) = mpsc::channel(FRAMES);
        let call = async move { client.put(body(receiver)).await.map(tonic::Response::into_inner) };
        Self {
            name,
            hasher: blake3::Hasher::new(),
            pending: BytesMut::new(),
            call: OwnedTask::spawn(call),
            frames,
        }
    }

    async fn send(&mut self, frame: Frame) -> Result<(), WriteError> {
        if self.frames.send(frame).await.is_ok() {
            return Ok(());
        }
        // the call ended early: its answer says why
        match self.answer().await {
            Ok(_) => Err(self.refused(Code::DataLoss, "the peer answered before the blob ended".into())),
            Err(error) => Err(error),
        }
    }

    async fn answer(&mut self) -> Result<PutBlobResponse, WriteError> {
        let answer = async {
            let joined = self.call.join().await;
            joined.unwrap_or_else(|_| Err(Status::unavailable("the call was broken off")))
        };
        answer_of(&self.name.clone(), answer).await
    }

    fn refused(&self, code: Code, message: String) -> WriteError {
        let error = RemoteError { code, message };
        WriteError::Backend(BackendError::new(
            &self.name,
            code,
            format!("cannot {ACTION}"),
            error,
        ))
    }

    async fn flush(&mut self) -> Result<(), WriteError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let bytes = self.pending.split().freeze();
        self.send(Frame::Data(bytes)).await
    }
}

async fn answer_of(
    name: &StoreName,
    call: impl Future<Output = Result<PutBlobResponse, Status>>,
) -> Result<PutBlobResponse, WriteError> {
    answer(call)
        .await
        .map_err(|status| write_error(name, ACTION, &status))
}

#[async_trait]
impl BlobWriter for GrpcBlobWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        self.hasher.update(&bytes);
        if bytes.len() < SEND_BYTES {
            self.pending.extend_from_slice(&bytes);
            if self.pending.len() >= SEND_BYTES {
                self.flush().await?;
            }
            return Ok(());
        }
        self.flush().await?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(SEND_BYTES));
            self.send(Frame::Data(piece)).await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(BlobDigest, u64), WriteError> {
        self.flush().await?;
        self.send(Frame::End).await?;
        let response = self.answer().await?;
        let digest = BlobDigest::from(self.hasher.finalize());
        if response.digest != digest.as_bytes()[..] {
            let message = format!("the peer stored something other than {digest}");
            return Err(self.refused(Code::DataLoss, message));
        }
        Ok((digest, self.hasher.count()))
    }
}

fn body(frames: mpsc::Receiver<Frame>) -> impl Stream<Item = BlobChunk> + Send {
    futures::stream::unfold(frames, |mut frames| async {
        match frames.recv().await {
            Some(Frame::Data(data)) => Some((BlobChunk { data }, frames)),
            Some(Frame::End) => None,
            None => std::future::pending().await,
        }
    })
}
