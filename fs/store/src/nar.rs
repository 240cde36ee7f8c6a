//! NARs of castore trees: hashed while a tree is taken in, rendered from one, and turned back into events.
//!
//! Invariants
//! - one tree, one NAR: [`NarObserver`] hashes exactly the bytes [`NarStream`] gives out;
//! - memory: what the export reads ahead, and one buffer.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use igloo_castore::export::{ExportError, TreeExport};
use igloo_castore::ingest::TreeObserver;
use igloo_castore::node::{Node, NodeName, ParseNameError, ParseTargetError, SymlinkTarget};
use igloo_castore::store::Castore;
use igloo_castore::tree::TreeEvent;
use igloo_status::Code;
use nix_compat::hash::{HashAlgo, Hasher, NixHash};
use nix_compat::nar::{NarEvent, NarLimits, NarWriter, WriteNarError};
use nix_compat::self_reference::{SelfHash, SelfHasher, TooManySelfReferences};
use nix_compat::store_path::StorePath;

use crate::needles::NeedleScanner;

/// Bytes of NAR that are given out at a time, about.
const PIECE_SIZE: usize = 256 << 10;

/// What Nix records of a NAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NarDigest {
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// How many there are.
    pub size: u64,
}

/// Hashes the NAR of a tree that is taken in, and looks for needles in it, in the same pass.
#[derive(Debug)]
pub struct NarObserver {
    writer: NarWriter<Sink>,
    failed: Option<WriteNarError>,
}

/// What an observer has found.
#[derive(Debug)]
pub struct NarFacts {
    /// Hash and size.
    pub digest: NarDigest,
    /// The hash by the other algorithm asked for.
    pub other: Option<NixHash>,
    /// Indexes of the needles found, ascending.
    pub needles: Vec<usize>,
}

#[derive(Debug)]
struct Sink {
    sha256: Hasher,
    other: Option<Hasher>,
    needles: Option<NeedleScanner>,
}

impl NarObserver {
    /// Computes the SHA-256.
    pub fn new() -> Self {
        Self::with(None, None)
    }

    /// Computes the hash by another algorithm as well, and looks for needles.
    pub fn with(other: Option<HashAlgo>, needles: Option<NeedleScanner>) -> Self {
        let other = other.filter(|algo| *algo != HashAlgo::Sha256);
        let sink = Sink {
            sha256: Hasher::new(HashAlgo::Sha256),
            other: other.map(Hasher::new),
            needles,
        };
        Self {
            writer: NarWriter::with_limits(sink, any_depth()),
            failed: None,
        }
    }

    /// The results, after the tree's last event.
    ///
    /// # Errors
    /// The events were no whole tree.
    pub fn finish(self) -> Result<NarFacts, WriteNarError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let size = self.writer.size();
        let sink = self.writer.finish()?;
        Ok(NarFacts {
            digest: NarDigest {
                sha256: sha256(sink.sha256),
                size,
            },
            other: sink.other.map(Hasher::finish),
            needles: sink.needles.map(NeedleScanner::finish).unwrap_or_default(),
        })
    }
}

