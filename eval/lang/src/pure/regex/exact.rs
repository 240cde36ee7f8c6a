//! Runs the automaton with the very choices libstdc++'s depth-first executor makes, in time linear in the text.
//!
//! That executor tries paths in order. At a quantifier it takes "once more" and leaves only if that failed; at an
//! alternative it tries both sides and keeps the longer end, the left one on a tie. A quantifier whose body can be
//! empty may be entered at most twice more at one place. Where a path ends therefore depends on state, position, and
//! those counts alone, so each such point is worked out once and remembered; captures are read off by walking the
//! chosen path once.
//!
//! Invariants
//! - no recursion: the path being tried is a list of frames, at most one per text byte and fork;
//! - at most [`MEMO_MAX`] points are remembered; past that the pattern is refused as too large for the text.

use rustc_hash::FxHashMap;

use super::nfa::{Nfa, State, StateId};
use super::{Captures, RegexError};

/// Most points remembered in one search (each 4 to about 32 bytes).
const MEMO_MAX: usize = 1 << 26;
/// Most points kept in a plain table.
const TABLE_MAX: usize = 1 << 24;
/// Most entries in all combinations of loop counts together (16 bytes each, counting their index).
const COUNTS_MAX: usize = 1 << 20;

/// Whether a match must reach the end of the text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Whole,
    Prefix,
}

/// A search in one text.
pub(super) struct Search<'r, 't> {
    nfa: &'r Nfa,
    text: &'t [u8],
    goal: Goal,
    /// An empty match at this place does not count (`match_not_null`).
    refuse_empty_at: Option<usize>,
    memo: Memo,
    /// For points at `refuse_empty_at`.
    memo_here: FxHashMap<Point, Option<usize>>,
    counts: Counts,
}

impl<'r, 't> Search<'r, 't> {
    /// Starts with nothing remembered. Costs one table of at most 64 MiB, taken when first written.
    pub(super) fn new(nfa: &'r Nfa, text: &'t [u8], goal: Goal) -> Self {
        let points = nfa.fork_count.saturating_mul(text.len() + 1);
        let width = if points <= TABLE_MAX { nfa.fork_count } else { 0 };
        let table = vec![UNKNOWN; width * (text.len() + 1)];
        let memo = Memo {
            table,
            width,
            others: FxHashMap::default(),
            swept_at: 0,
        };
        Self {
            nfa,
            text,
            goal,
            refuse_empty_at: None,
            memo,
            memo_here: FxHashMap::default(),
            counts: Counts::new(),
        }
    }

    /// The match that starts exactly at `start`, bytes from the beginning of the text.
    pub(super) fn at(&mut self, start: usize, groups: usize) -> Result<Option<Captures>, RegexError> {
        let from = Point {
            state: self.nfa.start,
            position: start,
            counts: 0,
        };
        let Some(end) = self.best_end(from)? else {
            return Ok(None);
        };
        let mut captures = Captures {
            span: (start, end),
            groups: vec![None; groups],
        };
        self.walk(from, &mut captures)?;
        Ok(Some(captures))
    }

    /// As [`Search::at`], but not the empty match.
    pub(super) fn not_empty_at(
        &mut self,
        start: usize,
        groups: usize,
    ) -> Result<Option<Captures>, RegexError> {
        // What is known of this place was found under other rules, and what is found now is of no use later.
        self.refuse_empty_at = Some(start);
        let found = self.at(start, groups);
        self.refuse_empty_at = None;
        self.memo_here = FxHashMap::default();
        found
    }

    /// Forgets what no later search can ask for: everything before `position`.
    pub(super) fn passed(&mut self, position: usize) {
        self.memo.sweep(position);
    }

    fn best_end(&mut self, from: Point) -> Result<Option<usize>, RegexError> {
        let mut frames: Vec<Frame> = Vec::new();
        let mut step = self.enter(from, &mut frames)?;
        loop {
            match step {
                Step::Enter(point) => step = self.enter(point, &mut frames)?,
                Step::Found(end) => {
                    let Some(frame) = frames.pop() else { return Ok(end) };
                    step = self.resume(frame, end, &mut frames)?;
                }
            }
        }
    }

