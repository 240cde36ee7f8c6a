//! NAR, Nix's archive: one byte string for each file tree, the thing Nix hashes, signs and ships.
//!
//! A tree of directories, files (bytes and an executable bit) and symlinks; nothing else of a file survives. Strings are
//! a little-endian 64-bit length, the bytes, and zeros up to a multiple of 8.
//!
//! - [`NarWriter`] writes a tree to any [`std::io::Write`] as it is walked;
//! - [`NarParser`] takes bytes as they come and gives events, copying no file data;
//! - [`NarReader`] is the same over any [`std::io::Read`];
//! - [`size`] computes the archive's size without writing it.
//!
//! Invariants
//! - one tree has one NAR: writer and parser both enforce names in strictly ascending byte order, zero padding and exact
//!   sizes, so parsing and writing again gives the same bytes;
//! - memory is bounded by [`NarLimits`], never by what an archive claims.
//!
//! Source: Nix 2.36 `src/libutil/archive.cc` (the limits came with 2.34.7; Nix 2.8 has none of them),
//! `doc/manual/source/protocols/nix-archive/index.md`.

mod error;
mod format;
mod parser;
mod reader;
pub mod size;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{NameRule, ParseNarError, ParseNarReason, ReadNarError, WriteNarError};
pub use parser::{NarEvent, NarParser};
pub use reader::NarReader;
pub use writer::NarWriter;

/// Bytes in the longest name of a directory entry.
pub const NAME_LEN_MAX: usize = 255;
/// Bytes in the longest symlink target.
pub const TARGET_LEN_MAX: usize = 4095;

/// How large an archive may get before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NarLimits {
    /// Levels of nodes: a lone file is one, a file in a directory two. Nix 2.34.7 and later take 64.
    pub depth_max: usize,
    /// Bytes in one file.
    pub file_size_max: u64,
    /// Bytes in the whole archive; at most `u64::MAX / 2` counts.
    pub nar_size_max: u64,
}

/// Depth as in Nix; sizes as large as a file system can hold.
impl Default for NarLimits {
    fn default() -> Self {
        Self {
            depth_max: 64,
            file_size_max: i64::MAX.unsigned_abs(),
            nar_size_max: i64::MAX.unsigned_abs(),
        }
    }
}
