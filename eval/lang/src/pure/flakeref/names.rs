//! Names of branches, tags, commits, flakes and hosts.

/// Whether libgit2 takes it for the name of a reference, a branch, or a tag; Nix asks for any of the three.
///
/// Source: git-check-ref-format(1); behaviour recorded in `oracle/flakeref.tsv`.
pub(super) fn is_ref_name(name: &str) -> bool {
    let component = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let bad = |c: char| c.is_ascii_control() || " ~^:?*[\\".contains(c);
    let well_formed = name.split('/').all(component)
        && !name.contains(bad)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
        && name != "@";
    // A branch or tag must not start with a dash; a reference may, if it has a slash.
    well_formed && (!name.starts_with('-') || name.contains('/'))
}

/// A commit: forty hexadecimal digits of either case.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|c| c.is_ascii_hexdigit())
}

/// What a flake is called in a registry.
pub(super) fn is_flake_id(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|c| c.is_ascii_alphabetic());
    first
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-')
}

/// The looser form of a branch or tag name that Mercurial inputs and short references have.
pub(super) fn is_loose_ref(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric() || c == b'@');
    first
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"_./@+-".contains(&c))
}

/// The host of a forge.
pub(super) fn is_host(text: &str) -> bool {
    text.bytes()
        .all(|c| c.is_ascii_alphanumeric() || c == b'.' || c == b'-')
}

/// What may stand after `#`, escapes included.
pub(super) fn is_fragment(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match (byte, tail) {
            (b'%', [a, b, tail @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => tail,
            (b'%', _) => return false,
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'\"()*+,;=:@/? ^".contains(&byte) => tail,
            _ => return false,
        };
    }
    true
}