    /// Follows a point to its next fork, and opens that.
    fn enter(&mut self, point: Point, frames: &mut Vec<Frame>) -> Result<Step, RegexError> {
        let point = match self.follow(point, |_, _, _| {}) {
            Followed::Fork(point) => point,
            Followed::Ended(end) => return Ok(Step::Found(end)),
        };
        if let Some(end) = self.known(point) {
            return Ok(Step::Found(end));
        }
        let (first, second) = self.choices(point)?;
        Ok(match (first, second) {
            (Some(first), second) => {
                frames.push(Frame {
                    point,
                    second: Some(second),
                    best: None,
                });
                Step::Enter(first)
            }
            (None, second) => {
                frames.push(Frame {
                    point,
                    second: None,
                    best: None,
                });
                Step::Enter(second)
            }
        })
    }

    fn resume(
        &mut self,
        frame: Frame,
        end: Option<usize>,
        frames: &mut Vec<Frame>,
    ) -> Result<Step, RegexError> {
        let fork = matches!(self.state(frame.point.state), State::Fork { .. });
        if let Some(second) = frame.second
            && (fork || end.is_none())
        {
            frames.push(Frame {
                point: frame.point,
                second: None,
                best: end,
            });
            return Ok(Step::Enter(second));
        }
        let end = end.max(frame.best);
        self.remember(frame.point, end)?;
        Ok(Step::Found(end))
    }

    fn known(&self, point: Point) -> Option<Option<usize>> {
        if self.refuse_empty_at == Some(point.position) {
            return self.memo_here.get(&point).copied();
        }
        self.memo.get(point, self.nfa.fork_numbers[point.state as usize])
    }

    fn remember(&mut self, point: Point, end: Option<usize>) -> Result<(), RegexError> {
        if self.refuse_empty_at == Some(point.position) {
            self.memo_here.insert(point, end);
            return Ok(());
        }
        self.memo
            .set(point, self.nfa.fork_numbers[point.state as usize], end)
    }

    /// Reads the captures off the chosen path.
    fn walk(&mut self, from: Point, captures: &mut Captures) -> Result<(), RegexError> {
        let mut begins = vec![0; captures.groups.len()];
        let mut point = from;
        loop {
            let note = |begin: bool, group: u32, position: usize| {
                let Some(index) = (group as usize).checked_sub(1) else {
                    return;
                };
                if begin {
                    begins[index] = position;
                } else {
                    captures.groups[index] = Some((begins[index], position));
                }
            };
            let Followed::Fork(fork) = self.follow(point, note) else {
                return Ok(());
            };
            let (first, second) = self.choices(fork)?;
            point = match first {
                None => second,
                Some(first) => {
                    let left = self.best_end(first)?;
                    let longer = match self.state(fork.state) {
                        State::Fork { .. } => self.best_end(second)? > left,
                        _ => left.is_none(),
                    };
                    if longer { second } else { first }
                }
            };
        }
    }

    /// The two ways on from a fork; a loop whose rounds are used up has only the second.
    fn choices(&mut self, point: Point) -> Result<(Option<Point>, Point), RegexError> {
        Ok(match self.state(point.state) {
            State::Loop { body, exit, counted } => {
                let counts = if counted {
                    self.counts.once_more(point.counts, point.state)?
                } else {
                    Some(point.counts)
                };
                let once_more = counts.map(|counts| Point {
                    state: body,
                    counts,
                    ..point
                });
                (once_more, Point { state: exit, ..point })
            }
            State::Fork { left, right } => (
                Some(Point { state: left, ..point }),
                Point {
                    state: right,
                    ..point
                },
            ),
            _ => (None, point),
        })
    }

    fn follow(&self, mut point: Point, mut note: impl FnMut(bool, u32, usize)) -> Followed {
        loop {
            point.state = match self.state(point.state) {
                State::Jump { next } => next,
                State::Bytes { set, next } => match self.text.get(point.position) {
                    Some(&byte) if self.nfa.sets[set as usize].contains(byte) => {
                        point.position += 1;
                        point.counts = 0;
                        next
                    }
                    _ => return Followed::Ended(None),
                },
                State::LineBegin { next } if point.position == 0 => next,
                State::LineEnd { next } if point.position == self.text.len() => next,
                State::LineBegin { .. } | State::LineEnd { .. } => return Followed::Ended(None),
                State::GroupBegin { group, next } => {
                    note(true, group, point.position);
                    next
                }
                State::GroupEnd { group, next } => {
                    note(false, group, point.position);
                    next
                }
                State::Fork { .. } | State::Loop { .. } => return Followed::Fork(point),
                State::Accept => {
                    let reached = self.goal == Goal::Prefix || point.position == self.text.len();
                    let counts = reached && self.refuse_empty_at != Some(point.position);
                    return Followed::Ended(counts.then_some(point.position));
                }
            };
        }
    }

