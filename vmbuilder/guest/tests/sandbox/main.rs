//! The agent without a machine: its own code, in a mount namespace of the test, over a socket pair.
//!
//! Inputs are this machine's `/usr`, shown at `usr`; the loader is placed as a file, as a host would. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod host;
mod looks;
mod runs;
