//! Taking in streams of blob bytes from strangers.
//!
//! Invariants
//! - never more bytes are held than the caller allowed, however long the stream is;
//! - a stream that pauses for too long is an error.

use bytes::{Bytes, BytesMut};
use igloo_castore::digest::{BlobDigest, ChunkDigest};
use igloo_protos::snix::castore::v1::BlobChunk;
use tonic::{Status, Streaming};

use crate::status::{answer, broken};

/// The next bytes, not empty, `None` at the end.
pub(super) async fn next(stream: &mut Streaming<BlobChunk>) -> Result<Option<Bytes>, Status> {
    loop {
        match answer(stream.message()).await? {
            None => return Ok(None),
            Some(message) if message.data.is_empty() => {}
            Some(message) => return Ok(Some(message.data)),
        }
    }
}

/// What a bounded stream held.
pub(super) enum Collected {
    /// All of it.
    Whole(Bytes),
    /// More than was allowed.
    Over,
}

/// Takes in at most `size_max` bytes.
pub(super) async fn collect(stream: &mut Streaming<BlobChunk>, size_max: u64) -> Result<Collected, Status> {
    let Some(first) = next(stream).await? else {
        return Ok(Collected::Whole(Bytes::new()));
    };
    if first.len() as u64 > size_max {
        return Ok(Collected::Over);
    }
    let Some(second) = next(stream).await? else {
        return Ok(Collected::Whole(first)); // the usual case, without a copy
    };
    let mut whole = BytesMut::from(&first[..]);
    whole.extend_from_slice(&second);
    while whole.len() as u64 <= size_max {
        match next(stream).await? {
            Some(more) => whole.extend_from_slice(&more),
            None => return Ok(Collected::Whole(whole.freeze())),
        }
    }
    Ok(Collected::Over)
}

/// Takes in exactly `size` bytes.
pub(super) async fn collect_exactly(stream: &mut Streaming<BlobChunk>, size: u64) -> Result<Bytes, Status> {
    match collect(stream, size).await? {
        Collected::Whole(bytes) if bytes.len() as u64 == size => Ok(bytes),
        Collected::Whole(bytes) => Err(broken(format!("the peer sent {} bytes of {size}", bytes.len()))),
        Collected::Over => Err(broken(format!("the peer sent more than {size} bytes"))),
    }
}

/// What a stream of a whole blob was found to be.
pub(super) struct Streamed {
    /// Its size, bytes.
    pub(super) size: u64,
    /// The bytes of the range that was wanted.
    pub(super) range: Bytes,
}

/// Streams a whole blob and checks it, keeping only the bytes of `[start, end)`. `None` when it is not the blob.
pub(super) async fn stream_range(
    stream: &mut Streaming<BlobChunk>,
    digest: &BlobDigest,
    (start, end): (u64, u64),
    size_max: u64,
) -> Result<Option<Streamed>, Status> {
    let mut hasher = blake3::Hasher::new();
    let mut range = BytesMut::new();
    while let Some(bytes) = next(stream).await? {
        let at = hasher.count();
        if at + bytes.len() as u64 > size_max {
            return Err(broken(format!(
                "the peer's blob does not end within {size_max} bytes"
            )));
        }
        hasher.update(&bytes);
        let within = |offset: u64| {
            let index = offset.saturating_sub(at).min(bytes.len() as u64);
            usize::try_from(index).unwrap_or(bytes.len())
        };
        range.extend_from_slice(&bytes[within(start)..within(end).max(within(start))]);
    }
    let size = hasher.count();
    Ok(
        (BlobDigest::from(hasher.finalize()) == *digest).then(|| Streamed {
            size,
            range: range.freeze(),
        }),
    )
}

/// Cuts a stream as a chunk list says, handing each chunk on once its digest was checked.
///
/// `None` when the list or the bytes are wrong; nothing is said of the list unless the whole passed.
pub(super) async fn check_chunks(
    stream: &mut Streaming<BlobChunk>,
    digest: &BlobDigest,
    list: &[(ChunkDigest, u32)],
    mut keep: impl FnMut(&ChunkDigest, Bytes),
) -> Result<Option<()>, Status> {
    let mut whole = blake3::Hasher::new();
    let mut pending = BytesMut::new();
    let mut list = list.iter();
    let mut wanted = list.next();
    while let Some(bytes) = next(stream).await? {
        whole.update(&bytes);
        pending.extend_from_slice(&bytes);
        while let Some((chunk, size)) = wanted
            && pending.len() as u64 >= u64::from(*size)
        {
            let size = usize::try_from(*size).unwrap_or(usize::MAX).min(pending.len());
            // a copy of its own: a slice would keep the whole buffer alive
            let bytes = Bytes::copy_from_slice(&pending.split_to(size));
            if !chunk.matches(&bytes) {
                return Ok(None);
            }
            keep(chunk, bytes);
            wanted = list.next();
        }
        if wanted.is_none() && !pending.is_empty() {
            return Ok(None); // bytes past the end of the list
        }
    }
    let complete = wanted.is_none() && BlobDigest::from(whole.finalize()) == *digest;
    Ok(complete.then_some(()))
}
