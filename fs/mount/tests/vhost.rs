//! The virtiofs device, driven by a guest made of a memfd and a vhost-user frontend: no machine is needed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    reason = "helpers of tests, which clippy does not take for tests"
)]

mod common;
#[path = "common/guest.rs"]
mod guest;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Item, TestStore, Watchdog, dir, file, name_of, noise, program};
use guest::{BASE, Descriptor, Guest, INDIRECT, MEMORY_SIZE, NEXT, WRITE};
use igloo_mount::vhost::{ConnectionEnd, StartVhostError};
use igloo_mount::{CastoreFs, MapRoots, Roots, VhostServer};
use vhost::VhostBackend;

/// High-priority and two request queues.
const QUEUES: usize = 3;
const HIPRIO: usize = 0;
const FIRST: usize = 1;
const SECOND: usize = 2;

struct Served {
    server: VhostServer,
    guest: Guest,
    store: TestStore,
    tmp: tempfile::TempDir,
    _watchdog: Watchdog,
}

fn served(test: &'static str, items: &[(&str, Item)]) -> Served {
    let tmp = tempfile::tempdir().unwrap();
    let watchdog = Watchdog::new(test, tmp.path(), Duration::from_secs(60));
    let store = TestStore::new();
    let server = VhostServer::start(&tmp.path().join("fs.sock"), fs(&store, items), 4, QUEUES - 1).unwrap();
    let mut guest = Guest::connect(server.socket(), QUEUES);
    let answer = guest.ask(FIRST, &guest::init(1), 80);
    assert_eq!(guest::header(&answer), (80, 0, 1));
    Served {
        server,
        guest,
        store,
        tmp,
        _watchdog: watchdog,
    }
}

fn fs(store: &TestStore, items: &[(&str, Item)]) -> Arc<CastoreFs> {
    let roots: MapRoots = items
        .iter()
        .map(|(name, item)| (name_of(name.as_bytes()), store.put(item)))
        .collect();
    let roots: Arc<dyn Roots> = Arc::new(roots);
    Arc::new(CastoreFs::of_store(
        roots,
        store.castore.clone(),
        store.runtime.handle().clone(),
    ))
}

impl Served {
    fn find(&mut self, path: &str) -> u64 {
        path.split('/').fold(1, |parent, name| {
            guest::inode(&self.guest.ask(FIRST, &guest::lookup(9, parent, name), 144))
        })
    }

    /// The device still serves, on both request queues.
    fn check_alive(&mut self) {
        for queue in [FIRST, SECOND] {
            let answer = self.guest.ask(queue, &guest::request(3, 77, 1, &[0; 16]), 120);
            assert_eq!(guest::header(&answer), (120, 0, 77));
            assert!(self.guest.interrupted(queue), "the driver asked for an interrupt");
        }
        assert_eq!(self.server.try_ended(), None);
    }
}

#[test]
fn a_guest_finds_lists_and_reads() {
    let content = noise(3, 100_000);
    let tree = dir([("big", file(content.clone())), ("run", program("#!"))]);
    let mut served = served(
        "a_guest_finds_lists_and_reads",
        &[("pkg", tree), ("note", file("hello"))],
    );
    let big = served.find("pkg/big");
    for (offset, size) in [
        (0, 4096u32),
        (60_000, 40_960),
        (99_990, 4096),
        (100_000, 512),
        (u64::MAX, 16),
    ] {
        let queue = if offset == 0 { FIRST } else { SECOND };
        let answer = served
            .guest
            .ask(queue, &guest::read(15, 5, big, offset, size), size + 16);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let expected = &content[start..(start.saturating_add(size as usize)).min(content.len())];
        assert_eq!(
            guest::header(&answer),
            (16 + expected.len() as u32, 0, 5),
            "{size} at {offset}"
        );
        assert!(answer[16..] == *expected);
    }
    let pkg = served.find("pkg");
    let answer = served
        .guest
        .ask(FIRST, &guest::read(44, 6, pkg, 0, 4096), 4096 + 16);
    let (size, error, _) = guest::header(&answer);
    assert_eq!((size as usize, error), (answer.len(), 0));
    for name in [&b"big"[..], b"run", b".."] {
        assert!(answer.windows(name.len()).any(|window| window == name));
    }
    // to the end of the listing
    let answer = served
        .guest
        .ask(FIRST, &guest::read(44, 7, pkg, 4, 4096), 4096 + 16);
    assert_eq!(guest::header(&answer), (16, 0, 7));
    let missing = served.guest.ask(FIRST, &guest::lookup(8, pkg, "missing"), 144);
    assert_eq!(guest::inode(&missing), 0, "a miss is remembered");
    for (opcode, errno) in [
        (14, libc::ENOSYS),
        (27, libc::ENOSYS),
        (9, libc::EROFS),
        (16, libc::EROFS),
        (48, libc::ENOSYS),
    ] {
        let answer = served
            .guest
            .ask(FIRST, &guest::request(opcode, 9, pkg, &[0; 48]), 144);
        assert_eq!(guest::header(&answer), (16, -errno, 9), "opcode {opcode}");
    }
    served.check_alive();
}

