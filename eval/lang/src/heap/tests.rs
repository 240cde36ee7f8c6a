//! Values, sets and contexts against plain models.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::arena::Heap;
use super::attrs::Attr;
use super::context::{ContextElem, ContextTable, Ctx};
use super::thunk::FiberId;
use super::value::{Type, Value};
use crate::pos::Pos;
use crate::symbol::{Symbol, SymbolTable};

#[test]
fn scalars_keep_their_values() {
    let heap = Heap::new();
    for n in [
        0,
        1,
        -1,
        i64::MAX,
        i64::MIN,
        (1 << 60) - 1,
        1 << 60,
        -(1 << 60),
        -(1 << 60) - 1,
    ] {
        assert_eq!(heap.int(n).as_int(), Some(n));
        assert_eq!(heap.int(n).kind_of(), Type::Int);
    }
    assert_eq!(heap.float(1.5).as_float(), Some(1.5));
    assert_eq!(heap.string(b"abc").as_str(), Some(b"abc".as_slice()));
    assert_eq!(heap.path(b"/a").as_path(), Some(b"/a".as_slice()));
    assert_eq!(
        (Value::NULL.kind_of(), Value::TRUE.kind_of()),
        (Type::Null, Type::Bool)
    );
}

#[test]
fn strings_carry_their_context() {
    let heap = Heap::new();
    for len in [0usize, 1, 7, 8, 9, 100] {
        let text = vec![b'x'; len];
        let value = heap.string_ctx(&text, Ctx(7));
        assert_eq!((value.as_str(), value.ctx()), (Some(text.as_slice()), Ctx(7)));
        assert_eq!(heap.string(&text).ctx(), Ctx::EMPTY);
    }
}

#[test]
fn large_objects_have_blocks_of_their_own() {
    let heap = Heap::new();
    let count = if cfg!(miri) { 40_000 } else { 1_000_000 };
    let long = heap.list_with(count, |i| heap.int(i as i64));
    let small = heap.list(&[Value::TRUE]);
    assert_eq!(long.as_list().map(<[Value]>::len), Some(count));
    assert_eq!(small.as_list(), Some([Value::TRUE].as_slice()));
}

#[test]
fn a_thunk_is_computed_once_or_given_back() {
    let heap = Heap::new();
    let value = heap.apply(Value::NULL, &[Value::TRUE]);
    let thunk = value.as_thunk().expect("a thunk");
    let (claim, _) = thunk.claim(FiberId(1)).expect("unclaimed");
    assert!(thunk.claim(FiberId(2)).is_none() && thunk.pending_in() == Some(FiberId(1)));
    thunk.give_back(claim);
    let (claim, _) = thunk.claim(FiberId(1)).expect("given back");
    thunk.finish(claim, Value::FALSE);
    assert_eq!(thunk.done(), Some(Value::FALSE));
    assert!(thunk.claim(FiberId(1)).is_none());
}

fn attrs(heap: &Heap, map: &BTreeMap<u32, i64>) -> Value {
    let attrs: Vec<Attr> = map
        .iter()
        .map(|(n, v)| (Symbol(*n), heap.int(*v), Pos(*n + 1)))
        .collect();
    heap.set_of_sorted(&attrs)
}

fn read(heap: &Heap, value: Value) -> BTreeMap<u32, i64> {
    let set = value.as_set().expect("a set");
    heap.flat(set)
        .iter()
        .map(|(n, v, _)| (n.0, v.as_int().unwrap_or_default()))
        .collect()
}

/// Names in the test of updates.
const NAMES: u32 = 160;

/// A symbol for each name, in the same order.
fn spread(name: u32, sparse: bool) -> u32 {
    if sparse { 7 + name * name * name } else { 7 + name }
}

#[test]
fn sets_made_alike_share_their_shape() {
    let heap = Heap::new();
    let shape = |map: &[(u32, i64)]| {
        let set = attrs(&heap, &map.iter().copied().collect());
        std::ptr::from_ref(heap.flat(set.as_set().expect("a set")).shape)
    };
    assert_eq!(shape(&[(1, 1), (2, 2)]), shape(&[(1, 3), (2, 4)]));
    assert_ne!(shape(&[(1, 1), (2, 2)]), shape(&[(1, 1), (3, 2)]));
    let elsewhere = heap.set_of_sorted(&[(Symbol(1), Value::NULL, Pos(9)), (Symbol(2), Value::NULL, Pos(9))]);
    let elsewhere = heap.flat(elsewhere.as_set().expect("a set"));
    assert_ne!(shape(&[(1, 1), (2, 2)]), std::ptr::from_ref(elsewhere.shape));
}

