//! Regular expressions of `builtins.match` and `builtins.split`.
//!
//! Nix uses libstdc++'s `std::regex` with the `extended` grammar, whose answers are those of no POSIX or Perl engine:
//! of two alternatives the longer wins, of a quantifier the first success; captures are those of the first such path
//! (`split "a?(ab)?" "ab"` matches `a`, `match "(a|ab)(c|bcd)(d*)" "abcd"` captures `a`, `bcd`, and nothing). Text is
//! bytes: `.` is any byte but NUL, newline included, `^` and `$` are the ends of the text only.
//!
//! Patterns for which it makes no difference run on `regex-automata`; the others on an automaton of our own
//! ([`exact`]). Both take time linear in the text.
//!
//! Invariants
//! - a compiled [`Regex`] is immutable, `Send` and `Sync`, so one cache can serve all threads;
//! - what libstdc++ rejects is rejected, and nothing else.
//!
//! Source: Nix 2.34 `prim_match`, `prim_split`; POSIX XBD 9.4; behaviour recorded in `oracle/regex.tsv`.

mod analyze;
mod charset;
mod exact;
mod hir;
mod nfa;
mod parse;

use std::sync::OnceLock;

use igloo_status::Code;
use regex_automata::{Anchored, Input, meta};

use analyze::Facts;
use exact::{Goal, Search};

/// A compiled pattern.
///
/// Compiling costs about the size of the pattern; the `regex-automata` engines are built on first use. A cache of
/// these is worth having: nixpkgs asks for the same few hundred patterns all the time.
#[derive(Debug)]
pub struct Regex {
    ast: parse::Ast,
    nfa: nfa::Nfa,
    facts: Facts,
    whole: OnceLock<Option<meta::Regex>>,
    search: OnceLock<Option<meta::Regex>>,
}

impl Regex {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// `Invalid` for what libstdc++ rejects (among it `*a`, `a|*b`, `{,2}`, `\w`, `\}`, `(?:a)`, `[z-a]`), `TooLarge`
    /// for more than 100,000 automaton states, its limit.
    pub fn new(pattern: &[u8]) -> Result<Self, RegexError> {
        let ast = parse::parse(pattern)?;
        let facts = analyze::facts(&ast);
        let nfa = nfa::build(&ast);
        Ok(Self {
            ast,
            nfa,
            facts,
            whole: OnceLock::new(),
            search: OnceLock::new(),
        })
    }

    /// How many groups the pattern has: the length of the list `match` returns.
    pub fn group_count(&self) -> usize {
        self.ast.groups
    }

    /// Matches the whole of `text`: what `builtins.match` does.
    ///
    /// # Errors
    /// `TooLarge` when pattern and text together need more memory than the limit allows.
    pub fn match_whole(&self, text: &[u8]) -> Result<Option<Captures>, RegexError> {
        if self.facts.plain_match
            && let Some(engine) = self.whole.get_or_init(|| hir::engine(&self.ast, true))
        {
            if self.ast.groups == 0 {
                let found = engine.is_match(Input::new(text).anchored(Anchored::Yes));
                return Ok(found.then(|| Captures {
                    span: (0, text.len()),
                    groups: Vec::new(),
                }));
            }
            return Ok(self.run(engine, &Input::new(text).anchored(Anchored::Yes)));
        }
        Search::new(&self.nfa, text, Goal::Whole).at(0, self.ast.groups)
    }

    /// Finds all matches from left to right: what `builtins.split` cuts its string at.
    ///
    /// After an empty match the search goes on at the same place for one that is not empty, then one byte further.
    pub fn matches<'r, 't>(&'r self, text: &'t [u8]) -> Matches<'r, 't> {
        let plain = self.facts.plain_search;
        let engine = plain
            .then(|| self.search.get_or_init(|| hir::engine(&self.ast, false)).as_ref())
            .flatten();
        let exact = engine
            .is_none()
            .then(|| Search::new(&self.nfa, text, Goal::Prefix));
        Matches {
            regex: self,
            text,
            engine,
            exact,
            next: Next::From(0),
        }
    }

    fn run(&self, engine: &meta::Regex, input: &Input<'_>) -> Option<Captures> {
        let mut found = engine.create_captures();
        engine.search_captures(input, &mut found);
        let whole = found.get_match()?;
        let group = |index| found.get_group(index).map(|span| (span.start, span.end));
        let groups = (1..=self.ast.groups).map(group).collect();
        Some(Captures {
            span: (whole.start(), whole.end()),
            groups,
        })
    }
}

/// One match: where it and its groups lie, bytes from the beginning of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captures {
    /// Start and end of the whole match.
    pub span: (usize, usize),
    /// Start and end of each group, in order of their opening parentheses; `None` for one that took no part (`null`).
    pub groups: Vec<Option<(usize, usize)>>,
}

/// The matches in one text, left to right.
pub struct Matches<'r, 't> {
    regex: &'r Regex,
    text: &'t [u8],
    engine: Option<&'r meta::Regex>,
    exact: Option<Search<'r, 't>>,
    next: Next,
}

enum Next {
    From(usize),
    AfterEmpty(usize),
    Done,
}

impl Matches<'_, '_> {
    fn find(&mut self) -> Result<Option<Captures>, RegexError> {
        let start = match self.next {
            Next::Done => return Ok(None),
            Next::From(start) => start,
            Next::AfterEmpty(at) if at >= self.text.len() => return Ok(None),
            Next::AfterEmpty(at) => {
                if let Some(search) = &mut self.exact
                    && let Some(found) = search.not_empty_at(at, self.regex.ast.groups)?
                {
                    return Ok(Some(found));
                }
                at + 1
            }
        };
        match self.engine {
            Some(engine) => Ok(self
                .regex
                .run(engine, &Input::new(self.text).span(start..self.text.len()))),
            None => self.find_exact(start),
        }
    }

    fn find_exact(&mut self, start: usize) -> Result<Option<Captures>, RegexError> {
        let Some(search) = &mut self.exact else {
            return Ok(None);
        };
        let facts = &self.regex.facts;
        for at in start..=self.text.len() {
            let possible =
                facts.nullable || self.text.get(at).is_some_and(|&byte| facts.first.contains(byte));
            if !possible {
                continue;
            }
            search.passed(at);
            if let Some(found) = search.at(at, self.regex.ast.groups)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl Iterator for Matches<'_, '_> {
    type Item = Result<Captures, RegexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.find();
        self.next = match &found {
            Ok(Some(captures)) if captures.span.0 == captures.span.1 => Next::AfterEmpty(captures.span.1),
            Ok(Some(captures)) => Next::From(captures.span.1),
            Ok(None) | Err(_) => Next::Done,
        };
        found.transpose()
    }
}

/// Why a pattern cannot be used. Nix's messages name the pattern, which the caller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// Not an extended regular expression as libstdc++ reads them: `invalid regular expression '…'`.
    #[error("invalid regular expression")]
    Invalid,
    /// Too many states, or too many for this text: `memory limit exceeded by regular expression '…'`.
    #[error("memory limit exceeded by regular expression")]
    TooLarge,
}

impl RegexError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::TooLarge => Code::ResourceExhausted,
        }
    }
}

#[cfg(test)]
mod tests;
