//! What one job hears, on its way to a listener that may be slow.
//!
//! Invariants
//! - whoever sends waits while [`UPDATES_MAX`] updates are on their way; ends of what was told to have started do not wait,
//!   and are as many as that at most;
//! - of progress only the latest is kept, and told at most every [`COALESCE`]; it comes after the start of what it is about;
//! - when the listener is gone, nobody waits any more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix_compat::store_path::StorePath;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

use crate::job::{Remaining, Update};

/// Updates on their way to one listener.
const UPDATES_MAX: usize = 256;
/// How often progress is told.
const COALESCE: Duration = Duration::from_millis(50);

/// The updates of one job.
#[derive(Debug)]
pub(crate) struct Feed {
    state: Mutex<State>,
    items: Notify,
    room: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Update, Room)>,
    latest: Latest,
    told: Option<Instant>,
    ended: bool,
    closed: bool,
}

/// Whether an update takes up room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Taken,
    None,
}

/// What is only interesting as it is now.
#[derive(Debug, Default)]
struct Latest {
    fetched: BTreeMap<StorePath, u64>,
    remaining: Option<Remaining>,
    instantiated: Option<(u64, StorePath)>,
}

enum Next {
    Update(Box<Update>, Room),
    Latest(Vec<Update>),
    Wait(Option<Instant>),
    Ended,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            items: Notify::new(),
            room: Semaphore::new(UPDATES_MAX),
        }
    }

    /// Sends an update when there is room for it.
    pub(crate) async fn send(&self, update: Update) {
        let Ok(permit) = self.room.acquire().await else {
            return; // closed: nobody listens
        };
        permit.forget();
        self.push(update, Room::Taken);
    }

    /// Sends an update that ends, or belongs to, something told before.
    pub(crate) fn send_now(&self, update: Update) {
        self.push(update, Room::None);
    }

    /// More of a path has come.
    pub(crate) fn fetched(&self, path: &StorePath, nar_bytes: u64) {
        self.state().latest.fetched.insert(path.clone(), nar_bytes);
        self.items.notify_one();
    }

    /// What remains now.
    pub(crate) fn remaining(&self, remaining: Remaining) {
        self.state().latest.remaining = Some(remaining);
        self.items.notify_one();
    }

    /// One more derivation is instantiated.
    pub(crate) fn instantiated(&self, count: u64, drv: StorePath) {
        self.state().latest.instantiated = Some((count, drv));
        self.items.notify_one();
    }

    /// Nothing more comes.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.items.notify_one();
    }

    /// Nobody listens.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.queue.clear();
        self.room.close();
    }

    /// Passes updates on, in order, until [`Self::end`] or until nobody listens.
    pub(crate) async fn forward(&self, to: &mpsc::Sender<Update>) {
        loop {
            match self.next() {
                Next::Update(update, room) => {
                    if to.send(*update).await.is_err() {
                        break;
                    }
                    if room == Room::Taken {
                        self.room.add_permits(1);
                    }
                }
                Next::Latest(updates) => {
                    for update in updates {
                        if to.send(update).await.is_err() {
                            self.close();
                            return;
                        }
                    }
                }
                Next::Wait(None) => self.items.notified().await,
                Next::Wait(Some(until)) => {
                    tokio::select! {
                        () = self.items.notified() => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                }
                Next::Ended => break,
            }
        }
        self.close();
    }

    fn next(&self) -> Next {
        let mut state = self.state();
        if let Some((update, room)) = state.queue.pop_front() {
            return Next::Update(Box::new(update), room);
        }
        let is_empty = state.latest.is_empty();
        let due = state.told.map(|told| told + COALESCE);
        let now = Instant::now();
        match due {
            _ if is_empty && state.ended => Next::Ended,
            _ if is_empty => Next::Wait(None),
            Some(due) if due > now && !state.ended => Next::Wait(Some(due)),
            _ => {
                state.told = Some(now);
                Next::Latest(state.latest.take())
            }
        }
    }

    fn push(&self, update: Update, room: Room) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        if let Update::FetchEnded { path, .. } = &update {
            state.latest.fetched.remove(path);
        }
        state.queue.push_back((update, room));
        drop(state);
        self.items.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // a panic elsewhere leaves it whole: every change is one step
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latest {
    fn is_empty(&self) -> bool {
        self.fetched.is_empty() && self.remaining.is_none() && self.instantiated.is_none()
    }

    fn take(&mut self) -> Vec<Update> {
        let instantiated = self.instantiated.take();
        let instantiated = instantiated.map(|(count, drv)| Update::Instantiated { count, drv });
        let remaining = self.remaining.take().map(Update::Remaining);
        let fetched = std::mem::take(&mut self.fetched).into_iter();
        let fetched = fetched.map(|(path, nar_bytes)| Update::FetchProgress { path, nar_bytes });
        instantiated.into_iter().chain(remaining).chain(fetched).collect()
    }
}
