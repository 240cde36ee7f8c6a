//! Questions waiting for their turn: so many at once, the most urgent first.
//!
//! Invariants
//! - at most `at_once` are out;
//! - among those of one urgency, the order is that of asking.

use std::collections::VecDeque;

use crate::graph::NodeIx;
use crate::urgency::Urgency;

/// One kind of question.
#[derive(Debug)]
pub(crate) struct Lane {
    waiting: [VecDeque<NodeIx>; Urgency::COUNT],
    at_once: usize,
    out: usize,
}

impl Lane {
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            waiting: Default::default(),
            at_once: at_once.max(1),
            out: 0,
        }
    }

    /// Puts a node in line. The same node may stand in it several times: `take` asks whether it still wants to.
    pub(crate) fn push(&mut self, node: NodeIx, urgency: Urgency) {
        self.waiting[urgency.index()].push_back(node);
    }

    /// The next nodes, as many as may be out and at most `count`. Those that are not `keep` any more are dropped.
    pub(crate) fn take(&mut self, count: usize, mut keep: impl FnMut(NodeIx) -> bool) -> Vec<NodeIx> {
        let mut taken = Vec::new();
        for queue in &mut self.waiting {
            while self.out < self.at_once && taken.len() < count.max(1) {
                let Some(node) = queue.pop_front() else { break };
                if keep(node) {
                    self.out += 1;
                    taken.push(node);
                }
            }
        }
        taken
    }

    /// One is answered, or is not waited for any more.
    pub(crate) fn answered(&mut self) {
        self.out = self.out.saturating_sub(1);
    }

    /// How many are out.
    pub(crate) fn out(&self) -> usize {
        self.out
    }
}
