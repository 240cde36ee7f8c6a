//! Store objects as files: look-ups in the castore, nothing on the disk.
//!
//! Invariants
//! - only positive answers are kept: a path that is not there now may be built in a moment;
//! - symlinks lead wherever they say, as on a disk, but at most [`LINKS_MAX`] of them on one way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use futures::future::{Either, select};
use igloo_castore::digest::DirectoryDigest;
use igloo_castore::directory::Directory;
use igloo_castore::error::ReadDirectoryError;
use igloo_castore::node::Node;
use igloo_castore::store::StoreName;
use igloo_eval::io::{FileType, IoError};
use igloo_store::{PathInfo, Store};
use nix_compat::store_path::StorePath;
use quick_cache::unsync::Cache;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::error::{store_error, text};
use crate::files::native;

/// Symlinks followed on the way to one file.
const LINKS_MAX: usize = 1024;
/// Directories kept decoded.
const DIRECTORIES_MAX: usize = 16 << 10;

/// Lets this thread wait for the store.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    pub(crate) handle: Handle,
    /// Becomes true when the evaluation is to end.
    pub(crate) stop: Option<watch::Receiver<bool>>,
}

impl Runtime {
    /// Has the runtime work on something beside this thread.
    pub(crate) fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.handle.spawn(work)
    }

    /// Waits for `future` on this thread, but not once the evaluation is to end.
    pub(crate) fn wait<F: Future>(&self, future: F) -> Result<F::Output, IoError> {
        if Handle::try_current().is_ok() {
            return Err(IoError::Unsupported {
                what: "an evaluation over a store blocks, so it must run on a thread of its own, not inside an async task"
                    .to_owned(),
            });
        }
        let Some(mut stop) = self.stop.clone() else {
            return Ok(self.handle.block_on(future));
        };
        let future = std::pin::pin!(future);
        let stopped = std::pin::pin!(stop.wait_for(|stop| *stop));
        match self.handle.block_on(select(future, stopped)) {
            Either::Left((answer, _)) => Ok(answer),
            Either::Right(_) => Err(IoError::Interrupted),
        }
    }
}

/// Where a path leads once symlinks are followed.
#[derive(Debug)]
pub(crate) enum Place {
    /// Into the store.
    Stored(Node),
    /// To this path of the machine, which may or may not be there.
    Host(Vec<u8>),
    /// Nowhere: something on the way is missing, or no directory.
    Missing,
}

/// A node and the store path it was found in.
pub(crate) struct View {
    pub(crate) store: Store,
    pub(crate) runtime: Runtime,
    infos: RefCell<HashMap<StorePath, Arc<PathInfo>>>,
    directories: RefCell<Cache<DirectoryDigest, Arc<Directory>>>,
}

impl View {
    pub(crate) fn new(store: Store, runtime: Runtime) -> Self {
        Self {
            store,
            runtime,
            infos: RefCell::default(),
            directories: RefCell::new(Cache::new(DIRECTORIES_MAX)),
        }
    }

    /// What is known of a store path; `None` when it is not there.
    pub(crate) fn info(&self, path: &StorePath) -> Result<Option<Arc<PathInfo>>, IoError> {
        if let Some(info) = self.infos.borrow().get(path) {
            return Ok(Some(Arc::clone(info)));
        }
        let found = self.runtime.wait(self.store.path_infos.get(path))?;
        let found = found.map_err(|error| store_error(self.store.dir.print(path), error.code(), error))?;
        Ok(found.map(|info| self.learn(Arc::new(info))))
    }

    /// Takes note of a path that is, or is about to be, registered.
    pub(crate) fn learn(&self, info: Arc<PathInfo>) -> Arc<PathInfo> {
        self.infos
            .borrow_mut()
            .insert(info.path.clone(), Arc::clone(&info));
        info
    }

    pub(crate) fn directory(&self, digest: &DirectoryDigest) -> Result<Arc<Directory>, IoError> {
        if let Some(directory) = self.directories.borrow_mut().get(digest) {
            return Ok(Arc::clone(directory));
        }
        let found = self.runtime.wait(self.store.castore.directories.get(digest))?;
        let found = found.and_then(|found| {
            found.ok_or_else(|| ReadDirectoryError::Missing {
                digest: *digest,
                store: StoreName::from("the store"),
            })
        });
        let directory =
            found.map_err(|error| store_error("a directory of a store path", error.code(), error))?;
        self.directories
            .borrow_mut()
            .insert(*digest, Arc::clone(&directory));
        Ok(directory)
    }

    /// All bytes of a file. Holds them in memory.
    pub(crate) fn read(&self, path: &[u8], node: &Node) -> Result<Vec<u8>, IoError> {
        let Node::File { digest, size, .. } = node else {
            return Err(IoError::WrongType {
                path: text(path),
                wanted: "regular file",
            });
        };
        let wrong = |reason: &str| IoError::System {
            path: text(path),
            source: std::io::Error::other(reason.to_owned()),
        };
        let len = usize::try_from(*size).map_err(|_| wrong("it does not fit in memory"))?;
        let bytes = self
            .runtime
            .wait(self.store.castore.blobs.read_range(digest, 0, len))?
            .map_err(|error| store_error(text(path), error.code(), error))?;
        if bytes.len() != len {
            return Err(wrong("its size in the store is not that of its directory entry"));
        }
        Ok(bytes.into())
    }

