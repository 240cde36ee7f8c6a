//! The wire: schemas, the types generated from them, and their conversions to and from domain types.
//!
//! `snix/` holds the schemas shared with snix, byte for byte on the wire; `igloo/` holds our own services beside them.
//! The conversions are the only way from wire types to domain types, and every one checks everything: the peer is a
//! stranger.
//!
//! Invariants
//! - what a conversion accepts, the opposite conversion writes back to an equal message, and for what is hashed
//!   (`Directory`) to equal bytes;
//! - a conversion never panics, whatever the message;
//! - counts and sizes a peer chooses are bounded here or by the size of the message that carried them.
//!
//! Map
//! - [`snix`], [`igloo`]: generated types, clients and server traits, one module for each package;
//! - [`castore`]: digests, nodes, directories; [`build`]: requests, [`event`]: events, outcomes, failures;
//!   [`lease`]: leases, offers, load;
//! - [`coordinator`]: jobs, updates, reports; [`evaluate`]: evaluations, [`evaluator`]: the service that runs them;
//! - [`path_info`]: records of store paths; [`snix_build`]: build requests of snix's clients;
//!   [`decode`]: from bytes in one step; [`error`]: why a message was refused.

pub mod build;
pub mod castore;
pub mod coordinator;
pub mod decode;
pub mod error;
pub mod evaluate;
pub mod evaluator;
pub mod event;
pub mod lease;
pub mod path_info;
pub mod snix_build;

pub use error::{WireError, WireReason};

/// Packages whose schemas are snix's.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod snix {
    /// Content.
    pub mod castore {
        /// Package `snix.castore.v1`.
        pub mod v1 {
            tonic::include_proto!("snix.castore.v1");
        }
    }
    /// Path infos.
    pub mod store {
        /// Package `snix.store.v1`.
        pub mod v1 {
            tonic::include_proto!("snix.store.v1");
        }
    }
    /// Builds.
    pub mod build {
        /// Package `snix.build.v1`.
        pub mod v1 {
            tonic::include_proto!("snix.build.v1");
        }
    }
}

/// Packages of our own.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod igloo {
    /// Content.
    pub mod castore {
        /// Package `igloo.castore.v1`.
        pub mod v1 {
            tonic::include_proto!("igloo.castore.v1");
        }
    }
    /// Path infos.
    pub mod store {
        /// Package `igloo.store.v1`.
        pub mod v1 {
            tonic::include_proto!("igloo.store.v1");
        }
    }
    /// Builds.
    pub mod build {
        /// Package `igloo.build.v1`.
        pub mod v1 {
            tonic::include_proto!("igloo.build.v1");
        }
    }
    /// Evaluations.
    pub mod evaluator {
        /// Package `igloo.evaluator.v1`.
        pub mod v1 {
            tonic::include_proto!("igloo.evaluator.v1");
        }
    }
    /// Jobs.
    pub mod coordinator {
        /// Package `igloo.coordinator.v1`.
        pub mod v1 {
            tonic::include_proto!("igloo.coordinator.v1");
        }
    }
}
