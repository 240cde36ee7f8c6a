//! Clients and what they want.
//!
//! Invariants
//! - a want is answered exactly once, unless its client goes;
//! - the reply comes before the record of it, so a crash in between repeats the reply and loses none;
//! - only a failed [`Purpose::Goal`] stops its client's other wants.

use std::collections::BTreeMap;
use std::sync::Arc;

use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use super::Machine;
use super::announce::names_of;
use super::settle::Work;
use crate::action::{Action, Answer};
use crate::event::{ClientOptions, OnFailure, Target, Want};
use crate::failure::{Failure, FailureKind};
use crate::graph::{NodeIx, Role};
use crate::id::{ClientId, WantId};
use crate::journal::Record;
use crate::node::{BuildState, Kind, WantNode, WantState};
use crate::urgency::{Purpose, Urgency};

/// Who is there.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub options: ClientOptions,
    pub wants: BTreeMap<WantId, NodeIx>,
}

impl Machine {
    pub(super) fn client_came(&mut self, client: ClientId, options: ClientOptions) {
        self.actions
            .push(Action::Journal(Record::ClientCame { client, options }));
        self.open_client(client, options);
    }

    pub(super) fn open_client(&mut self, client: ClientId, options: ClientOptions) {
        self.clients.entry(client).or_default().options = options;
        self.ready.weigh(client, options.weight);
    }

    pub(super) fn client_gone(&mut self, client: ClientId) {
        let Some(gone) = self.clients.remove(&client) else {
            self.stats.ignored += 1;
            return;
        };
        self.actions.push(Action::Journal(Record::ClientGone { client }));
        self.ready.forget(client);
        for node in gone.wants.into_values() {
            self.drop_want(node);
        }
    }

    pub(super) fn wanted(&mut self, client: ClientId, want: Want) {
        if !self.clients.contains_key(&client) {
            self.client_came(client, ClientOptions::default());
        }
        let wants = self.clients.get(&client).map(|client| &client.wants);
        let (known, open) = wants.map_or((false, 0), |wants| (wants.contains_key(&want.id), wants.len()));
        if known {
            self.stats.ignored += 1;
            return;
        }
        if open >= self.config.wants_max.max(1) {
            let failure = too_many_wants(open);
            self.reply(client, want.id, Answer::Failed(Arc::new(failure)));
            return;
        }
        let record = Record::Wanted {
            client,
            want: want.clone(),
        };
        self.actions.push(Action::Journal(record));
        self.open_want(client, want);
    }

    pub(super) fn open_want(&mut self, client: ClientId, want: Want) {
        let id = want.id;
        let urgency = Urgency::new(want.purpose, want.priority);
        let kind = Kind::Want(Box::new(WantNode {
            client,
            want,
            outputs: Vec::new(),
            state: WantState::Info,
        }));
        let node = self.graph.add(kind, client);
        self.graph[node].demand.add(urgency);
        self.graph[node].passed = Some(urgency);
        self.clients.entry(client).or_default().wants.insert(id, node);
        self.expand_want(node);
    }

    /// Finds the paths a want is for; waits for its derivation where that takes knowing it.
    pub(super) fn expand_want(&mut self, node: NodeIx) {
        let Some(want) = self.graph.want(node).filter(|want| want.state == WantState::Info) else {
            return;
        };
        let found = match want.want.target.clone() {
            Target::Path(path) => {
                let path = self.path_node(&path);
                Ok(Some(vec![(None, path)]))
            }
            Target::Outputs { drv, outputs } => {
                let drv = self.build_node(&drv);
                self.wanted_outputs(node, drv, outputs.iter())
            }
        };
        match found {
            Ok(Some(outputs)) => self.await_outputs(node, outputs),
            Ok(None) => {} // the derivation is being read
            Err(failure) => self.answer(node, Answer::Failed(failure)),
        }
    }

