//! Lexer: bytes to tokens, one at a time.
//!
//! Invariants
//! - reading is driven by the parser: string and path contents are read by [`super::strings`], so the lexer has no modes;
//! - at each position the longest token wins, as in Nix's flex rules (`src/libexpr/lexer.l`), of which `PATH`, `URI` and
//!   `FLOAT` reach across what look like operators.

use std::cell::Cell;

use super::token::{Tok, Token};
use crate::num::{to_u32, to_usize};

const ID_START: u8 = 1;
const ID_CHAR: u8 = 2;
const PATH_CHAR: u8 = 4;
const URI_CHAR: u8 = 8;
const SCHEME_CHAR: u8 = 16;
const SPACE: u8 = 32;

const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "i is below 256")]
        let b = i as u8;
        let mut class = 0;
        if b.is_ascii_alphabetic() || b == b'_' {
            class |= ID_START | ID_CHAR;
        }
        if b.is_ascii_digit() || b == b'\'' || b == b'-' {
            class |= ID_CHAR;
        }
        if b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+') {
            class |= PATH_CHAR;
        }
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'%' | b'/'
                    | b'?'
                    | b':'
                    | b'@'
                    | b'&'
                    | b'='
                    | b'+'
                    | b'$'
                    | b','
                    | b'-'
                    | b'_'
                    | b'.'
                    | b'!'
            )
            || matches!(b, b'~' | b'*' | b'\'')
        {
            class |= URI_CHAR;
        }
        if b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.') {
            class |= SCHEME_CHAR;
        }
        if matches!(b, b' ' | b'\t' | b'\r' | b'\n') {
            class |= SPACE;
        }
        table[i] = class;
        i += 1;
    }
    table
};

/// Whether a byte may stand in a path literal.
pub(super) fn is_path_char(b: u8) -> bool {
    CLASS[usize::from(b)] & PATH_CHAR != 0
}

/// The text of one file.
#[derive(Debug)]
pub(crate) struct Lexer<'t> {
    pub(crate) text: &'t [u8],
    /// The runs of path and of scheme characters found last: without them, `1+1+1…` would be read once per token.
    path_run: Cell<Run>,
    scheme_run: Cell<Run>,
}

/// Start and end of a run.
type Run = (usize, usize);

impl<'t> Lexer<'t> {
    /// A lexer at the start of a text.
    pub(crate) const fn new(text: &'t [u8]) -> Self {
        Self {
            text,
            path_run: Cell::new((0, 0)),
            scheme_run: Cell::new((0, 0)),
        }
    }

    /// The byte at `i`, 0 past the end (a NUL byte is no token, so the two are told apart by length).
    #[inline]
    pub(super) fn at(&self, i: usize) -> u8 {
        self.text.get(i).copied().unwrap_or(0)
    }

    #[inline]
    fn run(&self, from: usize, class: u8) -> usize {
        let mut i = from;
        while CLASS[usize::from(self.at(i))] & class != 0 {
            i += 1;
        }
        i
    }

    /// As `run`, for one class always; remembers the run it found.
    fn run_once(&self, i: usize, class: u8, memory: &Cell<Run>) -> usize {
        let (start, end) = memory.get();
        if start <= i && i < end {
            return end;
        }
        let end = self.run(i, class);
        memory.set((i, end));
        end
    }

    /// The first offset at or after `i` that is neither white space nor comment.
    pub(super) fn skip_space(&self, mut i: usize) -> usize {
        loop {
            i = self.run(i, SPACE);
            match self.at(i) {
                b'#' => {
                    let rest = &self.text[i..];
                    i += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                }
                b'/' if self.at(i + 1) == b'*' => {
                    let Some(end) = memchr::memmem::find(&self.text[i + 2..], b"*/") else {
                        return i;
                    };
                    i += end + 4;
                }
                _ => return i,
            }
        }
    }

    /// The token that starts at or after `from`.
    pub(crate) fn next(&self, from: u32) -> Token {
        let start = self.skip_space(to_usize(from));
        let (tok, end) = self.scan(start);
        Token {
            tok,
            start: to_u32(start),
            end: to_u32(end),
        }
    }

    fn scan(&self, i: usize) -> (Tok, usize) {
        if i >= self.text.len() {
            return (Tok::End, self.text.len());
        }
        let b = self.at(i);
        let class = CLASS[usize::from(b)];
        if class & ID_START != 0 {
            return self.scan_word(i);
        }
        if class & PATH_CHAR != 0 || b == b'/' {
            if let Some(end) = self.path_end(i) {
                return (Tok::Path, end);
            }
            if b.is_ascii_digit() || b == b'.' {
                if let Some(end) = self.float_end(i) {
                    return (Tok::Float, end);
                }
                if b != b'.' {
                    let mut end = i;
                    while self.at(end).is_ascii_digit() {
                        end += 1;
                    }
                    return (Tok::Int, end);
                }
            }
        }
        self.scan_operator(i, b)
    }

    fn scan_word(&self, i: usize) -> (Tok, usize) {
        let end = self.run(i, ID_CHAR);
        match self.at(end) {
            b'.' | b'+' | b'/' => {
                if let Some(path) = self.path_end(i) {
                    return (Tok::Path, path);
                }
                if let Some(uri) = self.uri_end(i) {
                    return (Tok::Uri, uri);
                }
            }
            b':' => {
                if let Some(uri) = self.uri_end(i) {
                    return (Tok::Uri, uri);
                }
            }
            _ => {}
        }
        (keyword(&self.text[i..end]), end)
    }

