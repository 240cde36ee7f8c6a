//! The automaton libstdc++ would build, state for state where the order of its search depends on it.
//!
//! Invariants
//! - a quantifier is a [`State::Loop`] (body first, exit second, the first success wins), an alternative a
//!   [`State::Fork`] (both are tried, the longer wins, the left one on a tie);
//! - at most `parse::STATES_MAX` states, since `parse` has counted them.

use super::analyze::nullable;
use super::charset::ByteSet;
use super::parse::{Ast, Node, NodeId, Repeat};

pub(super) type StateId = u32;

/// Not connected yet.
const OPEN: StateId = StateId::MAX;

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Jump {
        next: StateId,
    },
    Bytes {
        set: u32,
        next: StateId,
    },
    LineBegin {
        next: StateId,
    },
    LineEnd {
        next: StateId,
    },
    GroupBegin {
        group: u32,
        next: StateId,
    },
    GroupEnd {
        group: u32,
        next: StateId,
    },
    Fork {
        left: StateId,
        right: StateId,
    },
    /// `counted` when the body can match the empty string, so that its rounds at one place must be counted.
    Loop {
        body: StateId,
        exit: StateId,
        counted: bool,
    },
    Accept,
}

/// The automaton of one pattern.
#[derive(Debug)]
pub(super) struct Nfa {
    pub(super) states: Vec<State>,
    pub(super) sets: Vec<ByteSet>,
    pub(super) start: StateId,
    /// For each fork and loop its number among those, counted from 0; nothing of use for other states.
    pub(super) fork_numbers: Vec<u32>,
    pub(super) fork_count: usize,
}

/// A piece of automaton: entered at `start`, left by the one open `next` of `end`.
#[derive(Clone, Copy)]
struct Piece {
    start: StateId,
    end: StateId,
    /// Its states are those from here to the end of the list, when it is the newest piece.
    low: StateId,
}

/// Builds the automaton of a pattern.
pub(super) fn build(ast: &Ast) -> Nfa {
    let nullable = nullable(ast);
    let mut builder = Builder {
        states: Vec::new(),
        sets: Vec::new(),
        nullable: &nullable,
    };
    let mut pieces: Vec<Piece> = Vec::with_capacity(ast.nodes.len());
    for node in &ast.nodes {
        let piece = builder.node(node, &pieces);
        pieces.push(piece);
    }
    let accept = builder.push(State::Accept);
    let start = match pieces.last() {
        Some(whole) => {
            builder.connect(whole.end, accept);
            whole.start
        }
        None => accept,
    };
    let mut nfa = Nfa {
        states: builder.states,
        sets: builder.sets,
        start,
        fork_numbers: Vec::new(),
        fork_count: 0,
    };
    nfa.skip_jumps();
    nfa.number_forks();
    nfa
}

impl Nfa {
    /// Lets every edge that leads to a jump lead to where the jump goes.
    fn skip_jumps(&mut self) {
        for id in (0..self.states.len()).rev() {
            let mut state = self.states[id];
            match &mut state {
                State::Jump { next }
                | State::Bytes { next, .. }
                | State::LineBegin { next }
                | State::LineEnd { next }
                | State::GroupBegin { next, .. }
                | State::GroupEnd { next, .. } => *next = self.target(*next),
                State::Fork { left, right } => {
                    *left = self.target(*left);
                    *right = self.target(*right);
                }
                State::Loop { body, exit, .. } => {
                    *body = self.target(*body);
                    *exit = self.target(*exit);
                }
                State::Accept => {}
            }
            self.states[id] = state;
        }
        self.start = self.target(self.start);
    }

    fn number_forks(&mut self) {
        let mut next = 0;
        for state in &self.states {
            self.fork_numbers.push(next);
            next += u32::from(matches!(state, State::Fork { .. } | State::Loop { .. }));
        }
        self.fork_count = next as usize;
    }

    fn target(&self, mut id: StateId) -> StateId {
        while let Some(State::Jump { next }) = self.states.get(id as usize) {
            id = *next;
        }
        id
    }
}

struct Builder<'a> {
    states: Vec<State>,
    sets: Vec<ByteSet>,
    nullable: &'a [bool],
}

