//! What is kept of one build: its stages, the end of its log, its outputs, its end.
//!
//! One writer, one reader at a time; both wait for each other through a counter of changes.
//!
//! Invariants
//! - log bytes that the reader has not taken are never dropped: the writer waits while there are [`LOG_KEPT_BYTES`] of
//!   them. Of those it has taken, as many stay, for a reader that comes after it: more than can be on their way to a reader
//!   that is lost, so none is missed;
//! - a reader gets stages, then log, then outputs, then the end, each when all before it that is there has been given.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use igloo_build::{BuildError, BuildEvent};
use igloo_protos::event::{decode_event, encode_event, event_message};
use igloo_protos::igloo::build::v1 as wire;
use igloo_protos::igloo::build::v1::build_event::Event;
use igloo_status::Code;
use tokio::sync::{OnceCell, mpsc, watch};

use super::spool::Spool;
use crate::limits::SEND_BYTES;

/// Log bytes kept in memory for each build, of those that were taken and of the others each.
pub(super) const LOG_KEPT_BYTES: u64 = 8 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Record {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    spool: OnceCell<Spool>,
    spool_dir: PathBuf,
    spool_bytes_max: u64,
}

#[derive(Debug, Default)]
struct State {
    machine: Option<String>,
    is_started: bool,
    is_collecting: bool,
    log: VecDeque<u8>,
    /// Log bytes before those kept, and those there are in all.
    log_start: u64,
    log_end: u64,
    /// Log bytes the reader has taken.
    log_taken: u64,
    /// Bytes of whole frames in the spool.
    spooled: u64,
    end: Option<Event>,
}

/// How far a reader is.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    machine: bool,
    started: bool,
    log: u64,
    collecting: bool,
    spool: u64,
    ended: bool,
}

/// What a reader gets next.
enum Next {
    Event(Event),
    /// The frame at that place of the spool.
    Frame(u64),
    Nothing,
    /// The last event was given.
    Over,
}

impl Record {
    pub(super) fn new(spool_dir: PathBuf, spool_bytes_max: u64) -> Self {
        Self {
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            spool: OnceCell::new(),
            spool_dir,
            spool_bytes_max,
        }
    }

    pub(super) fn log_bytes(&self) -> u64 {
        self.lock().log_end
    }

    pub(super) fn is_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Takes messages until the sender is dropped or something cannot be kept. The record has an end then.
    pub(super) async fn take_in(&self, mut messages: mpsc::Receiver<wire::BuildEvent>) {
        while let Some(wire::BuildEvent { event }) = messages.recv().await {
            let Some(event) = event else { continue };
            if let Err(error) = self.event(event).await {
                return self.end(Event::Failed(wire::Failure::from(&error)));
            }
        }
        // only where the build's own end did not come
        self.fail("the builder ended the build without a result");
    }

    /// Ends the record as a failure of the machine, unless it has an end.
    pub(super) fn fail(&self, reason: &str) {
        let error = BuildError::Machine {
            reason: reason.into(),
            source: None,
        };
        self.end(Event::Failed(wire::Failure::from(&error)));
    }

    async fn event(&self, event: Event) -> Result<(), BuildError> {
        match event {
            Event::Preparing(preparing) => self.lock().machine = Some(preparing.machine),
            Event::Started(_) => self.lock().is_started = true,
            Event::Collecting(_) => self.lock().is_collecting = true,
            Event::Log(log) => self.log(log.bytes).await,
            Event::Finished(_) | Event::Failed(_) => self.end(event),
            output => self.output(output).await?,
        }
        self.changed();
        Ok(())
    }

