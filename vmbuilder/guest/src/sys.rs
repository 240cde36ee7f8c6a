//! System calls no safe crate offers, each behind a safe face.
#![allow(
    unsafe_code,
    reason = "clone3, execve, wait4, seccomp and interface ioctls have no safe wrapper"
)]

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;

/// ADDR_NO_RANDOMIZE (linux/personality.h).
pub const ADDR_NO_RANDOMIZE: u64 = 0x004_0000;
/// PER_LINUX32 (linux/personality.h).
pub const PER_LINUX32: u64 = 0x0008;

const CLOSE_RANGE_CLOEXEC: c_long = 4;
const SECCOMP_SET_MODE_FILTER: c_long = 1;

/// Arguments of clone3 (linux/sched.h).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// CLONE_INTO_CGROUP (linux/sched.h).
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// A process started by [`fork_into`].
#[derive(Debug)]
pub struct Forked {
    /// Its number, as the caller sees it.
    pub pid: c_int,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

/// Forks into new namespaces (`CLONE_NEW*` bits) and, if given, a control group. The child calls `child`, which
/// should not return, and ends.
///
/// `child` must not allocate nor take a lock: when the caller has other threads, theirs stay locked for ever.
///
/// # Errors
/// What clone3 says.
pub fn fork_into(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce(),
) -> Result<Forked, Errno> {
    let mut pidfd: RawFd = -1;
    let pidfd_flag = u64::from(libc::CLONE_PIDFD.unsigned_abs());
    let cgroup_flag = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let arguments = CloneArgs {
        flags: namespaces | pidfd_flag | cgroup_flag,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM this is a fork: the child has a copy of everything. `arguments` lives across the call and
    // its size is that of version 2 of the structure.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) };
    match result {
        0 => {
            child();
            exit_now(127)
        }
        1.. => Ok(Forked {
            pid: c_int::try_from(result).map_err(|_| Errno::OVERFLOW)?,
            // SAFETY: with CLONE_PIDFD the kernel has stored a descriptor nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        _ => Err(last_errno()),
    }
}

/// Ends this process at once, running nothing else.
pub fn exit_now(code: c_int) -> ! {
    // SAFETY: _exit runs no handlers and does not return.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from `first` on to be closed by exec.
///
/// # Errors
/// What close_range says.
pub fn close_from_on_exec(first: RawFd) -> Result<(), Errno> {
    // SAFETY: changes flags of descriptors only.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            c_long::from(u32::MAX),
            CLOSE_RANGE_CLOEXEC,
        )
    })
}

/// Gives every signal its default action and unblocks all.
///
/// By the system call itself: the C library keeps two or three real-time signals to itself and refuses to change them, so
/// that an action a parent has set for them would stay.
pub fn reset_signals() {
    /// Bytes of the kernel's signal set (`sigset_t`, asm-generic/signal.h).
    const SET_SIZE: usize = 8;
    // handler, flags, restorer, mask: all zeros is SIG_DFL with nothing blocked
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: `default` is a whole `struct sigaction` of the kernel and outlives the call; the old action is not asked
        // for. The two signals that cannot change answer EINVAL, which is fine.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<u64>(),
                SET_SIZE,
            )
        };
    }
    // SAFETY: an all-zero set is empty and valid; the old set is not asked for.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Sets the kernel personality.
///
/// # Errors
/// What personality says.
pub fn set_personality(personality: u64) -> Result<(), Errno> {
    // SAFETY: changes how this process sees the kernel, no memory.
    check(unsafe { libc::syscall(libc::SYS_personality, personality) })
}

