//! Serves `igloo.castore.v1.ContentService` over any [`Castore`].
//!
//! An outline costs one read of the blob on the first open; the last few are kept.

use std::sync::Arc;

use bytes::Bytes;
use igloo_castore::digest::BlobDigest;
use igloo_castore::directory::Directory;
use igloo_castore::store::Castore;
use igloo_protos::igloo::castore::v1 as wire;
use igloo_protos::igloo::castore::v1::content_service_server::{ContentService, ContentServiceServer};
use igloo_status::Code;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tonic::{Request, Response, Status, Streaming};

use super::blob_server::{BlobStream, not_found, read_digest, read_stream, stat};
use super::directory_server::Intake;
use super::outline::{Outline, OutlineBuilder};
use crate::limits::DIRECTORY_MESSAGE_BYTES_MAX;
use crate::status::{answer, refuse, refuse_write};

/// Bytes of outlines kept: those of about 250 GB of blobs.
const OUTLINES_BYTES: u64 = 32 << 20;
/// Blobs put into the store at once, bytes.
const PUT_BYTES: usize = 4 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct ContentServer {
    castore: Castore,
    outlines: Cache<BlobDigest, Arc<Outline>, ByBytes>,
}

impl ContentServer {
    pub(crate) fn service(castore: Castore) -> ContentServiceServer<Self> {
        let outlines = Cache::with_weighter(1 << 12, OUTLINES_BYTES, ByBytes);
        ContentServiceServer::new(Self { castore, outlines })
            .max_decoding_message_size(DIRECTORY_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(DIRECTORY_MESSAGE_BYTES_MAX)
    }

    async fn read(&self, digest: &BlobDigest, start: u64, size: usize) -> Result<Bytes, Status> {
        let bytes = self.castore.blobs.read_range(digest, start, size).await;
        let bytes = bytes.map_err(|error| refuse(error.code(), &error))?;
        if bytes.len() == size {
            Ok(bytes)
        } else {
            Err(Status::data_loss(format!("blob {digest} ends before its size")))
        }
    }

    async fn outline(
        &self,
        digest: &BlobDigest,
        mut builder: OutlineBuilder,
    ) -> Result<Arc<Outline>, Status> {
        let make = async {
            while let Some((start, size)) = builder.wanted() {
                builder.push(&self.read(digest, start, size).await?);
            }
            Ok(Arc::new(builder.finish()))
        };
        self.outlines.get_or_insert_async(digest, make).await
    }
}

#[tonic::async_trait]
impl ContentService for ContentServer {
    type ReadRangeStream = BlobStream;

    async fn open_blob(
        &self,
        request: Request<wire::OpenBlobRequest>,
    ) -> Result<Response<wire::OpenBlobResponse>, Status> {
        let digest = read_digest(&request.into_inner().digest)?;
        let stat = stat(&*self.castore.blobs, &digest)
            .await?
            .ok_or_else(|| not_found(&digest))?;
        let size = stat.size;
        // what a client does without: it goes back to streaming
        let builder = OutlineBuilder::new(size).map_err(|error| refuse(Code::OutOfRange, &error))?;
        let mut response = wire::OpenBlobResponse {
            size,
            ..wire::OpenBlobResponse::default()
        };
        match builder.wanted() {
            None => {}
            Some((_, first)) if first as u64 == size => response.data = self.read(&digest, 0, first).await?,
            Some(_) => {
                let outline = self.outline(&digest, builder).await?;
                let last = outline.touched(0, size).end.saturating_sub(1);
                let (start, rest) = outline.group(last);
                let rest = usize::try_from(rest).unwrap_or(usize::MAX);
                response.data = self.read(&digest, start, rest).await?;
                response.group_log2 = outline.group_log2();
                response.outline = outline.values();
            }
        }
        Ok(Response::new(response))
    }

    async fn read_range(
        &self,
        request: Request<wire::ReadRangeRequest>,
    ) -> Result<Response<BlobStream>, Status> {
        let request = request.into_inner();
        let digest = read_digest(&request.digest)?;
        let stat = stat(&*self.castore.blobs, &digest)
            .await?
            .ok_or_else(|| not_found(&digest))?;
        let start = request.offset.min(stat.size);
        let end = start.saturating_add(request.size).min(stat.size);
        let blobs = Arc::clone(&self.castore.blobs);
        Ok(Response::new(read_stream(blobs, digest, start, end)))
    }

    async fn put_small_blobs(
        &self,
        request: Request<Streaming<wire::PutSmallBlobsRequest>>,
    ) -> Result<Response<wire::PutSmallBlobsResponse>, Status> {
        let mut stream = request.into_inner();
        let mut blobs = Vec::new();
        let mut size = 0;
        while let Some(message) = answer(stream.message()).await? {
            for blob in message.blobs {
                let digest: BlobDigest = read_digest(&blob.digest)?;
                if !digest.matches(&blob.data) {
                    return Err(Status::invalid_argument(format!(
                        "the bytes sent as {digest} are not that blob"
                    )));
                }
                size += blob.data.len();
                blobs.push((digest, blob.data));
            }
            if size >= PUT_BYTES {
                let full = std::mem::take(&mut blobs);
                size = 0;
                self.castore
                    .blobs
                    .put_small(full)
                    .await
                    .map_err(|error| refuse_write(&error))?;
            }
        }
        self.castore
            .blobs
            .put_small(blobs)
            .await
            .map_err(|error| refuse_write(&error))?;
        Ok(Response::new(wire::PutSmallBlobsResponse {}))
    }

    async fn put_directories(
        &self,
        request: Request<Streaming<wire::PutDirectoriesRequest>>,
    ) -> Result<Response<wire::PutDirectoriesResponse>, Status> {
        let mut stream = request.into_inner();
        let mut intake = Intake::new(Arc::clone(&self.castore.directories));
        while let Some(message) = answer(stream.message()).await? {
            for directory in message.directories {
                let directory =
                    Directory::try_from(directory).map_err(|error| refuse(error.code(), &error))?;
                intake.take(directory).await?;
            }
        }
        intake.finish().await?;
        Ok(Response::new(wire::PutDirectoriesResponse {}))
    }

    async fn sync(&self, _: Request<wire::SyncRequest>) -> Result<Response<wire::SyncResponse>, Status> {
        self.castore.sync().await.map_err(|error| refuse_write(&error))?;
        Ok(Response::new(wire::SyncResponse {}))
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<BlobDigest, Arc<Outline>> for ByBytes {
    fn weight(&self, _: &BlobDigest, outline: &Arc<Outline>) -> u64 {
        128 + outline.values().len() as u64
    }
}
