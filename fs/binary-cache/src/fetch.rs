//! An archive streamed straight into a store.
//!
//! ```text
//! bytes from the wire -> file hash -> unpacked (blocking pool) -> counted -> ingest (hash, cut, store)
//! ```
//!
//! Invariants
//! - at most [`PIECES_MAX`] unpacked pieces of [`PIECE_SIZE`] bytes wait for the ingest; nothing is held whole;
//! - no byte past the declared NAR size reaches the ingest;
//! - the record is returned only when the NAR, and the file where its hash is known, are what was offered.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use igloo_castore::blocking;
use igloo_castore::ingest::IngestLimits;
use igloo_store::{DeclaredNar, PathInfo, Store};
use nix_compat::hash::{HashFormat, Hasher, NixHash};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use crate::cache::Source;
use crate::compression::{Compression, Decoder, DecompressError};
use crate::progress::{Progress, ProgressEvent};
use crate::substituter::FetchError;

/// Bytes unpacked at a time.
const PIECE_SIZE: usize = 256 << 10;
/// Compressed bytes gathered before they are unpacked: one visit to the blocking pool for each.
const INPUT_SIZE: usize = 64 << 10;
/// Pieces that wait for the ingest.
const PIECES_MAX: usize = 4;

/// An archive of a cache, opened.
pub(crate) struct Archive<'a> {
    /// For messages.
    pub(crate) url: String,
    pub(crate) source: Source<'a>,
    pub(crate) size_max: u64,
    pub(crate) compression: Compression,
    pub(crate) file_hash: Option<NixHash>,
    pub(crate) file_size: Option<u64>,
}

/// How large a compressed archive may be whose size nobody tells: what cannot be compressed grows a little.
pub(crate) fn compressed_size_max(nar_size: u64) -> u64 {
    nar_size.saturating_add(nar_size / 8).saturating_add(1 << 20)
}

impl Archive<'_> {
    /// Streams it into the store; the record is neither durable nor registered.
    pub(crate) async fn fetch(
        self,
        nar: &DeclaredNar,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<PathInfo, FetchError> {
        let url = self.url.clone();
        let (pieces, reader) = mpsc::channel(PIECES_MAX);
        let limits = IngestLimits {
            size_max: nar.nar_size,
            ..IngestLimits::default()
        };
        let reader = PieceReader {
            pieces: reader,
            rest: Bytes::new(),
        };
        let ingest = store.ingest_declared(nar.clone(), reader, limits);
        let (pumped, ingested) = futures::join!(self.pump(nar, pieces, progress), ingest);
        match (pumped, ingested) {
            (Ok(Pumped::All), Ok(info)) => Ok(info),
            // the cause, not that the NAR ends early because of it
            (Err(error), _) => Err(error),
            (Ok(_), Err(source)) => Err(FetchError::Add {
                url,
                source: source.into(),
            }),
            (Ok(Pumped::NotWanted), Ok(_)) => Err(FetchError::TooLong {
                url,
                nar_size: nar.nar_size,
            }),
        }
    }

    async fn pump(
        mut self,
        nar: &DeclaredNar,
        pieces: mpsc::Sender<Bytes>,
        progress: &dyn Progress,
    ) -> Result<Pumped, FetchError> {
        let mut unpacking = Unpacking {
            decoder: Some(self.decoder()?),
            gathered: BytesMut::new(),
            size: 0,
        };
        // of an archive that is not compressed the file is the NAR, which the ingest hashes
        let same =
            self.compression == Compression::None && self.file_hash == Some(NixHash::Sha256(nar.nar_sha256));
        let mut hasher = self
            .file_hash
            .filter(|_| !same)
            .map(|hash| Hasher::new(hash.algo()));
        let mut size = 0;
        while let Some(bytes) = self.source.next(progress).await? {
            size += bytes.len() as u64;
            if size > self.size_max {
                return Err(self.wrong_size(size));
            }
            progress.event(ProgressEvent::Downloaded {
                path: &nar.path,
                size: bytes.len() as u64,
            });
            if let Some(hasher) = &mut hasher {
                hasher.update(&bytes);
            }
            if let Some(input) = unpacking.gather(bytes, self.compression)
                && !self
                    .unpack(&mut unpacking, input, false, nar, &pieces, progress)
                    .await?
            {
                return Ok(Pumped::NotWanted);
            }
        }
        if self.file_size.is_some_and(|expected| expected != size) {
            return Err(self.wrong_size(size));
        }
        self.check_hash(hasher)?;
        let rest = unpacking.gathered.split().freeze();
        let wanted = self
            .unpack(&mut unpacking, rest, true, nar, &pieces, progress)
            .await?;
        Ok(if wanted { Pumped::All } else { Pumped::NotWanted })
    }

    /// Unpacks bytes and passes the result on; `false` when nobody wants it any more.
    async fn unpack(
        &self,
        unpacking: &mut Unpacking,
        bytes: Bytes,
        last: bool,
        nar: &DeclaredNar,
        pieces: &mpsc::Sender<Bytes>,
        progress: &dyn Progress,
    ) -> Result<bool, FetchError> {
        let mut input = bytes;
        loop {
            let (rest, piece, more) =
                unpacking
                    .step(input, last, self.compression)
                    .await
                    .map_err(|source| FetchError::Decompress {
                        url: self.url.clone(),
                        source,
                    })?;
            input = rest;
            let size = piece.len() as u64;
            unpacking.size += size;
            if unpacking.size > nar.nar_size {
                return Err(FetchError::TooLong {
                    url: self.url.clone(),
                    nar_size: nar.nar_size,
                });
            }
            if size > 0 {
                if pieces.send(piece).await.is_err() {
                    return Ok(false);
                }
                progress.event(ProgressEvent::Unpacked {
                    path: &nar.path,
                    size,
                });
            }
            if !more {
                return Ok(true);
            }
        }
    }

    fn decoder(&self) -> Result<Decoder, FetchError> {
        Decoder::new(self.compression).map_err(|source| FetchError::Decompress {
            url: self.url.clone(),
            source,
        })
    }

    fn wrong_size(&self, size: u64) -> FetchError {
        let declared = self.file_size.unwrap_or(self.size_max);
        FetchError::File {
            url: self.url.clone(),
            declared: format!("{declared} bytes"),
            found: if size > declared {
                "more".to_owned()
            } else {
                format!("{size} bytes")
            },
        }
    }

    fn check_hash(&self, hasher: Option<Hasher>) -> Result<(), FetchError> {
        let (Some(declared), Some(hasher)) = (self.file_hash, hasher) else {
            return Ok(());
        };
        let found = hasher.finish();
        if found == declared {
            return Ok(());
        }
        Err(FetchError::File {
            url: self.url.clone(),
            declared: declared.encode_with_algo(HashFormat::NixBase32),
            found: found.encode_with_algo(HashFormat::NixBase32),
        })
    }
}

