//! Debian's kernel for virtual machines: downloaded and unpacked, never installed.
//!
//! apt checks the package's signature. Its state lies below `target/`, so neither root nor the system's package lists are
//! needed; the mirrors are the system's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// A kernel ready to be put into an image.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its release, as `uname -r` says.
    pub release: String,
    /// The bootable file.
    pub file: PathBuf,
    /// `lib/modules/RELEASE`, none for a kernel without modules.
    pub modules: Option<PathBuf>,
    /// Where it comes from, for provenance.
    pub origin: String,
}

/// The package that always depends on the newest kernel.
fn metapackage(architecture: &str) -> String {
    format!("linux-image-cloud-{architecture}")
}

/// The kernel of the running Debian release. Downloads once, about 30 MB; later calls find it below `cache`.
///
/// # Errors
/// On systems without apt, or whose mirrors have no such kernel, says what to do instead.
pub fn kernel(cache: &Path, architecture: &str, refresh: bool) -> Result<Kernel> {
    let unpacked = cache.join(format!("debian-{architecture}"));
    if !refresh && let Some(kernel) = find(&unpacked)? {
        return Ok(kernel);
    }
    for program in ["apt-get", "apt-cache", "dpkg-deb"] {
        if !shell::has_program(program) {
            bail!(
                "there is no {program} to fetch Debian's kernel with; give a kernel with --kernel FILE (and --modules DIR)"
            );
        }
    }
    let apt = Apt::new(cache, architecture)?;
    eprintln!("downloading Debian's kernel for virtual machines ({architecture})");
    apt.run("apt-get", &["update", "-qq"])?;
    let package = apt.resolve(&metapackage(architecture))?;
    let downloads = cache.join("download");
    remake(&downloads)?;
    shell::run(
        apt.command("apt-get")
            .current_dir(&downloads)
            .args(["download", "-qq", &package]),
    )?;
    let Some(deb) = std::fs::read_dir(&downloads)?.flatten().next() else {
        bail!("apt-get downloaded nothing for {package}");
    };
    remake(&unpacked)?;
    shell::run(Command::new("dpkg-deb").arg("-x").arg(deb.path()).arg(&unpacked))?;
    std::fs::write(
        unpacked.join("origin"),
        deb.file_name().to_string_lossy().as_bytes(),
    )?;
    find(&unpacked)?.with_context(|| format!("the package {package} holds no kernel"))
}

/// The kernel of an unpacked package.
fn find(unpacked: &Path) -> Result<Option<Kernel>> {
    let Ok(origin) = std::fs::read_to_string(unpacked.join("origin")) else {
        return Ok(None);
    };
    for entry in std::fs::read_dir(unpacked.join("boot"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(release) = name.strip_prefix("vmlinuz-") else {
            continue;
        };
        let places = ["lib/modules", "usr/lib/modules"].map(|place| unpacked.join(place).join(release));
        let modules = places.into_iter().find(|place| place.is_dir());
        return Ok(Some(Kernel {
            release: release.to_owned(),
            file: entry.path(),
            modules,
            origin,
        }));
    }
    Ok(None)
}

/// apt with state of its own.
struct Apt {
    state: PathBuf,
    architecture: String,
}

impl Apt {
    fn new(cache: &Path, architecture: &str) -> Result<Self> {
        let state = cache.join("apt");
        for folder in ["lists/partial", "archives/partial"] {
            std::fs::create_dir_all(state.join(folder))
                .with_context(|| format!("cannot make {}", state.display()))?;
        }
        Ok(Self {
            state,
            architecture: architecture.to_owned(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let state = self.state.display();
        for option in [
            format!("Dir::State={state}"),
            format!("Dir::State::Lists={state}/lists"),
            format!("Dir::Cache={state}"),
            "Dir::State::status=/dev/null".to_owned(),
            format!("APT::Architecture={}", self.architecture),
            format!("APT::Architectures={}", self.architecture),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        shell::run(self.command(program).args(arguments))
    }

    /// The package a metapackage depends on.
    fn resolve(&self, metapackage: &str) -> Result<String> {
        let text = shell::output(
            self.command("apt-cache")
                .args(["depends", "--important", metapackage]),
        )
        .with_context(|| {
            format!("the mirrors of this system have no {metapackage}; give a kernel with --kernel FILE")
        })?;
        let mut names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        names
            .find(|name| name.starts_with("linux-image-"))
            .map(str::to_owned)
            .with_context(|| format!("{metapackage} depends on no kernel"))
    }
}

/// An empty folder.
fn remake(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
        }
        _ => {}
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
