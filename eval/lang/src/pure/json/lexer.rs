//! Cuts JSON text into tokens, and words its errors as nlohmann's lexer does.
//!
//! Invariants
//! - `position` counts the bytes consumed, and `at_end` says whether the end was looked at, which counts as one more
//!   column; line and column are worked out only for an error;
//! - `quote_from` is where the last string or number began: "last read" quotes from there, as nlohmann's buffer is
//!   only cleared at those.

use std::borrow::Cow;

use super::ParseJsonError;

#[derive(Debug, PartialEq)]
pub(super) enum Token<'t> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// An integer above `i64::MAX` that fits `u64`.
    TooLarge(u64),
    /// A number beyond a double.
    Overflow(&'t [u8]),
    String(Cow<'t, str>),
    BeginArray,
    EndArray,
    BeginObject,
    EndObject,
    Colon,
    Comma,
    End,
}

impl Token<'_> {
    /// What nlohmann calls it in an error.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Null => "null literal",
            Self::Bool(true) => "true literal",
            Self::Bool(false) => "false literal",
            Self::Int(_) | Self::Float(_) | Self::TooLarge(_) | Self::Overflow(_) => "number literal",
            Self::String(_) => "string literal",
            Self::BeginArray => "'['",
            Self::EndArray => "']'",
            Self::BeginObject => "'{'",
            Self::EndObject => "'}'",
            Self::Colon => "':'",
            Self::Comma => "','",
            Self::End => "end of input",
        }
    }
}

pub(super) struct Lexer<'t> {
    text: &'t [u8],
    position: usize,
    at_end: bool,
    quote_from: usize,
    /// The last token was a number and a line end follows: nlohmann, putting that back, loses count of the column.
    column_lost: bool,
}

