//! `cargo xtask image`: what a build's machine boots, below `target/image/SYSTEM/`.
//!
//! `kernel` (Debian's for virtual machines, or one given), `initramfs` (the agent as `/init` and the modules the kernel
//! needs), and `image.json`, which says what they are. See `images/README.md`.
//!
//! Invariants
//! - the same kernel package and the same sources give the same bytes;
//! - `image.json` is written last: a folder that has one has a whole image;
//! - nothing is written when nothing changed.

mod cpio;
mod debian;
mod modules;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{install, shell};

use debian::Kernel;
use modules::Wanted;

/// The form of `image.json`.
const FORMAT: u32 = 1;
/// Words every guest kernel is given: builds see no warnings of the kernel's, and its console is slow.
const COMMAND_LINE: &str = "quiet loglevel=3 no_timer_check";

/// Makes the image, or says that it is made.
pub fn run(options: &[String]) -> Result<()> {
    let options = Options::parse(options)?;
    let images = shell::target().join("image");
    let folder = images.join(&options.system.name);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let agent = build_agent(&options.system)?;
    let kernel = match &options.kernel {
        Some(file) => given_kernel(file, options.modules.as_deref())?,
        None => debian::kernel(&images.join("cache"), options.system.debian, options.refresh)?,
    };
    let wanted = match &kernel.modules {
        Some(folder) => modules::choose(folder)?,
        None => Vec::new(),
    };
    let image = Image::new(&options.system, &kernel, &agent, &wanted)?;
    if image.is_written(&folder) {
        println!("{} is up to date ({})", folder.display(), kernel.release);
    } else {
        image.write(&folder)?;
        println!("made {} ({})", folder.display(), kernel.release);
    }
    Ok(())
}

/// A system guests can be made for.
struct System {
    name: String,
    rust_target: &'static str,
    debian: &'static str,
}

struct Options {
    system: System,
    kernel: Option<PathBuf>,
    modules: Option<PathBuf>,
    refresh: bool,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self> {
        let mut name = format!("{}-linux", std::env::consts::ARCH);
        let (mut kernel, mut modules, mut refresh) = (None, None, false);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .cloned()
                    .with_context(|| format!("{word} needs a value"))
            };
            match word.as_str() {
                "--system" => name = value()?,
                "--kernel" => kernel = Some(PathBuf::from(value()?)),
                "--modules" => modules = Some(PathBuf::from(value()?)),
                "--refresh" => refresh = true,
                other => bail!(
                    "no option `{other}`; there are --system NAME, --kernel FILE, --modules DIR, --refresh (look for a newer kernel)"
                ),
            }
        }
        let (rust_target, debian) = match name.as_str() {
            "x86_64-linux" => ("x86_64-unknown-linux-musl", "amd64"),
            "aarch64-linux" => ("aarch64-unknown-linux-musl", "arm64"),
            other => bail!("no guests for `{other}`; there are x86_64-linux and aarch64-linux"),
        };
        Ok(Self {
            system: System {
                name,
                rust_target,
                debian,
            },
            kernel,
            modules,
            refresh,
        })
    }
}

/// Compiles the agent and gives its bytes.
fn build_agent(system: &System) -> Result<Vec<u8>> {
    let file = build_static("igloo-guest", "igloo-guest", system.rust_target)?;
    std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// Compiles a static program for Linux, the same bytes wherever it is compiled; where it is.
pub fn build_static(package: &str, program: &str, rust_target: &str) -> Result<PathBuf> {
    install::ensure_rust_target(rust_target)?;
    let variable = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        rust_target.to_uppercase().replace('-', "_")
    );
    let mut command = shell::cargo();
    command.args([
        "build",
        "--release",
        "--quiet",
        "--package",
        package,
        "--bin",
        program,
        "--target",
        rust_target,
    ]);
    command.env(variable, path_flags()); // the place it is compiled in is no part of it
    shell::run(&mut command)?;
    Ok(shell::target().join(rust_target).join("release").join(program))
}

