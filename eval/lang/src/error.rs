//! What goes wrong in an evaluation, and how it is shown.
//!
//! Inside the crate an error is [`EvalError`]: positions and names are numbers, and frames are added while it travels up.
//! Callers get [`Error`]: the same, worked out and rendered in Nix's layout (`src/libutil/error.cc`).

use std::borrow::Cow;

use igloo_status::Code;

use crate::pos::{Location, Pos};

/// The class of an evaluation error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not an expression.
    Syntax,
    /// A variable is not defined.
    UndefinedVariable,
    /// A value has the wrong type.
    Type,
    /// An operation cannot be done with these values.
    Eval,
    /// `throw`, or a search path look-up that found nothing; `tryEval` catches it.
    Throw,
    /// `assert`; `tryEval` catches it.
    Assertion,
    /// `abort`.
    Abort,
    /// A value needs itself.
    InfiniteRecursion,
    /// Calls nest too deeply.
    StackOverflow,
    /// The evaluation has used up the calls or the memory it may use.
    Limit,
    /// A required argument of a top-level function is missing.
    MissingArgument,
    /// A file could not be read.
    File,
    /// Access is forbidden in this mode.
    Restricted,
    /// A store path is not valid.
    InvalidPath,
    /// A build needed by the evaluation failed or is not allowed.
    Build,
    /// Something could not be fetched.
    Fetch,
    /// The caller ended the evaluation.
    Interrupted,
    /// Something fetched has another hash than it must have.
    HashMismatch,
    /// The store failed; the class is that of the cause.
    Store(Code),
    /// The caller asked for something this evaluator does not have.
    Unsupported,
    /// The value is not wanted any more.
    Cancelled,
}

/// What an error says.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Text(String),
    /// `assertion '…' failed` for the `assert` at this position; its text is read again when shown.
    Assertion(Pos),
}

/// One line of the trace.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) pos: Pos,
    pub(crate) text: FrameText,
    /// Shown even when the trace is shortened.
    pub(crate) always: bool,
}

/// What a frame says.
#[derive(Clone, Debug)]
pub(crate) enum FrameText {
    Text(Cow<'static, str>),
    /// The condition of the assertion at this position.
    AssertionCondition(Pos),
}

/// An error on its way up.
#[derive(Clone, Debug)]
pub(crate) struct EvalError {
    pub(crate) kind: ErrorKind,
    pub(crate) message: Message,
    pub(crate) pos: Pos,
    /// Outermost last.
    pub(crate) frames: Vec<Frame>,
    /// Names close to the one not found.
    pub(crate) suggestions: Vec<String>,
    /// Exit status of a command that fails with it.
    pub(crate) exit: u8,
}

/// Exit status of a command that fails with an error, unless Nix has another one for it.
pub(crate) const EXIT_FAILED: u8 = 1;

/// Result of evaluating.
pub(crate) type R<T> = Result<T, Box<EvalError>>;

impl EvalError {
    /// An error without position or trace.
    #[cold]
    #[inline(never)]
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            kind,
            message: Message::Text(message.into()),
            pos: Pos::NONE,
            frames: Vec::new(),
            suggestions: Vec::new(),
            exit: EXIT_FAILED,
        })
    }

    /// Says where it happened.
    pub(crate) fn at(mut self: Box<Self>, pos: Pos) -> Box<Self> {
        self.pos = pos;
        self
    }

    /// Adds a frame; an empty text adds none.
    #[cold]
    #[inline(never)]
    pub(crate) fn frame(mut self: Box<Self>, pos: Pos, text: impl Into<Cow<'static, str>>) -> Box<Self> {
        let text = text.into();
        if !text.is_empty() {
            self.frames.push(Frame {
                pos,
                text: FrameText::Text(text),
                always: false,
            });
        }
        self
    }

    /// Adds a frame that is always shown.
    pub(crate) fn always(mut self: Box<Self>, text: impl Into<Cow<'static, str>>) -> Box<Self> {
        self.frames.push(Frame {
            pos: Pos::NONE,
            text: FrameText::Text(text.into()),
            always: true,
        });
        self
    }

    /// Whether `tryEval` catches it.
    pub(crate) fn is_catchable(&self) -> bool {
        matches!(self.kind, ErrorKind::Throw | ErrorKind::Assertion)
    }
}

