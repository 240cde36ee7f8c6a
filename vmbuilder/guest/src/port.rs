//! The control channel: a virtio-serial port with a name.
//!
//! The port is used without blocking: a blocking write spins, interrupts off, until the host has taken the bytes
//! (drivers/char/virtio_console.c, __send_to_port).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use igloo_control::PORT_NAME;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::{Step, StepError};

const PORTS: &str = "/sys/class/virtio-ports";
/// Longest wait for the port, and for the host to open its end. The host's own deadline is shorter.
const DEADLINE: Duration = Duration::from_secs(60);
/// Ports appear and open without an event a poll could see.
const RETRY: Duration = Duration::from_millis(1);

/// An open port; reads and writes wait, the device does not.
#[derive(Debug)]
pub struct Port(File);

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // a host that has gone reads as the end
                    self.wait_for(PollFlags::IN)?;
                }
                result => return result,
            }
        }
    }
}

impl Write for Port {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.wait_for(PollFlags::OUT)?.contains(PollFlags::HUP) {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Port {
    fn wait_for(&self, events: PollFlags) -> io::Result<PollFlags> {
        let mut fds = [PollFd::new(&self.0, events)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(fds[0].revents()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Opens the port once it is there and the host is at its other end.
///
/// # Errors
/// When no such port appears in a minute, or it cannot be opened.
pub fn open() -> Result<Port, StepError> {
    let give_up = Instant::now() + DEADLINE;
    let device = wait(give_up, || find(Path::new(PORTS)))
        .ok_or(Errno::NODEV)
        .step("find the port", PORT_NAME)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let port = options.open(&device).step("open", &device)?;
    wait(give_up, || is_connected(&port).then_some(()))
        .ok_or(Errno::TIMEDOUT)
        .step("reach the host by", &device)?;
    Ok(Port(port))
}

fn wait<T>(give_up: Instant, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() >= give_up {
            return None;
        }
        std::thread::sleep(RETRY);
    }
}

/// The device node of the port with our name.
fn find(ports: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(ports).ok()?.flatten();
    let is_ours = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME)
    };
    let entry = entries.into_iter().find(is_ours)?;
    Some(Path::new("/dev").join(entry.file_name()))
}

/// A port whose other end is closed polls as hung up.
fn is_connected(port: &File) -> bool {
    let mut fds = [PollFd::new(port, PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The port is found by its name, whatever its number.
    #[test]
    fn ports_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for (port, name) in [
            ("vport0p1", "org.qemu.guest_agent.0\n"),
            ("vport1p1", "igloo.control\n"),
        ] {
            fs::create_dir(dir.path().join(port)).unwrap();
            fs::write(dir.path().join(port).join("name"), name).unwrap();
        }
        assert_eq!(find(dir.path()), Some(PathBuf::from("/dev/vport1p1")));
        assert_eq!(find(&dir.path().join("none")), None);
    }
}
