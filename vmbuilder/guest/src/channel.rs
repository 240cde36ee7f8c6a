//! The conversation with the host over one blocking stream.
//!
//! Invariants
//! - a message is sent only when the host's window has room for it; while waiting, what the host says is kept in order;
//! - every host message is checked against the sequence before anyone sees it.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use igloo_control::frame::{Decoder, FrameError, GUEST_FRAME_SIZE_MAX, PREFACE, encode};
use igloo_control::sequence::SequenceError;
use igloo_control::window::AckError;
use igloo_control::{GuestMessage, HostMessage, HostSequence, SendWindow};

const READ_SIZE: usize = 64 << 10;

/// Most messages kept while the window is full; the host has nothing to say in that time but Kill and PowerOff.
const WAITING_MAX: usize = 64;

/// An open control channel.
#[derive(Debug)]
pub struct Channel<S> {
    stream: S,
    decoder: Decoder<HostMessage>,
    sequence: HostSequence,
    window: SendWindow,
    waiting: VecDeque<HostMessage>,
    buffer: Vec<u8>,
}

impl<S: Read + Write + AsFd> Channel<S> {
    /// Starts the conversation on an open stream.
    ///
    /// # Errors
    /// When the preface cannot be written.
    pub fn open(mut stream: S) -> Result<Self, ChannelError> {
        stream.write_all(&PREFACE)?;
        Ok(Self {
            stream,
            decoder: Decoder::new(),
            sequence: HostSequence::default(),
            window: SendWindow::default(),
            waiting: VecDeque::new(),
            buffer: vec![0; READ_SIZE],
        })
    }

    /// What to wait for before [`Self::receive_ready`].
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether the longest message can be sent without waiting.
    pub fn has_room(&self) -> bool {
        self.window.has_room(GUEST_FRAME_SIZE_MAX + 4)
    }

    /// The next message, waiting for it. Acknowledgements are not given out.
    ///
    /// # Errors
    /// `Closed` when the host has gone.
    pub fn receive(&mut self) -> Result<HostMessage, ChannelError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            self.fill()?;
        }
    }

    /// Reads once, which does not wait when the stream is readable, and gives the next message if it is whole.
    ///
    /// # Errors
    /// `Closed` when the host has gone.
    pub fn receive_ready(&mut self) -> Result<Option<HostMessage>, ChannelError> {
        self.fill()?;
        self.take()
    }

    /// The next message that has been read already.
    ///
    /// # Errors
    /// When the host breaks the protocol.
    pub fn take(&mut self) -> Result<Option<HostMessage>, ChannelError> {
        match self.waiting.pop_front() {
            Some(message) => Ok(Some(message)),
            None => self.decode(),
        }
    }

    /// Sends a message, waiting for room in the host's window.
    ///
    /// # Errors
    /// `PowerOff` when the host ends the machine instead of making room.
    pub fn send(&mut self, message: &GuestMessage) -> Result<(), ChannelError> {
        let frame = encode(message)?;
        while !self.window.has_room(frame.len()) {
            match self.decode()? {
                Some(HostMessage::PowerOff) => return Err(ChannelError::PowerOff),
                Some(_) if self.waiting.len() >= WAITING_MAX => return Err(ChannelError::Flood),
                Some(message) => self.waiting.push_back(message),
                // acknowledgements may just have made the room
                None if self.window.has_room(frame.len()) => {}
                None => self.fill()?,
            }
        }
        self.window.sent(frame.len());
        self.stream.write_all(&frame)?;
        self.stream.flush()?;
        Ok(())
    }

    fn decode(&mut self) -> Result<Option<HostMessage>, ChannelError> {
        while let Some((message, _)) = self.decoder.next_frame()? {
            self.sequence.take(&message)?;
            match message {
                HostMessage::Ack { bytes } => self.window.acknowledged(bytes)?,
                message => return Ok(Some(message)),
            }
        }
        Ok(None)
    }

    fn fill(&mut self) -> Result<(), ChannelError> {
        match self.stream.read(&mut self.buffer) {
            Ok(0) => Err(ChannelError::Closed),
            Ok(size) => {
                self.decoder.push(&self.buffer[..size]);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Why the conversation is over.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The host has gone.
    #[error("the host has closed the control channel")]
    Closed,
    /// The host wants the machine to end.
    #[error("the host ends the machine")]
    PowerOff,
    /// The stream broke.
    #[error("the control channel broke")]
    Io(#[from] std::io::Error),
    /// What the host sent is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The host said something at the wrong time.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The host acknowledged what was not sent.
    #[error(transparent)]
    Ack(#[from] AckError),
    /// The host says more than there is to say.
    #[error("the host sent more than {WAITING_MAX} messages while its window was full")]
    Flood,
}

impl ChannelError {
    /// Whether the host can still be told what went wrong.
    pub fn is_protocol(&self) -> bool {
        matches!(
            self,
            Self::Frame(_) | Self::Sequence(_) | Self::Ack(_) | Self::Flood
        )
    }
}
