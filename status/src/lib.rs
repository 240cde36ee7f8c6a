//! The error codes every part of igloo shares.
//!
//! Named after gRPC's so that no meaning is lost on the wire, but free of gRPC: a library returns its own typed
//! error, and that error's `code()` says which of these classes it belongs to. Codes become errno in `fs/mount`, a gRPC
//! status in `protos/remote`, and an exit code with a hint in `cli`, each in one place.
//!
//! Invariants
//! - the numbers are gRPC's and never change (google/rpc/code.proto);
//! - `Ok` is not here: a code describes a failure.

use std::fmt;

/// The class of a failure: who is at fault and whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Code {
    /// The caller stopped waiting.
    Cancelled = 1,
    /// Nothing more is known.
    Unknown = 2,
    /// The request itself is wrong; repeating it cannot help.
    InvalidArgument = 3,
    /// Time ran out before an answer.
    DeadlineExceeded = 4,
    /// The named thing is not there.
    NotFound = 5,
    /// The thing to be made is there already.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A quota, disk, or memory limit was reached.
    ResourceExhausted = 8,
    /// The system's state does not allow it now; change the state, then repeat.
    FailedPrecondition = 9,
    /// Interrupted by a concurrent change; repeat the whole.
    Aborted = 10,
    /// A position past the end.
    OutOfRange = 11,
    /// This igloo, or this machine, cannot do that.
    Unimplemented = 12,
    /// A bug of ours.
    Internal = 13,
    /// A part does not answer just now; repeating may help.
    Unavailable = 14,
    /// Bytes do not match their digest, or stored data is damaged.
    DataLoss = 15,
    /// Who is asking could not be shown.
    Unauthenticated = 16,
}

impl Code {
    const ALL: [Self; 16] = [
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The number gRPC gives this code.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// The code with that gRPC number; `None` for 0 (OK) and for numbers gRPC does not define.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// The name as it is written in logs and JSON: snake case, stable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
            Self::InvalidArgument => "invalid_argument",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::PermissionDenied => "permission_denied",
            Self::ResourceExhausted => "resource_exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out_of_range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data_loss",
            Self::Unauthenticated => "unauthenticated",
        }
    }

    /// The code an operating system error belongs to; a full disk and an exceeded quota are told apart from the rest.
    pub fn from_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::PermissionDenied,
            ErrorKind::AlreadyExists => Self::AlreadyExists,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::OutOfMemory => {
                Self::ResourceExhausted
            }
            ErrorKind::TimedOut => Self::DeadlineExceeded,
            ErrorKind::InvalidInput | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
                Self::InvalidArgument
            }
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Self::DataLoss,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::BrokenPipe => Self::Unavailable,
            ErrorKind::Unsupported => Self::Unimplemented,
            _ => Self::Unknown,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Aborted | Self::DeadlineExceeded)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code survives the way over the wire, and no other number is taken for one.
    #[test]
    fn numbers_round_trip() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(code));
        }
        for number in [-1, 0, 17, i32::MAX] {
            assert_eq!(Code::from_number(number), None);
        }
    }

    /// A full disk is named as such: users act on it.
    #[test]
    fn full_disk_is_resource_exhausted() {
        let error = std::io::Error::from_raw_os_error(28);
        assert_eq!(Code::from_io(&error), Code::ResourceExhausted);
    }
}
