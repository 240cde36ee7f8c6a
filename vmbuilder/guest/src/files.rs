//! Placing the host's files in a root.
//!
//! Invariants
//! - no link is ever followed and nothing is overwritten: each part is opened on its own with O_NOFOLLOW, the file with
//!   O_EXCL;
//! - a file of the build's lies below a scratch path, and directories made for it belong to the build too.

use std::io::Write;
use std::os::fd::OwnedFd;

use igloo_control::BuildSpec;
use igloo_control::message::{FailureClass, FileOwner};
use igloo_control::spec::is_clean_path;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::error::{Step, StepError};
use crate::root::Root;

/// A file whose bytes are arriving.
#[derive(Debug)]
pub struct PlacedFile {
    file: std::fs::File,
    name: String,
}

impl PlacedFile {
    /// Makes an empty file and the directories above it.
    ///
    /// # Errors
    /// `Path` for a path outside the root, or of the build's outside scratch; else the step that failed.
    pub fn create(
        root: &Root,
        spec: &BuildSpec,
        path: &[u8],
        owner: FileOwner,
        mode: u16,
    ) -> Result<Self, PlaceError> {
        let name = path.escape_ascii().to_string();
        if !is_clean_path(path) || (owner == FileOwner::Build && !spec.is_in_scratch(path)) {
            return Err(PlaceError::Path { path: name });
        }
        let ids = match owner {
            FileOwner::System => (Uid::ROOT, Gid::ROOT),
            FileOwner::Build => (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid)),
        };
        let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let file_name = parts.pop().unwrap_or_default();
        let mut dir = open_dir(root.path()).step("open", root.path())?;
        for part in parts {
            dir = enter(&dir, part, ids).step("create a directory for", &name)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&dir, file_name, flags, Mode::from_raw_mode(0o600)).step("create", &name)?;
        rustix::fs::fchown(&file, Some(ids.0), Some(ids.1)).step("set the owner of", &name)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode.into())).step("set the mode of", &name)?;
        Ok(Self {
            file: file.into(),
            name,
        })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When the scratch file system is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PlaceError> {
        Ok(self.file.write_all(bytes).step("write", &self.name)?)
    }
}

fn open_dir(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens a directory below another, making it first if need be.
fn enter(dir: &OwnedFd, name: &[u8], ids: (Uid, Gid)) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => rustix::fs::chownat(
            dir,
            name,
            Some(ids.0),
            Some(ids.1),
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Why a file was not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Not where such a file may be.
    #[error("the file `{path}` lies outside the build's root or scratch paths")]
    Path {
        /// Where, escaped.
        path: String,
    },
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
}

impl PlaceError {
    /// Whose fault it is.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Path { .. } => FailureClass::Request,
            Self::Step(error) => match error.errno {
                Errno::EXIST | Errno::NOTDIR | Errno::LOOP => FailureClass::Request,
                _ => error.class(),
            },
        }
    }
}
