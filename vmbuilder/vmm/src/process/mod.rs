//! A child process that cannot outlive us.
//!
//! Invariants
//! - a [`Process`] is running or reaped; dropping it kills and reaps it before `drop` returns;
//! - when our process dies in any way, the kernel kills the child (PR_SET_PDEATHSIG). That signal follows the *thread*
//!   that forked, so all children are forked by one thread that never ends (prctl(2));
//! - the child inherits the descriptors it was given and no other, and an almost empty environment; it can gain no
//!   right by running a program (PR_SET_NO_NEW_PRIVS), and dumps no core.

mod identity;
mod rights;
mod sys;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

pub use identity::{ProcessId, ReadIdentityError};
pub use rights::may_become;
pub(crate) use sys::effective_uid;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

/// What to start.
#[derive(Debug)]
pub struct Launch {
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments, without the zeroth.
    pub arguments: Vec<OsString>,
    /// Descriptors the child keeps under the numbers they have here; our copies are closed after the start.
    pub inherited: Vec<OwnedFd>,
    /// Who the child becomes before it runs; only root can change it.
    pub identity: Option<Identity>,
}

/// Who a process is, for the kernel's checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Reaped,
    exit: AsyncFd<OwnedFd>,
    id: ProcessId,
}

impl Process {
    /// Starts a child, with `/dev/null` as input and pipes as output and error output.
    ///
    /// # Errors
    /// Whatever fork, exec or pidfd_open answered.
    pub async fn start(launch: Launch) -> io::Result<(Self, ChildStdout, ChildStderr)> {
        let (reply, answer) = oneshot::channel();
        spawner()?
            .send(Box::new(move || {
                let child = fork(&launch);
                // the child's end of a socket must be the child's alone, or its death would go unnoticed
                drop(launch);
                // a receiver that is gone drops the child, which kills it
                let _ = reply.send(child);
            }))
            .map_err(|_| io::Error::other("the thread that starts processes has ended"))?;
        let mut child = answer
            .await
            .map_err(|_| io::Error::other("the thread that starts processes has ended"))??;
        let (Some(stdout), Some(stderr)) = (child.0.stdout.take(), child.0.stderr.take()) else {
            return Err(io::Error::other("the child was started without pipes"));
        };
        let pid = child.0.id();
        let exit = sys::watch_exit(sys::pidfd_open(pid)?)?;
        // the child is ours and not reaped, so its number cannot have been given to another
        let id = ProcessId::of(pid).map_err(io::Error::other)?;
        Ok((Self { child, exit, id }, stdout, stderr))
    }

    /// Names the process for as long as the machine is up.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Waits for the end. Can be asked again, and dropped at any point.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            let mut guard = self.exit.readable().await?;
            match self.child.0.try_wait()? {
                Some(status) => return Ok(status),
                None => guard.clear_ready(),
            }
        }
    }

    /// Kills and reaps the child. Blocks for as long as the kernel needs to take it down.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.0.kill()?;
        self.child.0.wait()
    }
}

/// Kills a process of an earlier run, if it is still that process.
///
/// Returns whether there was one to kill. Does not wait for it to be gone.
pub fn kill_stray(id: ProcessId) -> io::Result<bool> {
    // a descriptor pins the process: after it is open, the identity is checked, then the signal cannot hit another
    let Ok(pidfd) = sys::pidfd_open(id.pid()) else {
        return Ok(false);
    };
    match ProcessId::of(id.pid()) {
        Ok(now) if now == id => sys::pidfd_kill(&pidfd).map(|()| true),
        _ => Ok(false),
    }
}

#[derive(Debug)]
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // both fail only when the child was reaped already
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

type Job = Box<dyn FnOnce() + Send>;

fn spawner() -> io::Result<&'static Sender<Job>> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    if let Some(sender) = SPAWNER.get() {
        return Ok(sender);
    }
    let (sender, jobs) = channel::<Job>();
    std::thread::Builder::new()
        .name("vm-spawner".into())
        .spawn(move || jobs.into_iter().for_each(|job| job()))?;
    // when two callers race, the loser's thread ends at once: its sender is dropped here
    Ok(SPAWNER.get_or_init(|| sender))
}

fn fork(launch: &Launch) -> io::Result<Reaped> {
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let keep: Vec<RawFd> = launch.inherited.iter().map(AsRawFd::as_raw_fd).collect();
    sys::prepare_child(&mut command, keep, launch.identity.clone());
    command.spawn().map(Reaped)
}

#[cfg(test)]
mod tests;
