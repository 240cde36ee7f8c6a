//! The only door to the world: [`EvalIo`].
//!
//! Everything an evaluation reads or does outside itself is a call of this trait, so that it can be logged, restricted,
//! answered from memory or parked. Calls may block. `realise` and `fetch` may block for long: a world that can answer them
//! later implements `start_realise`, `start_fetch` and `wait_any`, and then only what needs the answer waits for it.

mod fs;
mod memory;
mod nar;

pub use fs::{AccessRules, FsIo};
pub use memory::MemoryIo;
pub use nar::hash_tree;

use std::error::Error;
use std::sync::Arc;

use igloo_status::Code;
use nix_compat::derivation::{Derivation, OutputName};
use nix_compat::hash::NixHash;
use nix_compat::store_path::{StoreDir, StorePath};

use crate::heap::context::ContextElem;
pub use crate::pure::flakeref::scheme_attributes;

/// What stands at a path, itself (not what a symlink points to).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Unknown,
}

/// How the content of a path becomes a store path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestMethod {
    /// The file's bytes are hashed.
    Flat,
    /// The NAR of the tree is hashed.
    Nar,
}

/// Decides whether an entry of a tree is imported: path and type.
pub type PathFilter<'a> = dyn FnMut(&[u8], FileType) -> Result<bool, IoError> + 'a;

/// A request to make a store path of a file or tree.
pub struct ImportPath<'a> {
    /// Absolute path of the file or tree.
    pub path: &'a [u8],
    /// Name of the store path.
    pub name: &'a str,
    /// How it is hashed.
    pub method: IngestMethod,
    /// Which entries are taken; all when absent.
    pub filter: Option<&'a mut PathFilter<'a>>,
    /// What the hash must be.
    pub expected: Option<&'a NixHash>,
}

/// What to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchRequest {
    /// One file.
    Url {
        /// Where from.
        url: String,
        /// Name of the store path.
        name: String,
        /// SHA-256 of the file.
        sha256: Option<NixHash>,
    },
    /// An archive, unpacked.
    Tarball {
        /// Where from.
        url: String,
        /// Name of the store path.
        name: String,
        /// SHA-256 of the tree's NAR.
        sha256: Option<NixHash>,
    },
    /// A tree by fetcher attributes (`fetchTree`, `fetchGit`, `fetchMercurial`).
    Tree {
        /// The attributes, `type` among them.
        attrs: Vec<(String, FetchAttr)>,
    },
}

/// A fetcher attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchAttr {
    /// Text.
    String(String),
    /// A number.
    Int(u64),
    /// A truth value.
    Bool(bool),
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is in the store.
    pub path: StorePath,
    /// What is known of it (`rev`, `lastModified`, `narHash`, …).
    pub attrs: Vec<(String, FetchAttr)>,
}

/// What a derivation makes and needs, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivationLinks {
    /// Names of its outputs.
    pub outputs: Box<[OutputName]>,
    /// Derivations and sources it refers to.
    pub references: Box<[StorePath]>,
}

impl DerivationLinks {
    /// The links of a derivation.
    #[must_use]
    pub fn of(derivation: &Derivation) -> Self {
        Self {
            outputs: derivation.outputs.keys().cloned().collect(),
            references: derivation.references().into_iter().collect(),
        }
    }
}

/// Something the evaluation says while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `builtins.trace`.
    Trace(String),
    /// `builtins.warn`, rendered with its prefix.
    EvaluationWarning(String),
    /// A warning of the evaluator, rendered.
    Warning(String),
}

/// The answer to a question that may take long.
pub enum Started<'a, T> {
    /// It is there, or cannot be had.
    Done(Result<T, IoError>),
    /// It is on its way.
    Pending(Box<dyn Pending<T> + 'a>),
}

/// An answer on its way. Dropping it says that nobody wants it any more.
pub trait Pending<T> {
    /// The answer, once it is there; then it is not asked again. Never blocks: it is asked after every
    /// [`EvalIo::wait_any`], and now and then between.
    fn poll(&mut self) -> Option<Result<T, IoError>>;
}

