//! The root a build sees: `build dev etc nix proc tmp` and nothing else.
//!
//! Made on the scratch file system before the build starts. What a build may write in is below the scratch paths, `/tmp`
//! and `/dev/shm`; the inputs are the lower layer of an overlay, so that stray writes into their directory work, land in
//! scratch space and are thrown away, as in C++ Nix's store directory.
//!
//! Source: Nix 2.36, chroot.cc and linux-derivation-builder.cc; modes and owners recorded from 2.8.
//!
//! Invariants
//! - every path given by the host has been checked by `BuildSpec::check` before it is joined to the root;
//! - the build owns its scratch paths and nothing else.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use igloo_control::BuildSpec;
use igloo_control::spec::SpecError;
use rustix::fs::{CWD, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};

use crate::devices;
use crate::error::{Step, StepError};
use crate::scratch::{Medium, Scratch, make_mount_point};

/// Mode of a store directory a build may add to (Nix: 01775 root:build group).
const STORE_MODE: u32 = 0o1775;

/// A root on its scratch file system.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    scratch: Scratch,
}

/// Where a root is made from and on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// A directory of the agent's own, for mount points.
    pub run_dir: PathBuf,
    /// Where the inputs are mounted.
    pub inputs: PathBuf,
    /// What scratch space lies on.
    pub medium: Medium,
}

impl Root {
    /// Makes the root for a build. Costs a dozen mounts, nothing that grows with the inputs.
    ///
    /// # Errors
    /// `Spec` when the host asks for what cannot be, else the step that failed.
    pub fn build(spec: &BuildSpec, ground: &Ground) -> Result<Self, BuildRootError> {
        spec.check()?;
        let scratch = Scratch::mount(&ground.run_dir.join("scratch"), &ground.medium, &spec.limits)?;
        let root = Self {
            path: ground.run_dir.join("root"),
            scratch,
        };
        root.mount_self(spec.gid)?;
        root.make_skeleton()?;
        let mut scratch_paths: Vec<_> = spec.scratch_paths.iter().collect();
        scratch_paths.sort();
        for path in scratch_paths {
            root.make_scratch_path(path, spec)?;
        }
        root.mount_inputs(spec, &ground.inputs)?;
        devices::populate(&root.path.join("dev"), spec.kvm, spec.limits.shm_bytes)?;
        Ok(root)
    }

    /// Where the agent sees it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file system it is on.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Closes `/etc` to everyone once the host has placed its files.
    ///
    /// # Errors
    /// When the mode cannot be set.
    pub fn seal(&self) -> Result<(), StepError> {
        let etc = self.path.join("etc");
        rustix::fs::chmod(&etc, Mode::from_raw_mode(0o555)).step("seal", etc)
    }

    /// The root is a mount of its own, since only a mount can become a namespace's root.
    fn mount_self(&self, gid: u32) -> Result<(), StepError> {
        let dir = self.scratch.path().join("root");
        make_dir(&dir, 0o750, 0, gid)?;
        make_mount_point(&self.path)?;
        mount_bind(&dir, &self.path).step("mount", &self.path)
    }

    fn make_skeleton(&self) -> Result<(), StepError> {
        for (name, mode) in [("dev", 0o755), ("etc", 0o755), ("proc", 0o555), ("tmp", 0o1777)] {
            make_dir(&self.path.join(name), mode, 0, 0)?;
        }
        Ok(())
    }

    fn make_scratch_path(&self, path: &[u8], spec: &BuildSpec) -> Result<(), StepError> {
        if path == spec.inputs_dir.as_ref() {
            return Ok(());
        }
        let made = self.make_parents(path)?;
        match make_dir(&made, 0o700, spec.uid, spec.gid) {
            // `/tmp` is everyone's already
            Err(error) if error.errno == Errno::EXIST => Ok(()),
            result => result,
        }
    }

    fn mount_inputs(&self, spec: &BuildSpec, inputs: &Path) -> Result<(), StepError> {
        let dir = self.make_parents(&spec.inputs_dir)?;
        make_dir(&dir, 0o755, 0, 0)?;
        if spec.scratch_paths.contains(&spec.inputs_dir) {
            self.mount_overlay(&dir, inputs, spec.gid)
        } else {
            mount_bind(inputs, &dir).step("mount", &dir)?;
            let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
            mount_remount(&dir, flags, c"").step("make read-only", &dir)
        }
    }

    fn mount_overlay(&self, dir: &Path, inputs: &Path, gid: u32) -> Result<(), StepError> {
        let (upper, work) = (
            self.scratch.path().join("upper"),
            self.scratch.path().join("work"),
        );
        // the merged directory shows the mode and owner of the upper one
        make_dir(&upper, STORE_MODE, 0, gid)?;
        make_dir(&work, 0o700, 0, 0)?;
        let options = overlay_options(&[("lowerdir", inputs), ("upperdir", &upper), ("workdir", &work)]);
        mount(
            "inputs",
            dir,
            "overlay",
            MountFlags::NOSUID | MountFlags::NODEV,
            options.as_c_str(),
        )
        .step("mount the inputs at", dir)
    }

    /// Makes the directories above a path, root's and mode 0755; gives the path below this root.
    fn make_parents(&self, path: &[u8]) -> Result<PathBuf, StepError> {
        let mut at = self.path.clone();
        let mut parts = path.split(|byte| *byte == b'/').map(OsStr::from_bytes).peekable();
        while let Some(part) = parts.next() {
            at.push(part);
            if parts.peek().is_none() {
                break;
            }
            match make_dir(&at, 0o755, 0, 0) {
                Err(error) if error.errno != Errno::EXIST => return Err(error),
                _ => {}
            }
        }
        Ok(at)
    }
}

/// Makes a directory with exactly this mode and owner, whatever the umask.
///
/// # Errors
/// Also when it exists.
pub(crate) fn make_dir(path: &Path, mode: u32, uid: u32, gid: u32) -> Result<(), StepError> {
    rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700)).step("create", path)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chown(path, Some(uid), Some(gid)).step("set the owner of", path)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).step("set the mode of", path)
}

/// Overlay options take `\`, `,` and `:` only escaped; the agent's own paths have none, a test's may.
fn overlay_options(options: &[(&str, &Path)]) -> CString {
    let mut text = Vec::new();
    for (name, path) in options {
        text.extend_from_slice(name.as_bytes());
        text.push(b'=');
        for byte in path.as_os_str().as_bytes() {
            if matches!(byte, b'\\' | b',' | b':') {
                text.push(b'\\');
            }
            text.push(*byte);
        }
        text.push(b',');
    }
    text.pop();
    CString::new(text).unwrap_or_default()
}

/// Why a root could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildRootError {
    /// The host asks for what cannot be.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
}
