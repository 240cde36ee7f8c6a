//! What can be wrong with an archive, or with what somebody wants to write as one.

use std::io;

use igloo_status::Code;

use crate::store_path::printable;

/// Bytes that are not an archive, or one past the limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad archive: byte {offset}, at '{path}': {reason}")]
pub struct ParseNarError {
    /// Offset in the archive, in bytes, of what is wrong.
    pub offset: u64,
    /// Path inside the archive of the node being read, escaped; `/` is the root.
    pub path: String,
    /// What is wrong.
    pub reason: ParseNarReason,
}

/// What is wrong at an offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseNarReason {
    /// The first bytes are another format's.
    #[error("input doesn't look like a Nix archive")]
    NotNar,
    /// Other bytes than the format has here.
    #[error("expected {expected}")]
    Expected {
        /// What may stand here.
        expected: &'static str,
    },
    /// Bytes after a string that are not zero.
    #[error("non-zero padding")]
    Padding,
    /// A name that no directory entry may have.
    #[error("NAR contains invalid file name '{name}': {rule}")]
    Name {
        /// The name, escaped, and cut to 256 bytes.
        name: String,
        /// The rule it breaks.
        rule: NameRule,
    },
    /// A name that does not come after the one before it.
    #[error("NAR directory is not sorted: '{name}' follows '{previous}'")]
    NotSorted {
        /// The name, escaped, and cut to 256 bytes.
        name: String,
        /// The one before.
        previous: String,
    },
    /// A symlink target that is no path.
    #[error("NAR contains invalid symlink target: {rule}")]
    Target {
        /// The rule it breaks.
        rule: NameRule,
    },
    /// Too many levels of directories.
    #[error("NAR directory nesting exceeds maximum depth of {max}")]
    TooDeep {
        /// Levels allowed.
        max: usize,
    },
    /// A file says it is larger than allowed.
    #[error("file of {size} bytes is larger than {max} bytes")]
    FileTooLarge {
        /// Size the archive states, in bytes.
        size: u64,
        /// Size allowed, in bytes.
        max: u64,
    },
    /// The archive grows past the size allowed.
    #[error("NAR is larger than {max} bytes")]
    NarTooLarge {
        /// Size allowed, in bytes.
        max: u64,
    },
    /// The input ends before the archive does.
    #[error("input ends inside the archive")]
    Truncated,
    /// The archive ended, the input did not.
    #[error("data after the end of the archive")]
    TrailingData,
    /// An earlier call failed; the parser cannot go on.
    #[error("the parser has failed before")]
    Poisoned,
}

/// The rule a name or target breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameRule {
    /// Empty.
    #[error("it is empty")]
    Empty,
    /// `.` or `..`.
    #[error("it is '.' or '..'")]
    Dots,
    /// Past 255 bytes (name) or 4095 bytes (target).
    #[error("it is too long (names have 255 bytes at most, symlink targets 4095)")]
    TooLong,
    /// A byte that cannot stand there.
    #[error("it contains a NUL byte, or a name contains '/'")]
    SlashOrNul,
}

impl ParseNarError {
    /// `ResourceExhausted` where a limit was hit, `FailedPrecondition` after an earlier failure, else `InvalidArgument`.
    pub fn code(&self) -> Code {
        match self.reason {
            ParseNarReason::TooDeep { .. }
            | ParseNarReason::FileTooLarge { .. }
            | ParseNarReason::NarTooLarge { .. } => Code::ResourceExhausted,
            ParseNarReason::Poisoned => Code::FailedPrecondition,
            _ => Code::InvalidArgument,
        }
    }
}

/// Why an archive could not be read from a reader.
#[derive(Debug, thiserror::Error)]
pub enum ReadNarError {
    /// The bytes are wrong.
    #[error(transparent)]
    Parse(#[from] ParseNarError),
    /// The reader failed.
    #[error("reading the archive failed at byte {offset}")]
    Io {
        /// Bytes read before.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ReadNarError {
    /// The class of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Parse(error) => error.code(),
            Self::Io { source, .. } => Code::from_io(source),
        }
    }
}

/// Why a tree could not be written as an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteNarError {
    /// The writer below failed.
    #[error("writing the archive failed")]
    Io {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name that no directory entry may have.
    #[error("'{name}' cannot be a file name in a NAR: {rule}")]
    Name {
        /// The name, escaped, and cut to 256 bytes.
        name: String,
        /// The rule it breaks.
        rule: NameRule,
    },
    /// Entries must come in ascending byte order, each once.
    #[error("entry '{name}' must come after '{previous}': sort a directory's entries by their bytes first")]
    NotSorted {
        /// The name, escaped, and cut to 256 bytes.
        name: String,
        /// The one before.
        previous: String,
    },
    /// A symlink target that is no path.
    #[error("'{target}' cannot be a symlink target in a NAR: {rule}")]
    Target {
        /// The target, escaped, and cut to 256 bytes.
        target: String,
        /// The rule it breaks.
        rule: NameRule,
    },
    /// Too many levels of directories.
    #[error("'{name}' exceeds maximum NAR directory depth of {max}")]
    TooDeep {
        /// The entry that is too deep, escaped.
        name: String,
        /// Levels allowed.
        max: usize,
    },
    /// More bytes than the file was announced with.
    #[error("{excess} bytes more than the size the file was announced with; it changed while being read?")]
    FileTooLong {
        /// Bytes too many.
        excess: u64,
    },
    /// Something else was begun or ended before all bytes of a file came.
    #[error("{missing} bytes fewer than the size the file was announced with; it changed while being read?")]
    FileTooShort {
        /// Bytes missing.
        missing: u64,
    },
    /// Calls in an order that makes no tree.
    #[error("{call} makes no sense here: {state}")]
    Order {
        /// The call.
        call: &'static str,
        /// What the writer has so far.
        state: &'static str,
    },
}

impl WriteNarError {
    pub(super) fn name(name: &[u8], rule: NameRule) -> Self {
        Self::Name {
            name: printable(name),
            rule,
        }
    }

    /// The class of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Io { source } => Code::from_io(source),
            Self::Name { .. } | Self::Target { .. } | Self::TooDeep { .. } => Code::InvalidArgument,
            Self::FileTooLong { .. } | Self::FileTooShort { .. } => Code::Aborted,
            Self::NotSorted { .. } | Self::Order { .. } => Code::Internal,
        }
    }
}

impl From<io::Error> for WriteNarError {
    fn from(source: io::Error) -> Self {
        Self::Io { source }
    }
}