#[test]
fn a_slow_fetch_delays_nobody_else() {
    let mut served = served(
        "a_slow_fetch_delays_nobody_else",
        &[("slow", file(noise(1, 5000)))],
    );
    let slow = served.find("slow");
    served.store.faults.hang.store(true, Ordering::Relaxed);
    served
        .guest
        .send(FIRST, 8, &guest::read(15, 100, slow, 0, 4096), 4112);
    while served.store.faults.gets.load(Ordering::Relaxed) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    served.check_alive(); // on the same queue, too
    served.store.faults.hang.store(false, Ordering::Relaxed);
    let (head, written) = served.guest.used(FIRST, Duration::from_secs(10)).unwrap();
    assert_eq!((head, written), (8, 4112));
}

#[test]
fn forgets_come_without_room_for_an_answer() {
    let mut served = served("forgets_come_without_room_for_an_answer", &[("a", file("x"))]);
    let inode = served.find("a");
    let inodes = |served: &Served| served.server.fs().view().inodes().count();
    assert_eq!(inodes(&served), 1);
    let answer = served
        .guest
        .ask(HIPRIO, &guest::request(2, 0, inode, &1u64.to_le_bytes()), 0);
    assert_eq!(answer, []);
    assert_eq!(inodes(&served), 0);
    let answer = served
        .guest
        .ask(FIRST, &guest::request(3, 4, inode, &[0; 16]), 120);
    assert_eq!(guest::header(&answer), (16, -libc::ESTALE, 4));
    served.check_alive();
}

