//! Writing an archive while walking a tree.
//!
//! Small parts gather in one buffer; file data of [`DIRECT_LEN`] bytes or more goes straight to the writer below.
//!
//! Invariants
//! - `names` holds the last entry's name of each open directory, which is both the path of the current node and what the
//!   next entry must sort after;
//! - nothing is written that [`super::NarParser`] with the same limits would refuse.

use std::io;

use super::format::{
    CLOSE, CONTENTS, DIRECTORY, ENTRY, EXECUTABLE, MAGIC, NAME, NODE, REGULAR, SYMLINK, TARGET, check_name,
    check_target, padding,
};
use super::{NarLimits, WriteNarError};
use crate::store_path::printable;

/// Buffered bytes are handed down when there are that many.
const BUFFER_LEN: usize = 64 * 1024;
/// File data of at least that many bytes is not copied into the buffer.
const DIRECT_LEN: usize = 8 * 1024;

/// Writes one archive. Call `directory`, `file` and `symlink` for the nodes in order, each with its name in the
/// directory around it; the root's name is empty. Then [`NarWriter::finish`].
///
/// ```
/// # use nix_compat::nar::NarWriter;
/// let mut nar = NarWriter::new(Vec::new());
/// nar.directory(b"")?;
/// nar.file(b"greeting", 5, false)?;
/// nar.data(b"hello")?;
/// nar.symlink(b"link", b"greeting")?;
/// nar.end_directory()?;
/// let bytes = nar.finish()?;
/// assert_eq!(bytes.len(), 480);
/// # Ok::<(), nix_compat::nar::WriteNarError>(())
/// ```
#[derive(Debug)]
pub struct NarWriter<W> {
    out: W,
    buffer: Vec<u8>,
    written: u64,
    names: Vec<Vec<u8>>,
    state: State,
    limits: NarLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    InDirectory,
    InFile { missing: u64, padding: usize },
    Done,
}

impl<W: io::Write> NarWriter<W> {
    /// A writer with default limits. Writes nothing yet.
    pub fn new(out: W) -> Self {
        Self::with_limits(out, NarLimits::default())
    }

    /// A writer with other limits; only the depth counts here.
    pub fn with_limits(out: W, limits: NarLimits) -> Self {
        let buffer = MAGIC.to_vec();
        Self {
            out,
            buffer,
            written: 0,
            names: Vec::new(),
            state: State::Start,
            limits,
        }
    }

    /// Begins a directory; its entries follow, then [`NarWriter::end_directory`].
    ///
    /// # Errors
    /// See [`WriteNarError`]; after any error the writer is of no use.
    pub fn directory(&mut self, name: &[u8]) -> Result<(), WriteNarError> {
        self.begin_node("directory", name)?;
        self.put(DIRECTORY);
        self.names.push(Vec::new());
        self.state = State::InDirectory;
        self.flush_if_full()
    }

    /// Ends the directory begun last.
    ///
    /// # Errors
    /// No directory is open, or a file in it is not complete.
    pub fn end_directory(&mut self) -> Result<(), WriteNarError> {
        self.expect_node_place("end_directory")?;
        if self.names.pop().is_none() {
            return Err(WriteNarError::Order {
                call: "end_directory",
                state: "no directory is open",
            });
        }
        self.put(CLOSE);
        self.end_node();
        self.flush_if_full()
    }

    /// Begins a file of `size` bytes, which must follow through [`NarWriter::data`]; an empty file is complete at once.
    ///
    /// # Errors
    /// See [`WriteNarError`].
    pub fn file(&mut self, name: &[u8], size: u64, executable: bool) -> Result<(), WriteNarError> {
        self.begin_node("file", name)?;
        self.put(REGULAR);
        if executable {
            self.put(EXECUTABLE);
        }
        self.put(CONTENTS);
        self.put(&size.to_le_bytes());
        self.state = State::InFile {
            missing: size,
            padding: padding(size),
        };
        if size == 0 {
            self.end_file()
        } else {
            self.flush_if_full()
        }
    }