/// `Err` of a new error.
pub(crate) fn fail<T>(kind: ErrorKind, message: impl Into<String>) -> R<T> {
    Err(EvalError::new(kind, message))
}

/// Adds context to errors on their way up.
pub(crate) trait Context<T> {
    /// Adds a frame.
    fn context(self, pos: Pos, text: &'static str) -> R<T>;
    /// Adds a frame whose text is made only when needed.
    fn context_with(self, pos: Pos, text: impl FnOnce() -> String) -> R<T>;
}

impl<T> Context<T> for R<T> {
    #[inline]
    fn context(self, pos: Pos, text: &'static str) -> Self {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(error.frame(pos, text)),
        }
    }

    #[inline]
    fn context_with(self, pos: Pos, text: impl FnOnce() -> String) -> Self {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(error.frame(pos, text())),
        }
    }
}

/// A frame of a trace, worked out.
#[derive(Clone, Debug)]
pub struct TraceLine {
    /// What was being done.
    pub text: String,
    /// Where.
    pub location: Option<Location>,
    /// Shown even when the trace is shortened.
    pub always: bool,
}

/// An evaluation that failed. Its fields are those of [`ErrorDetails`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub struct Error(Box<ErrorDetails>);

impl std::ops::Deref for Error {
    type Target = ErrorDetails;

    fn deref(&self) -> &ErrorDetails {
        &self.0
    }
}

impl From<ErrorDetails> for Error {
    fn from(details: ErrorDetails) -> Self {
        Self(Box::new(details))
    }
}

/// What is known of an evaluation that failed.
#[derive(Clone, Debug)]
pub struct ErrorDetails {
    /// What class of error it is.
    pub kind: ErrorKind,
    /// What it says.
    pub message: String,
    /// Where it happened.
    pub location: Option<Location>,
    /// How the evaluation got there, outermost first.
    pub trace: Vec<TraceLine>,
    /// Names close to the one not found.
    pub suggestions: Vec<String>,
    /// Exit status Nix has for it: 1, 102 for something fetched with a wrong hash, that of a failed build.
    pub exit: u8,
}

impl Error {
    /// The class of failure shared by all parts of igloo.
    #[must_use]
    pub fn code(&self) -> Code {
        match self.kind {
            ErrorKind::StackOverflow | ErrorKind::Limit => Code::ResourceExhausted,
            ErrorKind::File | ErrorKind::InvalidPath => Code::NotFound,
            ErrorKind::Restricted => Code::PermissionDenied,
            ErrorKind::Build => Code::FailedPrecondition,
            ErrorKind::Fetch => Code::Unavailable,
            ErrorKind::HashMismatch => Code::DataLoss,
            ErrorKind::Store(code) => code,
            ErrorKind::Unsupported => Code::Unimplemented,
            ErrorKind::Cancelled | ErrorKind::Interrupted => Code::Cancelled,
            ErrorKind::Abort | ErrorKind::Throw => Code::Aborted,
            _ => Code::InvalidArgument,
        }
    }

    /// The error as Nix prints it, without colours and without a final line feed.
    ///
    /// Without `full_trace`, frames after the third are left out unless they are always shown.
    #[must_use]
    pub fn render(&self, full_trace: bool) -> String {
        let mut body = String::new();
        if !self.trace.is_empty() {
            Trace {
                out: &mut body,
                shown: 0,
                skipped: Vec::new(),
                seen: Vec::new(),
            }
            .write(&self.trace, full_trace);
            body.push_str("\nerror: ");
        }
        body.push_str(&self.message);
        body.push('\n');
        write_location(&mut body, "", self.location.as_ref());
        match self.suggestions.as_slice() {
            [] => {}
            [only] => body.push_str(&format!("Did you mean {only}?\n")),
            [init @ .., last] => {
                body.push_str(&format!("Did you mean one of {} or {last}?\n", init.join(", ")));
            }
        }
        indent("error: ", body.trim_end())
    }
}

