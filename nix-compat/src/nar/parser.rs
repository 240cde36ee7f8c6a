//! Reading an archive from bytes as they come.
//!
//! A state machine over runs of tags. A run that lies whole in the caller's bytes is compared in place; one that is cut is
//! gathered first. File data is never gathered: events point into the caller's bytes.
//!
//! Invariants
//! - every run asked for is within the archive whatever follows, so the parser never takes a byte past the archive's end;
//! - `names` holds the last entry's name of each open directory, one after the other, each starting at its `starts`;
//! - memory: one run (at most a target, 4095 bytes and tags) and `depth_max` names.

use super::format::{
    CLOSE, CONTENTS, DIRECTORY, ENTRY, EXECUTABLE, MAGIC, NAME, NODE, REGULAR, SYMLINK, TARGET, check_name,
    check_target, padding,
};
use super::{NAME_LEN_MAX, NameRule, NarLimits, ParseNarError, ParseNarReason, TARGET_LEN_MAX};
use crate::store_path::printable;

/// Parses one archive fed in pieces of any size.
///
/// ```
/// # use nix_compat::nar::{NarEvent, NarParser};
/// # let nar = b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0\x01\0\0\0\0\0\0\0(\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0type\0\0\0\0\x07\0\0\0\0\0\0\0symlink\0\x06\0\0\0\0\0\0\0target\0\0\x01\0\0\0\0\0\0\0x\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0)\0\0\0\0\0\0\0";
/// let mut parser = NarParser::new();
/// for mut piece in nar.chunks(10) {
///     while let Some(event) = parser.next(&mut piece)? {
///         assert_eq!(event, NarEvent::Symlink { name: b"", target: b"x" });
///     }
/// }
/// parser.finish()?;
/// # Ok::<(), nix_compat::nar::ParseNarError>(())
/// ```
#[derive(Clone, Debug)]
pub struct NarParser {
    state: State,
    limits: NarLimits,
    /// Bytes of archive before the run being gathered.
    offset: u64,
    gather: Gather,
    names: Vec<u8>,
    starts: Vec<usize>,
    target: Vec<u8>,
}

/// One step through a tree, in archive order: a directory's entries come between its begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NarEvent<'a> {
    /// A directory begins. The root's name is empty.
    Directory {
        /// Name in the directory around it.
        name: &'a [u8],
    },
    /// The directory begun last ends.
    DirectoryEnd,
    /// A file begins; `Data` follows until all bytes were given, then `FileEnd`.
    File {
        /// Name in the directory around it; empty for the root.
        name: &'a [u8],
        /// Bytes in the file.
        size: u64,
        /// Whether it may be executed.
        executable: bool,
    },
    /// Some bytes of the file, never none, in the caller's own buffer.
    Data(&'a [u8]),
    /// The file is complete and its padding was right.
    FileEnd,
    /// A symlink.
    Symlink {
        /// Name in the directory around it; empty for the root.
        name: &'a [u8],
        /// Where it points.
        target: &'a [u8],
    },
}

impl NarParser {
    /// A parser with default limits.
    pub fn new() -> Self {
        Self::with_limits(NarLimits::default())
    }

    /// A parser with other limits.
    pub fn with_limits(mut limits: NarLimits) -> Self {
        // an offset within the limit and a run then never overflow
        limits.nar_size_max = limits.nar_size_max.min(u64::MAX / 2);
        Self {
            state: State::Magic,
            limits,
            offset: 0,
            gather: Gather::default(),
            names: Vec::new(),
            starts: Vec::new(),
            target: Vec::new(),
        }
    }

