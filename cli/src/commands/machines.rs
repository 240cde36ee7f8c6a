//! The builder of this machine, made from the configuration.

use std::path::PathBuf;
use std::sync::Arc;

use igloo_build::Builder;
use igloo_status::Code;
use igloo_vmm::builder::{MicroVmBuilder, MicroVmConfig, NetworkPolicy};
use igloo_vmm::host::default_search;
use igloo_vmm::image::{GuestImage, IMAGE_FILE};
use igloo_vmm::probe::{KVM_PATIENCE, Probe, ProbeConfig};
use igloo_vmm::qemu::Qemu;

use crate::args::{MachineArguments, NetworkChoice};
use crate::config::Config;
use crate::config::value::Value;
use crate::context::Context;
use crate::failure::Failure;

/// Merges the flags into the configuration.
pub fn configure(config: &mut Config, arguments: &MachineArguments) -> Result<(), Failure> {
    let mut set = |name: &str, value: Option<String>| match value {
        Some(value) => config
            .set(name, &Value::Text(value))
            .map_err(|error| error.into_failure(&format!("--{name}"))),
        None => Ok(()),
    };
    set("max-jobs", arguments.max_jobs.clone())?;
    set("cores", arguments.cores.map(|cores| cores.to_string()))?;
    set("memory", arguments.memory.map(|memory| memory.to_string()))?;
    if let Some(image) = &arguments.image {
        config.image = Some(image.clone());
    }
    config.network = arguments.network.or(config.network);
    Ok(())
}

/// A builder that gives every build its own microVM; `network` is what the command does unless told otherwise.
pub async fn builder(
    context: &Context,
    given: &Config,
    network: NetworkChoice,
) -> Result<Arc<dyn Builder>, Failure> {
    let image_dir = image_dir(context, given.image.as_ref());
    let image = GuestImage::open(&image_dir)?;
    let probe_config = probe_config(context);
    if context.terminal && !context.quiet && !probe_config.state_dir.exists() {
        eprintln!("finding out what this machine can run (once)");
    }
    let probe = Probe::run(&probe_config, &image, &Qemu).await?;
    if probe.host.qemu(&image.system).is_none() {
        return Err(Failure::coded(
            anyhow::anyhow!("there is no QEMU for {} on this machine", image.system),
            Code::FailedPrecondition,
        )
        .with_hint(
            "install qemu-system-x86 (Debian, Ubuntu) or qemu-kvm (Fedora); `igloo doctor` says more",
        ));
    }
    let mut config = MicroVmConfig::new(
        image,
        probe.host,
        probe.choice.accelerator,
        probe_config.runtime_root,
    );
    config.slots = usize::from(given.max_jobs);
    config.size.memory_mib = given.memory_mib;
    config.size.memory_mib_max = config.size.memory_mib_max.max(given.memory_mib);
    config.size.cores = given.cores;
    config.size.cores_max = config.size.cores_max.max(given.cores);
    config.network = match given.network.unwrap_or(network) {
        NetworkChoice::Allow => NetworkPolicy::Allow,
        NetworkChoice::Refuse => NetworkPolicy::Refuse,
    };
    Ok(Arc::new(MicroVmBuilder::new(config)))
}

/// Where to look for emulators and to remember what they can do.
pub fn probe_config(context: &Context) -> ProbeConfig {
    ProbeConfig {
        search: default_search(),
        state_dir: context.cache_dir.clone(),
        runtime_root: context.runtime_dir.join("machines"),
        kvm_patience: KVM_PATIENCE,
    }
}

/// The named folder, or the first of the usual ones that has an image.
pub fn image_dir(context: &Context, named: Option<&PathBuf>) -> PathBuf {
    let usual = || {
        context
            .image_dirs
            .iter()
            .find(|dir| dir.join(IMAGE_FILE).is_file())
            .or(context.image_dirs.first())
    };
    named.or_else(usual).cloned().unwrap_or_default()
}
