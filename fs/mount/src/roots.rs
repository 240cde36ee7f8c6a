//! What the top directory of a mount holds.
//!
//! [`Roots`] is the seam between this crate, which knows only content, and whoever decides which content is shown: one
//! tree, the closure of a build, or a whole store that substitutes when a name is looked up.
//!
//! Invariants of every implementation
//! - while [`Roots::stability`] says `Fixed`, the answers never change: kernels keep them for ever, misses too;
//! - entries are listed in ascending order of their cursor, which stays the same for the life of the mount, so a listing
//!   interrupted at any point goes on from there;
//! - a cursor is at least 1 and at most [`CURSOR_MAX`]; no two names have the same.
//!
//! How a change becomes visible (`Changing`): entries and misses are kept by the kernel for the given time only, and the
//! top directory's attributes are asked for at every use; its modification time follows `version`, which makes the kernel
//! drop its cached listing (FUSE_AUTO_INVAL_DATA, fs/fuse/readdir.c).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use igloo_castore::error::ReadDirectoryError;
use igloo_castore::{DirectoryDigest, DirectoryStore, Node, NodeName};
use igloo_status::Code;

use crate::sync::{Arc, OnceLock};

/// Largest cursor: what is left of a signed 64-bit directory offset after `.` and `..`.
pub const CURSOR_MAX: u64 = i64::MAX as u64 - 16;

/// The entries of a mount's top directory.
#[async_trait]
pub trait Roots: fmt::Debug + Send + Sync {
    /// The entry of that name. May take long: a store may fetch it first.
    async fn lookup(&self, name: &NodeName) -> Result<Option<RootEntry>, RootsError>;

    /// At most `count_max` entries whose cursor is above `after`, ascending by cursor; fewer only at the end.
    ///
    /// Called once for every few thousand entries of a listing, with `after` the last cursor of the call before.
    async fn list(&self, after: u64, count_max: usize) -> Result<Vec<RootEntry>, RootsError>;

    /// How long answers hold.
    fn stability(&self) -> Stability;
}

/// An entry of the top directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootEntry {
    /// Its name.
    pub name: NodeName,
    /// What it is.
    pub node: Node,
    /// Its place in the listing; the same in every answer.
    pub cursor: u64,
}

/// How long the answers of a [`Roots`] hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// For ever: entries, misses and the listing.
    Fixed,
    /// Entries may come or go.
    Changing {
        /// Differs after every change that a listing would show; 0 when that is not known, and then the kernel keeps no
        /// listing.
        version: u32,
        /// How long the kernel may keep a found entry without asking again.
        entry_ttl: Duration,
    },
}

/// Why the top directory could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the top directory cannot be read: {message}")]
pub struct RootsError {
    code: Code,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl RootsError {
    /// An error with its cause; `message` says what was tried.
    pub fn new(
        code: Code,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            source: Some(source.into()),
        }
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        self.code
    }
}

impl From<ReadDirectoryError> for RootsError {
    fn from(error: ReadDirectoryError) -> Self {
        Self::new(error.code(), "its directory is unreadable", error)
    }
}

/// Shows the entries of one directory: the mount point is that directory.
///
/// A file or a symlink cannot be a mount point; show it under a name with [`MapRoots`].
#[derive(Debug)]
pub struct SingleRoot {
    digest: DirectoryDigest,
    directories: Arc<dyn DirectoryStore>,
    loaded: OnceLock<Arc<igloo_castore::Directory>>,
}

impl SingleRoot {
    /// Shows the directory of that digest, read when first used.
    pub fn new(digest: DirectoryDigest, directories: Arc<dyn DirectoryStore>) -> Self {
        Self {
            digest,
            directories,
            loaded: OnceLock::new(),
        }
    }

    async fn directory(&self) -> Result<&Arc<igloo_castore::Directory>, RootsError> {
        if let Some(directory) = self.loaded.get() {
            return Ok(directory);
        }
        let directory = crate::tree::load(&*self.directories, &self.digest).await?;
        Ok(self.loaded.get_or_init(|| directory))
    }
}

#[async_trait]
impl Roots for SingleRoot {
    async fn lookup(&self, name: &NodeName) -> Result<Option<RootEntry>, RootsError> {
        let entries = self.directory().await?.entries();
        let found = entries.binary_search_by(|(entry, _)| entry.cmp(name));
        Ok(found.ok().and_then(|index| entry_at(entries, index)))
    }

