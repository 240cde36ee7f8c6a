//! Where a build writes: memory for now, a disk where the host gives one.
//!
//! Invariants
//! - everything a build writes outside `/dev/shm` is in one file system, so one limit holds it all;
//! - it is mounted `nosuid,nodev`.

use std::path::{Path, PathBuf};

use igloo_control::spec::GuestLimits;
use rustix::fs::{CWD, Mode, StatVfs, statvfs};
use rustix::mount::{MountFlags, mount};

use crate::error::{Step, StepError};

/// Free space below which a failed build is said to have run out of it, bytes (Nix: decideWhetherDiskFull).
const FREE_BYTES_MIN: u64 = 8 << 20;
/// The same for files and directories.
const FREE_FILES_MIN: u64 = 64;

/// What the scratch file system lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Memory of the machine.
    Memory {
        /// All the memory there is, bytes.
        memory_bytes: u64,
    },
    /// A disk with an empty ext4 file system.
    Disk {
        /// Its device.
        device: PathBuf,
    },
}

/// A mounted scratch file system.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Mounts it at `path`, which is made.
    ///
    /// On memory the limits are kept by the file system; a disk is as large as the host made it.
    ///
    /// # Errors
    /// When the directory or the mount cannot be made.
    pub fn mount(path: &Path, medium: &Medium, limits: &GuestLimits) -> Result<Self, StepError> {
        make_mount_point(path)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        match medium {
            Medium::Memory { memory_bytes } => {
                let options = memory_options(*memory_bytes, limits);
                mount("scratch", path, "tmpfs", flags, options.as_c_str()).step("mount memory at", path)?;
            }
            Medium::Disk { device } => {
                // nothing here outlives the machine: no barriers, no waiting for the disk
                let options = c"barrier=0,noauto_da_alloc";
                mount(device, path, "ext4", flags | MountFlags::NOATIME, options).step("mount", device)?;
            }
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in use.
    ///
    /// # Errors
    /// When the kernel cannot tell.
    pub fn used_bytes(&self) -> Result<u64, StepError> {
        let stat = self.stat()?;
        Ok(stat
            .f_blocks
            .saturating_sub(stat.f_bfree)
            .saturating_mul(stat.f_frsize))
    }

    /// Whether next to nothing is left: 8 MiB or 64 files, or a sixteenth of a small one.
    ///
    /// # Errors
    /// When the kernel cannot tell.
    pub fn is_full(&self) -> Result<bool, StepError> {
        let stat = self.stat()?;
        let size = stat.f_blocks.saturating_mul(stat.f_frsize);
        let free = stat.f_bfree.saturating_mul(stat.f_frsize);
        let has_files = stat.f_files > 0;
        let files_min = FREE_FILES_MIN.min(stat.f_files / 16);
        Ok(free < FREE_BYTES_MIN.min(size / 16) || (has_files && stat.f_ffree < files_min))
    }

    fn stat(&self) -> Result<StatVfs, StepError> {
        statvfs(&self.path).step("measure", &self.path)
    }
}

/// Makes a directory to mount on; one that is there already is fine.
pub(crate) fn make_mount_point(path: &Path) -> Result<(), StepError> {
    match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).step("create", path),
    }
}

fn memory_options(memory_bytes: u64, limits: &GuestLimits) -> std::ffi::CString {
    // three quarters: a build that fills its scratch space meets a full disk, not the killer of processes
    let room = memory_bytes / 4 * 3;
    let size = limits
        .scratch_bytes
        .map_or(room, |limit| limit.min(room))
        .max(1 << 20);
    // the root's own skeleton takes some forty
    let files = limits
        .scratch_files
        .unwrap_or(memory_bytes / 4096)
        .saturating_add(64);
    let options = format!("mode=0755,size={size},nr_inodes={files}");
    std::ffi::CString::new(options).unwrap_or_default()
}