/// The world, as an evaluation sees it.
///
/// Paths are absolute and canonical. A path below the store directory may be one that `realise` or `fetch` made.
pub trait EvalIo {
    /// The store directory.
    fn store_dir(&self) -> &StoreDir;

    /// The bytes of a file; follows a symlink at the end.
    ///
    /// # Errors
    /// When there is no such file, it is not readable, or it may not be read.
    fn read_file(&self, path: &[u8]) -> Result<Vec<u8>, IoError>;

    /// What is at a path; `None` when nothing is.
    ///
    /// # Errors
    /// When the path may not be looked at.
    fn file_type(&self, path: &[u8]) -> Result<Option<FileType>, IoError>;

    /// Where a symlink points.
    ///
    /// # Errors
    /// When it is no symlink or may not be read.
    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, IoError>;

    /// Names and types of a directory's entries, in any order.
    ///
    /// # Errors
    /// When it is no directory or may not be read.
    fn read_dir(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>, IoError>;

    /// An environment variable.
    fn env(&self, name: &[u8]) -> Option<Vec<u8>>;

    /// Makes a store path of a file or tree.
    ///
    /// # Errors
    /// When it cannot be read or hashed, its filter fails, or its hash is not the expected one.
    fn import_path(&self, request: ImportPath<'_>) -> Result<StorePath, IoError>;

    /// Makes a store path of a text with references.
    ///
    /// # Errors
    /// When the name is no store path name or the store refuses it.
    fn add_text(&self, name: &str, text: &[u8], references: &[StorePath]) -> Result<StorePath, IoError>;

    /// Takes a derivation and its text (`.drv` file), which is that of its path; called once for each, in the order of
    /// instantiation, inputs first.
    ///
    /// # Errors
    /// When the store refuses it.
    fn write_derivation(
        &self,
        path: &StorePath,
        derivation: Arc<Derivation>,
        text: Vec<u8>,
    ) -> Result<(), IoError>;

    /// A derivation that is in the store.
    ///
    /// # Errors
    /// When it is not there or is damaged.
    fn read_derivation(&self, path: &StorePath) -> Result<Derivation, IoError>;

    /// Outputs and references of a derivation: what a string that refers to its whole closure needs.
    ///
    /// # Errors
    /// As [`EvalIo::read_derivation`].
    fn derivation_links(&self, path: &StorePath) -> Result<DerivationLinks, IoError> {
        Ok(DerivationLinks::of(&self.read_derivation(path)?))
    }

    /// Whether a store path is there.
    ///
    /// # Errors
    /// When the store cannot tell.
    fn is_valid_path(&self, path: &StorePath) -> Result<bool, IoError>;

    /// Whether a store path that the expression names itself (`storePath`) has to be realised: it is not there, and the
    /// world makes what is missing.
    ///
    /// # Errors
    /// When the store cannot tell.
    fn lacks_path(&self, path: &StorePath) -> Result<bool, IoError>;

    /// References of a store path.
    ///
    /// # Errors
    /// When nothing is known of it.
    fn references(&self, path: &StorePath) -> Result<Vec<StorePath>, IoError>;

    /// Makes everything in a context exist: outputs are built, paths fetched.
    ///
    /// Returns replacements for placeholders of outputs whose paths were unknown.
    ///
    /// # Errors
    /// When a build fails or building is not possible.
    fn realise(&self, context: &[ContextElem]) -> Result<Vec<(String, String)>, IoError>;

    /// Fetches something.
    ///
    /// # Errors
    /// When it cannot be had or has the wrong hash.
    fn fetch(&self, request: &FetchRequest) -> Result<Fetched, IoError>;

    /// Starts [`EvalIo::realise`]. The evaluation goes on with what does not need the answer, and may start more: all that
    /// is on its way at one time is wanted at that time.
    fn start_realise<'a>(&'a self, context: &[ContextElem]) -> Started<'a, Vec<(String, String)>> {
        Started::Done(self.realise(context))
    }