    /// End of a `PATH`, or of the `PATH_SEG` that an interpolation follows.
    fn path_end(&self, i: usize) -> Option<usize> {
        let mut end = self.run_once(i, PATH_CHAR, &self.path_run);
        if self.at(end) != b'/' {
            return None;
        }
        if CLASS[usize::from(self.at(end + 1))] & PATH_CHAR == 0 {
            let interpolated = self.at(end + 1) == b'$' && self.at(end + 2) == b'{';
            return interpolated.then_some(end + 1);
        }
        while self.at(end) == b'/' {
            let next = self.run(end + 1, PATH_CHAR);
            end += 1;
            if next == end {
                break;
            }
            end = next;
        }
        Some(end)
    }

    fn uri_end(&self, i: usize) -> Option<usize> {
        if !self.at(i).is_ascii_alphabetic() {
            return None;
        }
        let colon = self.run_once(i, SCHEME_CHAR, &self.scheme_run);
        if self.at(colon) != b':' {
            return None;
        }
        let end = self.run(colon + 1, URI_CHAR);
        (end > colon + 1).then_some(end)
    }

    fn float_end(&self, i: usize) -> Option<usize> {
        let digits = |mut k: usize| {
            while self.at(k).is_ascii_digit() {
                k += 1;
            }
            k
        };
        let dot = digits(i);
        if self.at(dot) != b'.' {
            return None;
        }
        let leading = &self.text[i..dot];
        let end = digits(dot + 1);
        let ok = match leading {
            [] | [b'0'] => end > dot + 1,
            [first, ..] => *first != b'0',
        };
        if !ok {
            return None;
        }
        if !matches!(self.at(end), b'e' | b'E') {
            return Some(end);
        }
        let exponent = if matches!(self.at(end + 1), b'+' | b'-') {
            end + 2
        } else {
            end + 1
        };
        let exponent_end = digits(exponent);
        Some(if exponent_end > exponent {
            exponent_end
        } else {
            end
        })
    }

    fn scan_operator(&self, i: usize, b: u8) -> (Tok, usize) {
        let two = match (b, self.at(i + 1)) {
            (b'.', b'.') if self.at(i + 2) == b'.' => return (Tok::Ellipsis, i + 3),
            (b'=', b'=') => Tok::Eq,
            (b'!', b'=') => Tok::Neq,
            (b'<', b'=') => Tok::Leq,
            (b'>', b'=') => Tok::Geq,
            (b'&', b'&') => Tok::AndAnd,
            (b'|', b'|') => Tok::OrOr,
            (b'-', b'>') => Tok::Impl,
            (b'/', b'/') => Tok::Update,
            (b'+', b'+') => Tok::Concat,
            (b'<', b'|') => Tok::PipeFrom,
            (b'|', b'>') => Tok::PipeInto,
            (b'$', b'{') => Tok::DollarCurly,
            (b'\'', b'\'') => Tok::IndOpen,
            (b'"', _) => return (Tok::Quote, i + 1),
            (b'<', _) => {
                return self
                    .search_path_end(i)
                    .map_or((Tok::Byte(b), i + 1), |e| (Tok::SearchPath, e));
            }
            (b'~', b'/') => {
                return self
                    .home_path_end(i)
                    .map_or((Tok::Invalid, i + 1), |e| (Tok::HomePath, e));
            }
            _ if b.is_ascii_punctuation() => return (Tok::Byte(b), i + 1),
            _ => return (Tok::Invalid, i + 1),
        };
        (two, i + 2)
    }

    fn search_path_end(&self, i: usize) -> Option<usize> {
        let mut end = i;
        loop {
            let next = self.run(end + 1, PATH_CHAR);
            if next == end + 1 {
                return None;
            }
            end = next;
            match self.at(end) {
                b'/' => {}
                b'>' => return Some(end + 1),
                _ => return None,
            }
        }
    }

    fn home_path_end(&self, i: usize) -> Option<usize> {
        if CLASS[usize::from(self.at(i + 2))] & PATH_CHAR != 0 {
            return self.path_end(i + 1);
        }
        (self.at(i + 2) == b'$' && self.at(i + 3) == b'{').then_some(i + 2)
    }

    /// The bytes of a token.
    #[inline]
    pub(crate) fn slice(&self, token: Token) -> &'t [u8] {
        &self.text[to_usize(token.start)..to_usize(token.end)]
    }

    /// Whether a function with formals starts at the `{` at `brace`: Nix's grammar decides this by LALR(1) look-ahead,
    /// for which `{ }`, `{ ...` and an identifier followed by `,`, `?` or `}` are the only ways in.
    pub(super) fn starts_formals(&self, brace: usize) -> bool {
        let i = self.skip_space(brace + 1);
        match self.at(i) {
            b'}' => {
                let after = self.skip_space(i + 1);
                matches!(self.at(after), b':' | b'@')
            }
            b'.' => self.at(i + 1) == b'.' && self.at(i + 2) == b'.',
            b if CLASS[usize::from(b)] & ID_START != 0 => {
                let (tok, end) = self.scan(i);
                tok == Tok::Id && matches!(self.at(self.skip_space(end)), b',' | b'?' | b'}')
            }
            _ => false,
        }
    }
}

fn keyword(word: &[u8]) -> Tok {
    match word {
        b"if" => Tok::If,
        b"then" => Tok::Then,
        b"else" => Tok::Else,
        b"assert" => Tok::Assert,
        b"with" => Tok::With,
        b"let" => Tok::Let,
        b"in" => Tok::In,
        b"rec" => Tok::Rec,
        b"inherit" => Tok::Inherit,
        b"or" => Tok::Or,
        _ => Tok::Id,
    }
}
