//! Loops whose items are all needed: what may be started early when one of them has to wait.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::FxHashSet;

use super::Wait;
use crate::derivations::{Find, Met};
use crate::error::R;
use crate::heap::attrs::FlatSet;
use crate::heap::context::Ctx;
use crate::heap::shape::Shape;
use crate::heap::thunk::FiberId;
use crate::heap::value::{Type, Value};
use crate::interp::{Coerce, Interp};
use crate::num::to_usize;
use crate::pos::Pos;
use crate::symbol::Symbol;

/// What a loop does with each of its items.
#[derive(Clone)]
pub(crate) enum Job {
    /// Evaluates everything in it, except what has been seen.
    Deep(Rc<Seen>),
    /// Makes text of it.
    Coerce(Coerce, Pos, &'static str),
    /// Writes it as JSON: whether it evaluates it, and whether paths are copied to the store.
    Json { strict: bool, copy: bool, pos: Pos },
    /// Makes an attribute of a derivation of it.
    Attr(crate::builtins::AttrJob),
    /// Looks for derivations in it.
    Find(Rc<Find>),
    /// Answers one of several questions.
    Goal(Rc<crate::goals::Goals>),
}

/// What an item that was started early gave.
pub(crate) enum Outcome {
    /// It was evaluated.
    Deep(Rc<Seen>),
    /// Text or JSON.
    Text(Cow<'static, [u8]>, Ctx),
    /// Nothing is made of it.
    Skipped,
    /// Derivations.
    Found(Vec<Met>),
    /// The answer to a question.
    Goal(crate::goals::Answer),
}

/// Values met so far.
#[derive(Default)]
pub(crate) struct Seen {
    own: RefCell<FxHashSet<u64>>,
    /// Those of the line of computation that will wait for this one.
    outer: Option<Rc<Seen>>,
}

impl Seen {
    /// Takes note of a value; false when it was met before.
    pub(crate) fn insert(&self, value: Value) -> bool {
        let bits = value.bits();
        let mut outer = self.outer.as_deref();
        while let Some(seen) = outer {
            if seen.own.borrow().contains(&bits) {
                return false;
            }
            outer = seen.outer.as_deref();
        }
        self.own.borrow_mut().insert(bits)
    }

    /// Takes note of everything that was met elsewhere.
    pub(crate) fn merge(&self, other: &Self) {
        self.own.borrow_mut().extend(other.own.borrow().iter());
    }
}

/// The items of a loop, in order.
#[derive(Clone, Copy)]
pub(crate) struct Items {
    values: &'static [Value],
    shape: Option<&'static Shape>,
    order: Option<&'static [u32]>,
}

impl Items {
    /// Of a list.
    pub(crate) const fn list(values: &'static [Value]) -> Self {
        Self {
            values,
            shape: None,
            order: None,
        }
    }

    /// Of a set, by symbol.
    pub(crate) const fn set(flat: FlatSet) -> Self {
        Self {
            values: flat.values,
            shape: Some(flat.shape),
            order: None,
        }
    }

    /// Of a set, in the order of names as text.
    pub(crate) fn sorted(flat: FlatSet, interp: &Interp) -> Self {
        Self {
            order: Some(flat.shape.by_name(&interp.heap, &interp.symbols)),
            ..Self::set(flat)
        }
    }

    /// Name, value and place of item `i`; without name in a list.
    pub(crate) fn get(self, i: usize) -> (Option<Symbol>, Value, Pos) {
        let i = self.order.map_or(i, |order| to_usize(order[i]));
        match self.shape {
            Some(shape) => (Some(shape.names()[i]), self.values[i], shape.position(i)),
            None => (None, self.values[i], Pos::NONE),
        }
    }
}

/// A loop that is running.
pub(in crate::interp) struct Wide {
    pub(super) job: Job,
    pub(super) items: Items,
    /// The item it has come to.
    at: usize,
    /// The first item that neither was started early nor found to need no evaluation.
    ahead: usize,
    /// Calls open around it.
    pub(super) depth: u32,
    /// Items that were started early and whose results it has not taken.
    started: Vec<(usize, FiberId)>,
}

impl Wide {
    /// The next item worth starting; the same until it is [`Wide::note`]d.
    pub(super) fn next(&mut self) -> Option<usize> {
        self.ahead = self.ahead.max(self.at + 1);
        while self.ahead < self.items.values.len() {
            let (name, value, _) = self.items.get(self.ahead);
            if self.job.is_work(name, value) {
                return Some(self.ahead);
            }
            self.ahead += 1;
        }
        None
    }

