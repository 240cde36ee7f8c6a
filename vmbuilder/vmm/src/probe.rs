//! Whether KVM works here: found out by booting a guest with it, and remembered.
//!
//! A `/dev/kvm` that opens proves nothing: some hosts' is paravirtual, takes every call, and never runs a stock kernel.
//! Only the agent's hello does.
//!
//! Invariants
//! - the answer is remembered for this boot of this kernel with these emulator files and this image, no longer;
//! - a damaged or foreign memory is as good as none.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use igloo_status::Code;
use serde::{Deserialize, Serialize};

use crate::accelerator::{Accelerator, AcceleratorChoice};
use crate::host::{HostAbilities, LookError, Qemu, native_system};
use crate::image::GuestImage;
use crate::machine::{MachineSpec, Plan, Resources, Vmm};
use crate::session::{Patience, Session};

/// Memory of the guest that says hello, MiB.
const PROBE_MEMORY_MIB: u32 = 256;
/// Where the answer is remembered, in the state directory.
const MEMORY_FILE: &str = "host.json";
/// How long a guest on working KVM may take to say hello on a very busy host; alone it takes a second at most.
pub const KVM_PATIENCE: Duration = Duration::from_secs(15);

/// Where to look, and where to remember.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// Directories to look for emulators in.
    pub search: Vec<PathBuf>,
    /// Where answers are remembered; made if need be.
    pub state_dir: PathBuf,
    /// Where machines have their directories.
    pub runtime_root: PathBuf,
    /// How long the guest on KVM may take to say hello.
    pub kvm_patience: Duration,
}

/// What this host can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Its emulators.
    pub host: HostAbilities,
    /// What builds of the image run on.
    pub choice: AcceleratorChoice,
}

/// What an answer depends on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    igloo: String,
    kernel_release: String,
    boot_id: String,
    image: String,
    /// Path, modification time (ns) and size of each emulator.
    emulators: Vec<(PathBuf, i64, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    key: Key,
    probe: Probe,
}

impl Probe {
    /// Finds out, or remembers. The first time takes some seconds, and [`ProbeConfig::kvm_patience`] where KVM hangs;
    /// from then on it takes no process.
    ///
    /// # Errors
    /// When an emulator is installed and broken. A host without any is no error here: a plan for it will be.
    pub async fn run(config: &ProbeConfig, image: &GuestImage, vmm: &dyn Vmm) -> Result<Self, ProbeError> {
        let key = Key::now(config, image);
        let path = config.state_dir.join(MEMORY_FILE);
        if let Some(probe) = recall(&path, &key) {
            return Ok(probe);
        }
        let host = HostAbilities::look(&config.search).await?;
        let choice = choose(config, &host, image, vmm).await;
        let probe = Self { host, choice };
        let memory = Memory {
            key,
            probe: probe.clone(),
        };
        if let Err(error) = remember(&path, &memory) {
            // the next start asks again, which is slow and not wrong
            tracing::warn!(path = %path.display(), %error, "what this host can do cannot be remembered");
        }
        Ok(probe)
    }

    /// Forgets what was remembered in a state directory.
    ///
    /// # Errors
    /// What the file system answers, except that there is nothing to forget.
    pub fn forget(state_dir: &Path) -> io::Result<()> {
        match fs::remove_file(state_dir.join(MEMORY_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Key {
    fn now(config: &ProbeConfig, image: &GuestImage) -> Self {
        let read = |path| {
            let text: String = fs::read_to_string(path).unwrap_or_default();
            text.trim_end().to_owned()
        };
        let stamp = |path: PathBuf| {
            let metadata = fs::metadata(&path).ok()?;
            let nanos = metadata.mtime().saturating_mul(1_000_000_000) + metadata.mtime_nsec();
            Some((path, nanos, metadata.len()))
        };
        Self {
            igloo: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: read("/proc/sys/kernel/osrelease"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            image: image.id.clone(),
            emulators: crate::host::find_all(&config.search)
                .into_iter()
                .filter_map(stamp)
                .collect(),
        }
    }
}

fn recall(path: &Path, key: &Key) -> Option<Probe> {
    let text = fs::read_to_string(path).ok()?;
    let memory: Memory = serde_json::from_str(&text).ok()?;
    (memory.key == *key).then_some(memory.probe)
}

/// Written beside and renamed: another process sees the old answer or the new one, whole.
fn remember(path: &Path, memory: &Memory) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let file = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer_pretty(&file, memory)?;
    file.persist(path)?;
    Ok(())
}

async fn choose(
    config: &ProbeConfig,
    host: &HostAbilities,
    image: &GuestImage,
    vmm: &dyn Vmm,
) -> AcceleratorChoice {
    let because = |accelerator, reason: String| AcceleratorChoice { accelerator, reason };
    let Some(qemu) = host.qemu(&image.system) else {
        return because(Accelerator::Tcg, format!("there is no QEMU for {}", image.system));
    };
    if image.system != native_system() {
        let reason = format!("this processor does not run {} code", image.system);
        return because(Accelerator::Tcg, reason);
    }
    let candidate = match hardware(qemu) {
        Ok(candidate) => candidate,
        Err(reason) => return because(Accelerator::Tcg, reason),
    };
    match boots(candidate, config, host, image, vmm).await {
        Ok(()) => because(candidate, format!("a guest booted with {candidate}")),
        Err(reason) => because(
            Accelerator::Tcg,
            format!("a guest did not boot with {candidate}: {reason}"),
        ),
    }
}

/// The hardware accelerator worth a try, or why there is none.
fn hardware(qemu: &Qemu) -> Result<Accelerator, String> {
    let wanted = if cfg!(target_os = "macos") {
        Accelerator::Hvf
    } else {
        Accelerator::Kvm
    };
    if !qemu.accelerators.contains(&wanted) {
        return Err(format!("{} was built without {wanted}", qemu.path.display()));
    }
    if wanted == Accelerator::Kvm {
        let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
        opened.map_err(|error| format!("/dev/kvm cannot be opened: {error}"))?;
    }
    Ok(wanted)
}

/// Boots a guest that sees nothing, and waits for its hello.
async fn boots(
    accelerator: Accelerator,
    config: &ProbeConfig,
    host: &HostAbilities,
    image: &GuestImage,
    vmm: &dyn Vmm,
) -> Result<(), String> {
    let spec = MachineSpec::of_image(image, PROBE_MEMORY_MIB, 1);
    let plan = Plan::resolve(&spec, host, accelerator).map_err(|error| error.to_string())?;
    let resources = Resources::prepare(&plan, &config.runtime_root).await;
    let resources = resources.map_err(|error| error.to_string())?;
    let mut running = vmm
        .start(&plan, &resources)
        .await
        .map_err(|error| error.to_string())?;
    let channel = running.take_channel().ok_or("the machine has no channel")?;
    let patience = Patience {
        hello: config.kvm_patience,
        ..Patience::default()
    };
    match Session::new(channel, patience).hello().await {
        Ok(_) => Ok(()),
        Err(error) => {
            let words = running.autopsy().await.words.replace("\n ", ";");
            Err(format!("{error}; {words}"))
        }
    }
}

/// Why it is not known what this host can do.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// An emulator is broken.
    #[error("this host's emulators cannot be asked")]
    Look(#[from] LookError),
}

impl ProbeError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Look(error) => error.code(),
        }
    }
}

#[cfg(test)]
mod tests;
