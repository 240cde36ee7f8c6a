//! Number conversions with a stated rule, so that no cast truncates in silence.
//!
//! Invariant: every table this crate indexes with `u32` (symbols, nodes, positions, slots) is bounded below 2^32 by
//! [`crate::pos::SourceTable`], which refuses more than 4 GiB of source text; a wider number is a bug and saturates.

/// `n` as a table index; saturates at `u32::MAX`, which no table reaches (module invariant).
#[inline]
pub(crate) fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// `n` as `usize`; lossless on every platform this crate supports (32 bits and wider).
#[inline]
pub(crate) const fn to_usize(n: u32) -> usize {
    n as usize
}

/// The length of a Nix value as a Nix integer; no object is longer than `i64::MAX` bytes.
#[inline]
pub(crate) fn len_to_int(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
