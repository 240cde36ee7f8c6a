//! Back from the journal.
//!
//! Replay takes up who wants what and which leases are out, and nothing else: what is valid is asked of the store again, and
//! derivations are read again. A lease waits for its builder to come back with it; until then, and when its derivation turns
//! out to be needed, nobody else is given that.
//!
//! Invariants
//! - any prefix of a journal can be restored, and the compacted journal restores to the same;
//! - lease ids go on where the journal ends.

use std::collections::BTreeMap;

use nix_compat::store_path::StorePath;

use super::Machine;
use crate::action::Action;
use crate::config::Config;
use crate::event::{ClientOptions, Want};
use crate::graph::NodeIx;
use crate::id::{BuilderId, ClientId, LeaseId, Time, WantId};
use crate::journal::Record;
use crate::leases::{Lease, LeaseState};
use crate::node::{BuildState, WantState};
use crate::timers::Timer;

/// What a journal comes to.
#[derive(Debug, Default)]
struct Replayed {
    clients: BTreeMap<ClientId, (ClientOptions, BTreeMap<WantId, Want>)>,
    leases: BTreeMap<LeaseId, (BuilderId, u32, StorePath)>,
    last: Option<LeaseId>,
}

impl Machine {
    /// A machine that goes on where a journal ends; what is to be done first.
    ///
    /// Builders are taken to be away until [`crate::Event::BuilderUp`] says otherwise; clients and their wants are there.
    /// Cost: linear in the journal, once.
    pub fn restore(
        config: Config,
        seed: u64,
        now: Time,
        records: impl IntoIterator<Item = Record>,
    ) -> (Self, Vec<Action>) {
        let mut replayed = Replayed::default();
        for record in records {
            replayed.take(record);
        }
        let mut machine = Self::new(config, seed);
        machine.now = now;
        machine.take_up(replayed);
        let actions = machine.finish();
        (machine, actions)
    }

    /// A journal that restores to the same as all that was written so far, and is no longer than what is open: to start a new
    /// file with.
    pub fn compacted_journal(&self) -> Vec<Record> {
        let mut records = vec![Record::LeasesGiven {
            last: self.leases.last(),
        }];
        for (id, client) in &self.clients {
            records.push(Record::ClientCame {
                client: *id,
                options: client.options,
            });
            for node in client.wants.values() {
                let want = self.graph.want(*node);
                records.extend(want.filter(|want| want.state != WantState::Answered).map(|want| {
                    Record::Wanted {
                        client: *id,
                        want: want.want.clone(),
                    }
                }));
            }
        }
        let committing = self.committing.iter().map(|(id, of)| (*id, &of.lease));
        let open = self
            .leases
            .iter()
            .chain(committing)
            .filter(|(_, lease)| lease.state != LeaseState::Lost);
        records.extend(open.filter_map(|(id, lease)| {
            Some(Record::Leased {
                lease: id,
                attempt: lease.attempt,
                builder: lease.builder,
                drv: self.drv(lease.build)?.clone(),
            })
        }));
        records
    }

    fn take_up(&mut self, replayed: Replayed) {
        let at = self.now.after(self.config.reattach_max);
        self.leases.given(replayed.last.unwrap_or(LeaseId(0)));
        for (id, (builder, attempt, drv)) in replayed.leases {
            let node = self.build_node(&drv);
            self.restore_lease(id, node, builder, attempt);
            self.timers.set(at, Timer::Reattach(id));
        }
        for (client, (options, wants)) in replayed.clients {
            self.open_client(client, options);
            for want in wants.into_values() {
                self.open_want(client, want);
            }
        }
    }

    fn restore_lease(&mut self, id: LeaseId, node: NodeIx, builder: BuilderId, attempt: u32) {
        let lease = Lease {
            build: node,
            builder,
            attempt,
            memory_mib: 0,
            ordered: self.now,
            owner: self.graph[node].owner,
            state: LeaseState::Restored,
        };
        self.add_lease(id, lease);
        if let Some(build) = self.graph.build_mut(node) {
            build.attempt = build.attempt.max(attempt);
            build.restored = Some(id);
        }
    }

    /// A build that is ready may be under way since before the restart.
    pub(super) fn adopt_restored(&mut self, node: NodeIx) -> bool {
        let build = self.graph.build_mut(node);
        let Some((build, id)) = build.and_then(|build| {
            let id = build.restored.take()?;
            Some((build, id))
        }) else {
            return false;
        };
        let state = self.leases.get(id).map(|lease| lease.state);
        let is_out = matches!(state, Some(LeaseState::Live | LeaseState::Restored));
        if is_out {
            build.state = BuildState::Leased(id);
        }
        is_out
    }

    /// The time for a builder to come back with a lease is over.
    pub(super) fn check_reattached(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.get(id).cloned() else {
            return;
        };
        let holds = self.graph.build(lease.build).and_then(|build| build.lease()) == Some(id);
        match lease.state {
            LeaseState::Restored => {
                self.release(id);
                if holds {
                    let reason = "its builder did not come back after a restart";
                    self.try_elsewhere(lease.build, Some(lease.builder), reason);
                }
            }
            // it runs, and nobody has come to need it
            LeaseState::Live if !holds && self.graph[lease.build].demand.top().is_none() => {
                self.cancel_lease(id);
            }
            LeaseState::Live | LeaseState::Cancelling | LeaseState::Lost => {}
        }
    }
}

impl Replayed {
    fn take(&mut self, record: Record) {
        match record {
            Record::ClientCame { client, options } => self.clients.entry(client).or_default().0 = options,
            Record::ClientGone { client } => {
                self.clients.remove(&client);
            }
            Record::Wanted { client, want } => {
                let wants = &mut self.clients.entry(client).or_default().1;
                wants.insert(want.id, want);
            }
            Record::Answered { client, want } => {
                if let Some((_, wants)) = self.clients.get_mut(&client) {
                    wants.remove(&want);
                }
            }
            Record::Leased {
                lease,
                attempt,
                builder,
                drv,
            } => {
                self.last = self.last.max(Some(lease));
                self.leases.insert(lease, (builder, attempt, drv));
            }
            Record::Released { lease } => {
                self.leases.remove(&lease);
            }
            Record::LeasesGiven { last } => self.last = self.last.max(Some(last)),
            Record::Committed { .. } | Record::Failed { .. } => {}
        }
    }
}
