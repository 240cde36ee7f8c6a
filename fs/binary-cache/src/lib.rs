//! Substituters: store paths that others have built, looked up, fetched, checked and registered.
//!
//! Map
//! - [`substituter`]: the trait [`Substituter`], what it offers, and what can go wrong;
//! - [`cache`]: [`HttpBinaryCache`], Nix's binary caches over HTTP and in directories;
//! - [`store`]: [`StoreSubstituter`], any igloo store, local or over gRPC;
//! - [`substituters`]: [`Substituters`], many asked together: order, hedging, closures;
//! - [`trust`]: whose word counts; [`url`]: where a cache is; [`progress`]: what is told on the way;
//! - [`http`]: requests, tries and dead hosts; [`compression`]: archives unpacked within bounds;
//! - [`write`](mod@write): [`CacheWriter`], a binary cache that stock Nix reads.
//!
//! Invariants
//! - what a peer says is believed only when a trusted key signed it, when it follows from the content, or where the user
//!   said so; whatever it sends is hashed before anything is registered;
//! - a path is registered after all it refers to, or with it;
//! - dropping a future stops its work; what was registered stays, and what was not is garbage to the store.

pub mod cache;
mod cache_info;
pub mod compression;
mod fetch;
pub mod http;
mod memo;
pub mod progress;
pub mod store;
pub mod substituter;
pub mod substituters;
pub mod trust;
pub mod url;
pub mod write;

pub use cache::{CacheOptions, HttpBinaryCache, OpenCacheError};
pub use http::{HttpOptions, RequestError, TlsRoots};
pub use progress::{Progress, ProgressEvent};
pub use store::StoreSubstituter;
pub use substituter::{CacheInfo, FetchError, LookUpError, Offer, Refusal, Substituter};
pub use substituters::{Candidate, Plan, SubstituteError, SubstituteOptions, Substituted, Substituters};
pub use trust::{Trust, Vouched};
pub use url::{CacheUrl, ParseCacheUrlError};
pub use write::{CacheWriter, WriteCacheError};
