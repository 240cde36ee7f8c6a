//! Fetching URLs into the castore.
//!
//! Map: [`Fetcher`] opens a URL (`url`: HTTP, HTTPS, files); `Transfer` reads what it gives, again from the start where
//! trying again can help; `decode` undoes compression, `tar` reads archives, `unpack` puts them in the castore. [`fetch_file`]
//! is for others than evaluations.
//!
//! Invariants
//! - everything from outside is bounded: bytes sent, bytes after decoding, entries, depth, names, time without a byte;
//! - nothing is written but content to the castore: no temporary files, no archive entry ever touches a file system.

mod decode;
mod file;
mod tar;
mod unpack;
mod url;

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use igloo_castore::error::WriteError;
use igloo_castore::node::Node;
use igloo_castore::store::Castore;
use igloo_status::Code;
use nix_compat::hash::{HashAlgo, Hasher, NixHash};

use crate::error::chain;
use crate::view::Runtime;
pub use file::{Decode, fetch_file};
pub(crate) use unpack::{Root, TreeWriter};
pub use unpack::{TarError, UnpackError};
pub(crate) use url::file_path;
pub use url::{HttpOptions, TrustedRoots, UrlFetcher};

/// Bytes read at a time.
const BLOCK_SIZE: usize = 256 << 10;

/// Opens URLs. One is shared by many evaluations.
pub trait Fetcher: Send + Sync {
    /// Starts a transfer: what is at `url`, redirects followed, up to the first byte of it. Blocks.
    ///
    /// Errors while reading belong to the body; one that says why with a [`FetchError`] inside is taken at its word.
    ///
    /// # Errors
    /// See [`FetchError`]; its class says whether the caller may try again.
    fn open(&self, url: &str) -> Result<Box<dyn Read>, FetchError>;
}

/// Bounds on what is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// Most bytes of one transfer.
    pub transfer_bytes_max: u64,
    /// Most bytes of one archive after decoding.
    pub unpacked_bytes_max: u64,
    /// Most files, directories and symlinks in one archive.
    pub entries_max: usize,
    /// Most directories inside each other.
    pub depth_max: usize,
    /// How often a transfer is begun before giving up; at least once.
    pub attempts_max: u32,
    /// Wait before the second attempt; doubled for each later one.
    pub retry_wait: Duration,
}

/// 16 GiB, 64 GiB unpacked, 4 million entries, 256 deep, 5 attempts from 250 ms on (Nix's `download-attempts`).
impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            transfer_bytes_max: 16 << 30,
            unpacked_bytes_max: 64 << 30,
            entries_max: 4 << 20,
            depth_max: 256,
            attempts_max: 5,
            retry_wait: Duration::from_millis(250),
        }
    }
}

/// One fetch on its way into the castore.
pub(crate) struct Transfer<'a> {
    pub(crate) castore: &'a Castore,
    pub(crate) runtime: &'a Runtime,
    pub(crate) fetcher: &'a dyn Fetcher,
    pub(crate) limits: &'a FetchLimits,
}

impl Transfer<'_> {
    /// A file and the hash of its bytes.
    pub(crate) fn file(&self, url: &str, algo: HashAlgo) -> Result<(Node, NixHash), FetchError> {
        self.attempts(url, |body| {
            let mut hasher = Hasher::new(algo);
            let node = self.store_file(url, body, Some(&mut hasher))?;
            Ok((node, hasher.finish()))
        })
    }

    /// The tree in an archive, and the time of its newest entry in seconds since 1970.
    ///
    /// An archive of one directory and nothing else stands for that directory.
    pub(crate) fn archive(&self, url: &str) -> Result<(Node, Option<u64>), FetchError> {
        self.attempts(url, |body| {
            let unpacked = unpack::unpack(self.castore, self.runtime, self.limits, body);
            unpacked.map_err(|source| FetchError::Archive {
                url: url.to_owned(),
                source: Box::new(source),
            })
        })
    }

    /// Runs `once` on the body until it succeeds, or fails for good.
    fn attempts<T>(
        &self,
        url: &str,
        once: impl Fn(&mut dyn Read) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let mut attempt = 1;
        let mut wait = self.limits.retry_wait;
        loop {
            let result = self.attempt(url, &once);
            match result {
                Err(error) if error.code().is_transient() && attempt < self.limits.attempts_max => {
                    std::thread::sleep(wait);
                    attempt += 1;
                    wait = wait.saturating_mul(2);
                }
                result => return result,
            }
        }
    }

    fn attempt<T>(
        &self,
        url: &str,
        once: impl Fn(&mut dyn Read) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let broken = Rc::new(RefCell::new(None));
        let mut body = Body {
            inner: self.fetcher.open(url)?,
            url,
            left: self.limits.transfer_bytes_max,
            size_max: self.limits.transfer_bytes_max,
            broken: Rc::clone(&broken),
        };
        let result = once(&mut body);
        // whatever a decoder makes of it, a transfer that broke is the cause
        match (broken.take(), result) {
            (Some(error), Err(_)) => Err(error),
            (_, result) => result,
        }
    }

    fn store_file(
        &self,
        url: &str,
        body: &mut dyn Read,
        mut hasher: Option<&mut Hasher>,
    ) -> Result<Node, FetchError> {
        let store = |source| FetchError::Store {
            url: url.to_owned(),
            source,
        };
        let mut writer = self.wait(self.castore.blobs.writer())?.map_err(store)?;
        loop {
            let mut block = vec![0; BLOCK_SIZE];
            let count = fill(body, &mut block).map_err(|source| FetchError::Transfer {
                url: url.to_owned(),
                source,
            })?;
            block.truncate(count);
            if count == 0 {
                break;
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(&block);
            }
            self.wait(writer.write(Bytes::from(block)))?.map_err(store)?;
        }
        let (digest, size) = self.wait(writer.finish())?.map_err(store)?;
        Ok(Node::File {
            digest,
            size,
            executable: false,
        })
    }

    fn wait<F: Future>(&self, future: F) -> Result<F::Output, FetchError> {
        self.runtime.wait(future).map_err(|error| FetchError::Thread {
            what: error.to_string(),
        })
    }
}

