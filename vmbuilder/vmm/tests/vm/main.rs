//! Builds in real microVMs.
//!
//! They need QEMU and a guest image (`cargo xtask image`), and run under software emulation anywhere. Where something is
//! missing they are skipped loudly: a line on stderr, and one in the file that IGLOO_TEST_SKIPS names. The image's
//! directory can be given in IGLOO_IMAGE.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test's helpers fail by panicking, and tell what they skip"
)]

mod host;
mod inputs;
mod lifecycle;
mod limits;
mod network;
mod outcomes;
mod sealed;
mod support;