enum Pumped {
    All,
    /// The ingest ended first; it says why.
    NotWanted,
}

struct Unpacking {
    /// Absent only while it works elsewhere.
    decoder: Option<Decoder>,
    /// Compressed bytes that wait.
    gathered: BytesMut,
    /// Bytes unpacked.
    size: u64,
}

impl Unpacking {
    /// Takes bytes in; gives out what is enough for a visit to the decoder.
    fn gather(&mut self, bytes: Bytes, compression: Compression) -> Option<Bytes> {
        if self.gathered.is_empty() && (bytes.len() >= INPUT_SIZE || compression == Compression::None) {
            return Some(bytes);
        }
        self.gathered.extend_from_slice(&bytes);
        (self.gathered.len() >= INPUT_SIZE).then(|| self.gathered.split().freeze())
    }

    /// One piece at most: the input left over, the piece, and whether there may be more.
    async fn step(
        &mut self,
        input: Bytes,
        last: bool,
        compression: Compression,
    ) -> Result<(Bytes, Bytes, bool), DecompressError> {
        if compression == Compression::None {
            return Ok((Bytes::new(), input, false));
        }
        let mut decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => Decoder::new(compression)?, // only after a step that was dropped, and then all is
        };
        let (decoder, result) = blocking::run(move || {
            let mut rest = &input[..];
            let mut piece = Vec::with_capacity(PIECE_SIZE);
            let result = decoder.decode(&mut rest, &mut piece, last);
            let left = rest.len();
            let more = piece.len() == piece.capacity();
            let rest = input.slice(input.len() - left..);
            (decoder, result.map(|()| (rest, Bytes::from(piece), more)))
        })
        .await;
        self.decoder = Some(decoder);
        result
    }
}

/// Pieces as a stream of bytes; ends when the sender is gone.
struct PieceReader {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl AsyncRead for PieceReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.pieces.poll_recv(cx)) {
                Some(piece) => self.rest = piece,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}
