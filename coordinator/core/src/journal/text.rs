//! Records as lines of text.
//!
//! One record is one line, words separated by single spaces: a person can read a journal. A line counts only with
//! its newline: whatever follows the last newline of a file was torn off in a crash, and is cut off before appending.
//!
//! Invariants
//! - printing and parsing are inverse, but for reasons longer than [`REASON_SIZE_MAX`], which are cut;
//! - nothing that is parsed is longer than [`RECORD_SIZE_MAX`]; no word is trusted.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use igloo_status::Code;
use nix_compat::derivation::OutputName;
use nix_compat::store_path::StorePath;

use super::Record;
use crate::event::{ClientOptions, OnFailure, Target, Want};
use crate::id::{BuilderId, ClientId, LeaseId, WantId};
use crate::urgency::{Priority, Purpose};

/// First line of a journal. One that begins otherwise is of another version, and is refused.
pub const FORMAT: &str = "igloo coordinator journal 1";
/// Bytes of the longest line.
pub const RECORD_SIZE_MAX: usize = 1 << 20;
/// Bytes of a reason that are kept.
const REASON_SIZE_MAX: usize = 4096;

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientCame { client, options } => {
                let mode = on_failure_word(options.on_failure);
                write!(f, "client {client} {mode} {}", options.weight)
            }
            Self::ClientGone { client } => write!(f, "gone {client}"),
            Self::Wanted { client, want } => print_want(f, *client, want),
            Self::Answered { client, want } => write!(f, "answered {client} {want}"),
            Self::Leased {
                lease,
                attempt,
                builder,
                drv,
            } => write!(f, "leased {lease} {attempt} {builder} {drv}"),
            Self::Released { lease } => write!(f, "released {lease}"),
            Self::Committed { drv, lease, outputs } => {
                write!(f, "committed {drv} {lease} ")?;
                print_list(f, outputs, |f, (name, path)| write!(f, "{name}:{path}"))
            }
            Self::Failed { drv, reason } => write!(f, "failed {drv} {}", one_line(reason)),
            Self::LeasesGiven { last } => write!(f, "given {last}"),
        }
    }
}

impl FromStr for Record {
    type Err = ParseRecordError;

    fn from_str(line: &str) -> Result<Self, ParseRecordError> {
        if line.len() > RECORD_SIZE_MAX {
            return Err(ParseRecordError::TooLong { size: line.len() });
        }
        let mut words = Words { rest: line };
        let record = match words.next("kind")? {
            "client" => parse_client(&mut words)?,
            "gone" => Self::ClientGone {
                client: ClientId(words.number("client")?),
            },
            "want" => parse_want(&mut words)?,
            "answered" => Self::Answered {
                client: ClientId(words.number("client")?),
                want: WantId(words.number("want")?),
            },
            "leased" => Self::Leased {
                lease: LeaseId(words.number("lease")?),
                attempt: words.number("attempt")?,
                builder: BuilderId(words.number("builder")?),
                drv: words.value("derivation")?,
            },
            "released" => Self::Released {
                lease: LeaseId(words.number("lease")?),
            },
            "committed" => parse_committed(&mut words)?,
            "failed" => Self::Failed {
                drv: words.value("derivation")?,
                reason: std::mem::take(&mut words.rest).to_owned(),
            },
            "given" => Self::LeasesGiven {
                last: LeaseId(words.number("lease")?),
            },
            _ => return Err(ParseRecordError::Word { what: "kind" }),
        };
        words.end()?;
        Ok(record)
    }
}

/// A line is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRecordError {
    /// Longer than any record.
    #[error("a line of the journal has {size} bytes, more than the {RECORD_SIZE_MAX} allowed")]
    TooLong {
        /// Its bytes.
        size: usize,
    },
    /// The line ends too early: it was cut off in a crash, if it is the last.
    #[error("a line of the journal ends before its {what}; if it is the last, cut it off")]
    Short {
        /// What is missing.
        what: &'static str,
    },
    /// A word is not what it should be.
    #[error("the {what} in a line of the journal is not one")]
    Word {
        /// What it should be.
        what: &'static str,
    },
    /// The line goes on where it should end.
    #[error("a line of the journal goes on after its end")]
    Long,
}

impl ParseRecordError {
    /// Always `DataLoss`: what was written is not what is read.
    pub fn code(&self) -> Code {
        Code::DataLoss
    }
}

struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn next(&mut self, what: &'static str) -> Result<&'a str, ParseRecordError> {
        let (word, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
        self.rest = rest;
        if word.is_empty() {
            return Err(ParseRecordError::Short { what });
        }
        Ok(word)
    }

    fn number<T: FromStr>(&mut self, what: &'static str) -> Result<T, ParseRecordError> {
        let word = self.next(what)?;
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        let value = word.parse().ok().filter(|_| is_number);
        value.ok_or(ParseRecordError::Word { what })
    }

    fn value<T: FromStr>(&mut self, what: &'static str) -> Result<T, ParseRecordError> {
        self.next(what)?
            .parse()
            .map_err(|_| ParseRecordError::Word { what })
    }

    fn end(&self) -> Result<(), ParseRecordError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(ParseRecordError::Long)
        }
    }
}

fn print_want(f: &mut fmt::Formatter<'_>, client: ClientId, want: &Want) -> fmt::Result {
    let (purpose, priority) = (purpose_word(want.purpose), priority_word(want.priority));
    write!(f, "want {client} {} {purpose} {priority} ", want.id)?;
    match &want.target {
        Target::Path(path) => write!(f, "path {path}"),
        Target::Outputs { drv, outputs } if outputs.is_empty() => write!(f, "drv {drv} *"),
        Target::Outputs { drv, outputs } => {
            write!(f, "drv {drv} ")?;
            print_list(f, outputs, |f, name| write!(f, "{name}"))
        }
    }
}

fn parse_want(words: &mut Words<'_>) -> Result<Record, ParseRecordError> {
    let client = ClientId(words.number("client")?);
    let id = WantId(words.number("want")?);
    let purpose = find("purpose", words.next("purpose")?, PURPOSES, purpose_word)?;
    let priority = find("priority", words.next("priority")?, PRIORITIES, priority_word)?;
    let target = match words.next("target")? {
        "path" => Target::Path(words.value("path")?),
        "drv" => Target::Outputs {
            drv: words.value("derivation")?,
            outputs: parse_outputs(words.next("outputs")?)?,
        },
        _ => return Err(ParseRecordError::Word { what: "target" }),
    };
    let want = Want {
        id,
        target,
        purpose,
        priority,
    };
    Ok(Record::Wanted { client, want })
}

fn parse_outputs(text: &str) -> Result<BTreeSet<OutputName>, ParseRecordError> {
    if text == "*" {
        return Ok(BTreeSet::new());
    }
    let names = text.split(',').map(OutputName::new);
    names
        .collect::<Result<_, _>>()
        .map_err(|_| ParseRecordError::Word { what: "outputs" })
}

fn parse_client(words: &mut Words<'_>) -> Result<Record, ParseRecordError> {
    let client = ClientId(words.number("client")?);
    let modes = [OnFailure::Stop, OnFailure::KeepGoing];
    let on_failure = find("mode", words.next("mode")?, &modes, on_failure_word)?;
    let weight = words.number("weight")?;
    let options = ClientOptions { on_failure, weight };
    Ok(Record::ClientCame { client, options })
}

fn parse_committed(words: &mut Words<'_>) -> Result<Record, ParseRecordError> {
    let drv = words.value("derivation")?;
    let lease = LeaseId(words.number("lease")?);
    let wrong = ParseRecordError::Word { what: "outputs" };
    let one = |text: &str| {
        let (name, path) = text.split_once(':')?;
        Some((OutputName::new(name).ok()?, StorePath::parse(path).ok()?))
    };
    let outputs = match words.rest {
        "" => Some(Vec::new()),
        _ => words.next("outputs")?.split(',').map(one).collect(),
    };
    let outputs = outputs.ok_or(wrong)?;
    Ok(Record::Committed { drv, lease, outputs })
}

fn print_list<T>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    one: impl Fn(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        one(f, item)?;
    }
    Ok(())
}

/// Control characters become blanks, so that a reason cannot end its line.
fn one_line(reason: &str) -> String {
    let mut end = reason.len().min(REASON_SIZE_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].replace(char::is_control, " ")
}

const PURPOSES: &[Purpose] = &[Purpose::ImportFromDerivation, Purpose::Goal, Purpose::Prefetch];
const PRIORITIES: &[Priority] = &[Priority::High, Priority::Normal, Priority::Low];

fn find<T: Copy>(
    what: &'static str,
    word: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, ParseRecordError> {
    let found = all.iter().copied().find(|value| name(*value) == word);
    found.ok_or(ParseRecordError::Word { what })
}

fn purpose_word(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::ImportFromDerivation => "import",
        Purpose::Goal => "goal",
        Purpose::Prefetch => "prefetch",
    }
}

fn priority_word(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

fn on_failure_word(mode: OnFailure) -> &'static str {
    match mode {
        OnFailure::Stop => "stop",
        OnFailure::KeepGoing => "keep-going",
    }
}
