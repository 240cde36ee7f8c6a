//! Adding to a store: paths of this machine, texts, and NARs, each under the path its content gives it.
//!
//! Invariants
//! - what is added is durable and registered when the call returns, or not registered at all;
//! - adding what is there already changes nothing and gives its record;
//! - nothing is written outside the store: a crash leaves no temporary files.
//!
//! Source: Nix 2.36 `src/libstore/local-store.cc` (addToStore, addTextToStore), `src/nix/add-to-store.cc`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use igloo_castore::blocking;
use igloo_castore::ingest::{
    IngestError, IngestLimits, IngestPathError, Ingested, PathOptions, TreeIngest, TreeObserver, ingest_path,
};
use igloo_castore::node::Node;
use igloo_castore::tree::TreeEvent;
use igloo_status::Code;
use nix_compat::content_address::{ContentAddress, ContentAddressError, ContentAddressMethod};
use nix_compat::hash::{HashAlgo, Hasher, NixHash};
use nix_compat::nar::{NarParser, ParseNarError, WriteNarError};
use nix_compat::signature::Signature;
use nix_compat::store_path::{ComputePathError, StorePath, StorePathName, StoreReferences};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::nar::{self, DumpError, NarDigest, NarEventError, NarFacts, NarObserver};
use crate::path_info::{PathInfo, ReadPathInfoError};
use crate::store::{CommitError, Store, print};

/// Bytes read at a time.
const READ_SIZE: usize = 1 << 20;

/// What the sender of a NAR says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredNar {
    /// The path it is to have.
    pub path: StorePath,
    /// SHA-256 of the NAR.
    pub nar_sha256: [u8; 32],
    /// Bytes of the NAR.
    pub nar_size: u64,
    /// Store paths in it.
    pub references: BTreeSet<StorePath>,
    /// The derivation it is an output of.
    pub deriver: Option<StorePath>,
    /// Who vouches for it. Not checked here: whom to believe is the caller's to say.
    pub signatures: Vec<Signature>,
    /// Its content address; checked against path and content.
    pub content_address: Option<ContentAddress>,
}

impl Store {
    /// Adds a tree by the SHA-256 of its NAR, as `nix-store --add` and path literals do.
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn add_path(
        &self,
        name: &StorePathName,
        path: &Path,
        options: &PathOptions,
    ) -> Result<PathInfo, AddError> {
        self.add_fixed(
            name,
            path,
            ContentAddressMethod::Recursive,
            HashAlgo::Sha256,
            options,
        )
        .await
    }

    /// Adds a tree whose path is known, if its content has that path: as a source tree, or as a text without references
    /// (`builtins.toFile`). Says whether it has; if not, nothing is registered.
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn add_expected(
        &self,
        expected: &StorePath,
        file: &Path,
        options: &PathOptions,
    ) -> Result<bool, AddError> {
        let name = expected.name();
        let ingested = ingest_path(&self.castore, file, options, NarObserver::new()).await?;
        let (node, facts) = (ingested.root, ingested.observer.finish()?);
        let hash = NixHash::Sha256(facts.digest.sha256);
        let tree = self.record(
            name,
            node.clone(),
            &facts,
            ContentAddressMethod::Recursive,
            hash,
            BTreeSet::new(),
        )?;
        if tree.path == *expected {
            self.commit_new(tree).await?;
            return Ok(true);
        }
        let Some(hash) = nar::flat_hash(&self.castore, &node, HashAlgo::Sha256).await? else {
            return Ok(false);
        };
        let text = self.record(
            name,
            node,
            &facts,
            ContentAddressMethod::Text,
            hash,
            BTreeSet::new(),
        )?;
        let is_text = text.path == *expected;
        if is_text {
            self.commit_new(text).await?;
        }
        Ok(is_text)
    }

    /// Adds a tree or a file under a fixed content address, as `nix-store --add-fixed` does.
    ///
    /// By the flat method `path` must be a regular file; its executable bit is kept, though the hash does not cover it.
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn add_fixed(
        &self,
        name: &StorePathName,
        path: &Path,
        method: ContentAddressMethod,
        algo: HashAlgo,
        options: &PathOptions,
    ) -> Result<PathInfo, AddError> {
        if method == ContentAddressMethod::Recursive {
            let observer = NarObserver::with(Some(algo), None);
            let ingested = ingest_path(&self.castore, path, options, observer).await?;
            let facts = ingested.observer.finish()?;
            let hash = facts.other.unwrap_or(NixHash::Sha256(facts.digest.sha256));
            return self
                .add_tree(name, ingested.root, &facts, method, hash, BTreeSet::new())
                .await;
        }
        let observer = (NarObserver::new(), FlatObserver(Hasher::new(algo)));
        let ingested = ingest_path(&self.castore, path, options, observer).await?;
        if !matches!(ingested.root, Node::File { .. }) {
            return Err(AddError::NotAFile {
                path: path.display().to_string(),
            });
        }
        self.add_flat_tree(name, method, ingested).await
    }

