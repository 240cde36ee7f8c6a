//! Frames: a little-endian `u32` length, then one message in postcard.
//!
//! Each way starts with [`PREFACE`]: a magic and the version, so that a wrong peer, or one of another release, is known
//! by its first bytes.
//!
//! Invariants
//! - a length above the reader's bound is an error before a byte of the frame is kept;
//! - a frame holds one message and nothing after it;
//! - after an error the decoder gives that error for ever: there is no way to find the next frame.

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::{DATA_SIZE_MAX, GuestMessage, HostMessage};

/// The version of the messages: raised with every change of them.
pub const VERSION: u32 = 1;

/// What each way starts with.
pub const PREFACE: [u8; 12] = {
    let version = VERSION.to_le_bytes();
    let magic = *b"iglooctl";
    let mut preface = [0; 12];
    let mut index = 0;
    while index < 12 {
        preface[index] = if index < 8 {
            magic[index]
        } else {
            version[index - 8]
        };
        index += 1;
    }
    preface
};

/// Longest message of a guest, bytes: data and its framing.
pub const GUEST_FRAME_SIZE_MAX: usize = DATA_SIZE_MAX + 64;
/// Longest message of a host, bytes: a spec with all arguments and outputs a request may have.
pub const HOST_FRAME_SIZE_MAX: usize = 16 << 20;

const LENGTH_SIZE: usize = 4;

/// A message one side sends.
pub trait Message: Serialize + DeserializeOwned {
    /// Its longest encoding, bytes.
    const FRAME_SIZE_MAX: usize;

    /// Checks its parts against their bounds.
    ///
    /// # Errors
    /// The part out of bounds.
    fn check_bounds(&self) -> Result<(), &'static str>;
}

impl Message for GuestMessage {
    const FRAME_SIZE_MAX: usize = GUEST_FRAME_SIZE_MAX;

    fn check_bounds(&self) -> Result<(), &'static str> {
        self.check()
    }
}

impl Message for HostMessage {
    const FRAME_SIZE_MAX: usize = HOST_FRAME_SIZE_MAX;

    fn check_bounds(&self) -> Result<(), &'static str> {
        self.check()
    }
}

/// Encodes a message as a frame, length included.
///
/// # Errors
/// `TooLarge` and `Bounds` when the peer would refuse it.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, FrameError> {
    message
        .check_bounds()
        .map_err(|part| FrameError::Bounds { part })?;
    let mut frame =
        postcard::to_extend(message, vec![0; LENGTH_SIZE]).map_err(|source| FrameError::Encoding {
            reason: source.to_string(),
        })?;
    let size = frame.len() - LENGTH_SIZE;
    match u32::try_from(size) {
        Ok(length) if size <= M::FRAME_SIZE_MAX => {
            frame[..LENGTH_SIZE].copy_from_slice(&length.to_le_bytes());
            Ok(frame)
        }
        _ => Err(FrameError::TooLarge {
            size: size as u64,
            size_max: M::FRAME_SIZE_MAX,
        }),
    }
}

/// Turns pushed bytes into messages, the preface first.
///
/// Holds what has been pushed and not yet taken: push no more than a read's worth before draining [`Self::next_frame`].
#[derive(Debug)]
pub struct Decoder<M> {
    buffer: BytesMut,
    state: State,
    message: PhantomData<M>,
}

#[derive(Clone, Debug)]
enum State {
    Preface,
    Frames,
    Broken(FrameError),
}

