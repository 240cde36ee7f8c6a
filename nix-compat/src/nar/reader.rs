//! [`NarParser`] over a reader.

use std::io;

use super::{NarEvent, NarLimits, NarParser, ReadNarError};

/// Bytes asked of the reader at once.
const BUFFER_LEN: usize = 128 * 1024;

/// Reads one archive from a reader that ends with it.
///
/// Buffers by itself: the reader needs no `BufRead`. File data is copied once, into that buffer.
#[derive(Debug)]
pub struct NarReader<R> {
    input: R,
    parser: NarParser,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<R: io::Read> NarReader<R> {
    /// A reader with default limits.
    pub fn new(input: R) -> Self {
        Self::with_limits(input, NarLimits::default())
    }

    /// A reader with other limits.
    pub fn with_limits(input: R, limits: NarLimits) -> Self {
        let buffer = vec![0; BUFFER_LEN].into_boxed_slice();
        Self {
            input,
            parser: NarParser::with_limits(limits),
            buffer,
            start: 0,
            end: 0,
        }
    }

    /// The next event; `None` once the archive is complete and the reader is at its end.
    ///
    /// # Errors
    /// See [`ReadNarError`]; data after the archive is one.
    #[allow(
        clippy::should_implement_trait,
        reason = "lends from its buffer, so it is no Iterator"
    )]
    pub fn next(&mut self) -> Result<Option<NarEvent<'_>>, ReadNarError> {
        let (step, input) = loop {
            let (start, end) = (self.start, self.end);
            let (used, step) = self.parser.step(&self.buffer[start..end])?;
            self.start += used;
            if let Some(step) = step {
                break (step, start..end);
            }
            if self.fill()? == 0 {
                self.parser.finish()?;
                return Ok(None);
            }
        };
        Ok(Some(self.parser.event(step, &self.buffer[input])))
    }

    fn fill(&mut self) -> Result<usize, ReadNarError> {
        loop {
            match self.input.read(&mut self.buffer) {
                Ok(count) => {
                    (self.start, self.end) = (0, count);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ReadNarError::Io {
                        offset: self.parser.offset(),
                        source,
                    });
                }
            }
        }
    }
}
