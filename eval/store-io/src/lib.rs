//! The evaluator's world over a real store.
//!
//! [`StoreIo`] is an [`igloo_eval::EvalIo`]: sources are ingested, derivations and texts registered exactly as Nix writes
//! them, store paths are read straight from the castore (nothing need be on the disk below the store directory), URLs are
//! fetched, and builds that an evaluation needs are asked of a [`Realiser`].
//!
//! Map
//! - [`store_io`]: [`StoreIo`] itself; `files` answers its reading calls, `import` its sources, `realise` its builds (asked
//!   of a `realiser`), `fetching` its fetches, `fetch_tree` those by attributes (Git, paths, forges); builds and fetches are
//!   waited for by what needs them (`answers`), the rest goes on;
//! - `view`: store objects as files; `access`: what may be read; `registrar`: how things get registered without the
//!   evaluation waiting for the disk, and [`DerivationSink`], which hears of derivations in order;
//! - [`fetch`]: [`fetch::Fetcher`] (HTTP, HTTPS and files), decoding and unpacking of archives;
//! - `shared`: what several threads of one evaluation have in common;
//! - [`dependencies`]: what an evaluation looked at, with digests, for a cache.
//!
//! The crate reads no environment, clock or configuration of its own.

mod access;
mod answers;
pub mod dependencies;
mod error;
pub mod fetch;
mod fetch_tree;
mod fetching;
mod files;
mod import;
mod realise;
mod realiser;
mod registrar;
mod shared;
pub mod store_io;
mod view;

pub use access::UriRules;
pub use dependencies::{Dependency, DependencyKey};
pub use fetch::{FetchLimits, Fetcher, UrlFetcher};
pub use fetch_tree::{Registry, TreePlaces};
pub use realiser::{RealiseError, RealisedOutput, Realiser, Wanted};
pub use registrar::{DerivationSink, FlushError};
pub use shared::Shared;
pub use store_io::{HostStore, StoreIo, Writes};
