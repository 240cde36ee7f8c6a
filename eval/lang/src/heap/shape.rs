//! Shapes: the names of a set's attributes and where they were defined.
//!
//! All sets made by one literal share a shape, and so do sets made otherwise that have the same names from the same places:
//! names and positions are stored once per place in a program instead of once per set.
//!
//! Invariants
//! - the names of a shape are sorted by symbol and unique;
//! - of shapes that are not a literal's, equal ones are one, and so are all equal lists of names.

use std::cell::{OnceCell, RefCell};
use std::hash::{BuildHasher as _, Hash, Hasher};

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::arena::Heap;
use crate::num::{to_u32, to_usize};
use crate::pos::Pos;
use crate::symbol::{Symbol, SymbolTable};

/// Below this size a linear scan beats bisection.
const SCAN_MAX: usize = 6;

/// The names of a shape.
pub(crate) struct Keys {
    names: &'static [Symbol],
    by_name: OnceCell<&'static [u32]>,
    bare: OnceCell<&'static Shape>,
}

/// Names and positions of a set's attributes.
pub(crate) struct Shape {
    keys: &'static Keys,
    /// One per name, or empty when none is known.
    positions: &'static [Pos],
    /// Where the set itself was written.
    pub(crate) own: Pos,
}

impl Shape {
    /// Number of attributes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.keys.names.len()
    }

    /// The names, sorted by symbol.
    #[inline]
    pub(crate) fn names(&self) -> &'static [Symbol] {
        self.keys.names
    }

    /// Where attribute `i` was defined.
    #[inline]
    pub(crate) fn position(&self, i: usize) -> Pos {
        self.positions.get(i).copied().unwrap_or(Pos::NONE)
    }

    /// The shape's address: shapes live as long as the heap.
    pub(super) fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// The index of a name.
    #[inline]
    pub(crate) fn find(&self, name: Symbol) -> Option<usize> {
        find_name(self.keys.names, name)
    }

    /// The order of names as text: indexes into the values.
    pub(crate) fn by_name(&self, heap: &Heap, symbols: &SymbolTable) -> &'static [u32] {
        self.keys.by_name.get_or_init(|| {
            let mut order: Vec<u32> = (0..to_u32(self.len())).collect();
            order.sort_by_key(|i| symbols.name(self.keys.names[to_usize(*i)]));
            heap.keep_slice(&order)
        })
    }

    /// The same names without positions.
    pub(crate) fn bare(&'static self, heap: &Heap) -> &'static Self {
        if self.positions.is_empty() && !self.own.is_some() {
            return self;
        }
        self.keys.bare.get_or_init(|| {
            heap.keep(Self {
                keys: self.keys,
                positions: &[],
                own: Pos::NONE,
            })
        })
    }
}

#[inline]
fn find_name(names: &[Symbol], name: Symbol) -> Option<usize> {
    if names.len() <= SCAN_MAX {
        return names.iter().position(|n| *n == name);
    }
    names.binary_search(&name).ok()
}

/// All shapes of a heap but literals', and their names.
#[derive(Default)]
pub(super) struct Shapes {
    keys: FxHashMap<KeysId<'static>, &'static Keys>,
    made: FxHashMap<ShapeId<'static>, &'static Shape>,
}

/// The cell the heap keeps its shapes in.
pub(super) type ShapeCell = RefCell<Shapes>;

/// What makes keys equal. The hash is kept: tables that grow do not read all names again.
#[derive(PartialEq, Eq)]
struct KeysId<'a> {
    hash: u64,
    names: &'a [Symbol],
}

/// What makes shapes equal.
#[derive(PartialEq, Eq)]
struct ShapeId<'a> {
    hash: u64,
    /// The address of the keys.
    keys: usize,
    own: Pos,
    positions: &'a [Pos],
}

impl Hash for KeysId<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for ShapeId<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Heap {
    fn keys(&self, names: &[Symbol]) -> &'static Keys {
        let hash = FxBuildHasher.hash_one(names);
        let known = self.shapes().borrow().keys.get(&KeysId { hash, names }).copied();
        known.unwrap_or_else(|| {
            let names = self.keep_slice(names);
            let keys = self.keep(Keys {
                names,
                by_name: OnceCell::new(),
                bare: OnceCell::new(),
            });
            self.shapes()
                .borrow_mut()
                .keys
                .insert(KeysId { hash, names }, keys);
            keys
        })
    }

    /// A shape of sorted, unique names; `positions` is empty or one per name. Equal ones are one.
    pub(crate) fn shape(&self, names: &[Symbol], positions: &[Pos], own: Pos) -> &'static Shape {
        debug_assert!(names.is_sorted() && (positions.is_empty() || positions.len() == names.len()));
        let keys = self.keys(names);
        if !own.is_some() && positions.iter().all(|p| !p.is_some()) {
            return keys.bare.get_or_init(|| {
                self.keep(Shape {
                    keys,
                    positions: &[],
                    own,
                })
            });
        }
        let address = std::ptr::from_ref(keys).addr();
        let hash = FxBuildHasher.hash_one((address, own, positions));
        let mut id = ShapeId {
            hash,
            keys: address,
            own,
            positions: &[],
        };
        if let Some(known) = self.shapes().borrow().made.get(&ShapeId { positions, ..id }) {
            return known;
        }
        id.positions = self.keep_slice(positions);
        let shape = self.keep(Shape {
            keys,
            positions: id.positions,
            own,
        });
        self.shapes().borrow_mut().made.insert(id, shape);
        shape
    }

    /// The shape of a literal: no other has its place.
    pub(crate) fn literal_shape(&self, names: &[Symbol], positions: &[Pos], own: Pos) -> &'static Shape {
        let (keys, positions) = (self.keys(names), self.keep_slice(positions));
        self.keep(Shape { keys, positions, own })
    }
}
