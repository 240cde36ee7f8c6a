//! Walking a file system in the order of names, ahead of whoever reads.
//!
//! Invariants
//! - no symlink is followed: every step is `openat` of one name with `O_NOFOLLOW`, so a directory that is swapped for a
//!   link under our feet is an error, not a way out;
//! - at most [`OPEN_LEVELS`] directories are held open for the way back, however deep the tree; one that was closed is
//!   opened again from the root and must be the same (device and inode);
//! - nothing here recurses.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::path::{FileKind, Filter, Reason};
use crate::node::{NodeName, SymlinkTarget};

/// Directories kept open on the way down.
const OPEN_LEVELS: usize = 64;

pub(super) const OPEN_FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK) // a fifo that takes a file's place must not stop us
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
const OPEN_DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A name in a directory that is open, or the path of the root.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: Option<Arc<OwnedFd>>,
    name: PathBuf,
}

impl Place {
    fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().map_or(CWD, |dir| dir.as_fd())
    }

    pub(super) fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat(self.fd(), &self.name, flags, Mode::empty())
    }

    pub(super) fn stat(&self) -> Result<Stat, Errno> {
        statat(self.fd(), &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn read_link(&self) -> Result<SymlinkTarget, Reason> {
        let target = readlinkat(self.fd(), &self.name, Vec::new()).map_err(Reason::io("read the link"))?;
        SymlinkTarget::try_from(target.as_bytes()).map_err(Reason::Target)
    }
}

/// What comes next in the tree. Names are those of the entry, `None` for the root.
#[derive(Debug)]
pub(super) enum Plan {
    Directory {
        name: Option<NodeName>,
    },
    DirectoryEnd,
    File {
        name: Option<NodeName>,
        place: Place,
    },
    Symlink {
        name: Option<NodeName>,
        place: Place,
    },
    /// The walk ends here.
    Failed {
        name: Option<NodeName>,
        reason: Reason,
    },
}

/// An iterative walk.
pub(super) struct Walker {
    root: PathBuf,
    levels: Vec<Level>,
    filter: Option<Filter>,
    depth_max: usize,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Start,
    Inside,
    End,
}

struct Level {
    name: Option<NodeName>,
    dir: Option<Arc<OwnedFd>>,
    /// Device and inode.
    identity: (u64, u64),
    entries: std::vec::IntoIter<(NodeName, FileKind)>,
}

impl Walker {
    pub(super) fn new(root: &Path, filter: Option<Filter>, depth_max: usize) -> Self {
        Self {
            // without a trailing slash, which would follow a link
            root: root.components().collect(),
            levels: Vec::new(),
            filter,
            depth_max,
            state: State::Start,
        }
    }

    pub(super) fn next(&mut self) -> Option<Plan> {
        let (name, result) = match self.state {
            State::End => return None,
            State::Start => {
                self.state = State::Inside;
                (None, self.enter_root())
            }
            State::Inside => match self.next_entry() {
                Some((name, kind)) => (Some(name.clone()), self.enter(name, kind)),
                None => {
                    self.levels.pop();
                    if self.levels.is_empty() {
                        self.state = State::End;
                    }
                    return Some(Plan::DirectoryEnd);
                }
            },
        };
        if self.levels.is_empty() || result.is_err() {
            self.state = State::End;
        }
        Some(result.unwrap_or_else(|reason| Plan::Failed { name, reason }))
    }

    fn next_entry(&mut self) -> Option<(NodeName, FileKind)> {
        loop {
            let (name, kind) = self.levels.last_mut()?.entries.next()?;
            let Some(filter) = &self.filter else {
                return Some((name, kind));
            };
            if filter(&self.relative(&name), kind) {
                return Some((name, kind));
            }
        }
    }

    fn relative(&self, name: &NodeName) -> Vec<u8> {
        let names = self.levels.iter().filter_map(|level| level.name.as_ref());
        let parts: Vec<&[u8]> = names.chain([name]).map(NodeName::as_bytes).collect();
        parts.join(&b'/')
    }

    fn enter_root(&mut self) -> Result<Plan, Reason> {
        let place = Place {
            dir: None,
            name: self.root.clone(),
        };
        let stat = place.stat().map_err(Reason::io("look at"))?;
        self.enter_place(None, place, kind_of(FileType::from_raw_mode(stat.st_mode)))
    }

    fn enter(&mut self, name: NodeName, kind: FileKind) -> Result<Plan, Reason> {
        use std::os::unix::ffi::OsStrExt;
        let place = Place {
            dir: Some(self.top_dir()?),
            name: PathBuf::from(std::ffi::OsStr::from_bytes(name.as_bytes())),
        };
        self.enter_place(Some(name), place, kind)
    }

    fn enter_place(&mut self, name: Option<NodeName>, place: Place, kind: FileKind) -> Result<Plan, Reason> {
        match kind {
            FileKind::File => Ok(Plan::File { name, place }),
            FileKind::Symlink => Ok(Plan::Symlink { name, place }),
            FileKind::Directory => {
                if self.levels.len() >= self.depth_max {
                    // the ingest refuses it, with its own error; do not read on
                    self.state = State::End;
                    return Ok(Plan::Directory { name });
                }
                let dir = place.open(OPEN_DIRECTORY).map_err(Reason::opening)?;
                let level = read_level(name.clone(), dir)?;
                self.levels.push(level);
                if let Some(outer) = self.levels.len().checked_sub(OPEN_LEVELS + 1) {
                    self.levels[outer].dir = None;
                }
                Ok(Plan::Directory { name })
            }
            FileKind::Other(kind) => Err(Reason::Unsupported(kind)),
        }
    }

    /// The innermost directory, opened again if it was closed for the depth.
    fn top_dir(&mut self) -> Result<Arc<OwnedFd>, Reason> {
        if let Some(dir) = self.levels.last().and_then(|level| level.dir.clone()) {
            return Ok(dir);
        }
        let mut dir: Option<Arc<OwnedFd>> = None;
        for level in &self.levels {
            use std::os::unix::ffi::OsStrExt;
            let name = match &level.name {
                Some(name) => PathBuf::from(std::ffi::OsStr::from_bytes(name.as_bytes())),
                None => self.root.clone(),
            };
            let opened = Place { dir, name }
                .open(OPEN_DIRECTORY)
                .map_err(Reason::opening)?;
            let stat = fstat(&opened).map_err(Reason::io("look at"))?;
            if identity(&stat) != level.identity {
                return Err(Reason::Swapped);
            }
            dir = Some(Arc::new(opened));
        }
        let dir = dir.ok_or(Reason::Swapped)?;
        if let Some(level) = self.levels.last_mut() {
            level.dir = Some(Arc::clone(&dir));
        }
        Ok(dir)
    }
}

fn read_level(name: Option<NodeName>, dir: OwnedFd) -> Result<Level, Reason> {
    let stat = fstat(&dir).map_err(Reason::io("look at"))?;
    let mut entries = Vec::new();
    for entry in Dir::read_from(&dir).map_err(Reason::io("list"))? {
        let entry = entry.map_err(Reason::io("list"))?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            // some file systems do not say
            FileType::Unknown => statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                .map(|stat| FileType::from_raw_mode(stat.st_mode))
                .map_err(Reason::io("look at an entry of"))?,
            kind => kind,
        };
        entries.push((NodeName::try_from(bytes).map_err(Reason::Name)?, kind_of(kind)));
    }
    entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Level {
        name,
        dir: Some(Arc::new(dir)),
        identity: identity(&stat),
        entries: entries.into_iter(),
    })
}

fn kind_of(kind: FileType) -> FileKind {
    match kind {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Other("a named pipe"),
        FileType::Socket => FileKind::Other("a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => FileKind::Other("a device"),
        FileType::Unknown => FileKind::Other("of an unknown kind"),
    }
}

#[allow(
    clippy::unnecessary_cast,
    clippy::cast_sign_loss,
    reason = "the fields' types differ between systems"
)]
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}
