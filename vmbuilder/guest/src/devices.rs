//! `/dev` of a build.
//!
//! Source: recorded in the sandbox of Nix 2.8 (`ls -la /dev`); linux-derivation-builder.cc, enterChroot.

use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, chmod, makedev, mknodat, symlinkat};
use rustix::mount::{MountFlags, mount};

use crate::error::{Step, StepError};
use crate::root::make_dir;

/// Name, major and minor number of each device.
const NODES: &[(&str, u32, u32)] = &[
    ("full", 1, 7),
    ("null", 1, 3),
    ("random", 1, 8),
    ("tty", 5, 0),
    ("urandom", 1, 9),
    ("zero", 1, 5),
];
/// KVM's device (linux/miscdevice.h).
const KVM: (&str, u32, u32) = ("kvm", 10, 232);

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("ptmx", "/dev/pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// Fills `dev`, an empty directory: a file system of its own, the only one of the build's where devices work.
///
/// # Errors
/// The first device, link or mount that cannot be made.
pub fn populate(dev: &Path, has_kvm: bool, shm_bytes: Option<u64>) -> Result<(), StepError> {
    mount(
        "dev",
        dev,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        c"mode=0755,size=64k",
    )
    .step("mount", dev)?;
    let kvm = has_kvm.then_some(&KVM);
    for (name, major, minor) in NODES.iter().chain(kvm) {
        let path = dev.join(name);
        let mode = Mode::from_raw_mode(0o666);
        mknodat(
            CWD,
            &path,
            FileType::CharacterDevice,
            mode,
            makedev(*major, *minor),
        )
        .step("create", &path)?;
        chmod(&path, mode).step("set the mode of", &path)?;
    }
    for (name, target) in LINKS {
        let path = dev.join(name);
        symlinkat(*target, CWD, &path).step("create", &path)?;
    }
    mount_shm(&dev.join("shm"), shm_bytes)?;
    mount_terminals(&dev.join("pts"))
}

fn mount_shm(shm: &Path, shm_bytes: Option<u64>) -> Result<(), StepError> {
    make_dir(shm, 0o1777, 0, 0)?;
    // half of the memory unless told otherwise, as sandbox-dev-shm-size has it
    let size = shm_bytes.map_or_else(|| "50%".to_owned(), |bytes| bytes.to_string());
    let options = std::ffi::CString::new(format!("mode=1777,size={size}")).unwrap_or_default();
    mount(
        "shm",
        shm,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        options.as_c_str(),
    )
    .step("mount", shm)
}

fn mount_terminals(pts: &Path) -> Result<(), StepError> {
    make_dir(pts, 0o755, 0, 0)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(
        "devpts",
        pts,
        "devpts",
        flags,
        c"newinstance,mode=0620,ptmxmode=0666",
    )
    .step("mount", pts)
}
