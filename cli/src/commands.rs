//! One file for each verb.

pub mod build;
pub mod builder;
pub mod coordinator;
pub mod daemon;
pub mod doctor;
pub mod eval;
pub mod evaluator;
pub mod log;
pub mod machines;
pub mod mount;
pub mod nix_build;
pub mod nix_instantiate;
pub mod path_info;
pub mod paths;
pub mod repl;
pub mod store;
pub mod why_depends;

use std::io::Write;

use crate::failure::Failure;

/// Prints a line of the answer.
pub fn say(line: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The same for bytes, which need not be text; the line ends once.
pub fn say_bytes(line: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(line.strip_suffix(b"\n").unwrap_or(line))?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}
