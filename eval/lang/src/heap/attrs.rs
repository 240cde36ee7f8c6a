//! Attribute sets: columns of values behind shared shapes, and layers.
//!
//! A set is a list of values; its [`Shape`] says which name each has and where it was defined. All sets made by one literal
//! share a shape, and so do sets made otherwise that have the same names from the same places: names and positions are stored
//! once per place in a program instead of once per set, and how two shapes merge (`//`) is found out once. A small update of a
//! large set is a layer on top of it.
//!
//! Invariants
//! - the names of a shape are sorted by symbol and unique;
//! - a layered set's count is that of the union of its layers, which nest at most [`LAYERS_MAX`] deep.

use std::cell::{OnceCell, RefCell};
use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::atomic::Ordering;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::arena::Heap;
use super::object::Obj;
use super::value::Value;
use crate::num::{to_u32, to_usize};
use crate::pos::Pos;
use crate::symbol::{Symbol, SymbolTable};

/// Layers on top of each other; one more flattens.
const LAYERS_MAX: usize = 8;
/// Sets below this size are copied rather than layered.
const LAYER_FROM: usize = 16;
/// How many times larger one side of an update must be for it to be layered.
const LAYER_RATIO: usize = 2;
/// A layer not this many times larger than what is put on top of it is merged with that, so that a set which grows by one
/// attribute at a time is copied as often as the logarithm of its size says, not every few steps.
const LAYER_GROWTH: usize = 4;
/// Merges above this size have their plan remembered when they come a second time; smaller ones at once.
const PLAN_AT_ONCE_MAX: usize = 96;
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
    fn id(&self) -> usize {
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

/// An attribute set.
#[derive(Clone, Copy)]
pub(crate) struct SetRef(pub(super) Obj);

/// A set with its columns at hand.
#[derive(Clone, Copy)]
pub(crate) struct FlatSet {
    pub(crate) shape: &'static Shape,
    pub(crate) values: &'static [Value],
}

impl FlatSet {
    /// Names, values and positions, sorted by symbol.
    pub(crate) fn iter(self) -> impl Iterator<Item = (Symbol, Value, Pos)> {
        let Self { shape, values } = self;
        shape
            .names()
            .iter()
            .zip(values)
            .enumerate()
            .map(move |(i, (n, v))| (*n, *v, shape.position(i)))
    }

    /// Names, values and positions, sorted by name as text.
    pub(crate) fn sorted(
        self,
        heap: &Heap,
        symbols: &SymbolTable,
    ) -> impl Iterator<Item = (Symbol, Value, Pos)> + use<> {
        let Self { shape, values } = self;
        shape.by_name(heap, symbols).iter().map(move |i| {
            let i = to_usize(*i);
            (shape.names()[i], values[i], shape.position(i))
        })
    }
}

impl SetRef {
    /// Number of attributes.
    #[inline]
    pub(crate) fn len(self) -> usize {
        match self.parts() {
            Some((shape, _)) => shape.len(),
            None => self.layers().2,
        }
    }

    /// Value and place of an attribute.
    #[inline]
    pub(crate) fn get(self, name: Symbol) -> Option<(Value, Pos)> {
        match self.parts() {
            Some((shape, values)) => {
                let i = shape.find(name)?;
                Some((values[i], shape.position(i)))
            }
            None => self.get_layered(name),
        }
    }

    fn get_layered(self, name: Symbol) -> Option<(Value, Pos)> {
        if let Some(flat) = self.flat_if_made() {
            return flat.get(name);
        }
        let (base, top, _) = self.layers();
        top.get(name).or_else(|| base.get(name))
    }

    /// The value of an attribute.
    #[inline]
    pub(crate) fn value_of(self, name: Symbol) -> Option<Value> {
        self.get(name).map(|(v, _)| v)
    }

    /// Shape and values, if the set is flat.
    #[inline]
    pub(crate) fn as_flat(self) -> Option<FlatSet> {
        self.parts().map(|(shape, values)| FlatSet { shape, values })
    }

    fn flat_if_made(self) -> Option<Self> {
        Self::from_bits(self.flat_cell().load(Ordering::Acquire))
    }

    /// The lower and the upper set of layers that have not been flattened.
    fn open_layers(self) -> Option<(Self, Self)> {
        if self.parts().is_some() || self.flat_if_made().is_some() {
            return None;
        }
        let (base, top, _) = self.layers();
        Some((base, top))
    }

    /// How deep layers nest; bounded by [`LAYERS_MAX`].
    fn depth(self) -> usize {
        if self.parts().is_some() || self.flat_if_made().is_some() {
            return 0;
        }
        let (base, top, _) = self.layers();
        1 + base.depth().max(top.depth())
    }

    /// The flat sets a layered set is made of, uppermost first.
    fn leaves(self, out: &mut Vec<FlatSet>) {
        if let Some(flat) = self
            .as_flat()
            .or_else(|| self.flat_if_made().and_then(Self::as_flat))
        {
            out.push(flat);
            return;
        }
        let (base, top, _) = self.layers();
        top.leaves(out);
        base.leaves(out);
    }
}

/// How two shapes merge: the result, and for each of its values which side has it and where.
#[derive(Clone, Copy)]
struct Plan {
    shape: &'static Shape,
    /// Index, shifted left, and 1 for the right side; not known for a large merge that was done once.
    source: Option<&'static [u32]>,
}

/// How more than two shapes merge.
struct WidePlan {
    shape: &'static Shape,
    /// Indexes into the values of all, one after the other; not known for a merge that was done once.
    source: Option<&'static [u32]>,
}

/// What the heap remembers about shapes, which it knows by their addresses.
#[derive(Default)]
pub(super) struct Shapes {
    plans: FxHashMap<(usize, usize), Plan>,
    wide: FxHashMap<Box<[usize]>, WidePlan>,
    keys: FxHashMap<KeysId<'static>, &'static Keys>,
    made: FxHashMap<ShapeId<'static>, &'static Shape>,
}

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

/// An attribute on its way into a set.
pub(crate) type Attr = (Symbol, Value, Pos);

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

    /// The empty set.
    pub(crate) fn empty_set(&self) -> Value {
        self.set(self.shape(&[], &[], Pos::NONE), &[])
    }

    /// A set of attributes in any order; of doubles the first stays.
    pub(crate) fn set_of(&self, mut attrs: Vec<Attr>) -> Value {
        attrs.sort_by_key(|a| a.0);
        attrs.dedup_by_key(|a| a.0);
        self.set_of_sorted(&attrs)
    }

    /// A set of attributes sorted by symbol, without doubles.
    pub(crate) fn set_of_sorted(&self, attrs: &[Attr]) -> Value {
        let names: Vec<Symbol> = attrs.iter().map(|a| a.0).collect();
        let positions: Vec<Pos> = attrs.iter().map(|a| a.2).collect();
        let shape = self.shape(&names, &positions, Pos::NONE);
        self.set_with(shape, |i| attrs[i].1)
    }

    /// A set without some attributes it has; `names` is sorted.
    pub(crate) fn without(&self, set: SetRef, names: &[Symbol]) -> Value {
        let flat = self.flat(set);
        let kept: Vec<usize> = (0..flat.values.len())
            .filter(|i| names.binary_search(&flat.shape.names()[*i]).is_err())
            .collect();
        let names: Vec<Symbol> = kept.iter().map(|i| flat.shape.names()[*i]).collect();
        let positions: Vec<Pos> = kept.iter().map(|i| flat.shape.position(*i)).collect();
        let shape = self.shape(&names, &positions, Pos::NONE);
        self.set_with(shape, |i| flat.values[kept[i]])
    }

    /// Shape and values of any set; a layered set is flattened once.
    #[inline]
    pub(crate) fn flat(&self, set: SetRef) -> FlatSet {
        set.as_flat().unwrap_or_else(|| self.flatten(set))
    }

    fn flatten(&self, set: SetRef) -> FlatSet {
        let mut leaves = Vec::new();
        set.leaves(&mut leaves);
        let made = match leaves.as_slice() {
            [only] => return *only,
            [upper, lower] => self.merge_set(*lower, *upper),
            _ => self.merge_all(&leaves),
        };
        set.flat_cell().store(made.value().bits(), Ordering::Release);
        self.flat(made)
    }

    /// `a // b`.
    pub(crate) fn update(&self, a: SetRef, b: SetRef) -> Value {
        let (a_len, b_len) = (a.len(), b.len());
        if b_len == 0 {
            return a.value();
        }
        if a_len == 0 {
            return b.value();
        }
        if let Some((base, top)) = a.open_layers()
            && top.len() <= b_len.saturating_mul(LAYER_GROWTH)
        {
            let upper = SetRef(self.update(top, b).obj());
            return self.update(base, upper);
        }
        let (small, large) = (a_len.min(b_len), a_len.max(b_len));
        let layer = large >= LAYER_FROM && small * LAYER_RATIO <= large;
        if layer && a.depth().max(b.depth()) < LAYERS_MAX {
            let (few, many) = if a_len < b_len { (a, b) } else { (b, a) };
            let both = self
                .flat(few)
                .shape
                .names()
                .iter()
                .filter(|n| many.get(**n).is_some())
                .count();
            return self.layered(a_len + b_len - both, a.value(), b.value());
        }
        self.merge_set(self.flat(a), self.flat(b)).value()
    }

    /// Both sets, of which `b` is the upper one. Sets of the same two shapes give sets of the same shape: a package set that
    /// is put together anew for every platform has its names and positions once.
    fn merge_set(&self, a: FlatSet, b: FlatSet) -> SetRef {
        let key = (a.shape.id(), b.shape.id());
        let known = self.shapes().borrow().plans.get(&key).copied();
        if let Some(Plan {
            shape,
            source: Some(source),
        }) = known
        {
            return self.run_plan(shape, source, a, b);
        }
        let mut source = Vec::with_capacity(a.values.len() + b.values.len());
        let shape = match known {
            Some(plan) => {
                merge_names(a.shape, b.shape, |from, _, _| source.push(from));
                plan.shape
            }
            None => self.merge_shapes(a.shape, b.shape, &mut source),
        };
        let keep = known.is_some() || source.len() <= PLAN_AT_ONCE_MAX;
        let plan = Plan {
            shape,
            source: keep.then(|| self.keep_slice(&source)),
        };
        self.shapes().borrow_mut().plans.insert(key, plan);
        self.run_plan(shape, &source, a, b)
    }

    fn run_plan(&self, shape: &'static Shape, source: &[u32], a: FlatSet, b: FlatSet) -> SetRef {
        let value = self.set_with(shape, |i| {
            let from = source[i];
            let side = if from & 1 == 1 { b.values } else { a.values };
            side[to_usize(from >> 1)]
        });
        SetRef(value.obj())
    }

    fn merge_shapes(&self, a: &'static Shape, b: &'static Shape, source: &mut Vec<u32>) -> &'static Shape {
        let most = a.len() + b.len();
        let (mut names, mut positions) = (Vec::with_capacity(most), Vec::with_capacity(most));
        merge_names(a, b, |from, name, pos| {
            names.push(name);
            positions.push(pos);
            source.push(from);
        });
        self.shape(&names, &positions, Pos::NONE)
    }

    /// All sets, uppermost first; remembered as merges of two are.
    fn merge_all(&self, sets: &[FlatSet]) -> SetRef {
        let key: Box<[usize]> = sets.iter().map(|set| set.shape.id()).collect();
        let values: Vec<Value> = sets.iter().flat_map(|set| set.values).copied().collect();
        let made = |shape, source: &[u32]| {
            let value = self.set_with(shape, |i| values[to_usize(source[i])]);
            SetRef(value.obj())
        };
        let known = self.shapes().borrow().wide.get(&key).map(|p| (p.shape, p.source));
        if let Some((shape, Some(source))) = known {
            return made(shape, source);
        }
        let attrs = sets.iter().flat_map(|set| set.iter());
        let mut attrs: Vec<(Symbol, u32, Pos)> = (0..)
            .zip(attrs)
            .map(|(i, (name, _, pos))| (name, i, pos))
            .collect();
        // The sort is stable: of doubles the uppermost comes first.
        attrs.sort_by_key(|a| a.0);
        attrs.dedup_by_key(|a| a.0);
        let source: Vec<u32> = attrs.iter().map(|a| a.1).collect();
        let shape = known.map_or_else(
            || {
                let (names, positions): (Vec<_>, Vec<_>) = attrs.iter().map(|a| (a.0, a.2)).unzip();
                self.shape(&names, &positions, Pos::NONE)
            },
            |(shape, _)| shape,
        );
        let plan = WidePlan {
            shape,
            source: known.is_some().then(|| self.keep_slice(&source)),
        };
        self.shapes().borrow_mut().wide.insert(key, plan);
        made(shape, &source)
    }
}

/// Hands over the names of both shapes in order, each with its place in a plan and its position; those in both are `b`'s.
fn merge_names(a: &Shape, b: &Shape, mut each: impl FnMut(u32, Symbol, Pos)) {
    let (an, bn) = (a.names(), b.names());
    let (mut i, mut j) = (0, 0);
    while i < an.len() || j < bn.len() {
        let right = j < bn.len() && (i >= an.len() || bn[j] <= an[i]);
        if right {
            i += usize::from(i < an.len() && an[i] == bn[j]);
            each((to_u32(j) << 1) | 1, bn[j], b.position(j));
            j += 1;
        } else {
            each(to_u32(i) << 1, an[i], a.position(i));
            i += 1;
        }
    }
}

/// The cell the heap keeps its shapes in.
pub(super) type ShapeCell = RefCell<Shapes>;