    /// Names and types in a directory of the store.
    pub(crate) fn list(&self, path: &[u8], node: &Node) -> Result<Vec<(Vec<u8>, FileType)>, IoError> {
        let Node::Directory { digest, .. } = node else {
            return Err(IoError::WrongType {
                path: text(path),
                wanted: "directory",
            });
        };
        let directory = self.directory(digest)?;
        let entries = directory.entries().iter();
        Ok(entries
            .map(|(name, node)| (name.as_bytes().to_vec(), type_of(node)))
            .collect())
    }

    /// Walks to `path`, following symlinks on the way, and the one at the end where `follow` says so.
    ///
    /// Cost: one look-up for each component in the store, one system call for each outside.
    pub(crate) fn resolve(&self, path: &[u8], follow: bool) -> Result<Place, IoError> {
        let mut walk = Walk::new(path);
        while let Some(name) = walk.rest.pop() {
            if name == b"." || name == b".." {
                // only directories have these
                if walk
                    .nodes
                    .last()
                    .is_some_and(|node| type_of(node) != FileType::Directory)
                {
                    return Ok(Place::Missing);
                }
                if name == b".." {
                    walk.up();
                }
                continue;
            }
            walk.enter(&name);
            let last = walk.rest.is_empty();
            let target = match self.step(&mut walk, &name, last && !follow)? {
                Step::Into => continue,
                Step::Missing => return Ok(Place::Missing),
                Step::Link(target) => target,
            };
            walk.links += 1;
            if walk.links > LINKS_MAX {
                return Err(IoError::System {
                    path: text(path),
                    source: std::io::Error::other("infinite symlink recursion"),
                });
            }
            walk.follow(&target);
        }
        Ok(match walk.nodes.pop() {
            Some(node) => Place::Stored(node),
            None => Place::Host(walk.done_or_root()),
        })
    }

    /// Looks at the component just entered. A link is given only when it is to be followed.
    fn step(&self, walk: &mut Walk, name: &[u8], keep_link: bool) -> Result<Step, IoError> {
        let node = match walk.nodes.last() {
            Some(Node::Directory { digest, .. }) => match self.directory(digest)?.get(name) {
                Some(node) => node.clone(),
                None => return Ok(Step::Missing),
            },
            Some(_) => return Ok(Step::Missing),
            None => match self.object(&walk.done)? {
                Some(node) => node,
                None => return host_step(&walk.done, keep_link),
            },
        };
        if let Node::Symlink { target } = &node
            && !keep_link
        {
            return Ok(Step::Link(target.as_bytes().to_vec()));
        }
        walk.nodes.push(node);
        Ok(Step::Into)
    }

    /// The root of the store object at exactly this path, if it is one of ours.
    fn object(&self, path: &[u8]) -> Result<Option<Node>, IoError> {
        let Ok(stored) = self.store.dir.parse_bytes(path) else {
            return Ok(None);
        };
        Ok(self.info(&stored)?.map(|info| info.node.clone()))
    }
}

pub(crate) fn type_of(node: &Node) -> FileType {
    match node {
        Node::Directory { .. } => FileType::Directory,
        Node::File { .. } => FileType::Regular,
        Node::Symlink { .. } => FileType::Symlink,
    }
}

enum Step {
    Into,
    Link(Vec<u8>),
    Missing,
}

fn host_step(path: &[u8], keep_link: bool) -> Result<Step, IoError> {
    if keep_link {
        return Ok(Step::Into);
    }
    match std::fs::read_link(native(path)) {
        Ok(target) => Ok(Step::Link(target.into_os_string().into_vec())),
        // no link (EINVAL), or nothing there, which whoever wants it will notice
        Err(_) => Ok(Step::Into),
    }
}

/// A walk in progress.
struct Walk {
    /// Path so far, without a slash at its end.
    done: Vec<u8>,
    /// Components still to come, last first.
    rest: Vec<Vec<u8>>,
    /// Nodes from a store object's root to here; empty outside the store.
    nodes: Vec<Node>,
    links: usize,
}

impl Walk {
    fn new(path: &[u8]) -> Self {
        Self {
            done: Vec::with_capacity(path.len()),
            rest: components(path),
            nodes: Vec::new(),
            links: 0,
        }
    }

    fn enter(&mut self, name: &[u8]) {
        self.done.push(b'/');
        self.done.extend_from_slice(name);
    }

    fn up(&mut self) {
        let slash = self.done.iter().rposition(|byte| *byte == b'/');
        self.done.truncate(slash.unwrap_or(0));
        self.nodes.pop();
    }

    /// Replaces the component just entered by what a link says.
    fn follow(&mut self, target: &[u8]) {
        let slash = self.done.iter().rposition(|byte| *byte == b'/');
        self.done.truncate(slash.unwrap_or(0));
        if target.starts_with(b"/") {
            self.done.clear();
            self.nodes.clear();
        }
        self.rest.extend(components(target));
    }

    fn done_or_root(self) -> Vec<u8> {
        if self.done.is_empty() {
            b"/".to_vec()
        } else {
            self.done
        }
    }
}

/// The components of a path, last first.
pub(crate) fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}
