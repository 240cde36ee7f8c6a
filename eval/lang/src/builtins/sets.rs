//! Attribute sets.

use rustc_hash::FxHashMap;

use crate::error::R;
use crate::heap::attrs::Attr;
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::num::to_usize;
use crate::pos::Pos;
use crate::symbol::{Symbol, sym};

pub(super) fn attr_names(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let set = interp.expect_set(
        args[0],
        Pos::NONE,
        "while evaluating the argument passed to builtins.attrNames",
    )?;
    let flat = interp.heap.flat(set);
    let order = flat.shape.by_name(&interp.heap, &interp.symbols);
    let names: Vec<Value> = order
        .iter()
        .map(|i| interp.name_value(flat.shape.names()[to_usize(*i)]))
        .collect();
    Ok(interp.heap.list(&names))
}

pub(super) fn attr_values(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let set = interp.expect_set(
        args[0],
        Pos::NONE,
        "while evaluating the argument passed to builtins.attrValues",
    )?;
    let flat = interp.heap.flat(set);
    let order = flat.shape.by_name(&interp.heap, &interp.symbols);
    Ok(interp
        .heap
        .list_with(order.len(), |i| flat.values[to_usize(order[i])]))
}

pub(super) fn get_attr(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.getAttr";
    let name = interp.plain_string(args[0], Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.getAttr";
    let set = interp.expect_set(args[1], Pos::NONE, what)?;
    let name = interp.symbols.intern(name);
    let (value, _) = interp.expect_attr(set, name, "in the attribute set under consideration")?;
    interp.force(value)
}

pub(super) fn has_attr(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.hasAttr";
    let name = interp.plain_string(args[0], Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.hasAttr";
    let set = interp.expect_set(args[1], Pos::NONE, what)?;
    let found = interp.symbols.lookup(name).and_then(|name| set.get(name));
    Ok(Value::bool(found.is_some()))
}

pub(super) fn unsafe_get_attr_pos(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.unsafeGetAttrPos";
    let name = interp.plain_string(args[0], Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.unsafeGetAttrPos";
    let set = interp.expect_set(args[1], Pos::NONE, what)?;
    let found = interp.symbols.lookup(name).and_then(|name| set.get(name));
    Ok(found.map_or(Value::NULL, |(_, pos)| interp.position_value(pos)))
}

pub(super) fn remove_attrs(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.removeAttrs";
    let set = interp.expect_set(args[0], Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.removeAttrs";
    let names = interp.expect_list(args[1], Pos::NONE, what)?;
    let mut remove = Vec::with_capacity(names.len());
    for name in names {
        let what = "while evaluating the values of the second argument passed to builtins.removeAttrs";
        let name = interp.plain_string(*name, Pos::NONE, what)?;
        remove.extend(interp.symbols.lookup(name));
    }
    remove.sort_unstable();
    remove.dedup();
    let remove: Vec<Symbol> = remove.into_iter().filter(|n| set.get(*n).is_some()).collect();
    if remove.is_empty() {
        return Ok(set.value());
    }
    Ok(interp.heap.without(set, &remove))
}

pub(super) fn list_to_attrs(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the argument passed to builtins.listToAttrs";
    let items = interp.expect_list(args[0], Pos::NONE, what)?;
    let mut pairs = Vec::with_capacity(items.len());
    for item in items {
        let what = "while evaluating an element of the list passed to builtins.listToAttrs";
        let set = interp.expect_set(*item, Pos::NONE, what)?;
        let (name, pos) = interp.expect_attr(set, sym::name, "in a {name=...; value=...;} pair")?;
        let what =
            "while evaluating the `name` attribute of an element of the list passed to builtins.listToAttrs";
        let name = interp.plain_string(name, pos, what)?;
        pairs.push((interp.symbols.intern(name), set));
    }
    pairs.sort_by_key(|p| p.0);
    pairs.dedup_by_key(|p| p.0);
    let mut attrs: Vec<Attr> = Vec::with_capacity(pairs.len());
    for (name, set) in pairs {
        let (value, pos) = interp.expect_attr(set, sym::value, "in a {name=...; value=...;} pair")?;
        attrs.push((name, value, pos));
    }
    Ok(interp.heap.set_of_sorted(&attrs))
}

pub(super) fn intersect_attrs(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.intersectAttrs";
    let left = interp.expect_set(args[0], Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.intersectAttrs";
    let right = interp.expect_set(args[1], Pos::NONE, what)?;
    let attrs: Vec<Attr> = if left.len() < right.len() {
        let names = interp.heap.flat(left);
        names
            .shape
            .names()
            .iter()
            .filter_map(|n| right.get(*n).map(|(v, p)| (*n, v, p)))
            .collect()
    } else {
        interp
            .heap
            .flat(right)
            .iter()
            .filter(|(n, ..)| left.get(*n).is_some())
            .collect()
    };
    Ok(interp.heap.set_of_sorted(&attrs))
}

pub(super) fn cat_attrs(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.catAttrs";
    let name = interp.plain_string(args[0], Pos::NONE, what)?;
    let name = interp.symbols.intern(name);
    let what = "while evaluating the second argument passed to builtins.catAttrs";
    let items = interp.expect_list(args[1], Pos::NONE, what)?;
    let mut found = Vec::new();
    for item in items {
        let what = "while evaluating an element in the list passed as second argument to builtins.catAttrs";
        found.extend(interp.expect_set(*item, Pos::NONE, what)?.value_of(name));
    }
    Ok(interp.heap.list(&found))
}

pub(super) fn map_attrs(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the second argument passed to builtins.mapAttrs";
    let set = interp.expect_set(args[1], Pos::NONE, what)?;
    let flat = interp.heap.flat(set);
    let shape = flat.shape.bare(&interp.heap);
    let names: Vec<Value> = shape.names().iter().map(|n| interp.name_value(*n)).collect();
    let heap = &interp.heap;
    Ok(heap.set_with(shape, |i| heap.apply(args[0], &[names[i], flat.values[i]])))
}

pub(super) fn zip_attrs_with(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.zipAttrsWith";
    let func = interp.expect_function(args[0], Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.zipAttrsWith";
    let items = interp.expect_list(args[1], Pos::NONE, what)?;
    let mut all: FxHashMap<Symbol, Vec<Value>> = FxHashMap::default();
    for item in items {
        let what = "while evaluating a value of the list passed as second argument to builtins.zipAttrsWith";
        let set = interp.expect_set(*item, Pos::NONE, what)?;
        for (name, value, _) in interp.heap.flat(set).iter() {
            all.entry(name).or_default().push(value);
        }
    }
    let mut attrs: Vec<Attr> = Vec::with_capacity(all.len());
    for (name, values) in all {
        let (key, values) = (interp.name_value(name), interp.heap.list(&values));
        attrs.push((name, interp.heap.apply(func, &[key, values]), Pos::NONE));
    }
    Ok(interp.heap.set_of(attrs))
}
