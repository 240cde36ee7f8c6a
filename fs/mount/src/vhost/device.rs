//! The device behind the rings: guest memory, the threads that serve, and how they are stopped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use fuse_backend_rs::transport::{Reader, VirtioFsWriter};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use super::ring::{Memory, Ring, Taken};
use crate::server::{FsServer, REQUEST_SIZE_MAX};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, lock};

/// What the control thread and the request threads share.
#[derive(Debug)]
pub(super) struct Device {
    server: FsServer,
    memory: GuestMemoryAtomic<GuestMemoryMmap<()>>,
    /// The high-priority ring first, then the request rings.
    rings: Vec<Ring>,
    /// Held by the thread that looks for requests.
    leader: Mutex<Leader>,
    /// Raised when rings changed or the device stops.
    wake: OwnedFd,
    /// Raised once and for ever when the device stops.
    stop_event: OwnedFd,
    stopping: AtomicBool,
}

/// What the leading thread passes on to the next.
#[derive(Debug, Default)]
struct Leader {
    /// Whether the guest was asked for kicks.
    armed: bool,
    /// The ring to look at first, so that all get their turn.
    turn: usize,
}

impl Device {
    pub(super) fn new(server: FsServer, rings: usize) -> io::Result<Self> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let rings = (0..rings).map(|_| Ring::new()).collect::<Result<_, _>>();
        Ok(Self {
            server,
            memory: GuestMemoryAtomic::new(GuestMemoryMmap::default()),
            rings: rings.map_err(io::Error::other)?,
            leader: Mutex::default(),
            wake: event()?,
            stop_event: event()?,
            stopping: AtomicBool::new(false),
        })
    }

    pub(super) fn server(&self) -> &FsServer {
        &self.server
    }

    pub(super) fn rings(&self) -> &[Ring] {
        &self.rings
    }

    pub(super) fn memory(&self) -> Memory {
        self.memory.memory()
    }

    /// Replaces guest memory. Requests being served keep the old until they are done.
    pub(super) fn set_memory(&self, memory: GuestMemoryMmap<()>) {
        let guard = self
            .memory
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        guard.replace(memory);
    }

    /// Makes the leading thread look at the rings again.
    pub(super) fn wake(&self) {
        signal(&self.wake);
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        signal(&self.stop_event);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn stop_event(&self) -> BorrowedFd<'_> {
        self.stop_event.as_fd()
    }

    /// Serves requests until the device stops.
    fn work(&self) {
        igloo_castore::blocking::allow_on_this_thread();
        let mut request = Vec::new();
        while let Some((ring, taken)) = self.next() {
            let written = serve(&self.server, &taken, &mut request);
            ring.give_back(&self.memory(), &taken, written);
        }
    }

    /// Waits for the next request; `None` when the device stops.
    fn next(&self) -> Option<(&Ring, Taken)> {
        let mut leader = lock(&self.leader);
        loop {
            if self.is_stopping() {
                return None;
            }
            let memory = self.memory();
            if let Some(found) = self.take_any(&mut leader, &memory) {
                if leader.armed {
                    leader.armed = false;
                    self.rings.iter().for_each(|ring| ring.disarm(&memory));
                }
                return Some(found);
            }
            leader.armed = true;
            // every ring is armed, also after one of them has shown something new
            let more = self
                .rings
                .iter()
                .map(|ring| ring.arm(&memory))
                .fold(false, |any, more| any | more);
            drop(memory);
            if !more && let Err(error) = self.wait() {
                tracing::error!(%error, "waiting for a guest's kicks failed; the device stops");
                self.stop();
            }
        }
    }

    fn take_any(&self, leader: &mut Leader, memory: &Memory) -> Option<(&Ring, Taken)> {
        let count = self.rings.len();
        let order = (0..count).map(|step| (leader.turn + step) % count);
        for index in order {
            let ring = self.rings.get(index)?;
            if let Some(taken) = ring.take(memory) {
                leader.turn = (index + 1) % count;
                return Some((ring, taken));
            }
        }
        None
    }

    /// Sleeps until a guest kicks, rings change or the device stops.
    fn wait(&self) -> io::Result<()> {
        let kicks: Vec<Arc<OwnedFd>> = self.rings.iter().filter_map(Ring::kick).collect();
        let mut fds = vec![
            PollFd::new(&self.stop_event, PollFlags::IN),
            PollFd::new(&self.wake, PollFlags::IN),
        ];
        fds.extend(kicks.iter().map(|kick| PollFd::new(&**kick, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for fd in fds.iter().skip(1) {
            let events = fd.revents();
            if events.contains(PollFlags::IN) {
                drain(fd.as_fd());
            } else if !events.is_empty() {
                return Err(io::Error::other("a kick descriptor is closed or no eventfd"));
            }
        }
        Ok(())
    }
}

/// The request threads of a device.
pub(super) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    pub(super) fn start(device: &Arc<Device>, count: usize) -> io::Result<Self> {
        let mut threads = Self(Vec::new());
        for index in 0..count {
            let worker = device.clone();
            let name = format!("igloo-virtiofs-{index}");
            match std::thread::Builder::new()
                .name(name)
                .spawn(move || worker.work())
            {
                Ok(thread) => threads.0.push(thread),
                Err(error) => {
                    device.stop();
                    threads.join();
                    return Err(error);
                }
            }
        }
        Ok(threads)
    }

    pub(super) fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a virtiofs thread panicked. This is a bug");
            }
        }
    }
}

/// Serves one chain; returns the bytes written into it.
pub(super) fn serve(server: &FsServer, taken: &Taken, request: &mut Vec<u8>) -> u32 {
    let served = read_request(taken, request)
        .and_then(|reply| server.serve_guest(request, reply))
        .map_err(|error| tracing::warn!(%error, "a guest's request cannot be answered"));
    u32::try_from(served.unwrap_or(0)).unwrap_or(0)
}

/// Copies the request out of guest memory and finds the room for the answer.
fn read_request<'a>(taken: &'a Taken, request: &mut Vec<u8>) -> io::Result<VirtioFsWriter<'a, ()>> {
    let memory = taken.chain.memory();
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut reader = Reader::from_descriptor_chain(memory, taken.chain.clone())
        .map_err(|error| invalid(format!("its readable descriptors: {error:?}")))?;
    let writer = VirtioFsWriter::new(memory, taken.chain.clone())
        .map_err(|error| invalid(format!("its writable descriptors: {error:?}")))?;
    let size = reader.available_bytes();
    if size > REQUEST_SIZE_MAX {
        return Err(invalid(format!("it has {size} bytes")));
    }
    request.clear();
    request.resize(size, 0);
    io::Read::read_exact(&mut reader, request)?;
    Ok(writer)
}

/// Raises an eventfd. Cannot fail but on one that is full, which is raised already, or on a file that is none.
pub(super) fn signal(fd: &OwnedFd) {
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

fn drain(fd: BorrowedFd<'_>) {
    let mut count = [0; 8];
    let _ = rustix::io::read(fd, &mut count);
}
