//! The trait of everything store paths are fetched from.
//!
//! Invariants every implementation keeps
//! - an offer is believed ([`Trust`](crate::trust::Trust)) when it is given out, and is for the path asked for;
//! - what `fetch` returns was compared with the offer, byte by byte; it is neither durable nor registered yet;
//! - a dropped future stops its requests.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use igloo_castore::error::{ReadBlobError, ReadDirectoryError, WriteError};
use igloo_castore::ingest::IngestError;
use igloo_castore::node::Node;
use igloo_castore::store::StoreName;
use igloo_status::Code;
use igloo_store::path_info::ReadPathInfoError;
use igloo_store::{AddError, DeclaredNar, DumpError, PathInfo, Store};
use nix_compat::hash::NixHash;
use nix_compat::narinfo::ParseNarInfoError;
use nix_compat::store_path::{StoreDir, StorePath};

use crate::cache_info::ParseCacheInfoError;
use crate::compression::{Compression, DecompressError, UnknownCompression};
use crate::http::RequestError;
use crate::progress::Progress;
use crate::trust::Vouched;
use crate::url::LocationError;

/// Look-ups that [`Substituter::query`] has in flight.
const QUERY_WINDOW: usize = 128;

/// Something store paths are fetched from.
#[async_trait]
pub trait Substituter: fmt::Debug + Send + Sync {
    /// What it is called in messages: its URL.
    fn name(&self) -> &StoreName;

    /// What it says of itself; remembered.
    ///
    /// # Errors
    /// `Refused` when it is for another store directory, or no cache at all.
    async fn info(&self) -> Result<CacheInfo, LookUpError>;

    /// Its offer of a path, `None` when it has none. One request at most.
    ///
    /// # Errors
    /// `Refused` when it has one that cannot be believed or used.
    async fn look_up(&self, path: &StorePath) -> Result<Option<Arc<Offer>>, LookUpError>;

    /// Its offers of paths, in the order asked; up to 128 look-ups in flight, fewer where it bounds them itself.
    async fn query(&self, paths: &[StorePath]) -> Vec<Result<Option<Arc<Offer>>, LookUpError>> {
        // collected first: a closure over borrowed paths is not `Send` for every lifetime
        let look_ups: Vec<_> = paths.iter().map(|path| self.look_up(path)).collect();
        futures::stream::iter(look_ups)
            .buffered(QUERY_WINDOW)
            .collect()
            .await
    }

    /// Fetches what was offered into the store and compares it with the offer.
    ///
    /// The record may be registered once its references are; until then nobody sees the path.
    ///
    /// # Errors
    /// See [`FetchError`]; nothing of it can be seen in the store then.
    async fn fetch(
        &self,
        offer: &Offer,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<PathInfo, FetchError>;

    /// Forgets what it said of a path: it turned out wrong, or may have changed.
    fn forget(&self, _path: &StorePath) {}
}

/// What a cache says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// The directory its paths belong to.
    pub store_dir: StoreDir,
    /// Lower is asked first.
    pub priority: u32,
    /// Whether it likes to be asked for many paths that it may not have.
    pub want_mass_query: bool,
}

/// A path that can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The path and its NAR.
    pub nar: DeclaredNar,
    /// Why that is believed.
    pub vouched: Vouched,
    /// Bytes that come over the wire, where that is known.
    pub download_size: Option<u64>,
    /// Who offers it.
    pub from: StoreName,
    /// Where it is.
    pub place: OfferPlace,
}

/// Where an offered path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferPlace {
    /// An archive of a binary cache.
    Archive {
        /// Its URL, relative to the cache or absolute.
        url: String,
        /// How it is compressed.
        compression: Compression,
        /// Hash of the compressed archive, where it is known.
        file_hash: Option<NixHash>,
        /// Bytes of the compressed archive, where they are known.
        file_size: Option<u64>,
    },
    /// A tree of another store.
    Tree {
        /// Its root.
        node: Node,
    },
}

/// Why a look-up has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// The cache gave none.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The cache gave one that cannot be used.
    #[error(transparent)]
    Refused(#[from] Arc<Refusal>),
    /// The other store cannot be read.
    #[error("{store}: its records cannot be read")]
    Read {
        /// The store.
        store: StoreName,
        /// Why.
        #[source]
        source: ReadPathInfoError,
    },
}

impl LookUpError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Request(error) => error.code(),
            Self::Refused(refusal) => refusal.code(),
            Self::Read { source, .. } => source.code(),
        }
    }
}

/// What is wrong with a cache's answer. Remembered like an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No `nix-cache-info`.
    #[error("{url} is not there, so this is no binary cache")]
    NotACache {
        /// The URL asked for.
        url: String,
    },
    /// A `nix-cache-info` that cannot be read.
    #[error("{url} cannot be understood")]
    CacheInfo {
        /// Its URL.
        url: String,
        /// Why.
        #[source]
        source: ParseCacheInfoError,
    },
    /// The cache is for another store directory.
    #[error("{cache} is for the store directory {theirs}, not {ours}")]
    StoreDir {
        /// The cache.
        cache: String,
        /// What it is for.
        theirs: String,
        /// What this store has.
        ours: String,
    },
    /// An answer that is not text.
    #[error("{url} is not text")]
    NotText {
        /// Its URL.
        url: String,
    },
    /// A narinfo that cannot be read.
    #[error("{url} cannot be understood")]
    NarInfo {
        /// Its URL.
        url: String,
        /// Why.
        #[source]
        source: ParseNarInfoError,
    },
    /// A narinfo of another path.
    #[error("{url} is about {found}, not {asked}")]
    OtherPath {
        /// Its URL.
        url: String,
        /// What was asked for.
        asked: StorePath,
        /// What it is about.
        found: StorePath,
    },
    /// Nobody trusted vouches for it.
    #[error("{url}: {path} lacks a valid signature by a trusted key{}", by(signed_by))]
    Untrusted {
        /// The narinfo's URL, or the store.
        url: String,
        /// The path.
        path: StorePath,
        /// Names of the keys that did sign, at most 8.
        signed_by: Vec<String>,
    },
    /// An archive that cannot be unpacked.
    #[error("{url} offers what cannot be unpacked")]
    Compression {
        /// The narinfo's URL.
        url: String,
        /// Why.
        #[source]
        source: UnknownCompression,
    },
    /// An archive at a place that cannot be fetched from.
    #[error("{url} names the archive `{location}`, which cannot be fetched")]
    Location {
        /// The narinfo's URL.
        url: String,
        /// Where the archive is said to be.
        location: String,
        /// Why not.
        #[source]
        source: LocationError,
    },
}

