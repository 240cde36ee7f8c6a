//! Who runs next.
//!
//! The first fiber runs on the stack of the evaluation's caller. When it parks it runs the others, until its own wait is
//! over; they park back into it. Order of preference: fibers that are to end, those that can go on (in the order of one
//! line of computation, so the first comes first), items that can be started, waiting for the world.

use std::rc::Rc;

use super::switch::{self, FiberStack};
use super::wide::Wide;
use super::{Context, FIRST, Fiber, Place, Wait};
use crate::error::{ErrorKind, EvalError, R};
use crate::heap::thunk::FiberId;
use crate::interp::{Interp, STACK_RESERVE, STACK_VALUES};
use crate::num::to_u32;

impl Interp {
    /// Lets others run until what the running fiber waits for may be there.
    ///
    /// # Errors
    /// When it will not come: the fiber was stopped, what it waits for failed, or waits for this fiber.
    pub(super) fn park(&mut self, wait: Wait) -> R<()> {
        let id = self.fibers.id;
        let to_the_end = matches!(wait, Wait::End(_));
        if !to_the_end && self.fibers.get(id).is_some_and(|fiber| fiber.stopped) {
            return Err(cancelled());
        }
        if let Some(fiber) = self.fibers.get_mut(id) {
            fiber.wait = Some(wait);
            fiber.news = false;
        }
        self.break_circle(id);
        match self.fibers.parker {
            None => self.run_others(),
            Some(parker) => {
                if !self.can_go_on(id) {
                    switch::suspend(self, parker);
                }
            }
        }
        let Some(fiber) = self.fibers.get_mut(id) else {
            return Ok(());
        };
        fiber.wait = None;
        match fiber.failed.take() {
            Some(error) => Err(error),
            None if fiber.stopped && !to_the_end => Err(cancelled()),
            None => Ok(()),
        }
    }

    /// Runs other fibers until the first can go on.
    fn run_others(&mut self) {
        while !self.can_go_on(FIRST) {
            if let Some(id) = self.next_ready() {
                self.switch_to(id);
            } else if !self.fibers.looked {
                self.look_again();
            } else if !self.start_next() {
                if !self.anyone_waits_for_the_world() {
                    // Every circle is found when it closes, so this does not happen; an error is better than silence.
                    self.fail_first();
                    return;
                }
                match Rc::clone(&self.io).wait_any() {
                    Ok(()) => self.look_again(),
                    Err(error) => self.fail_waiting(&Self::io_error(&error)),
                }
            }
        }
    }

    fn can_go_on(&self, id: FiberId) -> bool {
        let Some(fiber) = self.fibers.get(id) else {
            return false;
        };
        let Some(wait) = fiber.wait else {
            return false;
        };
        let to_the_end = matches!(wait, Wait::End(_));
        fiber.failed.is_some()
            || (fiber.stopped && !to_the_end)
            || match wait {
                Wait::World => fiber.news,
                Wait::Thunk(thunk, _) => thunk.pending_in().is_none(),
                Wait::Item(other) | Wait::End(other) => self.fibers.has_ended(other),
            }
    }

    fn next_ready(&self) -> Option<FiberId> {
        let ready = self.fibers.list.iter().filter(|fiber| self.can_go_on(fiber.id));
        let first = ready.min_by(|a, b| (!a.stopped, &a.place).cmp(&(!b.stopped, &b.place)));
        first.map(|fiber| fiber.id)
    }

    fn anyone_waits_for_the_world(&self) -> bool {
        let mut waits = self.fibers.list.iter().map(|fiber| fiber.wait);
        waits.any(|wait| matches!(wait, Some(Wait::World)))
    }

    /// Has everyone who waits for the world look whether the answer is there.
    fn look_again(&mut self) {
        self.fibers.looked = true;
        for fiber in &mut self.fibers.list {
            fiber.news |= matches!(fiber.wait, Some(Wait::World));
        }
    }

    /// Fails everyone who waits for the world.
    fn fail_waiting(&mut self, error: &EvalError) {
        for fiber in &mut self.fibers.list {
            if matches!(fiber.wait, Some(Wait::World)) {
                fiber.failed = Some(Box::new(error.clone()));
            }
        }
    }

    fn fail_first(&mut self) {
        if let Some(first) = self.fibers.get_mut(FIRST) {
            let pos = match first.wait {
                Some(Wait::Thunk(_, pos)) => pos,
                _ => crate::pos::Pos::NONE,
            };
            first.failed = Some(Self::infinite_recursion(pos));
        }
    }

    /// Runs a parked fiber until it parks again or ends. Only the first does this.
    fn switch_to(&mut self, id: FiberId) {
        let Some((mut parked, mut context)) = self.fibers.get_mut(id).and_then(|fiber| fiber.parked.take())
        else {
            return;
        };
        self.exchange(&mut context);
        let ended = switch::resume(&mut parked, self);
        self.exchange(&mut context);
        if ended {
            let stack = FiberStack::reclaim(parked, context.stack);
            self.fibers.pool.push(stack);
        } else if let Some(fiber) = self.fibers.get_mut(id) {
            fiber.parked = Some((parked, context));
        }
    }

