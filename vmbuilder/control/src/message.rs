//! The messages, both ways.
//!
//! Invariants
//! - a [`GuestMessage`] that [`crate::frame::Decoder`] gives out has passed [`GuestMessage::check`]: names, paths and
//!   texts are within the bounds below. Names may still be unfit for a tree: the taker of outputs judges them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::spec::BuildSpec;

/// Longest file name or symlink target in an output, bytes (NAME_MAX and PATH_MAX, linux/limits.h).
pub const NAME_SIZE_MAX: usize = 255;
/// Longest symlink target or path, bytes.
pub const TARGET_SIZE_MAX: usize = 4095;
/// Longest text for people, bytes.
pub const TEXT_SIZE_MAX: usize = 8 << 10;
/// Most bytes of log or file content in one message.
pub const DATA_SIZE_MAX: usize = 256 << 10;

/// What the host says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostMessage {
    /// Build the root for this. Once in a machine's life.
    Prepare(Box<BuildSpec>),
    /// Place a file, whose bytes follow in `FileData`. Directories above it are made; it must not exist.
    File {
        /// Where, relative to the root. Owned by the build only in a scratch path.
        path: Bytes,
        /// Whose it is.
        owner: FileOwner,
        /// Permission bits, 0o7777 at most.
        mode: u16,
        /// Bytes that follow.
        size: u64,
    },
    /// The next bytes of the file announced last, never none.
    FileData(Bytes),
    /// Start the program.
    Run,
    /// Kill the program and everything it started. The answer is `Exited`.
    Kill,
    /// Stream the outputs.
    Collect,
    /// Bytes of frames (length prefixes included) the host has consumed since the start. Never goes down.
    Ack {
        /// In total.
        bytes: u64,
    },
    /// End the machine.
    PowerOff,
}

/// Whose a placed file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileOwner {
    /// Root's: part of the view, like `/etc/passwd`.
    System,
    /// The build user's, below a scratch path.
    Build,
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestMessage {
    /// The first message.
    Hello(Hello),
    /// The inputs' file system is mounted: the machine is ready for a build.
    Mounted,
    /// The program runs: `execve` has succeeded.
    Started,
    /// The next bytes the build wrote to its output, never none.
    Log(Bytes),
    /// The program has ended, everything it started is dead, and its log is whole.
    Exited(Exited),
    /// The next output of the spec.
    OutputBegin {
        /// Its position in the spec.
        index: u32,
    },
    /// Enters a directory; the root of an output has an empty name.
    DirectoryBegin {
        /// Its name.
        name: Bytes,
    },
    /// Leaves the directory entered last.
    DirectoryEnd,
    /// A file; its bytes follow.
    FileBegin {
        /// Its name.
        name: Bytes,
        /// Whether its owner may execute it.
        executable: bool,
        /// Bytes that follow.
        size: u64,
    },
    /// The next bytes of the file, never none.
    FileData(Bytes),
    /// A symlink.
    Symlink {
        /// Its name.
        name: Bytes,
        /// Its text.
        target: Bytes,
    },
    /// The output is whole.
    OutputEnd,
    /// An output cannot be taken; no more are sent.
    OutputError {
        /// Its position in the spec.
        index: u32,
        /// The path, relative to the build's root.
        path: Bytes,
        /// What is wrong.
        reason: OutputReason,
    },
    /// All outputs have been sent.
    Collected,
    /// The agent cannot go on; it waits for `PowerOff`.
    Failed {
        /// When.
        stage: Stage,
        /// Whose fault.
        class: FailureClass,
        /// For people, naming the file.
        message: String,
    },
}

/// What the agent knows of its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's own version.
    pub agent_version: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// `uname -m`.
    pub architecture: String,
    /// Memory the kernel has, bytes.
    pub memory_bytes: u64,
    /// Processors that run.
    pub cpus: u32,
    /// Since the kernel's clock started, microseconds.
    pub uptime_us: u64,
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// What the machine was out of, when the program failed and something was.
    pub exhausted: Option<Resource>,
    /// What it used.
    pub usage: Usage,
}

/// Exit code or signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited.
    Code(u8),
    /// It was killed.
    Signal(u8),
}

/// Something a machine can run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// A process was killed for want of memory.
    Memory,
    /// Scratch space: less than 8 MiB or no file entry was left.
    Disk,
}

/// What a build used, as its kernel counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in the program and everything it waited for, microseconds.
    pub user_us: u64,
    /// Processor time in the kernel on its behalf, microseconds.
    pub system_us: u64,
    /// Most memory at once, bytes; 0 when the kernel cannot tell.
    pub memory_peak_bytes: u64,
    /// Bytes in scratch space at the end.
    pub scratch_bytes: u64,
}

