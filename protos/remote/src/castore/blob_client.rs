//! A peer's blobs. What is checked when: see [`super`].

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt, TryStreamExt};
use igloo_castore::chunking::UNCUT_SIZE_MAX;
use igloo_castore::digest::{BlobDigest, ChunkDigest};
use igloo_castore::error::{BackendError, ReadBlobError, WriteError};
use igloo_castore::store::{BlobStat, BlobStore, BlobWriter, StoreName};
use igloo_protos::castore::digest_bytes;
use igloo_protos::igloo::castore::v1 as igloo;
use igloo_protos::igloo::castore::v1::content_service_client::ContentServiceClient;
use igloo_protos::snix::castore::v1::blob_service_client::BlobServiceClient;
use igloo_protos::snix::castore::v1::{BlobChunk, ReadBlobRequest, StatBlobRequest};
use igloo_status::Code;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::Peer;
use super::blob_writer::GrpcBlobWriter;
use super::cache::{ContentCache, Layout, PieceKey};
use super::fetch::{self, Collected};
use super::outline::Outline;
use crate::connect::Connection;
use crate::limits::{
    BATCH_BYTES, BLOB_MESSAGE_BYTES_MAX, CHUNK_BYTES_MAX, FETCH_WINDOW, PUT_WINDOW, UNSPLIT_BYTES_MAX,
    WHOLE_BYTES_MAX,
};
use crate::status::{RemoteError, backend_error, code, retrying, write_error};

const READ: &str = "read the blob";

/// Blobs of a peer. Cheap to clone; clones share connection and cache.
#[derive(Clone, Debug)]
pub struct GrpcBlobStore {
    name: StoreName,
    snix: BlobServiceClient<Channel>,
    igloo: ContentServiceClient<Channel>,
    peer: Arc<Peer>,
    cache: Arc<ContentCache>,
}

impl GrpcBlobStore {
    pub(super) fn new(
        connection: &Connection,
        name: StoreName,
        peer: Arc<Peer>,
        cache: Arc<ContentCache>,
    ) -> Self {
        let snix = BlobServiceClient::new(connection.channel());
        let igloo = ContentServiceClient::new(connection.channel());
        Self {
            name,
            snix: snix.max_decoding_message_size(BLOB_MESSAGE_BYTES_MAX),
            igloo: igloo.max_decoding_message_size(BLOB_MESSAGE_BYTES_MAX),
            peer,
            cache,
        }
    }

    async fn layout(&self, digest: &BlobDigest) -> Result<Arc<Layout>, ReadBlobError> {
        let prove = async { self.prove(digest).await.map(Arc::new) };
        self.cache.layouts.get_or_insert_async(digest, prove).await
    }

    /// Finds out how parts of a blob can be checked; nothing the peer says is believed.
    async fn prove(&self, digest: &BlobDigest) -> Result<Layout, ReadBlobError> {
        if self.peer.is_igloo() {
            let request = || igloo::OpenBlobRequest {
                digest: digest_bytes(digest),
            };
            match retrying(|| async { self.igloo.clone().open_blob(request()).await }).await {
                Ok(response) => return self.prove_opened(digest, response.into_inner()),
                // also what a server answers for a blob too large for an outline
                Err(status) if self.peer.lacks(&status) || code(&status) == Code::OutOfRange => {}
                Err(status) => return Err(self.failed(digest, &status)),
            }
        }
        self.prove_by_streaming(digest).await
    }

    fn prove_opened(
        &self,
        digest: &BlobDigest,
        opened: igloo::OpenBlobResponse,
    ) -> Result<Layout, ReadBlobError> {
        let (size, data) = (opened.size, opened.data);
        if opened.outline.is_empty() {
            if data.len() as u64 != size || !digest.matches(&data) {
                return Err(self.corrupt(digest));
            }
            self.cache.pieces.insert(PieceKey::Chunk(digest.as_chunk()), data);
            return Ok(Layout::Whole { size });
        }
        let outline = Outline::prove(digest, size, opened.group_log2, opened.outline, &data);
        let outline = outline.ok_or_else(|| self.corrupt(digest))?;
        let last = outline.touched(0, size).end.saturating_sub(1);
        self.cache
            .pieces
            .insert(PieceKey::Group(outline.value(last)), data);
        Ok(Layout::Groups(outline))
    }

