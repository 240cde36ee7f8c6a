//! Reading hashes from text.
//!
//! The digest's encoding is told by its length, except in SRI, which is always base 64.

use data_encoding::HEXLOWER_PERMISSIVE;
use igloo_status::Code;

use super::{HashAlgo, NixHash};
use crate::nixbase32;

/// Longest text looked at: `sha512:` and 128 hexadecimal digits, with room for line breaks in base 64.
const TEXT_LEN_MAX: usize = 512;

impl NixHash {
    /// Reads any form Nix takes where a hash is written: `algo:digest`, `algo-base64`, or the bare digest when the
    /// algorithm is known from elsewhere. If both name it, they must agree.
    ///
    /// # Errors
    /// See [`ParseHashError`]; nothing is guessed.
    ///
    /// Source: `Hash::parseAny`.
    pub fn parse_any(text: &str, algo: Option<HashAlgo>) -> Result<Self, ParseHashError> {
        check_len(text)?;
        let (named, digest, is_sri) = split_algo(text)?;
        let algo = match (named, algo) {
            (Some(named), Some(wanted)) if named != wanted => {
                return Err(ParseHashError::OtherAlgo { named, wanted });
            }
            (Some(algo), _) | (None, Some(algo)) => algo,
            (None, None) => return Err(ParseHashError::NoAlgo { text: text.into() }),
        };
        if is_sri {
            from_base64(digest, algo)
        } else {
            Self::parse_digest(digest, algo)
        }
    }

    /// Reads a hash that names its own algorithm, `algo:digest` or SRI.
    ///
    /// # Errors
    /// See [`ParseHashError`].
    pub fn parse_with_algo(text: &str) -> Result<Self, ParseHashError> {
        Self::parse_any(text, None)
    }

    /// Reads `algo-base64`.
    ///
    /// # Errors
    /// See [`ParseHashError`].
    pub fn parse_sri(text: &str) -> Result<Self, ParseHashError> {
        check_len(text)?;
        let (algo, digest) = text
            .split_once('-')
            .ok_or_else(|| ParseHashError::NoAlgo { text: text.into() })?;
        from_base64(digest, algo_from_name(algo)?)
    }

    /// Reads a bare digest: base 16, nixbase32 or base 64 by its length.
    ///
    /// # Errors
    /// A length that fits none of them, or a wrong character.
    ///
    /// Source: `Hash::parseNonSRIUnprefixed`.
    pub fn parse_digest(digest: &str, algo: HashAlgo) -> Result<Self, ParseHashError> {
        let size = algo.digest_len();
        let length = digest.len();
        if length == size * 2 {
            let bytes = HEXLOWER_PERMISSIVE.decode(digest.as_bytes());
            let bytes = bytes.map_err(|source| ParseHashError::Base16 { source })?;
            sized(algo, &bytes, length)
        } else if length == nixbase32::encoded_len(size) {
            let bytes = nixbase32::decode(digest.as_bytes());
            let bytes = bytes.map_err(|source| ParseHashError::NixBase32 { source })?;
            sized(algo, &bytes, length)
        } else if length == size.div_ceil(3) * 4 {
            from_base64(digest, algo)
        } else {
            Err(ParseHashError::Length { algo, length })
        }
    }
}

impl std::str::FromStr for NixHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_with_algo(text)
    }
}

/// The algorithm if the text names one, the rest, and whether the rest is SRI's base 64.
fn split_algo(text: &str) -> Result<(Option<HashAlgo>, &str, bool), ParseHashError> {
    if let Some((algo, digest)) = text.split_once(':') {
        return Ok((Some(algo_from_name(algo)?), digest, false));
    }
    match text.split_once('-') {
        Some((algo, digest)) => Ok((Some(algo_from_name(algo)?), digest, true)),
        None => Ok((None, text, false)),
    }
}

fn algo_from_name(name: &str) -> Result<HashAlgo, ParseHashError> {
    HashAlgo::from_name(name).ok_or_else(|| ParseHashError::UnknownAlgo { name: name.into() })
}

fn check_len(text: &str) -> Result<(), ParseHashError> {
    if text.len() > TEXT_LEN_MAX {
        return Err(ParseHashError::TooLong { length: text.len() });
    }
    Ok(())
}

fn from_base64(digest: &str, algo: HashAlgo) -> Result<NixHash, ParseHashError> {
    let bytes = decode_base64(digest).map_err(|byte| ParseHashError::Base64 { byte })?;
    sized(algo, &bytes, digest.len())
}

fn sized(algo: HashAlgo, bytes: &[u8], length: usize) -> Result<NixHash, ParseHashError> {
    NixHash::from_digest(algo, bytes).ok_or(ParseHashError::Length { algo, length })
}

/// Base 64 as leniently as Nix decodes it: line feeds are skipped, everything from the first `=` on is ignored, padding
/// may be absent, and bits past the last whole byte may be anything. Fixed-output hashes in the wild rely on it.
///
/// Source: `base64::decode`. The error is the byte that is no digit.
pub(crate) fn decode_base64(text: &str) -> Result<Vec<u8>, u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0u32, 0u32);
    for &byte in text.as_bytes() {
        let digit = match byte {
            b'=' => break,
            b'\n' => continue,
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => return Err(other),
        };
        bits = (bits << 6 | u32::from(digit)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Ok(out)
}

/// Why a text is not a hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseHashError {
    /// Neither the text nor the caller names an algorithm.
    #[error("hash '{text}' does not include a type, nor is the type otherwise known from context")]
    NoAlgo {
        /// The text.
        text: Box<str>,
    },
    /// The named algorithm is none of Nix's.
    #[error("unknown hash algorithm '{name}', expect 'md5', 'sha1', 'sha256', or 'sha512'")]
    UnknownAlgo {
        /// The name.
        name: Box<str>,
    },
    /// The text names another algorithm than the caller asks for.
    #[error("hash is {named}, but should have type '{wanted}'")]
    OtherAlgo {
        /// What the text says.
        named: HashAlgo,
        /// What is needed.
        wanted: HashAlgo,
    },
    /// The length fits no encoding of such a digest.
    #[error("{length} characters are a wrong length for hash algorithm '{algo}'")]
    Length {
        /// The algorithm.
        algo: HashAlgo,
        /// Length of the digest's text, in bytes.
        length: usize,
    },
    /// Longer than any hash; not looked at.
    #[error("{length} characters are too many for a hash")]
    TooLong {
        /// Length of the text, in bytes.
        length: usize,
    },
    /// A wrong character in hexadecimal.
    #[error("invalid base16 hash")]
    Base16 {
        /// Where and what.
        #[source]
        source: data_encoding::DecodeError,
    },
    /// Not nixbase32.
    #[error("invalid nixbase32 hash")]
    NixBase32 {
        /// Where and what.
        #[source]
        source: nixbase32::DecodeError,
    },
    /// A wrong character in base 64.
    #[error("byte {byte:#04x} is not a base64 digit")]
    Base64 {
        /// The byte.
        byte: u8,
    },
}

impl ParseHashError {
    /// Always `InvalidArgument`: the text itself is wrong.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}
