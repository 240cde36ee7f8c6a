//! Rings over memory that a guest has filled with anything.

use std::os::fd::OwnedFd;

use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::device::{Device, serve};
use crate::server::tests::{request, server};

const BASE: u64 = 0x10_0000;
const SIZE: usize = 1 << 20;
const RING_SIZE: u16 = 8;
const DESCRIPTORS: u64 = BASE;
const AVAILABLE: u64 = BASE + 0x1000;
const USED: u64 = BASE + 0x2000;
const DATA: u64 = BASE + 0x4000;

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// A descriptor: mostly of things that exist, sometimes of anything.
fn descriptor() -> impl Strategy<Value = [u8; 16]> {
    let address = prop_oneof![
        4 => (0..64u64).prop_map(|page| DATA + page * 4096),
        1 => Just(DESCRIPTORS),
        1 => Just(BASE + SIZE as u64 - 8),
        1 => any::<u64>(),
    ];
    let size = prop_oneof![4 => 0..8192u32, 2 => Just(32), 1 => any::<u32>()];
    let flags = prop_oneof![4 => 0..4u16, 1 => 4..8u16, 1 => any::<u16>()];
    let next = prop_oneof![4 => 0..RING_SIZE, 1 => any::<u16>()];
    (address, size, flags, next).prop_map(|(address, size, flags, next)| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&size.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever a guest writes into its rings, each chain is taken once, answered within the room it gave, and nothing
    /// panics or runs on for ever.
    #[test]
    fn any_ring_is_survived(
        descriptors in prop::collection::vec(descriptor(), usize::from(RING_SIZE)),
        indirect in prop::collection::vec(descriptor(), 4),
        heads in prop::collection::vec(prop_oneof![4 => 0..RING_SIZE, 1 => any::<u16>()], usize::from(RING_SIZE)),
        available in prop_oneof![8 => 0..=RING_SIZE, 1 => any::<u16>()],
        event_idx: bool,
        opcode in prop_oneof![Just(1u32), Just(3), Just(15), Just(44), 0..60u32],
    ) {
        let (_runtime, server) = server();
        let device = Device::new(server, 2).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), SIZE)]).unwrap();
        for page in 0..64 {
            memory.write_slice(&request(opcode, page, 1, &[0; 40]), GuestAddress(DATA + page * 4096)).unwrap();
        }
        memory.write_slice(&descriptors.concat(), GuestAddress(DESCRIPTORS)).unwrap();
        memory.write_slice(&indirect.concat(), GuestAddress(DATA)).unwrap();
        memory.write_slice(&available.to_le_bytes(), GuestAddress(AVAILABLE + 2)).unwrap();
        for (place, head) in (0..).zip(&heads) {
            memory.write_slice(&head.to_le_bytes(), GuestAddress(AVAILABLE + 4 + place * 2)).unwrap();
        }
        device.set_memory(memory);
        let ring = &device.rings()[1];
        ring.set_size(RING_SIZE).unwrap();
        ring.set_addresses(&device.memory(), DESCRIPTORS, AVAILABLE, USED).unwrap();
        ring.set_event_idx(event_idx);
        ring.set_enabled(true);
        ring.set_call(Some(event()));
        ring.start(Some(event()));

        let mut taken_count = 0;
        let mut scratch = Vec::new();
        while let Some(taken) = ring.take(&device.memory()) {
            taken_count += 1;
            prop_assert!(taken_count <= RING_SIZE, "a chain is taken once");
            // before serving, for the answer may overwrite the descriptors
            let room: u64 = taken.chain.clone().writable().map(|one| u64::from(one.len())).sum();
            let written = serve(device.server(), &taken, &mut scratch);
            prop_assert!(u64::from(written) <= room, "{} written into {}", written, room);
            ring.give_back(&device.memory(), &taken, written);
        }
        prop_assert!(taken_count <= available);
        ring.arm(&device.memory());
        ring.stop(std::time::Duration::ZERO);
    }
}
