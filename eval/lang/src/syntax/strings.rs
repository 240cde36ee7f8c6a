//! Strings, indented strings and path literals: the tokens whose content is read byte by byte.
//!
//! The parser stands on the opening token; after reading, it stands on the token after the closing one. Between `${` and
//! its `}` the parser reads an expression as anywhere else, then content goes on at the byte after the `}`.

use std::borrow::Cow;

use super::ast::{Expr, ExprId};
use super::lexer::is_path_char;
use super::parser::{P, Parser, SyntaxError};
use super::token::{Tok, Token};
use crate::num::{to_u32, to_usize};

/// A piece of an indented string: text, whether its white space counts as indentation, or an expression.
enum Piece<'t> {
    Text { bytes: Cow<'t, [u8]>, indented: bool },
    Expr(ExprId),
}

/// Indentation "larger than any": no line said otherwise (Nix's constant).
const NO_INDENT: usize = 1_000_000;

impl Parser<'_, '_> {
    /// Reads an interpolation that starts at `start` (the `$`); returns the expression and the offset after its `}`.
    fn interpolation(&mut self, start: usize) -> P<(ExprId, usize)> {
        self.tok = self.lexer.next(to_u32(start + 2));
        let expr = self.expr()?;
        if self.tok.tok != Tok::Byte(b'}') {
            return Err(self.unexpected(&[Tok::Byte(b'}')]));
        }
        Ok((expr, to_usize(self.tok.end)))
    }

    fn end_inside(&mut self, expected: &str) -> SyntaxError {
        let end = to_u32(self.lexer.text.len());
        self.tok = Token {
            tok: Tok::End,
            start: end,
            end,
        };
        SyntaxError {
            message: format!("syntax error, unexpected end of file, expecting {expected}"),
            at: end + 1,
        }
    }

    fn resume(&mut self, at: usize) {
        self.tok = self.lexer.next(to_u32(at));
    }

