//! FUSE requests over a byte stream: for guests whose host has no vhost-user.
//!
//! The agent in the guest opens `/dev/fuse` itself, forwards what it reads there as it is, and writes the answers back.
//! Requests and answers carry their size in their first four bytes (struct fuse_in_header and fuse_out_header,
//! linux/fuse.h), little-endian on every machine we serve, so the stream needs no frames of its own.
//!
//! Invariants
//! - a size below a header or above the largest request ends the stream: nothing after it could be trusted;
//! - answers are written whole, one at a time, in the order they are ready;
//! - at most `threads` requests are in memory, each at most [`REQUEST_SIZE_MAX`] bytes.
//!
//! Lock order: `reader` and `writer` are never held together.

use std::io::{self, Read, Write};

use igloo_status::Code;

use crate::server::{FsServer, REPLY_SIZE_MAX, REQUEST_HEADER_SIZE, REQUEST_SIZE_MAX};
use crate::sync::{Mutex, lock};

/// Serves what comes from `reader` to `writer` with `threads` threads until the stream ends, which is no error.
///
/// Blocks the calling thread, which serves too. A peer that stops reading stops the service: give the stream a deadline
/// of its own.
///
/// # Errors
/// When the stream fails or carries nonsense. Requests being served are finished first.
pub fn serve(
    server: &FsServer,
    reader: impl Read + Send,
    writer: impl Write + Send,
    threads: usize,
) -> Result<(), ServeStreamError> {
    let shared = Shared {
        server,
        reader: Mutex::new(Some(reader)),
        writer: Mutex::new(writer),
        failed: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(|| shared.work());
        }
        // a thread of its own for the last as well: marking the caller's as one that may block would outlive the call
        scope.spawn(|| shared.work());
    });
    match lock(&shared.failed).take() {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

struct Shared<'a, R, W> {
    server: &'a FsServer,
    /// None when the stream has ended.
    reader: Mutex<Option<R>>,
    writer: Mutex<W>,
    /// The first error.
    failed: Mutex<Option<ServeStreamError>>,
}

impl<R: Read, W: Write> Shared<'_, R, W> {
    fn work(&self) {
        igloo_castore::blocking::allow_on_this_thread();
        let mut request = Vec::new();
        let mut reply = vec![0; REPLY_SIZE_MAX];
        loop {
            match self.next(&mut request) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.fail(error),
            }
            let size = self.server.serve_buffer(&mut request, &mut reply);
            let Some(answer) = reply.get(..size).filter(|answer| !answer.is_empty()) else {
                continue;
            };
            let mut writer = lock(&self.writer);
            let written = writer.write_all(answer).and_then(|()| writer.flush());
            drop(writer);
            if let Err(source) = written {
                return self.fail(ServeStreamError::Write { source });
            }
        }
    }

    /// Reads one request; false at the end of the stream.
    fn next(&self, request: &mut Vec<u8>) -> Result<bool, ServeStreamError> {
        let mut reader = lock(&self.reader);
        let Some(stream) = &mut *reader else {
            return Ok(false);
        };
        let done = read_request(stream, request);
        if !matches!(done, Ok(true)) {
            *reader = None;
        }
        done
    }

    fn fail(&self, error: ServeStreamError) {
        lock(&self.reader).take();
        lock(&self.failed).get_or_insert(error);
    }
}

fn read_request(stream: &mut impl Read, request: &mut Vec<u8>) -> Result<bool, ServeStreamError> {
    let failed = |source| ServeStreamError::Read { source };
    let mut size = [0; 4];
    loop {
        match stream.read(&mut size[..1]) {
            Ok(0) => return Ok(false),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(failed(source)),
        }
    }
    stream.read_exact(&mut size[1..]).map_err(failed)?;
    let bytes = u32::from_le_bytes(size);
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    if !(REQUEST_HEADER_SIZE..=REQUEST_SIZE_MAX).contains(&length) {
        return Err(ServeStreamError::Size { bytes });
    }
    request.clear();
    request.resize(length, 0);
    let (start, rest) = request.split_at_mut(size.len());
    start.copy_from_slice(&size);
    stream.read_exact(rest).map_err(failed)?;
    Ok(true)
}

/// Why a stream was given up.
#[derive(Debug, thiserror::Error)]
pub enum ServeStreamError {
    /// The peer sent something that is no request.
    #[error("the stream carries a request of {bytes} bytes; it is out of step, start the machine anew")]
    Size {
        /// The size in its header.
        bytes: u32,
    },
    /// It cannot be read, or ended within a request.
    #[error("the stream of file system requests broke off")]
    Read {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The peer takes no more answers.
    #[error("an answer cannot be sent to the stream's other end")]
    Write {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl ServeStreamError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Size { .. } => Code::DataLoss,
            Self::Read { source } | Self::Write { source } => Code::from_io(source),
        }
    }
}

#[cfg(test)]
mod tests;
