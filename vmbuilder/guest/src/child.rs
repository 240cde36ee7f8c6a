//! What the forked child does until it is the build's program.
//!
//! Invariants
//! - nothing here allocates or takes a lock (see `sys::fork_into`): everything is made ready in [`Plan`] before;
//! - the order matters: mounts and names need root, limits come before the user changes, the filter comes last.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::process::{Resource, Rlimit, chdir, getrlimit, pivot_root, setrlimit, setsid, umask};
use rustix::thread::{Gid, Uid, UnshareFlags};

use crate::network;
use crate::sys::{self, StringArray};

/// Most open files; soft and hard alike, as nix-daemon.service has it.
const OPEN_FILES_MAX: u64 = 1 << 20;
/// What builds run with.
const UMASK: u32 = 0o022;

/// Everything the child needs.
#[derive(Debug)]
pub struct Plan {
    /// The build's root, a mount.
    pub root: CString,
    /// The root's `proc`.
    pub proc: CString,
    /// The program, inside the root.
    pub program: CString,
    /// Its arguments.
    pub arguments: StringArray,
    /// Its environment.
    pub environment: StringArray,
    /// Where it starts, inside the root.
    pub working_dir: CString,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// `gethostname`.
    pub hostname: Vec<u8>,
    /// `getdomainname`.
    pub domainname: Vec<u8>,
    /// As personality(2) takes it.
    pub personality: u64,
    /// Whether the network namespace is its own, with a loopback to bring up.
    pub has_own_network: bool,
    /// Whether it starts in a control group of its own.
    pub has_cgroup: bool,
    /// Most processes of its user, where no control group counts them.
    pub processes: Option<u64>,
    /// Its system call filter.
    pub filter: Vec<libc::sock_filter>,
}

/// Descriptors the child starts with.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors<'a> {
    /// Its stdin.
    pub null: BorrowedFd<'a>,
    /// Its stdout and stderr.
    pub terminal: BorrowedFd<'a>,
    /// Where it says what failed; closed by exec.
    pub report: BorrowedFd<'a>,
}

/// What the child was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChildStep {
    /// Its session, signals and descriptors.
    Setup,
    /// Its mounts.
    Mounts,
    /// Host name and network.
    Names,
    /// Limits and personality.
    Limits,
    /// User, group and filter.
    Identity,
    /// Its working directory.
    WorkingDir,
    /// The program itself.
    Exec,
}

impl ChildStep {
    const ALL: [Self; 7] = [
        Self::Setup,
        Self::Mounts,
        Self::Names,
        Self::Limits,
        Self::Identity,
        Self::WorkingDir,
        Self::Exec,
    ];

    /// The step and error number of a report; `None` for bytes that are no report.
    pub fn parse(report: [u8; 5]) -> Option<(Self, Errno)> {
        let [step, errno @ ..] = report;
        let step = Self::ALL.get(usize::from(step)).copied()?;
        Some((step, Errno::from_raw_os_error(i32::from_le_bytes(errno))))
    }
}

/// Becomes the program, or reports why not and exits.
pub fn run(plan: &Plan, descriptors: Descriptors<'_>) -> ! {
    let (step, errno) = match prepare(plan, descriptors) {
        Ok(()) => (
            ChildStep::Exec,
            sys::execve(&plan.program, &plan.arguments, &plan.environment),
        ),
        Err(failure) => failure,
    };
    let mut report = [step as u8, 0, 0, 0, 0];
    report[1..].copy_from_slice(&errno.raw_os_error().to_le_bytes());
    // when this fails too, the reader sees a child that ended without a word
    let _ = rustix::io::write(descriptors.report, &report);
    sys::exit_now(1)
}

fn prepare(plan: &Plan, descriptors: Descriptors<'_>) -> Result<(), (ChildStep, Errno)> {
    let at = |step| move |errno| (step, errno);
    set_up(descriptors).map_err(at(ChildStep::Setup))?;
    enter_root(plan).map_err(at(ChildStep::Mounts))?;
    set_names(plan).map_err(at(ChildStep::Names))?;
    set_limits(plan).map_err(at(ChildStep::Limits))?;
    become_builder(plan).map_err(at(ChildStep::Identity))?;
    chdir(plan.working_dir.as_c_str()).map_err(at(ChildStep::WorkingDir))
}

fn set_up(descriptors: Descriptors<'_>) -> Result<(), Errno> {
    setsid()?;
    sys::reset_signals();
    rustix::stdio::dup2_stdin(descriptors.null)?;
    rustix::stdio::dup2_stdout(descriptors.terminal)?;
    rustix::stdio::dup2_stderr(descriptors.terminal)?;
    // the three were opened after the agent's own stdio, so none of them is below 3
    debug_assert!(descriptors.report.as_raw_fd() > 2);
    sys::close_from_on_exec(3)
}

/// The old root goes away whole: nothing of the agent's is mounted in the build's namespace.
fn enter_root(plan: &Plan) -> Result<(), Errno> {
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(c"proc", plan.proc.as_c_str(), c"proc", flags, None::<&CStr>)?;
    chdir(plan.root.as_c_str())?;
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    chdir(c"/")
}

fn set_names(plan: &Plan) -> Result<(), Errno> {
    rustix::system::sethostname(&plan.hostname)?;
    rustix::system::setdomainname(&plan.domainname)?;
    if plan.has_own_network {
        network::loopback_up()?;
    }
    if plan.has_cgroup {
        // its own group is the root it sees in /proc/self/cgroup
        #[allow(
            unsafe_code,
            reason = "rustix marks all of unshare unsafe because of one flag"
        )]
        // SAFETY: the unsafe flag is FILES, which is not given.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }?;
    }
    Ok(())
}

fn set_limits(plan: &Plan) -> Result<(), Errno> {
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: None,
        },
    )
    .or_else(|errno| match errno {
        Errno::PERM => set_within(Resource::Core, Some(0)),
        errno => Err(errno),
    })?;
    set_both(Resource::Nofile, Some(OPEN_FILES_MAX))?;
    set_both(Resource::Nproc, plan.processes)?;
    umask(Mode::from_raw_mode(UMASK));
    sys::set_personality(plan.personality)
}

/// Sets the soft and the hard limit; where not even root may raise the hard one (containers), as far as it allows.
fn set_both(resource: Resource, wanted: Option<u64>) -> Result<(), Errno> {
    match setrlimit(
        resource,
        Rlimit {
            current: wanted,
            maximum: wanted,
        },
    ) {
        Err(Errno::PERM) => set_within(resource, wanted),
        result => result,
    }
}

fn set_within(resource: Resource, wanted: Option<u64>) -> Result<(), Errno> {
    let maximum = getrlimit(resource).maximum;
    let current = match (wanted, maximum) {
        (Some(wanted), Some(maximum)) => Some(wanted.min(maximum)),
        (wanted, maximum) => wanted.or(maximum),
    };
    setrlimit(resource, Rlimit { current, maximum })
}

fn become_builder(plan: &Plan) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::set_no_new_privs(true)?;
    sys::set_seccomp_filter(&plan.filter)
}
