//! Sources become store paths.
//!
//! A filter is the evaluation's function and runs on its thread: the tree is listed first, asking the filter in the order
//! Nix does, and the entries let through are then ingested on all cores.
//!
//! Invariants
//! - a tree of the machine is read once for each set of entries taken from it, however many names it gets: within one
//!   evaluation it counts as unchanged while its root keeps device, inode, size and times;
//! - a tree that is in the store already is never read to be copied, only to be hashed, and that once.
//!
//! Source: Nix 2.34 `src/libexpr/primops.cc` (`addPath`), `src/libfetchers/fetch-to-store.cc`. As there, the copy of a
//! part of a store object has no references.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use igloo_castore::directory::Directory;
use igloo_castore::ingest::{IngestPathError, PathOptions, ingest_path};
use igloo_castore::node::{Node, NodeName};
use igloo_eval::io::{FileType, ImportPath, IngestMethod, IoError, PathFilter, hash_tree};
use igloo_status::Code;
use igloo_store::nar::{NarDigest, NarObserver, flat_hash, nar_digest};
use igloo_store::{AddError, PathInfo};
use nix_compat::content_address::{ContentAddress, ContentAddressMethod};
use nix_compat::hash::{HashAlgo, NixHash};
use nix_compat::store_path::{StorePath, StorePathName, StoreReferences};

use crate::error::{not_found, store_error, system_error, text};
use crate::files::{kind_of, native};
use crate::store_io::{StoreIo, Writes};
use crate::view::{Place, type_of};

/// Trees taken in during this evaluation.
#[derive(Debug, Default)]
pub(crate) struct ImportMemo {
    trees: HashMap<TreeKey, (Identity, Tree)>,
    nars: HashMap<Node, NarDigest>,
}

/// A path, and the digest of the list of entries taken; `None` when all were.
type TreeKey = (Box<[u8]>, Option<[u8; 32]>);

/// Device, inode, size, and times of change in nanoseconds.
type Identity = (u64, u64, u64, (i64, i64), (i64, i64));

/// A tree in the castore.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) node: Node,
    pub(crate) nar: NarDigest,
}

/// A store path that was made, and the digest of the list of entries a filter let through.
pub(crate) struct Imported {
    pub(crate) path: StorePath,
    pub(crate) accepted: Option<[u8; 32]>,
}

/// The entries a filter let through, relative to the root.
struct Accepted {
    entries: HashSet<Vec<u8>>,
    digest: [u8; 32],
}

impl StoreIo {
    pub(crate) fn import(&self, request: ImportPath<'_>) -> Result<Imported, IoError> {
        let name = store_name(request.name)?;
        let method = match request.method {
            IngestMethod::Nar => ContentAddressMethod::Recursive,
            IngestMethod::Flat => ContentAddressMethod::Flat,
        };
        let expected = match request.expected {
            Some(hash) => Some(self.content_path(&name, &address(method, *hash)?)?),
            None => None,
        };
        if let Some(expected) = &expected
            && self.is_ours(expected)?
        {
            self.access.allow(expected);
            return Ok(Imported {
                path: expected.clone(),
                accepted: None,
            });
        }
        let (path, accepted) = match request.method {
            _ if self.writes == Writes::Computed => {
                let path = self.computed_path(&name, method, request.path, request.filter)?;
                self.access.allow(&path);
                (path, None)
            }
            IngestMethod::Nar => {
                let (tree, accepted) = self.tree_at(request.path, request.filter)?;
                let hash = NixHash::Sha256(tree.nar.sha256);
                (self.add_tree(&name, tree, method, hash)?, accepted)
            }
            IngestMethod::Flat => (self.import_flat(&name, request.path)?, None),
        };
        if expected.is_some_and(|expected| expected != path) {
            return Err(IoError::Mismatch {
                what: format!(
                    "store path mismatch in (possibly filtered) path added from '{}'",
                    text(request.path)
                ),
            });
        }
        Ok(Imported { path, accepted })
    }

