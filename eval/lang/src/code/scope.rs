//! Name resolution: which slot, constant or `with` a variable means.
//!
//! Bindings form one stack per name (threaded through [`Scopes::bindings`]), so that a look-up is one step; units (functions
//! and thunks) form a stack of their own, and a variable of an outer unit is captured by every unit in between.

use rustc_hash::FxHashMap;

use super::Var;
use crate::heap::value::Value;
use crate::num::{to_u32, to_usize};
use crate::pos::Pos;
use crate::symbol::Symbol;

/// What a name means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Slot(Place),
    Const(Value),
    /// An attribute of the set in a slot: names of a `rec` set with `__overrides`.
    Attr(Place),
}

/// A slot of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) struct Place {
    pub(super) unit: u32,
    pub(super) slot: u32,
}

struct Binding {
    name: Symbol,
    target: Target,
    /// Index plus one of the binding this one shadows.
    shadowed: u32,
}

/// A function or thunk being compiled.
#[derive(Default)]
pub(super) struct Unit {
    pub(super) captures: Vec<Var>,
    captured: Captured,
    next_slot: u32,
    pub(super) frame: u32,
}

/// Which places a unit has captured: a list while short, an index when long.
#[derive(Default)]
struct Captured {
    list: Vec<Place>,
    index: FxHashMap<Place, u32>,
}

const LIST_MAX: usize = 12;

impl Captured {
    fn find(&self, place: Place) -> Option<u32> {
        if self.list.len() <= LIST_MAX {
            return self.list.iter().position(|p| *p == place).map(to_u32);
        }
        self.index.get(&place).copied()
    }

    fn push(&mut self, place: Place) -> u32 {
        let i = to_u32(self.list.len());
        self.list.push(place);
        if self.list.len() > LIST_MAX {
            if self.index.is_empty() {
                self.index = self
                    .list
                    .iter()
                    .enumerate()
                    .map(|(i, p)| (*p, to_u32(i)))
                    .collect();
            }
            self.index.insert(place, i);
        }
        i
    }
}

/// All open scopes. Kept between files for its memory; empty between them.
#[derive(Default)]
pub(crate) struct Scopes {
    bindings: Vec<Binding>,
    /// By symbol: index plus one of its innermost binding.
    heads: Vec<u32>,
    pub(super) units: Vec<Unit>,
    /// Slots of the open `with`s, outermost first, and where they stand.
    pub(super) withs: Vec<(Place, Pos)>,
}

impl Scopes {
    /// Forgets everything, after an error in the middle of a file.
    pub(super) fn clear(&mut self) {
        self.pop_to(0);
        self.units.clear();
        self.withs.clear();
    }

    /// Marks the current scope, for [`Scopes::pop_to`].
    pub(super) fn mark(&self) -> usize {
        self.bindings.len()
    }

    /// Opens a binding.
    pub(super) fn bind(&mut self, name: Symbol, target: Target) {
        let i = to_usize(name.0);
        if i >= self.heads.len() {
            self.heads.resize(i + 1, 0);
        }
        let shadowed = std::mem::replace(&mut self.heads[i], to_u32(self.bindings.len()) + 1);
        self.bindings.push(Binding {
            name,
            target,
            shadowed,
        });
    }

    /// Changes what the innermost binding of a name means.
    pub(super) fn rebind(&mut self, name: Symbol, target: Target) {
        if let Some(i) = self.head(name) {
            self.bindings[i].target = target;
        }
    }

    /// Closes the bindings opened since `mark`.
    pub(super) fn pop_to(&mut self, mark: usize) {
        while self.bindings.len() > mark {
            if let Some(binding) = self.bindings.pop() {
                self.heads[to_usize(binding.name.0)] = binding.shadowed;
            }
        }
    }

    fn head(&self, name: Symbol) -> Option<usize> {
        to_usize(*self.heads.get(to_usize(name.0))?).checked_sub(1)
    }

    /// What a name means by lexical scope.
    pub(super) fn lookup(&self, name: Symbol) -> Option<Target> {
        self.head(name).map(|i| self.bindings[i].target)
    }

    /// The number of the unit being compiled.
    pub(super) fn unit(&self) -> u32 {
        to_u32(self.units.len()) - 1
    }

    /// A fresh slot of the current unit.
    pub(super) fn slot(&mut self) -> Place {
        let unit = self.unit();
        let current = &mut self.units[to_usize(unit)];
        let slot = current.next_slot;
        current.next_slot += 1;
        current.frame = current.frame.max(current.next_slot);
        Place { unit, slot }
    }

    /// The next slot number, for giving slots back with [`Scopes::release`].
    pub(super) fn next_slot(&self) -> u32 {
        self.units.last().map_or(0, |u| u.next_slot)
    }

    /// Gives back the slots from `slot` on: their scope is closed.
    pub(super) fn release(&mut self, slot: u32) {
        if let Some(unit) = self.units.last_mut() {
            unit.next_slot = slot;
        }
    }

    /// How the current unit reaches a place, capturing it on the way.
    pub(super) fn reach(&mut self, place: Place) -> Var {
        let current = self.unit();
        if place.unit == current {
            return Var::Local(place.slot);
        }
        let known = (place.unit + 1..=current).rev().find_map(|u| {
            self.units[to_usize(u)]
                .captured
                .find(place)
                .map(|i| (u, Var::Up(i)))
        });
        let (from, mut var) = known.unwrap_or((place.unit, Var::Local(place.slot)));
        for u in from + 1..=current {
            let unit = &mut self.units[to_usize(u)];
            unit.captures.push(var);
            var = Var::Up(unit.captured.push(place));
        }
        var
    }
}
