//! Versions and derivation names: `compareVersions`, `splitVersion`, `parseDrvName`.
//!
//! Invariants
//! - a component is all digits, or holds neither digit, dot, nor dash, and is never empty;
//! - bytes, not characters, and only ASCII letters and digits are letters and digits.
//!
//! Source: Nix manual, `nix-env --upgrade` (version comparison); behaviour recorded in `oracle/version.tsv`.

use std::cmp::Ordering;

/// The components of a version, without the dots and dashes between them: what `splitVersion` gives.
pub fn split_version(version: &[u8]) -> impl Iterator<Item = &[u8]> {
    Components { rest: version }
}

/// Compares two versions component by component: what `compareVersions` gives as -1, 0, or 1.
///
/// Numbers compare as numbers, if both fit 32 bits; `pre` is less than anything, the end of a version less than a
/// number, a word less than a number (`2.3a` before `2.3.1`); else bytes decide.
pub fn compare_versions(left: &[u8], right: &[u8]) -> Ordering {
    let (mut left, mut right) = (Components { rest: left }, Components { rest: right });
    while !left.rest.is_empty() || !right.rest.is_empty() {
        let (a, b) = (left.next().unwrap_or_default(), right.next().unwrap_or_default());
        if is_less(a, b) {
            return Ordering::Less;
        }
        if is_less(b, a) {
            return Ordering::Greater;
        }
    }
    Ordering::Equal
}

/// Splits a derivation's name into name and version, at the first dash that no letter follows (and not the last byte).
pub fn parse_drv_name(full: &[u8]) -> (&[u8], &[u8]) {
    let dash = full
        .windows(2)
        .position(|pair| pair[0] == b'-' && !pair[1].is_ascii_alphabetic());
    match dash {
        Some(at) => (&full[..at], &full[at + 1..]),
        None => (full, b""),
    }
}

struct Components<'v> {
    rest: &'v [u8],
}

impl<'v> Iterator for Components<'v> {
    type Item = &'v [u8];

    fn next(&mut self) -> Option<&'v [u8]> {
        let separators = self.rest.iter().take_while(|&&byte| is_separator(byte)).count();
        self.rest = &self.rest[separators..];
        let digits = self.rest.first()?.is_ascii_digit();
        let same = |&&byte: &&u8| byte.is_ascii_digit() == digits && !is_separator(byte);
        let (component, rest) = self.rest.split_at(self.rest.iter().take_while(same).count());
        self.rest = rest;
        Some(component)
    }
}

fn is_separator(byte: u8) -> bool {
    byte == b'.' || byte == b'-'
}

fn is_less(a: &[u8], b: &[u8]) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a < b,
        (_, Some(_)) if a.is_empty() => true,
        _ if a == b"pre" && b != b"pre" => true,
        _ if b == b"pre" => false,
        (_, Some(_)) => true,
        (Some(_), _) => false,
        (None, None) => a < b,
    }
}

fn number(component: &[u8]) -> Option<i32> {
    component.first().filter(|byte| byte.is_ascii_digit())?;
    std::str::from_utf8(component).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
