//! POSIX extended regular expressions as libstdc++'s `std::regex::extended` reads them in a strictly conforming build.
//!
//! What is refused is refused for the same reasons, and in the same order, as there: one token is read ahead, and
//! automaton states are counted as the automaton would grow, so a pattern that is both too large and malformed fails
//! with whichever comes first.
//!
//! Invariants
//! - the tree is a flat list in which children come before their parent: nothing walks it by recursion;
//! - a pattern needs at most [`STATES_MAX`] automaton states, so a tree built here is never larger than that.

use super::RegexError;
use super::charset::{ByteSet, class_by_name, collating_element};

/// Most automaton states a pattern may need (`_GLIBCXX_REGEX_STATE_LIMIT`).
pub(super) const STATES_MAX: usize = 100_000;

/// A parsed pattern.
#[derive(Debug)]
pub(super) struct Ast {
    /// Children before parents; the last one is the whole pattern.
    pub(super) nodes: Vec<Node>,
    /// How many groups `(...)` there are.
    pub(super) groups: usize,
}

pub(super) type NodeId = usize;

/// One construct of a pattern.
#[derive(Debug)]
pub(super) enum Node {
    Empty,
    Bytes(ByteSet),
    LineBegin,
    LineEnd,
    /// The group with that number, from 1.
    Group(usize, NodeId),
    Concat(Vec<NodeId>),
    Alternatives(Vec<NodeId>),
    Repeat(NodeId, Repeat),
}

/// A quantifier; they differ in the automaton they make, not only in their bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    Star,
    Plus,
    Optional,
    /// `{min}` and `{min,max}`.
    Between(usize, usize),
    /// `{min,}`.
    AtLeast(usize),
}