/// Reads until `buffer` is full or nothing more comes.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match reader.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// A body of bounded length that remembers what broke it.
struct Body<'a> {
    inner: Box<dyn Read>,
    url: &'a str,
    left: u64,
    size_max: u64,
    broken: Rc<RefCell<Option<FetchError>>>,
}

impl Body<'_> {
    fn breaks(&self, error: FetchError) -> io::Error {
        let said = io::Error::other(chain(&error));
        self.broken.borrow_mut().get_or_insert(error);
        said
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.inner.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.breaks(FetchError::from_body(self.url, error))),
        };
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(self.breaks(FetchError::TooLarge {
                    url: self.url.to_owned(),
                    size_max: self.size_max,
                }));
            }
        }
        Ok(count)
    }
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not a URL this fetcher knows how to open.
    #[error("cannot fetch '{url}': its scheme is none of http, https and file")]
    Scheme {
        /// The URL.
        url: String,
    },
    /// Not a URL.
    #[error("'{url}' is not a valid URL: {reason}")]
    Url {
        /// The text.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server refused.
    #[error("unable to download '{url}': HTTP error {status}")]
    Status {
        /// The URL.
        url: String,
        /// What the server answered.
        status: u16,
    },
    /// A chain of redirects without an end, or out of HTTP.
    #[error("unable to download '{url}': {reason}")]
    Redirect {
        /// The URL asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The server said nothing for too long.
    #[error("unable to download '{url}': no answer in time ({waited_for})")]
    TimedOut {
        /// The URL.
        url: String,
        /// What was waited for.
        waited_for: String,
    },
    /// The connection failed or broke.
    #[error("unable to download '{url}'")]
    Transfer {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No trust in the server could be established.
    #[error("unable to download '{url}': the server cannot be trusted: {reason}")]
    Tls {
        /// The URL.
        url: String,
        /// Why.
        reason: String,
    },
    /// The certificates to trust cannot be read.
    #[error(
        "no certificates to trust: {reason}; name a PEM bundle of them, or install the system's (ca-certificates)"
    )]
    Roots {
        /// What was tried.
        reason: String,
    },
    /// Over `FetchLimits::transfer_bytes_max`.
    #[error("'{url}' has more than the {size_max} bytes allowed")]
    TooLarge {
        /// The URL.
        url: String,
        /// The bound.
        size_max: u64,
    },
    /// The archive cannot be unpacked.
    #[error("failed to extract archive '{url}'")]
    Archive {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: Box<UnpackError>,
    },
    /// The file cannot be decoded.
    #[error("cannot decode '{url}'")]
    Decode {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of this machine cannot be read.
    #[error("cannot read the file of '{url}'")]
    File {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store could not take it.
    #[error("what '{url}' gave cannot be stored")]
    Store {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: WriteError,
    },
    /// This thread cannot wait.
    #[error("{what}")]
    Thread {
        /// What to do instead.
        what: String,
    },
}

impl FetchError {
    /// The class of the failure; transient ones are tried again.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Scheme { .. } => Code::Unimplemented,
            Self::Url { .. } | Self::Decode { .. } => Code::InvalidArgument,
            Self::Status { status, .. } => match status {
                401 | 403 | 407 => Code::PermissionDenied,
                404 | 410 => Code::NotFound,
                501 | 505 | 511 => Code::FailedPrecondition,
                408 | 425 | 429 | 500..=599 => Code::Unavailable,
                _ => Code::FailedPrecondition,
            },
            Self::Redirect { .. } | Self::Thread { .. } => Code::FailedPrecondition,
            Self::TimedOut { .. } => Code::DeadlineExceeded,
            Self::Transfer { .. } => Code::Unavailable,
            Self::Tls { .. } => Code::Unauthenticated,
            Self::Roots { .. } => Code::NotFound,
            Self::TooLarge { .. } => Code::ResourceExhausted,
            Self::Archive { source, .. } => source.code(),
            Self::File { source, .. } => Code::from_io(source),
            Self::Store { source, .. } => match source.code() {
                // the store, not the network, is what does not answer
                code if code.is_transient() => Code::FailedPrecondition,
                code => code,
            },
        }
    }

    fn from_body(url: &str, error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::Transfer {
                url: url.to_owned(),
                source,
            },
        }
    }
}
