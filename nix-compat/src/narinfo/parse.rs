//! Reading narinfo.
//!
//! Lines of `Name: value`. Unknown names are skipped, as Nix does. Of names that may stand once only, a second is refused;
//! Nix lets the last win for most, which would let two readers see two things.

use std::collections::BTreeSet;

use igloo_status::Code;

use super::NarInfo;
use crate::content_address::{ContentAddress, ContentAddressError};
use crate::hash::{HashAlgo, NixHash, ParseHashError};
use crate::signature::{ParseKeyError, Signature};
use crate::store_path::{ParseAbsolutePathError, ParseStorePathError, StoreDir, StorePath};

/// Bytes in the largest text looked at.
pub const TEXT_SIZE_MAX: usize = 16 << 20;
/// References at most.
pub const REFERENCE_COUNT_MAX: usize = 100_000;
/// Signatures at most.
pub const SIGNATURE_COUNT_MAX: usize = 1_000;

impl NarInfo {
    /// Reads a `.narinfo` file.
    ///
    /// # Errors
    /// See [`ParseNarInfoError`].
    pub fn parse(dir: &StoreDir, text: &str) -> Result<Self, ParseNarInfoError> {
        let whole = |reason| ParseNarInfoError { line: 0, reason };
        if text.len() > TEXT_SIZE_MAX {
            return Err(whole(ParseNarInfoReason::TooLarge {
                what: "bytes",
                max: TEXT_SIZE_MAX,
            }));
        }
        let mut fields = Fields::default();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            fields.line(dir, line).map_err(|reason| ParseNarInfoError {
                line: index + 1,
                reason,
            })?;
        }
        fields.finish().map_err(whole)
    }
}

#[derive(Default)]
struct Fields {
    store_path: Option<StorePath>,
    url: Option<String>,
    compression: Option<String>,
    file_hash: Option<NixHash>,
    file_size: Option<u64>,
    nar_hash: Option<[u8; 32]>,
    nar_size: Option<u64>,
    references: Option<BTreeSet<StorePath>>,
    /// The inner one is absent for `unknown-deriver`.
    deriver: Option<Option<StorePath>>,
    signatures: Vec<Signature>,
    /// The inner one is absent for an empty field.
    ca: Option<Option<ContentAddress>>,
}

impl Fields {
    fn line(&mut self, dir: &StoreDir, line: &str) -> Result<(), ParseNarInfoReason> {
        use ParseNarInfoReason as Reason;
        let line = line.strip_suffix('\n').ok_or(Reason::NoLineEnd)?;
        let (name, value) = line.split_once(": ").ok_or(Reason::NoColon)?;
        match name {
            "StorePath" => {
                let path = dir.parse(value).map_err(|source| Reason::StorePath { source })?;
                once(&mut self.store_path, "StorePath", path)
            }
            "URL" => once(&mut self.url, "URL", value.into()),
            "Compression" => once(&mut self.compression, "Compression", value.into()),
            "FileHash" => once(&mut self.file_hash, "FileHash", hash("FileHash", value)?),
            "FileSize" => once(&mut self.file_size, "FileSize", number("FileSize", value)?),
            "NarHash" => match hash("NarHash", value)? {
                NixHash::Sha256(digest) => once(&mut self.nar_hash, "NarHash", digest),
                other => Err(Reason::NarHashAlgo { algo: other.algo() }),
            },
            "NarSize" => once(&mut self.nar_size, "NarSize", number("NarSize", value)?),
            "References" => once(&mut self.references, "References", references(value)?),
            "Deriver" if value == "unknown-deriver" => once(&mut self.deriver, "Deriver", None),
            "Deriver" => once(&mut self.deriver, "Deriver", Some(base_name("Deriver", value)?)),
            "Sig" => self.signature(value),
            "CA" if value.is_empty() => once(&mut self.ca, "CA", None),
            "CA" => {
                let ca = ContentAddress::parse(value).map_err(|source| Reason::ContentAddress { source })?;
                once(&mut self.ca, "CA", Some(ca))
            }
            _ => Ok(()),
        }
    }

    fn signature(&mut self, value: &str) -> Result<(), ParseNarInfoReason> {
        let signature = Signature::parse(value);
        let signature = signature.map_err(|source| ParseNarInfoReason::Signature { source })?;
        if self.signatures.len() >= SIGNATURE_COUNT_MAX {
            let max = SIGNATURE_COUNT_MAX;
            return Err(ParseNarInfoReason::TooLarge {
                what: "signatures",
                max,
            });
        }
        // a set to Nix; at most a thousand, so looking through them is cheap
        if !self.signatures.contains(&signature) {
            self.signatures.push(signature);
        }
        Ok(())
    }