/// Reads a whole pattern.
///
/// # Errors
/// `Invalid` for what libstdc++ rejects, `TooLarge` where it runs into its limit of states.
pub(super) fn parse(pattern: &[u8]) -> Result<Ast, RegexError> {
    let mut parser = Parser {
        scanner: Scanner {
            rest: pattern,
            mode: Mode::Normal,
            at_bracket_start: false,
        },
        token: Token::Eof,
        nodes: Vec::new(),
        states_of: Vec::new(),
        states_total: 0,
        groups: 0,
    };
    parser.advance()?;
    parser.pattern()?;
    Ok(Ast {
        nodes: parser.nodes,
        groups: parser.groups,
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Eof,
    Char(u8),
    AnyChar,
    LineBegin,
    LineEnd,
    Star,
    Plus,
    Question,
    Or,
    GroupBegin,
    GroupEnd,
    BracketBegin { negated: bool },
    BracketEnd,
    BracketDash,
    Collating(Vec<u8>),
    Equivalence(Vec<u8>),
    Class(Vec<u8>),
    IntervalBegin,
    IntervalEnd,
    Comma,
    Count(Vec<u8>),
}

#[derive(Clone, Copy)]
enum Mode {
    Normal,
    Bracket,
    Brace,
}

struct Scanner<'p> {
    rest: &'p [u8],
    mode: Mode,
    at_bracket_start: bool,
}

impl Scanner<'_> {
    fn next(&mut self) -> Result<Token, RegexError> {
        let Some(byte) = self.take() else {
            return Ok(Token::Eof);
        };
        match self.mode {
            Mode::Normal => self.normal(byte),
            Mode::Bracket => self.in_bracket(byte),
            Mode::Brace => self.in_brace(byte),
        }
    }

    fn take(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn normal(&mut self, byte: u8) -> Result<Token, RegexError> {
        Ok(match byte {
            0 => return Err(RegexError::Invalid),
            b'\\' => match self.take() {
                Some(escaped) if b".[\\()*+?{|^$".contains(&escaped) => Token::Char(escaped),
                _ => return Err(RegexError::Invalid),
            },
            b'(' => Token::GroupBegin,
            b')' => Token::GroupEnd,
            b'[' => {
                self.mode = Mode::Bracket;
                self.at_bracket_start = true;
                let negated = self.rest.first() == Some(&b'^');
                if negated {
                    self.take();
                }
                Token::BracketBegin { negated }
            }
            b'{' => {
                self.mode = Mode::Brace;
                Token::IntervalBegin
            }
            b'^' => Token::LineBegin,
            b'$' => Token::LineEnd,
            b'.' => Token::AnyChar,
            b'*' => Token::Star,
            b'+' => Token::Plus,
            b'?' => Token::Question,
            b'|' => Token::Or,
            other => Token::Char(other),
        })
    }

    fn in_bracket(&mut self, byte: u8) -> Result<Token, RegexError> {
        let at_start = std::mem::replace(&mut self.at_bracket_start, false);
        Ok(match byte {
            b'-' => Token::BracketDash,
            b'[' => match self.rest.first() {
                None => return Err(RegexError::Invalid),
                Some(b'.') => Token::Collating(self.bracket_name(b'.')?),
                Some(b':') => Token::Class(self.bracket_name(b':')?),
                Some(b'=') => Token::Equivalence(self.bracket_name(b'=')?),
                Some(_) => Token::Char(byte),
            },
            b']' if !at_start => {
                self.mode = Mode::Normal;
                Token::BracketEnd
            }
            other => Token::Char(other),
        })
    }

    /// The name in `[:name:]`, the `[` being read already.
    fn bracket_name(&mut self, mark: u8) -> Result<Vec<u8>, RegexError> {
        let inner = &self.rest[1..];
        let end = inner
            .iter()
            .position(|&byte| byte == mark)
            .ok_or(RegexError::Invalid)?;
        let (name, tail) = inner.split_at(end);
        self.rest = tail.strip_prefix(&[mark, b']']).ok_or(RegexError::Invalid)?;
        Ok(name.to_vec())
    }

    fn in_brace(&mut self, byte: u8) -> Result<Token, RegexError> {
        Ok(match byte {
            b'0'..=b'9' => {
                let more = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
                let (digits, rest) = self.rest.split_at(more);
                self.rest = rest;
                let mut count = vec![byte];
                count.extend_from_slice(digits);
                Token::Count(count)
            }
            b',' => Token::Comma,
            b'}' => {
                self.mode = Mode::Normal;
                Token::IntervalEnd
            }
            _ => return Err(RegexError::Invalid),
        })
    }
}

/// An alternative or group that is being read.
struct Open {
    /// The group's number; 0 for the whole pattern.
    group: usize,
    alternatives: Vec<NodeId>,
    /// The terms of the alternative being read.
    terms: Vec<NodeId>,
}

struct Parser<'p> {
    scanner: Scanner<'p>,
    token: Token,
    nodes: Vec<Node>,
    /// States reachable within each node's part of the automaton: what a copy of it costs.
    states_of: Vec<usize>,
    states_total: usize,
    groups: usize,
}