impl Refusal {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::NotACache { .. } => Code::NotFound,
            Self::StoreDir { .. } => Code::FailedPrecondition,
            Self::CacheInfo { .. } | Self::NotText { .. } | Self::OtherPath { .. } => Code::DataLoss,
            Self::NarInfo { source, .. } => match source.code() {
                Code::InvalidArgument => Code::DataLoss, // not the caller's argument
                other => other,
            },
            Self::Untrusted { .. } | Self::Location { .. } => Code::PermissionDenied,
            Self::Compression { .. } => Code::Unimplemented,
        }
    }
}

/// Why an offer could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What was offered is not there.
    #[error("{url} is not there, though it is offered")]
    Missing {
        /// Its URL.
        url: String,
    },
    /// The archive cannot be unpacked.
    #[error("{url} cannot be unpacked")]
    Decompress {
        /// Its URL.
        url: String,
        /// Why.
        #[source]
        source: DecompressError,
    },
    /// The archive is larger than was said; the rest is not looked at.
    #[error("{url} unpacks to more than the {nar_size} bytes it should have")]
    TooLong {
        /// Its URL.
        url: String,
        /// Bytes it should have.
        nar_size: u64,
    },
    /// The compressed archive is not the one offered.
    #[error("{url} should have {declared}, but has {found}")]
    File {
        /// Its URL.
        url: String,
        /// Hash or size in the offer.
        declared: String,
        /// Hash or size of what came.
        found: String,
    },
    /// The NAR is not the one offered, or the store could not take it.
    #[error("{url} is not taken in")]
    Add {
        /// Its URL.
        url: String,
        /// Why.
        #[source]
        source: Box<AddError>,
    },
    /// A part of a tree cannot be had from the other store.
    #[error("{from}: a file of {path} cannot be read")]
    Blob {
        /// The store.
        from: StoreName,
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: Box<ReadBlobError>,
    },
    /// A directory of a tree cannot be had from the other store, or from this.
    #[error("{from}: a directory of {path} cannot be read")]
    Directory {
        /// The store.
        from: StoreName,
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: Box<ReadDirectoryError>,
    },
    /// The tree has more in it than its NAR can have.
    #[error("{from}: the tree of {path} is larger than the {nar_size} bytes of its NAR")]
    TreeTooLarge {
        /// The store.
        from: StoreName,
        /// The path.
        path: StorePath,
        /// Bytes of its NAR.
        nar_size: u64,
    },
    /// This store takes no more.
    #[error("{path} cannot be stored")]
    Write {
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: WriteError,
    },
    /// What was just copied cannot be read back.
    #[error("what was copied of {path} cannot be read back")]
    ReadBack {
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: Box<DumpError>,
    },
    /// The store that is to be filled has another directory.
    #[error("{from} has paths of {theirs}, not of {ours}")]
    StoreDir {
        /// The substituter.
        from: StoreName,
        /// Its directory.
        theirs: String,
        /// That of the store to be filled.
        ours: String,
    },
    /// The offer is of something else than this gives out.
    #[error("{from} did not make this offer of {path}")]
    NotOffered {
        /// Who was asked.
        from: StoreName,
        /// The path.
        path: StorePath,
    },
}

impl FetchError {
    /// Whether it is the store to be filled that failed: nobody else's offer can help then.
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Write { .. } | Self::ReadBack { .. } | Self::StoreDir { .. } => true,
            Self::Add { source, .. } => matches!(**source, AddError::Ingest(IngestError::Store(_))),
            _ => false,
        }
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Request(error) => error.code(),
            Self::Missing { .. } => Code::NotFound,
            Self::Decompress { source, .. } => source.code(),
            Self::TooLong { .. } | Self::File { .. } | Self::TreeTooLarge { .. } => Code::DataLoss,
            Self::Add { source, .. } => match source.code() {
                Code::InvalidArgument => Code::DataLoss, // not the caller's argument
                other => other,
            },
            Self::Blob { source, .. } => source.code(),
            Self::Directory { source, .. } => source.code(),
            Self::Write { source, .. } => source.code(),
            Self::ReadBack { source, .. } => source.code(),
            Self::NotOffered { .. } => Code::InvalidArgument,
            Self::StoreDir { .. } => Code::FailedPrecondition,
        }
    }
}

/// Refuses to fill a store of another directory.
pub(crate) fn check_dir(from: &StoreName, theirs: &StoreDir, store: &Store) -> Result<(), FetchError> {
    if *theirs == store.dir {
        return Ok(());
    }
    Err(FetchError::StoreDir {
        from: from.clone(),
        theirs: theirs.as_str().to_owned(),
        ours: store.dir.as_str().to_owned(),
    })
}

fn by(keys: &[String]) -> String {
    if keys.is_empty() {
        " (it has no signature)".to_owned()
    } else {
        format!(" (it is signed by {})", keys.join(", "))
    }
}
