use std::cell::Cell;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::pure::oracle;

fn sorted(items: &[i64], less: impl Fn(i64, i64) -> bool) -> Vec<i64> {
    let mut items = items.to_vec();
    let Ok(()) = peek_sort(&mut items, |a, b| Ok::<_, Infallible>(less(*a, *b)));
    items
}

fn comparator(name: &[u8]) -> fn(i64, i64) -> bool {
    match name {
        b"true" => |_, _| true,
        b"false" => |_, _| false,
        b"a < b" => |a, b| a < b,
        b"a > b" => |a, b| a > b,
        b"a <= b" => |a, b| a <= b,
        b"mod (a * 7) 3 < mod b 5" => |a, b| (a * 7) % 3 < b % 5,
        b"mod (a + b) 2 == 0" => |a, b| (a + b) % 2 == 0,
        b"mod a 4 < mod b 4" => |a, b| a % 4 < b % 4,
        b"mod (a * b) 7 < 3" => |a, b| (a * b) % 7 < 3,
        b"mod (a - b + 30) 3 == 1" => |a, b| (a - b + 30) % 3 == 1,
        other => panic!("no such comparator: {}", other.escape_ascii()),
    }
}

/// Every recorded list under every recorded comparator, most of which are no orderings.
#[test]
fn sorts_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/sort.tsv"));
    assert!(cases.len() > 290, "the table is whole");
    let numbers = |field: &[u8]| -> Vec<i64> {
        let text = String::from_utf8(field.to_vec()).unwrap();
        text.split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect()
    };
    for case in cases {
        let found = sorted(&numbers(&case[1]), comparator(&case[0]));
        assert_eq!(
            found,
            numbers(&case[2]),
            "{} on {:?}",
            case[0].escape_ascii(),
            numbers(&case[1])
        );
    }
}

/// Runs are used: sorted and reversed input take a number of comparisons linear in its length.
#[test]
fn runs_are_cheap() {
    let count = Cell::new(0_usize);
    let rising: Vec<i64> = (0..10_000).collect();
    let falling: Vec<i64> = (0..10_000).rev().collect();
    for items in [rising, falling] {
        count.set(0);
        sorted(&items, |a, b| {
            count.set(count.get() + 1);
            a < b
        });
        assert!(count.get() <= items.len() + 1, "{} comparisons", count.get());
    }
}

/// The comparator's error comes out, and comparing stops at once.
#[test]
fn errors_stop_the_sort() {
    for fail_at in [1, 5, 40, 200] {
        let mut calls = 0;
        let mut items: Vec<u32> = (0..64).map(|n| n * 37 % 64).collect();
        let result = peek_sort(&mut items, |a, b| {
            calls += 1;
            if calls == fail_at { Err("stop") } else { Ok(a < b) }
        });
        assert_eq!((result, calls), (Err("stop"), fail_at));
    }
}

proptest! {
    /// With an ordering it is the standard library's stable sort.
    #[test]
    fn agrees_with_stable_sort(items in prop::collection::vec((0_u8..20, any::<u16>()), 0..300)) {
        let mut found = items.clone();
        let Ok(()) = peek_sort(&mut found, |a, b| Ok::<_, Infallible>(a.0 < b.0));
        let mut expected = items;
        expected.sort_by_key(|item| item.0);
        prop_assert_eq!(found, expected);
    }

    /// With answers that make no sense it ends, within n log n comparisons, with a permutation.
    #[test]
    fn any_comparator_ends_with_a_permutation(items in prop::collection::vec(any::<u16>(), 0..300), seed in any::<u64>()) {
        let mut state = seed | 1;
        let mut calls = 0_usize;
        let mut found = items.clone();
        let Ok(()) = peek_sort(&mut found, |_, _| {
            calls += 1;
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Ok::<_, Infallible>(state >> 63 == 1)
        });
        let n = items.len();
        prop_assert!(calls <= n * 16 + n * (n.max(1).ilog2() as usize + 2));
        let (mut found, mut items) = (found, items);
        found.sort_unstable();
        items.sort_unstable();
        prop_assert_eq!(found, items);
    }
}