    /// Adds the contents of the file that `path` leads to, links followed, without its executable bit, by their own hash:
    /// as `builtins.path` does with `recursive = false`.
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn add_flat_file(
        &self,
        name: &StorePathName,
        path: &Path,
        algo: HashAlgo,
        limits: IngestLimits,
    ) -> Result<PathInfo, AddError> {
        let observer = (NarObserver::new(), FlatObserver(Hasher::new(algo)));
        let ingested = self.ingest_file(path, limits, observer).await?;
        self.add_flat_tree(name, ContentAddressMethod::Flat, ingested)
            .await
    }

    /// Adds a text with references, as derivations and `builtins.toFile` are.
    ///
    /// # Errors
    /// See [`AddError`]; a reference that is not in the store is one.
    pub async fn add_text(
        &self,
        name: &StorePathName,
        text: Bytes,
        references: BTreeSet<StorePath>,
    ) -> Result<PathInfo, AddError> {
        let hash = NixHash::of(HashAlgo::Sha256, &text);
        self.add_file(name, text, ContentAddressMethod::Text, hash, references)
            .await
    }

    /// Adds a file of these bytes by their own hash, as a fetched file is.
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn add_flat(
        &self,
        name: &StorePathName,
        bytes: Bytes,
        algo: HashAlgo,
    ) -> Result<PathInfo, AddError> {
        let hash = NixHash::of(algo, &bytes);
        self.add_file(name, bytes, ContentAddressMethod::Flat, hash, BTreeSet::new())
            .await
    }

    /// Adds the tree of a NAR that `reader` gives and ends with, and registers it as declared.
    ///
    /// # Errors
    /// `Mismatch` when the NAR is not the one declared; nothing is registered then.
    pub async fn add_nar(
        &self,
        declared: DeclaredNar,
        reader: impl AsyncRead + Send + Unpin,
        limits: IngestLimits,
    ) -> Result<PathInfo, AddError> {
        let info = self.ingest_declared(declared, reader, limits).await?;
        self.commit_new(info).await
    }

    /// Takes the tree of a NAR in and compares it with what is declared; neither durable nor registered when it returns,
    /// so that many can be fetched at once and registered in the order of their references.
    ///
    /// # Errors
    /// `Mismatch` and `Address` when the NAR is not the one declared.
    pub async fn ingest_declared(
        &self,
        declared: DeclaredNar,
        reader: impl AsyncRead + Send + Unpin,
        limits: IngestLimits,
    ) -> Result<PathInfo, AddError> {
        let (node, digest) = self.ingest_nar(reader, limits).await?;
        self.check_declared(declared, node, digest).await
    }

    /// The record of a tree whose NAR has this digest, when that is the NAR declared.
    ///
    /// # Errors
    /// `Mismatch` and `Address` when it is not.
    pub async fn check_declared(
        &self,
        declared: DeclaredNar,
        node: Node,
        digest: NarDigest,
    ) -> Result<PathInfo, AddError> {
        let expected = NarDigest {
            sha256: declared.nar_sha256,
            size: declared.nar_size,
        };
        if digest != expected {
            return Err(AddError::Mismatch {
                path: declared.path,
                declared: print(&expected),
                found: print(&digest),
            });
        }
        self.check_address(&declared, &node).await?;
        Ok(PathInfo {
            path: declared.path,
            node,
            nar_size: digest.size,
            nar_sha256: digest.sha256,
            references: declared.references,
            deriver: declared.deriver,
            signatures: declared.signatures,
            content_address: declared.content_address,
        })
    }

