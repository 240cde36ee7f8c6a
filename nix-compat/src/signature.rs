//! Ed25519 signatures and keys in Nix's `name:base64` form.
//!
//! Invariants
//! - a key's or signature's name is not empty and has no `:`, line break or other control character;
//! - a secret key never appears in `Debug` output, and is wiped from memory when dropped.
//!
//! Source: Nix 2.36 `src/libutil/signature/local-keys.cc`; the scheme is libsodium's detached signature.

use std::fmt;

use data_encoding::BASE64;
use ed25519_dalek::{SIGNATURE_LENGTH, Signer as _, SigningKey, VerifyingKey};
use igloo_status::Code;

use crate::hash::decode_base64;

/// Bytes in the longest name of a key.
const NAME_LEN_MAX: usize = 255;
/// Characters in the longest base 64 looked at; an Ed25519 signature has 88.
const BASE64_LEN_MAX: usize = 16 * 1024;

/// A signature, and the name of the key it is by.
///
/// Other kinds of signatures than Ed25519 are kept as they are; no key here verifies them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signature {
    key_name: Box<str>,
    bytes: Box<[u8]>,
}

impl Signature {
    /// Reads `name:base64`.
    ///
    /// # Errors
    /// See [`ParseKeyError`].
    pub fn parse(text: &str) -> Result<Self, ParseKeyError> {
        let (key_name, bytes) = parse(text)?;
        Ok(Self {
            key_name: key_name.into(),
            bytes: bytes.into(),
        })
    }

    /// Name of the key.
    pub fn key_name(&self) -> &str {
        &self.key_name
    }

