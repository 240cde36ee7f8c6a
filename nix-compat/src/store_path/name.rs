//! The name part of a store path.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use igloo_status::Code;

/// Bytes in the longest name; with the hash and a few suffixes it stays below a file name's 255.
pub const NAME_LEN_MAX: usize = 211;

/// A checked name: 1 to 211 of `0-9 a-z A-Z + - . _ ? =`, whose first component between dashes is not `.` or `..`.
///
/// The rule for leading dots is that of Nix 2.34 and later. Nix 2.8 had none (it took `.`, `..` and `.-x`); some versions
/// between refused every leading dot. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePathName(Arc<str>);

impl StorePathName {
    /// Checks a name.
    ///
    /// # Errors
    /// See [`StorePathNameError`].
    pub fn new(name: &str) -> Result<Self, StorePathNameError> {
        check(name.as_bytes())?;
        Ok(Self(name.into()))
    }

    /// Checks a name that may not be UTF-8.
    ///
    /// # Errors
    /// See [`StorePathNameError`].
    pub fn from_bytes(name: &[u8]) -> Result<Self, StorePathNameError> {
        check(name)?;
        // the check lets ASCII through only
        let name = std::str::from_utf8(name).map_err(|error| StorePathNameError::Character {
            index: error.valid_up_to(),
            byte: 0xff,
        })?;
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a byte may stand in a store path's or an output's name.
pub(crate) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte)
}

fn check(name: &[u8]) -> Result<(), StorePathNameError> {
    if name.is_empty() {
        return Err(StorePathNameError::Empty);
    }
    if name.len() > NAME_LEN_MAX {
        return Err(StorePathNameError::TooLong { length: name.len() });
    }
    if let Some(index) = name.iter().position(|&byte| !is_name_byte(byte)) {
        return Err(StorePathNameError::Character {
            index,
            byte: name[index],
        });
    }
    match name.split(|&byte| byte == b'-').next() {
        Some(b".") => Err(StorePathNameError::Dots { component: "." }),
        Some(b"..") => Err(StorePathNameError::Dots { component: ".." }),
        _ => Ok(()),
    }
}

impl Deref for StorePathName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StorePathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StorePathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl std::str::FromStr for StorePathName {
    type Err = StorePathNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl TryFrom<&str> for StorePathName {
    type Error = StorePathNameError;

    fn try_from(name: &str) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

impl TryFrom<String> for StorePathName {
    type Error = StorePathNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

/// Why a text is no name of a store path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorePathNameError {
    /// Nothing there.
    #[error("name must not be empty")]
    Empty,
    /// More than 211 bytes.
    #[error("name of {length} bytes must be no longer than 211 characters")]
    TooLong {
        /// Bytes in the name.
        length: usize,
    },
    /// A byte outside the allowed set.
    #[error(
        "name contains illegal character '{}' at index {index}; allowed are 0-9 a-z A-Z + - . _ ? =",
        byte.escape_ascii()
    )]
    Character {
        /// Index of the byte.
        index: usize,
        /// The byte.
        byte: u8,
    },
    /// `.`, `..`, or one of them followed by a dash.
    #[error("first dash-separated component of the name must not be '{component}'")]
    Dots {
        /// The component.
        component: &'static str,
    },
}

impl StorePathNameError {
    /// Always `InvalidArgument`: the text itself is wrong.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}