/// The Rust target of guests that run on this processor.
pub fn native_target() -> &'static str {
    if std::env::consts::ARCH == "aarch64" {
        "aarch64-unknown-linux-musl"
    } else {
        "x86_64-unknown-linux-musl"
    }
}

/// Where the image for this processor is made.
pub fn directory() -> PathBuf {
    shell::target()
        .join("image")
        .join(format!("{}-linux", std::env::consts::ARCH))
}

fn path_flags() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut flags = format!("--remap-path-prefix={}=/igloo", shell::root().display());
    if let Some(home) = home {
        flags += &format!(" --remap-path-prefix={}=/cargo", home.display());
    }
    flags
}

fn given_kernel(file: &Path, modules: Option<&Path>) -> Result<Kernel> {
    let release = match modules {
        Some(folder) => folder
            .file_name()
            .context("--modules names no folder")?
            .to_string_lossy()
            .into_owned(),
        None => file
            .file_name()
            .context("--kernel names no file")?
            .to_string_lossy()
            .into_owned(),
    };
    Ok(Kernel {
        release,
        file: file.to_owned(),
        modules: modules.map(Path::to_owned),
        origin: file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    })
}

struct Image {
    kernel: Vec<u8>,
    initramfs: Vec<u8>,
    description: Value,
}

impl Image {
    fn new(system: &System, kernel: &Kernel, agent: &[u8], wanted: &[Wanted]) -> Result<Self> {
        let kernel_bytes =
            std::fs::read(&kernel.file).with_context(|| format!("cannot read {}", kernel.file.display()))?;
        let initramfs = initramfs(agent, wanted)?;
        let digests = [blake3::hash(&kernel_bytes), blake3::hash(&initramfs)].map(|hash| hash.to_hex());
        let files: Vec<_> = wanted
            .iter()
            .map(|module| json!([module.file, module.device]))
            .collect();
        let description = json!({
            "format": FORMAT,
            "system": system.name,
            "kernel": "kernel",
            "initramfs": "initramfs",
            "command_line": COMMAND_LINE,
            "bus": "pci",
            "control_version": igloo_control::frame::VERSION,
            "id": format!("linux-{} {} agent-{}", kernel.release, &digests[0][..16], &digests[1][..16]),
            "kernel_release": kernel.release,
            "kernel_origin": kernel.origin,
            "modules": files,
            "digests": { "kernel": digests[0].as_str(), "initramfs": digests[1].as_str() },
            "agent_version": env!("CARGO_PKG_VERSION"),
        });
        Ok(Self {
            kernel: kernel_bytes,
            initramfs,
            description,
        })
    }

    fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&self.description)? + "\n")
    }

    /// Whether the folder holds exactly this image.
    fn is_written(&self, folder: &Path) -> bool {
        let same = |name: &str, bytes: &[u8]| std::fs::read(folder.join(name)).is_ok_and(|old| old == bytes);
        self.text().is_ok_and(|text| same("image.json", text.as_bytes()))
            && same("kernel", &self.kernel)
            && same("initramfs", &self.initramfs)
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let text = self.text()?;
        for (name, bytes) in [
            ("kernel", &self.kernel[..]),
            ("initramfs", &self.initramfs),
            ("image.json", text.as_bytes()),
        ] {
            // a machine that boots just now keeps the file it has open
            let new = folder.join(format!("{name}.new"));
            std::fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
            std::fs::rename(&new, folder.join(name))?;
        }
        Ok(())
    }
}

fn initramfs(agent: &[u8], wanted: &[Wanted]) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::default();
    archive.file("init", 0o755, agent.to_vec());
    let mut list = String::new();
    for module in wanted {
        list += &module.file;
        if let Some(device) = module.device {
            list += &format!(" {device}");
        }
        list.push('\n');
        archive.file(
            &format!("lib/modules/{}", module.file),
            0o644,
            module.content.clone(),
        );
    }
    archive.file("modules", 0o644, list.into_bytes());
    archive.bytes()
}
