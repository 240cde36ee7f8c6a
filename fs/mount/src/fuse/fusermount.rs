//! Mounting without root, through the set-uid helper `fusermount3`.
//!
//! The helper mounts and sends the opened device back over a socket whose number it reads from `_FUSE_COMMFD`
//! (libfuse, util/fusermount.c). The socket is its standard input, so no descriptor is inherited by accident.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::MountOptions;
use crate::fs::READ_SIZE_MAX;

const HELPER: &str = "fusermount3";
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the helper did not mount.
#[derive(Debug, thiserror::Error)]
pub enum FusermountError {
    /// It is not installed, or cannot be run.
    #[error("{HELPER} cannot be run; install fuse3")]
    Run(#[source] io::Error),
    /// It refused.
    #[error("{HELPER} refused: {message}")]
    Refused {
        /// What it wrote.
        message: String,
    },
    /// It gave no device.
    #[error("{HELPER} sent no device")]
    NoDevice(#[source] io::Error),
}

/// Mounts; returns the device, and for `auto_unmount` the socket whose end makes the helper unmount.
pub(super) fn mount(
    dir: &Path,
    options: &MountOptions,
) -> Result<(OwnedFd, Option<UnixStream>), FusermountError> {
    let (ours, theirs) = UnixStream::pair().map_err(FusermountError::Run)?;
    ours.set_read_timeout(Some(PATIENCE))
        .map_err(FusermountError::Run)?;
    let mut child = Command::new(HELPER)
        .arg("-o")
        .arg(option_text(options))
        .arg("--")
        .arg(dir)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(FusermountError::Run)?;
    if let Ok(device) = receive(&ours) {
        if options.auto_unmount {
            return Ok((device, Some(ours))); // the child stays until this process ends, and needs no waiting for
        }
        let _ = child.wait(); // it has done its work, whatever it says now
        return Ok((device, None));
    }
    drop(ours);
    let output = child.wait_with_output().map_err(FusermountError::Run)?;
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() && message.is_empty() {
        return Err(FusermountError::NoDevice(io::ErrorKind::UnexpectedEof.into()));
    }
    Err(FusermountError::Refused { message })
}

/// Unmounts what the helper mounted.
pub(super) fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new(HELPER);
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(dir);
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

fn option_text(options: &MountOptions) -> String {
    // a comma would start another option
    let source: String = options
        .source
        .chars()
        .filter(|char| !matches!(char, ',' | '\\'))
        .collect();
    let mut text = format!(
        "ro,nosuid,nodev,noatime,default_permissions,max_read={READ_SIZE_MAX},subtype=igloo,fsname={source}"
    );
    if options.allow_other {
        text.push_str(",allow_other");
    }
    if options.auto_unmount {
        text.push_str(",auto_unmount");
    }
    text
}

fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 8];
    recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    files
        .next()
        .and_then(|mut files| files.next())
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
