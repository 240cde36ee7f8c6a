//! The control side of vhost-user: what the VMM says about memory, features and rings.
//!
//! Invariant: every number is checked before use; an error answers the message and, by the library, ends the connection.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::device::Device;
use super::ring::Ring;
use crate::sync::Arc;

/// Most pieces of guest memory, those hot-plugged included.
const MEMORY_SLOTS_MAX: usize = 32;

/// How long a ring that is stopped may take to finish.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

const FEATURES: u64 = (1 << VIRTIO_F_VERSION_1)
    | (1 << VIRTIO_RING_F_INDIRECT_DESC)
    | (1 << VIRTIO_RING_F_EVENT_IDX)
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// Follows one VMM.
pub(super) struct Handler {
    device: Arc<Device>,
    slots: Vec<Slot>,
    features: u64,
}

/// A piece of guest memory: where the guest sees it, where the VMM does, and our mapping.
#[derive(Clone)]
struct Slot {
    guest_address: u64,
    vmm_address: u64,
    size: u64,
    region: Arc<GuestRegionMmap<()>>,
}

impl Handler {
    pub(super) fn new(device: Arc<Device>) -> Self {
        Self {
            device,
            slots: Vec::new(),
            features: 0,
        }
    }

    fn ring(&self, index: u32) -> Result<&Ring> {
        let index = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.device.rings().get(index).ok_or(Error::InvalidParam)
    }

    /// Where the guest sees an address of the VMM's.
    fn guest_address(&self, vmm_address: u64) -> Result<u64> {
        self.slots
            .iter()
            .find_map(|slot| {
                let offset = vmm_address.checked_sub(slot.vmm_address)?;
                if offset >= slot.size {
                    None
                } else {
                    slot.guest_address.checked_add(offset)
                }
            })
            .ok_or(Error::InvalidParam)
    }

    fn replace_slots(&mut self, mut slots: Vec<Slot>) -> Result<()> {
        if slots.len() > MEMORY_SLOTS_MAX {
            return Err(Error::InvalidParam);
        }
        slots.sort_by_key(|slot| slot.guest_address);
        let memory = if slots.is_empty() {
            GuestMemoryMmap::default()
        } else {
            let regions = slots.iter().map(|slot| slot.region.clone()).collect();
            GuestMemoryMmap::from_arc_regions(regions).map_err(other)?
        };
        self.slots = slots;
        self.device.set_memory(memory);
        self.device.wake();
        Ok(())
    }
}

impl Slot {
    fn map(region: &VhostUserMemoryRegion, file: File) -> Result<Self> {
        let (guest_address, vmm_address, size) =
            (region.guest_phys_addr, region.user_addr, region.memory_size);
        let mapping = GuestRegionMmap::new(region.mmap_region(file)?, GuestAddress(guest_address));
        let region = Arc::new(mapping.ok_or(Error::InvalidParam)?);
        Ok(Self {
            guest_address,
            vmm_address,
            size,
            region,
        })
    }
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}

const NOT_OFFERED: Error = Error::InvalidOperation("a feature this device does not offer");

impl VhostUserBackendReqHandlerMut for Handler {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.features = 0;
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        for ring in self.device.rings() {
            ring.set_enabled(false);
            ring.stop(STOP_PATIENCE);
        }
        self.features = 0;
        self.device.wake();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !FEATURES != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        for ring in self.device.rings() {
            ring.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
            // without the protocol extension there is no message that enables rings: they are from now on
            if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
                ring.set_enabled(true);
            }
        }
        self.device.wake();
        Ok(())
    }

    fn set_mem_table(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<()> {
        if regions.len() != files.len() {
            return Err(Error::InvalidParam);
        }
        let pairs = regions.iter().zip(files);
        let slots = pairs
            .map(|(region, file)| Slot::map(region, file))
            .collect::<Result<_>>()?;
        self.replace_slots(slots)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        self.ring(index)?.set_size(size).map_err(other)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        let descriptor = self.guest_address(descriptor)?;
        let (available, used) = (self.guest_address(available)?, self.guest_address(used)?);
        let memory = self.device.memory();
        self.ring(index)?
            .set_addresses(&memory, descriptor, available, used)
            .map_err(other)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.ring(index)?.set_next_available(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let next = self.ring(index)?.stop(STOP_PATIENCE);
        self.device.wake();
        Ok(VhostUserVringState::new(index, next.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.ring(index.into())?.start(file.map(OwnedFd::from));
        self.device.wake();
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.ring(index.into())?.set_call(file.map(OwnedFd::from));
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.ring(index.into())?.set_error(file.map(OwnedFd::from));
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, _: u64) -> Result<()> {
        Ok(()) // the library acts on them
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        u64::try_from(self.device.rings().len()).map_err(other)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        if self.features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            return Err(Error::InactiveFeature(VhostUserVirtioFeatures::PROTOCOL_FEATURES));
        }
        self.ring(index)?.set_enabled(enable);
        self.device.wake();
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        u64::try_from(MEMORY_SLOTS_MAX).map_err(other)
    }

    fn add_mem_region(&mut self, region: &VhostUserSingleMemoryRegion, file: File) -> Result<()> {
        let added = Slot::map(region, file)?;
        let mut slots = self.slots.clone();
        slots.push(added);
        self.replace_slots(slots)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let (guest_address, vmm_address, size) =
            (region.guest_phys_addr, region.user_addr, region.memory_size);
        let mut slots = self.slots.clone();
        slots.retain(|slot| {
            (slot.guest_address, slot.vmm_address, slot.size) != (guest_address, vmm_address, size)
        });
        self.replace_slots(slots)
    }

    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Err(NOT_OFFERED)
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(NOT_OFFERED)
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(NOT_OFFERED)
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(NOT_OFFERED)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(NOT_OFFERED)
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(NOT_OFFERED)
    }
}