    async fn prove_by_streaming(&self, digest: &BlobDigest) -> Result<Layout, ReadBlobError> {
        let claims = self.claims(digest).await?;
        let claims = claims.ok_or_else(|| self.missing(digest))?;
        let total = claims.iter().map(|(_, size)| u64::from(*size)).sum::<u64>();
        if claims.len() > 1 && total > WHOLE_BYTES_MAX {
            return self.prove_chunks(digest, claims, total).await;
        }
        let attempt = || async {
            let mut stream = self.read(digest_bytes(digest)).await?;
            fetch::collect(&mut stream, WHOLE_BYTES_MAX).await
        };
        let collected = retrying(attempt)
            .await
            .map_err(|status| self.failed(digest, &status))?;
        match collected {
            Collected::Whole(bytes) if digest.matches(&bytes) => {
                let size = bytes.len() as u64;
                self.cache
                    .pieces
                    .insert(PieceKey::Chunk(digest.as_chunk()), bytes);
                Ok(Layout::Whole { size })
            }
            Collected::Whole(_) => Err(self.corrupt(digest)),
            Collected::Over => {
                let streamed = self.stream_range(digest, (0, 0)).await?;
                Ok(Layout::Unsplit { size: streamed.size })
            }
        }
    }

    async fn prove_chunks(
        &self,
        digest: &BlobDigest,
        claims: Vec<(ChunkDigest, u32)>,
        size: u64,
    ) -> Result<Layout, ReadBlobError> {
        let attempt = || async {
            let mut stream = self.read(digest_bytes(digest)).await?;
            let keep = |chunk: &ChunkDigest, bytes| self.cache.pieces.insert(PieceKey::Chunk(*chunk), bytes);
            fetch::check_chunks(&mut stream, digest, &claims, keep).await
        };
        let proven = retrying_stream(attempt)
            .await
            .map_err(|status| self.failed(digest, &status))?;
        proven.ok_or_else(|| self.corrupt(digest))?;
        let mut at = 0;
        let start = |(chunk, size): (ChunkDigest, u32)| {
            let start = at;
            at += u64::from(size);
            (start, chunk)
        };
        let chunks = claims.into_iter().map(start).collect();
        Ok(Layout::Chunks { chunks, size })
    }

    async fn stream_range(
        &self,
        digest: &BlobDigest,
        range: (u64, u64),
    ) -> Result<fetch::Streamed, ReadBlobError> {
        let attempt = || async {
            let mut stream = self.read(digest_bytes(digest)).await?;
            fetch::stream_range(&mut stream, digest, range, UNSPLIT_BYTES_MAX).await
        };
        let streamed = retrying_stream(attempt)
            .await
            .map_err(|status| self.failed(digest, &status))?;
        streamed.ok_or_else(|| self.corrupt(digest))
    }

    /// The chunk list as the peer tells it; empty where it tells none. `None` when it lacks the blob.
    async fn claims(&self, digest: &BlobDigest) -> Result<Option<Vec<(ChunkDigest, u32)>>, ReadBlobError> {
        let request = || StatBlobRequest {
            digest: digest_bytes(digest),
            send_chunks: true,
            send_bao: false,
        };
        let response = match retrying(|| async { self.snix.clone().stat(request()).await }).await {
            Ok(response) => response.into_inner(),
            Err(status) if code(&status) == Code::NotFound => return Ok(None),
            Err(status) => return Err(self.failed(digest, &status)),
        };
        let chunks: Option<Vec<_>> = response
            .chunks
            .into_iter()
            .map(|chunk| {
                let digest = ChunkDigest::try_from(&chunk.digest[..]).ok()?;
                let size = u32::try_from(chunk.size).ok()?;
                (size > 0 && chunk.size <= CHUNK_BYTES_MAX).then_some((digest, size))
            })
            .collect();
        chunks.map(Some).ok_or_else(|| self.corrupt(digest))
    }

    async fn read(&self, digest: Bytes) -> Result<Streaming<BlobChunk>, Status> {
        let answer = self.snix.clone().read(ReadBlobRequest { digest }).await?;
        Ok(answer.into_inner())
    }

    async fn group(
        &self,
        digest: &BlobDigest,
        outline: &Outline,
        index: u64,
    ) -> Result<Bytes, ReadBlobError> {
        let fetch = async {
            let (offset, size) = outline.group(index);
            let request = || igloo::ReadRangeRequest {
                digest: digest_bytes(digest),
                offset,
                size,
            };
            let attempt = || async {
                let mut stream = self.igloo.clone().read_range(request()).await?.into_inner();
                fetch::collect_exactly(&mut stream, size).await
            };
            let bytes = retrying(attempt)
                .await
                .map_err(|status| self.failed(digest, &status))?;
            if outline.check(index, &bytes) {
                Ok(bytes)
            } else {
                Err(self.corrupt(digest))
            }
        };
        let key = PieceKey::Group(outline.value(index));
        self.cache.pieces.get_or_insert_async(&key, fetch).await
    }

