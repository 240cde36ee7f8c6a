//! A pattern as `regex-automata` takes it.
//!
//! Every group keeps its number. Only patterns of bounded depth come here (`analyze`), as what compiles them recurses.

use regex_automata::meta;
use regex_syntax::hir::{self, Capture, ClassBytes, ClassBytesRange, Hir, Look};

use super::charset::ByteSet;
use super::parse::{Ast, Node, Repeat};

/// Largest automaton `regex-automata` may build for one pattern, in bytes.
const NFA_BYTES_MAX: usize = 8 << 20;

/// An engine for the whole string (`anchored`) or for searching in it; `None` when the pattern is too large for it.
pub(super) fn engine(ast: &Ast, anchored: bool) -> Option<meta::Regex> {
    let mut hir = translate(ast);
    if anchored {
        hir = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
    }
    let config = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(NFA_BYTES_MAX));
    meta::Builder::new().configure(config).build_from_hir(&hir).ok()
}

fn translate(ast: &Ast) -> Hir {
    let mut done: Vec<Option<Hir>> = Vec::with_capacity(ast.nodes.len());
    for node in &ast.nodes {
        let hir = one(node, &mut done);
        done.push(Some(hir));
    }
    done.pop().flatten().unwrap_or_else(Hir::empty)
}

fn one(node: &Node, done: &mut [Option<Hir>]) -> Hir {
    let mut take = |id: usize| done[id].take().unwrap_or_else(Hir::empty);
    match node {
        Node::Empty => Hir::empty(),
        Node::Bytes(set) => class(set),
        Node::LineBegin => Hir::look(Look::Start),
        Node::LineEnd => Hir::look(Look::End),
        Node::Group(number, inner) => Hir::capture(Capture {
            index: u32::try_from(*number).unwrap_or(u32::MAX),
            name: None,
            sub: Box::new(take(*inner)),
        }),
        Node::Concat(terms) => Hir::concat(terms.iter().map(|&id| take(id)).collect()),
        Node::Alternatives(branches) => Hir::alternation(branches.iter().map(|&id| take(id)).collect()),
        Node::Repeat(inner, repeat) => {
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let (min, max) = match *repeat {
                Repeat::Star => (0, None),
                Repeat::Plus => (1, None),
                Repeat::Optional => (0, Some(1)),
                Repeat::Between(min, max) => (count(min), Some(count(max))),
                Repeat::AtLeast(min) => (count(min), None),
            };
            Hir::repetition(hir::Repetition {
                min,
                max,
                greedy: true,
                sub: Box::new(take(*inner)),
            })
        }
    }
}

fn class(set: &ByteSet) -> Hir {
    let ranges = set
        .ranges()
        .into_iter()
        .map(|(low, high)| ClassBytesRange::new(low, high));
    Hir::class(hir::Class::Bytes(ClassBytes::new(ranges)))
}
