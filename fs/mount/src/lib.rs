//! The castore as files: one read-only file system on two transports, `/dev/fuse` and virtiofs (vhost-user).
//!
//! Knows content (`igloo-castore`) and nothing of Nix: what the top directory holds is a [`Roots`], decided elsewhere.
//!
//! Map, from content to kernel
//! - [`roots`]: names at the top: one tree, a build's closure, a closure put in later;
//! - [`tree`]: walking trees and reading files by content, with decoded directories cached; nothing of FUSE, so that
//!   another view of the store (an EROFS image, say) can stand on it;
//! - [`inode`], [`view`]: numbers for a kernel, and the operations in terms of them;
//! - [`attributes`], [`errno`], [`fs`]: the same as FUSE wants it;
//! - [`server`]: requests as bytes in, answers out; the seam for any transport, a stream included;
//! - [`fuse`], [`vhost`], [`stream`]: the transports;
//! - [`counters`], [`totals`]: what was read of what is there.
//!
//! Content is immutable, so a kernel may keep everything it was told, for ever: a second walk of a tree, a second read of
//! a file, an open of a file are no requests at all.

pub mod attributes;
pub mod counters;
pub mod errno;
pub mod fs;
pub mod fuse;
pub mod inode;
pub mod roots;
pub mod server;
pub mod stream;
mod sync;
pub mod totals;
pub mod tree;
pub mod vhost;
pub mod view;

pub use counters::{Counters, Counts};
pub use fs::{CastoreFs, FsLimits};
pub use fuse::{Mount, MountOptions, Unmount, cleanup_stale};
pub use roots::{MapRoots, Roots, SingleRoot, SwapRoots};
pub use server::FsServer;
pub use totals::Totals;
pub use tree::Tree;
pub use vhost::VhostServer;
