//! Starting a build's program and waiting for its end.
//!
//! The program is process 1 of its own pid namespace: when it ends, the kernel kills everything it left behind before
//! its end can be waited for. A program that closes its output and works on is waited for all the same.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use igloo_control::BuildSpec;
use igloo_control::message::{ExitStatus, Exited, FailureClass, Resource, Usage};
use igloo_control::spec::Personality;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::cgroup::{Cgroup, machine_memory_kills};
use crate::child::{self, ChildStep, Descriptors, Plan};
use crate::error::{Step, StepError};
use crate::log::LogReader;
use crate::root::Root;
use crate::seccomp;
use crate::sys::{self, Forked, StringArray};

/// A program that runs.
#[derive(Debug)]
pub struct Program {
    process: Forked,
    cgroup: Option<Cgroup>,
    memory_kills: u64,
}

impl Program {
    /// Starts the spec's program in its root. Gives the reader of its output too.
    ///
    /// # Errors
    /// `Exec` and `WorkingDir` are the request's fault, the rest the machine's.
    pub fn start(
        spec: &BuildSpec,
        root: &Root,
        cgroup: Option<Cgroup>,
    ) -> Result<(Self, LogReader), StartError> {
        let plan = make_plan(spec, root, cgroup.is_some())?;
        let (log, terminal) = LogReader::open()?;
        let null = open_null()?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).step("open", "a pipe")?;
        let descriptors = Descriptors {
            null: null.as_fd(),
            terminal: terminal.as_fd(),
            report: writer.as_fd(),
        };
        let memory_kills = machine_memory_kills();
        let namespaces = namespaces(spec);
        let process = sys::fork_into(namespaces, cgroup.as_ref().map(Cgroup::as_fd), || {
            child::run(&plan, descriptors)
        })
        .step("start", "the build's first process")?;
        drop((terminal, writer));
        match read_report(reader) {
            None => Ok((
                Self {
                    process,
                    cgroup,
                    memory_kills,
                },
                log,
            )),
            Some((step, errno)) => {
                // it has told why it ends; how it ends says nothing more
                let _ = sys::wait(process.pid);
                Err(start_error(spec, root, step, errno))
            }
        }
    }

    /// Readable when the program has ended.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// Kills the program, and with it everything it started.
    pub fn kill(&self) {
        // it may have ended already
        let _ = rustix::process::pidfd_send_signal(&self.process.pidfd, rustix::process::Signal::KILL);
    }

    /// Waits for the end and says how it came about.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn wait(self, root: &Root) -> Result<Exited, StepError> {
        let ended = sys::wait(self.process.pid).step("wait for", "the build's first process")?;
        let cgroup = self.cgroup.as_ref();
        if let Some(cgroup) = cgroup {
            cgroup.kill();
        }
        let status = exit_status(ended.status);
        let (user_us, system_us) = cgroup
            .and_then(Cgroup::cpu_us)
            .unwrap_or((ended.user_us, ended.system_us));
        let killed = machine_memory_kills() > self.memory_kills
            || cgroup.is_some_and(|cgroup| cgroup.memory_kills() > 0);
        let exhausted = match status {
            ExitStatus::Code(0) => None,
            _ if killed => Some(Resource::Memory),
            _ if root.scratch().is_full()? => Some(Resource::Disk),
            _ => None,
        };
        let usage = Usage {
            user_us,
            system_us,
            memory_peak_bytes: cgroup.map_or(0, Cgroup::memory_peak_bytes),
            scratch_bytes: root.scratch().used_bytes()?,
        };
        Ok(Exited {
            status,
            exhausted,
            usage,
        })
    }
}

impl Drop for Program {
    /// Nothing of a build outlives its agent's interest in it.
    fn drop(&mut self) {
        self.kill();
    }
}

fn namespaces(spec: &BuildSpec) -> u64 {
    let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if spec.network.is_none() {
        flags |= libc::CLONE_NEWNET;
    }
    u64::from(flags.unsigned_abs())
}

