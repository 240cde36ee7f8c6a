//! JSON as `builtins.fromJSON` reads it and `builtins.toJSON` writes it.
//!
//! Nix uses nlohmann's library; its grammar, number rules, and error texts, positions included, are what is followed.
//! Reading is a pull parser of [`Event`]s, so that the caller builds its own values: an object's keys come in the
//! order written, duplicates included (the last one wins in Nix).
//!
//! Invariants
//! - no recursion: depth costs one bit, and is unbounded unless the caller asks for a limit;
//! - events borrow from the input unless a string had escapes; the input is read once, front to back;
//! - a string handed out is well-formed UTF-8 without NUL, a number is an `i64` or a finite `f64`.
//!
//! Source: RFC 8259; nlohmann/json 3.12 (wording, counting of lines and columns); Nix 2.34 `json-to-value.cc`.

mod lexer;
mod write;

use std::borrow::Cow;

use igloo_status::Code;

use lexer::{Lexer, Token};

pub use write::{WriteStringError, write_string};

/// One step of a JSON text.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'t> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without point or exponent that fits.
    Int(i64),
    /// Any other number; also an integer beyond 64 bits.
    Float(f64),
    /// A string, its escapes resolved.
    String(Cow<'t, str>),
    /// `[`.
    BeginArray,
    /// `]`.
    EndArray,
    /// `{`.
    BeginObject,
    /// The name of the member whose value comes next.
    Key(Cow<'t, str>),
    /// `}`.
    EndObject,
}

/// Reads the events of one JSON text; an iterator that ends after the text or its first error.
pub struct Parser<'t> {
    lexer: Lexer<'t>,
    state: State,
    /// For each open container, whether it is an object.
    open: Vec<bool>,
    depth_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    FirstElement,
    AfterValue,
    FirstKey,
    Done,
}

impl<'t> Parser<'t> {
    /// A parser of `text`, of any depth, as in Nix. Costs nothing until asked for events.
    pub fn new(text: &'t [u8]) -> Self {
        Self {
            lexer: Lexer::new(text),
            state: State::Value,
            open: Vec::new(),
            depth_max: usize::MAX,
        }
    }

    /// The same with at most `depth_max` containers open at once.
    #[must_use]
    pub fn with_depth_max(mut self, depth_max: usize) -> Self {
        self.depth_max = depth_max;
        self
    }

