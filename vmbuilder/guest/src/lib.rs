//! The agent inside a build's machine.
//!
//! It is process 1 of the guest: mounts what it needs, waits for a build on the control channel, shows the build exactly
//! the root C++ Nix's Linux sandbox shows, runs it in namespaces of its own, streams its log and then its outputs, and
//! powers the machine off. It is linked statically, depends on no other crate of igloo but `igloo-control`, and trusts
//! the host; the build it trusts with nothing. One thread, no runtime.
//!
//! Map
//! - [`boot`], [`modules`], [`port`], [`power`]: from the kernel's first exec to an open control channel, and the end;
//! - [`channel`], [`agent`]: the conversation with the host;
//! - [`root`], [`scratch`], [`devices`], [`files`]: the root a build sees;
//! - [`program`], [`child`], [`seccomp`], [`cgroup`], [`network`], [`sys`]: starting it and holding it;
//! - [`log`]: its output; [`outputs`]: what it made.
//!
//! Invariants
//! - the build's processes live in pid, mount, network, ipc and uts namespaces of their own and never hold a descriptor,
//!   a mount or a capability of the agent's;
//! - after the build's first process has ended nothing of it runs, so outputs are read from a tree that stands still;
//! - memory the agent takes does not grow with log or file sizes.
#![cfg(target_os = "linux")]

pub mod agent;
pub mod boot;
pub mod cgroup;
pub mod channel;
pub mod child;
pub mod devices;
pub mod error;
pub mod files;
pub mod log;
pub mod modules;
pub mod network;
pub mod outputs;
pub mod port;
pub mod power;
pub mod program;
pub mod root;
pub mod scratch;
pub mod seccomp;
pub mod sys;