impl Parser<'_> {
    fn advance(&mut self) -> Result<Token, RegexError> {
        let next = self.scanner.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn matches(&mut self, token: &Token) -> Result<bool, RegexError> {
        if self.token == *token {
            self.advance()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Adds a node whose own part takes `states` states, `inserted` of them new ones.
    fn push(&mut self, node: Node, states: usize, inserted: usize) -> Result<NodeId, RegexError> {
        self.grow(inserted)?;
        self.nodes.push(node);
        self.states_of.push(states);
        Ok(self.nodes.len() - 1)
    }

    fn grow(&mut self, inserted: usize) -> Result<(), RegexError> {
        self.states_total = self.states_total.saturating_add(inserted);
        if self.states_total > STATES_MAX {
            return Err(RegexError::TooLarge);
        }
        Ok(())
    }

    fn pattern(&mut self) -> Result<(), RegexError> {
        self.grow(1)?; // the whole match is group 0: one state opens it, one closes it, one accepts
        let mut open = vec![Open {
            group: 0,
            alternatives: Vec::new(),
            terms: Vec::new(),
        }];
        while let Some(current) = open.last_mut() {
            if self.matches(&Token::GroupBegin)? {
                self.groups += 1;
                self.grow(1)?;
                open.push(Open {
                    group: self.groups,
                    alternatives: Vec::new(),
                    terms: Vec::new(),
                });
            } else if let Some(term) = self.term()? {
                current.terms.push(term);
            } else {
                self.end_alternative(current)?;
                if self.matches(&Token::Or)? {
                    continue;
                }
                let Some(done) = open.pop() else { break };
                let inner = self.join(done.alternatives)?;
                let Some(parent) = open.last_mut() else { break };
                if !self.matches(&Token::GroupEnd)? {
                    return Err(RegexError::Invalid);
                }
                let states = self.states_of[inner] + 2;
                let group = self.push(Node::Group(done.group, inner), states, 1)?;
                parent.terms.push(self.quantified(group)?);
            }
        }
        if self.token != Token::Eof {
            return Err(RegexError::Invalid);
        }
        self.grow(2)
    }

    fn end_alternative(&mut self, open: &mut Open) -> Result<(), RegexError> {
        let terms = std::mem::take(&mut open.terms);
        let states = terms.iter().map(|&term| self.states_of[term]).sum::<usize>() + 1;
        let node = if terms.is_empty() {
            Node::Empty
        } else {
            Node::Concat(terms)
        };
        let node = self.push(node, states, 1)?;
        open.alternatives.push(node);
        if open.alternatives.len() > 1 {
            self.grow(2)?;
        }
        Ok(())
    }

    /// Makes one node of alternatives; each bar costs a fork and a join.
    fn join(&mut self, mut alternatives: Vec<NodeId>) -> Result<NodeId, RegexError> {
        match alternatives.pop() {
            Some(only) if alternatives.is_empty() => Ok(only),
            Some(last) => {
                alternatives.push(last);
                let states = alternatives.iter().map(|&id| self.states_of[id]).sum::<usize>();
                let forks = 2 * (alternatives.len() - 1);
                self.push(Node::Alternatives(alternatives), states + forks, 0)
            }
            None => self.push(Node::Empty, 1, 1),
        }
    }

    /// One assertion, or one atom other than a group with its quantifiers; `None` where neither stands.
    fn term(&mut self) -> Result<Option<NodeId>, RegexError> {
        let node = match &self.token {
            Token::LineBegin => Node::LineBegin,
            Token::LineEnd => Node::LineEnd,
            Token::AnyChar => Node::Bytes(ByteSet::single(0).complement()),
            Token::Char(byte) => Node::Bytes(ByteSet::single(*byte)),
            Token::BracketBegin { negated } => {
                let negated = *negated;
                self.advance()?;
                let set = self.bracket(negated)?;
                let atom = self.push(Node::Bytes(set), 1, 1)?;
                return self.quantified(atom).map(Some);
            }
            _ => return Ok(None),
        };
        let assertion = matches!(node, Node::LineBegin | Node::LineEnd);
        self.advance()?;
        let id = self.push(node, 1, 1)?;
        if assertion {
            Ok(Some(id))
        } else {
            self.quantified(id).map(Some)
        }
    }

    fn quantified(&mut self, mut atom: NodeId) -> Result<NodeId, RegexError> {
        loop {
            let states = self.states_of[atom];
            let (repeat, states, inserted) = if self.matches(&Token::Star)? {
                (Repeat::Star, states + 1, 1)
            } else if self.matches(&Token::Plus)? {
                (Repeat::Plus, states + 1, 1)
            } else if self.matches(&Token::Question)? {
                (Repeat::Optional, states + 2, 2)
            } else if self.matches(&Token::IntervalBegin)? {
                let repeat = self.interval()?;
                let made = match repeat {
                    Repeat::AtLeast(min) => states.saturating_mul(min.saturating_add(1)).saturating_add(2),
                    Repeat::Between(min, max) => states
                        .saturating_mul(max)
                        .saturating_add(max - min)
                        .saturating_add(2),
                    Repeat::Star | Repeat::Plus | Repeat::Optional => 0,
                };
                (repeat, made, made)
            } else {
                return Ok(atom);
            };
            atom = self.push(Node::Repeat(atom, repeat), states, inserted)?;
        }
    }

    fn interval(&mut self) -> Result<Repeat, RegexError> {
        let min = self.count()?.ok_or(RegexError::Invalid)?;
        let repeat = if self.matches(&Token::Comma)? {
            match self.count()? {
                Some(max) => Repeat::Between(min, max),
                None => Repeat::AtLeast(min),
            }
        } else {
            Repeat::Between(min, min)
        };
        if !self.matches(&Token::IntervalEnd)? {
            return Err(RegexError::Invalid);
        }
        match repeat {
            Repeat::Between(min, max) if max < min => Err(RegexError::Invalid),
            other => Ok(other),
        }
    }

    fn count(&mut self) -> Result<Option<usize>, RegexError> {
        let Token::Count(digits) = &self.token else {
            return Ok(None);
        };
        let value = digits.iter().try_fold(0_i32, |value, digit| {
            value.checked_mul(10)?.checked_add(i32::from(digit - b'0'))
        });
        let value = value
            .and_then(|value| usize::try_from(value).ok())
            .ok_or(RegexError::Invalid)?;
        self.advance()?;
        Ok(Some(value))
    }

    /// The inside of `[...]`, up to and with its end.
    fn bracket(&mut self, negated: bool) -> Result<ByteSet, RegexError> {
        let mut set = ByteSet::default();
        let mut last = match self.token {
            Token::Char(byte) => Last::Char(byte),
            Token::BracketDash => Last::Char(b'-'),
            _ => Last::Nothing,
        };
        if last != Last::Nothing {
            self.advance()?;
        }
        while self.bracket_term(&mut set, &mut last)? {}
        if let Last::Char(byte) = last {
            set.insert(byte);
        }
        Ok(if negated { set.complement() } else { set })
    }

    /// Takes one term of a bracket; `false` at its end. `last` is a byte that may yet start a range.
    fn bracket_term(&mut self, set: &mut ByteSet, last: &mut Last) -> Result<bool, RegexError> {
        let (members, next) = match self.advance()? {
            Token::BracketEnd => return Ok(false),
            Token::BracketDash => return self.bracket_dash(set, last),
            Token::Char(byte) => (ByteSet::default(), Last::Char(byte)),
            Token::Collating(name) => {
                let byte = collating_element(&name).ok_or(RegexError::Invalid)?;
                (ByteSet::single(byte), Last::Char(byte))
            }
            Token::Equivalence(name) => {
                let byte = collating_element(&name).ok_or(RegexError::Invalid)?;
                (
                    ByteSet::from_fn(|other| other.eq_ignore_ascii_case(&byte)),
                    Last::Class,
                )
            }
            Token::Class(name) => (class_by_name(&name).ok_or(RegexError::Invalid)?, Last::Class),
            _ => return Err(RegexError::Invalid),
        };
        if let Last::Char(byte) = *last {
            set.insert(byte);
        }
        *set = set.union(members);
        *last = next;
        Ok(true)
    }

    /// What a `-` means that is not the bracket's first byte: itself before the end, else the middle of a range.
    fn bracket_dash(&mut self, set: &mut ByteSet, last: &mut Last) -> Result<bool, RegexError> {
        if self.matches(&Token::BracketEnd)? {
            if let Last::Char(byte) = *last {
                set.insert(byte);
            }
            *last = Last::Char(b'-');
            return Ok(false);
        }
        let Last::Char(from) = *last else {
            return Err(RegexError::Invalid);
        };
        let to = match self.token {
            Token::Char(byte) => byte,
            Token::BracketDash => b'-',
            _ => return Err(RegexError::Invalid),
        };
        self.advance()?;
        // `char` is signed there: bytes from 0x80 on come before the ASCII ones.
        let (low, high) = (from.cast_signed(), to.cast_signed());
        if low > high {
            return Err(RegexError::Invalid);
        }
        *set = set.union(ByteSet::from_fn(|byte| {
            (low..=high).contains(&byte.cast_signed())
        }));
        *last = Last::Nothing;
        Ok(true)
    }
}

/// What a bracket term was preceded by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Char(u8),
    Class,
}
