//! From the kernel's first program to a machine that can talk.
//!
//! The initramfs is rootfs, which can never be unmounted nor pivoted away from; so a small file system of the agent's own
//! is moved over it first. The build's mount namespace later drops that whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use igloo_control::message::Hello;
use igloo_control::{SCRATCH_SERIAL, VIRTIOFS_TAG};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_move};
use rustix::process::{Resource, Rlimit, chdir, chroot, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Step, StepError};
use crate::root::Ground;
use crate::scratch::{Medium, make_mount_point};
use crate::{cgroup, modules};

/// Where the agent keeps its mount points.
const RUN: &str = "/run";
const INPUTS: &str = "/run/inputs";
/// Where control groups are mounted.
pub const CGROUP: &str = "/sys/fs/cgroup";

/// What a typical host sets and the kernel's own defaults leave open (systemd's 50-default.conf).
const SETTINGS: &[(&str, &str)] = &[
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "1"),
];

/// Mounts what the agent needs and loads the kernel's modules.
///
/// # Errors
/// The first step that failed; the machine is of no use then.
pub fn boot() -> Result<(), StepError> {
    take_root()?;
    // every directory open on the way down an output takes a descriptor
    let files = Rlimit {
        current: Some(1 << 16),
        maximum: Some(1 << 20),
    };
    setrlimit(Resource::Nofile, files).step("raise", "the limit of open files")?;
    for (name, value) in SETTINGS {
        // a kernel without the setting has nothing to restrict
        let _ = fs::write(Path::new("/proc/sys").join(name), value);
    }
    Ok(())
}

fn take_root() -> Result<(), StepError> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for dir in ["/proc", "/sys", "/dev", "/new"] {
        make_mount_point(Path::new(dir))?;
    }
    mount("sys", "/sys", "sysfs", plain, None).step("mount", "/sys")?;
    // modules lie in the initramfs, and are looked at no more once it is covered
    modules::load_all()?;
    mount(
        "root",
        "/new",
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=0755,size=16m",
    )
    .step("mount", "/new")?;
    for dir in ["proc", "sys", "dev", "run", "run/inputs"] {
        make_mount_point(&Path::new("/new").join(dir))?;
    }
    mount_move("/sys", "/new/sys").step("move", "/sys")?;
    mount("proc", "/new/proc", "proc", plain, None).step("mount", "/proc")?;
    mount("dev", "/new/dev", "devtmpfs", MountFlags::NOSUID, c"mode=0755").step("mount", "/dev")?;
    make_mount_point(Path::new("/new/dev/pts"))?;
    let pts = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(
        "devpts",
        "/new/dev/pts",
        "devpts",
        pts,
        c"newinstance,mode=0600,ptmxmode=0600",
    )
    .step("mount", "/dev/pts")?;
    // kernels without control groups run builds too
    let _ = mount("cgroup", "/new/sys/fs/cgroup", "cgroup2", plain, None);
    chdir("/new").step("enter", "/new")?;
    mount_move(".", "/").step("move", "/new")?;
    chroot(".").step("enter", "/")?;
    chdir("/").step("enter", "/")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).step("close", "/")
}

/// Mounts the inputs' file system. The machine may wait long for its build after that: nothing has been looked up yet.
///
/// # Errors
/// When the machine has no such device or the host does not serve it.
pub fn mount_inputs() -> Result<(), StepError> {
    // without atime no read makes the kernel ask for the attributes again
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    mount(VIRTIOFS_TAG, INPUTS, "virtiofs", flags, None).step("mount the inputs' file system at", INPUTS)
}

/// What the agent says first.
pub fn hello() -> Hello {
    let names = rustix::system::uname();
    let since_boot = clock_gettime(ClockId::Boottime);
    let uptime = Duration::new(
        u64::try_from(since_boot.tv_sec).unwrap_or(0),
        u32::try_from(since_boot.tv_nsec).unwrap_or(0),
    );
    Hello {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: names.release().to_string_lossy().into_owned(),
        architecture: names.machine().to_string_lossy().into_owned(),
        memory_bytes: memory_bytes(),
        cpus: std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
        uptime_us: u64::try_from(uptime.as_micros()).unwrap_or(u64::MAX),
    }
}

/// Where builds' roots are made.
pub fn ground() -> Ground {
    let medium = match scratch_disk(Path::new("/sys/block")) {
        Some(device) => Medium::Disk { device },
        None => Medium::Memory {
            memory_bytes: memory_bytes(),
        },
    };
    Ground {
        run_dir: RUN.into(),
        inputs: INPUTS.into(),
        medium,
    }
}

/// A control group for the build, where the kernel has them.
///
/// # Errors
/// When it has them and none can be made.
pub fn build_cgroup(processes: Option<u32>) -> Result<Option<cgroup::Cgroup>, StepError> {
    cgroup::Cgroup::create(Path::new(CGROUP), processes, memory_bytes())
}

/// Memory the kernel has, bytes.
fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    #[allow(
        clippy::useless_conversion,
        reason = "the kernel's word is 32 bits on some targets"
    )]
    u64::from(info.totalram).saturating_mul(info.mem_unit.into())
}

/// The disk the host made for scratch space, by its serial number.
fn scratch_disk(blocks: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(blocks).ok()?.flatten();
    let is_ours = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("serial")).is_ok_and(|serial| serial.trim() == SCRATCH_SERIAL)
    };
    let entry = entries.into_iter().find(is_ours)?;
    Some(Path::new("/dev").join(entry.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scratch disk is known by its serial number; another disk is left alone.
    #[test]
    fn the_scratch_disk_is_known_by_its_serial() {
        let dir = tempfile::tempdir().unwrap();
        for (disk, serial) in [("vda", "other"), ("vdb", "igloo-scratch\n")] {
            fs::create_dir(dir.path().join(disk)).unwrap();
            fs::write(dir.path().join(disk).join("serial"), serial).unwrap();
        }
        assert_eq!(scratch_disk(dir.path()), Some(PathBuf::from("/dev/vdb")));
        assert_eq!(scratch_disk(&dir.path().join("none")), None);
    }
}
