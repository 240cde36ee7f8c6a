//! Store paths from contents: the formulas.
//!
//! Every path is `compress20(sha256("<type>:<inner hash>:<store dir>:<name>"))` and the name; what differs is the type and
//! the inner hash.
//!
//! Source: Nix 2.36 `src/libstore/store-dir-config.cc`, `doc/manual/source/protocols/store-path.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use igloo_status::Code;

use super::{DIGEST_LEN, StoreDir, StorePath, StorePathName, StorePathNameError};
use crate::content_address::{ContentAddress, ContentAddressMethod};
use crate::derivation::OutputName;
use crate::hash::{HashAlgo, HashFormat, NixHash, sha256};
use crate::nixbase32;

/// References of a content-addressed object, of which one to itself cannot be named before its path is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreReferences {
    /// Other store paths.
    pub others: BTreeSet<StorePath>,
    /// Whether the object refers to itself.
    pub to_self: bool,
}

impl StoreReferences {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        !self.to_self && self.others.is_empty()
    }
}

impl StoreDir {
    /// Path of a tree added to the store by the SHA-256 of its NAR: `nix-store --add`, path literals, `builtins.path`.
    pub fn source_path(
        &self,
        name: &StorePathName,
        nar_sha256: &[u8; 32],
        references: &StoreReferences,
    ) -> StorePath {
        let kind = self.kind_with_references("source", references);
        self.make_path(&kind, &NixHash::Sha256(*nar_sha256), name)
    }

    /// Path of a text with references: derivations, `builtins.toFile`. `text_sha256` is the hash of its bytes.
    pub fn text_path(
        &self,
        name: &StorePathName,
        text_sha256: &[u8; 32],
        references: &BTreeSet<StorePath>,
    ) -> StorePath {
        let references = StoreReferences {
            others: references.clone(),
            to_self: false,
        };
        let kind = self.kind_with_references("text", &references);
        self.make_path(&kind, &NixHash::Sha256(*text_sha256), name)
    }

    /// Path of any content-addressed object: fixed outputs, `nix-store --add-fixed`, floating outputs after the build.
    ///
    /// # Errors
    /// References where the method has no place for them: only recursive SHA-256 and text have one, and text cannot
    /// refer to itself.
    pub fn content_addressed_path(
        &self,
        name: &StorePathName,
        content: &ContentAddress,
        references: &StoreReferences,
    ) -> Result<StorePath, ComputePathError> {
        let refused = || ComputePathError::References { name: name.clone() };
        match (content.method(), content.hash()) {
            (ContentAddressMethod::Recursive, NixHash::Sha256(digest)) => {
                Ok(self.source_path(name, &digest, references))
            }
            (ContentAddressMethod::Text, NixHash::Sha256(digest)) if !references.to_self => {
                Ok(self.text_path(name, &digest, &references.others))
            }
            (ContentAddressMethod::Text, _) => Err(refused()),
            _ if !references.is_empty() => Err(refused()),
            (method, hash) => Ok(self.fixed_path(name, method, &hash)),
        }
    }

    /// Path of a derivation's input-addressed output, from the derivation's hash modulo.
    ///
    /// # Errors
    /// `<derivation>-<output>` is too long for a name.
    pub fn output_path(
        &self,
        derivation: &StorePathName,
        output: &OutputName,
        hash_modulo: &[u8; 32],
    ) -> Result<StorePath, ComputePathError> {
        let name = output_path_name(derivation, output)?;
        Ok(self.make_path(&format!("output:{output}"), &NixHash::Sha256(*hash_modulo), &name))
    }

    /// Where a build writes an output whose path follows from its content: a path nothing else can have. `drv_path` is that
    /// of the derivation that is built, after its resolution.
    ///
    /// # Errors
    /// `<derivation>-<output>` is too long for a name.
    ///
    /// Source: Nix 2.36 `makeFallbackPath` (unix/build/derivation-builder.cc).
    pub fn provisional_path(
        &self,
        drv_path: &StorePath,
        derivation: &StorePathName,
        output: &OutputName,
    ) -> Result<StorePath, ComputePathError> {
        let name = output_path_name(derivation, output)?;
        let kind = format!("rewrite:{drv_path}:name:{output}");
        Ok(self.make_path(&kind, &NixHash::Sha256([0; 32]), &name))
    }

