//! Content-addressed storage: blobs, chunks and directories named by BLAKE3.
//!
//! The data model is that of `snix.castore.v1`, so digests and wire bytes agree with snix. This crate knows nothing of
//! Nix, of file system mounts, or of gRPC.
//!
//! Map
//! - [`digest`], [`node`], [`directory`], [`tree`]: the types; no runtime, no clock, no I/O;
//! - [`store`]: the traits `ChunkStore`, `BlobStore`, `DirectoryStore`, and [`error`], what can go wrong with them;
//! - [`blocking`]: the one door to code that blocks;
//! - [`chunking`]: where blobs are cut; [`chunked`]: blobs made of chunks, [`cache`]: what they keep in memory;
//! - [`ingest`]: taking trees in, from events or from a path; [`export`]: giving them out as events;
//! - [`presence`]: whether a tree that somebody else put in is whole;
//! - [`memory`]: the backend in memory; `rocks` (feature `rocksdb`): the embedded database.

pub mod blocking;
pub mod cache;
pub mod chunked;
pub mod chunking;
pub mod digest;
pub mod directory;
pub mod error;
pub mod export;
pub mod ingest;
pub mod memory;
pub mod node;
pub mod presence;
#[cfg(feature = "rocksdb")]
pub mod rocks;
pub mod store;
pub mod tree;

pub use digest::{BlobDigest, ChunkDigest, DirectoryDigest};
pub use directory::Directory;
pub use node::{Node, NodeName, SymlinkTarget};
pub use store::{BlobStore, Castore, ChunkStore, DirectoryStore, StoreName};