    /// Bytes of the file begun last, in any number of calls; the file ends with its last byte.
    ///
    /// # Errors
    /// `FileTooLong` when the file has not that many bytes left.
    pub fn data(&mut self, mut bytes: &[u8]) -> Result<(), WriteNarError> {
        let (missing, padding) = match self.state {
            State::InFile { missing, padding } => (missing, padding),
            _ if bytes.is_empty() => return Ok(()),
            _ => {
                return Err(WriteNarError::FileTooLong {
                    excess: bytes.len() as u64,
                });
            }
        };
        let Some(missing) = missing.checked_sub(bytes.len() as u64) else {
            return Err(WriteNarError::FileTooLong {
                excess: bytes.len() as u64 - missing,
            });
        };
        if bytes.len() >= DIRECT_LEN {
            self.flush_buffer()?;
            self.out.write_all(bytes)?;
            self.written += bytes.len() as u64;
            bytes = &[];
        }
        self.put(bytes);
        self.state = State::InFile { missing, padding };
        if missing == 0 {
            self.end_file()
        } else {
            self.flush_if_full()
        }
    }

    /// Writes a symlink.
    ///
    /// # Errors
    /// See [`WriteNarError`].
    pub fn symlink(&mut self, name: &[u8], target: &[u8]) -> Result<(), WriteNarError> {
        check_target(target).map_err(|rule| WriteNarError::Target {
            target: printable(target),
            rule,
        })?;
        self.begin_node("symlink", name)?;
        self.put(SYMLINK);
        self.put(TARGET);
        self.put_string(target);
        self.put(CLOSE);
        self.end_node();
        self.flush_if_full()
    }

    /// Bytes of archive so far, buffered ones included.
    pub fn size(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Hands down what is buffered and gives the writer back; it is not flushed.
    ///
    /// # Errors
    /// The tree is not complete, or the writer fails.
    pub fn finish(mut self) -> Result<W, WriteNarError> {
        match self.state {
            State::Done => {}
            State::Start => {
                return Err(WriteNarError::Order {
                    call: "finish",
                    state: "nothing was written",
                });
            }
            State::InDirectory => {
                return Err(WriteNarError::Order {
                    call: "finish",
                    state: "a directory is open",
                });
            }
            State::InFile { missing, .. } => return Err(WriteNarError::FileTooShort { missing }),
        }
        self.flush_buffer()?;
        Ok(self.out)
    }

    fn expect_node_place(&self, call: &'static str) -> Result<(), WriteNarError> {
        match self.state {
            State::InFile { missing, .. } => Err(WriteNarError::FileTooShort { missing }),
            State::Done => Err(WriteNarError::Order {
                call,
                state: "the root is complete",
            }),
            State::Start | State::InDirectory => Ok(()),
        }
    }

    fn begin_node(&mut self, call: &'static str, name: &[u8]) -> Result<(), WriteNarError> {
        self.expect_node_place(call)?;
        if self.names.len() >= self.limits.depth_max {
            return Err(WriteNarError::TooDeep {
                name: printable(name),
                max: self.limits.depth_max,
            });
        }
        let Some(previous) = self.names.last_mut() else {
            return if name.is_empty() {
                Ok(())
            } else {
                Err(WriteNarError::Order {
                    call,
                    state: "the root node has no name",
                })
            };
        };
        check_name(name).map_err(|rule| WriteNarError::name(name, rule))?;
        if name <= previous.as_slice() {
            return Err(WriteNarError::NotSorted {
                name: printable(name),
                previous: printable(previous),
            });
        }
        previous.clear();
        previous.extend_from_slice(name);
        self.put(ENTRY);
        self.put(NAME);
        self.put_string(name);
        self.put(NODE);
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), WriteNarError> {
        if let State::InFile { padding, .. } = self.state {
            self.put(&[0; 8][..padding]);
        }
        self.put(CLOSE);
        self.end_node();
        self.flush_if_full()
    }

    /// After a node's own `)`: the entry around it ends too.
    fn end_node(&mut self) {
        if self.names.is_empty() {
            self.state = State::Done;
        } else {
            self.put(CLOSE);
            self.state = State::InDirectory;
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn put_string(&mut self, bytes: &[u8]) {
        let len = bytes.len() as u64;
        self.put(&len.to_le_bytes());
        self.put(bytes);
        self.put(&[0; 8][..padding(len)]);
    }

    fn flush_if_full(&mut self) -> Result<(), WriteNarError> {
        if self.buffer.len() >= BUFFER_LEN {
            self.flush_buffer()
        } else {
            Ok(())
        }
    }

    fn flush_buffer(&mut self) -> Result<(), WriteNarError> {
        self.out.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
