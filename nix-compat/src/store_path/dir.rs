//! The directory of a store, and the absolute paths in it.

use std::fmt;
use std::sync::Arc;

use igloo_status::Code;

use super::{HASH_PART_LEN, ParseStorePathError, StorePath, printable};

/// Bytes in the longest store directory taken.
const DIR_LEN_MAX: usize = 1024;

/// An absolute directory such as `/nix/store`: part of every absolute store path, and hashed into every store path.
///
/// Checked: absolute, canonical, and free of bytes that a derivation could not quote. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StoreDir(Arc<str>);

impl StoreDir {
    /// Checks a store directory.
    ///
    /// # Errors
    /// See [`StoreDirError`].
    pub fn new(dir: &str) -> Result<Self, StoreDirError> {
        let wrong = |rule| StoreDirError {
            dir: printable(dir.as_bytes()),
            rule,
        };
        if dir.len() > DIR_LEN_MAX {
            return Err(wrong("it must not be longer than 1024 bytes"));
        }
        let Some(components) = dir.strip_prefix('/') else {
            return Err(wrong("it must be an absolute path"));
        };
        if components
            .split('/')
            .any(|component| matches!(component, "" | "." | ".."))
        {
            return Err(wrong(
                "it must have no empty, '.' or '..' component and no '/' at its end",
            ));
        }
        if dir
            .bytes()
            .any(|byte| byte.is_ascii_control() || b"\"\\".contains(&byte))
        {
            return Err(wrong("it must have no control character, '\"' or '\\'"));
        }
        Ok(Self(dir.into()))
    }

    /// The directory, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The absolute path of a store path. Cost: one allocation.
    pub fn print(&self, path: &StorePath) -> String {
        let mut out = String::with_capacity(self.0.len() + HASH_PART_LEN + path.name().len() + 2);
        self.print_to(&mut out, path);
        out
    }

    /// Appends the absolute path of a store path.
    pub fn print_to(&self, out: &mut String, path: &StorePath) {
        out.push_str(&self.0);
        out.push('/');
        out.extend(path.hash_part().map(char::from));
        out.push('-');
        out.push_str(path.name());
    }

    /// Prints the absolute path without allocating.
    pub fn display<'a>(&'a self, path: &'a StorePath) -> impl fmt::Display + 'a {
        struct Absolute<'a>(&'a StoreDir, &'a StorePath);
        impl fmt::Display for Absolute<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.0.0, self.1)
            }
        }
        Absolute(self, path)
    }

    /// Reads an absolute store path in its canonical form, exactly `<dir>/<hash>-<name>`.
    ///
    /// # Errors
    /// `OutsideStore` for a path in another directory, `StorePath` for what is no store path.
    pub fn parse(&self, path: &str) -> Result<StorePath, ParseAbsolutePathError> {
        self.parse_bytes(path.as_bytes())
    }

    /// [`StoreDir::parse`] for bytes that may not be UTF-8.
    ///
    /// # Errors
    /// As [`StoreDir::parse`].
    pub fn parse_bytes(&self, path: &[u8]) -> Result<StorePath, ParseAbsolutePathError> {
        let base_name = self.strip(path)?;
        StorePath::parse_bytes(base_name).map_err(|source| ParseAbsolutePathError::StorePath { source })
    }

    /// Splits a path at or inside a store object: `/nix/store/<hash>-x/bin/y` is the store path and `bin/y`.
    ///
    /// The second part has no slash in front and is empty for the object itself. It is not normalised: `.` and `..` in it
    /// are the caller's to resolve or refuse.
    ///
    /// # Errors
    /// As [`StoreDir::parse`].
    pub fn split<'a>(&self, path: &'a [u8]) -> Result<(StorePath, &'a [u8]), ParseAbsolutePathError> {
        let rest = self.strip(path)?;
        let end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        let (base_name, inside) = rest.split_at(end);
        let path = StorePath::parse_bytes(base_name);
        let path = path.map_err(|source| ParseAbsolutePathError::StorePath { source })?;
        let start = inside
            .iter()
            .position(|&byte| byte != b'/')
            .unwrap_or(inside.len());
        Ok((path, &inside[start..]))
    }

    fn strip<'a>(&self, path: &'a [u8]) -> Result<&'a [u8], ParseAbsolutePathError> {
        let rest = path
            .strip_prefix(self.0.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"/"));
        rest.ok_or_else(|| ParseAbsolutePathError::OutsideStore {
            path: printable(path),
            dir: self.clone(),
        })
    }
}

/// `/nix/store`.
impl Default for StoreDir {
    fn default() -> Self {
        Self("/nix/store".into())
    }
}

impl fmt::Display for StoreDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StoreDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreDir({})", self.0)
    }
}

impl std::str::FromStr for StoreDir {
    type Err = StoreDirError;

    fn from_str(dir: &str) -> Result<Self, Self::Err> {
        Self::new(dir)
    }
}

/// Why a text cannot be a store directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{dir}' cannot be a store directory: {rule}")]
pub struct StoreDirError {
    /// The text, escaped, and cut to 256 bytes.
    pub dir: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

impl StoreDirError {
    /// Always `InvalidArgument`: the text itself is wrong.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// Why an absolute path is no store path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAbsolutePathError {
    /// The path is in another directory.
    #[error("path '{path}' is not in the Nix store {dir}")]
    OutsideStore {
        /// The path, escaped, and cut to 256 bytes.
        path: String,
        /// The store's directory.
        dir: StoreDir,
    },
    /// What follows the directory is no store path.
    #[error(transparent)]
    StorePath {
        /// Why.
        source: ParseStorePathError,
    },
}

impl ParseAbsolutePathError {
    /// Always `InvalidArgument`: the text itself is wrong.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}
