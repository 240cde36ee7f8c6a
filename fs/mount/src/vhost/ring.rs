//! A virtqueue: descriptor chains out, used elements in.
//!
//! Invariants
//! - a ring is read only while started, enabled and unbroken;
//! - a ring the guest has put into an impossible state is broken: it is left alone until it is set up anew;
//! - an answer to a chain of an earlier set-up is dropped: its descriptors are not ours any more.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestMemoryLoadGuard, GuestMemoryMmap};

use super::QUEUE_SIZE_MAX;
use super::device::signal;
use crate::sync::{Arc, Condvar, Mutex, PoisonError, lock};

/// Guest memory as it was mapped when taken.
pub(super) type Memory = GuestMemoryLoadGuard<GuestMemoryMmap<()>>;

/// A virtqueue and its two eventfds.
#[derive(Debug)]
pub(super) struct Ring {
    state: Mutex<State>,
    drained: Condvar,
}

/// A chain taken off a ring.
#[derive(Debug)]
pub(super) struct Taken {
    /// Its descriptors.
    pub(super) chain: DescriptorChain<Memory>,
    setup: u64,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    kick: Option<Arc<OwnedFd>>,
    call: Option<Arc<OwnedFd>>,
    error: Option<Arc<OwnedFd>>,
    enabled: bool,
    broken: bool,
    /// Chains taken and not answered.
    in_flight: usize,
    /// Counts how often the ring was stopped.
    setup: u64,
}

impl Ring {
    pub(super) fn new() -> Result<Self, virtio_queue::Error> {
        let state = State {
            queue: Queue::new(QUEUE_SIZE_MAX)?,
            kick: None,
            call: None,
            error: None,
            enabled: false,
            broken: false,
            in_flight: 0,
            setup: 0,
        };
        Ok(Self {
            state: Mutex::new(state),
            drained: Condvar::new(),
        })
    }

    /// The next chain the guest made available, if there is one.
    pub(super) fn take(&self, memory: &Memory) -> Option<Taken> {
        let mut state = lock(&self.state);
        if !state.is_active() {
            return None;
        }
        match state.next(memory) {
            Ok(Some(chain)) => {
                state.in_flight += 1;
                Some(Taken {
                    chain,
                    setup: state.setup,
                })
            }
            Ok(None) => None,
            Err(error) => {
                state.give_up(&error);
                None
            }
        }
    }

    /// Hands a chain back, of which `written` bytes were written, and interrupts the guest when it asked for that.
    pub(super) fn give_back(&self, memory: &Memory, taken: &Taken, written: u32) {
        let mut state = lock(&self.state);
        if state.setup == taken.setup && !state.broken {
            state.in_flight = state.in_flight.saturating_sub(1);
            let head = taken.chain.head_index();
            let used = state.queue.add_used(&**memory, head, written);
            match used.and_then(|()| state.queue.needs_notification(&**memory)) {
                Ok(true) => state.call.iter().for_each(|call| signal(call)),
                Ok(false) => {}
                Err(error) => state.give_up(&error),
            }
            if state.in_flight == 0 {
                self.drained.notify_all();
            }
        }
    }

    /// Asks the guest for kicks. True when it has made something available meanwhile, and none may come for it.
    pub(super) fn arm(&self, memory: &Memory) -> bool {
        let mut state = lock(&self.state);
        if !state.is_active() {
            return false;
        }
        state
            .queue
            .enable_notification(&**memory)
            .unwrap_or_else(|error| {
                state.give_up(&error);
                false
            })
    }

    /// Tells the guest that kicks are not needed for now.
    pub(super) fn disarm(&self, memory: &Memory) {
        let mut state = lock(&self.state);
        if state.is_active()
            && let Err(error) = state.queue.disable_notification(&**memory)
        {
            state.give_up(&error);
        }
    }

    /// What to wait on for kicks.
    pub(super) fn kick(&self) -> Option<Arc<OwnedFd>> {
        let state = lock(&self.state);
        if state.is_active() {
            state.kick.clone()
        } else {
            None
        }
    }

    pub(super) fn set_size(&self, size: u16) -> Result<(), virtio_queue::Error> {
        lock(&self.state).queue.try_set_size(size)
    }

    /// Sets the addresses, all in guest memory, and takes the used index from there.
    pub(super) fn set_addresses(
        &self,
        memory: &Memory,
        descriptors: u64,
        available: u64,
        used: u64,
    ) -> Result<(), virtio_queue::Error> {
        let mut state = lock(&self.state);
        state
            .queue
            .try_set_desc_table_address(GuestAddress(descriptors))?;
        state.queue.try_set_avail_ring_address(GuestAddress(available))?;
        state.queue.try_set_used_ring_address(GuestAddress(used))?;
        let index = state.queue.used_idx(&**memory, Ordering::Relaxed)?;
        state.queue.set_next_used(index.0);
        Ok(())
    }

    pub(super) fn set_next_available(&self, index: u16) {
        lock(&self.state).queue.set_next_avail(index);
    }

    pub(super) fn set_event_idx(&self, enabled: bool) {
        lock(&self.state).queue.set_event_idx(enabled);
    }

    pub(super) fn set_enabled(&self, enabled: bool) {
        lock(&self.state).enabled = enabled;
    }

    /// Starts the ring: the guest has set it up and will kick here.
    pub(super) fn start(&self, kick: Option<OwnedFd>) {
        let mut state = lock(&self.state);
        state.broken = false;
        state.queue.set_ready(kick.is_some());
        state.kick = kick.map(Arc::new);
    }

    pub(super) fn set_call(&self, call: Option<OwnedFd>) {
        lock(&self.state).call = call.map(Arc::new);
    }

    pub(super) fn set_error(&self, error: Option<OwnedFd>) {
        lock(&self.state).error = error.map(Arc::new);
    }

    /// Stops the ring, waits until what was taken is handed back (at most `patience`), and returns the index of the next
    /// available chain.
    pub(super) fn stop(&self, patience: Duration) -> u16 {
        let deadline = Instant::now() + patience;
        let mut state = lock(&self.state);
        state.queue.set_ready(false);
        while state.in_flight > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(
                    in_flight = state.in_flight,
                    "a ring was stopped with requests in flight"
                );
                break;
            }
            let waited = self.drained.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let next = state.queue.next_avail();
        state.setup += 1;
        state.in_flight = 0;
        state.kick = None;
        state.call = None;
        next
    }
}

impl State {
    fn is_active(&self) -> bool {
        self.enabled && !self.broken && self.queue.ready()
    }

    fn next(&mut self, memory: &Memory) -> Result<Option<DescriptorChain<Memory>>, virtio_queue::Error> {
        let next = self.queue.next_avail();
        let available = self.queue.avail_idx(&**memory, Ordering::Acquire)?;
        let chain = self.queue.iter(memory.clone())?.next();
        // the library yields nothing both for an empty ring and for an unreadable one
        if chain.is_none() && available.0 != next {
            return Err(virtio_queue::Error::InvalidAvailRingIndex);
        }
        Ok(chain)
    }

    /// The guest broke the rules of this ring: no more of it. The VMM is told where it wanted to know.
    fn give_up(&mut self, error: &virtio_queue::Error) {
        tracing::warn!(%error, "a guest has broken its virtqueue; it is served no more");
        self.broken = true;
        self.in_flight = 0;
        self.error.iter().for_each(|fd| signal(fd));
    }
}
