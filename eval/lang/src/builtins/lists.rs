//! Lists.

use crate::error::{ErrorKind, R, fail};
use crate::heap::object::Func;
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::num::len_to_int;
use crate::pos::Pos;
use crate::pure::peeksort;
use crate::symbol::{Symbol, sym};
use rustc_hash::FxHashMap;

pub(super) fn length(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.length";
    let items = interp.expect_list(args[0], Pos::NONE, what)?;
    Ok(interp.heap.int(len_to_int(items.len())))
}

pub(super) fn elem_at(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the second argument passed to 'builtins.elemAt'";
    let n = interp.expect_int(args[1], Pos::NONE, what)?;
    let what = "while evaluating the first argument passed to 'builtins.elemAt'";
    let items = interp.expect_list(args[0], Pos::NONE, what)?;
    let item = usize::try_from(n).ok().and_then(|i| items.get(i));
    match item {
        Some(item) => interp.force(*item),
        None => {
            let size = items.len();
            fail(
                ErrorKind::Eval,
                format!("'builtins.elemAt' called with index {n} on a list of size {size}"),
            )
        }
    }
}

pub(super) fn head(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to 'builtins.head'";
    match interp.expect_list(args[0], Pos::NONE, what)?.first() {
        Some(first) => interp.force(*first),
        None => fail(ErrorKind::Eval, "'builtins.head' called on an empty list"),
    }
}

pub(super) fn tail(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to 'builtins.tail'";
    match interp.expect_list(args[0], Pos::NONE, what)? {
        [] => fail(ErrorKind::Eval, "'builtins.tail' called on an empty list"),
        [_, rest @ ..] => Ok(interp.heap.list(rest)),
    }
}

pub(super) fn map(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the second argument passed to builtins.map";
    let items = interp.expect_list(args[1], Pos::NONE, what)?;
    if items.is_empty() {
        return interp.force(args[1]);
    }
    let what = "while evaluating the first argument passed to builtins.map";
    let func = interp.expect_function(args[0], Pos::NONE, what)?;
    Ok(interp
        .heap
        .list_with(items.len(), |i| interp.heap.apply(func, &[items[i]])))
}

pub(super) fn filter(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the second argument passed to builtins.filter";
    let items = interp.expect_list(args[1], Pos::NONE, what)?;
    if items.is_empty() {
        return interp.force(args[1]);
    }
    let what = "while evaluating the first argument passed to builtins.filter";
    let func = interp.expect_function(args[0], Pos::NONE, what)?;
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        let result = interp.call(func, &[*item], Pos::NONE)?;
        let what = "while evaluating the return value of the filtering function passed to builtins.filter";
        if interp.expect_bool(result, Pos::NONE, what)? {
            kept.push(*item);
        }
    }
    if kept.len() == items.len() {
        return interp.force(args[1]);
    }
    Ok(interp.heap.list(&kept))
}

pub(super) fn elem(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the second argument passed to builtins.elem";
    let items = interp.expect_list(args[1], Pos::NONE, what)?;
    for item in items {
        if interp.equal_slots(args[0], *item, Pos::NONE)? {
            return Ok(Value::TRUE);
        }
    }
    Ok(Value::FALSE)
}

pub(super) fn concat_lists(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.concatLists";
    let lists = interp.expect_list(args[0], Pos::NONE, what)?;
    interp.concat_lists(
        lists,
        Pos::NONE,
        "while evaluating a value of the list passed to builtins.concatLists",
    )
}

