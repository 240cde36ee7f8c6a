//! Strings: `replaceStrings`, `substring`, and how strings and attribute names are printed.
//!
//! Invariants
//! - everything counts bytes, so a result may cut a character in two, as in Nix;
//! - `replaceStrings` asks for a replacement at most once, and only for a pattern that was found.
//!
//! Source: Nix manual, builtins; behaviour recorded in `oracle/replace.tsv`, `oracle/substring.tsv`, `oracle/print.tsv`.

use igloo_status::Code;

/// Replaces, from left to right, every occurrence of a pattern by its replacement.
///
/// At each byte the first pattern of the list that fits wins. An empty pattern fits everywhere, the end included; its
/// replacement goes in front of the byte there. `to(index)` gives the replacement of pattern `index`, when first needed.
///
/// Costs one look at each byte plus a comparison with each pattern that starts with it.
///
/// # Errors
/// Those of `to`, at once.
pub fn replace_strings<R: AsRef<[u8]>, E>(
    text: &[u8],
    from: &[&[u8]],
    mut to: impl FnMut(usize) -> Result<R, E>,
) -> Result<Vec<u8>, E> {
    let patterns = Patterns::new(from);
    let mut replacements: Vec<Option<R>> = from.iter().map(|_| None).collect();
    let mut out = Vec::with_capacity(text.len());
    let mut position = 0;
    while position <= text.len() {
        let rest = &text[position..];
        let found = patterns.find(rest);
        if let Some(index) = found {
            let replacement = match &mut replacements[index] {
                Some(known) => known,
                unknown => unknown.insert(to(index)?),
            };
            out.extend_from_slice(replacement.as_ref());
        }
        let taken = found.map_or(0, |index| from[index].len());
        if taken == 0 {
            out.extend(rest.first());
        }
        position += taken.max(1);
    }
    Ok(out)
}

/// At most `len` bytes of `text` from byte `start`; a negative `len` means up to the end. Past the end there are none.
///
/// # Errors
/// `NegativeStart`, as in Nix.
pub fn substring(text: &[u8], start: i64, len: i64) -> Result<&[u8], SubstringError> {
    if start < 0 {
        return Err(SubstringError::NegativeStart);
    }
    let start = usize::try_from(start).unwrap_or(usize::MAX).min(text.len());
    let rest = &text[start..];
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
    Ok(&rest[..len])
}

/// Why there is no such substring. The message is Nix's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubstringError {
    /// It would begin before the string.
    #[error("negative start position in 'substring'")]
    NegativeStart,
}

impl SubstringError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        Code::OutOfRange
    }
}

/// Appends a string as Nix prints it: quoted, with `"`, `\`, line ends, tabs, and `${` escaped, all else as it is.
pub fn print_string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    for (index, &byte) in text.iter().enumerate() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'$' if text.get(index + 1) == Some(&b'{') => out.extend_from_slice(b"\\$"),
            other => out.push(other),
        }
    }
    out.push(b'"');
}

/// Appends an attribute's name as Nix prints it: bare if it can stand so in a set, else as a string.
pub fn print_attribute_name(out: &mut Vec<u8>, name: &[u8]) {
    if is_identifier(name) {
        out.extend_from_slice(name);
    } else {
        print_string(out, name);
    }
}

/// Whether a name needs no quotes in a set: an identifier, and none of the keywords (`or` is not one here).
pub fn is_identifier(name: &[u8]) -> bool {
    let starts = name
        .first()
        .is_some_and(|&byte| byte.is_ascii_alphabetic() || byte == b'_');
    let fits = |&byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'\'');
    starts && name.iter().all(fits) && !is_keyword(name)
}

/// Whether a name is one of the keywords that printing quotes.
pub fn is_keyword(name: &[u8]) -> bool {
    const KEYWORDS: [&[u8]; 9] = [
        b"if", b"then", b"else", b"assert", b"with", b"let", b"in", b"rec", b"inherit",
    ];
    KEYWORDS.contains(&name)
}

/// The patterns of one call, by the byte they start with.
struct Patterns<'p> {
    from: &'p [&'p [u8]],
    /// For each byte, the indices of the patterns that start with it, ascending.
    starting: Vec<Vec<usize>>,
    empty: Option<usize>,
}

impl<'p> Patterns<'p> {
    fn new(from: &'p [&'p [u8]]) -> Self {
        let mut starting = vec![Vec::new(); 256];
        for (index, pattern) in from.iter().enumerate() {
            if let Some(&byte) = pattern.first() {
                starting[usize::from(byte)].push(index);
            }
        }
        Self {
            from,
            starting,
            empty: from.iter().position(|pattern| pattern.is_empty()),
        }
    }

    /// The first pattern that `rest` starts with.
    fn find(&self, rest: &[u8]) -> Option<usize> {
        let candidates = rest
            .first()
            .map_or(&[][..], |&byte| &self.starting[usize::from(byte)]);
        let fitting = candidates
            .iter()
            .copied()
            .find(|&index| rest.starts_with(self.from[index]));
        match (fitting, self.empty) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests;