    async fn list(&self, after: u64, count_max: usize) -> Result<Vec<RootEntry>, RootsError> {
        let entries = self.directory().await?.entries();
        Ok(page(after, count_max, |index| entry_at(entries, index)))
    }

    fn stability(&self) -> Stability {
        Stability::Fixed
    }
}

/// A fixed set of named nodes, such as the closure of a build.
#[derive(Clone, Debug, Default)]
pub struct MapRoots {
    entries: Arc<[(NodeName, Node)]>,
}

impl MapRoots {
    /// The names and nodes of the map.
    pub fn new(map: BTreeMap<NodeName, Node>) -> Self {
        Self {
            entries: map.into_iter().collect(),
        }
    }

    /// The entries, ascending by name.
    pub fn entries(&self) -> &[(NodeName, Node)] {
        &self.entries
    }
}

impl FromIterator<(NodeName, Node)> for MapRoots {
    /// Later entries replace earlier ones of the same name.
    fn from_iter<I: IntoIterator<Item = (NodeName, Node)>>(entries: I) -> Self {
        Self::new(entries.into_iter().collect())
    }
}

#[async_trait]
impl Roots for MapRoots {
    async fn lookup(&self, name: &NodeName) -> Result<Option<RootEntry>, RootsError> {
        let found = self.entries.binary_search_by(|(entry, _)| entry.cmp(name));
        Ok(found.ok().and_then(|index| entry_at(&self.entries, index)))
    }

    async fn list(&self, after: u64, count_max: usize) -> Result<Vec<RootEntry>, RootsError> {
        Ok(page(after, count_max, |index| entry_at(&self.entries, index)))
    }

    fn stability(&self) -> Stability {
        Stability::Fixed
    }
}

/// Empty until a closure is put in, once: for machines that are booted before their build is known.
///
/// Before [`SwapRoots::fill`] a guest sees an empty directory and keeps nothing of it: misses are not cached, and the
/// attributes and the listing are asked for anew at each use. After it the contents are fixed and cached for ever. A guest
/// may thus mount, and even list, the device before it has a build.
#[derive(Clone, Debug, Default)]
pub struct SwapRoots {
    inner: Arc<OnceLock<MapRoots>>,
}

impl SwapRoots {
    /// An empty one. Clones share their contents: keep one, give one to the file system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the closure in.
    ///
    /// # Errors
    /// `AlreadyFilled` the second time: a machine serves one build.
    pub fn fill(&self, roots: MapRoots) -> Result<(), FillRootsError> {
        self.inner.set(roots).map_err(|_| FillRootsError::AlreadyFilled)
    }

    /// What was put in, if anything was.
    pub fn filled(&self) -> Option<&MapRoots> {
        self.inner.get()
    }
}

/// Why [`SwapRoots`] could not be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillRootsError {
    /// It was filled before.
    #[error("the machine's file system already shows a closure; start another machine for another build")]
    AlreadyFilled,
}

impl FillRootsError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        Code::FailedPrecondition
    }
}

#[async_trait]
impl Roots for SwapRoots {
    async fn lookup(&self, name: &NodeName) -> Result<Option<RootEntry>, RootsError> {
        match self.inner.get() {
            Some(roots) => roots.lookup(name).await,
            None => Ok(None),
        }
    }

    async fn list(&self, after: u64, count_max: usize) -> Result<Vec<RootEntry>, RootsError> {
        match self.inner.get() {
            Some(roots) => roots.list(after, count_max).await,
            None => Ok(Vec::new()),
        }
    }

    fn stability(&self) -> Stability {
        match self.inner.get() {
            Some(_) => Stability::Fixed,
            None => Stability::Changing {
                version: 0,
                entry_ttl: Duration::ZERO,
            },
        }
    }
}

/// The entry at `index` of a sorted list; its cursor is the index counted from 1.
fn entry_at(entries: &[(NodeName, Node)], index: usize) -> Option<RootEntry> {
    let (name, node) = entries.get(index)?;
    Some(RootEntry {
        name: name.clone(),
        node: node.clone(),
        cursor: u64::try_from(index).ok()?.checked_add(1)?,
    })
}

fn page(after: u64, count_max: usize, at: impl Fn(usize) -> Option<RootEntry>) -> Vec<RootEntry> {
    let Ok(start) = usize::try_from(after) else {
        return Vec::new();
    };
    (start..).map_while(at).take(count_max).collect()
}

#[cfg(test)]
mod tests;
