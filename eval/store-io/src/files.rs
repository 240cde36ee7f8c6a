//! Reading: host files as they are, store objects from the castore.
//!
//! A path below the store directory whose store path is registered is read from the castore, whatever the disk holds;
//! any other path is the machine's, unless [`HostStore::Hidden`] says that the machine's own store is not to be seen.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use futures::StreamExt;
use igloo_castore::node::Node;
use igloo_eval::io::{FileType, IoError};
use nix_compat::store_path::StorePath;

use crate::access::is_below;
use crate::dependencies::DependencyKey;
use crate::error::{not_found, store_error, system_error, text};
use crate::store_io::{HostStore, StoreIo};
use crate::view::{Place, type_of};

/// Bytes as a path of this machine.
pub(crate) fn native(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// A file type of this machine as the evaluator has it.
pub(crate) fn kind_of(kind: std::fs::FileType) -> FileType {
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

/// Who answers for a path.
enum Owner {
    /// Our store; the path's last component is not followed.
    Store(Node),
    /// Our store, where nothing is at the path.
    Nothing,
    Host,
}

impl StoreIo {
    pub(crate) fn read_file_at(&self, path: &[u8]) -> Result<Vec<u8>, IoError> {
        if self.is_plain_host(path)
            && let Ok(bytes) = read_host(path)
        {
            return Ok(bytes);
        }
        self.access.read(&self.view.store.dir, path)?;
        match self.followed(path)? {
            Place::Stored(node) => self.view.read(path, &node),
            Place::Missing => Err(not_found(path)),
            Place::Host(host) => read_host(&host).map_err(|error| system_error(path, error)),
        }
    }

    pub(crate) fn read_dir_at(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>, IoError> {
        if self.is_plain_host(path)
            && let Ok(entries) = list_host(path, path)
        {
            return Ok(entries);
        }
        self.access.read(&self.view.store.dir, path)?;
        if path == self.view.store.dir.as_str().as_bytes() {
            return self.list_store(path);
        }
        match self.followed(path)? {
            Place::Stored(node) => self.view.list(path, &node),
            Place::Missing => Err(not_found(path)),
            Place::Host(host) => list_host(&host, path),
        }
    }

    pub(crate) fn file_type_at(&self, path: &[u8]) -> Result<Option<FileType>, IoError> {
        self.access.look(&self.view.store.dir, path)?;
        match self.owner(path)? {
            Owner::Store(node) => return Ok(Some(type_of(&node))),
            Owner::Nothing => return Ok(None),
            Owner::Host => {}
        }
        match std::fs::symlink_metadata(native(path)) {
            Ok(metadata) => Ok(Some(kind_of(metadata.file_type()))),
            Err(error) => match system_error(path, error) {
                IoError::NotFound { .. } | IoError::WrongType { .. } => {
                    // the store directory is there even where the machine has none
                    let way = is_below(self.view.store.dir.as_str().as_bytes(), path);
                    Ok(way.then_some(FileType::Directory))
                }
                other => Err(other),
            },
        }
    }

    pub(crate) fn read_link_at(&self, path: &[u8]) -> Result<Vec<u8>, IoError> {
        self.access.look(&self.view.store.dir, path)?;
        match self.owner(path)? {
            Owner::Store(Node::Symlink { target }) => Ok(target.as_bytes().to_vec()),
            Owner::Store(_) => Err(IoError::WrongType {
                path: text(path),
                wanted: "symlink",
            }),
            Owner::Nothing => Err(not_found(path)),
            Owner::Host => match std::fs::read_link(native(path)) {
                Ok(target) => Ok(target.into_os_string().into_vec()),
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Err(IoError::WrongType {
                    path: text(path),
                    wanted: "symlink",
                }),
                Err(error) => Err(system_error(path, error)),
            },
        }
    }

    /// Where `path` leads, links followed, and whether that may be read.
    pub(crate) fn followed(&self, path: &[u8]) -> Result<Place, IoError> {
        let ours = self.stored_at(path)?;
        if !ours {
            if self.hides(path) {
                return Ok(Place::Missing);
            }
            // the machine follows its own links; one that leads into our store, or may lead out of what is allowed, does not
            // go unseen
            if !self.access.is_restricted() && std::fs::metadata(native(path)).is_ok() {
                return Ok(Place::Host(path.to_vec()));
            }
        }
        let place = self.view.resolve(path, true)?;
        if let Place::Host(host) = &place
            && host != path
        {
            self.access.read(&self.view.store.dir, host)?;
            if self.hides(host) {
                return Ok(Place::Missing);
            }
        }
        Ok(place)
    }

    /// Whether the machine's own answer for `path` will do: nothing is forbidden, and it is not below the store directory.
    /// A link may still lead there; what the machine's store has under a name is what ours has under it.
    fn is_plain_host(&self, path: &[u8]) -> bool {
        self.host_store == HostStore::Visible
            && !self.access.is_restricted()
            && !is_below(path, self.view.store.dir.as_str().as_bytes())
    }

    /// Who answers for `path` itself, without following a link at its end.
    fn owner(&self, path: &[u8]) -> Result<Owner, IoError> {
        if self.stored_at(path)? {
            return Ok(match self.view.resolve(path, false)? {
                Place::Stored(node) => Owner::Store(node),
                Place::Missing => Owner::Nothing,
                Place::Host(_) => Owner::Host,
            });
        }
        Ok(if self.hides(path) {
            Owner::Nothing
        } else {
            Owner::Host
        })
    }

    /// Whether `path` lies at or in a store object of ours.
    pub(crate) fn stored_at(&self, path: &[u8]) -> Result<bool, IoError> {
        match self.view.store.dir.split(path) {
            Ok((stored, _)) => Ok(self.info_of(&stored)?.is_some()),
            Err(_) => Ok(false),
        }
    }

    /// Whether `path` is of the machine's own store, and that is not to be seen.
    fn hides(&self, path: &[u8]) -> bool {
        let dir = self.view.store.dir.as_str().as_bytes();
        self.host_store == HostStore::Hidden && path != dir && is_below(path, dir)
    }

    /// What the store directory holds: our paths, and the machine's where they are to be seen.
    fn list_store(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>, IoError> {
        self.flush_made()?;
        let view = &self.view;
        let ours = view.runtime.wait(async {
            let mut entries = std::collections::BTreeMap::new();
            let mut infos = view.store.path_infos.list();
            while let Some(info) = infos.next().await {
                let info = info.map_err(|error| store_error(text(path), error.code(), error))?;
                entries.insert(info.path.to_string().into_bytes(), type_of(&info.node));
            }
            Ok::<_, IoError>(entries)
        })?;
        let mut entries = ours?;
        if self.host_store == HostStore::Visible {
            match list_host(path, path) {
                Ok(host) => {
                    for (name, kind) in host {
                        entries.entry(name).or_insert(kind);
                    }
                }
                Err(IoError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries.into_iter().collect())
    }

    /// Whether a store path is there: ours, or the machine's where that counts.
    pub(crate) fn is_there(&self, path: &StorePath) -> Result<bool, IoError> {
        let on_disk = || std::fs::symlink_metadata(native(self.print(path).as_bytes())).is_ok();
        let answer = self
            .is_ours(path)
            .map(|ours| ours || (self.host_store == HostStore::Visible && on_disk()));
        self.dependencies.record(
            || DependencyKey::StorePath(path.clone()),
            &answer,
            |there, hasher| {
                hasher.update(&[u8::from(*there)]);
            },
        );
        answer
    }
}

fn read_host(path: &[u8]) -> std::io::Result<Vec<u8>> {
    std::fs::read(native(path))
}

fn list_host(path: &[u8], asked: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>, IoError> {
    let wrong = |error| system_error(asked, error);
    let entries = std::fs::read_dir(native(path)).map_err(wrong)?;
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.map_err(wrong)?;
        let kind = entry.file_type().map_or(FileType::Unknown, kind_of);
        Ok((entry.file_name().into_vec(), kind))
    };
    entries.map(entry).collect()
}