    /// The path a file or tree would get.
    fn computed_path(
        &self,
        name: &StorePathName,
        method: ContentAddressMethod,
        path: &[u8],
        filter: Option<&mut PathFilter<'_>>,
    ) -> Result<StorePath, IoError> {
        let hash = match method {
            ContentAddressMethod::Recursive => {
                hash_tree(self, &|entry| self.is_executable(entry), path, filter)?
            }
            _ => NixHash::of(HashAlgo::Sha256, &self.read_file_at(path)?),
        };
        self.content_path(name, &address(method, hash)?)
    }

    fn is_executable(&self, path: &[u8]) -> bool {
        match self.view.resolve(path, false) {
            Ok(Place::Stored(Node::File { executable, .. })) => executable,
            Ok(Place::Host(host)) => {
                std::fs::symlink_metadata(native(&host)).is_ok_and(|metadata| metadata.mode() & 0o100 != 0)
            }
            _ => false,
        }
    }

    /// Registers a tree under the path its content gives it; reading it is allowed from now on.
    pub(crate) fn add_tree(
        &self,
        name: &StorePathName,
        tree: Tree,
        method: ContentAddressMethod,
        hash: NixHash,
    ) -> Result<StorePath, IoError> {
        let content_address = address(method, hash)?;
        let path = self.content_path(name, &content_address)?;
        self.access.allow(&path);
        if !self.is_ours(&path)? {
            self.made(PathInfo {
                path: path.clone(),
                node: tree.node,
                nar_size: tree.nar.size,
                nar_sha256: tree.nar.sha256,
                references: BTreeSet::new(),
                deriver: None,
                signatures: Vec::new(),
                content_address: Some(content_address),
            })?;
        }
        Ok(path)
    }

    /// The path of content without references.
    pub(crate) fn content_path(
        &self,
        name: &StorePathName,
        address: &ContentAddress,
    ) -> Result<StorePath, IoError> {
        let references = StoreReferences::default();
        let path = self
            .view
            .store
            .dir
            .content_addressed_path(name, address, &references);
        path.map_err(|error| IoError::Unsupported {
            what: error.to_string(),
        })
    }

    /// A tree of this machine or of the store, less what the filter refuses.
    pub(crate) fn tree_at(
        &self,
        path: &[u8],
        filter: Option<&mut PathFilter<'_>>,
    ) -> Result<(Tree, Option<[u8; 32]>), IoError> {
        self.access.read(&self.view.store.dir, path)?;
        if self.stored_at(path)? {
            let node = match self.view.resolve(path, false)? {
                Place::Stored(node) => node,
                Place::Host(_) | Place::Missing => return Err(not_found(path)),
            };
            let node = match filter {
                Some(filter) => self.filtered_node(path, node, filter)?,
                None => node,
            };
            return Ok((self.hashed(node)?, None));
        }
        if self.access.is_restricted()
            && let Place::Host(real) = self.view.resolve(path, false)?
        {
            self.access.read(&self.view.store.dir, &real)?;
        }
        let accepted = filter.map(|filter| scan(path, filter)).transpose()?;
        let digest = accepted.as_ref().map(|accepted| accepted.digest);
        Ok((self.ingested(path, accepted)?, digest))
    }

    /// A tree of the machine, from the memo or read now.
    fn ingested(&self, path: &[u8], accepted: Option<Accepted>) -> Result<Tree, IoError> {
        let identity = identity(path)?;
        let key = (path.into(), accepted.as_ref().map(|accepted| accepted.digest));
        if let Some((then, tree)) = self.imports.borrow().trees.get(&key)
            && *then == identity
        {
            return Ok(tree.clone());
        }
        let options = PathOptions {
            filter: accepted.map(|accepted| {
                let entries = accepted.entries;
                Arc::new(move |entry: &[u8], _| entries.contains(entry))
                    as igloo_castore::ingest::path::Filter
            }),
            ..PathOptions::default()
        };
        let ingest = ingest_path(
            &self.view.store.castore,
            native(path),
            &options,
            NarObserver::new(),
        );
        let ingested = self
            .view
            .runtime
            .wait(ingest)?
            .map_err(|error| ingest_error(path, error))?;
        let facts = ingested.observer.finish();
        let tree = Tree {
            node: ingested.root,
            nar: facts
                .map_err(|error| store_error(text(path), error.code(), error))?
                .digest,
        };
        let mut memo = self.imports.borrow_mut();
        memo.nars.insert(tree.node.clone(), tree.nar);
        memo.trees.insert(key, (identity, tree.clone()));
        Ok(tree)
    }

