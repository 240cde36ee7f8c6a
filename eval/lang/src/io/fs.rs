//! The world of this machine's files, with a store that only computes paths.
//!
//! Nothing is written: imports and derivations get their paths, as with Nix's `dummy://` store; of a derivation only its
//! links are kept. Builds are refused, and fetches too unless a hash is given: then the path is the one such content has.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use nix_compat::content_address::{ContentAddress, ContentAddressMethod};
use nix_compat::derivation::Derivation;
use nix_compat::hash::{HashAlgo, NixHash, sha256};
use nix_compat::store_path::{StoreDir, StorePath, StorePathName, StoreReferences};

use super::{
    DerivationLinks, EvalIo, FetchRequest, Fetched, FileType, ImportPath, IngestMethod, IoError, Notice,
    hash_tree,
};
use crate::heap::context::ContextElem;

/// Which paths may be read.
#[derive(Clone, Debug, Default)]
pub enum AccessRules {
    /// All.
    #[default]
    All,
    /// Those below one of these prefixes; the text says in which mode the others are forbidden.
    Below(Vec<Vec<u8>>, &'static str),
}

/// Environment variables: asked by name, so that this crate reads none itself.
pub type EnvLookup = Box<dyn Fn(&[u8]) -> Option<Vec<u8>>>;

/// See the module.
pub struct FsIo {
    store_dir: StoreDir,
    rules: AccessRules,
    env: EnvLookup,
    notices: Box<dyn Fn(Notice)>,
    derivations: RefCell<HashMap<StorePath, DerivationLinks>>,
    store_is_on_disk: bool,
}

impl FsIo {
    /// A world that may read everything and hears nothing of the environment.
    #[must_use]
    pub fn new(store_dir: StoreDir) -> Self {
        Self {
            store_dir,
            rules: AccessRules::All,
            env: Box::new(|_| None),
            notices: Box::new(|_| ()),
            derivations: RefCell::default(),
            store_is_on_disk: false,
        }
    }

    /// Restricts what may be read.
    #[must_use]
    pub fn with_rules(mut self, rules: AccessRules) -> Self {
        self.rules = rules;
        self
    }

    /// Answers `getEnv`.
    #[must_use]
    pub fn with_env(mut self, env: EnvLookup) -> Self {
        self.env = env;
        self
    }

    /// Hears traces and warnings.
    #[must_use]
    pub fn with_notices(mut self, notices: Box<dyn Fn(Notice)>) -> Self {
        self.notices = notices;
        self
    }

    fn check(&self, path: &[u8]) -> Result<(), IoError> {
        let AccessRules::Below(prefixes, why) = &self.rules else {
            return Ok(());
        };
        let below = |prefix: &Vec<u8>| {
            path.strip_prefix(prefix.as_slice())
                .is_some_and(|r| r.is_empty() || r.starts_with(b"/") || prefix == b"/")
        };
        if prefixes.iter().any(below) {
            return Ok(());
        }
        Err(IoError::Forbidden {
            path: text(path),
            why,
        })
    }