/// Puts a filter on the system calls of this process and its children. Needs NO_NEW_PRIVS.
///
/// # Errors
/// What seccomp says.
pub fn set_seccomp_filter(program: &[libc::sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(|_| Errno::INVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions from `filter` and checks them; both live across the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
}

/// Strings as execve wants them: pointers, the last one null.
#[derive(Debug)]
pub struct StringArray {
    pointers: Vec<*const c_char>,
    _strings: Vec<std::ffi::CString>,
}

impl StringArray {
    /// Keeps the strings and points to them.
    pub fn new(strings: Vec<std::ffi::CString>) -> Self {
        // a CString's bytes are on the heap: moving the vector leaves them where they are
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect();
        Self {
            pointers,
            _strings: strings,
        }
    }
}

/// Replaces this process by a program; returns only on failure.
pub fn execve(path: &CStr, arguments: &StringArray, environment: &StringArray) -> Errno {
    // SAFETY: both arrays are null-terminated and point to strings that live as long as they do.
    unsafe {
        libc::execve(
            path.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    last_errno()
}

/// How a child ended, and its processor time.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// As wait gives it.
    pub status: c_int,
    /// Microseconds in the program and its waited-for children.
    pub user_us: u64,
    /// Microseconds in the kernel on their behalf.
    pub system_us: u64,
}

/// Waits for a child to end.
///
/// # Errors
/// What wait4 says.
pub fn wait(pid: c_int) -> Result<Ended, Errno> {
    let mut status = 0;
    // SAFETY: plain data, all zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to locals of the right type.
        let result = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if result == pid {
            let (user_us, system_us) = (micros(usage.ru_utime), micros(usage.ru_stime));
            return Ok(Ended {
                status,
                user_us,
                system_us,
            });
        }
        match last_errno() {
            Errno::INTR => {}
            errno => return Err(errno),
        }
    }
}

fn micros(time: libc::timeval) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(micros)
}

/// Ties an interface request to a descriptor of any socket.
///
/// # Errors
/// What the ioctl says.
pub fn interface_ioctl<T>(
    socket: BorrowedFd<'_>,
    request: InterfaceRequest,
    argument: &mut T,
) -> Result<(), Errno>
where
    T: InterfaceArgument,
{
    let number = libc::Ioctl::from(request as u16);
    let argument: *mut c_void = ptr::from_mut(argument).cast();
    // SAFETY: `InterfaceArgument` is only implemented for the structures these requests read and write.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), number, argument) }.into())
}

/// Requests of [`interface_ioctl`] (linux/sockios.h).
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub enum InterfaceRequest {
    /// SIOCADDRT
    AddRoute = 0x890b,
    /// SIOCGIFFLAGS
    GetFlags = 0x8913,
    /// SIOCSIFFLAGS
    SetFlags = 0x8914,
    /// SIOCSIFADDR
    SetAddress = 0x8916,
    /// SIOCSIFNETMASK
    SetMask = 0x891c,
}

/// A structure an interface request takes.
pub trait InterfaceArgument: private::Sealed {}

impl InterfaceArgument for libc::ifreq {}
impl InterfaceArgument for libc::rtentry {}

mod private {
    pub trait Sealed {}
    impl Sealed for libc::ifreq {}
    impl Sealed for libc::rtentry {}
}

/// An interface request about one interface.
pub fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: plain data, all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(room)) {
        *to = c_char::from_ne_bytes([from]);
    }
    request
}

/// The flags of a request answered by `GetFlags`.
pub fn interface_flags(request: &libc::ifreq) -> i16 {
    // SAFETY: every bit pattern is a number.
    unsafe { request.ifr_ifru.ifru_flags }
}

/// A route to everywhere through a gateway.
pub fn default_route(gateway: [u8; 4]) -> libc::rtentry {
    // SAFETY: plain data, all zeroes are valid (no device name).
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = ipv4([0; 4]);
    route.rt_genmask = ipv4([0; 4]);
    route.rt_gateway = ipv4(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    route
}

/// An IPv4 address as a socket address.
pub fn ipv4(address: [u8; 4]) -> libc::sockaddr {
    // SAFETY: plain data, all zeroes are valid.
    let mut socket: libc::sockaddr = unsafe { std::mem::zeroed() };
    socket.sa_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
    for (to, from) in socket.sa_data[2..6].iter_mut().zip(address) {
        *to = c_char::from_ne_bytes([from]);
    }
    socket
}

fn check(result: c_long) -> Result<(), Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
