//! The build's control group: how many processes, how much memory, and a way to count and kill them all.
//!
//! Optional: a kernel without control groups runs builds too, with the limit on processes kept per user.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::{Step, StepError};

/// Memory kept from the build so that the agent and the kernel can still work, bytes.
const RESERVE_BYTES: u64 = 24 << 20;

/// A control group for one build.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl Cgroup {
    /// Makes the group below a mounted cgroup2 file system; `None` where the kernel has none.
    ///
    /// # Errors
    /// When the kernel has control groups and this one cannot be made.
    pub fn create(
        mount: &Path,
        processes: Option<u32>,
        memory_bytes: u64,
    ) -> Result<Option<Self>, StepError> {
        if !mount.join("cgroup.controllers").exists() {
            return Ok(None);
        }
        // a controller the kernel lacks is a limit less, no failure
        for controller in ["+memory", "+pids"] {
            let _ = fs::write(mount.join("cgroup.subtree_control"), controller);
        }
        let path = mount.join("build");
        fs::create_dir(&path).step("create", &path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty()).step("open", &path)?;
        let group = Self { path, directory };
        if let Some(processes) = processes {
            group.set("pids.max", processes.into())?;
        }
        group.set(
            "memory.max",
            memory_bytes.saturating_sub(RESERVE_BYTES).max(RESERVE_BYTES),
        )?;
        Ok(Some(group))
    }

    /// For starting a process inside.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Most memory its processes had at once, bytes; 0 when the kernel does not count it.
    pub fn memory_peak_bytes(&self) -> u64 {
        fs::read_to_string(self.path.join("memory.peak"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Processor time of all its processes, microseconds: in programs, and in the kernel.
    pub fn cpu_us(&self) -> Option<(u64, u64)> {
        let path = self.path.join("cpu.stat");
        Some((field(&path, "user_usec")?, field(&path, "system_usec")?))
    }

    /// Processes killed because the group's memory was used up.
    pub fn memory_kills(&self) -> u64 {
        field(&self.path.join("memory.events"), "oom_kill").unwrap_or(0)
    }

    /// Kills what is left in it.
    pub fn kill(&self) {
        // gone or empty is as good
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    fn set(&self, name: &str, value: u64) -> Result<(), StepError> {
        let path = self.path.join(name);
        match fs::write(&path, value.to_string()) {
            // the controller is not there
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !path.exists() => Ok(()),
            result => result.step("set", &path),
        }
    }
}

/// Processes the kernel has killed for want of memory since it started.
pub fn machine_memory_kills() -> u64 {
    field(Path::new("/proc/vmstat"), "oom_kill").unwrap_or(0)
}

/// A number in a file of `name number` lines.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}
