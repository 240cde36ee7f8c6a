//! What a directory can hold: checked names, symlink targets, and nodes.
//!
//! Invariants
//! - a `NodeName` can always be an entry of a POSIX directory: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`;
//! - a `SymlinkTarget` can always be a link's text: 1 to 4095 bytes, no NUL.
//!
//! Names are bytes, not text: file systems do not promise UTF-8.

use std::fmt;

use bytes::Bytes;

use crate::digest::{BlobDigest, DirectoryDigest};

/// Longest name of a directory entry, bytes (NAME_MAX, linux/limits.h).
pub const NAME_SIZE_MAX: usize = 255;
/// Longest symlink target, bytes (PATH_MAX less the NUL, linux/limits.h).
pub const TARGET_SIZE_MAX: usize = 4095;

/// A node of a tree: all a parent must know of its child.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A directory.
    Directory {
        /// Names its canonical encoding.
        digest: DirectoryDigest,
        /// Entries below it, counted as [`crate::directory::Directory::size`] counts them.
        size: u64,
    },
    /// A regular file.
    File {
        /// Names its contents.
        digest: BlobDigest,
        /// Bytes in it.
        size: u64,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// The link's text, never followed by us.
        target: SymlinkTarget,
    },
}

/// The name of a directory entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Bytes);

/// The text of a symbolic link.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymlinkTarget(Bytes);

impl NodeName {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Bytes> for NodeName {
    type Error = ParseNameError;

    fn try_from(bytes: Bytes) -> Result<Self, ParseNameError> {
        check_name(&bytes)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<&[u8]> for NodeName {
    type Error = ParseNameError;

    fn try_from(bytes: &[u8]) -> Result<Self, ParseNameError> {
        check_name(bytes)?;
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }
}

impl TryFrom<&str> for NodeName {
    type Error = ParseNameError;

    fn try_from(text: &str) -> Result<Self, ParseNameError> {
        Self::try_from(text.as_bytes())
    }
}

impl std::borrow::Borrow<[u8]> for NodeName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl SymlinkTarget {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Bytes> for SymlinkTarget {
    type Error = ParseTargetError;

    fn try_from(bytes: Bytes) -> Result<Self, ParseTargetError> {
        check_target(&bytes)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<&[u8]> for SymlinkTarget {
    type Error = ParseTargetError;

    fn try_from(bytes: &[u8]) -> Result<Self, ParseTargetError> {
        check_target(bytes)?;
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Display for SymlinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for SymlinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Why a byte string cannot name a directory entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseNameError {
    /// No bytes.
    #[error("a file name is empty")]
    Empty,
    /// Over 255 bytes.
    #[error("a file name has {size} bytes, more than {NAME_SIZE_MAX}")]
    TooLong {
        /// Bytes given.
        size: usize,
    },
    /// `.` or `..`.
    #[error("a file name is `{name}`, which names no entry of its own")]
    Dot {
        /// The name.
        name: &'static str,
    },
    /// Holds `/` or NUL.
    #[error("the file name `{name}` holds a slash or a NUL byte")]
    Separator {
        /// The name, escaped.
        name: String,
    },
}

/// Why a byte string cannot be a symlink's target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTargetError {
    /// No bytes.
    #[error("a symlink's target is empty")]
    Empty,
    /// Over 4095 bytes.
    #[error("a symlink's target has {size} bytes, more than {TARGET_SIZE_MAX}")]
    TooLong {
        /// Bytes given.
        size: usize,
    },
    /// Holds NUL.
    #[error("the symlink target `{target}` holds a NUL byte")]
    Nul {
        /// The target, escaped.
        target: String,
    },
}

impl ParseNameError {
    /// Always the sender's fault.
    pub fn code(&self) -> igloo_status::Code {
        igloo_status::Code::InvalidArgument
    }
}

impl ParseTargetError {
    /// Always the sender's fault.
    pub fn code(&self) -> igloo_status::Code {
        igloo_status::Code::InvalidArgument
    }
}

fn check_name(bytes: &[u8]) -> Result<(), ParseNameError> {
    match bytes {
        [] => Err(ParseNameError::Empty),
        b"." => Err(ParseNameError::Dot { name: "." }),
        b".." => Err(ParseNameError::Dot { name: ".." }),
        _ if bytes.len() > NAME_SIZE_MAX => Err(ParseNameError::TooLong { size: bytes.len() }),
        _ if bytes.iter().any(|byte| matches!(byte, b'/' | 0)) => Err(ParseNameError::Separator {
            name: bytes.escape_ascii().to_string(),
        }),
        _ => Ok(()),
    }
}

fn check_target(bytes: &[u8]) -> Result<(), ParseTargetError> {
    match bytes {
        [] => Err(ParseTargetError::Empty),
        _ if bytes.len() > TARGET_SIZE_MAX => Err(ParseTargetError::TooLong { size: bytes.len() }),
        _ if bytes.contains(&0) => Err(ParseTargetError::Nul {
            target: bytes.escape_ascii().to_string(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_file_system_cannot_hold_are_refused() {
        assert_eq!(NodeName::try_from(""), Err(ParseNameError::Empty));
        assert_eq!(NodeName::try_from("."), Err(ParseNameError::Dot { name: "." }));
        assert_eq!(NodeName::try_from(".."), Err(ParseNameError::Dot { name: ".." }));
        assert!(matches!(
            NodeName::try_from("a/b"),
            Err(ParseNameError::Separator { .. })
        ));
        assert!(matches!(
            NodeName::try_from("a\0b"),
            Err(ParseNameError::Separator { .. })
        ));
        assert!(NodeName::try_from("a".repeat(255).as_str()).is_ok());
        assert_eq!(
            NodeName::try_from("a".repeat(256).as_str()),
            Err(ParseNameError::TooLong { size: 256 })
        );
    }

    #[test]
    fn names_need_not_be_text() {
        let name = NodeName::try_from(&b"\xff\n..."[..]).unwrap();
        assert_eq!(name.to_string(), "\\xff\\n...");
    }

    #[test]
    fn targets_no_link_can_hold_are_refused() {
        assert_eq!(SymlinkTarget::try_from(&b""[..]), Err(ParseTargetError::Empty));
        assert!(matches!(
            SymlinkTarget::try_from(&b"a\0"[..]),
            Err(ParseTargetError::Nul { .. })
        ));
        assert!(SymlinkTarget::try_from(&[b'a'; 4095][..]).is_ok());
        assert!(matches!(
            SymlinkTarget::try_from(&[b'a'; 4096][..]),
            Err(ParseTargetError::TooLong { .. })
        ));
    }
}
