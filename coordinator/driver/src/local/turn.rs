//! The one task that owns the state machine and its journal.
//!
//! Each turn takes the events that are there, hands them to the machine, writes the records they lead to in one go, and
//! begins what follows. While that write goes on, the events of the next turn gather: so many share one sync.
//!
//! Invariants
//! - no builder is told of a lease whose record is not safe, and what stands after that begins when it is;
//! - other records are written in the same order, without waiting for them. What of these is lost with the power makes a
//!   restart ask builders for leases that are over, or want again what was answered, and do no work twice that was committed;
//! - nothing here waits for a step, a store or a listener.

use std::sync::Arc;

use igloo_castore::blocking;
use igloo_coordinator::{Action, CommitResult, Event, LeaseId, Machine, Record, Time};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::fault::chain;
use super::journal::{Journal, JournalError};
use super::shared::Shared;
use super::steps;
use crate::job::{BuildEnded, FailureKind, FailureReport};

/// Events in one turn.
const EVENTS_MAX: usize = 256;

/// The machine's task.
#[derive(Debug)]
pub(crate) struct Turns {
    machine: Machine,
    /// `None` only while it is being written.
    journal: Option<Journal>,
    wake_at: Option<Instant>,
    shared: Arc<Shared>,
}

/// What an event was about, as far as it ends a build.
enum Ends {
    Nothing,
    /// A build that succeeded: it is committed, or not needed.
    Built(LeaseId),
    /// A build or its registration that failed: tried again, or not.
    Failed(LeaseId),
}

impl Turns {
    pub(crate) fn new(machine: Machine, journal: Journal, shared: Arc<Shared>) -> Self {
        Self {
            machine,
            journal: Some(journal),
            wake_at: None,
            shared,
        }
    }