    fn fixed_path(&self, name: &StorePathName, method: ContentAddressMethod, hash: &NixHash) -> StorePath {
        let inner = format!(
            "fixed:out:{}{}:",
            method.prefix(),
            hash.encode_with_algo(HashFormat::Base16)
        );
        self.make_path(
            "output:out",
            &NixHash::of(HashAlgo::Sha256, inner.as_bytes()),
            name,
        )
    }

    /// `kind:/nix/store/a:/nix/store/b:self`.
    fn kind_with_references(&self, kind: &str, references: &StoreReferences) -> String {
        let mut out = String::from(kind);
        for path in &references.others {
            out.push(':');
            // writing to a String cannot fail
            let _ = write!(out, "{}", self.display(path));
        }
        if references.to_self {
            out.push_str(":self");
        }
        out
    }

    fn make_path(&self, kind: &str, inner: &NixHash, name: &StorePathName) -> StorePath {
        let inner = inner.encode_with_algo(HashFormat::Base16);
        let text = format!("{kind}:{inner}:{}:{name}", self.as_str());
        StorePath::new(compress(&sha256(text.as_bytes())), name.clone())
    }
}

/// The name of an output's path: the derivation's own for `out`, else `<derivation>-<output>`.
///
/// # Errors
/// The name is too long.
pub fn output_path_name(
    derivation: &StorePathName,
    output: &OutputName,
) -> Result<StorePathName, ComputePathError> {
    if output.as_str() == "out" {
        return Ok(derivation.clone());
    }
    let name = format!("{derivation}-{output}");
    StorePathName::new(&name).map_err(|source| ComputePathError::OutputName { name, source })
}

/// What stands for an output's own path in a derivation that does not know it yet: `/` and 52 digits.
pub fn placeholder(output: &OutputName) -> String {
    placeholder_of(&format!("nix-output:{output}"))
}

/// What stands for the path of a floating output of another derivation until that is built.
///
/// # Errors
/// The output's name is too long, or `derivation` has no name before `.drv`.
///
/// Source: `src/libstore/downstream-placeholder.cc`.
pub fn downstream_placeholder(
    derivation: &StorePath,
    output: &OutputName,
) -> Result<String, ComputePathError> {
    let name = derivation.name().as_str();
    let name = name.strip_suffix(super::DRV_EXTENSION).unwrap_or(name);
    let name = StorePathName::new(name).map_err(|source| ComputePathError::OutputName {
        name: name.into(),
        source,
    })?;
    let name = output_path_name(&name, output)?;
    let hash_part = nixbase32::encode(derivation.digest());
    Ok(placeholder_of(&format!("nix-upstream-output:{hash_part}:{name}")))
}

fn placeholder_of(text: &str) -> String {
    format!("/{}", nixbase32::encode(&sha256(text.as_bytes())))
}

/// Folds a digest to 20 bytes by exclusive or.
fn compress(digest: &[u8; 32]) -> [u8; DIGEST_LEN] {
    let mut out = [0; DIGEST_LEN];
    for (index, byte) in digest.iter().enumerate() {
        out[index % DIGEST_LEN] ^= byte;
    }
    out
}

/// Why no store path can be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComputePathError {
    /// Only recursive SHA-256 content may refer to other store paths.
    #[error("content-addressed object '{name}' is not allowed to refer to other store paths")]
    References {
        /// Name of the object.
        name: StorePathName,
    },
    /// The output's path would have no valid name.
    #[error("output path name '{name}' is not valid")]
    OutputName {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: StorePathNameError,
    },
}

impl ComputePathError {
    /// Always `InvalidArgument`: no path exists for such an input.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}