    fn step(&mut self) -> Result<Option<Event<'t>>, ParseJsonError> {
        match self.state {
            State::Done => Ok(None),
            State::Value => {
                let token = self.lexer.next("value", None)?;
                self.value(token).map(Some)
            }
            State::FirstElement => match self.lexer.next("value", None)? {
                Token::EndArray => Ok(Some(self.close())),
                token => self.value(token).map(Some),
            },
            State::FirstKey => match self.lexer.next("object key", Some("string literal"))? {
                Token::EndObject => Ok(Some(self.close())),
                token => self.key(token).map(Some),
            },
            State::AfterValue => self.after_value(),
        }
    }

    fn value(&mut self, token: Token<'t>) -> Result<Event<'t>, ParseJsonError> {
        self.state = State::AfterValue;
        Ok(match token {
            Token::Null => Event::Null,
            Token::Bool(value) => Event::Bool(value),
            Token::Int(value) => Event::Int(value),
            Token::Float(value) => Event::Float(value),
            Token::TooLarge(value) => return Err(ParseJsonError::IntegerRange { value }),
            Token::Overflow(text) => {
                let text = String::from_utf8_lossy(text);
                return Err(self.error(format!(
                    "[json.exception.out_of_range.406] number overflow parsing '{text}'"
                )));
            }
            Token::String(text) => Event::String(without_nul(text)?),
            Token::BeginArray => {
                self.open(false)?;
                self.state = State::FirstElement;
                Event::BeginArray
            }
            Token::BeginObject => {
                self.open(true)?;
                self.state = State::FirstKey;
                Event::BeginObject
            }
            Token::End if self.lexer.is_empty_input() => {
                let what = "attempting to parse an empty input; check that your input string or stream contains the expected JSON";
                return Err(self.error(self.lexer.parse_error(what)));
            }
            other => return Err(self.unexpected(&other, "value", "'[', '{', or a literal")),
        })
    }

    fn key(&mut self, token: Token<'t>) -> Result<Event<'t>, ParseJsonError> {
        let Token::String(name) = token else {
            return Err(self.unexpected(&token, "object key", "string literal"));
        };
        let name = without_nul(name)?;
        match self.lexer.next("object separator", Some("':'"))? {
            Token::Colon => {
                self.state = State::Value;
                Ok(Event::Key(name))
            }
            other => Err(self.unexpected(&other, "object separator", "':'")),
        }
    }

    fn after_value(&mut self) -> Result<Option<Event<'t>>, ParseJsonError> {
        match self.open.last() {
            None => match self.lexer.next("value", Some("end of input"))? {
                Token::End => {
                    self.state = State::Done;
                    Ok(None)
                }
                other => Err(self.unexpected(&other, "value", "end of input")),
            },
            Some(false) => match self.lexer.next("array", Some("']'"))? {
                Token::EndArray => Ok(Some(self.close())),
                Token::Comma => {
                    self.state = State::Value;
                    self.step()
                }
                other => Err(self.unexpected(&other, "array", "']'")),
            },
            Some(true) => match self.lexer.next("object", Some("'}'"))? {
                Token::EndObject => Ok(Some(self.close())),
                Token::Comma => {
                    let token = self.lexer.next("object key", Some("string literal"))?;
                    self.key(token).map(Some)
                }
                other => Err(self.unexpected(&other, "object", "'}'")),
            },
        }
    }

    fn open(&mut self, object: bool) -> Result<(), ParseJsonError> {
        if self.open.len() >= self.depth_max {
            return Err(ParseJsonError::TooDeep {
                depth_max: self.depth_max,
            });
        }
        self.open.push(object);
        Ok(())
    }

    fn close(&mut self) -> Event<'t> {
        self.state = State::AfterValue;
        if self.open.pop() == Some(true) {
            Event::EndObject
        } else {
            Event::EndArray
        }
    }

    fn unexpected(&self, token: &Token<'_>, context: &str, expected: &str) -> ParseJsonError {
        let what = format!(
            "syntax error while parsing {context} - unexpected {}; expected {expected}",
            token.name()
        );
        self.error(self.lexer.parse_error(&what))
    }

    fn error(&self, message: String) -> ParseJsonError {
        ParseJsonError::Syntax {
            message: message.into_bytes(),
        }
    }
}

impl<'t> Iterator for Parser<'t> {
    type Item = Result<Event<'t>, ParseJsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.state = State::Done;
        }
        step.transpose()
    }
}

fn without_nul(text: Cow<'_, str>) -> Result<Cow<'_, str>, ParseJsonError> {
    if text.contains('\0') {
        return Err(ParseJsonError::NulByte {
            text: text.replace('\0', "␀"),
        });
    }
    Ok(text)
}

/// Why a text is not JSON that Nix takes. The messages are Nix's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseJsonError {
    /// Not JSON, or a number beyond a double; nlohmann's message. It quotes the input, so it may not be UTF-8.
    #[error("{}", String::from_utf8_lossy(message))]
    Syntax {
        /// The message, byte for byte.
        message: Vec<u8>,
    },
    /// A positive integer that fits 64 bits, but not with a sign.
    #[error("unsigned json number {value} outside of Nix integer range")]
    IntegerRange {
        /// The number.
        value: u64,
    },
    /// A string with an escaped NUL.
    #[error("input string '{text}' cannot be represented as Nix string because it contains null bytes")]
    NulByte {
        /// The string, with a symbol for each NUL.
        text: String,
    },
    /// More containers open at once than the caller allows.
    #[error("JSON nested deeper than {depth_max} levels")]
    TooDeep {
        /// The caller's limit.
        depth_max: usize,
    },
}

impl ParseJsonError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Syntax { .. } | Self::IntegerRange { .. } | Self::NulByte { .. } => Code::InvalidArgument,
            Self::TooDeep { .. } => Code::ResourceExhausted,
        }
    }
}

#[cfg(test)]
mod tests;