    /// The signature itself: 64 bytes for Ed25519.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, &self.key_name, &self.bytes)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

impl std::str::FromStr for Signature {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// A key that verifies: an entry of `trusted-public-keys`.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: Box<str>,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads `name:base64` of 32 bytes.
    ///
    /// # Errors
    /// See [`ParseKeyError`].
    pub fn parse(text: &str) -> Result<Self, ParseKeyError> {
        let (name, bytes) = parse(text)?;
        let size = bytes.len();
        let bytes = bytes.try_into().map_err(|_| ParseKeyError::Size {
            kind: "public key",
            size,
            expected: 32,
        })?;
        let key =
            VerifyingKey::from_bytes(&bytes).map_err(|_| ParseKeyError::NoKey { kind: "public key" })?;
        Ok(Self {
            name: name.into(),
            key,
        })
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the signature is this key's, by name and by mathematics, for those bytes.
    ///
    /// Strict: weak keys and signatures that others could have made from a good one are refused, as libsodium does.
    pub fn verify(&self, data: &[u8], signature: &Signature) -> bool {
        if *signature.key_name != *self.name {
            return false;
        }
        let bytes: Result<&[u8; SIGNATURE_LENGTH], _> = (*signature.bytes).try_into();
        bytes.is_ok_and(|bytes| {
            self.key
                .verify_strict(data, &ed25519_dalek::Signature::from_bytes(bytes))
                .is_ok()
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, &self.name, self.key.as_bytes())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl std::str::FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// A key that signs.
#[derive(Clone)]
pub struct SecretKey {
    name: Box<str>,
    key: SigningKey,
}

impl SecretKey {
    /// A new key from 32 bytes, which must come from the system's random source and be used for nothing else.
    ///
    /// # Errors
    /// The name is none.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, ParseKeyError> {
        check_name(name)?;
        Ok(Self {
            name: name.into(),
            key: SigningKey::from_bytes(seed),
        })
    }

    /// Reads `name:base64` of 64 bytes: the seed, then the public key.
    ///
    /// # Errors
    /// See [`ParseKeyError`], which says nothing of the key itself.
    pub fn parse(text: &str) -> Result<Self, ParseKeyError> {
        let (name, bytes) = parse(text)?;
        let size = bytes.len();
        let bytes = bytes.try_into().map_err(|_| ParseKeyError::Size {
            kind: "secret key",
            size,
            expected: 64,
        })?;
        let key = SigningKey::from_keypair_bytes(&bytes);
        let key = key.map_err(|_| ParseKeyError::NoKey { kind: "secret key" })?;
        Ok(Self {
            name: name.into(),
            key,
        })
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key in Nix's form, for a file that nobody else can read.
    pub fn reveal(&self) -> String {
        format!("{}:{}", self.name, BASE64.encode(&self.key.to_keypair_bytes()))
    }

    /// The key others verify with; it has the same name.
    pub fn public_key(&self) -> PublicKey {
        PublicKey {
            name: self.name.clone(),
            key: self.key.verifying_key(),
        }
    }

    /// Signs bytes; the same bytes always give the same signature.
    pub fn sign(&self, data: &[u8]) -> Signature {
        let bytes = self.key.sign(data).to_bytes();
        Signature {
            key_name: self.name.clone(),
            bytes: bytes.into(),
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl std::str::FromStr for SecretKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

fn print(f: &mut fmt::Formatter<'_>, name: &str, bytes: &[u8]) -> fmt::Result {
    write!(f, "{name}:{}", BASE64.encode_display(bytes))
}

fn parse(text: &str) -> Result<(&str, Vec<u8>), ParseKeyError> {
    let (name, base64) = text.split_once(':').ok_or(ParseKeyError::NoColon)?;
    check_name(name)?;
    if base64.len() > BASE64_LEN_MAX {
        return Err(ParseKeyError::TooLong { length: base64.len() });
    }
    let bytes = decode_base64(base64).map_err(|_| ParseKeyError::Base64)?;
    if bytes.is_empty() {
        Err(ParseKeyError::Base64)
    } else {
        Ok((name, bytes))
    }
}

fn check_name(name: &str) -> Result<(), ParseKeyError> {
    let wrong =
        name.is_empty() || name.len() > NAME_LEN_MAX || name.contains(|c: char| c == ':' || c.is_control());
    if wrong { Err(ParseKeyError::Name) } else { Ok(()) }
}

/// Why a text is no key or signature. The text may be secret, so it is never part of the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// No colon.
    #[error("key or signature is not of the form 'name:base64'")]
    NoColon,
    /// A wrong name.
    #[error("the name of a key must have 1 to 255 bytes, no ':' and no control characters")]
    Name,
    /// What follows the colon is no base 64, or nothing.
    #[error("key or signature is not valid base64")]
    Base64,
    /// More than any signature has.
    #[error("{length} characters of base64 are too many for a key or signature")]
    TooLong {
        /// Characters there are.
        length: usize,
    },
    /// A wrong number of bytes.
    #[error("{kind} is not valid: it has {size} bytes, not {expected}")]
    Size {
        /// What was to be read.
        kind: &'static str,
        /// Bytes there are.
        size: usize,
        /// Bytes there must be.
        expected: usize,
    },
    /// The right number of bytes, but no key.
    #[error("{kind} is not valid: its bytes are no Ed25519 key")]
    NoKey {
        /// What was to be read.
        kind: &'static str,
    },
}

impl ParseKeyError {
    /// Always `InvalidArgument`: the text itself is wrong.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// First test vector of RFC 8032, section 7.1.
    #[test]
    fn known_signature() {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let key = SecretKey::from_seed("k", seed.as_slice().try_into().unwrap()).unwrap();
        let signature = hex("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b");
        assert_eq!(key.sign(b"").bytes(), signature);
    }

    #[test]
    fn secret_stays_secret() {
        let key = SecretKey::from_seed("k", &[7; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "SecretKey { name: \"k\", .. }");
    }

    #[test]
    fn refuses() {
        assert_eq!(Signature::parse("abc"), Err(ParseKeyError::NoColon));
        assert_eq!(Signature::parse(":YWJj"), Err(ParseKeyError::Name));
        assert_eq!(Signature::parse("a\nb:YWJj"), Err(ParseKeyError::Name));
        assert_eq!(Signature::parse("a:"), Err(ParseKeyError::Base64));
        assert_eq!(Signature::parse("a:?"), Err(ParseKeyError::Base64));
        assert!(matches!(
            Signature::parse(&format!("a:{}", "A".repeat(20000))),
            Err(ParseKeyError::TooLong { .. })
        ));
        assert!(matches!(
            PublicKey::parse("a:YWJj"),
            Err(ParseKeyError::Size { size: 3, .. })
        ));
        assert!(matches!(
            SecretKey::parse("a:YWJj"),
            Err(ParseKeyError::Size { size: 3, .. })
        ));
        let mismatched = format!("a:{}", BASE64.encode(&[1; 64]));
        assert!(matches!(
            SecretKey::parse(&mismatched),
            Err(ParseKeyError::NoKey { .. })
        ));
    }

    proptest! {
        #[test]
        fn signs_and_verifies(seed: [u8; 32], other: [u8; 32], data: Vec<u8>, bit in 0usize..512) {
            let secret = SecretKey::from_seed("key-1", &seed).unwrap();
            let public = secret.public_key();
            let signature = secret.sign(&data);
            prop_assert!(public.verify(&data, &signature));
            prop_assert_eq!(&Signature::parse(&signature.to_string()).unwrap(), &signature);
            prop_assert_eq!(&PublicKey::parse(&public.to_string()).unwrap(), &public);
            prop_assert_eq!(SecretKey::parse(&secret.reveal()).unwrap().reveal(), secret.reveal());

            let mut flipped = signature.clone();
            flipped.bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!public.verify(&data, &flipped));
            let mut longer = data.clone();
            longer.push(0);
            prop_assert!(!public.verify(&longer, &signature));
            let renamed = Signature { key_name: "key-2".into(), ..signature };
            prop_assert!(!public.verify(&data, &renamed));
            let stranger = SecretKey::from_seed("key-1", &other).unwrap();
            prop_assert!(other == seed || !public.verify(&data, &stranger.sign(&data)));
        }

        #[test]
        fn any_text_is_answered(text in "[ -~]{0,40}:?[A-Za-z0-9+/=]{0,100}") {
            let _ = (Signature::parse(&text), PublicKey::parse(&text), SecretKey::parse(&text));
        }
    }
}
