//! Content addresses: how a store object's path follows from its contents alone.
//!
//! Invariants
//! - a [`ContentAddress`] of method [`ContentAddressMethod::Text`] has a SHA-256 hash: Nix can make no path from another;
//! - what `Display` prints, `parse` reads back to the same value.
//!
//! Source: Nix 2.36 `src/libstore/content-address.cc`. The experimental `git:` method is refused as unsupported.

use std::fmt;

use igloo_status::Code;

use crate::hash::{HashAlgo, HashFormat, NixHash, ParseHashError};

/// A hash, and what was hashed: the `CA:` field of a narinfo, and the outputs of fixed-output derivations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentAddress {
    method: ContentAddressMethod,
    hash: NixHash,
}

impl ContentAddress {
    /// Puts the two together.
    ///
    /// # Errors
    /// `TextAlgo` for text that is not hashed with SHA-256.
    pub fn new(method: ContentAddressMethod, hash: NixHash) -> Result<Self, ContentAddressError> {
        if method == ContentAddressMethod::Text && hash.algo() != HashAlgo::Sha256 {
            return Err(ContentAddressError::TextAlgo { algo: hash.algo() });
        }
        Ok(Self { method, hash })
    }

    /// What was hashed.
    pub fn method(&self) -> ContentAddressMethod {
        self.method
    }

    /// The hash.
    pub fn hash(&self) -> NixHash {
        self.hash
    }

    /// Reads `fixed:sha256:…`, `fixed:r:sha256:…` or `text:sha256:…`; the digest in any encoding told by its length.
    ///
    /// # Errors
    /// See [`ContentAddressError`].
    pub fn parse(text: &str) -> Result<Self, ContentAddressError> {
        let unknown = || ContentAddressError::Form {
            text: text.chars().take(64).collect(),
        };
        let (prefix, rest) = text.split_once(':').ok_or_else(unknown)?;
        let (method, rest) = match prefix {
            "text" => (ContentAddressMethod::Text, rest),
            "fixed" => match rest.strip_prefix("r:") {
                Some(rest) => (ContentAddressMethod::Recursive, rest),
                None => (ContentAddressMethod::Flat, rest),
            },
            _ => return Err(unknown()),
        };
        if rest.starts_with("git:") {
            return Err(ContentAddressError::Git);
        }
        let (algo, digest) = rest.split_once(':').ok_or_else(unknown)?;
        let algo = HashAlgo::from_name(algo).ok_or_else(unknown)?;
        let hash = NixHash::parse_digest(digest, algo);
        Self::new(
            method,
            hash.map_err(|source| ContentAddressError::Hash { source })?,
        )
    }
}

/// As Nix writes it into narinfo and its database; the digest in nixbase32.
impl fmt::Display for ContentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.method {
            ContentAddressMethod::Flat => "fixed:",
            ContentAddressMethod::Recursive => "fixed:r:",
            ContentAddressMethod::Text => "text:",
        };
        write!(f, "{prefix}{}", self.hash.encode_with_algo(HashFormat::NixBase32))
    }
}

impl std::str::FromStr for ContentAddress {
    type Err = ContentAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// What is hashed to name a content-addressed store object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContentAddressMethod {
    /// The bytes of one file that is not executable; no references.
    Flat,
    /// The NAR of the whole tree; references where the algorithm is SHA-256.
    Recursive,
    /// The bytes of one file, whose references count as part of the content: derivations and `builtins.toFile`.
    Text,
}

impl ContentAddressMethod {
    /// What a derivation writes before the algorithm: `""`, `r:` or `text:`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Flat => "",
            Self::Recursive => "r:",
            Self::Text => "text:",
        }
    }

    /// Reads a derivation output's `[r:|text:]algo`.
    ///
    /// # Errors
    /// An algorithm Nix does not have; the `git:` method.
    pub fn parse_with_algo(text: &str) -> Result<(Self, HashAlgo), ContentAddressError> {
        let (method, name) = if let Some(name) = text.strip_prefix("r:") {
            (Self::Recursive, name)
        } else if let Some(name) = text.strip_prefix("text:") {
            (Self::Text, name)
        } else if text.starts_with("git:") {
            return Err(ContentAddressError::Git);
        } else {
            (Self::Flat, text)
        };
        match HashAlgo::from_name(name) {
            Some(algo) => Ok((method, algo)),
            None => Err(ContentAddressError::Form {
                text: text.chars().take(64).collect(),
            }),
        }
    }
}

/// Why something is not a content address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentAddressError {
    /// Not of a form Nix writes.
    #[error("'{text}' is not a content address; expected 'fixed:[r:]ALGO:HASH' or 'text:sha256:HASH'")]
    Form {
        /// The text, cut to 64 characters.
        text: String,
    },
    /// The digest does not parse.
    #[error("the hash of the content address is wrong")]
    Hash {
        /// Why.
        #[source]
        source: ParseHashError,
    },
    /// Text with another algorithm than SHA-256.
    #[error("text is content-addressed by sha256 only, not by {algo}")]
    TextAlgo {
        /// The algorithm asked for.
        algo: HashAlgo,
    },
    /// The experimental git method.
    #[error("content addressing by git tree hash (experimental feature 'git-hashing') is not supported")]
    Git,
}

impl ContentAddressError {
    /// The class of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Git => Code::Unimplemented,
            _ => Code::InvalidArgument,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let hash = NixHash::of(HashAlgo::Sha256, b"");
        for (text, method) in [
            ("fixed:sha256:", ContentAddressMethod::Flat),
            ("fixed:r:sha256:", ContentAddressMethod::Recursive),
            ("text:sha256:", ContentAddressMethod::Text),
        ] {
            let text = format!("{text}{}", hash.encode(HashFormat::NixBase32));
            let parsed = ContentAddress::parse(&text).unwrap();
            assert_eq!(parsed, ContentAddress::new(method, hash).unwrap());
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn refuses() {
        let parse = |text: &str| ContentAddress::parse(text).unwrap_err();
        assert!(matches!(parse("fixed"), ContentAddressError::Form { .. }));
        assert!(matches!(
            parse("other:sha256:0"),
            ContentAddressError::Form { .. }
        ));
        assert!(matches!(parse("fixed:sha256"), ContentAddressError::Form { .. }));
        assert!(matches!(
            parse("fixed:blake3:0"),
            ContentAddressError::Form { .. }
        ));
        assert!(matches!(parse("fixed:git:sha1:0"), ContentAddressError::Git));
        assert!(matches!(
            parse("fixed:sha256:0"),
            ContentAddressError::Hash { .. }
        ));
        let sha1 = NixHash::of(HashAlgo::Sha1, b"").encode_with_algo(HashFormat::NixBase32);
        assert!(matches!(
            parse(&format!("text:{sha1}")),
            ContentAddressError::TextAlgo { .. }
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "(fixed|text)?:?(r:)?(sha1|sha256)?:?[ -~]{0,70}") {
            if let Ok(ca) = ContentAddress::parse(&text) {
                prop_assert_eq!(ContentAddress::parse(&ca.to_string()), Ok(ca));
            }
            if let Ok((method, algo)) = ContentAddressMethod::parse_with_algo(&text) {
                prop_assert_eq!(format!("{}{}", method.prefix(), algo), text);
            }
        }
    }
}