    /// Starts [`EvalIo::fetch`], as [`EvalIo::start_realise`] does with builds.
    fn start_fetch<'a>(&'a self, request: &FetchRequest) -> Started<'a, Fetched> {
        Started::Done(self.fetch(request))
    }

    /// Blocks until an answer has come since the last call, or one that had come before was not asked for yet. May
    /// return early. Called only while something is on its way and nothing else is left to do.
    ///
    /// # Errors
    /// When no answer can be waited for any more; whatever waits for one fails with this.
    fn wait_any(&self) -> Result<(), IoError> {
        Ok(())
    }

    /// A path for a search path entry that is a URL or of a special scheme; `None` when it is neither.
    ///
    /// # Errors
    /// When it is one and cannot be had.
    fn resolve_search_path(&self, entry: &str) -> Result<Option<Vec<u8>>, IoError> {
        let _ = entry;
        Ok(None)
    }

    /// Hears what the evaluation says.
    fn notice(&self, notice: Notice);
}

/// Why a call of the world failed. The message is what the user reads, in Nix's words where Nix has some.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// Nothing is at the path.
    #[error("path '{path}' does not exist")]
    NotFound {
        /// The path.
        path: String,
    },
    /// Something else is at the path.
    #[error("'{path}' is not a {wanted}")]
    WrongType {
        /// The path.
        path: String,
        /// What was wanted.
        wanted: &'static str,
    },
    /// The mode of the evaluation forbids it.
    #[error("access to absolute path '{path}' is forbidden {why}")]
    Forbidden {
        /// The path.
        path: String,
        /// In which mode.
        why: &'static str,
    },
    /// The system refused.
    #[error("cannot read '{path}': {source}")]
    System {
        /// The path.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A store path is not there.
    #[error("path '{path}' is not valid")]
    InvalidPath {
        /// The store path.
        path: String,
    },
    /// This world cannot do it.
    #[error("{what}")]
    Unsupported {
        /// What was asked, and what to do instead.
        what: String,
    },
    /// A build is not possible.
    #[error("{what}")]
    Build {
        /// What cannot be built, and why.
        what: String,
    },
    /// A build failed.
    #[error("{what}")]
    BuildFailed {
        /// What failed.
        what: String,
        /// Exit status Nix has for it.
        exit: u8,
    },
    /// Fetching from there is forbidden.
    #[error("access to URI '{uri}' is forbidden in restricted mode")]
    ForbiddenUri {
        /// Where from.
        uri: String,
    },
    /// What was fetched has another hash than it must have.
    #[error("hash mismatch in file downloaded from '{url}':\n  specified: {specified}\n  got:       {got}")]
    HashMismatch {
        /// Where from.
        url: String,
        /// The hash it must have, as it is shown.
        specified: String,
        /// The hash it has.
        got: String,
    },
    /// The store failed.
    #[error("the store failed at '{what}': {}", chain(.source.as_ref()))]
    Store {
        /// What was read or written.
        what: String,
        /// The class of the cause.
        code: Code,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A fetch failed.
    #[error("{what}")]
    Fetch {
        /// What failed.
        what: String,
    },
    /// Content is not what was promised.
    #[error("{what}")]
    Mismatch {
        /// What differs.
        what: String,
    },
    /// The caller ended the evaluation.
    #[error("interrupted by the user")]
    Interrupted,
    /// The filter of an import failed; the evaluator knows why.
    #[error("the path filter failed")]
    Filter,
}

impl IoError {
    /// The class of failure shared by all parts of igloo.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } | Self::InvalidPath { .. } => Code::NotFound,
            Self::WrongType { .. } | Self::Filter => Code::FailedPrecondition,
            Self::Forbidden { .. } | Self::ForbiddenUri { .. } => Code::PermissionDenied,
            Self::System { .. } => Code::Unknown,
            Self::Unsupported { .. } => Code::Unimplemented,
            Self::Build { .. } | Self::BuildFailed { .. } => Code::Aborted,
            Self::Fetch { .. } => Code::Unavailable,
            Self::Mismatch { .. } | Self::HashMismatch { .. } => Code::DataLoss,
            Self::Store { code, .. } => *code,
            Self::Interrupted => Code::Cancelled,
        }
    }
}

/// An error and its causes in one line: evaluations print messages, not chains.
fn chain(error: &(dyn Error + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // transparent wrappers say the same twice
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