    /// Takes the tree of a NAR in, without making it durable or registering it.
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn ingest_nar(
        &self,
        mut reader: impl AsyncRead + Send + Unpin,
        limits: IngestLimits,
    ) -> Result<(Node, NarDigest), AddError> {
        let mut parser = NarParser::with_limits(nar::any_depth());
        let mut ingest = TreeIngest::new(self.castore.clone(), limits, NarObserver::new());
        let mut buffer = vec![0; READ_SIZE / 4];
        loop {
            let count = reader
                .read(&mut buffer)
                .await
                .map_err(|source| AddError::Receive { source })?;
            if count == 0 {
                break;
            }
            let mut input = &buffer[..count];
            // an event borrows from the parser, so it is made the ingest's own before that waits
            while let Some(event) = parser.next(&mut input)?.map(nar::tree_event) {
                if let Some(event) = event? {
                    ingest.event(event).await?;
                }
            }
        }
        parser.finish()?;
        let ingested = ingest.finish().await?;
        Ok((ingested.root, ingested.observer.finish()?.digest))
    }

    async fn add_file(
        &self,
        name: &StorePathName,
        bytes: Bytes,
        method: ContentAddressMethod,
        hash: NixHash,
        references: BTreeSet<StorePath>,
    ) -> Result<PathInfo, AddError> {
        let mut ingest = TreeIngest::new(self.castore.clone(), IngestLimits::default(), NarObserver::new());
        ingest.event(plain_file(bytes.len() as u64)).await?;
        if !bytes.is_empty() {
            ingest.event(TreeEvent::FileData(bytes)).await?;
        }
        let ingested = ingest.finish().await?;
        let facts = ingested.observer.finish()?;
        self.add_tree(name, ingested.root, &facts, method, hash, references)
            .await
    }

    async fn ingest_file<O: TreeObserver>(
        &self,
        path: &Path,
        limits: IngestLimits,
        observer: O,
    ) -> Result<Ingested<O>, AddError> {
        let wrong = |source| AddError::ReadFile {
            path: path.display().to_string(),
            source,
        };
        let owned = path.to_owned();
        let (mut file, size) = blocking::run(move || open_file(&owned)).await.map_err(wrong)?;
        let mut ingest = TreeIngest::new(self.castore.clone(), limits, observer);
        ingest.event(plain_file(size)).await?;
        loop {
            let read = blocking::run(move || {
                let mut bytes = Vec::with_capacity(READ_SIZE);
                let result = file.by_ref().take(READ_SIZE as u64).read_to_end(&mut bytes);
                (file, result.map(|_| bytes))
            });
            let (rest, bytes) = read.await;
            let bytes = bytes.map_err(wrong)?;
            if bytes.is_empty() {
                break;
            }
            ingest.event(TreeEvent::FileData(bytes.into())).await?;
            file = rest;
        }
        Ok(ingest.finish().await?)
    }

    async fn add_flat_tree(
        &self,
        name: &StorePathName,
        method: ContentAddressMethod,
        ingested: Ingested<(NarObserver, FlatObserver)>,
    ) -> Result<PathInfo, AddError> {
        let (nar, flat) = ingested.observer;
        let facts = nar.finish()?;
        self.add_tree(
            name,
            ingested.root,
            &facts,
            method,
            flat.0.finish(),
            BTreeSet::new(),
        )
        .await
    }

    async fn add_tree(
        &self,
        name: &StorePathName,
        node: Node,
        facts: &NarFacts,
        method: ContentAddressMethod,
        hash: NixHash,
        references: BTreeSet<StorePath>,
    ) -> Result<PathInfo, AddError> {
        self.commit_new(self.record(name, node, facts, method, hash, references)?)
            .await
    }

    /// The record of a tree under its content address.
    fn record(
        &self,
        name: &StorePathName,
        node: Node,
        facts: &NarFacts,
        method: ContentAddressMethod,
        hash: NixHash,
        references: BTreeSet<StorePath>,
    ) -> Result<PathInfo, AddError> {
        let address = ContentAddress::new(method, hash)?;
        let store_references = StoreReferences {
            others: references.clone(),
            to_self: false,
        };
        Ok(PathInfo {
            path: self
                .dir
                .content_addressed_path(name, &address, &store_references)?,
            node,
            nar_size: facts.digest.size,
            nar_sha256: facts.digest.sha256,
            references,
            deriver: None,
            signatures: Vec::new(),
            content_address: Some(address),
        })
    }

    async fn commit_new(&self, info: PathInfo) -> Result<PathInfo, AddError> {
        if let Some(there) = self.path_infos.get(&info.path).await? {
            return Ok(there);
        }
        self.register(vec![info.clone()]).await?;
        Ok(info)
    }

