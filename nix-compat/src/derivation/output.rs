//! Outputs of a derivation: their names, and what is known of their paths before the build.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use igloo_status::Code;

use crate::content_address::{ContentAddress, ContentAddressMethod};
use crate::hash::HashAlgo;
use crate::store_path::{
    ComputePathError, StoreDir, StorePath, StorePathName, StoreReferences, output_path_name,
};

/// Bytes in the longest output name.
const NAME_LEN_MAX: usize = 211;

/// Name of an output: 1 to 211 of the characters a store path's name may have. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutputName(Arc<str>);

impl OutputName {
    /// Checks a name.
    ///
    /// # Errors
    /// Empty, too long, or with a character that no store path's name may have.
    pub fn new(name: &str) -> Result<Self, OutputNameError> {
        let wrong = name.bytes().any(|byte| !crate::store_path::is_name_byte(byte));
        if wrong || name.is_empty() || name.len() > NAME_LEN_MAX {
            return Err(OutputNameError {
                name: crate::store_path::printable(name.as_bytes()),
            });
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// For look-ups in maps; both sort alike.
impl Borrow<str> for OutputName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OutputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OutputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl std::str::FromStr for OutputName {
    type Err = OutputNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl TryFrom<&str> for OutputName {
    type Error = OutputNameError;

    fn try_from(name: &str) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

/// A text that cannot name an output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is not an output name: it takes 1 to 211 of 0-9 a-z A-Z + - . _ ? =")]
pub struct OutputNameError {
    /// The text, escaped, and cut to 256 bytes.
    pub name: String,
}

impl OutputNameError {
    /// Always `InvalidArgument`: the text itself is wrong.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// What a derivation says of one output's path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DerivationOutput {
    /// The path follows from the derivation.
    InputAddressed {
        /// The path.
        path: StorePath,
    },
    /// Fixed output: the content is known beforehand, and the path follows from it.
    CaFixed {
        /// The content's address.
        address: ContentAddress,
    },
    /// Floating: the path follows from whatever the build makes (experimental `ca-derivations`).
    CaFloating {
        /// What will be hashed.
        method: ContentAddressMethod,
        /// How.
        algo: HashAlgo,
    },
    /// Input-addressed, but some input's path is not known before it is built.
    Deferred,
    /// As floating, but made anew each time, and with network (experimental `impure-derivations`).
    Impure {
        /// What will be hashed.
        method: ContentAddressMethod,
        /// How.
        algo: HashAlgo,
    },
}

impl DerivationOutput {
    /// The output's path, where it is known before the build.
    ///
    /// # Errors
    /// `<derivation>-<output>` is no valid name of a store path.
    pub fn path(
        &self,
        dir: &StoreDir,
        derivation: &StorePathName,
        output: &OutputName,
    ) -> Result<Option<StorePath>, ComputePathError> {
        match self {
            Self::InputAddressed { path } => Ok(Some(path.clone())),
            Self::CaFixed { address } => {
                let name = output_path_name(derivation, output)?;
                dir.content_addressed_path(&name, address, &StoreReferences::default())
                    .map(Some)
            }
            Self::CaFloating { .. } | Self::Deferred | Self::Impure { .. } => Ok(None),
        }
    }
}