impl<M: Message> Default for Decoder<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Message> Decoder<M> {
    /// A decoder that has seen nothing.
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            state: State::Preface,
            message: PhantomData,
        }
    }

    /// Adds bytes from the peer.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where to read bytes from the peer into, saving the copy of [`Self::push`].
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next message and its size on the wire (for [`crate::window::ReceiveWindow`]); `None` until more is pushed.
    ///
    /// # Errors
    /// Whatever makes the stream no stream of this protocol, and the same again from then on.
    pub fn next_frame(&mut self) -> Result<Option<(M, usize)>, FrameError> {
        if let State::Broken(error) = &self.state {
            return Err(error.clone());
        }
        let next = self.take();
        if let Err(error) = &next {
            self.buffer = BytesMut::new();
            self.state = State::Broken(error.clone());
        }
        next
    }

    /// Checks that the peer closed the stream between two frames.
    ///
    /// # Errors
    /// `Truncated` when it closed in the middle of one.
    pub fn finish(&self) -> Result<(), FrameError> {
        match &self.state {
            State::Broken(error) => Err(error.clone()),
            _ if self.buffer.is_empty() => Ok(()),
            _ => Err(FrameError::Truncated {
                size: self.buffer.len(),
            }),
        }
    }

    fn take(&mut self) -> Result<Option<(M, usize)>, FrameError> {
        if matches!(self.state, State::Preface) && !self.take_preface()? {
            return Ok(None);
        }
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_SIZE>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix);
        let size = match usize::try_from(length) {
            Ok(size) if size <= M::FRAME_SIZE_MAX => size,
            _ => {
                return Err(FrameError::TooLarge {
                    size: length.into(),
                    size_max: M::FRAME_SIZE_MAX,
                });
            }
        };
        if self.buffer.len() < LENGTH_SIZE + size {
            self.buffer.reserve(LENGTH_SIZE + size - self.buffer.len());
            return Ok(None);
        }
        let body = &self.buffer[LENGTH_SIZE..LENGTH_SIZE + size];
        let (message, rest) =
            postcard::take_from_bytes::<M>(body).map_err(|source| FrameError::Encoding {
                reason: source.to_string(),
            })?;
        if !rest.is_empty() {
            return Err(FrameError::Trailing { size: rest.len() });
        }
        message
            .check_bounds()
            .map_err(|part| FrameError::Bounds { part })?;
        self.buffer.advance(LENGTH_SIZE + size);
        Ok(Some((message, LENGTH_SIZE + size)))
    }

    /// Whether the preface has been seen; an error as soon as a byte of it is wrong.
    fn take_preface(&mut self) -> Result<bool, FrameError> {
        let seen = self.buffer.len().min(PREFACE.len());
        let magic = seen.min(8);
        if self.buffer[..magic] != PREFACE[..magic] {
            return Err(FrameError::Magic);
        }
        let Some(preface) = self.buffer.first_chunk::<12>() else {
            return Ok(false);
        };
        let version = u32::from_le_bytes([preface[8], preface[9], preface[10], preface[11]]);
        if version != VERSION {
            return Err(FrameError::Version { version });
        }
        self.buffer.advance(PREFACE.len());
        self.state = State::Frames;
        Ok(true)
    }
}

/// Why bytes are no stream of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The peer speaks something else.
    #[error("the peer does not speak igloo's control protocol")]
    Magic,
    /// The peer is of another release.
    #[error(
        "the peer speaks version {version} of the control protocol, this side {VERSION}: rebuild the image"
    )]
    Version {
        /// Its version.
        version: u32,
    },
    /// Longer than any message.
    #[error("a message of {size} bytes, more than the {size_max} allowed")]
    TooLarge {
        /// Its length.
        size: u64,
        /// The bound.
        size_max: usize,
    },
    /// Not the encoding of a message.
    #[error("a message does not decode: {reason}")]
    Encoding {
        /// What the codec says.
        reason: String,
    },
    /// More in the frame than one message.
    #[error("{size} bytes after a message in its frame")]
    Trailing {
        /// How many.
        size: usize,
    },
    /// A part out of bounds.
    #[error("a message's {part} is out of bounds")]
    Bounds {
        /// Which part.
        part: &'static str,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended {size} bytes into a message")]
    Truncated {
        /// Bytes of the unfinished frame.
        size: usize,
    },
}

#[cfg(test)]
mod tests;