    /// A declared content address must give the path, and be that of the content.
    async fn check_address(&self, declared: &DeclaredNar, node: &Node) -> Result<(), AddError> {
        let Some(address) = declared.content_address else {
            return Ok(());
        };
        let mut others = declared.references.clone();
        let to_self = others.remove(&declared.path);
        let references = StoreReferences { others, to_self };
        let path = self
            .dir
            .content_addressed_path(declared.path.name(), &address, &references)?;
        let wrong = |found: String| AddError::Address {
            path: declared.path.clone(),
            address: address.to_string(),
            found,
        };
        if path != declared.path {
            return Err(wrong(format!("which belongs to {path}")));
        }
        let algo = address.hash().algo();
        let found = match address.method() {
            // the hash of what names itself is of its NAR without its own name; older Nix added where that stood
            ContentAddressMethod::Recursive if to_self => {
                let found = nar::self_hash(&self.castore, node, algo, &declared.path).await?;
                let is_old = found.hash_with_places == address.hash();
                Some(if is_old {
                    found.hash_with_places
                } else {
                    found.hash
                })
            }
            ContentAddressMethod::Recursive if algo == HashAlgo::Sha256 => {
                Some(NixHash::Sha256(declared.nar_sha256))
            }
            ContentAddressMethod::Recursive => Some(nar::nar_hash(&self.castore, node, algo).await?),
            ContentAddressMethod::Flat | ContentAddressMethod::Text => {
                nar::flat_hash(&self.castore, node, algo).await?
            }
        };
        if found == Some(address.hash()) {
            return Ok(());
        }
        Err(wrong(match found {
            Some(found) => format!("but its content has {found}"),
            None => "but it is no file".to_owned(),
        }))
    }
}

/// Hashes the contents of a tree that is one file.
struct FlatObserver(Hasher);

impl TreeObserver for FlatObserver {
    fn event(&mut self, event: &TreeEvent) {
        if let TreeEvent::FileData(bytes) = event {
            self.0.update(bytes);
        }
    }
}

fn plain_file(size: u64) -> TreeEvent {
    TreeEvent::FileBegin {
        name: None,
        executable: false,
        size,
    }
}

fn open_file(path: &Path) -> io::Result<(File, u64)> {
    // looked at before it is opened: opening a named pipe would wait
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ));
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Why something was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The path cannot be taken in.
    #[error(transparent)]
    Path(#[from] IngestPathError),
    /// The tree cannot be taken in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The flat method needs one file.
    #[error("{path} is no regular file, and only files have a flat hash; add it recursively")]
    NotAFile {
        /// The path.
        path: String,
    },
    /// The file cannot be read.
    #[error("cannot read the file {path}")]
    ReadFile {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The NAR stopped coming.
    #[error("the NAR cannot be received")]
    Receive {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The NAR is damaged.
    #[error("the NAR cannot be read")]
    Parse(#[from] ParseNarError),
    /// The NAR holds what a store cannot.
    #[error("the NAR cannot be stored")]
    Event(#[from] NarEventError),
    /// The tree makes no NAR.
    #[error("the tree makes no NAR")]
    Nar(#[from] WriteNarError),
    /// The NAR is not the one declared.
    #[error("the NAR of {path} is not the one declared: it should have {declared}, but has {found}")]
    Mismatch {
        /// The path.
        path: StorePath,
        /// What was declared.
        declared: String,
        /// What came.
        found: String,
    },
    /// The declared content address is not that of the path or the content.
    #[error("{path} is declared with the content address {address}, {found}")]
    Address {
        /// The path.
        path: StorePath,
        /// The address declared.
        address: String,
        /// What is there instead.
        found: String,
    },
    /// What was just taken in cannot be read back.
    #[error("what was added cannot be read back")]
    Dump(#[from] DumpError),
    /// No such content address.
    #[error("the content cannot be addressed this way")]
    ContentAddress(#[from] ContentAddressError),
    /// No path for it.
    #[error("the content gets no store path")]
    Compute(#[from] ComputePathError),
    /// The records cannot be read.
    #[error(transparent)]
    Read(#[from] ReadPathInfoError),
    /// It cannot be registered.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl AddError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Path(error) => error.code(),
            Self::Ingest(error) => error.code(),
            Self::ReadFile { source, .. } | Self::Receive { source } => Code::from_io(source),
            Self::NotAFile { .. } => Code::InvalidArgument,
            Self::Parse(error) => error.code(),
            Self::Event(error) => error.code(),
            Self::Nar(error) => error.code(),
            Self::Mismatch { .. } | Self::Address { .. } => Code::DataLoss,
            Self::Dump(error) => error.code(),
            Self::ContentAddress(error) => error.code(),
            Self::Compute(error) => error.code(),
            Self::Read(error) => error.code(),
            Self::Commit(error) => error.code(),
        }
    }
}