    async fn chunk(
        &self,
        digest: &BlobDigest,
        (offset, chunk): (u64, ChunkDigest),
        size: u64,
    ) -> Result<Bytes, ReadBlobError> {
        let fetch = async {
            let attempt = || async {
                let mut stream = self.read(digest_bytes(&chunk)).await?;
                fetch::collect_exactly(&mut stream, size).await
            };
            match retrying(attempt).await {
                Ok(bytes) if chunk.matches(&bytes) => Ok(bytes),
                Ok(_) => Err(self.corrupt(digest)),
                Err(status) if code(&status) == Code::NotFound => Err(ReadBlobError::MissingChunk {
                    digest: *digest,
                    chunk,
                    offset,
                    store: self.name.clone(),
                }),
                Err(status) => Err(self.failed(digest, &status)),
            }
        };
        self.cache
            .pieces
            .get_or_insert_async(&PieceKey::Chunk(chunk), fetch)
            .await
    }

    /// The pieces that `[offset, end)` touches, in order, each with its start.
    async fn pieces(
        &self,
        digest: &BlobDigest,
        layout: &Layout,
        (offset, end): (u64, u64),
    ) -> Result<Vec<(u64, Bytes)>, ReadBlobError> {
        match layout {
            Layout::Whole { size } => {
                let whole = self.chunk(digest, (0, digest.as_chunk()), *size).await;
                let whole = whole.map_err(|error| match error {
                    ReadBlobError::MissingChunk { .. } => self.missing(digest),
                    other => other,
                });
                Ok(vec![(0, whole?)])
            }
            Layout::Unsplit { .. } => {
                let streamed = self.stream_range(digest, (offset, end)).await?;
                Ok(vec![(offset, streamed.range)])
            }
            Layout::Groups(outline) => {
                let fetch = |index| async move {
                    let group = self.group(digest, outline, index).await?;
                    Ok((outline.group(index).0, group))
                };
                fetch_all(outline.touched(offset, end).map(fetch)).await
            }
            Layout::Chunks { chunks, size } => {
                let touched = touched(chunks, *size, offset, end);
                let fetch = |(start, chunk, size): (u64, ChunkDigest, u64)| async move {
                    Ok((start, self.chunk(digest, (start, chunk), size).await?))
                };
                fetch_all(touched.into_iter().map(fetch)).await
            }
        }
    }

    async fn put_batches(&self, blobs: &[(BlobDigest, Bytes)]) -> Result<(), Status> {
        let messages = batches(blobs);
        let answer = retrying(|| async {
            let messages = stream::iter(messages.clone());
            self.igloo.clone().put_small_blobs(messages).await
        });
        answer.await.map(|_| ())
    }

    async fn put_one(&self, digest: BlobDigest, data: Bytes) -> Result<(), WriteError> {
        let message = BlobChunk { data };
        let answer = retrying(|| async { self.snix.clone().put(stream::iter([message.clone()])).await });
        let answer = answer
            .await
            .map_err(|status| write_error(&self.name, "store a blob", &status))?;
        if answer.get_ref().digest == digest.as_bytes()[..] {
            return Ok(());
        }
        let error = RemoteError {
            code: Code::DataLoss,
            message: format!("the peer stored something other than {digest}"),
        };
        let error = BackendError::new(&self.name, Code::DataLoss, "cannot store a blob", error);
        Err(WriteError::Backend(error))
    }

    fn missing(&self, digest: &BlobDigest) -> ReadBlobError {
        ReadBlobError::Missing {
            digest: *digest,
            store: self.name.clone(),
        }
    }

    fn corrupt(&self, digest: &BlobDigest) -> ReadBlobError {
        ReadBlobError::Corrupt {
            digest: digest.to_string(),
            store: self.name.clone(),
        }
    }

    fn failed(&self, digest: &BlobDigest, status: &Status) -> ReadBlobError {
        match code(status) {
            Code::NotFound => self.missing(digest),
            _ => ReadBlobError::Backend(backend_error(&self.name, READ, status)),
        }
    }
}

