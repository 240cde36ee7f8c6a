//! Undoing compression, told by the first bytes.
//!
//! The decoders are memory-safe Rust and bounded: windows and dictionaries of at most [`WINDOW_BYTES_MAX`].

use std::io::{self, Cursor, Read};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::fill;

/// Most memory a decoder may take for its window, bytes: that of `xz -9` and `zstd --long` and some room.
const WINDOW_BYTES_MAX: u32 = 192 << 20;

/// What was read of the stream, and the rest of it.
type Input<'a> = io::Chain<Cursor<Vec<u8>>, &'a mut dyn Read>;

/// The bytes of `input` with compression undone, if it has one that is known; else as they are.
pub(super) fn decoded<'a>(input: &'a mut dyn Read) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = vec![0; 6];
    let count = fill(input, &mut start)?;
    start.truncate(count);
    let kind = Compression::of(&start);
    let input = Cursor::new(start).chain(input);
    Ok(match kind {
        None => Box::new(input),
        Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(input)),
        Some(Compression::Bzip2) => Box::new(MultiBzDecoder::new(input)),
        Some(Compression::Xz) => Box::new(XzReader::new_mem_limit(input, true, WINDOW_BYTES_MAX >> 10)),
        Some(Compression::Zstd) => Box::new(ZstdFrames::new(input)),
    })
}

enum Compression {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Zstandard frames one after another, as `zstd -T` and `pzstd` write them. Skippable frames are skipped.
struct ZstdFrames<'a> {
    input: Input<'a>,
    decoder: FrameDecoder,
    inside: bool,
}

impl<'a> ZstdFrames<'a> {
    fn new(input: Input<'a>) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(u64::from(WINDOW_BYTES_MAX));
        Self {
            input,
            decoder,
            inside: false,
        }
    }

    /// Begins the next frame; false at the end.
    fn next_frame(&mut self) -> io::Result<bool> {
        let mut magic = [0; 4];
        let count = fill(&mut self.input, &mut magic)?;
        if count == 0 {
            return Ok(false);
        }
        let begun = self.decoder.init(magic[..count].chain(&mut self.input));
        match begun {
            Ok(()) => self.inside = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let mut frame = (&mut self.input).take(u64::from(length));
                if io::copy(&mut frame, &mut io::sink())? < u64::from(length) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(damaged(error)),
        }
        Ok(true)
    }

    /// Ends a frame; its checksum, where it has one, must be right.
    fn end_frame(&mut self) -> io::Result<()> {
        self.inside = false;
        match self.decoder.get_checksum_from_data() {
            Some(sum) if self.decoder.get_calculated_checksum() != Some(sum) => {
                Err(damaged("the checksum of a zstd frame is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl Read for ZstdFrames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside {
                if !self.next_frame()? {
                    return Ok(0);
                }
                continue;
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.decoder.is_finished() {
                self.end_frame()?;
                continue;
            }
            let decoded = self
                .decoder
                .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1));
            decoded.map_err(damaged)?;
        }
    }
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
