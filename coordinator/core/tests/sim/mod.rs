//! A world for the machine: clients, stores, substituters and builders in virtual time, all from one seed.
//!
//! The world does what actions say, late and in any order, loses builders, breaks off fetches, and kills the machine after a
//! given journal record. It checks what must never happen the moment it happens.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test's world stops at the first thing that is wrong"
)]

pub mod graphs;
pub mod layers;
pub mod rng;
mod world;

pub use graphs::{Graph, Shape};
pub use rng::Rng;
pub use world::{End, Faults, Setup, World};
