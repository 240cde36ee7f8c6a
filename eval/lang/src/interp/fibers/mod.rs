//! Fibers: parts of one evaluation that wait for the world side by side.
//!
//! An evaluation starts as one line of computation, on the stack of its caller (fiber 0). When that has to wait for a build
//! or a fetch, the loops it is inside of ([`wide`]) say what will be needed next, and those items are started in fibers of
//! their own, one at a time, as long as nothing that was started before can run. What never waits never gets a fiber.
//!
//! Map
//! - [`wide`]: loops whose items are all needed, and what their items give;
//! - [`schedule`]: who runs next, and waiting in circles;
//! - [`switch`]: stacks, and changing between them.
//!
//! Invariants
//! - an item is started only if the loop it belongs to would come to it unless an earlier item fails;
//! - a loop takes its items' results in its own order, so that the error it ends with is the one of the first item that
//!   fails; what it does not take is stopped before it ends, so a fiber never outlives the call that led to it;
//! - a pending thunk belongs to one fiber. That fiber is computing it, or waits for something it needs: a circle of fibers
//!   that wait for each other's thunks and items is a value that needs itself;
//! - at most [`FIBERS_MAX`] fibers beside the first are alive.

pub(super) mod schedule;
pub(super) mod switch;
pub(crate) mod wide;

use std::rc::Rc;

use crate::error::{ErrorKind, EvalError, R};
use crate::heap::stack::Stack;
use crate::heap::thunk::{FiberId, Thunk};
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::io::{FetchRequest, Fetched, IoError, Pending, Started};
use crate::pos::Pos;
use switch::{FiberStack, Parked, Parker};
use wide::{Outcome, Wide};

/// Fibers alive beside the first. Each reserves the address space of a whole stack; what it commits is what it uses.
const FIBERS_MAX: usize = 64;

/// The fiber that the caller of the evaluation waits for.
pub(super) const FIRST: FiberId = FiberId(0);

/// What a fiber waits for.
#[derive(Clone, Copy)]
enum Wait {
    /// An answer of the world; the fiber knows which.
    World,
    /// The value of a thunk that another fiber computes, wanted at this place.
    Thunk(Thunk, Pos),
    /// The result of an item it needs next.
    Item(FiberId),
    /// The end of a fiber it has stopped.
    End(FiberId),
}

/// Where in the order of one line of computation a fiber stands: pairs of loop (inner before outer) and item.
type Place = Box<[(u32, usize)]>;

/// A fiber that is not running, or the first.
struct Fiber {
    id: FiberId,
    parent: FiberId,
    place: Place,
    /// Set while it is parked.
    wait: Option<Wait>,
    /// Whether an answer of the world may have come that it has not looked for.
    news: bool,
    /// What its wait ends with.
    failed: Option<Box<EvalError>>,
    stopped: bool,
    /// Absent for the first, and while it runs.
    parked: Option<(Parked, Context)>,
    /// What it gave; then it has ended.
    outcome: Option<R<Outcome>>,
}

/// What belongs to the running fiber and is exchanged when another runs.
struct Context {
    id: FiberId,
    parker: Option<Parker>,
    stack: Stack,
    stack_floor: usize,
    depth: u32,
    wide: Vec<Wide>,
}

/// The fibers of an evaluation.
pub(super) struct Fibers {
    /// The running one.
    id: FiberId,
    parker: Option<Parker>,
    /// The first, then all others that have not been taken note of.
    list: Vec<Fiber>,
    pool: Vec<FiberStack>,
    alive_max: usize,
    last_id: u64,
    /// Whether all who wait for the world have looked since something was last started.
    looked: bool,
}

impl Default for Fibers {
    fn default() -> Self {
        Self {
            id: FIRST,
            parker: None,
            list: vec![Fiber::new(FIRST, FIRST, Box::default())],
            pool: Vec::new(),
            alive_max: FIBERS_MAX,
            last_id: FIRST.0,
            looked: false,
        }
    }
}

