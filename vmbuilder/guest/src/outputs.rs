//! Streaming a build's outputs to the host.
//!
//! Everything of the build is dead by now, so the tree stands still; it is hostile all the same: any type, any name, any
//! depth. It is walked without recursion, each entry opened relative to its directory and never through a link.
//!
//! Invariants
//! - names come in ascending byte order;
//! - a file's bytes are exactly as many as announced;
//! - memory is bounded by the names of the open directories, descriptors by the depth.
//!
//! Source of the checks: Nix 2.36, derivation-builder.cc (registerOutputs) and posix-fs-canonicalise.cc.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::vec::IntoIter;

use bytes::{Bytes, BytesMut};
use igloo_control::message::{DATA_SIZE_MAX, OutputReason};
use igloo_control::sequence::DEPTH_MAX;
use igloo_control::spec::is_clean_path;
use igloo_control::{BuildSpec, GuestMessage};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

/// Takes messages on their way to the host; its error ends the stream.
pub trait Sink<E>: FnMut(GuestMessage) -> Result<(), E> {}

impl<E, F: FnMut(GuestMessage) -> Result<(), E>> Sink<E> for F {}

/// Streams every output of the spec below `root`, and `Collected` or the first thing wrong.
///
/// # Errors
/// Only the sink's own: what is wrong with an output is a message.
pub fn stream<E>(root: BorrowedFd<'_>, spec: &BuildSpec, send: &mut impl Sink<E>) -> Result<(), E> {
    let mut left_bytes = spec.limits.output_bytes.unwrap_or(u64::MAX);
    for (index, path) in (0u32..).zip(&spec.outputs) {
        let mut walk = Walk {
            uid: spec.uid,
            left_bytes,
            path: Vec::new(),
            levels: Vec::new(),
            send,
        };
        match walk.output(root, index, path) {
            Ok(()) => left_bytes = walk.left_bytes,
            Err(Stop::Sink(error)) => return Err(error),
            Err(Stop::Wrong(reason)) => {
                let mut at = walk.path;
                // a path may be longer than any message: what counts is where it starts
                at.truncate(igloo_control::message::TARGET_SIZE_MAX);
                return send(GuestMessage::OutputError {
                    index,
                    path: at.into(),
                    reason,
                });
            }
        }
    }
    send(GuestMessage::Collected)
}

/// Why a walk ends early.
enum Stop<E> {
    Wrong(OutputReason),
    Sink(E),
}

impl<E> From<Errno> for Stop<E> {
    fn from(errno: Errno) -> Self {
        Self::Wrong(OutputReason::Io {
            errno: errno.raw_os_error(),
        })
    }
}

struct Walk<'a, S> {
    uid: u32,
    left_bytes: u64,
    /// Where the walk is, for the report: the output's path and the names below it.
    path: Vec<u8>,
    levels: Vec<Level>,
    send: &'a mut S,
}

/// An open directory on the way down.
struct Level {
    directory: OwnedFd,
    names: IntoIter<CString>,
    path_size: usize,
}

