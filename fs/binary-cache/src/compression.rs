//! Archives unpacked while they come, within bounds.
//!
//! Invariants
//! - no decoder takes more memory than `MEMORY_MAX` bytes, whatever a stream asks for (zstd's window, xz's dictionary);
//! - a call gives out at most the spare room of the caller's buffer: who counts what comes out is safe from bombs;
//! - a stream that ends early or has something after its end is an error.
//!
//! Source: RFC 8878 (zstd), RFC 7932 (brotli), the .xz file format 1.2.1, bzip2 1.0.8.

use std::fmt;
use std::io;
use std::str::FromStr;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use igloo_status::Code;
use liblzma::stream as xz;
use zstd_safe::{CCtx, DCtx, DParameter, InBuffer, OutBuffer};

/// Bytes of memory a decoder may take for its window: what `zstd -19` and `xz -9` need, twice.
pub const MEMORY_MAX: u64 = 1 << WINDOW_LOG_MAX;
/// The largest window of zstd, as a power of two: what every decoder must be able to take, and `--ultra -22` uses.
const WINDOW_LOG_MAX: u32 = 27;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZMA2 in .xz.
    Xz,
    /// Zstandard.
    Zstd,
    /// bzip2.
    Bzip2,
    /// Brotli.
    Brotli,
}

impl Compression {
    /// The name in a narinfo.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Brotli => "br",
        }
    }

    /// What Nix puts behind `.nar` in a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
            Self::Bzip2 => ".bz2",
            Self::Brotli => ".br",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        Ok(match name {
            "none" | "" => Self::None,
            "xz" => Self::Xz,
            "zstd" => Self::Zstd,
            "bzip2" => Self::Bzip2,
            "br" => Self::Brotli,
            _ => {
                return Err(UnknownCompression {
                    name: name.chars().take(40).collect(),
                });
            }
        })
    }
}

/// A compression that is not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the compression `{name}` is not supported; there are none, xz, zstd, bzip2 and br")]
pub struct UnknownCompression {
    /// Its name.
    pub name: String,
}

/// Unpacks one stream.
pub struct Decoder {
    state: State,
    /// Whether the stream may end here.
    whole: bool,
}

enum State {
    None,
    Xz(xz::Stream),
    Zstd(DCtx<'static>),
    Bzip2(bzip2::Decompress),
    Brotli(Box<Brotli>),
}

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

impl Decoder {
    /// A decoder that has seen nothing yet.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(compression: Compression) -> Result<Self, DecompressError> {
        let state = match compression {
            Compression::None => State::None,
            Compression::Xz => State::Xz(xz::Stream::new_stream_decoder(MEMORY_MAX, xz::CONCATENATED)?),
            Compression::Zstd => {
                let mut context = DCtx::try_create().ok_or(DecompressError::Memory)?;
                context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
                State::Zstd(context)
            }
            Compression::Bzip2 => State::Bzip2(bzip2::Decompress::new(false)),
            Compression::Brotli => State::Brotli(Box::new(BrotliState::new(
                StandardAlloc::default(),
                StandardAlloc::default(),
                StandardAlloc::default(),
            ))),
        };
        let whole = matches!(state, State::None);
        Ok(Self { state, whole })
    }

    /// Unpacks from `input`, which loses what was read, to the spare room of `out`, which must have some.
    ///
    /// Call again, with new room, while `out` comes back full; then with the next input. `last` says that no input
    /// follows this.
    ///
    /// # Errors
    /// See [`DecompressError`].
    pub fn decode(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        last: bool,
    ) -> Result<(), DecompressError> {
        loop {
            let before = (input.len(), out.len());
            self.step(input, out, last)?;
            let stuck = before == (input.len(), out.len());
            if out.len() == out.capacity() {
                return Ok(());
            }
            if input.is_empty() && (!last || stuck) {
                break;
            }
            if stuck {
                return Err(DecompressError::Corrupt {
                    reason: "the decoder makes no headway",
                });
            }
        }
        if last && !self.whole {
            return Err(DecompressError::Truncated);
        }
        Ok(())
    }

    fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>, last: bool) -> Result<(), DecompressError> {
        match &mut self.state {
            State::None => {
                let count = input.len().min(out.capacity() - out.len());
                out.extend_from_slice(&input[..count]);
                *input = &input[count..];
            }
            State::Xz(stream) => self.whole = xz_step(stream, input, out, last)?,
            State::Zstd(context) => {
                if input.is_empty() && self.whole {
                    return Ok(()); // one more call would begin a frame
                }
                self.whole = zstd_step(context, input, out)?;
            }
            State::Bzip2(stream) => {
                if self.whole && !input.is_empty() {
                    *stream = bzip2::Decompress::new(false); // another stream follows, as pbzip2 writes them
                    self.whole = false;
                }
                if !self.whole {
                    self.whole = bzip2_step(stream, input, out)?;
                }
            }
            State::Brotli(state) => {
                if self.whole && !input.is_empty() {
                    return Err(DecompressError::Corrupt {
                        reason: "something follows its end",
                    });
                }
                if !self.whole {
                    self.whole = brotli_step(state, input, out)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("whole", &self.whole)
            .finish_non_exhaustive()
    }
}

/// Whether all streams are at their end. With `CONCATENATED` only the last call can tell.
fn xz_step(
    stream: &mut xz::Stream,
    input: &mut &[u8],
    out: &mut Vec<u8>,
    last: bool,
) -> Result<bool, DecompressError> {
    let before = stream.total_in();
    let action = if last { xz::Action::Finish } else { xz::Action::Run };
    let status = stream.process_vec(input, out, action)?;
    advance(input, stream.total_in() - before);
    Ok(matches!(status, xz::Status::StreamEnd))
}

/// Whether a frame is at its end and given out.
fn zstd_step(
    context: &mut DCtx<'static>,
    input: &mut &[u8],
    out: &mut Vec<u8>,
) -> Result<bool, DecompressError> {
    let filled = out.len();
    out.resize(out.capacity(), 0);
    let mut from = InBuffer::around(input);
    let mut to = OutBuffer::around(&mut out[filled..]);
    let left = context.decompress_stream(&mut to, &mut from);
    let (read, written) = (from.pos(), to.pos());
    out.truncate(filled + written);
    *input = &input[read..];
    Ok(left? == 0)
}

fn bzip2_step(
    stream: &mut bzip2::Decompress,
    input: &mut &[u8],
    out: &mut Vec<u8>,
) -> Result<bool, DecompressError> {
    let before = stream.total_in();
    let status = stream.decompress_vec(input, out)?;
    advance(input, stream.total_in() - before);
    match status {
        bzip2::Status::StreamEnd => Ok(true),
        bzip2::Status::MemNeeded => Err(DecompressError::Memory),
        _ => Ok(false),
    }
}

fn brotli_step(state: &mut Brotli, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, DecompressError> {
    let filled = out.len();
    out.resize(out.capacity(), 0);
    let (mut available_in, mut read) = (input.len(), 0);
    let (mut available_out, mut written, mut total) = (out.len() - filled, filled, 0);
    let result = BrotliDecompressStream(
        &mut available_in,
        &mut read,
        input,
        &mut available_out,
        &mut written,
        out,
        &mut total,
        state,
    );
    out.truncate(written.max(filled));
    *input = &input[read.min(input.len())..];
    match result {
        BrotliResult::ResultSuccess => Ok(true),
        BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => Ok(false),
        BrotliResult::ResultFailure => Err(DecompressError::Corrupt { reason: "bad brotli" }),
    }
}

fn advance(input: &mut &[u8], read: u64) {
    let read = usize::try_from(read).unwrap_or(usize::MAX).min(input.len());
    *input = &input[read..];
}

/// Packs one stream: with xz at level 6, as Nix does, with zstd at level 3; or not at all.
pub struct Encoder(EncoderState);

enum EncoderState {
    None,
    Xz(xz::Stream),
    Zstd(CCtx<'static>),
}

impl Encoder {
    /// An encoder, `None` for what is only read, or where there is no memory.
    pub fn new(compression: Compression) -> Option<Self> {
        Some(Self(match compression {
            Compression::None => EncoderState::None,
            Compression::Xz => EncoderState::Xz(xz::Stream::new_easy_encoder(6, xz::Check::Crc64).ok()?),
            Compression::Zstd => EncoderState::Zstd(CCtx::try_create()?),
            Compression::Bzip2 | Compression::Brotli => return None,
        }))
    }

    /// Packs all of `input`; what comes out goes to `out`, piece by piece. `last` ends the stream.
    ///
    /// # Errors
    /// Those of `out`, and `InvalidData` when the encoder refuses.
    pub fn encode(
        &mut self,
        mut input: &[u8],
        last: bool,
        mut out: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        if matches!(self.0, EncoderState::None) {
            return out(input);
        }
        let mut piece = Vec::with_capacity(128 << 10);
        loop {
            let ended = self.step(&mut input, &mut piece, last)?;
            let full = piece.len() == piece.capacity();
            out(&piece)?;
            piece.clear();
            if input.is_empty() && !full && (ended || !last) {
                return Ok(());
            }
        }
    }

    /// Whether the stream is ended and given out.
    fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>, last: bool) -> io::Result<bool> {
        match &mut self.0 {
            EncoderState::None => Ok(true),
            EncoderState::Xz(stream) => {
                let before = stream.total_in();
                let action = if last { xz::Action::Finish } else { xz::Action::Run };
                let status = stream.process_vec(input, out, action)?;
                advance(input, stream.total_in() - before);
                Ok(matches!(status, xz::Status::StreamEnd))
            }
            EncoderState::Zstd(context) => {
                let action = if last {
                    zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_end
                } else {
                    zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_continue
                };
                let filled = out.len();
                out.resize(out.capacity(), 0);
                let mut from = InBuffer::around(input);
                let mut to = OutBuffer::around(&mut out[filled..]);
                let left = context.compress_stream2(&mut to, &mut from, action);
                let (read, written) = (from.pos(), to.pos());
                out.truncate(filled + written);
                *input = &input[read..];
                let left = left.map_err(|code| {
                    io::Error::new(io::ErrorKind::InvalidData, zstd_safe::get_error_name(code))
                })?;
                Ok(left == 0)
            }
        }
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

/// Why a stream cannot be unpacked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// It is damaged, or compressed otherwise than said.
    #[error("the compressed data is damaged: {reason}")]
    Corrupt {
        /// What the decoder says.
        reason: &'static str,
    },
    /// It ends early.
    #[error("the compressed data ends early")]
    Truncated,
    /// It wants more memory than [`MEMORY_MAX`], or there is none.
    #[error("unpacking needs more than the {} MiB of memory allowed", MEMORY_MAX >> 20)]
    Memory,
}

impl DecompressError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Corrupt { .. } | Self::Truncated => Code::DataLoss,
            Self::Memory => Code::ResourceExhausted,
        }
    }
}

impl From<xz::Error> for DecompressError {
    fn from(error: xz::Error) -> Self {
        match error {
            xz::Error::Mem | xz::Error::MemLimit => Self::Memory,
            xz::Error::Format => Self::Corrupt {
                reason: "it is not xz",
            },
            _ => Self::Corrupt { reason: "bad xz" },
        }
    }
}

impl From<bzip2::Error> for DecompressError {
    fn from(error: bzip2::Error) -> Self {
        Self::Corrupt {
            reason: match error {
                bzip2::Error::DataMagic => "it is not bzip2",
                _ => "bad bzip2",
            },
        }
    }
}

/// zstd's codes are numbers; their names are stable.
impl From<usize> for DecompressError {
    fn from(code: usize) -> Self {
        let reason = zstd_safe::get_error_name(code);
        if reason.contains("memory") {
            Self::Memory
        } else {
            Self::Corrupt { reason }
        }
    }
}

#[cfg(test)]
mod tests;