impl Fiber {
    fn new(id: FiberId, parent: FiberId, place: Place) -> Self {
        Self {
            id,
            parent,
            place,
            wait: None,
            news: false,
            failed: None,
            stopped: false,
            parked: None,
            outcome: None,
        }
    }
}

impl Fibers {
    /// The running fiber.
    #[inline]
    pub(super) const fn running(&self) -> FiberId {
        self.id
    }

    fn get(&self, id: FiberId) -> Option<&Fiber> {
        self.list.iter().find(|fiber| fiber.id == id)
    }

    fn get_mut(&mut self, id: FiberId) -> Option<&mut Fiber> {
        self.list.iter_mut().find(|fiber| fiber.id == id)
    }

    fn has_ended(&self, id: FiberId) -> bool {
        self.get(id).is_none_or(|fiber| fiber.outcome.is_some())
    }

    /// Forgets a fiber that has ended.
    fn take(&mut self, id: FiberId) -> Option<R<Outcome>> {
        let at = self.list.iter().position(|fiber| fiber.id == id)?;
        self.list.swap_remove(at).outcome
    }
}

impl Interp {
    /// The value of a thunk that is being computed: infinite recursion if by this fiber, else worth waiting for.
    #[cold]
    #[inline(never)]
    pub(super) fn await_thunk(&mut self, thunk: Thunk, pos: Pos) -> R<Value> {
        match thunk.pending_in() {
            Some(owner) if owner == self.fibers.id => return Err(Self::infinite_recursion(pos)),
            Some(_) => self.park(Wait::Thunk(thunk, pos))?,
            None => {}
        }
        match thunk.done() {
            Some(value) => Ok(value),
            None => self.force_thunk(thunk, pos),
        }
    }

    /// Tells those who wait for a thunk that it failed. What failed for want of stack, or because of who asked, may succeed
    /// for others: they try themselves.
    #[cold]
    pub(super) fn tell_failed(&mut self, thunk: Thunk, error: &EvalError) {
        let ours = matches!(
            error.kind,
            ErrorKind::StackOverflow
                | ErrorKind::InfiniteRecursion
                | ErrorKind::Cancelled
                | ErrorKind::Interrupted
        );
        if ours {
            return;
        }
        for fiber in &mut self.fibers.list {
            if matches!(fiber.wait, Some(Wait::Thunk(wanted, _)) if wanted == thunk) {
                fiber.failed.get_or_insert_with(|| Box::new(error.clone()));
            }
        }
    }

    /// Whether a thunk is being computed by this line of computation, so that forcing it here would not end.
    pub(crate) fn is_being_computed(&self, thunk: Thunk) -> bool {
        let Some(owner) = thunk.pending_in() else {
            return false;
        };
        let mut here = self.fibers.id;
        while here != owner {
            match self.fibers.get(here) {
                Some(fiber) if fiber.parent != here => here = fiber.parent,
                _ => return false,
            }
        }
        true
    }

    /// Makes store paths exist.
    pub(crate) fn realise_elems(
        &mut self,
        elems: &[crate::heap::context::ContextElem],
    ) -> R<Vec<(String, String)>> {
        let io = Rc::clone(&self.io);
        self.answer(io.start_realise(elems))
    }

    /// Fetches something.
    pub(crate) fn fetch(&mut self, request: &FetchRequest) -> R<Fetched> {
        let io = Rc::clone(&self.io);
        self.answer(io.start_fetch(request))
    }

    /// The answer of the world, waited for if need be.
    fn answer<T>(&mut self, started: Started<'_, T>) -> R<T> {
        let answer = match started {
            Started::Done(answer) => answer,
            Started::Pending(pending) => self.await_answer(pending)?,
        };
        answer.map_err(|e| Self::io_error(&e))
    }

    #[cold]
    fn await_answer<T>(&mut self, mut pending: Box<dyn Pending<T> + '_>) -> R<Result<T, IoError>> {
        loop {
            if let Some(answer) = pending.poll() {
                return Ok(answer);
            }
            self.park(Wait::World)?;
        }
    }
}