impl<S> Walk<'_, S> {
    fn output<E>(&mut self, root: BorrowedFd<'_>, index: u32, path: &[u8]) -> Result<(), Stop<E>>
    where
        S: Sink<E>,
    {
        self.path = path.to_vec();
        if !is_clean_path(path) {
            return Err(Stop::Wrong(OutputReason::NameInvalid));
        }
        let (parent, name) = open_parent(root, path)?;
        let stat = stat_entry(parent.as_fd(), &name)?;
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if !is_link && stat.st_mode & 0o022 != 0 {
            return Err(Stop::Wrong(OutputReason::Writable {
                mode: permissions(&stat),
            }));
        }
        self.say(GuestMessage::OutputBegin { index })?;
        self.entry(parent.as_fd(), &name, Bytes::new())?;
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_size);
            if let Some(name) = level.names.next() {
                self.path.push(b'/');
                self.path.extend_from_slice(name.as_bytes());
                let Some(level) = self.levels.pop() else { break };
                let shown = Bytes::copy_from_slice(name.as_bytes());
                // an entry that is a directory puts its level above this one
                let depth = self.levels.len();
                let result = self.entry(level.directory.as_fd(), &name, shown);
                self.levels.insert(depth, level);
                result?;
            } else {
                self.levels.pop();
                self.say(GuestMessage::DirectoryEnd)?;
            }
        }
        self.say(GuestMessage::OutputEnd)
    }

    fn entry<E>(&mut self, parent: BorrowedFd<'_>, name: &CString, shown: Bytes) -> Result<(), Stop<E>>
    where
        S: Sink<E>,
    {
        let stat = stat_entry(parent, name)?;
        if stat.st_uid != self.uid {
            return Err(Stop::Wrong(OutputReason::NotOwned { uid: stat.st_uid }));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(parent, name, shown),
            FileType::Directory => self.directory(parent, name, shown),
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::new())?;
                self.say(GuestMessage::Symlink {
                    name: shown,
                    target: target.into_bytes().into(),
                })
            }
            FileType::Fifo => Err(Stop::Wrong(OutputReason::Fifo)),
            FileType::Socket => Err(Stop::Wrong(OutputReason::Socket)),
            _ => Err(Stop::Wrong(OutputReason::Device)),
        }
    }

    fn directory<E>(&mut self, parent: BorrowedFd<'_>, name: &CString, shown: Bytes) -> Result<(), Stop<E>>
    where
        S: Sink<E>,
    {
        // while an entry is looked at, the level it is in is not in the list
        let depth = self.levels.len() + usize::from(!shown.is_empty());
        if depth >= DEPTH_MAX as usize {
            return Err(Stop::Wrong(OutputReason::TooDeep));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(parent, name, flags, Mode::empty())?;
        let names = sorted_names(directory.as_fd())?.into_iter();
        self.say(GuestMessage::DirectoryBegin { name: shown })?;
        self.levels.push(Level {
            directory,
            names,
            path_size: self.path.len(),
        });
        Ok(())
    }

    fn file<E>(&mut self, parent: BorrowedFd<'_>, name: &CString, shown: Bytes) -> Result<(), Stop<E>>
    where
        S: Sink<E>,
    {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Stop::Wrong(OutputReason::Changed));
        }
        let size = u64::try_from(stat.st_size).map_err(|_| Errno::OVERFLOW)?;
        self.left_bytes = self
            .left_bytes
            .checked_sub(size)
            .ok_or(Stop::Wrong(OutputReason::TooLarge))?;
        let executable = stat.st_mode & 0o100 != 0;
        self.say(GuestMessage::FileBegin {
            name: shown,
            executable,
            size,
        })?;
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(DATA_SIZE_MAX).min(DATA_SIZE_MAX);
            let data = read_some(&file, want)?;
            if data.is_empty() {
                return Err(Stop::Wrong(OutputReason::Changed));
            }
            left -= data.len() as u64;
            self.say(GuestMessage::FileData(data))?;
        }
        Ok(())
    }

    fn say<E>(&mut self, message: GuestMessage) -> Result<(), Stop<E>>
    where
        S: Sink<E>,
    {
        (self.send)(message).map_err(Stop::Sink)
    }
}

/// Opens the directory an output is in, part by part: a link among them is an error, for no output hides behind one.
fn open_parent<E>(root: BorrowedFd<'_>, path: &[u8]) -> Result<(OwnedFd, CString), Stop<E>> {
    let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let name = parts.pop().unwrap_or_default();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = openat(root, c".", flags, Mode::empty())?;
    for part in parts {
        directory = openat(&directory, part, flags, Mode::empty()).map_err(missing_or_io)?;
    }
    let name = CString::new(name).map_err(|_| Stop::Wrong(OutputReason::NameInvalid))?;
    Ok((directory, name))
}

fn stat_entry<E>(parent: BorrowedFd<'_>, name: &CString) -> Result<Stat, Stop<E>> {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(missing_or_io)
}

fn missing_or_io<E>(errno: Errno) -> Stop<E> {
    match errno {
        Errno::NOENT => Stop::Wrong(OutputReason::Missing),
        errno => errno.into(),
    }
}

fn sorted_names<E>(directory: BorrowedFd<'_>) -> Result<Vec<CString>, Stop<E>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn read_some(file: &OwnedFd, want: usize) -> Result<Bytes, Errno> {
    let mut data = BytesMut::zeroed(want);
    loop {
        match rustix::io::read(file, &mut data[..]) {
            Ok(size) => {
                data.truncate(size);
                return Ok(data.freeze());
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn permissions(stat: &Stat) -> u16 {
    u16::try_from(stat.st_mode & 0o7777).unwrap_or_default()
}

#[cfg(test)]
mod tests;