/// What was wrong, in nlohmann's words.
type Wrong = Cow<'static, str>;

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        Self {
            text,
            position: 0,
            at_end: false,
            quote_from: 0,
            column_lost: false,
        }
    }

    pub(super) fn is_empty_input(&self) -> bool {
        self.text.is_empty()
    }

    /// The next token; `context` and `expected` word the error when there is none.
    pub(super) fn next(
        &mut self,
        context: &str,
        expected: Option<&str>,
    ) -> Result<Token<'t>, ParseJsonError> {
        self.scan().map_err(|wrong| {
            let quoted = quote(&self.text[self.quote_from..self.position]);
            let what = format!("syntax error while parsing {context} - {wrong}; last read: '");
            let mut message = self.parse_error(&what).into_bytes();
            message.extend_from_slice(&quoted);
            message.push(b'\'');
            if let Some(expected) = expected {
                message.extend_from_slice(format!("; expected {expected}").as_bytes());
            }
            ParseJsonError::Syntax { message }
        })
    }

    /// `what` with the exception's name and the place reached.
    pub(super) fn parse_error(&self, what: &str) -> String {
        let read = &self.text[..self.position];
        let lines = read.iter().filter(|&&byte| byte == b'\n').count();
        let line_start = read
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let column = if self.column_lost {
            0
        } else {
            self.position - line_start + usize::from(self.at_end)
        };
        format!(
            "[json.exception.parse_error.101] parse error at line {}, column {column}: {what}",
            lines + 1
        )
    }

    /// Consumes one byte; `None` at the end.
    fn take(&mut self) -> Option<u8> {
        match self.text.get(self.position) {
            Some(&byte) => {
                self.position += 1;
                Some(byte)
            }
            None => {
                self.at_end = true;
                None
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn scan(&mut self) -> Result<Token<'t>, Wrong> {
        self.column_lost = false;
        if self.position == 0 && self.peek() == Some(0xEF) {
            self.position += 1;
            if self.take() != Some(0xBB) || self.take() != Some(0xBF) {
                return Err("invalid BOM; must be 0xEF 0xBB 0xBF if given".into());
            }
        }
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.position += 1;
        }
        let start = self.position;
        match self.take() {
            None => Ok(Token::End),
            Some(b'[') => Ok(Token::BeginArray),
            Some(b']') => Ok(Token::EndArray),
            Some(b'{') => Ok(Token::BeginObject),
            Some(b'}') => Ok(Token::EndObject),
            Some(b':') => Ok(Token::Colon),
            Some(b',') => Ok(Token::Comma),
            Some(b't') => self.literal(b"rue", Token::Bool(true)),
            Some(b'f') => self.literal(b"alse", Token::Bool(false)),
            Some(b'n') => self.literal(b"ull", Token::Null),
            Some(b'"') => {
                self.quote_from = start;
                self.string().map(Token::String)
            }
            Some(first @ (b'-' | b'0'..=b'9')) => {
                self.quote_from = start;
                self.number(first)
            }
            Some(_) => Err("invalid literal".into()),
        }
    }

    fn literal(&mut self, rest: &[u8], token: Token<'t>) -> Result<Token<'t>, Wrong> {
        for &byte in rest {
            if self.take() != Some(byte) {
                return Err("invalid literal".into());
            }
        }
        Ok(token)
    }

    fn number(&mut self, first: u8) -> Result<Token<'t>, Wrong> {
        let start = self.position - 1;
        let mut whole = true;
        let mut leading = first;
        if first == b'-' {
            leading = self.digit("invalid number; expected digit after '-'")?;
        }
        if leading != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            whole = false;
            self.position += 1;
            self.digit("invalid number; expected digit after '.'")?;
            self.digits();
        }
        if let Some(b'e' | b'E') = self.peek() {
            whole = false;
            self.position += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.position += 1;
                self.digit("invalid number; expected digit after exponent sign")?;
            } else {
                self.digit("invalid number; expected '+', '-', or digit after exponent")?;
            }
            self.digits();
        }
        self.column_lost = self.peek() == Some(b'\n');
        Ok(number_token(&self.text[start..self.position], whole))
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.position += 1;
        }
    }

    fn digit(&mut self, wrong: &'static str) -> Result<u8, Wrong> {
        match self.take() {
            Some(digit @ b'0'..=b'9') => Ok(digit),
            _ => Err(wrong.into()),
        }
    }

    /// The inside of a string and its closing quote.
    fn string(&mut self) -> Result<Cow<'t, str>, Wrong> {
        let mut owned: Option<String> = None;
        loop {
            let run = self.plain();
            match self.take() {
                Some(b'"') => {
                    return Ok(match owned {
                        None => Cow::Borrowed(run),
                        Some(before) => Cow::Owned(before + run),
                    });
                }
                Some(b'\\') => {
                    let character = self.escape()?;
                    let text = owned.get_or_insert_default();
                    text.push_str(run);
                    text.push(character);
                }
                Some(control @ 0..0x20) => return Err(control_character(control)),
                // `plain` stops at other bytes only where a character is ill formed.
                Some(lead) => return Err(self.ill_formed(lead)),
                None => return Err("invalid string: missing closing quote".into()),
            }
        }
    }

    /// Takes bytes that stand for themselves, as far as they are well formed.
    fn plain(&mut self) -> &'t str {
        let rest = &self.text[self.position..];
        let special = rest
            .iter()
            .position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20);
        let run = &rest[..special.unwrap_or(rest.len())];
        let run = std::str::from_utf8(run)
            .or_else(|error| std::str::from_utf8(&run[..error.valid_up_to()]))
            .unwrap_or_default();
        self.position += run.len();
        run
    }

    /// Reads the continuation bytes of an ill-formed character up to the one that makes it so.
    fn ill_formed(&mut self, lead: u8) -> Wrong {
        const TAIL: (u8, u8) = (0x80, 0xBF);
        let tails: &[(u8, u8)] = match lead {
            0xC2..=0xDF => &[TAIL],
            0xE0 => &[(0xA0, 0xBF), TAIL],
            0xED => &[(0x80, 0x9F), TAIL],
            0xE1..=0xEF => &[TAIL, TAIL],
            0xF0 => &[(0x90, 0xBF), TAIL, TAIL],
            0xF1..=0xF3 => &[TAIL, TAIL, TAIL],
            0xF4 => &[(0x80, 0x8F), TAIL, TAIL],
            _ => &[],
        };
        for &(low, high) in tails {
            if !self.take().is_some_and(|byte| (low..=high).contains(&byte)) {
                break;
            }
        }
        ILL_FORMED.into()
    }

    fn escape(&mut self) -> Result<char, Wrong> {
        Ok(match self.take() {
            Some(quoted @ (b'"' | b'\\' | b'/')) => char::from(quoted),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err("invalid string: forbidden character after backslash".into()),
        })
    }

    fn unicode(&mut self) -> Result<char, Wrong> {
        const LONE_HIGH: &str = "invalid string: surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF";
        const LONE_LOW: &str = "invalid string: surrogate U+DC00..U+DFFF must follow U+D800..U+DBFF";
        let first = self.hex4()?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first).ok_or_else(|| LONE_LOW.into());
        }
        if self.take() != Some(b'\\') || self.take() != Some(b'u') {
            return Err(LONE_HIGH.into());
        }
        let second = self.hex4()?;
        if !(0xDC00..0xE000).contains(&second) {
            return Err(LONE_HIGH.into());
        }
        char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)).ok_or_else(|| LONE_HIGH.into())
    }

    fn hex4(&mut self) -> Result<u32, Wrong> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.take().and_then(|byte| char::from(byte).to_digit(16));
            value = value * 16 + digit.ok_or("invalid string: '\\u' must be followed by 4 hex digits")?;
        }
        Ok(value)
    }
}

const ILL_FORMED: &str = "invalid string: ill-formed UTF-8 byte";

fn number_token(text: &[u8], whole: bool) -> Token<'_> {
    let digits = String::from_utf8_lossy(text);
    if whole {
        if let Ok(value) = digits.parse::<i64>() {
            return Token::Int(value);
        }
        if let Ok(value) = digits.parse::<u64>() {
            return Token::TooLarge(value);
        }
    }
    match digits.parse::<f64>() {
        Ok(value) if value.is_finite() => Token::Float(value),
        _ => Token::Overflow(text),
    }
}

fn control_character(byte: u8) -> Wrong {
    const NAMES: [&str; 32] = [
        "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "HT", "LF", "VT", "FF", "CR", "SO",
        "SI", "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS",
        "RS", "US",
    ];
    let name = NAMES[usize::from(byte & 0x1F)];
    let short = match byte {
        0x08 => " or \\b",
        0x09 => " or \\t",
        0x0A => " or \\n",
        0x0C => " or \\f",
        0x0D => " or \\r",
        _ => "",
    };
    format!("invalid string: control character U+{byte:04X} ({name}) must be escaped to \\u{byte:04X}{short}")
        .into()
}

/// Bytes as an error quotes them: control characters by name.
fn quote(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if byte < 0x20 {
            out.extend_from_slice(format!("<U+{byte:04X}>").as_bytes());
        } else {
            out.push(byte);
        }
    }
    out
}