    fn no_nul(&self, bytes: &[u8], at: usize) -> P<()> {
        if !bytes.contains(&0) {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(bytes).replace('\0', "␀");
        let text = format!(
            "input string '{shown}' cannot be represented as Nix string because it contains null bytes"
        );
        self.error(text, to_u32(at) + 1)
    }

    fn add_text(&mut self, bytes: &[u8]) -> ExprId {
        let string = self.ast.add_string(bytes);
        self.ast.add(Expr::Str(string), 0)
    }

    /// `"…"`.
    pub(super) fn string(&mut self) -> P<ExprId> {
        let at = self.at();
        let mut i = to_usize(self.tok.end);
        let mark = self.exprs.len();
        let mut interpolated = false;
        loop {
            let start = i;
            i = self.string_run(i);
            if i > start {
                let text = unescape(&self.lexer.text[start..i]);
                self.no_nul(&text, start)?;
                let part = self.add_text(&text);
                self.exprs.push(part);
            }
            match (self.lexer.at(i), self.lexer.at(i + 1)) {
                (b'"', _) => break,
                (b'$', b'{') => {
                    let (expr, next) = self.interpolation(i)?;
                    self.exprs.push(expr);
                    interpolated = true;
                    i = next;
                }
                _ => return Err(self.end_inside("'\"'")),
            }
        }
        self.resume(i + 1);
        match self.exprs[mark..] {
            [] => Ok(self.add_text(b"")),
            [only] if !interpolated => {
                self.exprs.truncate(mark);
                Ok(only)
            }
            _ => {
                let list = self.take_list(mark);
                Ok(self.ast.add(Expr::Interp(true, list), at))
            }
        }
    }

    /// End of the text run of a string that starts at `i`: before `"`, `${` or the end of file.
    fn string_run(&self, mut i: usize) -> usize {
        let text = self.lexer.text;
        while let Some(found) = memchr::memchr3(b'"', b'$', b'\\', text.get(i..).unwrap_or(&[])) {
            let here = i + found;
            match (text[here], text.get(here + 1)) {
                (b'"', _) | (b'$', Some(b'{')) | (_, None) => return here,
                (b'$', Some(b'"' | b'\\')) => i = here + 1,
                _ => i = here + 2,
            }
        }
        text.len()
    }

    /// `''…''`.
    pub(super) fn indented_string(&mut self) -> P<ExprId> {
        let at = self.at();
        let mut i = to_usize(self.tok.end);
        let mut blank = i;
        while self.lexer.at(blank) == b' ' {
            blank += 1;
        }
        if self.lexer.at(blank) == b'\n' {
            i = blank + 1;
        }
        let mut pieces = Vec::new();
        loop {
            if i >= self.lexer.text.len() {
                return Err(self.end_inside("indented string or '${' or end of an indented string"));
            }
            let rest = &self.lexer.text[i..];
            let fixed: (&[u8], usize) = match rest {
                [b'$', b'{', ..] => {
                    let (expr, next) = self.interpolation(i)?;
                    pieces.push(Piece::Expr(expr));
                    i = next;
                    continue;
                }
                [b'\'', b'\'', b'$', ..] => (b"$", 3),
                [b'\'', b'\'', b'\'', ..] => (b"''", 3),
                [b'\'', b'\'', b'\\', _, ..] => {
                    pieces.push(Piece::Text {
                        bytes: unescape(&rest[2..4]),
                        indented: false,
                    });
                    i += 4;
                    continue;
                }
                [b'\'', b'\'', ..] => break,
                _ => match indented_run(rest) {
                    0 => (&rest[..1], 1),
                    n => {
                        self.no_nul(&rest[..n], i)?;
                        pieces.push(Piece::Text {
                            bytes: Cow::Borrowed(&rest[..n]),
                            indented: true,
                        });
                        i += n;
                        continue;
                    }
                },
            };
            pieces.push(Piece::Text {
                bytes: Cow::Borrowed(fixed.0),
                indented: false,
            });
            i += fixed.1;
        }
        self.resume(i + 2);
        Ok(self.strip_indentation(at, pieces))
    }

    fn strip_indentation(&mut self, at: u32, pieces: Vec<Piece<'_>>) -> ExprId {
        let least = least_indent(&pieces);
        let count = pieces.len();
        let mut stripper = Stripper {
            at_start: true,
            dropped: 0,
            least,
        };
        let mark = self.exprs.len();
        for (n, piece) in pieces.into_iter().enumerate() {
            match piece {
                Piece::Expr(expr) => {
                    stripper.at_start = false;
                    stripper.dropped = 0;
                    self.exprs.push(expr);
                }
                Piece::Text { bytes, .. } => {
                    let start = self.ast.bytes.len();
                    stripper.strip(&bytes, &mut self.ast.bytes);
                    if n + 1 == count {
                        drop_blank_last_line(&mut self.ast.bytes, start);
                    }
                    if self.ast.bytes.len() > start {
                        let string = self.ast.end_string(start);
                        let part = self.ast.add(Expr::Str(string), 0);
                        self.exprs.push(part);
                    }
                }
            }
        }
        match self.exprs[mark..] {
            [] => self.add_text(b""),
            [only] if matches!(self.ast.get(only), Expr::Str(_)) => {
                self.exprs.truncate(mark);
                only
            }
            _ => {
                let list = self.take_list(mark);
                self.ast.add(Expr::Interp(true, list), at)
            }
        }
    }

    /// A path literal, with interpolations.
    pub(super) fn path(&mut self) -> P<ExprId> {
        let at = self.at();
        let literal = self.lexer.slice(self.tok);
        self.lint_path(literal, at)?;
        let home = self.tok.tok == Tok::HomePath;
        let mut i = to_usize(self.tok.end);
        let mut slash = literal.ends_with(b"/");
        let string = self.ast.add_string(if home { &literal[1..] } else { literal });
        let start = self.ast.add(
            if home {
                Expr::HomePath(string)
            } else {
                Expr::Path(string)
            },
            0,
        );
        let mark = self.exprs.len();
        self.exprs.push(start);
        loop {
            if self.lexer.at(i) == b'$' && self.lexer.at(i + 1) == b'{' {
                let (expr, next) = self.interpolation(i)?;
                self.exprs.push(expr);
                i = next;
                slash = false;
                continue;
            }
            let end = self.path_run(i);
            if end == i {
                break;
            }
            slash = self.lexer.at(end - 1) == b'/';
            let text = &self.lexer.text[i..end];
            let part = self.add_text(text);
            self.exprs.push(part);
            i = end;
        }
        if slash {
            return self.error("path has a trailing slash", to_u32(i) + 1);
        }
        self.resume(i);
        if self.exprs.len() == mark + 1 {
            self.exprs.truncate(mark);
            return Ok(start);
        }
        let list = self.take_list(mark);
        Ok(self.ast.add(Expr::Interp(false, list), at))
    }

    /// End of the text that continues a path literal at `i` (flex: `PATH`, `PATH_SEG` or `PATH_CHAR+`).
    fn path_run(&self, mut i: usize) -> usize {
        loop {
            let start = i;
            while is_path_char(self.lexer.at(i)) {
                i += 1;
            }
            if self.lexer.at(i) != b'/' {
                return i;
            }
            i += 1;
            if i == start + 1 && !is_path_char(self.lexer.at(i)) {
                return i;
            }
        }
    }
}

/// Replaces escapes and normalises line ends to LF.
fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\\', b'\r', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        match b {
            b'\\' => match bytes.next() {
                Some(b'n') => out.push(b'\n'),
                Some(b'r') => out.push(b'\r'),
                Some(b't') => out.push(b'\t'),
                Some(other) => out.push(other),
                None => {}
            },
            b'\r' => {
                out.push(b'\n');
                bytes.next_if_eq(&b'\n');
            }
            _ => out.push(b),
        }
    }
    Cow::Owned(out)
}