    fn unavailable<T>(what: impl Into<String>) -> Result<T, IoError> {
        Err(IoError::Unsupported { what: what.into() })
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn native(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

fn system_error(path: &[u8], source: std::io::Error) -> IoError {
    match source.kind() {
        std::io::ErrorKind::NotFound => IoError::NotFound { path: text(path) },
        std::io::ErrorKind::NotADirectory => IoError::WrongType {
            path: text(path),
            wanted: "directory",
        },
        _ => IoError::System {
            path: text(path),
            source,
        },
    }
}

fn kind_of(kind: std::fs::FileType) -> FileType {
    if kind.is_file() {
        FileType::Regular
    } else if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else {
        FileType::Unknown
    }
}

fn store_name(name: &str) -> Result<StorePathName, IoError> {
    StorePathName::new(name).map_err(|e| IoError::Unsupported {
        what: format!("name '{name}' cannot be a store path name: {e}"),
    })
}

fn address(method: ContentAddressMethod, hash: NixHash) -> Result<ContentAddress, IoError> {
    ContentAddress::new(method, hash).map_err(|e| IoError::Unsupported { what: e.to_string() })
}

impl EvalIo for FsIo {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn read_file(&self, path: &[u8]) -> Result<Vec<u8>, IoError> {
        self.check(path)?;
        std::fs::read(native(path)).map_err(|e| match e.kind() {
            std::io::ErrorKind::IsADirectory => IoError::WrongType {
                path: text(path),
                wanted: "regular file",
            },
            _ => system_error(path, e),
        })
    }

    fn file_type(&self, path: &[u8]) -> Result<Option<FileType>, IoError> {
        // Ancestors of allowed paths may be looked at, or nothing below them could be reached.
        if let AccessRules::Below(prefixes, _) = &self.rules
            && !prefixes.iter().any(|p| p.starts_with(path))
        {
            self.check(path)?;
        }
        match std::fs::symlink_metadata(native(path)) {
            Ok(metadata) => Ok(Some(kind_of(metadata.file_type()))),
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(system_error(path, e)),
        }
    }

    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, IoError> {
        let target = std::fs::read_link(native(path)).map_err(|e| system_error(path, e))?;
        Ok(target.into_os_string().into_vec())
    }

    fn read_dir(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>, IoError> {
        self.check(path)?;
        let entries = std::fs::read_dir(native(path)).map_err(|e| system_error(path, e))?;
        let entry = |e: std::io::Result<std::fs::DirEntry>| {
            let e = e.map_err(|e| system_error(path, e))?;
            let kind = e.file_type().map_or(FileType::Unknown, kind_of);
            Ok((e.file_name().into_vec(), kind))
        };
        entries.map(entry).collect()
    }

    fn env(&self, name: &[u8]) -> Option<Vec<u8>> {
        (self.env)(name)
    }

    fn import_path(&self, request: ImportPath<'_>) -> Result<StorePath, IoError> {
        let name = store_name(request.name)?;
        let executable = |path: &[u8]| {
            std::fs::symlink_metadata(native(path)).is_ok_and(|m| m.permissions().mode() & 0o100 != 0)
        };
        let path = match request.method {
            IngestMethod::Nar => match hash_tree(self, &executable, request.path, request.filter)? {
                NixHash::Sha256(digest) => {
                    self.store_dir
                        .source_path(&name, &digest, &StoreReferences::default())
                }
                _ => return Self::unavailable("NAR hashes are SHA-256"),
            },
            IngestMethod::Flat => {
                let hash = NixHash::of(HashAlgo::Sha256, &self.read_file(request.path)?);
                let content = address(ContentAddressMethod::Flat, hash)?;
                self.content_path(&name, &content)?
            }
        };
        if let Some(expected) = request.expected {
            let method = match request.method {
                IngestMethod::Nar => ContentAddressMethod::Recursive,
                IngestMethod::Flat => ContentAddressMethod::Flat,
            };
            if self.content_path(&name, &address(method, *expected)?)? != path {
                let what = format!(
                    "store path mismatch in (possibly filtered) path added from '{}'",
                    text(request.path)
                );
                return Err(IoError::Mismatch { what });
            }
        }
        Ok(path)
    }

    fn add_text(&self, name: &str, text: &[u8], references: &[StorePath]) -> Result<StorePath, IoError> {
        let references = references.iter().cloned().collect();
        Ok(self
            .store_dir
            .text_path(&store_name(name)?, &sha256(text), &references))
    }

    fn write_derivation(
        &self,
        path: &StorePath,
        derivation: Arc<Derivation>,
        _: Vec<u8>,
    ) -> Result<(), IoError> {
        self.derivations
            .borrow_mut()
            .insert(path.clone(), DerivationLinks::of(&derivation));
        Ok(())
    }

    fn read_derivation(&self, path: &StorePath) -> Result<Derivation, IoError> {
        let full = self.store_dir.print(path);
        let bytes = std::fs::read(&full).map_err(|_| IoError::InvalidPath { path: full.clone() })?;
        let name = nix_compat::derivation::derivation_name(path);
        let name = name.map_err(|e| IoError::Mismatch { what: e.to_string() })?;
        Derivation::parse(&self.store_dir, &name, &bytes)
            .map_err(|e| IoError::Mismatch { what: e.to_string() })
    }

    fn derivation_links(&self, path: &StorePath) -> Result<DerivationLinks, IoError> {
        match self.derivations.borrow().get(path) {
            Some(links) => Ok(links.clone()),
            None => Ok(DerivationLinks::of(&self.read_derivation(path)?)),
        }
    }

    fn is_valid_path(&self, path: &StorePath) -> Result<bool, IoError> {
        Ok(self.derivations.borrow().contains_key(path)
            || (self.store_is_on_disk && Path::new(&self.store_dir.print(path)).exists()))
    }

    fn lacks_path(&self, _: &StorePath) -> Result<bool, IoError> {
        Ok(false)
    }

    fn references(&self, path: &StorePath) -> Result<Vec<StorePath>, IoError> {
        if let Some(links) = self.derivations.borrow().get(path) {
            return Ok(links.references.to_vec());
        }
        Err(IoError::InvalidPath {
            path: self.store_dir.print(path),
        })
    }

    fn realise(&self, context: &[ContextElem]) -> Result<Vec<(String, String)>, IoError> {
        for elem in context {
            let path = elem.path();
            let stored = self.store_dir.parse_bytes(path);
            let there =
                stored.is_ok_and(|p| self.derivations.borrow().contains_key(&p)) || native(path).exists();
            if !there {
                return Err(IoError::InvalidPath { path: text(path) });
            }
            if let ContextElem::Built { drv, output } = elem {
                let what = format!(
                    "cannot build '{}^{}': this evaluation has no builder; build it first, or evaluate with a store",
                    text(drv),
                    text(output)
                );
                return Err(IoError::Build { what });
            }
        }
        Ok(Vec::new())
    }

    fn fetch(&self, request: &FetchRequest) -> Result<Fetched, IoError> {
        let (url, name, method, hash) = match request {
            FetchRequest::Url { url, name, sha256 } => (url, name, ContentAddressMethod::Flat, sha256),
            FetchRequest::Tarball { url, name, sha256 } => {
                (url, name, ContentAddressMethod::Recursive, sha256)
            }
            FetchRequest::Tree { .. } => {
                return Self::unavailable(
                    "this evaluation cannot fetch trees; evaluate with a store that fetches",
                );
            }
        };
        let Some(hash) = hash else {
            return Self::unavailable(format!(
                "cannot fetch '{url}': this evaluation has no network; evaluate with a store that fetches, or give its hash"
            ));
        };
        let path = self.content_path(&store_name(name)?, &address(method, *hash)?)?;
        Ok(Fetched {
            path,
            attrs: Vec::new(),
        })
    }

    fn notice(&self, notice: Notice) {
        (self.notices)(notice);
    }
}

impl FsIo {
    fn content_path(&self, name: &StorePathName, content: &ContentAddress) -> Result<StorePath, IoError> {
        let path = self
            .store_dir
            .content_addressed_path(name, content, &StoreReferences::default());
        path.map_err(|e| IoError::Unsupported { what: e.to_string() })
    }

    /// Whether paths below the store directory count as valid when they are on the disk.
    #[must_use]
    pub fn with_store_on_disk(mut self, on_disk: bool) -> Self {
        self.store_is_on_disk = on_disk;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(rules: AccessRules) -> FsIo {
        FsIo::new(StoreDir::new("/nix/store").expect("a store directory")).with_rules(rules)
    }

    #[test]
    fn only_what_the_rules_allow_is_read() {
        let here = env!("CARGO_MANIFEST_DIR");
        let io = world(AccessRules::Below(
            vec![format!("{here}/src").into_bytes()],
            "in restricted mode",
        ));
        let path = |name: &str| format!("{here}{name}").into_bytes();
        assert!(io.read_file(&path("/src/lib.rs")).is_ok());
        assert_eq!(
            io.file_type(&path("")).ok(),
            Some(Some(FileType::Directory)),
            "an ancestor"
        );
        let denied = io.read_file(&path("/Cargo.toml")).expect_err("outside");
        assert_eq!(denied.code(), igloo_status::Code::PermissionDenied);
        assert_eq!(
            denied.to_string(),
            format!("access to absolute path '{here}/Cargo.toml' is forbidden in restricted mode")
        );
        assert!(
            io.read_dir(&path("")).is_err() && io.file_type(&path("/srcs")).is_err(),
            "a prefix ends at a slash"
        );
    }

    #[test]
    fn absent_files_are_not_there() {
        let io = world(AccessRules::All);
        let missing = format!("{}/none", env!("CARGO_MANIFEST_DIR")).into_bytes();
        assert_eq!(io.file_type(&missing).ok(), Some(None));
        assert!(matches!(io.read_file(&missing), Err(IoError::NotFound { .. })));
        let manifest = format!("{}/Cargo.toml", env!("CARGO_MANIFEST_DIR")).into_bytes();
        assert!(matches!(io.read_dir(&manifest), Err(IoError::WrongType { .. })));
    }

    #[test]
    fn imports_have_the_paths_nix_gives_them() {
        // `nix-store --add` of a file "text" with the bytes "hello", not executable.
        let io = crate::io::MemoryIo::new(StoreDir::new("/nix/store").expect("a store directory"));
        let io = io.with_file("/text", b"hello");
        let hash = hash_tree(&io, &|_| false, b"/text", None).expect("hashed");
        assert_eq!(
            hash.encode(nix_compat::hash::HashFormat::Base16),
            "0a430879c266f8b57f4092a0f935cf3facd48bbccde5760d4748ca405171e969"
        );
    }
}