#[test]
fn hostile_chains_harm_only_themselves() {
    let mut served = served(
        "hostile_chains_harm_only_themselves",
        &[("a", file(noise(1, 9000)))],
    );
    let inode = served.find("a");
    let good = guest::request(3, 1, 1, &[0; 16]);
    let (from, to) = served.guest.buffers(FIRST, 0);
    served.guest.write(from, &good);
    let readable = |address, len, next| Descriptor {
        address,
        len,
        flags: NEXT,
        next,
    };
    let writable = |address, len| Descriptor {
        address,
        len,
        flags: WRITE,
        next: 0,
    };
    let end = BASE + MEMORY_SIZE as u64;
    let chains: Vec<(&str, Vec<Descriptor>)> = vec![
        (
            "request outside of memory",
            vec![readable(0x10, 56, 1), writable(to, 120)],
        ),
        (
            "request over the end",
            vec![readable(end - 8, 56, 1), writable(to, 120)],
        ),
        (
            "answer outside of memory",
            vec![readable(from, 56, 1), writable(u64::MAX - 8, 120)],
        ),
        (
            "answer over the end",
            vec![readable(from, 56, 1), writable(end - 8, 120)],
        ),
        ("no request", vec![writable(to, 120)]),
        (
            "no room",
            vec![Descriptor {
                address: from,
                len: 56,
                flags: 0,
                next: 0,
            }],
        ),
        ("too little room", vec![readable(from, 56, 1), writable(to, 15)]),
        (
            "room for a header only",
            vec![readable(from, 56, 1), writable(to, 16)],
        ),
        ("half a header", vec![readable(from, 20, 1), writable(to, 120)]),
        (
            "a request of nothing",
            vec![readable(from, 0, 1), writable(to, 120)],
        ),
        (
            "the header lies about the size",
            vec![readable(from, 48, 1), writable(to, 120)],
        ),
        (
            "a request of 24 MiB",
            vec![readable(BASE, 24 << 20, 1), writable(to, 120)],
        ),
        ("a loop", vec![readable(from, 56, 0)]),
        ("a next that is none", vec![readable(from, 56, 60_000)]),
        (
            "indirect of odd size",
            vec![Descriptor {
                address: from,
                len: 17,
                flags: INDIRECT,
                next: 0,
            }],
        ),
        (
            "indirect outside",
            vec![Descriptor {
                address: 8,
                len: 32,
                flags: INDIRECT,
                next: 0,
            }],
        ),
        (
            "indirect in indirect",
            vec![Descriptor {
                address: to,
                len: 16,
                flags: INDIRECT,
                next: 0,
            }],
        ),
    ];
    let inner = Descriptor {
        address: to,
        len: 16,
        flags: INDIRECT,
        next: 0,
    };
    served.guest.write_descriptor(to, 0, &inner);
    for (what, chain) in chains {
        served.guest.offer(FIRST, 0, &chain);
        let (head, written) = served.guest.used(FIRST, Duration::from_secs(10)).expect(what);
        let room: u32 = chain
            .iter()
            .filter(|one| one.flags & WRITE != 0)
            .map(|one| one.len)
            .sum();
        assert!(head == 0 && written <= room, "{what}: {written} of {room}");
        served.check_alive();
    }
    // numbers that make no sense
    for (request, room) in [
        (guest::read(15, 2, inode, 0, u32::MAX), 4112),
        (guest::read(15, 2, inode, 0, 4097), 4112), // more than there is room for
        (guest::read(15, 2, 1, 0, 4096), 4112),
        (guest::read(15, 2, u64::MAX, 0, 4096), 4112),
        (guest::read(44, 2, inode, 0, 4096), 4112),
        (guest::read(44, 2, 1, u64::MAX, u32::MAX), 4112),
        (guest::request(1, 2, 1, b"no end"), 144),
        (guest::request(1, 2, inode, b"below a file\0"), 144),
        (guest::request(1, 2, 1, &[]), 144),
        (guest::request(5, 2, inode, &[]), 4112),
        (guest::request(26, 2, 0, &[7, 0, 0, 0]), 80),
        (guest::request(4096, 2, 0, &[]), 80),
        (guest::request(7, 2, 0, &[]), 80), // a gap in the numbers
        (guest::request(42, 2, 0, &u64::MAX.to_le_bytes()), 0),
        (guest::request(39, 2, 1, &[0xff; 32]), 80),
    ] {
        let answer = served.guest.ask(FIRST, &request, room);
        if room > 0 {
            let (size, error, unique) = guest::header(&answer);
            assert_eq!((size as usize, unique), (answer.len(), 2), "{request:?}");
            assert!(error < 0, "{request:?} is answered with {error}");
        }
        served.check_alive();
    }
}

#[test]
fn a_broken_ring_is_left_alone() {
    let mut served = served("a_broken_ring_is_left_alone", &[]);
    let ring = served.guest.queues[SECOND].base + 0x1000;
    served.guest.write(ring + 2, &5000u16.to_le_bytes()); // more chains than fit in a ring
    served.guest.queues[SECOND].kick.write(1).unwrap();
    let start = std::time::Instant::now();
    while served.guest.queues[SECOND].error.read().is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "the VMM is told");
        std::thread::sleep(Duration::from_millis(1));
    }
    let answer = served.guest.ask(FIRST, &guest::request(3, 3, 1, &[0; 16]), 120);
    assert_eq!(guest::header(&answer), (120, 0, 3));
    assert_eq!(served.server.try_ended(), None);
}