/// A message behind a prefix, its further lines as deep as the prefix is long unless it starts with a line feed.
pub(crate) fn render_message(prefix: &str, message: &str) -> String {
    let message = message.trim_end();
    if message.starts_with('\n') {
        return format!("{}{message}", prefix.trim_end());
    }
    indent(prefix, message)
}

/// A warning in Nix's layout; `frame` says what was being done.
pub(crate) fn render_warning(message: &str, frame: Option<&str>, location: Option<&Location>) -> String {
    let mut body = String::new();
    if let Some(frame) = frame {
        body.push_str(&format!("\n… {frame}\n\nwarning: "));
    }
    body.push_str(message);
    body.push('\n');
    write_location(&mut body, "", location);
    indent("warning: ", body.trim_end())
}

fn indent(prefix: &str, body: &str) -> String {
    let pad = " ".repeat(prefix.chars().count());
    let mut out = String::new();
    for (i, line) in body.split('\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let line = format!("{}{line}", if i == 0 { prefix } else { &pad });
        out.push_str(line.trim_end());
    }
    out
}

struct Trace<'a> {
    out: &'a mut String,
    shown: usize,
    skipped: Vec<&'a TraceLine>,
    seen: Vec<(String, Option<(u32, u32)>)>,
}

/// Repeated frames that are still printed one by one.
const REPEATS_SHOWN_MAX: usize = 5;
/// Frames shown of a shortened trace; one with a position counts twice.
const FRAMES_SHOWN_MAX: usize = 3;

impl<'a> Trace<'a> {
    fn write(mut self, frames: &'a [TraceLine], full: bool) {
        let mut truncated = false;
        for frame in frames {
            truncated |= !full && self.shown > FRAMES_SHOWN_MAX;
            if truncated && !frame.always {
                continue;
            }
            let key = (
                frame.text.clone(),
                frame.location.as_ref().map(|l| (l.line, l.column)),
            );
            if self.seen.contains(&key) {
                self.skipped.push(frame);
                continue;
            }
            self.seen.push(key);
            self.flush();
            self.shown += 1;
            self.one(frame);
        }
        self.flush();
        if truncated {
            self.out
                .push_str("\n(stack trace truncated; use '--show-trace' to show the full, detailed trace)\n");
        }
    }

    fn one(&mut self, frame: &TraceLine) {
        self.out.push_str("\n… ");
        self.out.push_str(&frame.text);
        self.out.push('\n');
        self.shown += usize::from(write_location(self.out, "  ", frame.location.as_ref()));
    }

    fn flush(&mut self) {
        let skipped = std::mem::take(&mut self.skipped);
        if skipped.len() <= REPEATS_SHOWN_MAX {
            for frame in skipped {
                self.one(frame);
            }
        } else {
            self.out
                .push_str(&format!("\n({} duplicate frames omitted)\n", skipped.len()));
        }
    }
}

/// Writes `at file:line:column:` and three lines of source.
fn write_location(out: &mut String, pad: &str, location: Option<&Location>) -> bool {
    let Some(location) = location else { return false };
    out.push_str(&format!("{pad}at {location}:"));
    let [before, here, after] = &location.lines;
    let numbered = |out: &mut String, line: u32, text: &str| out.push_str(&format!("\n {line:>5}| {text}"));
    if let (Some(text), true) = (before, location.line > 1) {
        numbered(out, location.line - 1, text);
    }
    if let Some(text) = here {
        numbered(out, location.line, text);
        let spaces = " ".repeat(location.column as usize);
        out.push_str(&format!("\n      |{spaces}^"));
    }
    if let Some(text) = after {
        numbered(out, location.line + 1, text);
    }
    out.push('\n');
    true
}
