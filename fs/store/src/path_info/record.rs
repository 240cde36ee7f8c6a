//! A path info as bytes: what a database keeps under a path's digest.
//!
//! All numbers are little endian, counts and lengths unsigned; `bytes` is a u32 length and that many bytes, a `path` is 20
//! bytes of digest and the name as `bytes`.
//!
//! ```text
//! version u8 = 1 | path | node | nar_size u64 | nar_sha256 32 | references u32 count, then path each
//! | deriver u8 (0, or 1 and path) | signatures u32 count, then bytes each | content address bytes, empty for none
//! node: u8 0 and digest, size u64 | 1 (file) or 2 (executable) and digest, size u64 | 3 (symlink) and bytes
//! ```
//!
//! Invariants
//! - `decode(encode(info)) == info`, and decode takes nothing else: no byte may be left over;
//! - decoding allocates in proportion to the record's length, never to what a count in it claims;
//! - an unknown version is an error that says so.

use std::collections::BTreeSet;

use igloo_castore::digest::Digest;
use igloo_castore::node::{Node, SymlinkTarget};
use igloo_status::Code;
use nix_compat::content_address::ContentAddress;
use nix_compat::signature::Signature;
use nix_compat::store_path::{DIGEST_LEN, StorePath, StorePathName};

use super::PathInfo;

const VERSION: u8 = 1;
const NODE_DIRECTORY: u8 = 0;
const NODE_FILE: u8 = 1;
const NODE_EXECUTABLE: u8 = 2;
const NODE_SYMLINK: u8 = 3;

/// The record of a path info.
pub fn encode(info: &PathInfo) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + info.references.len() * 80);
    out.push(VERSION);
    put_path(&mut out, &info.path);
    put_node(&mut out, &info.node);
    out.extend_from_slice(&info.nar_size.to_le_bytes());
    out.extend_from_slice(&info.nar_sha256);
    put_count(&mut out, info.references.len());
    for reference in &info.references {
        put_path(&mut out, reference);
    }
    out.push(u8::from(info.deriver.is_some()));
    if let Some(deriver) = &info.deriver {
        put_path(&mut out, deriver);
    }
    put_count(&mut out, info.signatures.len());
    for signature in &info.signatures {
        put_bytes(&mut out, signature.to_string().as_bytes());
    }
    let address = info.content_address.map(|address| address.to_string());
    put_bytes(&mut out, address.unwrap_or_default().as_bytes());
    out
}

/// Reads a record.
///
/// # Errors
/// Anything `encode` would not have written.
pub fn decode(record: &[u8]) -> Result<PathInfo, DecodeRecordError> {
    let mut reader = Reader {
        rest: record,
        len: record.len(),
    };
    match reader.byte()? {
        VERSION => {}
        version => return Err(DecodeRecordError::Version { version }),
    }
    let info = PathInfo {
        path: reader.path()?,
        node: reader.node()?,
        nar_size: reader.number()?,
        nar_sha256: *reader.array()?,
        references: reader.references()?,
        deriver: match reader.byte()? {
            0 => None,
            1 => Some(reader.path()?),
            _ => return Err(reader.wrong("deriver")),
        },
        signatures: reader.signatures()?,
        content_address: match reader.text("content address")? {
            "" => None,
            text => match ContentAddress::parse(text) {
                // parsing is more lenient than printing
                Ok(address) if address.to_string() == text => Some(address),
                _ => return Err(reader.wrong("content address")),
            },
        },
    };
    if !reader.rest.is_empty() {
        return Err(reader.wrong("end"));
    }
    Ok(info)
}

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeRecordError {
    /// Written by a newer igloo.
    #[error("it has version {version}, this igloo knows version {VERSION}")]
    Version {
        /// The version.
        version: u8,
    },
    /// Too short.
    #[error("it ends too early")]
    Short,
    /// A field that cannot be right.
    #[error("its {field} before byte {offset} is wrong")]
    Field {
        /// Which.
        field: &'static str,
        /// Where in the record.
        offset: usize,
    },
}