pub(super) fn concat_map(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.concatMap";
    let func = interp.expect_function(args[0], Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.concatMap";
    let items = interp.expect_list(args[1], Pos::NONE, what)?;
    let mut all = Vec::new();
    for item in items {
        let list = interp.call(func, &[*item], Pos::NONE)?;
        let what = "while evaluating the return value of the function passed to builtins.concatMap";
        all.extend_from_slice(interp.expect_list(list, Pos::NONE, what)?);
    }
    Ok(interp.heap.list(&all))
}

pub(super) fn foldl_strict(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.foldlStrict";
    let func = interp.expect_function(args[0], Pos::NONE, what)?;
    let what = "while evaluating the third argument passed to builtins.foldlStrict";
    let items = interp.expect_list(args[2], Pos::NONE, what)?;
    let mut result = args[1];
    for item in items {
        result = interp.call(func, &[result, *item], Pos::NONE)?;
    }
    interp.force(result)
}

fn any_or_all(interp: &mut Interp, args: &[Value], any: bool, words: [&'static str; 3]) -> R<Value> {
    let func = interp.expect_function(args[0], Pos::NONE, words[0])?;
    let items = interp.expect_list(args[1], Pos::NONE, words[1])?;
    for item in items {
        let result = interp.call(func, &[*item], Pos::NONE)?;
        if interp.expect_bool(result, Pos::NONE, words[2])? == any {
            return Ok(Value::bool(any));
        }
    }
    Ok(Value::bool(!any))
}

pub(super) fn any(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    const WORDS: [&str; 3] = [
        "while evaluating the first argument passed to builtins.any",
        "while evaluating the second argument passed to builtins.any",
        "while evaluating the return value of the function passed to builtins.any",
    ];
    any_or_all(interp, args, true, WORDS)
}

pub(super) fn all(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    const WORDS: [&str; 3] = [
        "while evaluating the first argument passed to builtins.all",
        "while evaluating the second argument passed to builtins.all",
        "while evaluating the return value of the function passed to builtins.all",
    ];
    any_or_all(interp, args, false, WORDS)
}

/// Words a generated item takes: its place in the list and the thunk that makes it.
const WORDS_PER_ITEM: usize = 4;

pub(super) fn gen_list(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the second argument passed to builtins.genList";
    let n = interp.expect_int(args[1], Pos::NONE, what)?;
    let Ok(len) = usize::try_from(n) else {
        return fail(ErrorKind::Eval, format!("cannot create list of size {n}"));
    };
    let what = "while evaluating the first argument passed to builtins.genList";
    let func = interp.expect_function(args[0], Pos::NONE, what)?;
    let words = len.saturating_mul(WORDS_PER_ITEM);
    let room = Vec::<u64>::new().try_reserve_exact(words);
    if room.is_err() || !interp.heap.has_room(words) {
        return fail(ErrorKind::Eval, "out of memory");
    }
    let heap = &interp.heap;
    Ok(heap.list_with(len, |i| heap.apply(func, &[heap.int(len_to_int(i))])))
}

fn is_less_than(value: Value) -> bool {
    matches!(value.as_func(), Some(Func::Builtin(b)) if b.name == "__lessThan")
}

pub(super) fn sort(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the second argument passed to builtins.sort";
    let items = interp.expect_list(args[1], Pos::NONE, what)?;
    if items.is_empty() {
        return interp.force(args[1]);
    }
    let what = "while evaluating the first argument passed to builtins.sort";
    let func = interp.expect_function(args[0], Pos::NONE, what)?;
    for item in items {
        interp.force(*item)?;
    }
    let mut sorted = items.to_vec();
    let builtin = is_less_than(func);
    peeksort::peek_sort(&mut sorted, |a, b| {
        if builtin {
            return interp.less_than(
                *a,
                *b,
                "while evaluating the ordering function passed to builtins.sort",
            );
        }
        let result = interp.call(func, &[*a, *b], Pos::NONE)?;
        let what = "while evaluating the return value of the sorting function passed to builtins.sort";
        interp.expect_bool(result, Pos::NONE, what)
    })?;
    Ok(interp.heap.list(&sorted))
}

pub(super) fn partition(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.partition";
    let func = interp.expect_function(args[0], Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.partition";
    let items = interp.expect_list(args[1], Pos::NONE, what)?;
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for item in items {
        interp.force(*item)?;
        let result = interp.call(func, &[*item], Pos::NONE)?;
        let what = "while evaluating the return value of the partition function passed to builtins.partition";
        let side = if interp.expect_bool(result, Pos::NONE, what)? {
            &mut right
        } else {
            &mut wrong
        };
        side.push(*item);
    }
    let (right, wrong) = (interp.heap.list(&right), interp.heap.list(&wrong));
    Ok(interp.small_set(&[(sym::right, right), (sym::wrong, wrong)]))
}

pub(super) fn group_by(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.groupBy";
    let func = interp.expect_function(args[0], Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.groupBy";
    let items = interp.expect_list(args[1], Pos::NONE, what)?;
    let mut groups: FxHashMap<Symbol, Vec<Value>> = FxHashMap::default();
    for item in items {
        let name = interp.call(func, &[*item], Pos::NONE)?;
        let what = "while evaluating the return value of the grouping function passed to builtins.groupBy";
        let name = interp.plain_string(name, Pos::NONE, what)?;
        groups.entry(interp.symbols.intern(name)).or_default().push(*item);
    }
    let attrs = groups
        .into_iter()
        .map(|(n, items)| (n, interp.heap.list(&items), Pos::NONE))
        .collect();
    Ok(interp.heap.set_of(attrs))
}
