//! Pure pieces of the Nix language: what a builtin computes once its arguments are plain bytes and numbers.
//!
//! Nothing here knows the evaluator's value type, positions, string contexts, or the outside world: bytes in, bytes or
//! small trees out. The behaviour followed is that of Nix 2.34, recorded from it (the `oracle/*.tsv` tables replayed by
//! the tests), not recalled.
//!
//! Invariants
//! - no function panics or recurses on the shape of its input: parsers keep their own stacks, and every bound has a name;
//! - strings are bytes, as in Nix: UTF-8 is checked only where Nix checks it.

#![allow(dead_code, reason = "builtins take these in use one by one")]
#![allow(unused_imports, reason = "so with what modules export from their parts")]
#![allow(unreachable_pub, reason = "written as a library's interface")]

pub mod flakeref;
pub mod float_format;
pub mod hash_text;
pub mod json;
pub mod path_ops;
pub mod peeksort;
pub mod regex;
pub mod string_ops;
pub mod time;
pub mod toml;
pub mod version;
pub mod xml;

#[cfg(test)]
mod oracle;
