//! What can be said of a pattern without running it, and so which engine may run it.
//!
//! The automaton of [`super::nfa`] follows libstdc++'s search order exactly. The engines of `regex-automata` are much
//! faster and give the same answers for most patterns; the two facts found here say for which.

use super::charset::ByteSet;
use super::parse::{Ast, Node, Repeat};

/// Deepest nesting handed to `regex-automata`, whose compiler recurses.
const DEPTH_MAX: usize = 100;

/// Facts about a whole pattern.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Bytes a match that is not empty can start with.
    pub(super) first: ByteSet,
    /// Whether the empty string may match.
    pub(super) nullable: bool,
    /// Whether the leftmost-first captures of a whole-string match are those libstdc++ gives. Not so where a group
    /// stands in a loop whose body can be empty: libstdc++ goes round twice more at the same place.
    pub(super) plain_match: bool,
    /// Whether a leftmost-first search finds what libstdc++ finds, which takes the longer of two alternatives but the
    /// first success of a quantifier. So where no two alternatives can succeed at the same place.
    pub(super) plain_search: bool,
}

/// Looks at every node once.
pub(super) fn facts(ast: &Ast) -> Facts {
    let mut known: Vec<Part> = Vec::with_capacity(ast.nodes.len());
    for node in &ast.nodes {
        let part = part(node, &known);
        known.push(part);
    }
    let whole = known.pop().unwrap_or(EMPTY);
    let deep = whole.depth > DEPTH_MAX;
    Facts {
        first: whole.first,
        nullable: whole.nullable,
        plain_match: !whole.empty_loop && !deep,
        plain_search: !whole.empty_loop && !whole.rivals && !deep,
    }
}

/// Whether each node of a pattern can match the empty string, by node number.
pub(super) fn nullable(ast: &Ast) -> Vec<bool> {
    let mut known: Vec<Part> = Vec::with_capacity(ast.nodes.len());
    for node in &ast.nodes {
        let part = part(node, &known);
        known.push(part);
    }
    known.iter().map(|part| part.nullable).collect()
}

#[derive(Clone, Copy)]
struct Part {
    first: ByteSet,
    nullable: bool,
    groups: bool,
    empty_loop: bool,
    rivals: bool,
    depth: usize,
}

const EMPTY: Part = Part {
    first: ByteSet::NONE,
    nullable: true,
    groups: false,
    empty_loop: false,
    rivals: false,
    depth: 1,
};

fn part(node: &Node, known: &[Part]) -> Part {
    match node {
        Node::Empty | Node::LineBegin | Node::LineEnd => EMPTY,
        Node::Bytes(set) => Part {
            first: *set,
            nullable: false,
            ..EMPTY
        },
        Node::Group(_, inner) => {
            let inner = known[*inner];
            Part {
                groups: true,
                depth: inner.depth + 1,
                ..inner
            }
        }
        Node::Concat(terms) => terms.iter().fold(EMPTY, |so_far, &term| {
            let term = known[term];
            let first = if so_far.nullable {
                so_far.first.union(term.first)
            } else {
                so_far.first
            };
            Part {
                first,
                nullable: so_far.nullable && term.nullable,
                ..both(&so_far, &term)
            }
        }),
        Node::Alternatives(branches) => {
            let start = Part {
                nullable: false,
                ..EMPTY
            };
            branches.iter().fold(start, |so_far, &branch| {
                let branch = known[branch];
                let rivals = branch.nullable || !so_far.first.is_disjoint(&branch.first);
                let joined = both(&so_far, &branch);
                Part {
                    first: so_far.first.union(branch.first),
                    nullable: so_far.nullable || branch.nullable,
                    rivals: joined.rivals || rivals,
                    ..joined
                }
            })
        }
        Node::Repeat(inner, repeat) => {
            let inner = known[*inner];
            let (skippable, endless) = match *repeat {
                Repeat::Star => (true, true),
                Repeat::Plus => (false, true),
                Repeat::Optional => (true, false),
                Repeat::Between(min, _) => (min == 0, false),
                Repeat::AtLeast(min) => (min == 0, true),
            };
            Part {
                nullable: inner.nullable || skippable,
                empty_loop: inner.empty_loop || (endless && inner.nullable && inner.groups),
                depth: inner.depth + 1,
                ..inner
            }
        }
    }
}

fn both(a: &Part, b: &Part) -> Part {
    Part {
        groups: a.groups || b.groups,
        empty_loop: a.empty_loop || b.empty_loop,
        rivals: a.rivals || b.rivals,
        depth: a.depth.max(b.depth + 1),
        ..EMPTY
    }
}