    fn exchange(&mut self, context: &mut Context) {
        std::mem::swap(&mut self.fibers.id, &mut context.id);
        std::mem::swap(&mut self.fibers.parker, &mut context.parker);
        std::mem::swap(&mut self.stack, &mut context.stack);
        std::mem::swap(&mut self.stack_floor, &mut context.stack_floor);
        std::mem::swap(&mut self.depth, &mut context.depth);
        std::mem::swap(&mut self.wide, &mut context.wide);
    }

    /// Starts the next item that some waiting loop will need; false when there is none, or no room.
    fn start_next(&mut self) -> bool {
        let alive = self.fibers.list.iter().filter(|fiber| fiber.outcome.is_none());
        if alive.count() > self.fibers.alive_max {
            return false;
        }
        let Some((parent, level, item)) = self.next_item() else {
            return false;
        };
        let Some(stack) = self.fiber_stack() else {
            // no address space: go on with those there are
            self.fibers.alive_max = self.fibers.list.len().saturating_sub(1);
            return false;
        };
        self.fibers.last_id += 1;
        let id = FiberId(self.fibers.last_id);
        let place = self.place_of(parent, level, item);
        let Some(wide) = self.wide_of(parent).and_then(|loops| loops.get_mut(level)) else {
            return false;
        };
        wide.note(item, id);
        let (job, depth) = (wide.job.clone(), wide.depth);
        let what = wide.items.get(item);
        let stack_floor = stack.floor(STACK_RESERVE);
        let (parked, values) = stack.start(move |interp, parker| {
            interp.fibers.parker = Some(parker);
            let outcome = job.run(interp, what);
            if let Some(fiber) = interp.fibers.get_mut(id) {
                fiber.outcome = Some(outcome);
            }
        });
        let context = Context {
            id,
            parker: None,
            stack: values,
            stack_floor,
            depth,
            wide: Vec::new(),
        };
        let mut fiber = Fiber::new(id, parent, place);
        fiber.parked = Some((parked, context));
        self.fibers.list.push(fiber);
        self.fibers.looked = false;
        self.switch_to(id);
        true
    }

    fn fiber_stack(&mut self) -> Option<FiberStack> {
        let bytes = self.settings.stack_bytes;
        let pooled = self.fibers.pool.pop();
        pooled.or_else(|| FiberStack::new(bytes, STACK_VALUES))
    }

    /// The earliest item, in the order of one line of computation, that can be started: its fiber, loop and number.
    fn next_item(&mut self) -> Option<(FiberId, usize, usize)> {
        let waiting = self.fibers.list.iter().filter(|f| f.wait.is_some() && !f.stopped);
        let ids: Vec<FiberId> = waiting.map(|fiber| fiber.id).collect();
        let mut first: Option<(Place, (FiberId, usize, usize))> = None;
        for id in ids {
            let levels = self.wide_of(id).map_or(0, |loops| loops.len());
            for level in (0..levels).rev() {
                let Some(item) = self.wide_of(id).and_then(|loops| loops[level].next()) else {
                    continue;
                };
                let place = self.place_of(id, level, item);
                if first.as_ref().is_none_or(|(known, _)| place < *known) {
                    first = Some((place, (id, level, item)));
                }
                // the loops around this one come later
                break;
            }
        }
        first.map(|(_, item)| item)
    }

    /// The loops a parked fiber is inside of, outermost first.
    fn wide_of(&mut self, id: FiberId) -> Option<&mut Vec<Wide>> {
        if id == self.fibers.id {
            return Some(&mut self.wide);
        }
        let (_, context) = self.fibers.get_mut(id)?.parked.as_mut()?;
        Some(&mut context.wide)
    }

    fn place_of(&self, parent: FiberId, level: usize, item: usize) -> Place {
        let above = self.fibers.get(parent).map_or(&[][..], |fiber| &fiber.place);
        let mut place = above.to_vec();
        place.push((u32::MAX - to_u32(level), item));
        place.into()
    }

    /// If waiting has closed a circle, the last of its fibers that waits for a thunk gets the error: to those before it,
    /// the thunks it gives back are then theirs to compute, and they meet the circle as a single line would.
    fn break_circle(&mut self, start: FiberId) {
        let mut members = vec![start];
        let mut here = start;
        while let Some(next) = self.waits_for(here) {
            if next == start {
                break;
            }
            if members.contains(&next) {
                return;
            }
            members.push(next);
            here = next;
        }
        if self.waits_for(here) != Some(start) {
            return;
        }
        let on_thunks = members.into_iter().filter_map(|id| {
            let fiber = self.fibers.get(id)?;
            match fiber.wait {
                Some(Wait::Thunk(_, pos)) => Some((fiber.place.clone(), id, pos)),
                _ => None,
            }
        });
        let Some((_, id, pos)) = on_thunks.max_by(|a, b| a.0.cmp(&b.0)) else {
            return;
        };
        if let Some(fiber) = self.fibers.get_mut(id) {
            fiber.failed = Some(Self::infinite_recursion(pos));
        }
    }

    /// The fiber that another cannot go on without.
    fn waits_for(&self, id: FiberId) -> Option<FiberId> {
        match self.fibers.get(id)?.wait? {
            Wait::World => None,
            Wait::Thunk(thunk, _) => thunk.pending_in(),
            Wait::Item(other) | Wait::End(other) => (!self.fibers.has_ended(other)).then_some(other),
        }
    }
}

#[cold]
fn cancelled() -> Box<EvalError> {
    EvalError::new(ErrorKind::Cancelled, "the evaluation was stopped")
}