    /// A tree of the castore with its NAR hash, from the memo or computed now.
    pub(crate) fn hashed(&self, node: Node) -> Result<Tree, IoError> {
        if let Some(nar) = self.imports.borrow().nars.get(&node) {
            return Ok(Tree { nar: *nar, node });
        }
        let digest = self
            .view
            .runtime
            .wait(nar_digest(&self.view.store.castore, &node))?;
        let nar = digest.map_err(|error| store_error("a tree of the store", error.code(), error))?;
        self.imports.borrow_mut().nars.insert(node.clone(), nar);
        Ok(Tree { nar, node })
    }

    /// A tree of the castore less what the filter refuses.
    fn filtered_node(&self, path: &[u8], root: Node, filter: &mut PathFilter<'_>) -> Result<Node, IoError> {
        let Node::Directory { digest, .. } = root else {
            return Ok(root);
        };
        let mut made: Vec<Directory> = Vec::new();
        let mut levels = vec![Level::new(path.to_vec(), None, self.view.directory(&digest)?)];
        loop {
            let Some(level) = levels.last_mut() else {
                return Err(not_found(path)); // the loop returns when it closes the first level
            };
            if let Some((name, node)) = level.directory.entries().get(level.next) {
                level.next += 1;
                let (name, node) = (name.clone(), node.clone());
                let child = join(&level.path, name.as_bytes());
                if !filter(&child, type_of(&node))? {
                    continue;
                }
                match node {
                    Node::Directory { digest, .. } => {
                        let directory = self.view.directory(&digest)?;
                        levels.push(Level::new(child, Some(name), directory));
                    }
                    leaf => level.kept.push((name, leaf)),
                }
                continue;
            }
            let Some(Level { name, kept, .. }) = levels.pop() else {
                continue;
            };
            let directory = Directory::from_entries(kept)
                .map_err(|error| store_error(text(path), error.code(), error))?;
            let node = directory.node();
            made.push(directory);
            match (levels.last_mut(), name) {
                (Some(parent), Some(name)) => parent.kept.push((name, node)),
                _ => {
                    let put = self.view.store.castore.directories.put(made);
                    let put = self.view.runtime.wait(put)?;
                    put.map_err(|error| store_error(text(path), error.code(), error))?;
                    return Ok(node);
                }
            }
        }
    }

    /// One file by the hash of its bytes, links followed, without its executable bit.
    fn import_flat(&self, name: &StorePathName, path: &[u8]) -> Result<StorePath, IoError> {
        self.access.read(&self.view.store.dir, path)?;
        let node = match self.followed(path)? {
            Place::Stored(node) => node,
            Place::Missing => return Err(not_found(path)),
            Place::Host(host) => {
                let store = &self.view.store;
                let limits = igloo_castore::ingest::IngestLimits::default();
                let add = store.add_flat_file(name, native(&host), HashAlgo::Sha256, limits);
                let info = self.view.runtime.wait(add)?;
                let info = info.map_err(|error| add_error(path, error))?;
                let info = self.view.learn(Arc::new(info));
                self.access.allow(&info.path);
                return Ok(info.path.clone());
            }
        };
        let Node::File { digest, size, .. } = node else {
            return Err(IoError::WrongType {
                path: text(path),
                wanted: "regular file",
            });
        };
        let node = Node::File {
            digest,
            size,
            executable: false,
        };
        let hash = flat_hash(&self.view.store.castore, &node, HashAlgo::Sha256);
        let hash = self.view.runtime.wait(hash)?;
        let hash = hash.map_err(|error| store_error(text(path), error.code(), error))?;
        let hash = hash.ok_or_else(|| not_found(path))?;
        let tree = self.hashed(node)?;
        self.add_tree(name, tree, ContentAddressMethod::Flat, hash)
    }
}

