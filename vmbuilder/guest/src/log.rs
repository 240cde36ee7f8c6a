//! A build's output: one terminal in raw mode, as C++ Nix gives it, read without ever waiting.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::error::{Step, StepError};

/// Most bytes of one log message.
const CHUNK_SIZE: usize = 64 << 10;
/// From this many bytes on, more are worth waiting for: every message costs the host an exit of the machine.
const BURST_SIZE: usize = 1 << 10;
/// How long a burst may pause, and how long it may last in all.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};
const BURST: Duration = Duration::from_millis(20);
/// How long a closed terminal may take to hand out its last bytes, seconds.
const DRAIN_SECONDS: i64 = 2;

/// The reading end of a build's terminal.
#[derive(Debug)]
pub struct LogReader {
    master: OwnedFd,
    buffer: Vec<u8>,
    is_open: bool,
}

impl LogReader {
    /// Opens a terminal; gives the end for the build's stdout and stderr too.
    ///
    /// # Errors
    /// The step that failed.
    pub fn open() -> Result<(Self, OwnedFd), StepError> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).step("open", "a terminal")?;
        unlockpt(&master).step("unlock", "a terminal")?;
        let slave = ioctl_tiocgptpeer(&master, flags).step("open the other end of", "a terminal")?;
        // no echo, no line buffering, no `\n` turned into `\r\n`
        let mut mode = tcgetattr(&slave).step("read the mode of", "a terminal")?;
        mode.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &mode).step("set the mode of", "a terminal")?;
        rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK | OFlags::RDWR)
            .step("set the mode of", "a terminal")?;
        Ok((
            Self {
                master,
                buffer: vec![0; CHUNK_SIZE],
                is_open: true,
            },
            slave,
        ))
    }

    /// What to wait for; `None` when nothing more can come from what is open now.
    pub fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.is_open.then(|| self.master.as_fd())
    }

    /// What there is to read now, at most a message's worth; empty when nothing is.
    ///
    /// # Errors
    /// When the terminal breaks.
    pub fn read(&mut self) -> Result<&[u8], StepError> {
        let mut size = 0;
        let begun = Instant::now();
        // a terminal gives at most a page at a time, and the next one only when that is gone
        while size < self.buffer.len() {
            match rustix::io::read(&self.master, &mut self.buffer[size..]) {
                Err(Errno::AGAIN) if size >= BURST_SIZE && begun.elapsed() < BURST && self.has_more()? => {}
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(read) => size += read,
                Err(Errno::INTR) => {}
                // nobody has the other end open
                Err(Errno::IO) => {
                    self.is_open = false;
                    break;
                }
                Err(errno) => return Err(errno).step("read", "the build's terminal"),
            }
        }
        Ok(&self.buffer[..size])
    }

    /// Whether more comes within a pause.
    fn has_more(&self) -> Result<bool, StepError> {
        match poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&PAUSE)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno).step("wait for", "the build's terminal"),
        }
    }

    /// What is left once everything that held the other end is dead; empty when nothing is.
    ///
    /// # Errors
    /// When the terminal breaks.
    pub fn drain(&mut self) -> Result<&[u8], StepError> {
        if self.is_open {
            let timeout = Timespec {
                tv_sec: DRAIN_SECONDS,
                tv_nsec: 0,
            };
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Ok(&[]),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).step("wait for", "the build's terminal"),
            }
        }
        self.read()
    }
}
