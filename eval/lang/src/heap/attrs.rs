//! Attribute sets: columns of values behind shared shapes, and layers.
//!
//! A set is a list of values; its [`Shape`] says which name each has and where it was defined. How two shapes merge (`//`) is
//! found out once, or twice if they are large: a package set that is put together anew for every platform costs its values.
//! A small update of a large set is a layer on top of it.
//!
//! Invariant: a layered set's count is that of the union of its layers, which nest at most [`LAYERS_MAX`] deep.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use rustc_hash::FxHashMap;

use super::arena::Heap;
use super::object::Obj;
use super::shape::Shape;
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

/// What the heap remembers of merges, whose shapes it knows by their addresses.
#[derive(Default)]
pub(super) struct Plans {
    two: FxHashMap<(usize, usize), Plan>,
    more: FxHashMap<Box<[usize]>, WidePlan>,
}

/// An attribute on its way into a set.
pub(crate) type Attr = (Symbol, Value, Pos);

impl Heap {
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
        let known = self.plans().borrow().two.get(&key).copied();
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
        self.plans().borrow_mut().two.insert(key, plan);
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
        let known = self.plans().borrow().more.get(&key).map(|p| (p.shape, p.source));
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
        self.plans().borrow_mut().more.insert(key, plan);
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

/// The cell the heap keeps its plans in.
pub(super) type PlanCell = RefCell<Plans>;
