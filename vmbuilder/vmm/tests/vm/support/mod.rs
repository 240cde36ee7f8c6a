//! What the machine tests share: the image, the program builds run, inputs, a sink, one builder.

pub mod build;
pub mod inputs;
pub mod sink;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use igloo_vmm::accelerator::Accelerator;
use igloo_vmm::host::{HostAbilities, default_search};
use igloo_vmm::{GuestImage, MicroVmBuilder, MicroVmConfig};

/// Machines at once: the machine that runs CI has two processors.
const SLOTS: usize = 2;

/// What is there to test with.
pub struct Rig {
    pub image: GuestImage,
    pub host: HostAbilities,
    /// The static program, see `fixtures/program.rs`.
    pub program: PathBuf,
    builder: MicroVmBuilder,
}

/// The rig, or `None` after telling why there is none.
///
/// Software emulation always: whether KVM works is a question of its own, and one host's answer is not a test.
pub fn rig(test: &str) -> Option<&'static Rig> {
    static RIG: OnceLock<Result<Rig, String>> = OnceLock::new();
    match RIG.get_or_init(set_up) {
        Ok(rig) => Some(rig),
        Err(reason) => {
            skip(test, reason);
            None
        }
    }
}

impl Rig {
    /// The shared builder.
    pub fn builder(&self) -> &MicroVmBuilder {
        &self.builder
    }

    /// A configuration like the shared builder's, with a runtime directory of its own.
    pub fn config(&self, runtime_root: &Path) -> MicroVmConfig {
        config(&self.image, &self.host, runtime_root)
    }

    /// Directories of machines that run now.
    pub fn machine_dirs(root: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

fn set_up() -> Result<Rig, String> {
    let image = GuestImage::open(&image_dir()).map_err(|error| error.to_string())?;
    let host = look()?;
    if host.qemu(&image.system).is_none() {
        return Err(format!("there is no QEMU for {}", image.system));
    }
    let program = compile_program()?;
    // the machines' directories in it go with their builds
    let runtime_root = runtime_root();
    let mut config = config(&image, &host, &runtime_root);
    config.slots = SLOTS;
    Ok(Rig {
        builder: MicroVmBuilder::new(config),
        image,
        host,
        program,
    })
}

/// A short path, since sockets' paths are. A process cannot remove its own at its end, so it removes those of others that
/// are empty.
fn runtime_root() -> PathBuf {
    const PREFIX: &str = "igloo-vm-";
    let dir = std::env::temp_dir();
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
        {
            let _ = std::fs::remove_dir(entry.path()); // fails when a machine is in it
        }
    }
    dir.join(format!("{PREFIX}{}", std::process::id()))
}

/// Small machines: what the tests build needs little.
fn config(image: &GuestImage, host: &HostAbilities, runtime_root: &Path) -> MicroVmConfig {
    let (image, host, root) = (image.clone(), host.clone(), runtime_root.to_owned());
    let mut config = MicroVmConfig::new(image, host, Accelerator::Tcg, root);
    config.size.memory_mib = 320;
    config.size.cores = 1;
    config
}

fn look() -> Result<HostAbilities, String> {
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let looked = runtime.block_on(HostAbilities::look(&default_search()));
        looked.map_err(|error| error.to_string())
    };
    // a thread of its own: the caller may be in a runtime
    std::thread::spawn(ask)
        .join()
        .map_err(|_| "the look at this host panicked".to_owned())?
}

pub fn image_dir() -> PathBuf {
    match std::env::var_os("IGLOO_IMAGE") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image/x86_64-linux"),
    }
}

fn compile_program() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/program.rs");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = dir.join("machine-test-program");
    // made beside and renamed: another run's processes see a whole one
    let made = dir.join(format!("machine-test-program.{}", std::process::id()));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--edition", "2024", "--target", "x86_64-unknown-linux-musl", "-O"])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "strip=symbols",
            "-C",
            "linker=rust-lld",
            "-o",
        ])
        .arg(&made)
        .arg(source)
        .output()
        .map_err(|error| format!("rustc cannot be run: {error}"))?;
    if output.status.success() {
        std::fs::rename(&made, &program).map_err(|error| error.to_string())?;
        return Ok(program);
    }
    let message = String::from_utf8_lossy(&output.stderr);
    if message.contains("target may not be installed") {
        return Err("the target x86_64-unknown-linux-musl is missing (rustup target add)".into());
    }
    // a fixture that does not compile is a failure, not a skip
    panic!("tests/fixtures/program.rs does not compile:\n{message}");
}

/// Tells that a test did not run; never silently.
fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED: {test}: {reason}");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("IGLOO_TEST_SKIPS") {
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        writeln!(file, "{line}").unwrap();
    }
}