impl Default for NarObserver {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeObserver for NarObserver {
    fn event(&mut self, event: &TreeEvent) {
        if self.failed.is_none() {
            self.failed = write_event(&mut self.writer, event).err();
        }
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sha256.update(bytes);
        if let Some(other) = &mut self.other {
            other.update(bytes);
        }
        if let Some(needles) = &mut self.needles {
            needles.feed(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The NAR of a tree, piece by piece.
#[derive(Debug)]
pub struct NarStream {
    export: TreeExport,
    writer: Option<NarWriter<Pending>>,
    pending: Pending,
}

/// Bytes written and not yet given out.
#[derive(Clone, Debug, Default)]
struct Pending(Arc<Mutex<Vec<u8>>>);

impl NarStream {
    /// The NAR of `node`. Nothing is read yet.
    pub fn new(castore: Castore, node: Node) -> Self {
        let pending = Pending::default();
        Self {
            export: TreeExport::new(castore, node),
            writer: Some(NarWriter::with_limits(pending.clone(), any_depth())),
            pending,
        }
    }

    /// The next bytes, `None` after the last.
    ///
    /// # Errors
    /// See [`DumpError`]; what was given out before it is no whole NAR.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DumpError> {
        while let Some(writer) = &mut self.writer {
            match self.export.next().await? {
                Some(event) => write_event(writer, &event)?,
                None => {
                    if let Some(writer) = self.writer.take() {
                        writer.finish()?;
                    }
                }
            }
            if self.pending.len() >= PIECE_SIZE {
                break;
            }
        }
        let bytes = self.pending.take();
        Ok((!bytes.is_empty()).then(|| bytes.into()))
    }
}

impl Pending {
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl io::Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the NAR of `node` to `out`, blocking where it blocks; its size in bytes.
///
/// # Errors
/// See [`DumpError`].
pub async fn dump(
    castore: &Castore,
    node: &Node,
    out: &mut (impl io::Write + Send + ?Sized),
) -> Result<u64, DumpError> {
    let mut stream = NarStream::new(castore.clone(), node.clone());
    let mut size = 0;
    while let Some(bytes) = stream.next().await? {
        out.write_all(&bytes)
            .map_err(|source| DumpError::Output { source })?;
        size += bytes.len() as u64;
    }
    Ok(size)
}

/// Hash and size of the NAR of a tree that is in the store. Reads all of it.
///
/// # Errors
/// See [`DumpError`].
pub async fn nar_digest(castore: &Castore, node: &Node) -> Result<NarDigest, DumpError> {
    let mut hasher = Hasher::new(HashAlgo::Sha256);
    let size = dump(castore, node, &mut hasher).await?;
    Ok(NarDigest {
        sha256: sha256(hasher),
        size,
    })
}

/// The hash of a tree's NAR by any algorithm. Reads all of it.
///
/// # Errors
/// See [`DumpError`].
pub async fn nar_hash(castore: &Castore, node: &Node, algo: HashAlgo) -> Result<NixHash, DumpError> {
    let mut hasher = Hasher::new(algo);
    dump(castore, node, &mut hasher).await?;
    Ok(hasher.finish())
}

/// The hash of a tree's NAR without the name of the store path it has, as content addresses of what names itself are made.
/// Reads all of it.
///
/// # Errors
/// See [`DumpError`].
///
/// Source: Nix 2.36 `HashModuloSink` (src/libstore/references.cc).
pub async fn self_hash(
    castore: &Castore,
    node: &Node,
    algo: HashAlgo,
    path: &StorePath,
) -> Result<SelfHash, DumpError> {
    let mut hasher = SelfHasher::new(algo, path);
    let mut stream = NarStream::new(castore.clone(), node.clone());
    while let Some(bytes) = stream.next().await? {
        hasher.update(&bytes);
    }
    Ok(hasher.finish()?)
}

/// The hash of a file's bytes by any algorithm, `None` when `node` is no file. Reads all of it.
///
/// # Errors
/// See [`DumpError`].
pub async fn flat_hash(castore: &Castore, node: &Node, algo: HashAlgo) -> Result<Option<NixHash>, DumpError> {
    if !matches!(node, Node::File { .. }) {
        return Ok(None);
    }
    let mut hasher = Hasher::new(algo);
    let mut export = TreeExport::new(castore.clone(), node.clone());
    while let Some(event) = export.next().await? {
        if let TreeEvent::FileData(bytes) = event {
            hasher.update(&bytes);
        }
    }
    Ok(Some(hasher.finish()))
}

/// A step of a NAR as a step of a tree; `None` for what trees do not have. Copies names and data.
///
/// # Errors
/// Names and targets the castore cannot hold; the NAR parser lets none through.
pub fn tree_event(event: NarEvent<'_>) -> Result<Option<TreeEvent>, NarEventError> {
    Ok(Some(match event {
        NarEvent::Directory { name } => TreeEvent::DirectoryBegin {
            name: node_name(name)?,
        },
        NarEvent::DirectoryEnd => TreeEvent::DirectoryEnd,
        NarEvent::File {
            name,
            size,
            executable,
        } => TreeEvent::FileBegin {
            name: node_name(name)?,
            executable,
            size,
        },
        NarEvent::Data(bytes) => TreeEvent::FileData(Bytes::copy_from_slice(bytes)),
        NarEvent::FileEnd => return Ok(None),
        NarEvent::Symlink { name, target } => TreeEvent::Symlink {
            name: node_name(name)?,
            target: SymlinkTarget::try_from(target)?,
        },
    }))
}

/// Why a step of a NAR is none of a tree.
#[derive(Debug, thiserror::Error)]
pub enum NarEventError {
    /// A name.
    #[error(transparent)]
    Name(#[from] ParseNameError),
    /// A symlink's target.
    #[error(transparent)]
    Target(#[from] ParseTargetError),
}

impl NarEventError {
    /// Always the sender's fault.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// Why a NAR could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The tree could not be read.
    #[error("the tree cannot be read")]
    Export(#[from] ExportError),
    /// The tree makes no NAR.
    #[error("the tree makes no NAR")]
    Nar(#[from] WriteNarError),
    /// It names its own path more often than can be counted.
    #[error("the NAR cannot be hashed without its own name")]
    SelfReferences(#[from] TooManySelfReferences),
    /// The output takes no more.
    #[error("the NAR cannot be written")]
    Output {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl DumpError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Export(error) => error.code(),
            Self::Nar(error) => error.code(),
            Self::SelfReferences(error) => error.code(),
            Self::Output { source } => Code::from_io(source),
        }
    }
}

/// Ingest and castore bound the depth; a second, lower bound here would only make stored trees unreadable.
pub(crate) fn any_depth() -> NarLimits {
    NarLimits {
        depth_max: usize::MAX,
        ..NarLimits::default()
    }
}

fn node_name(name: &[u8]) -> Result<Option<NodeName>, ParseNameError> {
    if name.is_empty() {
        return Ok(None); // the root's
    }
    NodeName::try_from(name).map(Some)
}

fn write_event<W: io::Write>(writer: &mut NarWriter<W>, event: &TreeEvent) -> Result<(), WriteNarError> {
    fn bytes(name: &Option<NodeName>) -> &[u8] {
        name.as_ref().map_or(b"", |name| name.as_bytes())
    }
    match event {
        TreeEvent::DirectoryBegin { name } => writer.directory(bytes(name)),
        TreeEvent::DirectoryEnd => writer.end_directory(),
        TreeEvent::FileBegin {
            name,
            executable,
            size,
        } => writer.file(bytes(name), *size, *executable),
        TreeEvent::FileData(data) => writer.data(data),
        TreeEvent::Symlink { name, target } => writer.symlink(bytes(name), target.as_bytes()),
    }
}

pub(crate) fn sha256(hasher: Hasher) -> [u8; 32] {
    match hasher.finish() {
        NixHash::Sha256(digest) => digest,
        // every hasher given to this function was made for SHA-256
        other => {
            let mut digest = [0; 32];
            let size = other.digest().len().min(32);
            digest[..size].copy_from_slice(&other.digest()[..size]);
            digest
        }
    }
}
