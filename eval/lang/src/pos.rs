//! Source positions: one `u32` says file and offset; lines and columns are computed when printed.
//!
//! Invariants
//! - position 0 means "nowhere"; each source owns one contiguous range above it;
//! - the ranges of all sources of an evaluator fit in 32 bits, else the source is refused.

use std::borrow::Cow;
use std::rc::Rc;

use crate::num::{to_u32, to_usize};

/// A place in some source text, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Pos(pub(crate) u32);

impl Pos {
    /// No position is known.
    pub(crate) const NONE: Self = Self(0);

    /// Whether a position is known.
    #[inline]
    pub(crate) const fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// Where a source text came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, by absolute path.
    File(Rc<[u8]>),
    /// A file inside the evaluator, which `unsafeGetAttrPos` and traces do not show.
    Internal(&'static str),
    /// Text given by the caller (`-E`).
    String,
    /// Standard input.
    Stdin,
}

impl Origin {
    /// How Nix names the origin in a message.
    #[must_use]
    pub fn display(&self) -> Cow<'_, str> {
        match self {
            Self::File(path) => String::from_utf8_lossy(path),
            Self::Internal(name) => Cow::Borrowed(name),
            Self::String => Cow::Borrowed("«string»"),
            Self::Stdin => Cow::Borrowed("«stdin»"),
        }
    }
}

/// A position worked out for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Which text.
    pub origin: Origin,
    /// From 1.
    pub line: u32,
    /// In bytes, from 1.
    pub column: u32,
    /// The line before, the line itself and the line after, where there are any.
    pub lines: [Option<String>; 3],
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.origin.display(), self.line, self.column)
    }
}

#[derive(Debug)]
struct Source {
    base: u32,
    text: Rc<[u8]>,
    origin: Origin,
}

/// All source texts of one evaluator, in order of registration.
#[derive(Debug, Default)]
pub(crate) struct SourceTable {
    sources: Vec<Source>,
    next: u32,
}

impl SourceTable {
    /// Registers a text and returns the position of its first byte; `None` when 4 GiB of source are exceeded.
    pub(crate) fn add(&mut self, origin: Origin, text: Rc<[u8]>) -> Option<Pos> {
        let base = self.next.max(1);
        let len = u32::try_from(text.len()).ok()?;
        self.next = base.checked_add(len)?.checked_add(1)?;
        self.sources.push(Source { base, text, origin });
        Some(Pos(base))
    }

    fn source(&self, pos: Pos) -> Option<&Source> {
        if !pos.is_some() {
            return None;
        }
        let after = self.sources.partition_point(|s| s.base <= pos.0);
        self.sources.get(after.checked_sub(1)?)
    }

    /// Where the text of a position came from.
    pub(crate) fn origin(&self, pos: Pos) -> Option<&Origin> {
        Some(&self.source(pos)?.origin)
    }

    /// Line and column, from 1; O(offset).
    pub(crate) fn line_column(&self, pos: Pos) -> Option<(u32, u32)> {
        let source = self.source(pos)?;
        let offset = to_usize(pos.0 - source.base).min(source.text.len());
        let (line, start) = line_start(&source.text, offset);
        Some((line, to_u32(offset - start) + 1))
    }

    /// Everything a message shows about a position; O(size of the text).
    pub(crate) fn locate(&self, pos: Pos) -> Option<Location> {
        let source = self.source(pos)?;
        let (line, column) = self.line_column(pos)?;
        let nth = |n: u32| {
            let index = to_usize(n.checked_sub(1)?);
            split_lines(&source.text)
                .nth(index)
                .map(|l| String::from_utf8_lossy(l).into_owned())
        };
        let lines = [nth(line.wrapping_sub(1)), nth(line), nth(line + 1)];
        Some(Location {
            origin: source.origin.clone(),
            line,
            column,
            lines,
        })
    }

    /// The bytes between two positions of one text.
    pub(crate) fn snippet(&self, from: Pos, to: Pos) -> Option<&[u8]> {
        let source = self.source(from)?;
        source
            .text
            .get(to_usize(from.0 - source.base)..to_usize(to.0.checked_sub(source.base)?))
    }

    /// The registered text a position lies in, and the position of its first byte.
    pub(crate) fn text(&self, pos: Pos) -> Option<(Pos, Rc<[u8]>, Origin)> {
        let source = self.source(pos)?;
        Some((Pos(source.base), Rc::clone(&source.text), source.origin.clone()))
    }
}

/// Number and offset of the line that holds `offset`; LF, CR LF and lone CR end a line.
fn line_start(text: &[u8], offset: usize) -> (u32, usize) {
    let (mut line, mut start, mut i) = (1u32, 0usize, 0usize);
    while i < offset {
        let here = text[i];
        i += 1;
        if here == b'\r' && text.get(i) == Some(&b'\n') && i < offset {
            i += 1;
        } else if here != b'\n' && here != b'\r' {
            continue;
        }
        line = line.saturating_add(1);
        start = i;
    }
    (line, start)
}

fn split_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let here = rest?;
        let Some(end) = here.iter().position(|b| *b == b'\n' || *b == b'\r') else {
            rest = None;
            return (!here.is_empty()).then_some(here);
        };
        let skip = if here[end] == b'\r' && here.get(end + 1) == Some(&b'\n') {
            2
        } else {
            1
        };
        rest = Some(&here[end + skip..]);
        Some(&here[..end])
    })
}
