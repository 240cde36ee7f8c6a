//! Nix's formats: store paths, hashes, NAR, derivations, narinfo and signatures, parsed and printed.
//!
//! Bytes in, values out and back: no file system, no network, no runtime, no clock, no environment. What streams
//! (NAR, reference scan, hashing) has a push core that takes whatever bytes there are, so sync and async callers use
//! the same code.
//!
//! Invariants
//! - parsers take hostile bytes: iterative, bounded in depth, count and size, and they never panic;
//! - what a parser accepts, the printer reproduces byte for byte, unless the item's documentation says otherwise;
//! - the store directory is always an argument ([`StoreDir`]), because it is an input of every path's hash.

pub mod content_address;
pub mod derivation;
pub mod hash;
pub mod nar;
pub mod narinfo;
pub mod nixbase32;
pub mod refscan;
pub mod self_reference;
pub mod signature;
pub mod store_path;

pub use content_address::{ContentAddress, ContentAddressMethod};
pub use derivation::{Derivation, DerivationOutput, OutputName};
pub use hash::{HashAlgo, Hasher, NixHash};
pub use narinfo::NarInfo;
pub use store_path::{StoreDir, StorePath, StorePathName};
