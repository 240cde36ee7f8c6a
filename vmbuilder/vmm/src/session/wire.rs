//! Messages over a stream, with order and flow control.
//!
//! Invariants
//! - [`Wire::receive`] can be dropped at any point and called again: no byte is lost either way;
//! - a message given out has passed its frame's bounds, the guest's window and the sequence;
//! - asking for the next message says that the last one has been dealt with: only then is it acknowledged, so a slow
//!   caller slows the guest down and memory stays within a window.

use std::time::Duration;

use bytes::BytesMut;
use igloo_control::message::{GuestMessage, HostMessage};
use igloo_control::{Decoder, GuestSequence, ReceiveWindow, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};

use super::error::{SessionError, Waiting};

const READ_SIZE: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Wire<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    decoder: Decoder<GuestMessage>,
    sequence: GuestSequence,
    window: ReceiveWindow,
    /// Size of the message the caller is dealing with; 0 when none.
    unacknowledged: usize,
    /// To be written.
    outgoing: BytesMut,
    /// The preface has been queued.
    has_spoken: bool,
    /// The guest listens no more; what it said before can still be read.
    is_deaf: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        let (reader, writer) = split(stream);
        Self {
            reader,
            writer,
            decoder: Decoder::new(),
            sequence: GuestSequence::new(0),
            window: ReceiveWindow::default(),
            unacknowledged: 0,
            outgoing: BytesMut::new(),
            has_spoken: false,
            is_deaf: false,
        }
    }

    /// How many outputs the guest will be asked for.
    pub(super) fn expect_outputs(&mut self, count: u32) {
        self.sequence.set_outputs(count);
    }

    /// The next message.
    pub(super) async fn receive(&mut self, waiting: Waiting) -> Result<GuestMessage, SessionError> {
        self.acknowledge()?;
        loop {
            if let Some((message, size)) = self.decoder.next_frame()? {
                self.window.received(size)?;
                self.sequence.take(&message)?;
                self.unacknowledged = size;
                return Ok(message);
            }
            self.exchange(waiting).await?;
        }
    }

    /// The next message, or an error after `patience`.
    pub(super) async fn receive_within(
        &mut self,
        waiting: Waiting,
        patience: Duration,
    ) -> Result<GuestMessage, SessionError> {
        tokio::time::timeout(patience, self.receive(waiting))
            .await
            .map_err(|_| SessionError::Deadline { waiting, patience })?
    }

    /// Writes a message whole. Waits as long as the guest does not read; the caller has the deadline.
    pub(super) async fn send(&mut self, message: &HostMessage) -> Result<(), SessionError> {
        self.queue(message)?;
        while !self.outgoing.is_empty() {
            let written = self.writer.write_buf(&mut self.outgoing).await;
            self.note_write(&written);
        }
        Ok(())
    }

    fn queue(&mut self, message: &HostMessage) -> Result<(), SessionError> {
        // a machine is given the preface with the first message, when it is certain to listen
        if !std::mem::replace(&mut self.has_spoken, true) {
            self.outgoing.extend_from_slice(&frame::PREFACE);
        }
        let encoded = frame::encode(message).map_err(SessionError::Order)?;
        self.outgoing.extend_from_slice(&encoded);
        Ok(())
    }

    fn acknowledge(&mut self) -> Result<(), SessionError> {
        let size = std::mem::take(&mut self.unacknowledged);
        match self.window.consumed(size) {
            Some(bytes) => self.queue(&HostMessage::Ack { bytes }),
            None => Ok(()),
        }
    }

    /// Reads some, or writes some of what is to be written, whichever is possible first.
    async fn exchange(&mut self, waiting: Waiting) -> Result<(), SessionError> {
        let buffer = self.decoder.buffer_mut();
        buffer.reserve(READ_SIZE);
        tokio::select! {
            read = self.reader.read_buf(buffer) => match read {
                Ok(0) => Err(self.closed(waiting)),
                Ok(_) => Ok(()),
                Err(error) if is_hang_up(&error) => Err(self.closed(waiting)),
                Err(error) => Err(SessionError::Io(error)),
            },
            written = self.writer.write_buf(&mut self.outgoing), if !self.outgoing.is_empty() => {
                self.note_write(&written);
                Ok(())
            }
        }
    }

    fn note_write(&mut self, written: &std::io::Result<usize>) {
        if !matches!(written, Ok(1..)) {
            self.is_deaf = true;
        }
        if self.is_deaf {
            self.outgoing.clear();
        }
    }

    /// The end of the stream: in the middle of a message or not, the machine is gone.
    fn closed(&self, waiting: Waiting) -> SessionError {
        SessionError::Closed { waiting }
    }
}

fn is_hang_up(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}