    async fn log(&self, bytes: Bytes) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            {
                let mut state = self.lock();
                if state.log_end - state.log_taken < LOG_KEPT_BYTES {
                    state.push(&bytes);
                    return;
                }
            }
            if changes.changed().await.is_err() {
                return; // the sender lives as long as the record
            }
        }
    }

    async fn output(&self, event: Event) -> Result<(), BuildError> {
        let failed = |source: io::Error| BuildError::Host {
            reason: format!("the outputs cannot be kept in {}", self.spool_dir.display()),
            code: Code::from_io(&source),
            source: Some(source.into()),
        };
        let spool = self.spool.get_or_try_init(|| Spool::create(&self.spool_dir));
        let spool = spool.await.map_err(failed)?;
        let at = self.lock().spooled;
        if at >= self.spool_bytes_max {
            return Err(BuildError::Host {
                reason: format!(
                    "the outputs have more than the {} bytes that the builder keeps of a build under a lease",
                    self.spool_bytes_max
                ),
                code: Code::ResourceExhausted,
                source: None,
            });
        }
        let next = spool.write(at, encode_event(event)).await.map_err(failed)?;
        self.lock().spooled = next;
        Ok(())
    }

    pub(super) fn end(&self, event: Event) {
        self.lock().end.get_or_insert(event);
        self.changed();
    }

    /// A reader from that log byte on, or from the first that is kept.
    pub(super) fn cursor(&self, log_from: u64) -> Cursor {
        let mut state = self.lock();
        let log = log_from.max(state.log_start);
        state.log_taken = log;
        drop(state);
        Cursor {
            log,
            ..Cursor::default()
        }
    }

    /// The next message for that reader; `None` after the last. Cancel safe: a message that was not given is given again.
    pub(super) async fn next(&self, cursor: &mut Cursor) -> Option<wire::BuildEvent> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let next = self.lock().next(cursor);
            let event = match next {
                Next::Event(event) => event,
                Next::Frame(at) => self.frame(at, cursor).await,
                Next::Over => return None,
                Next::Nothing => {
                    changes.changed().await.ok()?;
                    continue;
                }
            };
            if matches!(event, Event::Log(_)) {
                self.changed(); // there is room again
            }
            return Some(wire::BuildEvent { event: Some(event) });
        }
    }

    /// A frame that cannot be read is the builder's failure, and the end of this reading.
    async fn frame(&self, at: u64, cursor: &mut Cursor) -> Event {
        let spool = self.spool.get().ok_or_else(|| io::Error::other("there is none"));
        let read = match spool {
            Ok(spool) => spool.read(at).await,
            Err(error) => Err(error),
        };
        let decoded =
            read.and_then(|(bytes, next)| Ok((decode_event(bytes).map_err(io::Error::other)?, next)));
        match decoded {
            Ok((event, next)) => {
                cursor.spool = next;
                event
            }
            Err(error) => {
                cursor.ended = true;
                let error = BuildError::Host {
                    reason: "the outputs that were kept cannot be read".into(),
                    code: Code::from_io(&error),
                    source: Some(error.into()),
                };
                Event::Failed(wire::Failure::from(&error))
            }
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, bytes: &[u8]) {
        self.log_end += bytes.len() as u64;
        self.log.extend(bytes);
        let taken = self.log_taken - self.log_start;
        let dropped = taken.saturating_sub(LOG_KEPT_BYTES);
        self.log_start += dropped;
        self.log.drain(..usize::try_from(dropped).unwrap_or(0));
    }

    fn next(&mut self, cursor: &mut Cursor) -> Next {
        if let Some(machine) = self.machine.as_ref().filter(|_| !cursor.machine) {
            cursor.machine = true;
            let machine = machine.clone();
            return Next::Event(Event::Preparing(wire::Preparing { machine }));
        }
        if self.is_started && !cursor.started {
            cursor.started = true;
            return Next::Event(Event::Started(wire::Started {}));
        }
        if let Some(bytes) = self.log_at(cursor.log) {
            let sequence = cursor.log;
            cursor.log += bytes.len() as u64;
            self.log_taken = cursor.log;
            let log = event_message(BuildEvent::Log { sequence, bytes });
            return log.event.map_or(Next::Nothing, Next::Event);
        }
        if self.is_collecting && !cursor.collecting {
            cursor.collecting = true;
            return Next::Event(Event::Collecting(wire::Collecting {}));
        }
        if cursor.ended {
            return Next::Over;
        }
        if cursor.spool < self.spooled {
            return Next::Frame(cursor.spool);
        }
        match &self.end {
            Some(end) => {
                cursor.ended = true;
                Next::Event(end.clone())
            }
            None => Next::Nothing,
        }
    }

    /// Some of the bytes from there on; none at the end of the log.
    fn log_at(&self, at: u64) -> Option<Bytes> {
        let skipped = usize::try_from(at - self.log_start).ok()?;
        let (front, back) = self.log.as_slices();
        let rest = match skipped.checked_sub(front.len()) {
            None => &front[skipped..],
            Some(skipped) => &back[skipped..],
        };
        let piece = &rest[..rest.len().min(SEND_BYTES)];
        (!piece.is_empty()).then(|| Bytes::copy_from_slice(piece))
    }
}

#[cfg(test)]
mod tests;
