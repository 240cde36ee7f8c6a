//! Hashes as text: `hashString`, `hashFile`, `convertHash`, and reading what users write for a hash.
//!
//! The encodings come from `nix-compat`; here are the names, the rules for telling encodings apart, and Nix's wording.
//!
//! Invariants
//! - a hash is accepted exactly when Nix 2.34 without experimental features accepts it (so never BLAKE3);
//! - no error is more than a few bytes longer than the text it quotes.
//!
//! Source: Nix 2.34 `hash.cc`; behaviour recorded in `oracle/hash.tsv` and `oracle/hash_string.tsv`.

use igloo_status::Code;
use nix_compat::hash::{HashAlgo, HashFormat, Hasher, NixHash};

/// `builtins.hashString`: the digest of `text` in lower case hexadecimal.
///
/// # Errors
/// When the algorithm is unknown, or needs a feature.
pub fn hash_string(algo: &str, text: &[u8]) -> Result<String, HashTextError> {
    let mut hasher = TextHasher::new(algo)?;
    hasher.update(text);
    Ok(hasher.finish())
}

/// `builtins.hashFile`, fed piece by piece by whoever reads the file.
pub struct TextHasher(Hasher);

impl TextHasher {
    /// A hasher that has seen nothing.
    ///
    /// # Errors
    /// As [`hash_string`].
    pub fn new(algo: &str) -> Result<Self, HashTextError> {
        Ok(Self(Hasher::new(parse_algo(algo)?)))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes seen, in lower case hexadecimal.
    pub fn finish(self) -> String {
        self.0.finish().encode(HashFormat::Base16)
    }
}

/// `builtins.convertHash`: a hash in any form, printed in the form named; only SRI keeps the algorithm's name.
///
/// # Errors
/// In Nix's order: the algorithm's name, the format's name, the hash.
pub fn convert_hash(hash: &str, algo: Option<&str>, format: &str) -> Result<String, HashTextError> {
    let algo = algo.map(parse_algo).transpose()?;
    let format = parse_format(format)?;
    Ok(parse_any(hash, algo)?.encode(format))
}

/// The algorithm with that name.
///
/// # Errors
/// `UnknownAlgo`, and `FeatureDisabled` for BLAKE3.
pub fn parse_algo(name: &str) -> Result<HashAlgo, HashTextError> {
    if name == "blake3" {
        return Err(HashTextError::FeatureDisabled);
    }
    HashAlgo::from_name(name).ok_or_else(|| HashTextError::UnknownAlgo {
        name: name.to_owned(),
    })
}

/// The format with that name; `base32` is the old name of `nix32`, about which Nix warns.
///
/// # Errors
/// `UnknownFormat`.
pub fn parse_format(name: &str) -> Result<HashFormat, HashTextError> {
    Ok(match name {
        "base16" => HashFormat::Base16,
        "nix32" | "base32" => HashFormat::NixBase32,
        "base64" => HashFormat::Base64,
        "sri" => HashFormat::Sri,
        _ => {
            return Err(HashTextError::UnknownFormat {
                name: name.to_owned(),
            });
        }
    })
}

/// Reads `algo:digest`, `algo-base64`, or, if the algorithm is known, a bare digest told apart by its length.
///
/// # Errors
/// When no algorithm is known, two disagree, or the digest is none.
pub fn parse_any(text: &str, algo: Option<HashAlgo>) -> Result<NixHash, HashTextError> {
    let (named, digest, sri) = split(text)?;
    let algo = match (named, algo) {
        (Some(named), Some(wanted)) if named != wanted => {
            return Err(HashTextError::OtherAlgo {
                text: text.to_owned(),
                wanted: wanted.name(),
            });
        }
        (Some(algo), _) | (None, Some(algo)) => algo,
        (None, None) => {
            return Err(HashTextError::NoAlgo {
                text: text.to_owned(),
            });
        }
    };
    decode(digest, algo, sri)
}

/// Reads `algo:digest` or `algo-base64`.
///
/// # Errors
/// As [`parse_any`], with other words when there is no algorithm.
pub fn parse_any_prefixed(text: &str) -> Result<NixHash, HashTextError> {
    match split(text)? {
        (Some(algo), digest, sri) => decode(digest, algo, sri),
        (None, ..) => Err(HashTextError::NoPrefix {
            text: text.to_owned(),
        }),
    }
}

/// Reads `algo-base64`.
///
/// # Errors
/// `NotSri` without a dash, else as [`parse_any`].
pub fn parse_sri(text: &str) -> Result<NixHash, HashTextError> {
    let Some((algo, digest)) = text.split_once('-') else {
        return Err(HashTextError::NotSri {
            text: text.to_owned(),
        });
    };
    decode(digest, parse_algo(algo)?, true)
}

/// Why a text is no hash. The messages are Nix's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashTextError {
    /// No such algorithm.
    #[error("unknown hash algorithm '{name}', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'")]
    UnknownAlgo {
        /// The name given.
        name: String,
    },
    /// BLAKE3 is behind an experimental feature.
    #[error(
        "experimental Nix feature 'blake3-hashes' is disabled; add '--extra-experimental-features blake3-hashes' to enable it"
    )]
    FeatureDisabled,
    /// No such format.
    #[error("unknown hash format '{name}', expect 'base16', 'base32', 'base64', or 'sri'")]
    UnknownFormat {
        /// The name given.
        name: String,
    },
    /// Neither the text nor the caller names an algorithm.
    #[error("hash '{text}' does not include a type, nor is the type otherwise known from context")]
    NoAlgo {
        /// The text.
        text: String,
    },
    /// The text names no algorithm, and must.
    #[error("hash '{text}' does not include a type")]
    NoPrefix {
        /// The text.
        text: String,
    },
    /// Text and caller name different algorithms.
    #[error("hash '{text}' should have type '{wanted}'")]
    OtherAlgo {
        /// The text.
        text: String,
        /// The caller's algorithm.
        wanted: &'static str,
    },
    /// There is no dash in it.
    #[error("hash '{text}' is not SRI")]
    NotSri {
        /// The text.
        text: String,
    },
    /// The length fits no encoding of such a digest.
    #[error("hash '{digest}' has wrong length for hash algorithm '{algo}'")]
    Length {
        /// The text after the algorithm's name.
        digest: String,
        /// The algorithm.
        algo: &'static str,
    },
    /// The digest cannot be decoded (then `length` is 0), or decodes to another length.
    #[error("invalid {encoding} hash '{digest}', length {length} != expected length {expected}")]
    Digest {
        /// Which encoding its length, or the dash, made it.
        encoding: &'static str,
        /// The text after the algorithm's name.
        digest: String,
        /// How many bytes it stands for.
        length: usize,
        /// How many bytes the algorithm has.
        expected: usize,
    },
}