proptest! {
    /// A chain of updates of sets of all sizes agrees with a plain map: look-ups, counts and contents, before and after
    /// flattening, and again with other values when how the shapes merge is remembered.
    #[test]
    fn updates_agree_with_a_map(
        steps in prop::collection::vec(
            (any::<bool>(), prop::collection::btree_map(0u32..NAMES, any::<i64>(), 0..90)), 1..14),
        sparse in any::<bool>(),
    ) {
        let heap = Heap::new();
        for round in 0..3 {
            let mut model: BTreeMap<u32, i64> = BTreeMap::new();
            let mut value = heap.empty_set();
            for (on_top, step) in &steps {
                // names far apart fall into other buckets than names that follow each other
                let step = step.iter().map(|(name, n)| (spread(*name, sparse), n.wrapping_add(round)));
                let step: BTreeMap<u32, i64> = step.collect();
                let other = attrs(&heap, &step);
                let (a, b) = if *on_top { (value, other) } else { (other, value) };
                value = heap.update(a.as_set().expect("set"), b.as_set().expect("set"));
                for (name, n) in step {
                    if *on_top { model.insert(name, n); } else { model.entry(name).or_insert(n); }
                }
                let set = value.as_set().expect("set");
                prop_assert_eq!(set.len(), model.len());
                for name in 0..NAMES + 2 {
                    let name = spread(name, sparse);
                    let found = set.value_of(Symbol(name)).and_then(Value::as_int);
                    prop_assert_eq!(found, model.get(&name).copied());
                    let place = model.get(&name).map(|_| Pos(name + 1));
                    prop_assert_eq!(set.get(Symbol(name)).map(|(_, pos)| pos), place);
                }
            }
            prop_assert_eq!(read(&heap, value), model.clone());
            prop_assert_eq!(value.as_set().expect("set").len(), model.len());
            let gone: Vec<Symbol> = model.keys().step_by(2).map(|n| Symbol(*n)).collect();
            let left = heap.without(value.as_set().expect("set"), &gone);
            model.retain(|n, _| !gone.contains(&Symbol(*n)));
            prop_assert_eq!(read(&heap, left), model);
        }
    }

    /// Interned contexts are sets: order and repetition do not matter, union is union.
    #[test]
    fn contexts_are_sets(a in prop::collection::vec(0u8..6, 0..6), b in prop::collection::vec(0u8..6, 0..6)) {
        let mut table = ContextTable::new();
        let elem = |n: &u8| match n % 3 {
            0 => ContextElem::Opaque(vec![*n].into()),
            1 => ContextElem::DrvDeep(vec![*n].into()),
            _ => ContextElem::Built { drv: vec![*n].into(), output: b"out".as_slice().into() },
        };
        let (x, y) = (table.of(a.iter().map(elem)), table.of(b.iter().map(elem)));
        let mut reversed: Vec<u8> = a.clone();
        reversed.reverse();
        prop_assert_eq!(table.of(reversed.iter().map(elem)), x);
        let both = table.union(x, y);
        prop_assert_eq!(table.union(y, x), both);
        let expected: BTreeSet<ContextElem> = a.iter().chain(&b).map(elem).collect();
        prop_assert_eq!(table.elems(both), expected.into_iter().collect::<Vec<_>>());
    }

    /// Symbols are equal exactly when names are.
    #[test]
    fn symbols_stand_for_names(names in prop::collection::vec("[a-c]{0,3}", 0..20)) {
        let mut table = SymbolTable::new();
        let symbols: Vec<Symbol> = names.iter().map(|n| table.intern(n.as_bytes())).collect();
        for (a, x) in names.iter().zip(&symbols) {
            prop_assert_eq!(table.name(*x), a.as_bytes());
            for (b, y) in names.iter().zip(&symbols) {
                prop_assert_eq!(a == b, x == y);
            }
        }
    }
}
