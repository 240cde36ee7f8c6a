//! Records of store paths on the wire.
//!
//! Invariants
//! - the entry's name is the store path, `references` and `reference_names` say the same in the same order, and no
//!   reference comes twice;
//! - a content address has as many bytes as its hash; an unknown kind of it is refused, because a record without it would
//!   mean something else.

use std::collections::BTreeSet;

use bytes::Bytes;
use data_encoding::BASE64;
use igloo_castore::node::NodeName;
use igloo_store::PathInfo;
use nix_compat::signature::Signature;
use nix_compat::store_path::{DIGEST_LEN, DRV_EXTENSION};
use nix_compat::{ContentAddress, ContentAddressMethod, HashAlgo, NixHash, StorePath};

use crate::build::{form, order};
use crate::castore::{named, named_entry};
use crate::error::{InField, WireError, WireReason};
use crate::snix::store::v1;
use v1::nar_info::ca::Hash;

impl TryFrom<&PathInfo> for v1::PathInfo {
    type Error = WireError;

    /// Fails for a store path that no directory entry can be named after, which none is.
    fn try_from(info: &PathInfo) -> Result<Self, WireError> {
        let name = NodeName::try_from(info.path.to_string().as_str()).field("entry")?;
        Ok(Self {
            entry: Some(named_entry(&name, &info.node)),
            references: info.references.iter().map(digest_bytes).collect(),
            narinfo: Some(v1::NarInfo {
                nar_size: info.nar_size,
                nar_sha256: Bytes::copy_from_slice(&info.nar_sha256),
                signatures: info.signatures.iter().map(signature_message).collect(),
                reference_names: info.references.iter().map(ToString::to_string).collect(),
                deriver: info.deriver.as_ref().and_then(deriver_message),
                ca: info.content_address.map(ca_message),
            }),
        })
    }
}

fn digest_bytes(path: &StorePath) -> Bytes {
    Bytes::copy_from_slice(path.digest())
}

fn signature_message(signature: &Signature) -> v1::nar_info::Signature {
    v1::nar_info::Signature {
        name: signature.key_name().to_owned(),
        data: Bytes::copy_from_slice(signature.bytes()),
    }
}

/// The wire writes the name without `.drv`, so a deriver that is no derivation cannot be said.
fn deriver_message(path: &StorePath) -> Option<v1::StorePath> {
    let name = path.name().to_string();
    Some(v1::StorePath {
        name: name.strip_suffix(DRV_EXTENSION)?.to_owned(),
        digest: digest_bytes(path),
    })
}

fn ca_message(address: ContentAddress) -> v1::nar_info::Ca {
    let hash = match (address.method(), address.hash().algo()) {
        (ContentAddressMethod::Recursive, HashAlgo::Sha256) => Hash::NarSha256,
        (ContentAddressMethod::Recursive, HashAlgo::Sha1) => Hash::NarSha1,
        (ContentAddressMethod::Recursive, HashAlgo::Sha512) => Hash::NarSha512,
        (ContentAddressMethod::Recursive, HashAlgo::Md5) => Hash::NarMd5,
        (ContentAddressMethod::Text, _) => Hash::TextSha256, // a text has no other
        (ContentAddressMethod::Flat, HashAlgo::Sha1) => Hash::FlatSha1,
        (ContentAddressMethod::Flat, HashAlgo::Md5) => Hash::FlatMd5,
        (ContentAddressMethod::Flat, HashAlgo::Sha256) => Hash::FlatSha256,
        (ContentAddressMethod::Flat, HashAlgo::Sha512) => Hash::FlatSha512,
    };
    v1::nar_info::Ca {
        r#type: hash.into(),
        digest: Bytes::copy_from_slice(address.hash().digest()),
    }
}

impl TryFrom<v1::PathInfo> for PathInfo {
    type Error = WireError;