    /// Takes note of the fiber that runs an item.
    pub(super) fn note(&mut self, item: usize, fiber: FiberId) {
        self.ahead = item + 1;
        self.started.push((item, fiber));
    }
}

impl Job {
    /// Whether there is anything to evaluate.
    fn is_work(&self, name: Option<Symbol>, value: Value) -> bool {
        let value = value.as_thunk().map_or(Some(value), |thunk| thunk.done());
        let simple = value.is_some_and(|v| !matches!(v.kind_of(), Type::Set | Type::List));
        match self {
            Self::Attr(job) => !simple && job.may_start(name),
            Self::Goal(_) => true,
            Self::Json { strict, .. } => *strict && !simple,
            _ => !simple,
        }
    }

    /// What a fiber does with an item that is started early.
    pub(super) fn run(self, interp: &mut Interp, item: (Option<Symbol>, Value, Pos)) -> R<Outcome> {
        let (name, value, at) = item;
        match self {
            Self::Deep(outer) => {
                let seen = Rc::new(Seen {
                    own: RefCell::default(),
                    outer: Some(outer),
                });
                interp.force_deep_in(value, &seen)?;
                Ok(Outcome::Deep(seen))
            }
            Self::Coerce(how, pos, what) => {
                let mut ctx = Ctx::EMPTY;
                let text = interp.coerce(value, &mut ctx, how, pos, what)?;
                Ok(Outcome::Text(text, ctx))
            }
            Self::Json { strict, copy, pos } => {
                let mut ctx = Ctx::EMPTY;
                let pos = if name.is_some() { at } else { pos };
                let text = interp.write_json(value, strict, copy, &mut ctx, pos)?;
                Ok(Outcome::Text(Cow::Owned(text), ctx))
            }
            Self::Attr(job) => job.run(interp, value),
            Self::Find(find) => find.early(interp, item).map(Outcome::Found),
            Self::Goal(goals) => goals.answer(interp, value).map(Outcome::Goal),
        }
    }
}

impl Interp {
    /// Runs `each` for every item, in order, until one fails. All items must be needed. `each` gets what the item gave, or
    /// why it failed, if it was started early; it must end with that error then, as if it had met it itself.
    pub(crate) fn each_item(
        &mut self,
        items: Items,
        job: Job,
        mut each: impl FnMut(&mut Self, usize, R<Option<Outcome>>) -> R<()>,
    ) -> R<()> {
        self.wide.push(Wide {
            job,
            items,
            at: 0,
            ahead: 0,
            depth: self.depth,
            started: Vec::new(),
        });
        let mut result = Ok(());
        for i in 0..items.values.len() {
            let early = self.arrive(i);
            result = each(self, i, early);
            if result.is_err() {
                break;
            }
        }
        if let Some(wide) = self.wide.pop()
            && !wide.started.is_empty()
        {
            self.stop(&wide.started);
        }
        result
    }

    /// Says that the innermost loop has come to an item, and takes the result if it was started early.
    #[inline]
    fn arrive(&mut self, item: usize) -> R<Option<Outcome>> {
        let Some(wide) = self.wide.last_mut() else {
            return Ok(None);
        };
        wide.at = item;
        if wide.started.is_empty() {
            return Ok(None);
        }
        let found = wide.started.iter().find(|(i, _)| *i == item);
        match found.map(|(_, fiber)| *fiber) {
            Some(fiber) => self.take_item(fiber),
            None => Ok(None),
        }
    }

    #[cold]
    fn take_item(&mut self, fiber: FiberId) -> R<Option<Outcome>> {
        while !self.fibers.has_ended(fiber) {
            self.park(Wait::Item(fiber))?;
        }
        if let Some(wide) = self.wide.last_mut() {
            wide.started.retain(|(_, id)| *id != fiber);
        }
        self.fibers.take(fiber).transpose()
    }

    /// Stops fibers and waits until they have ended.
    #[cold]
    fn stop(&mut self, fibers: &[(usize, FiberId)]) {
        for (_, id) in fibers {
            if let Some(fiber) = self.fibers.get_mut(*id) {
                fiber.stopped = true;
            }
        }
        for (_, id) in fibers {
            while !self.fibers.has_ended(*id) {
                // waiting for an end is never refused
                let _ended = self.park(Wait::End(*id));
            }
            self.fibers.take(*id);
        }
    }
}
