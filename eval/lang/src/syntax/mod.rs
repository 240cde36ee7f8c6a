//! Front end: source text to surface syntax.
//!
//! [`parser::parse`] reads a text; [`show`] prints it back in Nix's canonical form (`--parse`).

pub(crate) mod ast;
pub(crate) mod lexer;
pub(crate) mod parser;
pub(crate) mod show;
pub(crate) mod token;

mod bindings;
mod operators;
mod strings;

#[cfg(test)]
mod tests;
