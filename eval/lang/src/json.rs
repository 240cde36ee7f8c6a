//! JSON as Nix reads and writes it, for those who make or read what a build sees of it (`__json`, `.attrs.json`).

pub use crate::pure::float_format::print_json as print_float;
pub use crate::pure::json::{Event, ParseJsonError, Parser, WriteStringError, write_string};
