//! `fetchTree`, `fetchGit` and `getFlake`: repositories, paths and flakes of this machine.
//!
//! The repository is made with fixed names and dates, so that its commits have the ids recorded here; NAR hashes and
//! attributes were recorded from Nix 2.34 for the same repository. With `IGLOO_TEST_NIX` naming the `nix` of Nix 2.34,
//! everything is compared with it anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests")]

#[path = "../common/mod.rs"]
mod common;
mod elsewhere;
mod flakes;
mod git;
mod world;