fn make_plan(spec: &BuildSpec, root: &Root, has_cgroup: bool) -> Result<Plan, StartError> {
    let linux32 = match spec.personality {
        Personality::Native => 0,
        Personality::Linux32 => sys::PER_LINUX32,
    };
    let environment = spec
        .environment
        .iter()
        .map(|(name, value)| [name, b"=".as_slice(), value].concat());
    let working_dir = [b"/".as_slice(), &spec.working_dir].concat();
    Ok(Plan {
        root: c_string(root.path().as_os_str().as_bytes())?,
        proc: c_string(root.path().join("proc").as_os_str().as_bytes())?,
        program: c_string(&spec.program)?,
        arguments: StringArray::new(spec.arguments.iter().map(c_string).collect::<Result<_, _>>()?),
        environment: StringArray::new(environment.map(c_string).collect::<Result<_, _>>()?),
        working_dir: c_string(working_dir)?,
        uid: spec.uid,
        gid: spec.gid,
        hostname: spec.hostname.to_vec(),
        domainname: spec.domainname.to_vec(),
        personality: sys::ADDR_NO_RANDOMIZE | linux32,
        has_own_network: spec.network.is_none(),
        has_cgroup,
        processes: spec.limits.processes.filter(|_| !has_cgroup).map(u64::from),
        filter: seccomp::filter(),
    })
}

fn c_string(bytes: impl AsRef<[u8]>) -> Result<CString, StartError> {
    CString::new(bytes.as_ref()).map_err(|_| StartError::Nul)
}

fn open_null() -> Result<OwnedFd, StepError> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step("open", "/dev/null")
}

/// What the child says before its end; `None` when exec has closed the pipe without a word.
fn read_report(reader: OwnedFd) -> Option<(ChildStep, Errno)> {
    use std::io::Read;
    let mut report = Vec::new();
    let result = std::fs::File::from(reader).take(5).read_to_end(&mut report);
    match (result, <[u8; 5]>::try_from(report)) {
        (Ok(0), _) => None,
        (Ok(_), Ok(report)) => ChildStep::parse(report).or(Some((ChildStep::Setup, Errno::IO))),
        _ => Some((ChildStep::Setup, Errno::IO)),
    }
}

fn start_error(spec: &BuildSpec, root: &Root, step: ChildStep, errno: Errno) -> StartError {
    let program = spec.program.escape_ascii().to_string();
    match step {
        ChildStep::Exec if errno == Errno::NOENT && exists_in(root, &spec.program) => {
            StartError::Interpreter { program }
        }
        ChildStep::Exec => StartError::Exec { program, errno },
        ChildStep::WorkingDir => StartError::WorkingDir {
            path: spec.working_dir.escape_ascii().to_string(),
            errno,
        },
        _ => StartError::Child { step, errno },
    }
}

/// Whether a path exists as the build sees it, links followed inside its root.
fn exists_in(root: &Root, path: &Bytes) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Ok(dir) = rustix::fs::open(root.path(), flags, Mode::empty()) else {
        return false;
    };
    rustix::fs::openat2(dir, path.as_ref(), flags, Mode::empty(), ResolveFlags::IN_ROOT).is_ok()
}

fn exit_status(status: i32) -> ExitStatus {
    let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
    if libc::WIFSIGNALED(status) {
        ExitStatus::Signal(byte(libc::WTERMSIG(status)))
    } else {
        ExitStatus::Code(byte(libc::WEXITSTATUS(status)))
    }
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel does not take it.
    #[error("cannot start `{program}`: {errno}")]
    Exec {
        /// Its path, escaped.
        program: String,
        /// Why not.
        errno: Errno,
    },
    /// It is there; what it names on its first line or in its ELF header is not.
    #[error("cannot start `{program}`: the interpreter it names does not exist in the build")]
    Interpreter {
        /// Its path, escaped.
        program: String,
    },
    /// It cannot start there.
    #[error("cannot start in `/{path}`: {errno}")]
    WorkingDir {
        /// The directory, escaped.
        path: String,
        /// Why not.
        errno: Errno,
    },
    /// The sandbox could not be entered.
    #[error("cannot set up the build's sandbox ({step:?}): {errno}")]
    Child {
        /// What was being done.
        step: ChildStep,
        /// Why not.
        errno: Errno,
    },
    /// A NUL byte the spec's own check should have found.
    #[error("an argument or variable of the program holds a NUL byte")]
    Nul,
    /// A step of the agent failed.
    #[error(transparent)]
    Step(#[from] StepError),
}

impl StartError {
    /// Whose fault it is.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Exec {
                errno: Errno::NOMEM, ..
            }
            | Self::Child {
                errno: Errno::NOMEM, ..
            } => FailureClass::OutOfMemory,
            Self::Exec { .. } | Self::Interpreter { .. } => FailureClass::Program,
            Self::WorkingDir { .. } | Self::Nul => FailureClass::Request,
            Self::Child { .. } => FailureClass::Machine,
            Self::Step(error) => error.class(),
        }
    }
}
