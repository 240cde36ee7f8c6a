//! Lines, keys, headers and the nesting of values.

use std::collections::BTreeMap;

use super::scalar;
use super::tree::{Origin, Tree, Wrong};
use super::{ParseTomlError, Value, ValueId};

/// Reads a whole text into values, the first of which is the root table.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Value>, ParseTomlError> {
    let body = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let mut parser = Parser {
        cursor: Cursor {
            text: body,
            position: 0,
        },
        tree: Tree::new(),
    };
    match parser.document() {
        Ok(()) => Ok(parser.tree.values),
        Err(what) => {
            let read = &body[..parser.cursor.position.min(body.len())];
            let line = read.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let line_start = read
                .iter()
                .rposition(|&byte| byte == b'\n')
                .map_or(0, |at| at + 1);
            Err(ParseTomlError::Syntax {
                what,
                line,
                column: read.len() - line_start + 1,
            })
        }
    }
}

/// A place in the text.
pub(super) struct Cursor<'t> {
    pub(super) text: &'t [u8],
    pub(super) position: usize,
}

impl<'t> Cursor<'t> {
    pub(super) fn rest(&self) -> &'t [u8] {
        &self.text[self.position..]
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    pub(super) fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.position += 1;
        Some(byte)
    }

    /// Consumes `prefix` if it comes next.
    pub(super) fn eat(&mut self, prefix: &[u8]) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.position += prefix.len();
        }
        found
    }

    pub(super) fn eat_newline(&mut self) -> bool {
        self.eat(b"\n") || self.eat(b"\r\n")
    }

    /// Consumes bytes while they belong to `set`; says how many.
    pub(super) fn skip_while(&mut self, set: impl Fn(u8) -> bool) -> usize {
        let count = self.rest().iter().take_while(|&&byte| set(byte)).count();
        self.position += count;
        count
    }

    fn skip_blanks(&mut self) {
        self.skip_while(|byte| byte == b' ' || byte == b'\t');
    }

    /// A comment, if one starts here, up to its line end.
    fn skip_comment(&mut self) -> Result<(), Wrong> {
        if !self.eat(b"#") {
            return Ok(());
        }
        let len = self
            .rest()
            .iter()
            .position(|&byte| byte == b'\n')
            .unwrap_or(self.rest().len());
        let mut comment = &self.rest()[..len];
        if len < self.rest().len() {
            comment = comment.strip_suffix(b"\r").unwrap_or(comment);
        }
        let bad = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7F;
        if comment.iter().any(bad) || std::str::from_utf8(comment).is_err() {
            return Err("toml::parse_comment_line: newline (LF / CRLF) or EOF is expected");
        }
        self.position += comment.len();
        Ok(())
    }

    /// Blanks, comments and line ends, as between the elements of an array.
    fn skip_lines(&mut self) -> Result<(), Wrong> {
        loop {
            self.skip_blanks();
            self.skip_comment()?;
            if !self.eat_newline() {
                return Ok(());
            }
        }
    }
}

const AFTER_VALUE: Wrong = "toml::parse_table: newline (LF / CRLF) or EOF is expected";

/// A container in line that is being read.
enum Open {
    Array(ValueId),
    /// A table, and the key of the member whose value comes next.
    Table(ValueId, Vec<String>),
}

