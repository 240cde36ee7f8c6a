//! One build under a lease: its task, and who attends it.
//!
//! Lock order: none is held while another is taken.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use igloo_build::BuildRequest;
use igloo_build::lease::{Lease, LeaseError, LeaseStatus};
use igloo_protos::igloo::build::v1 as wire;
use igloo_protos::igloo::build::v1::build_event::Event;
use igloo_protos::lease::lease_failure_message;
use tokio::sync::{mpsc, watch};

use super::Leases;
use super::record::{Cursor, Record};
use crate::build::inputs::{InputSwitch, Inputs, Places};
use crate::build::relay;
use crate::build::server::MESSAGES;
use crate::task::OwnedTask;

/// See the module.
#[derive(Debug)]
pub(super) struct Run {
    lease: Lease,
    outputs: Vec<Bytes>,
    record: Arc<Record>,
    inputs: Arc<InputSwitch>,
    attended: watch::Sender<Attended>,
    task: Mutex<Option<OwnedTask<()>>>,
}

/// Who attends the build: the latest to come, or nobody.
#[derive(Clone, Copy, Debug, Default)]
struct Attended {
    by: u64,
    present: bool,
}

impl Run {
    /// Starts a build. It runs unattended at first.
    pub(super) fn start(
        leases: &Arc<Leases>,
        lease: Lease,
        request: BuildRequest,
        places: Places,
    ) -> Arc<Self> {
        let policy = &leases.policy;
        let record = Arc::new(Record::new(policy.spool_dir.clone(), policy.spool_bytes_max));
        let paths = request.outputs.iter();
        let run = Arc::new(Self {
            outputs: paths
                .map(|path| Bytes::copy_from_slice(path.as_bytes()))
                .collect(),
            record: Arc::clone(&record),
            inputs: InputSwitch::new(places.inputs, policy.unattended_max),
            attended: watch::Sender::new(Attended::default()),
            task: Mutex::default(),
            lease,
        });
        // the task refers to parts of the run, never to the run: who drops the run ends the task
        let (out, messages) = mpsc::channel(MESSAGES);
        let (builder, turns) = (Arc::clone(&leases.builder), Arc::clone(&leases.turns));
        let switch = Arc::clone(&run.inputs);
        let build = async move {
            // the semaphore is never closed
            let _turn = turns.acquire().await;
            relay::run(builder, request, switch, places.output_store, out).await;
        };
        let (attended, unattended_max) = (run.attended.subscribe(), policy.unattended_max);
        let (table, lease) = (Arc::downgrade(leases), run.lease.clone());
        let task = async move {
            let build = OwnedTask::spawn(build);
            tokio::select! {
                () = record.take_in(messages) => drop(build),
                () = abandoned(attended.clone(), unattended_max) => drop(build),
            }
            record.fail("nobody attended the build for too long"); // unless it has ended
            abandoned(attended, unattended_max).await;
            tracing::debug!(%lease, "nobody came for the build");
            if let Some(table) = table.upgrade() {
                table.release(&lease);
            }
        };
        *run.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(OwnedTask::spawn(task));
        run
    }

    /// Stops the build, if it runs. Who attends it is told that it is unknown now.
    pub(super) fn stop(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(task);
        self.record
            .end(Event::Failed(lease_failure_message(&LeaseError::Unknown {
                lease: self.lease.clone(),
            })));
    }

    pub(super) fn log_bytes(&self) -> u64 {
        self.record.log_bytes()
    }

    pub(super) fn status(&self, lease: &Lease) -> LeaseStatus {
        LeaseStatus {
            lease: lease.clone(),
            log_bytes: self.record.log_bytes(),
            is_ended: self.record.is_ended(),
        }
    }

    /// What a caller that did not start the build must know of it.
    pub(super) fn attached(&self) -> wire::Attached {
        wire::Attached {
            outputs: self.outputs.clone(),
        }
    }

    /// Attends the build from that log byte on, and reads its inputs from there.
    pub(super) fn attend(self: Arc<Self>, log_from: u64, inputs: Option<Inputs>) -> Attendance {
        let mut by = 0;
        self.attended.send_modify(|attended| {
            attended.by += 1;
            attended.present = true;
            by = attended.by;
        });
        if let Some(inputs) = inputs {
            self.inputs.set(inputs);
        }
        Attendance {
            cursor: self.record.cursor(log_from),
            attended: self.attended.subscribe(),
            by,
            is_over: false,
            run: self,
        }
    }
}

/// Ready when nobody has attended for so long.
async fn abandoned(mut attended: watch::Receiver<Attended>, unattended_max: Duration) {
    loop {
        // the sender lives longer than the task that waits here
        let _ = attended.wait_for(|attended| !attended.present).await;
        let back = attended.wait_for(|attended| attended.present);
        if tokio::time::timeout(unattended_max, back).await.is_err() {
            return;
        }
    }
}

/// A caller that attends a build; dropping it leaves the build alone.
#[derive(Debug)]
pub(crate) struct Attendance {
    run: Arc<Run>,
    cursor: Cursor,
    attended: watch::Receiver<Attended>,
    by: u64,
    is_over: bool,
}

impl Attendance {
    /// The next message; `None` after the end.
    pub(crate) async fn next(&mut self) -> Option<wire::BuildEvent> {
        if self.is_over {
            return None;
        }
        let by = self.by;
        tokio::select! {
            biased;
            _ = self.attended.wait_for(|attended| attended.by != by) => {
                self.is_over = true;
                let lease = self.run.lease.clone();
                let failure = lease_failure_message(&LeaseError::TakenOver { lease });
                Some(wire::BuildEvent { event: Some(Event::Failed(failure)) })
            }
            message = self.run.record.next(&mut self.cursor) => message,
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let by = self.by;
        let left = self.run.attended.send_if_modified(|attended| {
            let is_last = attended.by == by;
            attended.present &= !is_last;
            is_last
        });
        if left {
            self.run.inputs.lose();
        }
    }
}
