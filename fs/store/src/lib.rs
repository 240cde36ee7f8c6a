//! Store paths over the castore.
//!
//! Map
//! - [`path_info`]: what is known of a store path, and the trait of stores of it.

pub mod path_info;

pub use path_info::{PathInfo, PathInfoStore};
