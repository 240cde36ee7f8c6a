//! Nix to compare with, and its language suites: taken from Debian's packages into `target/nix`, never installed.
//!
//! Current Nix comes from Debian's unstable release, whatever release this machine runs; it is started by the loader and
//! with the libraries that its packages depend on. What was downloaded once is not looked for again.
//!
//! Invariant: an evaluator is given no store, no configuration and no home but empty ones of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::{Apt, unpack, upstream_archive};
use crate::shell;

/// The command that evaluates.
const INSTANTIATE: &str = "nix-instantiate";
/// The release of Debian that has current packages.
const CURRENT_RELEASE: &str = "sid";

/// Releases of Debian whose Nix does not change any more: 2.8 and 2.26.
const SUITE_RELEASES: &[&str] = &["bookworm", "trixie"];

/// An evaluator with the face of `nix-instantiate`.
#[derive(Clone, Debug)]
pub struct Evaluator {
    /// A short name for tables.
    pub name: String,
    words: Vec<PathBuf>,
    home: PathBuf,
}

impl Evaluator {
    /// igloo's own, which has to be built.
    pub fn igloo() -> Result<Self> {
        let igloo = shell::target().join("release/igloo");
        Ok(Self {
            name: "igloo".to_owned(),
            words: vec![igloo, INSTANTIATE.into()],
            home: empty_home()?,
        })
    }

    /// The Nix installed on this machine.
    ///
    /// # Errors
    /// There is none.
    pub fn installed() -> Result<Self> {
        if !shell::has_program("nix-instantiate") {
            bail!("no nix-instantiate is installed (Debian's package is nix-bin)");
        }
        Self::named(vec![INSTANTIATE.into()])
    }

    /// Current Nix, downloaded at the first call (about 20 MB).
    ///
    /// # Errors
    /// This is no Debian, or its mirror is out of reach.
    pub fn current() -> Result<Self> {
        let tree = cache().join("current");
        if !tree.with_extension("complete").exists() {
            download_current(&tree)?;
        }
        let libraries = library_folder(&tree)?;
        let loader = entry(&libraries, |name| name.starts_with("ld-linux-"))?;
        let words = [
            loader,
            "--argv0".into(),
            INSTANTIATE.into(),
            "--library-path".into(),
            libraries,
            tree.join("usr/bin/nix"),
        ];
        Self::named(words.into())
    }

    fn named(words: Vec<PathBuf>) -> Result<Self> {
        let mut evaluator = Self {
            name: String::new(),
            words,
            home: empty_home()?,
        };
        let said = shell::output(evaluator.command().arg("--version"))?;
        let version = said
            .split_whitespace()
            .last()
            .context("Nix does not say its version")?;
        evaluator.name = format!("Nix {version}");
        Ok(evaluator)
    }

    /// `nix-instantiate`, ready for arguments.
    pub fn command(&self) -> Command {
        self.face(INSTANTIATE)
    }

    /// Another command of the same Nix.
    pub fn face(&self, name: &str) -> Command {
        let words = self.words.iter().map(|word| match word.to_str() {
            Some(INSTANTIATE) => name.as_ref(),
            _ => word.as_os_str(),
        });
        let mut words = words.collect::<Vec<_>>().into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        for name in ["NIX_PATH", "NIX_CONFIG", "NIX_STATE_DIR", "XDG_CONFIG_HOME"] {
            command.env_remove(name);
        }
        command
            .env("HOME", &self.home)
            .env("NIX_CONF_DIR", &self.home)
            .env("NIX_STORE_DIR", "/nix/store")
            .env("NIX_REMOTE", "dummy://")
            .env("NO_COLOR", "1");
        command
    }
}

/// The language suites of the releases of Nix that releases of Debian have, each with why it is missing if it is.
pub fn suites() -> Vec<(String, Result<PathBuf>)> {
    let suite = |release: &&str| (format!("Debian {release}'s Nix"), suite(release));
    SUITE_RELEASES.iter().map(suite).collect()
}

fn suite(release: &str) -> Result<PathBuf> {
    let folder = cache().join(format!("{release}-source"));
    let tree = folder.join("tree");
    if !tree.with_extension("complete").exists() {
        let _ = fs::remove_dir_all(&folder); // what an interrupted run has left
        fs::create_dir_all(&tree).with_context(|| format!("cannot make {}", tree.display()))?;
        let apt = apt(release)?;
        apt.update()?;
        apt.download_sources(&["nix"], &folder)?;
        let archive = upstream_archive(&folder, "nix")?;
        // the archive's first folder, whose name has the version in it, is left out
        let mut tar = Command::new("tar");
        tar.args([
            "--extract",
            "--strip-components=1",
            "--no-same-owner",
            "--directory",
        ])
        .arg(&tree)
        .arg("--file")
        .arg(archive);
        shell::run(&mut tar)?;
        mark(&tree)?;
    }
    ["tests/functional/lang", "tests/lang"]
        .into_iter()
        .map(|place| tree.join(place))
        .find(|place| place.is_dir())
        .context("Nix's sources have no language suite where it is known to lie")
}

fn download_current(tree: &Path) -> Result<()> {
    let apt = apt(CURRENT_RELEASE)?;
    eprintln!("downloading current Nix from Debian's {CURRENT_RELEASE}, to compare with");
    apt.update()?;
    let debs = apt.download(&["nix-bin"])?;
    let _ = fs::remove_dir_all(tree); // what an interrupted run has left
    fs::create_dir_all(tree).with_context(|| format!("cannot make {}", tree.display()))?;
    for deb in debs {
        unpack(&deb, tree)?;
    }
    mark(tree)
}

fn apt(release: &str) -> Result<Apt> {
    Apt::of_release(&cache().join(format!("{release}-apt")), release)
}

/// Says that a tree is whole.
fn mark(tree: &Path) -> Result<()> {
    let done = tree.with_extension("complete");
    fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))
}

fn cache() -> PathBuf {
    shell::target().join("nix")
}

fn empty_home() -> Result<PathBuf> {
    let home = cache().join("home");
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    Ok(home)
}

/// `usr/lib/CPU-linux-gnu` of a tree of packages.
fn library_folder(tree: &Path) -> Result<PathBuf> {
    entry(&tree.join("usr/lib"), |name| name.ends_with("-linux-gnu"))
}

fn entry(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = entries
        .flatten()
        .filter(|entry| wanted(&entry.file_name().to_string_lossy()));
    let found = found
        .next()
        .with_context(|| format!("{} lacks what Nix needs", folder.display()))?;
    Ok(found.path())
}
