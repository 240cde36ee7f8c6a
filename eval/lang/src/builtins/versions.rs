//! Versions and derivation names.

use std::cmp::Ordering;

use crate::error::R;
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::pos::Pos;
use crate::pure::version;
use crate::symbol::sym;

pub(super) fn parse_drv_name(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.parseDrvName";
    let full = interp.plain_string(args[0], Pos::NONE, what)?;
    let (name, number) = version::parse_drv_name(full);
    let (name, number) = (interp.heap.string(name), interp.heap.string(number));
    Ok(interp.small_set(&[(sym::name, name), (sym::version, number)]))
}

pub(super) fn compare_versions(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.compareVersions";
    let a = interp.plain_string(args[0], Pos::NONE, what)?;
    let what = "while evaluating the second argument passed to builtins.compareVersions";
    let b = interp.plain_string(args[1], Pos::NONE, what)?;
    Ok(interp.heap.int(match version::compare_versions(a, b) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }))
}

pub(super) fn split_version(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.splitVersion";
    let text = interp.plain_string(args[0], Pos::NONE, what)?;
    let parts: Vec<Value> = version::split_version(text)
        .map(|p| interp.heap.string(p))
        .collect();
    Ok(interp.heap.list(&parts))
}
