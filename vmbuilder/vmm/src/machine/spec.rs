//! What a machine should be, before anything is known of the host.

use std::path::PathBuf;

use crate::image::{Bus, GuestImage};

/// A machine as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// Architecture and kernel, `x86_64-linux`.
    pub system: String,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// Words for the kernel from the image.
    pub command_line: String,
    /// How the kernel finds devices.
    pub bus: Bus,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cores: u32,
    /// The file system it sees; none for a machine that only says hello.
    pub share: Option<ShareSpec>,
    /// A disk for scratch space.
    pub scratch: Option<ScratchSpec>,
    /// What it can reach.
    pub network: Network,
}

/// A virtiofs device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareSpec {
    /// The name the guest mounts it by.
    pub tag: String,
}

/// A disk that is thrown away with the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScratchSpec {
    /// Size, bytes; the file is sparse, so this much is used only when it is written.
    pub size_bytes: u64,
}

/// What a machine can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing: there is no network device.
    #[default]
    None,
    /// The outside, through QEMU's user-mode stack: outgoing connections only, as the user who runs QEMU, and with
    /// everything that user can reach. The host's own loopback is reachable at the stack's gateway address, which
    /// QEMU 7.2 has no switch against, so hosts that listen on loopback must not allow it to strangers' builds.
    User,
}

impl MachineSpec {
    /// A machine of that image and size which sees nothing and reaches nothing.
    pub fn of_image(image: &GuestImage, memory_mib: u32, cores: u32) -> Self {
        Self {
            system: image.system.clone(),
            kernel: image.kernel.clone(),
            initramfs: image.initramfs.clone(),
            command_line: image.command_line.clone(),
            bus: image.bus,
            memory_mib,
            cores,
            share: None,
            scratch: None,
            network: Network::None,
        }
    }
}
