//! Debian packages as input: downloaded, unpacked, nothing installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Places;
use crate::apt::{Apt, unpack, upstream_archive};

/// What a C program needs to be configured and built; apt adds what these depend on.
const TOOLCHAIN: &[&str] = &[
    "gcc",
    "libc6-dev",
    "binutils",
    "make",
    "bash",
    "dash",
    "coreutils",
    "sed",
    "grep",
    "gawk",
    "tar",
    "gzip",
    "diffutils",
    "findutils",
];

/// Source packages to build.
const SOURCES: &[&str] = &["hello", "mawk"];

/// What packages set up when they are installed, which unpacking does not.
const LINKS: &[(&str, &str)] = &[
    ("dash", "usr/bin/sh"),
    ("gawk", "usr/bin/awk"),
    ("gcc", "usr/bin/cc"),
];

/// Where a build's own directories are shown (see examples/hello/src/enter.rs).
const MOUNT_POINTS: &[&str] = &["nix", "build", "proc", "dev", "tmp"];

/// The downloaded files.
pub struct Packages {
    /// Binary packages of the toolchain.
    pub debs: Vec<PathBuf>,
    /// Upstream's source archives, in the order of `SOURCES`.
    pub tarballs: Vec<PathBuf>,
}

/// Downloads packages and sources, or finds them downloaded.
pub fn fetch(places: &Places) -> Result<Packages> {
    let apt = Apt::of_system(&places.downloads.join("apt"))?;
    let done = places.downloads.join("complete");
    if !done.exists() {
        apt.update()?;
        apt.download(TOOLCHAIN)?;
        apt.download_sources(SOURCES, &places.downloads)?;
        fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
    }
    let debs = apt.downloaded()?;
    let tarballs = SOURCES
        .iter()
        .map(|source| upstream_archive(&places.downloads, source))
        .collect::<Result<_>>()?;
    println!("    {} packages, {} sources", debs.len(), SOURCES.len());
    Ok(Packages { debs, tarballs })
}

/// Unpacks the packages into one tree that can serve as a root.
pub fn unpack_toolchain(places: &Places, packages: &Packages) -> Result<()> {
    let tree = &places.toolchain;
    let done = tree.with_extension("complete");
    if done.exists() {
        return Ok(());
    }
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        // Debian's merged /usr: the old names are links, and packages of both kinds unpack to one place
        fs::create_dir_all(tree.join("usr").join(name)).context("cannot make the toolchain's folders")?;
        symlink(format!("usr/{name}"), tree.join(name)).context("cannot link the toolchain's folders")?;
    }
    for deb in &packages.debs {
        unpack(deb, tree)?;
    }
    for name in MOUNT_POINTS {
        fs::create_dir_all(tree.join(name)).context("cannot make mount points")?;
    }
    for (target, link) in LINKS {
        let link = tree.join(link);
        let _ = fs::remove_file(&link); // there only if a package ships it
        symlink(target, &link).with_context(|| format!("cannot link {}", link.display()))?;
    }
    fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))
}