/// As a guest does at reboot: stop the rings, set them up again, mount anew.
#[test]
fn rings_can_be_stopped_and_started() {
    let mut served = served("rings_can_be_stopped_and_started", &[("a", file("x"))]);
    let before = served.find("a");
    let next = served.guest.frontend.get_vring_base(FIRST).unwrap();
    assert_eq!(next, 2, "an init and a lookup were taken");
    served
        .guest
        .send(FIRST, 0, &guest::request(3, 5, 1, &[0; 16]), 120);
    assert_eq!(
        served.guest.used(FIRST, Duration::from_millis(200)),
        None,
        "a stopped ring is not read"
    );
    served.guest.start(FIRST, 2);
    served.guest.queues[FIRST].kick.write(1).unwrap();
    assert_eq!(served.guest.used(FIRST, Duration::from_secs(10)), Some((0, 120)));
    served.guest.ask(FIRST, &guest::init(1), 80);
    assert_ne!(served.find("a"), before, "numbers are not used again");
    served.check_alive();
}

#[test]
fn a_server_ends_with_its_machine_or_when_stopped() {
    let served = served("a_server_ends_with_its_machine_or_when_stopped", &[]);
    let Served {
        server,
        guest,
        store,
        tmp,
        _watchdog,
    } = served;
    let socket = server.socket().to_owned();
    assert_eq!(
        std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = VhostServer::start(&socket, fs(&store, &[]), 1, 1).unwrap_err();
    assert!(matches!(again, StartVhostError::InUse { .. }), "{again}");
    drop(guest);
    assert_eq!(
        store.runtime.block_on(server.ended()),
        ConnectionEnd::Disconnected
    );
    drop(server);
    assert!(!socket.exists());

    // never connected to
    let server = VhostServer::start(&socket, fs(&store, &[]), 2, 1).unwrap();
    server.stop();
    assert_eq!(store.runtime.block_on(server.ended()), ConnectionEnd::Stopped);
    drop(server);
    drop(VhostServer::start(&socket, fs(&store, &[]), 2, 1).unwrap());
    assert!(!socket.exists());

    // connected and working
    let server = VhostServer::start(&socket, fs(&store, &[]), 2, 1).unwrap();
    let mut guest = Guest::connect(&socket, 2);
    guest.ask(1, &guest::init(1), 80);
    let dropped = std::time::Instant::now();
    drop(server);
    assert!(
        dropped.elapsed() < Duration::from_secs(4),
        "nothing was waited for in vain"
    );
    assert!(guest.frontend.get_features().is_err(), "the device hung up");

    let long = tmp.path().join("x".repeat(120));
    let error = VhostServer::start(&long, fs(&store, &[]), 1, 1).unwrap_err();
    assert!(matches!(error, StartVhostError::PathTooLong { .. }));
    let nowhere = PathBuf::from("/nonexistent/fs.sock");
    assert!(matches!(
        VhostServer::start(&nowhere, fs(&store, &[]), 1, 1),
        Err(StartVhostError::Bind { .. })
    ));
    assert!(matches!(
        VhostServer::start(&socket, fs(&store, &[]), 1, 0),
        Err(StartVhostError::Queues { .. })
    ));
}

/// What a VMM says is checked as well.
#[test]
fn nonsense_on_the_control_socket_ends_the_connection_only() {
    use std::io::Write;
    let tmp = tempfile::tempdir().unwrap();
    let test = "nonsense_on_the_control_socket_ends_the_connection_only";
    let _watchdog = Watchdog::new(test, tmp.path(), Duration::from_secs(60));
    let store = TestStore::new();
    for seed in 0..20 {
        let server = VhostServer::start(&tmp.path().join("fs.sock"), fs(&store, &[]), 1, 1).unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(server.socket()).unwrap();
        let mut bytes = noise(seed, 200);
        if seed % 2 == 0 {
            // a header that passes, with a body of noise
            bytes[..12].copy_from_slice(&[(seed % 40) as u8 + 1, 0, 0, 0, 1, 0, 0, 0, 40, 0, 0, 0]);
        }
        let _ = stream.write_all(&bytes); // the device may have hung up already
        drop(stream);
        assert_ne!(store.runtime.block_on(server.ended()), ConnectionEnd::Stopped);
    }
}