    fn state(&self, id: StateId) -> State {
        self.nfa.states[id as usize]
    }
}

/// Where a path stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Point {
    state: StateId,
    position: usize,
    /// Number of the combination of loop counts at this position.
    counts: u32,
}

#[derive(Clone, Copy)]
struct Frame {
    point: Point,
    second: Option<Point>,
    best: Option<usize>,
}

enum Step {
    Enter(Point),
    Found(Option<usize>),
}

enum Followed {
    Fork(Point),
    Ended(Option<usize>),
}

const UNKNOWN: u32 = 0;
const NONE: u32 = 1;

/// The best end of every point worked out so far.
struct Memo {
    /// For points without loop counts, if the table is small enough: `width` forks for each position.
    table: Vec<u32>,
    width: usize,
    others: FxHashMap<Point, u32>,
    swept_at: usize,
}

impl Memo {
    fn get(&self, point: Point, fork: u32) -> Option<Option<usize>> {
        let coded = if point.counts == 0 && self.width > 0 {
            self.table[point.position * self.width + fork as usize]
        } else {
            self.others.get(&point).copied().unwrap_or(UNKNOWN)
        };
        match coded {
            UNKNOWN => None,
            NONE => Some(None),
            end => Some(Some(end as usize - 2)),
        }
    }

    fn set(&mut self, point: Point, fork: u32, end: Option<usize>) -> Result<(), RegexError> {
        let coded = match end {
            None => NONE,
            Some(end) => u32::try_from(end + 2).map_err(|_| RegexError::TooLarge)?,
        };
        if point.counts == 0 && self.width > 0 {
            self.table[point.position * self.width + fork as usize] = coded;
            return Ok(());
        }
        if self.others.len() >= MEMO_MAX {
            return Err(RegexError::TooLarge);
        }
        self.others.insert(point, coded);
        Ok(())
    }

    /// Drops what lies before `position` once it is worth the pass over the rest.
    fn sweep(&mut self, position: usize) {
        const WORTH_BYTES: usize = 4096;
        if position - self.swept_at.min(position) >= WORTH_BYTES.max(self.others.len() / 64) {
            self.others.retain(|point, _| point.position >= position);
            self.swept_at = position;
        }
    }
}

/// The combinations of "loop entered so many times at this place" met so far; number 0 is the empty one.
struct Counts {
    known: Vec<Vec<(StateId, u8)>>,
    numbers: FxHashMap<Vec<(StateId, u8)>, u32>,
    more: FxHashMap<(u32, StateId), Option<u32>>,
    entries: usize,
}

impl Counts {
    fn new() -> Self {
        Self {
            known: vec![Vec::new()],
            numbers: std::iter::once((Vec::new(), 0)).collect(),
            more: FxHashMap::default(),
            entries: 0,
        }
    }

    /// The combination after entering `state` once more; `None` when it was entered twice already.
    fn once_more(&mut self, from: u32, state: StateId) -> Result<Option<u32>, RegexError> {
        if let Some(&known) = self.more.get(&(from, state)) {
            return Ok(known);
        }
        let mut counts = self.known[from as usize].clone();
        let allowed = match counts.binary_search_by_key(&state, |&(id, _)| id) {
            Ok(index) if counts[index].1 >= 2 => false,
            Ok(index) => {
                counts[index].1 += 1;
                true
            }
            Err(index) => {
                counts.insert(index, (state, 1));
                true
            }
        };
        let number = if allowed { Some(self.number(counts)?) } else { None };
        self.more.insert((from, state), number);
        Ok(number)
    }

    fn number(&mut self, counts: Vec<(StateId, u8)>) -> Result<u32, RegexError> {
        if let Some(&number) = self.numbers.get(&counts) {
            return Ok(number);
        }
        self.entries += counts.len();
        if self.entries > COUNTS_MAX {
            return Err(RegexError::TooLarge);
        }
        let number = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        self.known.push(counts.clone());
        self.numbers.insert(counts, number);
        Ok(number)
    }
}