    /// Takes bytes off the front of `input` until there is an event; `None` when all of `input` was taken without one.
    ///
    /// When the archive may be followed by something else, ask [`NarParser::is_complete`] before calling again: what is left
    /// in `input` then belongs to what follows.
    ///
    /// # Errors
    /// Bytes that are no archive, or exceed a limit; data after the end. The parser is of no use afterwards.
    #[allow(
        clippy::should_implement_trait,
        reason = "takes input and can fail, so it is no Iterator"
    )]
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<NarEvent<'a>>, ParseNarError> {
        let bytes = *input;
        let (used, step) = self.step(bytes)?;
        *input = &bytes[used..];
        Ok(step.map(|step| self.event(step, bytes)))
    }

    /// Takes all of `input`, giving each event to `on_event`.
    ///
    /// # Errors
    /// The parser's error, or the first one of `on_event`.
    pub fn feed<E: From<ParseNarError>>(
        &mut self,
        mut input: &[u8],
        mut on_event: impl FnMut(NarEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(event) = self.next(&mut input)? {
            on_event(event)?;
        }
        Ok(())
    }

    /// Whether the archive's last byte was taken.
    pub fn is_complete(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of archive taken so far.
    pub fn offset(&self) -> u64 {
        self.offset + self.gather.len() as u64
    }

    /// Says that no more input comes.
    ///
    /// # Errors
    /// `Truncated` unless the archive is complete.
    pub fn finish(&self) -> Result<(), ParseNarError> {
        match self.state {
            State::Done => Ok(()),
            State::Failed => Err(self.error(Fault {
                at: 0,
                reason: ParseNarReason::Poisoned,
            })),
            _ => Err(self.error(Fault {
                at: self.gather.len(),
                reason: ParseNarReason::Truncated,
            })),
        }
    }

    /// [`NarParser::next`] without borrowing: bytes used, and what happened.
    pub(super) fn step(&mut self, input: &[u8]) -> Result<(usize, Option<Step>), ParseNarError> {
        let mut used = 0;
        loop {
            match self.advance(input, &mut used) {
                Ok(Flow::Go) => {}
                Ok(Flow::Starved) => return Ok((used, None)),
                Ok(Flow::Event(step)) => return Ok((used, Some(step))),
                Err(fault) => {
                    let error = self.error(fault);
                    self.state = State::Failed;
                    return Err(error);
                }
            }
        }
    }

    /// The event a step stands for; `input` is what the step was given.
    pub(super) fn event<'a>(&'a self, step: Step, input: &'a [u8]) -> NarEvent<'a> {
        match step {
            Step::Directory => NarEvent::Directory {
                name: self.name(self.starts.len().saturating_sub(1)),
            },
            Step::DirectoryEnd => NarEvent::DirectoryEnd,
            Step::File { size, executable } => NarEvent::File {
                name: self.name(self.starts.len()),
                size,
                executable,
            },
            Step::Data { start, end } => NarEvent::Data(&input[start..end]),
            Step::FileEnd => NarEvent::FileEnd,
            Step::Symlink => NarEvent::Symlink {
                name: self.name(self.starts.len()),
                target: &self.target,
            },
        }
    }

    /// The last entry's name in the directory that many levels down; empty for level 0, the root itself.
    fn name(&self, level: usize) -> &[u8] {
        let Some(&start) = level.checked_sub(1).and_then(|index| self.starts.get(index)) else {
            return &[];
        };
        let end = self.starts.get(level).copied().unwrap_or(self.names.len());
        &self.names[start..end]
    }

    fn advance(&mut self, input: &[u8], used: &mut usize) -> Result<Flow, Fault> {
        match self.state {
            State::Data { left } => Ok(self.data(left, input, used)),
            State::Done if *used == input.len() => Ok(Flow::Starved),
            State::Done => Err(Fault {
                at: 0,
                reason: ParseNarReason::TrailingData,
            }),
            State::Failed => Err(Fault {
                at: 0,
                reason: ParseNarReason::Poisoned,
            }),
            state => {
                let mut gather = std::mem::take(&mut self.gather);
                let flow = match gather.take(self.run_len(state), input, used) {
                    Some(run) => self.run(state, run),
                    None => Ok(Flow::Starved),
                };
                self.gather = gather;
                flow
            }
        }
    }

    /// How many bytes the next run has.
    fn run_len(&self, state: State) -> usize {
        let close = if self.starts.is_empty() {
            CLOSE.len()
        } else {
            2 * CLOSE.len()
        };
        match state {
            State::Magic => MAGIC.len(),
            State::Node => REGULAR.len(),
            State::DirectoryTail | State::ExecutableTail => 8,
            State::Contents { .. } | State::Target => CONTENTS.len() + 8,
            State::FileEnd { padding } => padding + close,
            State::TargetText { len } => len + padding(len as u64) + close,
            State::Next | State::EntryClose => CLOSE.len(),
            State::EntryHead => NAME.len() + 8,
            State::EntryName { len } => len + padding(len as u64) + NODE.len(),
            State::Data { .. } | State::Done | State::Failed => 0,
        }
    }

    fn run(&mut self, state: State, run: &[u8]) -> Result<Flow, Fault> {
        if self.offset + run.len() as u64 > self.limits.nar_size_max {
            return Err(fault(ParseNarReason::NarTooLarge {
                max: self.limits.nar_size_max,
            }));
        }
        let flow = match state {
            State::Magic => self.magic(run),
            State::Node => self.node(run),
            State::DirectoryTail => self.directory_tail(run),
            State::Contents { executable } => self.contents(run, executable),
            State::ExecutableTail => self.executable_tail(run),
            State::FileEnd { padding } => self.file_end(run, padding),
            State::Target => self.target_head(run),
            State::TargetText { len } => self.target_text(run, len),
            State::Next => self.next_entry(run),
            State::EntryHead => self.entry_head(run),
            State::EntryName { len } => self.entry_name(run, len),
            State::EntryClose => self.entry_close(run),
            State::Data { .. } | State::Done | State::Failed => Ok(Flow::Go),
        }?;
        self.offset += run.len() as u64;
        Ok(flow)
    }

    fn magic(&mut self, run: &[u8]) -> Result<Flow, Fault> {
        if run != MAGIC {
            return Err(fault(ParseNarReason::NotNar));
        }
        self.state = State::Node;
        Ok(Flow::Go)
    }

    fn node(&mut self, run: &[u8]) -> Result<Flow, Fault> {
        let max = self.limits.depth_max;
        if self.starts.len() >= max {
            return Err(fault(ParseNarReason::TooDeep { max }));
        }
        if run == REGULAR {
            self.state = State::Contents { executable: false };
        } else if run == SYMLINK {
            self.state = State::Target;
        } else if run == &DIRECTORY[..run.len()] {
            self.state = State::DirectoryTail;
        } else {
            expect(
                run,
                0,
                REGULAR,
                "'(', 'type' and one of 'regular', 'directory', 'symlink'",
            )?;
        }
        Ok(Flow::Go)
    }

    fn directory_tail(&mut self, run: &[u8]) -> Result<Flow, Fault> {
        expect(run, 0, &DIRECTORY[REGULAR.len()..], "'directory'")?;
        self.starts.push(self.names.len());
        self.state = State::Next;
        Ok(Flow::Event(Step::Directory))
    }

    fn contents(&mut self, run: &[u8], executable: bool) -> Result<Flow, Fault> {
        if !executable && run == &EXECUTABLE[..run.len()] {
            self.state = State::ExecutableTail;
            return Ok(Flow::Go);
        }
        let expected = if executable {
            "'contents'"
        } else {
            "'contents' or 'executable'"
        };
        expect(run, 0, CONTENTS, expected)?;
        let size = length(run, CONTENTS.len());
        if size > self.limits.file_size_max {
            let reason = ParseNarReason::FileTooLarge {
                size,
                max: self.limits.file_size_max,
            };
            return Err(Fault {
                at: CONTENTS.len(),
                reason,
            });
        }
        if self.offset.saturating_add(size) > self.limits.nar_size_max {
            let reason = ParseNarReason::NarTooLarge {
                max: self.limits.nar_size_max,
            };
            return Err(Fault {
                at: CONTENTS.len(),
                reason,
            });
        }
        self.state = if size == 0 {
            State::FileEnd { padding: 0 }
        } else {
            State::Data { left: size }
        };
        Ok(Flow::Event(Step::File { size, executable }))
    }

    fn executable_tail(&mut self, run: &[u8]) -> Result<Flow, Fault> {
        expect(run, 0, &[0; 8], "an empty string after 'executable'")?;
        self.state = State::Contents { executable: true };
        Ok(Flow::Go)
    }

    fn data(&mut self, left: u64, input: &[u8], used: &mut usize) -> Flow {
        let start = *used;
        let available = input.len() - start;
        let len = usize::try_from(left).map_or(available, |left| left.min(available));
        if len == 0 {
            return Flow::Starved;
        }
        self.offset += len as u64;
        *used += len;
        let rest = left - len as u64;
        // what came before the rest is a multiple of 8: the archive's offset tells the padding
        self.state = if rest == 0 {
            State::FileEnd {
                padding: padding(self.offset),
            }
        } else {
            State::Data { left: rest }
        };
        Flow::Event(Step::Data {
            start,
            end: start + len,
        })
    }

    fn file_end(&mut self, run: &[u8], padding: usize) -> Result<Flow, Fault> {
        zeros(run, 0, padding)?;
        self.close(run, padding)?;
        Ok(Flow::Event(Step::FileEnd))
    }

    fn target_head(&mut self, run: &[u8]) -> Result<Flow, Fault> {
        expect(run, 0, TARGET, "'target'")?;
        let len = bounded_length(run, TARGET.len(), TARGET_LEN_MAX);
        let reason = ParseNarReason::Target {
            rule: NameRule::TooLong,
        };
        let len = len.ok_or(Fault {
            at: TARGET.len(),
            reason,
        })?;
        self.state = State::TargetText { len };
        Ok(Flow::Go)
    }

    fn target_text(&mut self, run: &[u8], len: usize) -> Result<Flow, Fault> {
        let target = &run[..len];
        check_target(target).map_err(|rule| fault(ParseNarReason::Target { rule }))?;
        let padding = padding(len as u64);
        zeros(run, len, padding)?;
        self.close(run, len + padding)?;
        self.target.clear();
        self.target.extend_from_slice(target);
        Ok(Flow::Event(Step::Symlink))
    }

    /// The `)` of a file or symlink, and of the entry around it.
    fn close(&mut self, run: &[u8], at: usize) -> Result<(), Fault> {
        expect(run, at, CLOSE, "')' at the end of the node")?;
        if self.starts.is_empty() {
            self.state = State::Done;
        } else {
            expect(run, at + CLOSE.len(), CLOSE, "')' at the end of the entry")?;
            self.state = State::Next;
        }
        Ok(())
    }

    fn next_entry(&mut self, run: &[u8]) -> Result<Flow, Fault> {
        if run != CLOSE {
            expect(run, 0, ENTRY, "'entry' or ')'")?;
            self.state = State::EntryHead;
            return Ok(Flow::Go);
        }
        if let Some(start) = self.starts.pop() {
            self.names.truncate(start);
        }
        self.state = if self.starts.is_empty() {
            State::Done
        } else {
            State::EntryClose
        };
        Ok(Flow::Event(Step::DirectoryEnd))
    }

    fn entry_close(&mut self, run: &[u8]) -> Result<Flow, Fault> {
        expect(run, 0, CLOSE, "')' at the end of the entry")?;
        self.state = State::Next;
        Ok(Flow::Go)
    }

    fn entry_head(&mut self, run: &[u8]) -> Result<Flow, Fault> {
        expect(run, 0, NAME, "'(' and 'name'")?;
        let len = bounded_length(run, NAME.len(), NAME_LEN_MAX);
        let reason = ParseNarReason::Name {
            name: String::new(),
            rule: NameRule::TooLong,
        };
        let len = len.ok_or(Fault {
            at: NAME.len(),
            reason,
        })?;
        self.state = State::EntryName { len };
        Ok(Flow::Go)
    }

    fn entry_name(&mut self, run: &[u8], len: usize) -> Result<Flow, Fault> {
        let name = &run[..len];
        check_name(name).map_err(|rule| {
            fault(ParseNarReason::Name {
                name: printable(name),
                rule,
            })
        })?;
        let start = self.starts.last().copied().unwrap_or(0);
        let previous = &self.names[start..];
        if name <= previous {
            let (name, previous) = (printable(name), printable(previous));
            return Err(fault(ParseNarReason::NotSorted { name, previous }));
        }
        let padding = padding(len as u64);
        zeros(run, len, padding)?;
        expect(run, len + padding, NODE, "'node'")?;
        self.names.truncate(start);
        self.names.extend_from_slice(name);
        self.state = State::Node;
        Ok(Flow::Go)
    }

    fn error(&self, fault: Fault) -> ParseNarError {
        let mut path = String::new();
        for level in 1..=self.starts.len() {
            let name = self.name(level);
            if !name.is_empty() {
                path.push('/');
                path.push_str(&printable(name));
            }
        }
        if path.is_empty() {
            path.push('/');
        }
        ParseNarError {
            offset: self.offset + fault.at as u64,
            path,
            reason: fault.reason,
        }
    }
}

impl Default for NarParser {
    fn default() -> Self {
        Self::new()
    }
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Magic,
    Node,
    DirectoryTail,
    Contents { executable: bool },
    ExecutableTail,
    Data { left: u64 },
    FileEnd { padding: usize },
    Target,
    TargetText { len: usize },
    Next,
    EntryHead,
    EntryName { len: usize },
    EntryClose,
    Done,
    Failed,
}

/// An event without its bytes; `Data` counts from the start of the input given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Directory,
    DirectoryEnd,
    File { size: u64, executable: bool },
    Data { start: usize, end: usize },
    FileEnd,
    Symlink,
}