/// Why an output cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputReason {
    /// It does not exist.
    Missing,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block or character device.
    Device,
    /// The output itself may be written by its group or by everyone.
    Writable {
        /// Its permission bits.
        mode: u16,
    },
    /// The file does not belong to the build user.
    NotOwned {
        /// Whose it is.
        uid: u32,
    },
    /// It could not be read.
    Io {
        /// The error number.
        errno: i32,
    },
    /// The outputs are over their limit.
    TooLarge,
    /// More directories in each other than a tree may have.
    TooDeep,
    /// It changed while it was read.
    Changed,
    /// A name or target that no tree can hold.
    NameInvalid,
}

/// When the agent failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Before the inputs were mounted.
    Boot,
    /// Mounting the inputs.
    Mount,
    /// Building the root.
    Prepare,
    /// Starting the program.
    Start,
    /// While it ran.
    Run,
    /// Streaming outputs.
    Collect,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureClass {
    /// The program cannot be started: missing, not executable, no interpreter.
    Program,
    /// The request asks for what cannot be done (a file outside scratch, a path that exists).
    Request,
    /// No memory was left.
    OutOfMemory,
    /// No scratch space was left.
    DiskFull,
    /// The machine or the agent: another machine may do better.
    Machine,
    /// The host broke the sequence.
    Protocol,
}

impl GuestMessage {
    /// Whether every part is within this module's bounds; else the name of the part.
    ///
    /// # Errors
    /// The part that is too large or may not be empty.
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Hello(hello) => {
                check_text(&hello.agent_version)?;
                check_text(&hello.kernel_release)?;
                check_text(&hello.architecture)
            }
            Self::Log(bytes) | Self::FileData(bytes) => check_data(bytes),
            Self::DirectoryBegin { name } | Self::FileBegin { name, .. } => check_name(name),
            Self::Symlink { name, target } => {
                check_name(name)?;
                check_target(target)
            }
            Self::OutputError { path, .. } => check_target(path),
            Self::Failed { message, .. } => check_text(message),
            Self::Mounted
            | Self::Started
            | Self::Exited(_)
            | Self::OutputBegin { .. }
            | Self::DirectoryEnd
            | Self::OutputEnd
            | Self::Collected => Ok(()),
        }
    }

    /// The message's name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Mounted => "Mounted",
            Self::Started => "Started",
            Self::Log(_) => "Log",
            Self::Exited(_) => "Exited",
            Self::OutputBegin { .. } => "OutputBegin",
            Self::DirectoryBegin { .. } => "DirectoryBegin",
            Self::DirectoryEnd => "DirectoryEnd",
            Self::FileBegin { .. } => "FileBegin",
            Self::FileData(_) => "FileData",
            Self::Symlink { .. } => "Symlink",
            Self::OutputEnd => "OutputEnd",
            Self::OutputError { .. } => "OutputError",
            Self::Collected => "Collected",
            Self::Failed { .. } => "Failed",
        }
    }
}

impl HostMessage {
    /// Whether data messages are within bounds; the host is trusted with the rest.
    ///
    /// # Errors
    /// The part that is too large or may not be empty.
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::FileData(bytes) => check_data(bytes),
            Self::File { mode, .. } if *mode > 0o7777 => Err("mode"),
            _ => Ok(()),
        }
    }

    /// The message's name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prepare(_) => "Prepare",
            Self::File { .. } => "File",
            Self::FileData(_) => "FileData",
            Self::Run => "Run",
            Self::Kill => "Kill",
            Self::Collect => "Collect",
            Self::Ack { .. } => "Ack",
            Self::PowerOff => "PowerOff",
        }
    }
}

fn check_text(text: &str) -> Result<(), &'static str> {
    if text.len() > TEXT_SIZE_MAX {
        Err("text")
    } else {
        Ok(())
    }
}

fn check_data(bytes: &Bytes) -> Result<(), &'static str> {
    if bytes.is_empty() || bytes.len() > DATA_SIZE_MAX {
        Err("data")
    } else {
        Ok(())
    }
}

fn check_name(name: &Bytes) -> Result<(), &'static str> {
    if name.len() > NAME_SIZE_MAX {
        Err("name")
    } else {
        Ok(())
    }
}

fn check_target(target: &Bytes) -> Result<(), &'static str> {
    if target.len() > TARGET_SIZE_MAX {
        Err("path")
    } else {
        Ok(())
    }
}
