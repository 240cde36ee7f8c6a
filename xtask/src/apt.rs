//! apt with a state of its own: it downloads as if nothing were installed, installs nothing, and needs no root.
//!
//! apt checks every package's signature. The mirrors are those of the system, whose source packages are added.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell;

/// apt whose whole state lies below one folder.
pub struct Apt {
    root: PathBuf,
}

impl Apt {
    /// The packages of the system's own release, and their sources.
    ///
    /// # Errors
    /// On systems without apt or without package sources below /etc/apt.
    pub fn of_system(root: &Path) -> Result<Self> {
        let apt = Self::new(root)?;
        let lists = system_lists();
        for (path, text) in &lists {
            let name = path.file_name().context("a list without a name")?;
            fs::write(apt.root.join("sources").join(name), with_sources(text))
                .context("cannot copy apt's sources")?;
        }
        if lists.is_empty() {
            bail!("this machine has no package sources below /etc/apt; Debian's are needed");
        }
        Ok(apt)
    }

    /// The packages of another release of Debian, and their sources, from the system's mirror.
    ///
    /// # Errors
    /// On systems that are not Debian: they know neither its mirrors nor its keys.
    pub fn of_release(root: &Path, release: &str) -> Result<Self> {
        let apt = Self::new(root)?;
        let keys = Path::new(DEBIAN_KEYS);
        let lists = system_lists();
        let mirror = lists.iter().find_map(|(_, text)| debian_mirror(text));
        let (Some(mirror), true) = (mirror, keys.is_file()) else {
            bail!("this machine has no Debian mirror below /etc/apt, or not its keys ({DEBIAN_KEYS})");
        };
        let list = format!(
            "Types: deb deb-src\nURIs: {mirror}\nSuites: {release}\nComponents: main\nSigned-By: {DEBIAN_KEYS}\n"
        );
        fs::write(apt.root.join("sources/release.sources"), list).context("cannot write apt's sources")?;
        Ok(apt)
    }

    fn new(root: &Path) -> Result<Self> {
        for program in ["apt-get", "dpkg-deb"] {
            if !shell::has_program(program) {
                bail!("this machine has no {program}, with which Debian packages are fetched");
            }
        }
        let root = root.to_path_buf();
        for folder in ["lists/partial", "archives/partial", "sources"] {
            fs::create_dir_all(root.join(folder)).context("cannot make apt's folders")?;
        }
        fs::write(root.join("status"), "").context("cannot write apt's status")?;
        let place = root.display();
        let settings = format!(
            "Dir::State \"{place}\";\nDir::State::status \"{place}/status\";\nDir::State::lists \"{place}/lists\";\n\
             Dir::Cache \"{place}\";\nDir::Cache::archives \"{place}/archives\";\n\
             Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"{place}/sources\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\nAPT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"\";\nAcquire::Languages \"none\";\nDebug::NoLocking \"1\";\n"
        );
        fs::write(root.join("apt.conf"), settings).context("cannot write apt's configuration")?;
        Ok(Self { root })
    }

    /// Reads the mirrors' lists anew.
    pub fn update(&self) -> Result<()> {
        shell::run(self.get().args(["update", "-qq"]))
    }

    /// Downloads packages and all they depend on; the files, sorted.
    pub fn download(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        shell::run(
            self.get()
                .args(["install", "-y", "-qq", "--download-only"])
                .args(packages),
        )?;
        self.downloaded()
    }

    /// What has been downloaded, sorted.
    pub fn downloaded(&self) -> Result<Vec<PathBuf>> {
        let mut debs = files(&self.root.join("archives"), |name| name.ends_with(".deb"))?;
        debs.sort();
        Ok(debs)
    }

    /// Downloads source packages into a folder, not unpacked.
    pub fn download_sources(&self, packages: &[&str], folder: &Path) -> Result<()> {
        let mut command = self.get();
        command
            .args(["source", "-qq", "--download-only"])
            .args(packages)
            .current_dir(folder);
        shell::run(&mut command)
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command
            .env("APT_CONFIG", self.root.join("apt.conf"))
            .stdout(Stdio::null());
        command
    }
}

/// Where Debian puts its own keys.
const DEBIAN_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Upstream's archive of a source package in a folder.
pub fn upstream_archive(folder: &Path, source: &str) -> Result<PathBuf> {
    let start = format!("{source}_");
    let wanted =
        |name: &str| name.starts_with(&start) && name.contains(".orig.tar") && !name.ends_with(".asc");
    let found = files(folder, wanted)?.into_iter().next();
    found.with_context(|| format!("the source package {source} has no upstream archive"))
}

/// Unpacks a package into a tree.
pub fn unpack(deb: &Path, tree: &Path) -> Result<()> {
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

/// The system's lists of package sources.
fn system_lists() -> Vec<(PathBuf, String)> {
    let parts = Path::new("/etc/apt/sources.list.d");
    let mut lists = files(parts, |name| {
        name.ends_with(".sources") || name.ends_with(".list")
    })
    .unwrap_or_default();
    lists.push(PathBuf::from("/etc/apt/sources.list"));
    lists.sort();
    lists
        .into_iter()
        .filter_map(|list| Some((list.clone(), fs::read_to_string(list).ok()?)))
        .collect()
}

/// The first mirror in a list that ends as Debian's main archive does.
fn debian_mirror(text: &str) -> Option<&str> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = lines.flat_map(str::split_whitespace);
    words.find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
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

    #[test]
    fn the_mirror_is_found_in_both_formats() {
        let new = "# http://old.example/debian\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: x\n";
        assert_eq!(debian_mirror(new), Some("http://mirror.example/debian"));
        let old = "deb [arch=amd64] http://security.example/debian-security x main\ndeb https://m.example/debian/ x main\n";
        assert_eq!(debian_mirror(old), Some("https://m.example/debian/"));
        assert_eq!(debian_mirror("deb http://other.example/ubuntu x main\n"), None);
    }
}