enum Flow {
    Go,
    Starved,
    Event(Step),
}

/// A reason, and where in the current run.
struct Fault {
    at: usize,
    reason: ParseNarReason,
}

fn fault(reason: ParseNarReason) -> Fault {
    Fault { at: 0, reason }
}

/// Puts together a run that came in pieces.
#[derive(Clone, Debug, Default)]
struct Gather {
    bytes: Vec<u8>,
    given: bool,
}

impl Gather {
    /// `len` bytes, from what was kept and from `input[used..]`; keeps the rest of `input` when it does not suffice.
    fn take<'a>(&'a mut self, len: usize, input: &'a [u8], used: &mut usize) -> Option<&'a [u8]> {
        if self.given {
            self.bytes.clear();
            self.given = false;
        }
        let rest = &input[*used..];
        let missing = len - self.bytes.len().min(len);
        let (piece, enough) = (&rest[..missing.min(rest.len())], missing <= rest.len());
        *used += piece.len();
        if enough && self.bytes.is_empty() {
            return Some(piece);
        }
        self.bytes.extend_from_slice(piece);
        self.given = enough;
        enough.then_some(&self.bytes)
    }

    /// Bytes kept of a run that is not whole yet.
    fn len(&self) -> usize {
        if self.given { 0 } else { self.bytes.len() }
    }
}

/// Checks that `run` has `fixed` at `at`, which is within it.
fn expect(run: &[u8], at: usize, fixed: &[u8], expected: &'static str) -> Result<(), Fault> {
    let found = &run[at..at + fixed.len()];
    if found == fixed {
        return Ok(());
    }
    let same = found.iter().zip(fixed).take_while(|(a, b)| a == b).count();
    Err(Fault {
        at: at + same,
        reason: ParseNarReason::Expected { expected },
    })
}

fn zeros(run: &[u8], at: usize, count: usize) -> Result<(), Fault> {
    match run[at..at + count].iter().position(|&byte| byte != 0) {
        None => Ok(()),
        Some(index) => Err(Fault {
            at: at + index,
            reason: ParseNarReason::Padding,
        }),
    }
}

fn length(run: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&run[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn bounded_length(run: &[u8], at: usize, max: usize) -> Option<usize> {
    usize::try_from(length(run, at)).ok().filter(|&len| len <= max)
}