    /// Goes on until nobody can tell it anything any more, or the journal cannot be written. `first` is to be done first.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>, first: Vec<Action>) {
        let mut result = self.begin(first).await;
        while result.is_ok() {
            let Some(event) = self.next(&mut events).await else {
                return;
            };
            let mut actions = self.handle(event);
            for _ in 1..EVENTS_MAX {
                match events.try_recv() {
                    Ok(event) => actions.extend(self.handle(event)),
                    Err(_) => break,
                }
            }
            result = self.begin(actions).await;
        }
        if let Err(error) = result {
            let reason = chain(&error).join(": ");
            tracing::error!(%reason, "the coordinator stops");
            self.shared.give_up(reason);
        }
    }

    async fn next(&mut self, events: &mut mpsc::Receiver<Event>) -> Option<Event> {
        let Some(at) = self.wake_at else {
            return events.recv().await;
        };
        tokio::select! {
            biased;
            event = events.recv() => event,
            () = sleep_until(at) => {
                self.wake_at = None;
                Some(Event::Tick)
            }
        }
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        let ends = Ends::of(&event);
        let actions = self.machine.handle(self.shared.clock.now(), event);
        self.tell_ends(&ends, &actions);
        actions
    }

    async fn begin(&mut self, actions: Vec<Action>) -> Result<(), JournalError> {
        let mut records = Vec::new();
        let mut later = Vec::new();
        let mut must_be_safe = false;
        for action in actions {
            match action {
                Action::Journal(record) => {
                    must_be_safe |= matches!(record, Record::Leased { .. });
                    if let Record::Released { lease } = &record {
                        self.shared.logs.forget_left(lease.0);
                    }
                    records.push(record);
                }
                Action::WakeAt(at) => self.wake_at = self.instant(at),
                action if must_be_safe => later.push(action),
                action => steps::begin(&self.shared, action),
            }
        }
        if !records.is_empty() {
            self.write(records, must_be_safe).await?;
        }
        for action in later {
            steps::begin(&self.shared, action);
        }
        Ok(())
    }

    fn instant(&self, at: Time) -> Option<Instant> {
        (at != Time::NEVER)
            .then(|| self.shared.clock.instant(at))
            .flatten()
    }

    async fn write(&mut self, records: Vec<Record>, must_be_safe: bool) -> Result<(), JournalError> {
        let Some(mut journal) = self.journal.take() else {
            return Ok(()); // it is put back below; without it, an error was told
        };
        let size_max = self.shared.config.journal.size_max;
        let compacted = journal
            .is_long(size_max)
            .then(|| self.machine.compacted_journal());
        let (journal, result) = blocking::run(move || {
            let result = match compacted {
                // it is as the machine is now, so all of these are in it
                Some(compacted) => journal.replace(&compacted),
                None if must_be_safe => journal.append(&records),
                None => journal.write(&records),
            };
            (journal, result)
        })
        .await;
        self.journal = Some(journal);
        result
    }

    /// Tells those interested how a build ended: only the machine knows whether it is tried again.
    fn tell_ends(&self, ends: &Ends, actions: &[Action]) {
        let mut told = None;
        match ends {
            Ends::Nothing => {}
            Ends::Built(lease) => self.tell_unneeded(*lease, actions),
            Ends::Failed(lease) => told = self.tell_failed(*lease, actions),
        }
        for action in actions {
            if let Action::Journal(Record::Failed { drv, reason }) = action
                && told.as_ref() != Some(drv)
            {
                let report = FailureReport {
                    path: drv.clone(),
                    kind: FailureKind::Unavailable,
                    headline: format!("cannot build '{}'", self.shared.store().dir.print(drv)),
                    causes: vec![reason.clone()],
                    log_tail: Vec::new(),
                    code: igloo_status::Code::FailedPrecondition,
                };
                self.failed_for_good(report);
            }
        }
    }

    fn tell_unneeded(&self, lease: LeaseId, actions: &[Action]) {
        let is_committed = |action: &Action| matches!(action, Action::Commit { provenance, .. } if provenance.lease == lease);
        if !actions.iter().any(is_committed)
            && let Some(finished) = self.shared.transfers.take_finished(lease)
            && let Some(info) = finished.infos.first()
            && let Some(drv) = &info.deriver
        {
            self.shared.watch.build_ended(drv, BuildEnded::Cancelled);
            let step = Arc::clone(&self.shared);
            self.shared.spawn(async move { step.release(lease).await });
        }
    }

    /// Returns the derivation, when it has failed for good.
    fn tell_failed(&self, lease: LeaseId, actions: &[Action]) -> Option<nix_compat::store_path::StorePath> {
        let failed = self.shared.transfers.take_failed(lease)?;
        let for_good = actions.iter().find_map(|action| match action {
            Action::Journal(Record::Failed { drv, reason }) if *drv == failed.drv => Some(reason),
            _ => None,
        });
        if let Some(reason) = for_good {
            let mut report = failed.report;
            if report.kind == FailureKind::Infrastructure {
                report.causes.insert(0, reason.clone()); // how often it was tried
                report.causes.dedup();
            }
            self.failed_for_good(report);
            return Some(failed.drv);
        }
        let end = if failed.is_cancelled {
            BuildEnded::Cancelled
        } else {
            let causes = failed.report.causes.iter();
            let texts = std::iter::once(&failed.report.headline).chain(causes);
            let texts: Vec<&str> = texts.map(String::as_str).collect();
            BuildEnded::Retried {
                reason: texts.join(": "),
            }
        };
        self.shared.watch.build_ended(&failed.drv, end);
        None
    }

    fn failed_for_good(&self, report: FailureReport) {
        self.shared.watch.failed(&report);
        let drv = report.path.clone();
        let end = BuildEnded::Failed(Box::new(report));
        self.shared.watch.build_ended(&drv, end);
    }
}

impl Ends {
    fn of(event: &Event) -> Self {
        use igloo_coordinator::BuildEnd;
        match event {
            Event::Ended {
                lease,
                end: BuildEnd::Built { .. },
            } => Self::Built(*lease),
            Event::Ended { lease, .. } => Self::Failed(*lease),
            Event::Committed { lease, result } if *result != CommitResult::Valid => Self::Failed(*lease),
            _ => Self::Nothing,
        }
    }
}
