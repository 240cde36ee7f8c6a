//! What tests of many crates share.
//!
//! Map
//! - [`castore`], [`path_infos`]: conformance suites; a backend's tests call them with a way to make an empty store;
//! - [`tree`]: random trees, the model a castore is compared with;
//! - [`faults`]: stores that fail on demand;
//! - [`Victim`]: a process that is killed amid its work;
//! - [`skip`](skip()): leaving a test out where a machine cannot run it, and saying so.
//!
//! A suite fails by panicking with the promise that is broken.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a library for tests: a broken promise is a failed test"
)]

pub mod castore;
pub mod faults;
pub mod path_infos;
mod skip;
pub mod tree;
mod victim;

pub use castore::castore_conformance;
pub use path_infos::path_info_conformance;
pub use skip::skip;
pub use victim::Victim;