impl HashTextError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::FeatureDisabled => Code::FailedPrecondition,
            _ => Code::InvalidArgument,
        }
    }
}

/// The algorithm a hash names, the digest after it, and whether a dash (SRI) stood between.
fn split(text: &str) -> Result<(Option<HashAlgo>, &str, bool), HashTextError> {
    if let Some((algo, digest)) = text.split_once(':') {
        return Ok((Some(parse_algo(algo)?), digest, false));
    }
    match text.split_once('-') {
        Some((algo, digest)) => Ok((Some(parse_algo(algo)?), digest, true)),
        None => Ok((None, text, false)),
    }
}

fn decode(digest: &str, algo: HashAlgo, sri: bool) -> Result<NixHash, HashTextError> {
    let size = algo.digest_len();
    let (encoding, length) = if sri {
        ("SRI", base64_len(digest))
    } else if digest.len() == size * 2 {
        ("base16", 0)
    } else if digest.len() == (size * 8).div_ceil(5) {
        let digits = digest
            .bytes()
            .all(|byte| b"0123456789abcdfghijklmnpqrsvwxyz".contains(&byte));
        // All digits are right, so the first one is too large: one byte more than there is room for.
        ("nix32", if digits { size + 1 } else { 0 })
    } else if digest.len() == size.div_ceil(3) * 4 {
        ("Base64", base64_len(digest))
    } else {
        return Err(HashTextError::Length {
            digest: digest.to_owned(),
            algo: algo.name(),
        });
    };
    let parsed = if sri {
        NixHash::parse_sri(&format!("{}-{digest}", algo.name()))
    } else {
        NixHash::parse_digest(digest, algo)
    };
    parsed.map_err(|_| HashTextError::Digest {
        encoding,
        digest: digest.to_owned(),
        length,
        expected: size,
    })
}

/// How many bytes a base 64 text stands for, read as leniently as Nix does: up to the first `=`, line feeds skipped; 0
/// with a wrong digit.
fn base64_len(text: &str) -> usize {
    let digits = || {
        text.bytes()
            .take_while(|&byte| byte != b'=')
            .filter(|&byte| byte != b'\n')
    };
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    if digits().all(good) {
        digits().count() * 6 / 8
    } else {
        0
    }
}

#[cfg(test)]
mod tests;
