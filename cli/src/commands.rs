//! One file for each verb.

pub mod build;
pub mod builder;
pub mod daemon;
pub mod doctor;
pub mod machines;
pub mod mount;
pub mod store;

use std::io::Write;

use crate::failure::Failure;

/// Prints a line of the answer.
pub fn say(line: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
