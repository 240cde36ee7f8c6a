//! Paths inside a build's root.
//!
//! Invariants
//! - relative and clean: no leading, doubled or trailing slash, no `.` or `..`, every part a [`NodeName`];
//! - the empty path is the root itself.

use std::fmt;

use bytes::Bytes;
use igloo_castore::node::{NodeName, ParseNameError};

/// Longest relative path, bytes: leaves room for a root in front of it below PATH_MAX (4096).
pub const PATH_SIZE_MAX: usize = 3072;

/// A clean path relative to a build's root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(Bytes);

impl RelativePath {
    /// The root itself.
    pub const fn root() -> Self {
        Self(Bytes::new())
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts, outermost first; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }

    /// The last part, `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// Whether this is `ancestor` or below it.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self
                .0
                .strip_prefix(ancestor.as_bytes())
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl TryFrom<&[u8]> for RelativePath {
    type Error = ParsePathError;

    fn try_from(bytes: &[u8]) -> Result<Self, ParsePathError> {
        if bytes.len() > PATH_SIZE_MAX {
            return Err(ParsePathError::TooLong { size: bytes.len() });
        }
        if !bytes.is_empty() {
            for part in bytes.split(|byte| *byte == b'/') {
                NodeName::try_from(part).map_err(|source| ParsePathError::Component {
                    path: bytes.escape_ascii().to_string(),
                    source,
                })?;
            }
        }
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }
}

impl TryFrom<&str> for RelativePath {
    type Error = ParsePathError;

    fn try_from(text: &str) -> Result<Self, ParsePathError> {
        Self::try_from(text.as_bytes())
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Why bytes are no path inside a build's root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePathError {
    /// Over [`PATH_SIZE_MAX`] bytes.
    #[error("a path has {size} bytes, more than {PATH_SIZE_MAX}")]
    TooLong {
        /// Bytes given.
        size: usize,
    },
    /// A part is no file name; an absolute path has an empty first part.
    #[error("`{path}` is no clean relative path")]
    Component {
        /// The path, escaped.
        path: String,
        /// What is wrong with the part.
        #[source]
        source: ParseNameError,
    },
}

impl ParsePathError {
    /// Always the sender's fault.
    pub fn code(&self) -> igloo_status::Code {
        igloo_status::Code::InvalidArgument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unclean_paths_are_refused() {
        for path in ["/a", "a/", "a//b", ".", "a/../b", "a/./b", "a\0b"] {
            assert!(
                matches!(
                    RelativePath::try_from(path),
                    Err(ParsePathError::Component { .. })
                ),
                "{path}"
            );
        }
        assert!(matches!(
            RelativePath::try_from("a".repeat(4000).as_str()),
            Err(ParsePathError::TooLong { .. })
        ));
    }

    #[test]
    fn ancestors_end_at_a_slash() {
        let path = |text| RelativePath::try_from(text).unwrap();
        assert!(path("nix/store").starts_with(&path("nix")));
        assert!(path("nix/store").starts_with(&path("nix/store")));
        assert!(path("nix/store").starts_with(&RelativePath::root()));
        assert!(!path("nix/storeroom").starts_with(&path("nix/store")));
        assert_eq!(path("nix/store/x").file_name(), Some(&b"x"[..]));
        assert_eq!(RelativePath::root().components().count(), 0);
    }
}
