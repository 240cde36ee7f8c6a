//! Hashes as Nix names them: algorithm and digest, in every text form Nix reads or writes.
//!
//! Invariants
//! - a [`NixHash`] always has as many bytes as its algorithm gives;
//! - printing is canonical; parsing base 16 takes both cases and parsing base 64 is as lenient as Nix's decoder.
//!
//! Source: Nix 2.36 `src/libutil/hash.cc`. The experimental `blake3` algorithm of Nix 2.27 and later is not here:
//! it is refused as unknown.

mod hasher;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};

pub use hasher::Hasher;
pub use parse::ParseHashError;
pub(crate) use parse::decode_base64;

use crate::nixbase32;

/// A digest together with the algorithm that made it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NixHash {
    /// 16 bytes.
    Md5([u8; 16]),
    /// 20 bytes.
    Sha1([u8; 20]),
    /// 32 bytes.
    Sha256([u8; 32]),
    /// 64 bytes.
    Sha512([u8; 64]),
}

impl NixHash {
    /// Hashes bytes in one go.
    pub fn of(algo: HashAlgo, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algo);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Takes a digest made elsewhere; `None` when its length is not the algorithm's.
    pub fn from_digest(algo: HashAlgo, digest: &[u8]) -> Option<Self> {
        Some(match algo {
            HashAlgo::Md5 => Self::Md5(digest.try_into().ok()?),
            HashAlgo::Sha1 => Self::Sha1(digest.try_into().ok()?),
            HashAlgo::Sha256 => Self::Sha256(digest.try_into().ok()?),
            HashAlgo::Sha512 => Self::Sha512(digest.try_into().ok()?),
        })
    }

    /// The algorithm.
    pub fn algo(&self) -> HashAlgo {
        match self {
            Self::Md5(_) => HashAlgo::Md5,
            Self::Sha1(_) => HashAlgo::Sha1,
            Self::Sha256(_) => HashAlgo::Sha256,
            Self::Sha512(_) => HashAlgo::Sha512,
        }
    }

    /// The digest's bytes.
    pub fn digest(&self) -> &[u8] {
        match self {
            Self::Md5(digest) => digest,
            Self::Sha1(digest) => digest,
            Self::Sha256(digest) => digest,
            Self::Sha512(digest) => digest,
        }
    }

    /// The digest in one of Nix's encodings, without the algorithm (but SRI always names it).
    pub fn encode(&self, format: HashFormat) -> String {
        match format {
            HashFormat::Base16 => HEXLOWER.encode(self.digest()),
            HashFormat::NixBase32 => nixbase32::encode(self.digest()),
            HashFormat::Base64 => BASE64.encode(self.digest()),
            HashFormat::Sri => format!("{}-{}", self.algo(), BASE64.encode(self.digest())),
        }
    }

    /// `algo:digest`; in SRI `algo-digest`.
    pub fn encode_with_algo(&self, format: HashFormat) -> String {
        match format {
            HashFormat::Sri => self.encode(format),
            _ => format!("{}:{}", self.algo(), self.encode(format)),
        }
    }
}

/// SRI, the form current Nix prints in messages.
impl fmt::Display for NixHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.encode(HashFormat::Sri))
    }
}

impl fmt::Debug for NixHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NixHash({self})")
    }
}

/// How a digest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashFormat {
    /// Lower case hexadecimal.
    Base16,
    /// Nix's own base 32, see [`nixbase32`].
    NixBase32,
    /// RFC 4648 base 64 with padding.
    Base64,
    /// `algo-` and base 64, as W3C Subresource Integrity.
    Sri,
}

/// A hash algorithm Nix knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HashAlgo {
    /// MD5; broken, only for old fixed outputs.
    Md5,
    /// SHA-1; broken, only for old fixed outputs.
    Sha1,
    /// SHA-256, the default everywhere.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl HashAlgo {
    /// All of them, weakest first.
    pub const ALL: [Self; 4] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512];

    /// Bytes in a digest.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The name Nix reads and writes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The algorithm with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algo| algo.name() == name)
    }
}

impl fmt::Display for HashAlgo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// SHA-256 of bytes: the hash most formulas here are made of.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}
