//! Why a request failed.

use std::error::Error;
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy;
use igloo_status::Code;

use crate::url::LocationError;

/// Why a request failed. Every variant names the URL or the host.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No connection, or it broke before an answer came.
    #[error("{url}: the server cannot be reached")]
    Connection {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: legacy::Error,
    },
    /// The server is not who it should be.
    #[error("{url}: the server's certificate is not accepted; if its authority is your own, name its file")]
    Certificate {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: legacy::Error,
    },
    /// The body broke off.
    #[error("{url}: the answer broke off")]
    Interrupted {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The body is shorter than it should be.
    #[error("{url}: the answer ends after {size} of {expected} bytes")]
    Short {
        /// The URL.
        url: String,
        /// Bytes that came.
        size: u64,
        /// Bytes that should have come.
        expected: u64,
    },
    /// The server announces another length than the file has.
    #[error("{url}: the server announces {announced} bytes, but it should have {expected}")]
    Length {
        /// The URL.
        url: String,
        /// Bytes announced.
        announced: u64,
        /// Bytes it should have.
        expected: u64,
    },
    /// Nothing came in time.
    #[error("{url}: {what} did not come within {waited:?}")]
    Timeout {
        /// The URL.
        url: String,
        /// What was waited for.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// The server refuses or fails.
    #[error("{url}: the server answers with status {status}")]
    Status {
        /// The URL.
        url: String,
        /// The status.
        status: u16,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer is longer than allowed.
    #[error("{url}: the answer is longer than the {size_max} bytes allowed")]
    TooLarge {
        /// The URL.
        url: String,
        /// The bound, bytes.
        size_max: u64,
    },
    /// The answer is packed in a way that cannot be undone.
    #[error("{url}: the answer's encoding `{encoding}` cannot be undone")]
    Encoding {
        /// The URL.
        url: String,
        /// The encoding.
        encoding: String,
    },
    /// A continued answer does not continue.
    #[error("{url}: the server does not continue at byte {offset}")]
    Range {
        /// The URL.
        url: String,
        /// Where it should.
        offset: u64,
    },
    /// A redirect that cannot be followed.
    #[error("{url}: it redirects to `{location}`, which cannot be followed")]
    Location {
        /// The URL.
        url: String,
        /// Where it leads.
        location: String,
        /// Why not.
        #[source]
        source: LocationError,
    },
    /// Too many redirects.
    #[error("{url}: more than {redirects_max} redirects")]
    Redirects {
        /// The URL.
        url: String,
        /// The bound.
        redirects_max: usize,
    },
    /// The host failed so often that it is left alone for a while.
    #[error("{host} has failed too often; it is asked again in {} seconds", retry_in.as_secs().max(1))]
    Dead {
        /// The host.
        host: String,
        /// For how long.
        retry_in: Duration,
    },
    /// A file of a cache in a directory.
    #[error("{path} cannot be read")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl RequestError {
    /// An error of hyper's client: certificates are told apart, since trying again does not mend them.
    pub(crate) fn connection(url: &Uri, source: legacy::Error) -> Self {
        let url = url.to_string();
        if is_about_certificates(&source) {
            Self::Certificate { url, source }
        } else {
            Self::Connection { url, source }
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection { .. }
            | Self::Interrupted { .. }
            | Self::Short { .. }
            | Self::Timeout { .. }
            | Self::Dead { .. } => true,
            Self::Status { status, .. } => {
                matches!(status, 408 | 425 | 429) || (*status >= 500 && !matches!(status, 501 | 505 | 511))
            }
            _ => false,
        }
    }

    /// Whether the host works, though it refuses this request.
    pub(crate) fn is_answer(&self) -> bool {
        !self.is_transient() || matches!(self, Self::Status { status: ..500, .. })
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Connection { .. } | Self::Interrupted { .. } | Self::Short { .. } | Self::Dead { .. } => {
                Code::Unavailable
            }
            Self::Timeout { .. } => Code::DeadlineExceeded,
            Self::Status {
                status: 401 | 407, ..
            } => Code::Unauthenticated,
            Self::Status { status: 429, .. } | Self::TooLarge { .. } => Code::ResourceExhausted,
            Self::Status { .. } if self.is_transient() => Code::Unavailable,
            Self::Certificate { .. } | Self::Location { .. } => Code::PermissionDenied,
            Self::Length { .. } => Code::DataLoss,
            Self::Encoding { .. } => Code::Unimplemented,
            Self::Status { .. } | Self::Range { .. } | Self::Redirects { .. } => Code::FailedPrecondition,
            Self::File { source, .. } => Code::from_io(source),
        }
    }
}

/// Why connections cannot be protected.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authorities' file is wrong.
    #[error("the certificates given cannot be read: {reason}")]
    Pem {
        /// Why.
        reason: String,
    },
    /// rustls refuses.
    #[error("TLS cannot be set up")]
    Setup {
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

impl TlsError {
    /// The configuration must change.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

fn is_about_certificates(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // an I/O error's `source` is that of the error it wraps: the wrapped one itself would be passed over
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}
