//! A blob being written: hashes, cuts and stores while the caller makes the next bytes.
//!
//! Invariants
//! - the caller's bytes are gathered into segments of [`SEGMENT_SIZE`]; one segment at most is being hashed while the
//!   next is gathered;
//! - chunks wait for the store in batches of at most [`BATCH_SIZE`] bytes (and one segment);
//! - the index record goes in last: an unfinished blob cannot be seen.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{BlobIndex, Shared};
use crate::blocking::{self, Task};
use crate::chunking::Cutter;
use crate::digest::{BlobDigest, ChunkDigest};
use crate::error::WriteError;
use crate::store::{BlobStat, BlobWriter, ChunkStore};

/// Bytes that are hashed at once.
const SEGMENT_SIZE: usize = 1 << 20;
/// Bytes of chunks that go to the store together.
const BATCH_SIZE: usize = 4 << 20;

pub(super) struct ChunkedBlobWriter<I, C> {
    shared: Arc<Shared<I, C>>,
    segment: BytesMut,
    work: Option<Task<Box<Cutting>>>,
}

impl<I: BlobIndex, C: ChunkStore> ChunkedBlobWriter<I, C> {
    pub(super) fn new(shared: Arc<Shared<I, C>>) -> Self {
        Self {
            shared,
            segment: BytesMut::new(),
            work: None,
        }
    }

    /// Waits for the segment before, stores a full batch, and starts on the segment gathered.
    async fn hash_segment(&mut self) -> Result<(), WriteError> {
        let mut cutting = self.settle().await;
        if cutting.ready_bytes >= BATCH_SIZE {
            self.shared.chunks.put(cutting.take_ready()).await?;
        }
        let segment = std::mem::take(&mut self.segment).freeze();
        self.work = Some(blocking::spawn(move || {
            cutting.push(&segment);
            cutting
        }));
        Ok(())
    }

    async fn settle(&mut self) -> Box<Cutting> {
        match self.work.take() {
            Some(work) => work.wait().await,
            None => Box::default(),
        }
    }
}

#[async_trait]
impl<I: BlobIndex, C: ChunkStore> BlobWriter for ChunkedBlobWriter<I, C> {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let size = bytes.len().min(SEGMENT_SIZE - self.segment.len());
            if self.segment.capacity() == 0 {
                self.segment.reserve(size);
            }
            self.segment.extend_from_slice(&bytes.split_to(size));
            if self.segment.len() == SEGMENT_SIZE {
                self.hash_segment().await?;
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(BlobDigest, u64), WriteError> {
        let cutting = self.settle().await;
        let segment = std::mem::take(&mut self.segment).freeze();
        let finished = blocking::run(move || cutting.finish(&segment)).await;
        if !finished.ready.is_empty() {
            self.shared.chunks.put(finished.ready).await?;
        }
        let size = finished.stat.size;
        if finished.stat.chunks.len() > 1 {
            let record = (finished.digest, Arc::new(finished.stat));
            self.shared.index.put(vec![record]).await?;
        }
        Ok((finished.digest, size))
    }
}

/// The state of hashing and cutting, moved to the pool and back.
#[derive(Default)]
struct Cutting {
    hasher: blake3::Hasher,
    cutter: Cutter,
    size: u64,
    chunks: Vec<(ChunkDigest, u32)>,
    ready: Vec<(ChunkDigest, Bytes)>,
    ready_bytes: usize,
}

struct Finished {
    digest: BlobDigest,
    stat: BlobStat,
    ready: Vec<(ChunkDigest, Bytes)>,
}

impl Cutting {
    fn push(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        let mut cut = Vec::new();
        self.cutter.push(bytes, |chunk| cut.push(chunk));
        self.keep(cut);
    }

    fn finish(mut self, rest: &[u8]) -> Finished {
        self.push(rest);
        let mut cut = Vec::new();
        std::mem::take(&mut self.cutter).finish(|chunk| cut.push(chunk));
        self.keep(cut);
        Finished {
            digest: self.hasher.finalize().into(),
            stat: BlobStat {
                size: self.size,
                chunks: self.chunks,
            },
            ready: self.ready,
        }
    }

    fn keep(&mut self, cut: Vec<Bytes>) {
        for chunk in cut {
            let digest = ChunkDigest::of(&chunk);
            // a chunk is at most `CHUNK_SIZE_MAX` bytes
            self.chunks
                .push((digest, u32::try_from(chunk.len()).unwrap_or(u32::MAX)));
            self.ready_bytes += chunk.len();
            self.ready.push((digest, chunk));
        }
    }

    fn take_ready(&mut self) -> Vec<(ChunkDigest, Bytes)> {
        self.ready_bytes = 0;
        std::mem::take(&mut self.ready)
    }
}
