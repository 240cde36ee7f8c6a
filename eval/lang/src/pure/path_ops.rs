//! Paths as text: canonical form, joining, `baseNameOf`, `dirOf`. Never looks at a file system.
//!
//! Invariants
//! - a canonical path starts with `/`, ends with none unless it is the root, and has no empty, `.` or `..` component;
//! - `..` is resolved in the text, before any symbolic link is; above the root it stays at the root.
//!
//! Source: Nix manual, "Path" type and builtins; behaviour recorded in `oracle/path.tsv`.

use igloo_status::Code;

/// The canonical form of `path`, which is taken to start at the root whether it says so or not.
///
/// Costs one pass and one allocation.
pub fn canonical_path(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 1);
    append_canonical(&mut out, path);
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// The canonical path of `relative` seen from `base`, or of `relative` itself when it starts with `/`: how the path
/// literals of a file are resolved against its directory.
pub fn resolve_path(base: &[u8], relative: &[u8]) -> Vec<u8> {
    if relative.starts_with(b"/") {
        return canonical_path(relative);
    }
    canonical_path(&[base, b"/", relative].concat())
}

/// A path plus a string, as `+` and interpolation in paths do it: the texts are joined, then made canonical.
///
/// Nothing is put in between: `/a` plus `b` is `/ab`, `/a` plus `/../b` is `/b`.
pub fn append_string(path: &[u8], string: &[u8]) -> Vec<u8> {
    canonical_path(&[path, string].concat())
}

/// The path a string stands for where Nix wants a path.
///
/// # Errors
/// `NotAbsolute` when it does not start with `/`; Nix names the string in the message.
pub fn string_to_path(string: &[u8]) -> Result<Vec<u8>, PathFromStringError> {
    if string.starts_with(b"/") {
        return Ok(canonical_path(string));
    }
    Err(PathFromStringError::NotAbsolute {
        string: string.to_vec(),
    })
}

/// What `baseNameOf` gives: everything after the last slash, of which one at the very end does not count.
///
/// Only one: `a//` has an empty base name, and the root one that is empty too.
pub fn base_name_of(path: &[u8]) -> &[u8] {
    let trimmed = match path {
        [_, .., b'/'] => &path[..path.len() - 1],
        _ => path,
    };
    let start = trimmed
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |at| at + 1);
    &trimmed[start..]
}

/// What `dirOf` gives for a string: everything before the last slash, `.` without one, `/` for one that starts with it.
pub fn dir_of_string(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        None => b".",
        Some(0) => b"/",
        Some(at) => &path[..at],
    }
}

/// What `dirOf` gives for a canonical path: its parent; the root is its own.
pub fn dir_of_path(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        None | Some(0) => b"/",
        Some(at) => &path[..at],
    }
}

/// Why a string is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFromStringError {
    /// It does not start with a slash.
    #[error(
        "string '{}' doesn't represent an absolute path",
        String::from_utf8_lossy(string)
    )]
    NotAbsolute {
        /// The string.
        string: Vec<u8>,
    },
}

impl PathFromStringError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// Appends the components of `path`, each after a slash; `..` takes the last one away.
fn append_canonical(out: &mut Vec<u8>, path: &[u8]) {
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                let end = out.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                out.truncate(end);
            }
            name => {
                out.push(b'/');
                out.extend_from_slice(name);
            }
        }
    }
}

#[cfg(test)]
mod tests;
