//! narinfo: what a binary cache says of one store path.
//!
//! Invariants
//! - a [`NarInfo`] prints as Nix prints it, line by line; signatures keep the order they were read in;
//! - what cannot be told apart from a line's end is in no field.
//!
//! Source: Nix 2.36 `src/libstore/nar-info.cc`, `path-info.cc`; agreed upon by 2.8.

mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Write as _;

pub use parse::{
    ParseNarInfoError, ParseNarInfoReason, REFERENCE_COUNT_MAX, SIGNATURE_COUNT_MAX, TEXT_SIZE_MAX,
};

use crate::content_address::ContentAddress;
use crate::hash::{HashFormat, NixHash};
use crate::signature::Signature;
use crate::store_path::{StoreDir, StorePath};

/// One `.narinfo` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NarInfo {
    /// The store path.
    pub store_path: StorePath,
    /// Where the archive is, relative to the cache; not empty.
    pub url: String,
    /// How the archive is compressed: `none`, `xz`, `zstd`, …; not empty.
    pub compression: String,
    /// Hash of the compressed archive.
    pub file_hash: Option<NixHash>,
    /// Bytes in the compressed archive; never 0.
    pub file_size: Option<u64>,
    /// SHA-256 of the archive.
    pub nar_hash: [u8; 32],
    /// Bytes in the archive; not 0.
    pub nar_size: u64,
    /// Store paths that the contents name, maybe the path itself among them.
    pub references: BTreeSet<StorePath>,
    /// Derivation it was built by.
    pub deriver: Option<StorePath>,
    /// Signatures of [`NarInfo::fingerprint`].
    pub signatures: Vec<Signature>,
    /// Where the path follows from the contents: how.
    pub ca: Option<ContentAddress>,
}

impl NarInfo {
    /// The file's text as Nix writes it.
    pub fn print(&self, dir: &StoreDir) -> String {
        let mut out = String::with_capacity(512 + 64 * self.references.len());
        let mut line = |name: &str, value: &str| {
            out.push_str(name);
            out.push_str(": ");
            out.push_str(value);
            out.push('\n');
        };
        line("StorePath", &dir.print(&self.store_path));
        line("URL", &self.url);
        line("Compression", &self.compression);
        if let Some(hash) = &self.file_hash {
            line("FileHash", &hash.encode_with_algo(HashFormat::NixBase32));
        }
        if let Some(size) = self.file_size {
            line("FileSize", &size.to_string());
        }
        line(
            "NarHash",
            &NixHash::Sha256(self.nar_hash).encode_with_algo(HashFormat::NixBase32),
        );
        line("NarSize", &self.nar_size.to_string());
        line("References", &join(&self.references));
        if let Some(deriver) = &self.deriver {
            line("Deriver", &deriver.to_string());
        }
        for signature in &self.signatures {
            line("Sig", &signature.to_string());
        }
        if let Some(ca) = &self.ca {
            line("CA", &ca.to_string());
        }
        out
    }

    /// What signatures are made over.
    pub fn fingerprint(&self, dir: &StoreDir) -> String {
        fingerprint(
            dir,
            &self.store_path,
            &self.nar_hash,
            self.nar_size,
            &self.references,
        )
    }
}

/// What a store path's signatures are made over: `1;<path>;sha256:<nixbase32>;<size>;<references>`.
///
/// Source: `ValidPathInfo::fingerprint`. Content addresses, derivers and locations are not signed.
pub fn fingerprint(
    dir: &StoreDir,
    path: &StorePath,
    nar_hash: &[u8; 32],
    nar_size: u64,
    references: &BTreeSet<StorePath>,
) -> String {
    let nar_hash = NixHash::Sha256(*nar_hash).encode_with_algo(HashFormat::NixBase32);
    let mut out = format!("1;{};{nar_hash};{nar_size};", dir.display(path));
    for (index, reference) in references.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        // writing to a String cannot fail
        let _ = write!(out, "{comma}{}", dir.display(reference));
    }
    out
}

fn join(paths: &BTreeSet<StorePath>) -> String {
    let mut out = String::new();
    for (index, path) in paths.iter().enumerate() {
        let space = if index > 0 { " " } else { "" };
        let _ = write!(out, "{space}{path}");
    }
    out
}
