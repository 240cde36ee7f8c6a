//! Serves `snix.castore.v1.BlobService` over any [`BlobStore`].

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use igloo_castore::digest::{BlobDigest, Digest};
use igloo_castore::store::{BlobStat, BlobStore};
use igloo_protos::castore::{digest, digest_bytes};
use igloo_protos::snix::castore::v1 as wire;
use igloo_protos::snix::castore::v1::blob_service_server::{BlobService, BlobServiceServer};
use tonic::{Request, Response, Status, Streaming};

use crate::limits::{BLOB_MESSAGE_BYTES_MAX, SEND_BYTES};
use crate::status::{answer, refuse, refuse_write};

/// Bytes read from the store at once: a few messages.
const READ_BYTES: usize = 4 * SEND_BYTES;
/// What a chunk takes in a `StatBlobResponse`, bytes: tags, digest, size.
const CHUNK_META_BYTES: usize = 42;

pub(crate) type BlobStream = Pin<Box<dyn Stream<Item = Result<wire::BlobChunk, Status>> + Send>>;

/// Whether chunk lists are told to those who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkLists {
    /// The store reads each of its chunks as a blob too, as [`igloo_castore::chunked::ChunkedBlobStore`] does: clients of
    /// snix can then read parts of a blob.
    Told,
    /// Every blob is offered in one piece.
    Hidden,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct BlobServer {
    blobs: Arc<dyn BlobStore>,
    lists: ChunkLists,
}

impl BlobServer {
    pub(crate) fn service(blobs: Arc<dyn BlobStore>, lists: ChunkLists) -> BlobServiceServer<Self> {
        BlobServiceServer::new(Self { blobs, lists })
            .max_decoding_message_size(BLOB_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(BLOB_MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl BlobService for BlobServer {
    type ReadStream = BlobStream;

    async fn stat(
        &self,
        request: Request<wire::StatBlobRequest>,
    ) -> Result<Response<wire::StatBlobResponse>, Status> {
        let request = request.into_inner();
        let digest = read_digest(&request.digest)?;
        let mut response = wire::StatBlobResponse::default();
        let stat = stat(&*self.blobs, &digest)
            .await?
            .ok_or_else(|| not_found(&digest))?;
        if request.send_chunks && self.lists == ChunkLists::Told {
            response.chunks = chunk_metas(&stat);
        }
        Ok(Response::new(response))
    }

    async fn read(&self, request: Request<wire::ReadBlobRequest>) -> Result<Response<BlobStream>, Status> {
        let digest = read_digest(&request.into_inner().digest)?;
        let stat = stat(&*self.blobs, &digest)
            .await?
            .ok_or_else(|| not_found(&digest))?;
        let blobs = Arc::clone(&self.blobs);
        Ok(Response::new(read_stream(blobs, digest, 0, stat.size)))
    }

    async fn put(
        &self,
        request: Request<Streaming<wire::BlobChunk>>,
    ) -> Result<Response<wire::PutBlobResponse>, Status> {
        let mut stream = request.into_inner();
        let mut writer = self.blobs.writer().await.map_err(|error| refuse_write(&error))?;
        while let Some(message) = answer(stream.message()).await? {
            if !message.data.is_empty() {
                let written = writer.write(message.data).await;
                written.map_err(|error| refuse_write(&error))?;
            }
        }
        let (digest, _) = writer.finish().await.map_err(|error| refuse_write(&error))?;
        Ok(Response::new(wire::PutBlobResponse {
            digest: digest_bytes(&digest),
        }))
    }
}

/// Digests of strangers.
pub(crate) fn read_digest<K>(bytes: &[u8]) -> Result<Digest<K>, Status> {
    digest(bytes, "digest").map_err(|error| refuse(error.code(), &error))
}

pub(crate) fn not_found(digest: &BlobDigest) -> Status {
    Status::not_found(format!("blob {digest} is not here"))
}

/// The empty blob is everywhere, whatever the store behind says.
pub(crate) async fn stat(
    blobs: &dyn BlobStore,
    digest: &BlobDigest,
) -> Result<Option<Arc<BlobStat>>, Status> {
    if *digest == BlobDigest::of(b"") {
        return Ok(Some(Arc::new(BlobStat {
            size: 0,
            chunks: Vec::new(),
        })));
    }
    blobs
        .stat(digest)
        .await
        .map_err(|error| refuse(error.code(), &error))
}

/// Bytes `[start, end)` of a blob, read ahead by one piece.
pub(crate) fn read_stream(blobs: Arc<dyn BlobStore>, digest: BlobDigest, start: u64, end: u64) -> BlobStream {
    let starts = stream::iter((start..end).step_by(READ_BYTES));
    let pieces = starts.map(move |at| {
        let blobs = Arc::clone(&blobs);
        let size = usize::try_from(end - at).unwrap_or(READ_BYTES).min(READ_BYTES);
        async move {
            let bytes = blobs.read_range(&digest, at, size).await;
            let bytes = bytes.map_err(|error| refuse(error.code(), &error))?;
            if bytes.len() == size {
                Ok(messages(bytes))
            } else {
                Err(Status::data_loss(format!("blob {digest} ends before its size")))
            }
        }
    });
    pieces.buffered(2).try_flatten().boxed()
}

fn messages(bytes: Bytes) -> impl Stream<Item = Result<wire::BlobChunk, Status>> + Send {
    let starts = stream::iter((0..bytes.len()).step_by(SEND_BYTES));
    starts.map(move |at| {
        let data = bytes.slice(at..bytes.len().min(at + SEND_BYTES));
        Ok(wire::BlobChunk { data })
    })
}

/// The list, or none where it would not fit into a message: then the blob is offered in one piece.
fn chunk_metas(stat: &BlobStat) -> Vec<wire::stat_blob_response::ChunkMeta> {
    if stat.chunks.len() > BLOB_MESSAGE_BYTES_MAX / CHUNK_META_BYTES || stat.chunks.len() < 2 {
        return Vec::new();
    }
    let meta = |(digest, size): &(_, u32)| wire::stat_blob_response::ChunkMeta {
        digest: digest_bytes(digest),
        size: u64::from(*size),
    };
    stat.chunks.iter().map(meta).collect()
}
