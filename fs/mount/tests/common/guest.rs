//! A guest without a machine: the driver's side of a vhost-user-fs device, over a memfd.

#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemory, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

/// Where guest memory starts for the guest; not 0, so that a forgotten translation shows.
pub const BASE: u64 = 0x4000_0000;
pub const MEMORY_SIZE: usize = 32 << 20;
pub const QUEUE_SIZE: u16 = 64;
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// The driver of one device.
pub struct Guest {
    pub frontend: Frontend,
    pub memory: GuestMemoryMmap<()>,
    pub queues: Vec<DriverQueue>,
}

/// The driver's side of a split virtqueue; each lies in 4 MiB of its own.
pub struct DriverQueue {
    pub base: u64,
    pub kick: EventFd,
    pub call: EventFd,
    pub error: EventFd,
    available: u16,
    used_seen: u16,
}

/// A descriptor as the driver writes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Guest {
    /// Connects and sets everything up as a VMM and a Linux driver do.
    pub fn connect(socket: &Path, queues: usize) -> Self {
        let memfd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = std::fs::File::from(memfd);
        file.set_len(MEMORY_SIZE as u64).unwrap();
        let range = (GuestAddress(BASE), MEMORY_SIZE, Some(FileOffset::new(file, 0)));
        let memory = GuestMemoryMmap::<()>::from_ranges_with_files([range]).unwrap();
        let mut frontend = Frontend::connect(socket, 8).unwrap();
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap();
        let wanted = 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << 30;
        assert_eq!(features & wanted, wanted);
        frontend.set_features(wanted).unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        assert_eq!(protocol & wanted, wanted);
        frontend.set_protocol_features(wanted).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(frontend.get_queue_num().unwrap(), queues as u64);
        let region = memory.iter().next().unwrap();
        let file = region.file_offset().unwrap();
        let info = VhostUserMemoryRegionInfo {
            guest_phys_addr: BASE,
            memory_size: MEMORY_SIZE as u64,
            userspace_addr: region.as_ptr() as u64,
            mmap_offset: 0,
            mmap_handle: file.file().as_raw_fd(),
        };
        frontend.set_mem_table(&[info]).unwrap();
        let mut guest = Self {
            frontend,
            memory,
            queues: Vec::new(),
        };
        for index in 0..queues {
            guest
                .queues
                .push(DriverQueue::new(BASE + index as u64 * (4 << 20)));
            guest.start(index, 0);
        }
        guest
    }

    /// Where the VMM sees an address of the guest's.
    pub fn vmm_address(&self, address: u64) -> u64 {
        self.memory.get_host_address(GuestAddress(address)).unwrap() as u64
    }

    /// Tells the device about a queue and starts it.
    pub fn start(&mut self, index: usize, next_available: u16) {
        let queue = &self.queues[index];
        let address = |offset: u64| self.vmm_address(queue.base + offset);
        let config = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: address(0),
            used_ring_addr: address(0x2000),
            avail_ring_addr: address(0x1000),
            log_addr: None,
        };
        let frontend = &mut self.frontend;
        frontend.set_vring_num(index, QUEUE_SIZE).unwrap();
        frontend.set_vring_addr(index, &config).unwrap();
        frontend.set_vring_base(index, next_available).unwrap();
        frontend.set_vring_call(index, &queue.call).unwrap();
        frontend.set_vring_err(index, &queue.error).unwrap();
        frontend.set_vring_kick(index, &queue.kick).unwrap();
        frontend.set_vring_enable(index, true).unwrap();
    }

    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub fn read(&self, address: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// Makes a chain available: descriptors from table slot `slot` on, linked as their flags say.
    pub fn offer(&mut self, queue: usize, slot: u16, chain: &[Descriptor]) {
        let base = self.queues[queue].base;
        for (index, descriptor) in chain.iter().enumerate() {
            self.write_descriptor(base, slot + index as u16, descriptor);
        }
        self.make_available(queue, slot);
    }

    pub fn write_descriptor(&self, table: u64, slot: u16, descriptor: &Descriptor) {
        let mut bytes = Vec::new();
        bytes.extend(descriptor.address.to_le_bytes());
        bytes.extend(descriptor.len.to_le_bytes());
        bytes.extend(descriptor.flags.to_le_bytes());
        bytes.extend(descriptor.next.to_le_bytes());
        self.write(table + u64::from(slot) * 16, &bytes);
    }

    pub fn make_available(&mut self, queue: usize, head: u16) {
        let driver = &mut self.queues[queue];
        let ring = driver.base + 0x1000;
        let place = u64::from(driver.available % QUEUE_SIZE);
        driver.available = driver.available.wrapping_add(1);
        let (available, seen) = (driver.available, driver.used_seen);
        // used_event: interrupt at the next used element
        self.write(ring + 4 + u64::from(QUEUE_SIZE) * 2, &seen.to_le_bytes());
        self.write(ring + 4 + place * 2, &head.to_le_bytes());
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.write(ring + 2, &available.to_le_bytes());
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.queues[queue].kick.write(1).unwrap();
    }

    /// The next used element: its head and the bytes written. `None` when there is none in time.
    pub fn used(&mut self, queue: usize, patience: Duration) -> Option<(u16, u32)> {
        let deadline = Instant::now() + patience;
        let driver = &self.queues[queue];
        let (ring, seen) = (driver.base + 0x2000, driver.used_seen);
        loop {
            let index = u16::from_le_bytes(self.read(ring + 2, 2).try_into().unwrap());
            if index != seen {
                let place = u64::from(seen % QUEUE_SIZE);
                let element = self.read(ring + 4 + place * 8, 8);
                let driver = &mut self.queues[queue];
                driver.used_seen = seen.wrapping_add(1);
                let head = u32::from_le_bytes(element[..4].try_into().unwrap());
                return Some((head as u16, u32::from_le_bytes(element[4..].try_into().unwrap())));
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Whether the device has interrupted for this queue since last asked; waits a moment for it.
    pub fn interrupted(&self, queue: usize) -> bool {
        let tries = (0..1000).map(|_| std::thread::sleep(Duration::from_millis(1)));
        self.queues[queue].call.read().is_ok()
            || tries
                .map(|()| self.queues[queue].call.read())
                .any(|read| read.is_ok())
    }

    /// Addresses for a request and its answer that belong to a table slot.
    pub fn buffers(&self, queue: usize, slot: u16) -> (u64, u64) {
        let base = self.queues[queue].base + 0x10_000 + u64::from(slot) * 0x20_000;
        (base, base + 0x1_0000)
    }

    /// Offers a request with room for an answer, in descriptors of odd sizes.
    pub fn send(&mut self, queue: usize, slot: u16, request: &[u8], room: u32) {
        let (from, to) = self.buffers(queue, slot);
        self.write(from, request);
        let cut = 40.min(request.len()) as u32;
        let rest = request.len() as u32 - cut;
        let mut chain = vec![Descriptor {
            address: from,
            len: cut,
            flags: 0,
            next: 0,
        }];
        if rest > 0 {
            chain.push(Descriptor {
                address: from + u64::from(cut),
                len: rest,
                flags: 0,
                next: 0,
            });
        }
        if room > 0 {
            let head = 16.min(room);
            chain.push(Descriptor {
                address: to,
                len: head,
                flags: WRITE,
                next: 0,
            });
            if room > head {
                let address = to + u64::from(head);
                chain.push(Descriptor {
                    address,
                    len: room - head,
                    flags: WRITE,
                    next: 0,
                });
            }
        }
        let last = chain.len() - 1;
        for (index, descriptor) in chain.iter_mut().enumerate().take(last) {
            descriptor.flags |= NEXT;
            descriptor.next = slot + index as u16 + 1;
        }
        self.offer(queue, slot, &chain);
    }

    /// Sends a request and waits for its answer: exactly the bytes the device says it wrote.
    pub fn ask(&mut self, queue: usize, request: &[u8], room: u32) -> Vec<u8> {
        self.send(queue, 0, request, room);
        let (head, written) = self
            .used(queue, Duration::from_secs(10))
            .expect("an answer in time");
        assert_eq!(head, 0);
        let (_, to) = self.buffers(queue, 0);
        self.read(to, written as usize)
    }
}

impl DriverQueue {
    fn new(base: u64) -> Self {
        let event = || EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let (kick, call, error) = (event(), event(), event());
        Self {
            base,
            kick,
            call,
            error,
            available: 0,
            used_seen: 0,
        }
    }
}

/// A FUSE request: header (struct fuse_in_header, linux/fuse.h) and body.
pub fn request(opcode: u32, unique: u64, inode: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((40 + body.len() as u32).to_le_bytes());
    bytes.extend(opcode.to_le_bytes());
    bytes.extend(unique.to_le_bytes());
    bytes.extend(inode.to_le_bytes());
    bytes.extend([0; 16]); // uid, gid, pid, padding
    bytes.extend(body);
    bytes
}

/// FUSE_INIT of a current kernel: 7.38, every feature it might offer, with the extended flags.
pub fn init(unique: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for word in [7u32, 38, 128 << 10, u32::MAX, 0xffff] {
        body.extend(word.to_le_bytes());
    }
    body.extend([0; 44]);
    request(26, unique, 0, &body)
}

pub fn lookup(unique: u64, parent: u64, name: &str) -> Vec<u8> {
    let mut body = name.as_bytes().to_vec();
    body.push(0);
    request(1, unique, parent, &body)
}

/// READ, READDIR or READDIRPLUS.
pub fn read(opcode: u32, unique: u64, inode: u64, offset: u64, size: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0u64.to_le_bytes());
    body.extend(offset.to_le_bytes());
    body.extend(size.to_le_bytes());
    body.extend([0; 20]);
    request(opcode, unique, inode, &body)
}

/// An answer's header: size, error, unique.
pub fn header(answer: &[u8]) -> (u32, i32, u64) {
    let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
    let unique = u64::from_le_bytes(answer[8..16].try_into().unwrap());
    (word(0), word(4) as i32, unique)
}

/// The inode number in an answer to LOOKUP.
pub fn inode(answer: &[u8]) -> u64 {
    assert_eq!(header(answer).1, 0, "the lookup failed");
    u64::from_le_bytes(answer[16..24].try_into().unwrap())
}