struct Level {
    path: Vec<u8>,
    name: Option<NodeName>,
    directory: Arc<Directory>,
    next: usize,
    kept: Vec<(NodeName, Node)>,
}

impl Level {
    fn new(path: Vec<u8>, name: Option<NodeName>, directory: Arc<Directory>) -> Self {
        Self {
            path,
            name,
            directory,
            next: 0,
            kept: Vec::new(),
        }
    }
}

/// Lists a tree of the machine in the order of its NAR, asking the filter about every entry but the root.
fn scan(root: &[u8], filter: &mut PathFilter<'_>) -> Result<Accepted, IoError> {
    let mut accepted = Accepted {
        entries: HashSet::new(),
        digest: [0; 32],
    };
    let mut hasher = blake3::Hasher::new();
    let mut levels: Vec<(Vec<u8>, Entries)> = Vec::new();
    let metadata = std::fs::symlink_metadata(native(root)).map_err(|error| system_error(root, error))?;
    if metadata.is_dir() {
        levels.push((Vec::new(), list(root)?));
    }
    while let Some((parent, entries)) = levels.last_mut() {
        let Some((name, kind)) = entries.next() else {
            levels.pop();
            continue;
        };
        let relative = match parent.as_slice() {
            [] => name,
            parent => join(parent, &name),
        };
        let path = join(root, &relative);
        if !filter(&path, kind)? {
            continue;
        }
        hasher.update(&(relative.len() as u64).to_le_bytes());
        hasher.update(&relative);
        if kind == FileType::Directory {
            levels.push((relative.clone(), list(&path)?));
        }
        accepted.entries.insert(relative);
    }
    accepted.digest = *hasher.finalize().as_bytes();
    Ok(accepted)
}

/// What is left of a directory's entries: names and types, ascending.
type Entries = std::vec::IntoIter<(Vec<u8>, FileType)>;

fn list(path: &[u8]) -> Result<Entries, IoError> {
    let wrong = |error| system_error(path, error);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(native(path)).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let kind = kind_of(entry.file_type().map_err(wrong)?);
        entries.push((entry.file_name().into_vec(), kind));
    }
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(entries.into_iter())
}

fn identity(path: &[u8]) -> Result<Identity, IoError> {
    let metadata = std::fs::symlink_metadata(native(path)).map_err(|error| system_error(path, error))?;
    Ok((
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        (metadata.mtime(), metadata.mtime_nsec()),
        (metadata.ctime(), metadata.ctime_nsec()),
    ))
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if dir.ends_with(b"/") { b"" } else { b"/" };
    [dir, slash, name].concat()
}

/// A name the evaluation gave.
pub(crate) fn store_name(name: &str) -> Result<StorePathName, IoError> {
    StorePathName::new(name).map_err(|error| IoError::Unsupported {
        what: format!("name '{name}' cannot be a store path name: {error}"),
    })
}

pub(crate) fn address(method: ContentAddressMethod, hash: NixHash) -> Result<ContentAddress, IoError> {
    ContentAddress::new(method, hash).map_err(|error| IoError::Unsupported {
        what: error.to_string(),
    })
}

fn ingest_error(path: &[u8], error: IngestPathError) -> IoError {
    match error {
        IngestPathError::Unsupported { path, .. } => IoError::Unsupported {
            what: format!("file '{path}' has an unsupported type"),
        },
        error if error.code() == Code::NotFound => not_found(path),
        error => store_error(text(path), error.code(), error),
    }
}

fn add_error(path: &[u8], error: AddError) -> IoError {
    match error {
        AddError::ReadFile { source, .. } => system_error(path, source),
        error => store_error(text(path), error.code(), error),
    }
}
