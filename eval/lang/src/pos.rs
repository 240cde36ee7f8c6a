//! Source positions: one `u32` says file and offset; lines and columns are computed when printed.
//!
//! Invariants
//! - position 0 means "nowhere"; each source owns one contiguous range above it;
//! - the ranges of all sources of an evaluator fit in 32 bits, else the source is refused.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

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
    File(Arc<[u8]>),
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
    len: u32,
    /// Offset of the first byte of each line but the first.
    lines: Box<[u32]>,
    /// Kept only where it cannot be read again.
    text: Option<Rc<[u8]>>,
    origin: Origin,
}

impl Source {
    /// Number and first offset of the line that holds `offset`.
    fn line_at(&self, offset: u32) -> (u32, u32) {
        let before = self.lines.partition_point(|start| *start <= offset);
        let start = before.checked_sub(1).map_or(0, |i| self.lines[i]);
        (to_u32(before) + 1, start)
    }
}

/// All source texts of one evaluator, in order of registration. The texts of files are not kept.
#[derive(Debug, Default)]
pub(crate) struct SourceTable {
    sources: Vec<Source>,
    next: u32,
}

impl SourceTable {
    /// Registers a text and returns the position of its first byte; `None` when 4 GiB of source are exceeded.
    pub(crate) fn add(&mut self, origin: Origin, text: &Rc<[u8]>) -> Option<Pos> {
        let base = self.next.max(1);
        let len = u32::try_from(text.len()).ok()?;
        self.next = base.checked_add(len)?.checked_add(1)?;
        let lines = line_starts(text);
        let text = (!matches!(origin, Origin::File(_))).then(|| Rc::clone(text));
        self.sources.push(Source {
            base,
            len,
            lines,
            text,
            origin,
        });
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

    /// Line and column, from 1.
    pub(crate) fn line_column(&self, pos: Pos) -> Option<(u32, u32)> {
        let source = self.source(pos)?;
        let offset = (pos.0 - source.base).min(source.len);
        let (line, start) = source.line_at(offset);
        Some((line, offset - start + 1))
    }

    /// `origin:line:column`, as messages name a place; `«none»` for nowhere.
    pub(crate) fn place(&self, pos: Pos) -> String {
        match (self.origin(pos), self.line_column(pos)) {
            (Some(origin), Some((line, column))) => format!("{}:{line}:{column}", origin.display()),
            _ => "«none»".to_owned(),
        }
    }

    /// Everything a message shows about a position; `read` gives the text of a file again.
    pub(crate) fn locate(&self, pos: Pos, read: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Option<Location> {
        let source = self.source(pos)?;
        let (line, column) = self.line_column(pos)?;
        let text = self.text(pos, read).map(|(_, text, _)| text).unwrap_or_default();
        let nth = |n: u32| {
            let index = to_usize(n.checked_sub(1)?);
            split_lines(&text)
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

    /// The text a position lies in and the position of its first byte, if it can be had and has the length it had.
    pub(crate) fn text(
        &self,
        pos: Pos,
        read: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
    ) -> Option<(Pos, Rc<[u8]>, Origin)> {
        let source = self.source(pos)?;
        let text = match (&source.text, &source.origin) {
            (Some(text), _) => Rc::clone(text),
            (None, Origin::File(path)) => read(path)?.into(),
            (None, _) => return None,
        };
        (to_u32(text.len()) == source.len).then(|| (Pos(source.base), text, source.origin.clone()))
    }
}

/// Offsets at which lines start, without the first; LF, CR LF and lone CR end a line.
fn line_starts(text: &[u8]) -> Box<[u32]> {
    let mut starts = Vec::new();
    for end in memchr::memchr2_iter(b'\n', b'\r', text) {
        let crlf = text[end] == b'\r' && text.get(end + 1) == Some(&b'\n');
        if !crlf {
            starts.push(to_u32(end) + 1);
        }
    }
    starts.into()
}

fn split_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let here = rest?;
        let Some(end) = here.iter().position(|b| *b == b'\n' || *b == b'\r') else {
            rest = None;
            return Some(here);
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
