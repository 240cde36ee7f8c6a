//! Store paths: the name of one object in a Nix store.
//!
//! Invariants
//! - a [`StorePath`] is 20 bytes of digest and a checked name; it knows no store directory;
//! - store paths sort as their texts do, because Nix hashes sorted lists of them.
//!
//! Source: Nix 2.36 `src/libstore/path.cc`, `doc/manual/source/store/store-path.md`.

mod compute;
mod dir;
mod name;
#[cfg(test)]
pub(crate) mod tests;

use std::cmp::Ordering;
use std::fmt;

use igloo_status::Code;

pub use compute::{ComputePathError, StoreReferences, downstream_placeholder, output_path_name, placeholder};
pub use dir::{ParseAbsolutePathError, StoreDir, StoreDirError};
pub(crate) use name::is_name_byte;
pub use name::{NAME_LEN_MAX, StorePathName, StorePathNameError};

use crate::nixbase32;

/// Bytes of digest in a store path.
pub const DIGEST_LEN: usize = 20;
/// Characters of nixbase32 that a store path starts with.
pub const HASH_PART_LEN: usize = 32;
/// The ending that makes a store path a derivation.
pub const DRV_EXTENSION: &str = ".drv";

/// The last component of `/nix/store/<hash>-<name>`, without the directory.
///
/// Cloning is cheap: the name is shared.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StorePath {
    digest: [u8; DIGEST_LEN],
    name: StorePathName,
}

impl StorePath {
    /// Puts the two parts together.
    pub fn new(digest: [u8; DIGEST_LEN], name: StorePathName) -> Self {
        Self { digest, name }
    }

    /// Reads `<hash>-<name>`.
    ///
    /// # Errors
    /// See [`ParseStorePathError`].
    pub fn parse(base_name: &str) -> Result<Self, ParseStorePathError> {
        Self::parse_bytes(base_name.as_bytes())
    }

    /// [`StorePath::parse`] for bytes that may not be UTF-8.
    ///
    /// # Errors
    /// See [`ParseStorePathError`].
    pub fn parse_bytes(base_name: &[u8]) -> Result<Self, ParseStorePathError> {
        let wrong = |reason| ParseStorePathError {
            base_name: printable(base_name),
            reason,
        };
        let Some((hash, rest)) = base_name.split_at_checked(HASH_PART_LEN) else {
            return Err(wrong(StorePathReason::TooShort));
        };
        let Some((b'-', name)) = rest.split_first() else {
            return Err(wrong(StorePathReason::NoDash));
        };
        let digest = nixbase32::decode_20(hash);
        let digest = digest.map_err(|source| wrong(StorePathReason::Hash { source }))?;
        let name = StorePathName::from_bytes(name);
        let name = name.map_err(|source| wrong(StorePathReason::Name { source }))?;
        Ok(Self { digest, name })
    }

    /// The digest, 20 bytes.
    pub fn digest(&self) -> &[u8; DIGEST_LEN] {
        &self.digest
    }

    /// The part after the dash.
    pub fn name(&self) -> &StorePathName {
        &self.name
    }

    /// The digest's 32 characters, which are what a reference scan looks for.
    pub fn hash_part(&self) -> [u8; HASH_PART_LEN] {
        nixbase32::encode_20(&self.digest)
    }

    /// Whether the name ends in `.drv`.
    pub fn is_derivation(&self) -> bool {
        self.name.ends_with(DRV_EXTENSION)
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // digits are ASCII
        f.write_str(std::str::from_utf8(&self.hash_part()).map_err(|_| fmt::Error)?)?;
        f.write_str("-")?;
        f.write_str(&self.name)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorePath({self})")
    }
}

impl Ord for StorePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // the text writes the last byte first
        let digests = self.digest.iter().rev().cmp(other.digest.iter().rev());
        digests.then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for StorePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::str::FromStr for StorePath {
    type Err = ParseStorePathError;

    fn from_str(base_name: &str) -> Result<Self, Self::Err> {
        Self::parse(base_name)
    }
}

impl TryFrom<&str> for StorePath {
    type Error = ParseStorePathError;

    fn try_from(base_name: &str) -> Result<Self, Self::Error> {
        Self::parse(base_name)
    }
}

/// Why a text is not `<hash>-<name>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{base_name}' is not a valid store path")]
pub struct ParseStorePathError {
    /// The text, escaped, and cut to 256 bytes.
    pub base_name: String,
    /// What is wrong with it.
    #[source]
    pub reason: StorePathReason,
}

/// The rule that a text breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorePathReason {
    /// Fewer than 32 characters.
    #[error("it is too short: a store path starts with 32 characters of hash")]
    TooShort,
    /// No dash where one must be.
    #[error("its hash part is not followed by a '-'")]
    NoDash,
    /// The first 32 characters are no digest.
    #[error("its hash part is wrong")]
    Hash {
        /// Why.
        #[source]
        source: nixbase32::DecodeError,
    },
    /// What follows the dash is no name.
    #[error("its name is wrong")]
    Name {
        /// Why.
        #[source]
        source: StorePathNameError,
    },
}

impl ParseStorePathError {
    /// Always `InvalidArgument`: the text itself is wrong.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// Foreign bytes made fit for a message: escaped, and cut to 256 bytes.
pub(crate) fn printable(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(256)].escape_ascii().to_string()
}