    fn finish(self) -> Result<NarInfo, ParseNarInfoReason> {
        let missing = |field| ParseNarInfoReason::Missing { field };
        let not_empty = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(NarInfo {
            store_path: self.store_path.ok_or(missing("StorePath"))?,
            url: not_empty(self.url).ok_or(missing("URL"))?,
            // the first caches had no such field, and all their archives were bzip2
            compression: not_empty(self.compression).unwrap_or_else(|| "bzip2".into()),
            file_hash: self.file_hash,
            file_size: self.file_size.filter(|&size| size != 0),
            nar_hash: self.nar_hash.ok_or(missing("NarHash"))?,
            nar_size: self
                .nar_size
                .filter(|&size| size != 0)
                .ok_or(missing("NarSize"))?,
            references: self.references.unwrap_or_default(),
            deriver: self.deriver.flatten(),
            signatures: self.signatures,
            ca: self.ca.flatten(),
        })
    }
}

fn once<T>(field: &mut Option<T>, name: &'static str, value: T) -> Result<(), ParseNarInfoReason> {
    if field.replace(value).is_some() {
        return Err(ParseNarInfoReason::Extra { field: name });
    }
    Ok(())
}

fn hash(field: &'static str, value: &str) -> Result<NixHash, ParseNarInfoReason> {
    NixHash::parse_with_algo(value).map_err(|source| ParseNarInfoReason::Hash { field, source })
}

/// Decimal digits only: no sign, no space.
fn number(field: &'static str, value: &str) -> Result<u64, ParseNarInfoReason> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or(ParseNarInfoReason::Number { field })
}

fn base_name(field: &'static str, value: &str) -> Result<StorePath, ParseNarInfoReason> {
    StorePath::parse(value).map_err(|source| ParseNarInfoReason::BaseName { field, source })
}

fn references(value: &str) -> Result<BTreeSet<StorePath>, ParseNarInfoReason> {
    let mut paths = BTreeSet::new();
    for (index, word) in value.split(' ').filter(|word| !word.is_empty()).enumerate() {
        if index >= REFERENCE_COUNT_MAX {
            let max = REFERENCE_COUNT_MAX;
            return Err(ParseNarInfoReason::TooLarge {
                what: "references",
                max,
            });
        }
        paths.insert(base_name("References", word)?);
    }
    Ok(paths)
}

/// A text that is no narinfo.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NAR info file is corrupt{}", at_line(*line))]
pub struct ParseNarInfoError {
    /// Line of the text, counted from 1; 0 where it is the whole.
    pub line: usize,
    /// What is wrong.
    #[source]
    pub reason: ParseNarInfoReason,
}

fn at_line(line: usize) -> String {
    if line == 0 {
        String::new()
    } else {
        format!(" at line {line}")
    }
}

/// What is wrong with a line, or with the whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseNarInfoReason {
    /// A line without name.
    #[error("expecting ': ' after the name of the field")]
    NoColon,
    /// The last line has no end: the text is cut.
    #[error("expecting '\\n'")]
    NoLineEnd,
    /// A field that must be there.
    #[error("{field} missing, empty or zero")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field that is there twice.
    #[error("extra {field}")]
    Extra {
        /// Its name.
        field: &'static str,
    },
    /// Too much of something.
    #[error("more than {max} {what}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How much is allowed.
        max: usize,
    },
    /// The store path is none of this store.
    #[error("bad StorePath")]
    StorePath {
        /// Why.
        #[source]
        source: ParseAbsolutePathError,
    },
    /// A reference or deriver is none.
    #[error("bad store path in {field}")]
    BaseName {
        /// Name of the field.
        field: &'static str,
        /// Why.
        #[source]
        source: ParseStorePathError,
    },
    /// A hash is none.
    #[error("bad hash in {field}")]
    Hash {
        /// Name of the field.
        field: &'static str,
        /// Why.
        #[source]
        source: ParseHashError,
    },
    /// The archive is hashed otherwise than by SHA-256.
    #[error("NarHash must be sha256, not {algo}")]
    NarHashAlgo {
        /// What it is.
        algo: HashAlgo,
    },
    /// A size is no number.
    #[error("invalid {field}")]
    Number {
        /// Name of the field.
        field: &'static str,
    },
    /// A signature is none.
    #[error("bad Sig")]
    Signature {
        /// Why.
        #[source]
        source: ParseKeyError,
    },
    /// The content address is none.
    #[error("bad CA")]
    ContentAddress {
        /// Why.
        #[source]
        source: ContentAddressError,
    },
}

impl ParseNarInfoError {
    /// The class of this failure.
    pub fn code(&self) -> Code {
        match &self.reason {
            ParseNarInfoReason::TooLarge { .. } => Code::ResourceExhausted,
            ParseNarInfoReason::ContentAddress { source } => source.code(),
            _ => Code::InvalidArgument,
        }
    }
}
