//! Debian packages as input: downloaded with an apt configuration of their own, unpacked, nothing installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Places;
use crate::shell;

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
    let apt = Apt {
        root: places.downloads.join("apt"),
    };
    let done = places.downloads.join("complete");
    if !done.exists() {
        apt.configure()?;
        shell::run(apt.get().args(["update", "-qq"]))?;
        shell::run(
            apt.get()
                .args(["install", "-y", "-qq", "--download-only"])
                .args(TOOLCHAIN),
        )?;
        let mut sources = apt.get();
        sources
            .args(["source", "-qq", "--download-only"])
            .args(SOURCES)
            .current_dir(&places.downloads);
        shell::run(&mut sources)?;
        fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
    }
    let mut debs = files(&apt.root.join("archives"), |name| name.ends_with(".deb"))?;
    debs.sort();
    let tarball = |source: &str| -> Result<PathBuf> {
        let wanted = |name: &str| {
            name.starts_with(&format!("{source}_")) && name.contains(".orig.tar") && !name.ends_with(".asc")
        };
        let found = files(&places.downloads, wanted)?;
        found
            .into_iter()
            .next()
            .with_context(|| format!("the source package {source} has no upstream archive"))
    };
    let tarballs = SOURCES
        .iter()
        .map(|source| tarball(source))
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

fn unpack(deb: &Path, tree: &Path) -> Result<()> {
    let mut archive = Command::new("dpkg-deb");
    archive.arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped());
    let mut archive = archive.spawn().context("cannot start dpkg-deb")?;
    let stdout = archive.stdout.take().context("dpkg-deb has no output")?;
    let mut tar = Command::new("tar");
    tar.args([
        "--extract",
        "--keep-directory-symlink",
        "--no-same-owner",
        "--directory",
    ])
    .arg(tree)
    .stdin(stdout);
    shell::run(&mut tar)?;
    if !archive.wait().context("cannot wait for dpkg-deb")?.success() {
        bail!("{} cannot be unpacked", deb.display());
    }
    Ok(())
}

/// apt with a state of its own: it downloads as if nothing were installed, and needs no root.
struct Apt {
    root: PathBuf,
}

impl Apt {
    fn configure(&self) -> Result<()> {
        for folder in ["lists/partial", "archives/partial", "sources"] {
            fs::create_dir_all(self.root.join(folder)).context("cannot make apt's folders")?;
        }
        fs::write(self.root.join("status"), "").context("cannot write apt's status")?;
        self.copy_sources()?;
        let root = self.root.display();
        let settings = format!(
            "Dir::State \"{root}\";\nDir::State::status \"{root}/status\";\nDir::State::lists \"{root}/lists\";\n\
             Dir::Cache \"{root}\";\nDir::Cache::archives \"{root}/archives\";\n\
             Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"{root}/sources\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\nAPT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"\";\nAcquire::Languages \"none\";\nDebug::NoLocking \"1\";\n"
        );
        fs::write(self.root.join("apt.conf"), settings).context("cannot write apt's configuration")
    }

    /// The system's own package sources, with their source packages added.
    fn copy_sources(&self) -> Result<()> {
        let parts = Path::new("/etc/apt/sources.list.d");
        let mut lists = files(parts, |name| {
            name.ends_with(".sources") || name.ends_with(".list")
        })
        .unwrap_or_default();
        lists.push(PathBuf::from("/etc/apt/sources.list"));
        let mut copied = 0;
        for list in lists {
            let (Ok(text), Some(name)) = (fs::read_to_string(&list), list.file_name()) else {
                continue;
            };
            fs::write(self.root.join("sources").join(name), with_sources(&text))
                .context("cannot copy apt's sources")?;
            copied += 1;
        }
        if copied == 0 {
            bail!("this machine has no package sources below /etc/apt; the demonstration needs Debian's");
        }
        Ok(())
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command
            .env("APT_CONFIG", self.root.join("apt.conf"))
            .stdout(Stdio::null());
        command
    }
}

/// Adds `deb-src` beside every `deb`, in both of apt's formats.
fn with_sources(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.split_once(':') {
            Some(("Types", _)) => lines.push("Types: deb deb-src".to_string()),
            _ => lines.push(line.to_string()),
        }
        if let Some(rest) = line.strip_prefix("deb ") {
            lines.push(format!("deb-src {rest}"));
        }
    }
    lines.join("\n") + "\n"
}

fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| wanted(&name.to_string_lossy()))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_apt_gain_source_packages() {
        assert_eq!(
            with_sources("Types: deb\nURIs: x\n"),
            "Types: deb deb-src\nURIs: x\n"
        );
        assert_eq!(with_sources("deb x y main\n"), "deb x y main\ndeb-src x y main\n");
    }
}