    /// The path nodes of outputs; `None` when the derivation must be read first.
    #[expect(clippy::type_complexity, reason = "three answers, used once")]
    fn wanted_outputs<'a>(
        &mut self,
        want: NodeIx,
        drv: NodeIx,
        names: impl ExactSizeIterator<Item = &'a OutputName>,
    ) -> Result<Option<Vec<(Option<OutputName>, NodeIx)>>, Arc<Failure>> {
        let all = names.len() == 0;
        let names = names_of(&mut self.intern, names);
        let Some(build) = self.graph.build_mut(drv) else {
            return Ok(None);
        };
        let names = match (&build.info, &build.state) {
            (Some(info), _) if all => info.outputs.iter().map(|(name, _)| *name).collect(),
            (None, BuildState::Failed(failed)) if failed.until > self.now => {
                return Err(failed.failure.clone());
            }
            (None, _) if all => {
                build.waiting_for_info.push(want);
                self.read(drv);
                return Ok(None);
            }
            _ => names.ok_or_else(|| Arc::new(too_many_wants(0)))?,
        };
        let mut outputs = Vec::with_capacity(names.len());
        for name in names {
            let Some(node) = self.output_node(drv, name) else {
                return Err(Arc::new(self.no_such_output(drv, name)));
            };
            outputs.push((Some(self.intern.name_of(name).clone()), node));
        }
        Ok(Some(outputs))
    }

    fn await_outputs(&mut self, node: NodeIx, outputs: Vec<(Option<OutputName>, NodeIx)>) {
        for (_, output) in &outputs {
            self.mention(*output);
        }
        if let Some(want) = self.graph.want_mut(node) {
            want.state = WantState::Waiting;
            want.outputs.clone_from(&outputs);
        }
        for (_, output) in outputs {
            if let Err(failure) = self.need(node, output, Role::Input) {
                self.doom(node, failure);
            }
        }
        self.work.push_back(Work::Settled {
            node,
            role: Role::Input,
            failure: None,
        });
    }

    /// Something a want is for is settled.
    pub(super) fn want_need_settled(&mut self, node: NodeIx) {
        let is_open = |want: &&WantNode| want.state != WantState::Answered;
        let Some(want) = self.graph.want(node).filter(is_open) else {
            return;
        };
        let is_unread = want.state == WantState::Info;
        if let Some(failure) = self.graph[node].doomed.clone() {
            if self.graph[node].waiting == 0 {
                self.answer(node, Answer::Failed(failure));
            }
        } else if self.graph[node].waiting == 0 && !is_unread {
            let outputs = self.outputs_of(node);
            self.answer(node, Answer::Valid { outputs });
        }
    }

    fn outputs_of(&self, node: NodeIx) -> Vec<(OutputName, StorePath)> {
        let outputs = self.graph.want(node).map(|want| want.outputs.iter());
        let path = |node: NodeIx| self.graph.path(node)?.path.clone();
        let named = outputs.into_iter().flatten();
        named
            .filter_map(|(name, node)| Some((name.clone()?, path(*node)?)))
            .collect()
    }

    /// A want will fail. Whoever keeps going is told when all else that can be had is.
    pub(super) fn want_doomed(&mut self, node: NodeIx) {
        let client = self
            .graph
            .want(node)
            .and_then(|want| self.clients.get(&want.client));
        let stops = client.is_none_or(|client| client.options.on_failure == OnFailure::Stop);
        if let Some(failure) = self.graph[node].doomed.clone()
            && (stops || self.graph[node].waiting == 0)
        {
            self.answer(node, Answer::Failed(failure));
        }
    }

    pub(super) fn cancelled(&mut self, client: ClientId, want: WantId) {
        let node = self
            .clients
            .get(&client)
            .and_then(|client| client.wants.get(&want));
        match node.copied() {
            Some(node) => self.answer(node, Answer::Cancelled),
            None => self.stats.ignored += 1,
        }
    }

    fn answer(&mut self, node: NodeIx, answer: Answer) {
        let Some(want) = self
            .graph
            .want(node)
            .filter(|want| want.state != WantState::Answered)
        else {
            return;
        };
        let (client, id) = (want.client, want.want.id);
        let is_failed_goal = want.want.purpose == Purpose::Goal && matches!(answer, Answer::Failed(_));
        self.drop_want(node);
        if let Some(client) = self.clients.get_mut(&client) {
            client.wants.remove(&id);
        }
        self.reply(client, id, answer);
        self.actions
            .push(Action::Journal(Record::Answered { client, want: id }));
        let open = self.clients.get_mut(&client);
        if let Some(open) = open.filter(|open| is_failed_goal && open.options.on_failure == OnFailure::Stop) {
            let others: Vec<NodeIx> = open.wants.values().copied().collect();
            for other in others {
                self.answer(other, Answer::Cancelled); // goes no deeper: nothing follows a cancellation
            }
        }
    }

    fn reply(&mut self, client: ClientId, want: WantId, answer: Answer) {
        self.actions.push(Action::Reply { client, want, answer });
    }

    /// A want holds nothing any more, and its node is freed when no work can name it.
    fn drop_want(&mut self, node: NodeIx) {
        let Some(want) = self.graph.want_mut(node) else {
            return;
        };
        let was_unread = want.state == WantState::Info;
        want.state = WantState::Answered;
        let outputs = std::mem::take(&mut want.outputs);
        let target = want.want.target.clone();
        if let Target::Outputs { drv, .. } = target
            && was_unread
            && let Some(drv) = self.intern.drvs.get(&drv).copied()
            && let Some(build) = self.graph.build_mut(drv)
        {
            build.waiting_for_info.retain(|other| *other != node);
        }
        self.cut(node);
        for (_, output) in outputs {
            self.unmention(output);
        }
        self.graph[node].demand = crate::urgency::Demand::default();
        self.spread.demand_changed(&mut self.graph, node);
        self.answered.push(node);
    }
}

fn too_many_wants(open: usize) -> Failure {
    Failure {
        root: None,
        kind: FailureKind::TooManyWants,
        reason: format!("{open} wants of this client are open already; wait for some of them"),
    }
}