/// Length of flex's `IND_STR` run at the start of `rest`; 0 when it starts with a lone `$` or `'`.
fn indented_run(rest: &[u8]) -> usize {
    let mut i = 0;
    while let Some(found) = memchr::memchr2(b'$', b'\'', &rest[i..]) {
        let here = i + found;
        match (rest[here], rest.get(here + 1)) {
            (b'$', Some(b'{' | b'\'')) | (b'\'', Some(b'\'' | b'$')) | (_, None) => return here,
            _ => i = here + 2,
        }
    }
    rest.len()
}

/// The least indentation of a line that is not blank; escapes and interpolations end a line's white space.
fn least_indent(pieces: &[Piece<'_>]) -> usize {
    let (mut at_start, mut least, mut here) = (true, NO_INDENT, 0usize);
    for piece in pieces {
        let Piece::Text {
            bytes,
            indented: true,
        } = piece
        else {
            if at_start {
                at_start = false;
                least = least.min(here);
            }
            continue;
        };
        for b in bytes.iter() {
            match b {
                b'\n' => {
                    at_start = true;
                    here = 0;
                }
                b' ' if at_start => here += 1,
                _ if at_start => {
                    at_start = false;
                    least = least.min(here);
                }
                _ => {}
            }
        }
    }
    least
}

struct Stripper {
    at_start: bool,
    dropped: usize,
    least: usize,
}

impl Stripper {
    /// Appends the text without the indentation of its lines.
    fn strip(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if !self.at_start {
                let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |i| i + 1);
                self.at_start = rest[end - 1] == b'\n';
                out.extend_from_slice(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            match first {
                b' ' => {
                    if self.dropped >= self.least {
                        out.push(b' ');
                    }
                    self.dropped += 1;
                }
                _ => {
                    self.at_start = *first == b'\n';
                    self.dropped = 0;
                    out.push(*first);
                }
            }
            rest = &rest[1..];
        }
    }
}

/// Removes what follows the last line feed of a text that starts at `start` of the pool, if it is only spaces.
fn drop_blank_last_line(pool: &mut Vec<u8>, start: usize) {
    if let Some(last) = memchr::memrchr(b'\n', &pool[start..])
        && pool[start + last + 1..].iter().all(|b| *b == b' ')
    {
        pool.truncate(start + last + 1);
    }
}
