//! Where blobs are cut: FastCDC with fixed parameters.
//!
//! Invariants
//! - the parameters are part of the format: changing them changes no digest of a blob, but new blobs would share no
//!   chunks with old ones;
//! - a blob of at most [`UNCUT_SIZE_MAX`] bytes is one chunk, with the blob's own digest.
//!
//! Source: FastCDC (Xia et al., 2020 revision), sizes measured in docs/decisions.

/// Smallest chunk but the last, bytes.
pub const CHUNK_SIZE_MIN: usize = 16 * 1024;
/// Size aimed at, bytes.
pub const CHUNK_SIZE_AVERAGE: usize = 64 * 1024;
/// Largest chunk, bytes.
pub const CHUNK_SIZE_MAX: usize = 256 * 1024;
/// Blobs up to this size are not cut, bytes.
pub const UNCUT_SIZE_MAX: usize = 64 * 1024;