struct Parser<'t> {
    cursor: Cursor<'t>,
    tree: Tree,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<(), Wrong> {
        let mut table = ValueId(0);
        loop {
            self.cursor.skip_lines()?;
            let end_wrong = match self.cursor.peek() {
                None => return Ok(()),
                Some(b'[') => {
                    table = self.header()?;
                    "toml::parse_file: newline (or EOF) expected"
                }
                Some(_) => {
                    let key = self.assigned_key()?;
                    let value = self.value()?;
                    self.tree.insert(table, &key, value)?;
                    AFTER_VALUE
                }
            };
            self.cursor.skip_blanks();
            self.cursor.skip_comment()?;
            // toml11 lets a header follow on the line of a value, though not on that of a header.
            let header_follows = end_wrong == AFTER_VALUE && self.cursor.peek() == Some(b'[');
            if self.cursor.peek().is_some() && !self.cursor.eat_newline() && !header_follows {
                return Err(end_wrong);
            }
        }
    }

    fn header(&mut self) -> Result<ValueId, Wrong> {
        let of_array = self.cursor.eat(b"[[");
        if !of_array {
            self.cursor.eat(b"[");
        }
        let (close, wrong): (&[u8], _) = if of_array {
            (b"]]", "toml::parse_file: invalid array-table key")
        } else {
            (b"]", "toml::parse_file: invalid table key")
        };
        let path = self.key().map_err(|_| wrong)?;
        if !self.cursor.eat(close) {
            return Err(wrong);
        }
        if of_array {
            self.tree.array_header(&path)
        } else {
            self.tree.header(&path)
        }
    }

    /// A key, the blanks around it, and the parts of a dotted one.
    fn key(&mut self) -> Result<Vec<String>, Wrong> {
        let mut parts = Vec::new();
        loop {
            self.cursor.skip_blanks();
            parts.push(self.simple_key()?);
            self.cursor.skip_blanks();
            if !self.cursor.eat(b".") {
                return Ok(parts);
            }
        }
    }

    fn simple_key(&mut self) -> Result<String, Wrong> {
        match self.cursor.peek() {
            Some(b'"') => scalar::basic_string(&mut self.cursor),
            Some(b'\'') => scalar::literal_string(&mut self.cursor),
            _ => {
                let rest = self.cursor.rest();
                let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                match self.cursor.skip_while(bare) {
                    0 => Err(
                        "toml::parse_simple_key: invalid key: key must be \"quoted\", 'quoted-literal', or bare key.",
                    ),
                    len => Ok(String::from_utf8_lossy(&rest[..len]).into_owned()),
                }
            }
        }
    }

    fn assigned_key(&mut self) -> Result<Vec<String>, Wrong> {
        let key = self.key()?;
        if !self.cursor.eat(b"=") {
            return Err("toml::parse_key_value_pair: invalid key value separator `=`");
        }
        self.cursor.skip_blanks();
        Ok(key)
    }

    /// One value, with everything in it.
    fn value(&mut self) -> Result<ValueId, Wrong> {
        let mut open = Vec::new();
        let mut done = self.begin(&mut open)?;
        loop {
            done = match (done, open.last()) {
                (None, _) => self.begin(&mut open)?,
                (Some(value), None) => return Ok(value),
                (Some(value), Some(Open::Array(array))) => {
                    let array = *array;
                    self.tree.push(array, value);
                    self.after_element(array, &mut open)?
                }
                (Some(value), Some(Open::Table(table, key))) => {
                    let table = *table;
                    self.tree.insert(table, key, value)?;
                    self.after_member(table, &mut open)?
                }
            };
        }
    }

    /// Starts a value: `None` when it is a container that has something in it.
    fn begin(&mut self, open: &mut Vec<Open>) -> Result<Option<ValueId>, Wrong> {
        if self.cursor.eat(b"[") {
            let array = self.tree.add(Value::Array(Vec::new()), Origin::Fixed);
            self.cursor.skip_lines()?;
            if self.cursor.eat(b"]") {
                return Ok(Some(array));
            }
            open.push(Open::Array(array));
            if self.cursor.peek().is_none() {
                return Err("toml::parse_array: missing closing bracket `]`");
            }
            return Ok(None);
        }
        if self.cursor.eat(b"{") {
            // Dotted keys may add to it until it is closed.
            let table = self.tree.add(Value::Table(BTreeMap::new()), Origin::Dotted);
            self.cursor.skip_blanks();
            if self.cursor.eat(b"}") {
                self.tree.fix(table);
                return Ok(Some(table));
            }
            let key = self.assigned_key()?;
            open.push(Open::Table(table, key));
            return Ok(None);
        }
        let value = scalar::scalar(&mut self.cursor)?;
        Ok(Some(self.tree.add(value, Origin::Fixed)))
    }

    /// What follows an element: the array's number when it ends there.
    fn after_element(&mut self, array: ValueId, open: &mut Vec<Open>) -> Result<Option<ValueId>, Wrong> {
        self.cursor.skip_lines()?;
        let comma = self.cursor.eat(b",");
        if comma {
            self.cursor.skip_lines()?;
        }
        if self.cursor.eat(b"]") {
            open.pop();
            return Ok(Some(array));
        }
        match (comma, self.cursor.peek()) {
            (_, None) => Err("toml::parse_array: missing closing bracket `]`"),
            (true, _) => Ok(None),
            (false, _) => Err("toml::parse_array: expected value-separator `,` or closing `]`"),
        }
    }

    /// What follows a member: the table's number when it ends there.
    fn after_member(&mut self, table: ValueId, open: &mut Vec<Open>) -> Result<Option<ValueId>, Wrong> {
        self.cursor.skip_blanks();
        if self.cursor.eat(b"}") {
            open.pop();
            self.tree.fix(table);
            return Ok(Some(table));
        }
        if !self.cursor.eat(b",") {
            return Err("toml::parse_inline_table: expected value-separator `,` or closing `}`");
        }
        self.cursor.skip_blanks();
        if self.cursor.peek() == Some(b'}') {
            return Err("toml::parse_inline_table: trailing comma is not allowed in TOML-v1.0.0)");
        }
        let next = self.assigned_key()?;
        if let Some(Open::Table(_, key)) = open.last_mut() {
            *key = next;
        }
        Ok(None)
    }
}
