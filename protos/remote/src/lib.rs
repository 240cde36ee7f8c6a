//! Serves and calls igloo's traits over gRPC, on unix sockets and loopback TCP.
//!
//! Nothing of gRPC leaves this crate: callers hand in and get domain types, traits and typed errors.
//!
//! Invariants
//! - a peer is never trusted: bytes are given out only when their digest was checked, directories are encoded again and
//!   hashed, messages, counts and waiting times are bounded (see [`limits`]);
//! - status codes and gRPC's codes are turned into each other in one place ([`status`]).
//!
//! Map
//! - [`address`]: URLs and listen addresses; [`listen`], [`connect`]: the two ends of a socket; [`serve`]: a server;
//! - [`castore`]: blobs and directories; [`path_info`]: records of store paths; [`facts`]: what else is
//!   known of them; [`build`]: builds;
//!   [`coordinator`]: jobs; [`evaluator`]: evaluations;
//! - [`limits`]: every bound; [`status`]: errors over the wire, and when a call is tried again.

pub mod address;
pub mod build;
pub mod castore;
pub mod connect;
pub mod coordinator;
pub mod evaluator;
pub mod facts;
pub mod limits;
pub mod listen;
pub mod path_info;
pub mod serve;
pub mod status;
mod task;

pub use address::Address;
pub use build::{BuildService, GrpcBuilder, LeasePolicy};
pub use castore::{ChunkLists, ContentCache, GrpcBlobStore, GrpcDirectoryStore};
pub use connect::Connection;
pub use coordinator::RemoteCoordinator;
pub use evaluator::{EvaluatorService, RemoteEvaluator};
pub use facts::GrpcFactStore;
pub use listen::Listener;
pub use path_info::{Admission, GrpcPathInfoStore};
pub use serve::Services;
