//! Frames over blocking streams, for the agent and for tests.
//!
//! Invariants
//! - nothing is buffered on the way out: a frame is written whole before [`FrameWriter::write`] returns.

use std::io::{self, Read, Write};

use crate::frame::{Decoder, FrameError, Message, PREFACE, encode};

const READ_SIZE: usize = 64 << 10;

/// Reads messages from a blocking stream.
#[derive(Debug)]
pub struct FrameReader<R, M> {
    stream: R,
    decoder: Decoder<M>,
    buffer: Vec<u8>,
}

impl<R: Read, M: Message> FrameReader<R, M> {
    /// A reader at the start of a stream.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            buffer: vec![0; READ_SIZE],
        }
    }

    /// The next message and its size on the wire, waiting for it; `None` when the peer has closed between messages.
    ///
    /// # Errors
    /// `Io` when the stream breaks, `Frame` when the peer breaks the protocol.
    pub fn read(&mut self) -> Result<Option<(M, usize)>, StreamError> {
        loop {
            if let Some(next) = self.decoder.next_frame()? {
                return Ok(Some(next));
            }
            match self.stream.read(&mut self.buffer) {
                Ok(0) => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
                Ok(size) => self.decoder.push(&self.buffer[..size]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StreamError::Io(error)),
            }
        }
    }
}

/// Writes messages to a blocking stream.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    has_preface: bool,
}

impl<W: Write> FrameWriter<W> {
    /// A writer at the start of a stream.
    pub fn new(stream: W) -> Self {
        Self {
            stream,
            has_preface: false,
        }
    }

    /// Writes a message, and the preface before the first. Gives its size on the wire.
    ///
    /// # Errors
    /// `Io` when the stream breaks, `Frame` when the message is over its bounds; then nothing is written.
    pub fn write<M: Message>(&mut self, message: &M) -> Result<usize, StreamError> {
        self.write_frame(&encode(message)?)
    }

    /// Writes a frame made by [`encode`].
    ///
    /// # Errors
    /// `Io` when the stream breaks.
    pub fn write_frame(&mut self, frame: &[u8]) -> Result<usize, StreamError> {
        if !self.has_preface {
            self.stream.write_all(&PREFACE).map_err(StreamError::Io)?;
            self.has_preface = true;
        }
        self.stream.write_all(frame).map_err(StreamError::Io)?;
        self.stream.flush().map_err(StreamError::Io)?;
        Ok(frame.len())
    }
}

/// Why a message did not pass.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream broke.
    #[error("the control channel broke")]
    Io(#[source] io::Error),
    /// The peer, or the message, is wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
}
