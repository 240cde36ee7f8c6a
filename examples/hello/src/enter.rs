//! `enter TOOLCHAIN PROGRAM [ARGUMENT..]`: runs a program with a tree of Debian packages as its root.
//!
//! A Nix build root has no `/lib64/ld-linux-x86-64.so.2`, which every Debian program names as its interpreter. This
//! static program is the derivations' builder: in a user namespace of its own it puts the build's own directories into
//! the (read-only) toolchain tree, which has empty directories in their places, makes the tree its root, and becomes the
//! program. It gains nothing a build could not do anyway.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chroot, getgid, getuid};

/// What the build has and the toolchain must show, each an empty directory in the tree.
const SHOWN: [&str; 5] = ["nix", "build", "proc", "dev", "tmp"];

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1)) {
        Ok(never) => match never {},
        Err(error) => {
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("enter: {error:#}\n").as_bytes());
            ExitCode::from(127)
        }
    }
}

fn run(mut arguments: impl Iterator<Item = OsString>) -> Result<std::convert::Infallible> {
    let (Some(toolchain), Some(program)) = (arguments.next(), arguments.next()) else {
        bail!("usage: enter TOOLCHAIN PROGRAM [ARGUMENT..]");
    };
    let toolchain = Path::new(&toolchain);
    own_namespaces()?;
    for name in SHOWN {
        let (from, to) = (Path::new("/").join(name), toolchain.join(name));
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&from), &to, None::<&str>, flags, None::<&str>)
            .with_context(|| format!("cannot show {} at {}", from.display(), to.display()))?;
    }
    let here = std::env::current_dir().context("cannot tell the working directory")?;
    chroot(toolchain).with_context(|| format!("cannot enter {}", toolchain.display()))?;
    std::env::set_current_dir(&here)
        .with_context(|| format!("{} is not in the toolchain", here.display()))?;
    let error = Command::new(&program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", Path::new(&program).display()))
}

/// A user and a mount namespace in which this process may mount, with unchanged user and group numbers.
fn own_namespaces() -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context("cannot make a user namespace")?;
    std::fs::write("/proc/self/setgroups", "deny").context("cannot give up supplementary groups")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).context("cannot map the user")?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).context("cannot map the group")
}
