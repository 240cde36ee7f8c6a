//! The system calls around a child that std has no safe face for.
#![allow(
    unsafe_code,
    reason = "pre_exec and raw system calls; each block says why it is sound"
)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Identity;

/// Makes the child die with the calling thread, keep these descriptors, dump no core, and lead its own process group
/// (a Ctrl-C at the terminal reaches us, and we decide).
pub(super) fn prepare_child(command: &mut Command, keep: Vec<RawFd>, identity: Option<Identity>) {
    command.process_group(0);
    // SAFETY: getpid has no preconditions.
    let parent = unsafe { libc::getpid() };
    // SAFETY: between fork and exec the closure only makes async-signal-safe system calls on values it owns; it does not
    // allocate (`last_os_error` does not) and takes no lock.
    unsafe { command.pre_exec(move || in_child(parent, &keep, identity.as_ref())) };
}

fn in_child(parent: libc::pid_t, keep: &[RawFd], identity: Option<&Identity>) -> io::Result<()> {
    // first, for the kernel forgets the signal below when a process becomes another (commit_creds(), kernel/cred.c)
    if let Some(identity) = identity {
        become_other(identity)?;
    }
    // SAFETY: PR_SET_NO_NEW_PRIVS takes integers by value.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: prctl(PR_SET_PDEATHSIG) takes a signal number by value.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // the parent may have died before the line above; then nobody will ever send the signal
    // SAFETY: getppid has no preconditions.
    if unsafe { libc::getppid() } != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live rlimit for the length of the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) })?;
    // what we were started with ourselves may be open; before Linux 5.11 this fails, and then ours alone are closed
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC closes nothing now, it only marks descriptors of this process.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    for fd in keep {
        // SAFETY: F_SETFD takes an int by value; the descriptor is open because the parent still holds its `OwnedFd`.
        check(unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) })?;
    }
    Ok(())
}

/// The raw calls: the C library's would signal threads that a forked child does not have.
fn become_other(identity: &Identity) -> io::Result<()> {
    let Identity { uid, gid, groups } = identity;
    // SAFETY: the pointer and the count are of one live slice; the other calls take integers by value.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()),
            libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid),
            libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid),
        ]
    };
    if results == [0; 3] {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Who this process is.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() }
}

/// A descriptor that becomes readable when the process ends (pidfd_open(2)).
pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers by value.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, libc::PIDFD_NONBLOCK) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor of [`pidfd_open`] in the current runtime, readable at the process's end.
pub(super) fn watch_exit(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open under one number until it is dropped, and `AsyncFd` owns it alone.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Kills the process a descriptor stands for (pidfd_send_signal(2)).
pub(super) fn pidfd_kill(pidfd: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is live, the info pointer may be null, flags are zero.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
