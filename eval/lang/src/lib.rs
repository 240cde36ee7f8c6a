//! The Nix language as a library: source text in, values out.

mod pure;
