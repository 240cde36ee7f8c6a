//! What is told while paths are looked up and fetched: for progress bars, logs and counters.

use std::fmt;
use std::time::Duration;

use igloo_castore::store::StoreName;
use nix_compat::store_path::StorePath;

/// Hears of progress. Called from many tasks; must not block.
pub trait Progress: fmt::Debug + Send + Sync {
    /// Something happened.
    fn event(&self, event: ProgressEvent<'_>);
}

/// Hears nothing.
impl Progress for () {
    fn event(&self, _: ProgressEvent<'_>) {}
}

/// What happened. Sizes are bytes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ProgressEvent<'a> {
    /// A path is to be fetched.
    Planned {
        /// The path.
        path: &'a StorePath,
        /// Who offers it.
        from: &'a StoreName,
        /// What comes over the wire, where that is known.
        download_size: Option<u64>,
        /// The size of its NAR.
        nar_size: u64,
    },
    /// A fetch starts.
    Started {
        /// The path.
        path: &'a StorePath,
        /// From whom.
        from: &'a StoreName,
    },
    /// Bytes came over the wire.
    Downloaded {
        /// The path they are for.
        path: &'a StorePath,
        /// How many since the last event.
        size: u64,
    },
    /// Bytes of NAR, or of content, went to the store.
    Unpacked {
        /// The path they are of.
        path: &'a StorePath,
        /// How many since the last event.
        size: u64,
    },
    /// A request failed and is tried again.
    Retrying {
        /// Its URL.
        url: &'a str,
        /// How often it was tried.
        tried: u32,
        /// When it is tried again.
        delay: Duration,
        /// Why it failed.
        error: &'a dyn std::error::Error,
    },
    /// A source could not give a path; another may.
    Failed {
        /// The path.
        path: &'a StorePath,
        /// From whom.
        from: &'a StoreName,
        /// Why.
        error: &'a dyn std::error::Error,
    },
    /// A path is in the store, durable and registered.
    Registered {
        /// The path.
        path: &'a StorePath,
    },
}