impl DecodeRecordError {
    /// Damaged data, or data of another version.
    pub fn code(&self) -> Code {
        match self {
            Self::Version { .. } => Code::FailedPrecondition,
            Self::Short | Self::Field { .. } => Code::DataLoss,
        }
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    // 2^32 references of 21 bytes would not fit in memory before they got here
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_path(out: &mut Vec<u8>, path: &StorePath) {
    out.extend_from_slice(path.digest());
    put_bytes(out, path.name().as_bytes());
}

fn put_node(out: &mut Vec<u8>, node: &Node) {
    let (kind, digest, size) = match node {
        Node::Directory { digest, size } => (NODE_DIRECTORY, digest.as_bytes(), *size),
        Node::File {
            digest,
            size,
            executable,
        } => {
            let kind = if *executable { NODE_EXECUTABLE } else { NODE_FILE };
            (kind, digest.as_bytes(), *size)
        }
        Node::Symlink { target } => {
            out.push(NODE_SYMLINK);
            put_bytes(out, target.as_bytes());
            return;
        }
    };
    out.push(kind);
    out.extend_from_slice(digest);
    out.extend_from_slice(&size.to_le_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8], DecodeRecordError> {
        let (taken, rest) = self.rest.split_at_checked(size).ok_or(DecodeRecordError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeRecordError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeRecordError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeRecordError> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn number(&mut self) -> Result<u64, DecodeRecordError> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn count(&mut self) -> Result<usize, DecodeRecordError> {
        let count = u32::from_le_bytes(*self.array()?);
        usize::try_from(count).map_err(|_| DecodeRecordError::Short)
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeRecordError> {
        let size = self.count()?;
        self.take(size)
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeRecordError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.wrong(field))
    }

    fn path(&mut self) -> Result<StorePath, DecodeRecordError> {
        let digest: &[u8; DIGEST_LEN] = self.array()?;
        let name = StorePathName::from_bytes(self.bytes()?).map_err(|_| self.wrong("store path"))?;
        Ok(StorePath::new(*digest, name))
    }

    fn digest<K>(&mut self) -> Result<Digest<K>, DecodeRecordError> {
        Ok(Digest::from_bytes(*self.array()?))
    }

    fn node(&mut self) -> Result<Node, DecodeRecordError> {
        match self.byte()? {
            NODE_DIRECTORY => Ok(Node::Directory {
                digest: self.digest()?,
                size: self.number()?,
            }),
            kind @ (NODE_FILE | NODE_EXECUTABLE) => Ok(Node::File {
                digest: self.digest()?,
                size: self.number()?,
                executable: kind == NODE_EXECUTABLE,
            }),
            NODE_SYMLINK => {
                let target = SymlinkTarget::try_from(self.bytes()?).map_err(|_| self.wrong("symlink"))?;
                Ok(Node::Symlink { target })
            }
            _ => Err(self.wrong("node")),
        }
    }

    fn references(&mut self) -> Result<BTreeSet<StorePath>, DecodeRecordError> {
        let mut references = BTreeSet::new();
        for _ in 0..self.count()? {
            let path = self.path()?;
            if references.last().is_some_and(|last| *last >= path) {
                return Err(self.wrong("reference"));
            }
            references.insert(path);
        }
        Ok(references)
    }

    fn signatures(&mut self) -> Result<Vec<Signature>, DecodeRecordError> {
        let mut signatures = Vec::new();
        for _ in 0..self.count()? {
            let text = self.text("signature")?;
            match Signature::parse(text) {
                // parsing is more lenient than printing
                Ok(signature) if signature.to_string() == text => signatures.push(signature),
                _ => return Err(self.wrong("signature")),
            }
        }
        Ok(signatures)
    }

    fn wrong(&self, field: &'static str) -> DecodeRecordError {
        DecodeRecordError::Field {
            field,
            offset: self.len - self.rest.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use igloo_castore::digest::BlobDigest;
    use proptest::prelude::*;

    use super::*;

    fn path(seed: u8, name: &str) -> StorePath {
        StorePath::new([seed; DIGEST_LEN], StorePathName::new(name).unwrap())
    }

    fn nodes() -> impl Strategy<Value = Node> {
        prop_oneof![
            (any::<[u8; 32]>(), any::<u64>()).prop_map(|(digest, size)| Node::Directory {
                digest: Digest::from_bytes(digest),
                size
            }),
            (any::<[u8; 32]>(), any::<u64>(), any::<bool>()).prop_map(|(digest, size, executable)| {
                Node::File {
                    digest: BlobDigest::from_bytes(digest),
                    size,
                    executable,
                }
            }),
            "[a-z/\u{e4}]{1,30}".prop_map(|target| Node::Symlink {
                target: SymlinkTarget::try_from(target.as_bytes()).unwrap()
            }),
        ]
    }

    fn infos() -> impl Strategy<Value = PathInfo> {
        let references = prop::collection::btree_set((any::<u8>(), "[a-z]{1,9}"), 0..5);
        let signatures = prop::collection::vec(any::<[u8; 64]>(), 0..3);
        let address = prop::option::of(any::<[u8; 32]>());
        (
            nodes(),
            any::<u64>(),
            any::<[u8; 32]>(),
            references,
            any::<bool>(),
            signatures,
            address,
        )
            .prop_map(
                |(node, nar_size, nar_sha256, references, derived, signatures, address)| PathInfo {
                    path: path(7, "the-path"),
                    node,
                    nar_size,
                    nar_sha256,
                    references: references.iter().map(|(seed, name)| path(*seed, name)).collect(),
                    deriver: derived.then(|| path(9, "the-path.drv")),
                    signatures: signatures
                        .iter()
                        .map(|bytes| {
                            let base64 = nix_compat::hash::NixHash::Sha512(*bytes)
                                .encode(nix_compat::hash::HashFormat::Base64);
                            Signature::parse(&format!("key-1:{base64}")).unwrap()
                        })
                        .collect(),
                    content_address: address.map(|digest| {
                        let hash = nix_compat::hash::NixHash::Sha256(digest);
                        ContentAddress::new(nix_compat::ContentAddressMethod::Recursive, hash).unwrap()
                    }),
                },
            )
    }

    proptest! {
        #[test]
        fn records_round_trip(info in infos()) {
            prop_assert_eq!(decode(&encode(&info)), Ok(info));
        }

        /// Damaged records are answered with an error or with what they now say, never with a panic.
        #[test]
        fn any_bytes_are_answered(info in infos(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut record = encode(&info);
            let at = at.index(record.len());
            record[at] = byte;
            if let Ok(info) = decode(&record) {
                prop_assert_eq!(encode(&info), record.clone());
            }
            record.truncate(cut.index(record.len()));
            prop_assert!(decode(&record).is_err());
        }
    }

    #[test]
    fn a_claimed_count_allocates_nothing() {
        let mut record = vec![VERSION];
        put_path(&mut record, &path(1, "x"));
        record.push(NODE_FILE);
        record.extend([0; 32 + 8 + 8 + 32]);
        record.extend(u32::MAX.to_le_bytes());
        assert_eq!(decode(&record), Err(DecodeRecordError::Short));
        assert_eq!(decode(&[2]), Err(DecodeRecordError::Version { version: 2 }));
        assert_eq!(decode(&[]), Err(DecodeRecordError::Short));
    }
}