    fn try_from(message: v1::PathInfo) -> Result<Self, WireError> {
        let (name, node) = named(message.entry.field("entry")?)?;
        let narinfo = message.narinfo.field("narinfo")?;
        let sha256 = WireReason::Form {
            expected: "a SHA-256 digest of 32 bytes",
        };
        let signatures: Result<_, WireError> = narinfo.signatures.iter().map(read_signature).collect();
        Ok(Self {
            path: store_path(name.as_bytes(), "entry")?,
            node,
            nar_size: narinfo.nar_size,
            nar_sha256: narinfo.nar_sha256[..]
                .try_into()
                .map_err(|_| sha256)
                .field("nar_sha256")?,
            references: read_references(&message.references, &narinfo.reference_names)?,
            deriver: narinfo.deriver.as_ref().map(read_deriver).transpose()?,
            signatures: signatures?,
            content_address: narinfo.ca.as_ref().map(read_ca).transpose()?,
        })
    }
}

/// Reads the digest of a store path.
///
/// # Errors
/// Not 20 bytes.
pub fn path_digest(bytes: &[u8], field: &'static str) -> Result<[u8; DIGEST_LEN], WireError> {
    bytes
        .try_into()
        .map_err(|_| form(field, "a store path's digest of 20 bytes"))
}

pub(crate) fn store_path(base_name: &[u8], field: &'static str) -> Result<StorePath, WireError> {
    StorePath::parse_bytes(base_name).field(field)
}

fn read_references(digests: &[Bytes], names: &[String]) -> Result<BTreeSet<StorePath>, WireError> {
    if digests.len() != names.len() {
        return Err(form("reference_names", "as long as `references`"));
    }
    let mut references = BTreeSet::new();
    for (digest, name) in digests.iter().zip(names) {
        let path = store_path(name.as_bytes(), "reference_names")?;
        if digest[..] != path.digest()[..] {
            return Err(form("references", "the digests in `reference_names`"));
        }
        if !references.insert(path) {
            return Err(order("references", name.as_bytes()));
        }
    }
    Ok(references)
}

fn read_deriver(deriver: &v1::StorePath) -> Result<StorePath, WireError> {
    let digest = path_digest(&deriver.digest, "deriver")?;
    let name = format!("{}{DRV_EXTENSION}", deriver.name);
    let name = nix_compat::StorePathName::from_bytes(name.as_bytes());
    let name = name.map_err(|_| form("deriver", "a store path's name without `.drv`"))?;
    Ok(StorePath::new(digest, name))
}

fn read_signature(signature: &v1::nar_info::Signature) -> Result<Signature, WireError> {
    let text = format!("{}:{}", signature.name, BASE64.encode(&signature.data));
    let read = Signature::parse(&text).ok();
    // the name itself may not hold the colon that ends it
    let read = read.filter(|read| read.key_name() == signature.name);
    read.ok_or_else(|| form("signatures", "the name of a key, and 64 bytes"))
}

fn read_ca(ca: &v1::nar_info::Ca) -> Result<ContentAddress, WireError> {
    let unknown = || form("ca", "a content address of a kind this igloo knows");
    let (method, algo) = match Hash::try_from(ca.r#type).map_err(|_| unknown())? {
        Hash::NarSha256 => (ContentAddressMethod::Recursive, HashAlgo::Sha256),
        Hash::NarSha1 => (ContentAddressMethod::Recursive, HashAlgo::Sha1),
        Hash::NarSha512 => (ContentAddressMethod::Recursive, HashAlgo::Sha512),
        Hash::NarMd5 => (ContentAddressMethod::Recursive, HashAlgo::Md5),
        Hash::TextSha256 => (ContentAddressMethod::Text, HashAlgo::Sha256),
        Hash::FlatSha1 => (ContentAddressMethod::Flat, HashAlgo::Sha1),
        Hash::FlatMd5 => (ContentAddressMethod::Flat, HashAlgo::Md5),
        Hash::FlatSha256 => (ContentAddressMethod::Flat, HashAlgo::Sha256),
        Hash::FlatSha512 => (ContentAddressMethod::Flat, HashAlgo::Sha512),
    };
    let hash = NixHash::from_digest(algo, &ca.digest);
    let hash = hash.ok_or_else(|| form("ca", "as many bytes as its hash has"))?;
    ContentAddress::new(method, hash).map_err(|_| unknown())
}

#[cfg(test)]
mod tests;