#[async_trait]
impl BlobStore for GrpcBlobStore {
    /// What the peer claims; only [`BlobStore::read_range`] checks.
    async fn stat(&self, digest: &BlobDigest) -> Result<Option<Arc<BlobStat>>, ReadBlobError> {
        if is_empty(digest) {
            return Ok(Some(Arc::new(BlobStat {
                size: 0,
                chunks: Vec::new(),
            })));
        }
        let Some(claims) = self.claims(digest).await? else {
            return Ok(None);
        };
        if claims.len() > 1 {
            let size = claims.iter().map(|(_, size)| u64::from(*size)).sum();
            return Ok(Some(Arc::new(BlobStat { size, chunks: claims })));
        }
        // one piece: the peer does not tell its size, so it is looked at
        let size = match self.layout(digest).await {
            Ok(layout) => layout.size(),
            Err(ReadBlobError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let chunk_size = u32::try_from(size).map_err(|_| self.corrupt(digest))?;
        let chunks = vec![(digest.as_chunk(), chunk_size)];
        Ok(Some(Arc::new(BlobStat { size, chunks })))
    }

    async fn read_range(&self, digest: &BlobDigest, offset: u64, len: usize) -> Result<Bytes, ReadBlobError> {
        if is_empty(digest) {
            return Ok(Bytes::new());
        }
        let layout = self.layout(digest).await?;
        let end = offset.saturating_add(len as u64).min(layout.size());
        if offset >= end {
            return Ok(Bytes::new());
        }
        let pieces = self.pieces(digest, &layout, (offset, end)).await?;
        Ok(cut(&pieces, offset, end))
    }

    async fn put_small(&self, blobs: Vec<(BlobDigest, Bytes)>) -> Result<(), WriteError> {
        if let Some((_, large)) = blobs.iter().find(|(_, bytes)| bytes.len() > UNCUT_SIZE_MAX) {
            return Err(WriteError::TooLarge {
                what: "a small blob",
                size: large.len() as u64,
                size_max: UNCUT_SIZE_MAX as u64,
            });
        }
        if self.peer.is_igloo() {
            match self.put_batches(&blobs).await {
                Err(status) if self.peer.lacks(&status) => {}
                Err(status) => return Err(write_error(&self.name, "store blobs", &status)),
                Ok(()) => return Ok(()),
            }
        }
        stream::iter(blobs)
            .map(|(digest, bytes)| self.put_one(digest, bytes))
            .buffer_unordered(PUT_WINDOW)
            .try_collect()
            .await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, WriteError> {
        Ok(Box::new(GrpcBlobWriter::new(
            self.name.clone(),
            self.snix.clone(),
        )))
    }

    /// A peer without `ContentService` stores durably before it answers each put.
    async fn sync(&self) -> Result<(), WriteError> {
        if !self.peer.is_igloo() {
            return Ok(());
        }
        match retrying(|| async { self.igloo.clone().sync(igloo::SyncRequest {}).await }).await {
            Err(status) if !self.peer.lacks(&status) => Err(write_error(&self.name, "sync", &status)),
            _ => Ok(()),
        }
    }
}

fn is_empty(digest: &BlobDigest) -> bool {
    *digest == BlobDigest::of(b"")
}

async fn fetch_all<F>(fetches: impl Iterator<Item = F>) -> Result<Vec<(u64, Bytes)>, ReadBlobError>
where
    F: Future<Output = Result<(u64, Bytes), ReadBlobError>>,
{
    stream::iter(fetches).buffered(FETCH_WINDOW).try_collect().await
}

/// The chunks that `[offset, end)` touches: start, digest, size.
fn touched(
    chunks: &[(u64, ChunkDigest)],
    blob_size: u64,
    offset: u64,
    end: u64,
) -> Vec<(u64, ChunkDigest, u64)> {
    let first = chunks
        .partition_point(|(start, _)| *start <= offset)
        .saturating_sub(1);
    let ends = chunks.iter().skip(1).map(|(start, _)| *start).chain([blob_size]);
    let sized = chunks
        .iter()
        .zip(ends)
        .map(|((start, chunk), end)| (*start, *chunk, end - start));
    sized
        .skip(first)
        .take_while(|(start, _, _)| *start < end)
        .collect()
}

/// The bytes of `[offset, end)`, without a copy where one piece has them all.
fn cut(pieces: &[(u64, Bytes)], offset: u64, end: u64) -> Bytes {
    let part = |(start, bytes): &(u64, Bytes)| {
        let within = |at: u64| {
            let index = at.saturating_sub(*start).min(bytes.len() as u64);
            usize::try_from(index).unwrap_or(bytes.len())
        };
        bytes.slice(within(offset)..within(end))
    };
    match pieces {
        [one] => part(one),
        many => {
            let mut range = BytesMut::with_capacity(usize::try_from(end - offset).unwrap_or(0));
            many.iter()
                .for_each(|piece| range.extend_from_slice(&part(piece)));
            range.freeze()
        }
    }
}

fn batches(blobs: &[(BlobDigest, Bytes)]) -> Vec<igloo::PutSmallBlobsRequest> {
    let mut messages = Vec::new();
    let mut message = igloo::PutSmallBlobsRequest::default();
    let mut size = 0;
    for (digest, data) in blobs {
        if size + data.len() > BATCH_BYTES {
            messages.push(std::mem::take(&mut message));
            size = 0;
        }
        size += data.len() + 48;
        message.blobs.push(igloo::put_small_blobs_request::Blob {
            digest: digest_bytes(digest),
            data: data.clone(),
        });
    }
    messages.push(message);
    messages
}

/// As [`retrying`], for calls that may take long because they stream: only their pauses are bounded.
async fn retrying_stream<T, F>(mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    for wait in crate::limits::RETRY_AFTER {
        match call().await {
            Err(status) if code(&status) == Code::Unavailable => tokio::time::sleep(wait).await,
            done => return done,
        }
    }
    call().await
}