impl Builder<'_> {
    fn here(&self) -> StateId {
        StateId::try_from(self.states.len()).unwrap_or(OPEN)
    }

    fn push(&mut self, state: State) -> StateId {
        let id = self.here();
        self.states.push(state);
        id
    }

    fn single(&mut self, state: State) -> Piece {
        let id = self.push(state);
        Piece {
            start: id,
            end: id,
            low: id,
        }
    }

    fn connect(&mut self, from: StateId, to: StateId) {
        match &mut self.states[from as usize] {
            State::Jump { next }
            | State::Bytes { next, .. }
            | State::LineBegin { next }
            | State::LineEnd { next }
            | State::GroupBegin { next, .. }
            | State::GroupEnd { next, .. }
            | State::Loop { exit: next, .. } => *next = to,
            State::Fork { .. } | State::Accept => {}
        }
    }

    fn node(&mut self, node: &Node, pieces: &[Piece]) -> Piece {
        match node {
            Node::Empty => self.single(State::Jump { next: OPEN }),
            Node::Bytes(set) => {
                let index = u32::try_from(self.sets.len()).unwrap_or(OPEN);
                self.sets.push(*set);
                self.single(State::Bytes {
                    set: index,
                    next: OPEN,
                })
            }
            Node::LineBegin => self.single(State::LineBegin { next: OPEN }),
            Node::LineEnd => self.single(State::LineEnd { next: OPEN }),
            Node::Group(number, inner) => {
                let (group, inner) = (u32::try_from(*number).unwrap_or(OPEN), pieces[*inner]);
                let start = self.push(State::GroupBegin {
                    group,
                    next: inner.start,
                });
                let end = self.push(State::GroupEnd { group, next: OPEN });
                self.connect(inner.end, end);
                Piece {
                    start,
                    end,
                    low: inner.low,
                }
            }
            Node::Concat(terms) => self.concat(terms, pieces),
            Node::Alternatives(branches) => self.alternatives(branches, pieces),
            Node::Repeat(inner, repeat) => self.repeat(pieces[*inner], *repeat, self.nullable[*inner]),
        }
    }

    fn concat(&mut self, terms: &[NodeId], pieces: &[Piece]) -> Piece {
        let mut whole: Option<Piece> = None;
        for &term in terms {
            let term = pieces[term];
            whole = Some(match whole {
                None => term,
                Some(before) => {
                    self.connect(before.end, term.start);
                    Piece {
                        end: term.end,
                        ..before
                    }
                }
            });
        }
        whole.unwrap_or_else(|| self.single(State::Jump { next: OPEN }))
    }

    fn alternatives(&mut self, branches: &[NodeId], pieces: &[Piece]) -> Piece {
        let mut branches = branches.iter().map(|&id| pieces[id]);
        let Some(mut left) = branches.next() else {
            return self.single(State::Jump { next: OPEN });
        };
        for right in branches {
            let end = self.push(State::Jump { next: OPEN });
            self.connect(left.end, end);
            self.connect(right.end, end);
            let start = self.push(State::Fork {
                left: left.start,
                right: right.start,
            });
            left = Piece {
                start,
                end,
                low: left.low,
            };
        }
        left
    }

    fn repeat(&mut self, inner: Piece, repeat: Repeat, counted: bool) -> Piece {
        let turn = State::Loop {
            body: inner.start,
            exit: OPEN,
            counted,
        };
        match repeat {
            Repeat::Star => {
                let id = self.push(turn);
                self.connect(inner.end, id);
                Piece {
                    start: id,
                    end: id,
                    low: inner.low,
                }
            }
            Repeat::Plus => {
                let id = self.push(turn);
                self.connect(inner.end, id);
                Piece { end: id, ..inner }
            }
            Repeat::Optional => {
                let end = self.push(State::Jump { next: OPEN });
                let start = self.push(State::Loop {
                    body: inner.start,
                    exit: end,
                    counted,
                });
                self.connect(inner.end, end);
                Piece {
                    start,
                    end,
                    low: inner.low,
                }
            }
            Repeat::Between(min, max) => self.copies(inner, min, Some(max), counted),
            Repeat::AtLeast(min) => self.copies(inner, min, None, counted),
        }
    }

    /// `min` copies, then up to `max` in all of which each is optional, or a loop without end.
    fn copies(&mut self, inner: Piece, min: usize, max: Option<usize>, counted: bool) -> Piece {
        let template = self.states.split_off(inner.low as usize);
        let mut whole = self.single(State::Jump { next: OPEN });
        for _ in 0..min {
            let copy = self.copy(&template, inner);
            self.connect(whole.end, copy.start);
            whole.end = copy.end;
        }
        let Some(max) = max else {
            let copy = self.copy(&template, inner);
            let id = self.push(State::Loop {
                body: copy.start,
                exit: OPEN,
                counted,
            });
            self.connect(copy.end, id);
            self.connect(whole.end, id);
            return Piece { end: id, ..whole };
        };
        let end = self.push(State::Jump { next: OPEN });
        for _ in min..max {
            let copy = self.copy(&template, inner);
            let id = self.push(State::Loop {
                body: copy.start,
                exit: end,
                counted,
            });
            self.connect(whole.end, id);
            whole.end = copy.end;
        }
        self.connect(whole.end, end);
        Piece { end, ..whole }
    }

    /// Appends the states of `template`, which stood at `inner.low`, once more.
    fn copy(&mut self, template: &[State], inner: Piece) -> Piece {
        let low = self.here();
        let moved = |id: StateId| if id == OPEN { OPEN } else { id - inner.low + low };
        for state in template {
            let mut state = *state;
            match &mut state {
                State::Jump { next }
                | State::Bytes { next, .. }
                | State::LineBegin { next }
                | State::LineEnd { next }
                | State::GroupBegin { next, .. }
                | State::GroupEnd { next, .. } => *next = moved(*next),
                State::Fork { left, right } => (*left, *right) = (moved(*left), moved(*right)),
                State::Loop { body, exit, .. } => (*body, *exit) = (moved(*body), moved(*exit)),
                State::Accept => {}
            }
            self.states.push(state);
        }
        Piece {
            start: moved(inner.start),
            end: moved(inner.end),
            low,
        }
    }
}
