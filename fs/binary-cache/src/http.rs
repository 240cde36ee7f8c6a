//! Requests to a cache's servers: pooled, bounded, tried again, given up when a host is dead.
//!
//! hyper's pooling client with rustls: hyper and h2 are in the tree for gRPC, so this adds TLS and little else; HTTP/2 is
//! taken where a server offers it in the handshake.
//!
//! Invariants
//! - certificates are always checked, though contents are: who asks for what is nobody else's business;
//! - every wait has an end: to connect, for the answer's head, between two pieces of its body, between two tries;
//! - what fails for the moment is tried again after a growing, jittered delay; when the host seems dead all waiting tries
//!   end at once ([`breaker`]);
//! - a body is never longer than the caller allows, nor than announced.
//!
//! Source: RFC 9110; what Nix retries: 2.36 `src/libstore/filetransfer.cc`.

pub mod breaker;
mod download;
mod error;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::compression::{Compression, Decoder};
use crate::progress::Progress;
use crate::url::resolve;
use breaker::{Breaker, BreakerOptions};
pub use error::{RequestError, TlsError};
use retry::{Jitter, Retry};

pub(crate) use download::Download;

/// Redirects followed for one request.
const REDIRECTS_MAX: usize = 8;
/// Bytes of a body that is of no interest read so that the connection can be used again.
const DRAIN_MAX: usize = 16 << 10;

/// How a cache's servers are talked to.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Small requests in flight at once, and so connections where a server speaks HTTP/1.1 only.
    pub requests_max: usize,
    /// Archives in flight at once.
    pub downloads_max: usize,
    /// Tries of one request, at least 1.
    pub attempts_max: u32,
    /// Delay before the second try; it doubles from there.
    pub backoff_first: Duration,
    /// The longest delay, also where a server asks for more (`Retry-After`).
    pub backoff_max: Duration,
    /// Wait for a connection.
    pub connect_timeout: Duration,
    /// Wait for an answer's head, connecting included.
    pub response_timeout: Duration,
    /// Wait between two pieces of a body.
    pub stall_timeout: Duration,
    /// When a host counts as dead.
    pub breaker: BreakerOptions,
    /// Where the jitter of delays comes from.
    pub seed: u64,
    /// Which certificates are believed.
    pub roots: TlsRoots,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            requests_max: 64,
            downloads_max: 16,
            attempts_max: 5,
            backoff_first: Duration::from_millis(250),
            backoff_max: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            breaker: BreakerOptions::default(),
            seed: 0,
            roots: TlsRoots::System,
        }
    }
}

/// Which certificate authorities are believed.
#[derive(Clone, Debug, Default)]
pub enum TlsRoots {
    /// The machine's.
    #[default]
    System,
    /// Those of this text in PEM, as in the file `NIX_SSL_CERT_FILE` names.
    Pem(Bytes),
}

/// Talks to one cache's servers.
#[derive(Debug)]
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    options: HttpOptions,
    breaker: Breaker,
    jitter: Jitter,
    requests: Semaphore,
    downloads: Semaphore,
}

impl HttpClient {
    /// A client; no connection is made yet.
    pub(crate) fn new(options: HttpOptions) -> Result<Self, TlsError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(options.connect_timeout));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(&options.roots)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(options.requests_max)
            .http2_adaptive_window(true)
            .build(connector);
        Ok(Self {
            client,
            breaker: Breaker::new(options.breaker.clone()),
            jitter: Jitter::new(options.seed),
            requests: Semaphore::new(options.requests_max.max(1)),
            downloads: Semaphore::new(options.downloads_max.max(1)),
            options,
        })
    }

    /// A small file, `None` when there is none. Tries again what fails for the moment.
    pub(crate) async fn get(
        &self,
        url: &Uri,
        size_max: usize,
        progress: &dyn Progress,
    ) -> Result<Option<Bytes>, RequestError> {
        let mut retry = Retry::new();
        loop {
            let attempt = self.enter(url)?;
            match self.get_once(url, size_max).await {
                Ok(found) => {
                    attempt.succeeded();
                    return Ok(found);
                }
                Err(error) => retry.after(self, attempt, url, error, progress).await?,
            }
        }
    }

    async fn get_once(&self, url: &Uri, size_max: usize) -> Result<Option<Bytes>, RequestError> {
        let _permit = self.requests.acquire().await;
        let Some(response) = self.open(url, 0).await? else {
            return Ok(None);
        };
        let encoding = response.headers().get(header::CONTENT_ENCODING).cloned();
        let body = self.collect(url, response, size_max).await?;
        let Some(encoding) = encoding else {
            return Ok(Some(body));
        };
        // newer Nix stores narinfo compressed, and object stores send it as it is stored
        let text = encoding.to_str().unwrap_or_default();
        unpack(text, &body, size_max)
            .map(Some)
            .ok_or_else(|| RequestError::Encoding {
                url: url.to_string(),
                encoding: text.to_owned(),
            })
    }

    /// The answer's head, from byte `from` of the file, redirects followed; `None` when there is no such file.
    async fn open(&self, url: &Uri, from: u64) -> Result<Option<Response<Incoming>>, RequestError> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send(&at, from).await?;
            let status = response.status();
            match status {
                StatusCode::OK => return Ok(Some(response)),
                StatusCode::PARTIAL_CONTENT if from > 0 => return Ok(Some(response)),
                // object stores answer 403 for what is not there when they may not list
                StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN => {
                    self.drain(response).await;
                    return Ok(None);
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    at = redirect(&at, response.headers())?;
                    self.drain(response).await;
                }
                status => {
                    let error = RequestError::Status {
                        url: at.to_string(),
                        status: status.as_u16(),
                        retry_after: retry_after(response.headers()),
                    };
                    self.drain(response).await;
                    return Err(error);
                }
            }
        }
        Err(RequestError::Redirects {
            url: url.to_string(),
            redirects_max: REDIRECTS_MAX,
        })
    }

    async fn send(&self, url: &Uri, from: u64) -> Result<Response<Incoming>, RequestError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(
            header::USER_AGENT,
            header::HeaderValue::from_static(concat!("igloo/", env!("CARGO_PKG_VERSION"))),
        );
        if from > 0
            && let Ok(range) = format!("bytes={from}-").parse()
        {
            headers.insert(header::RANGE, range);
        }
        let wait = self.options.response_timeout;
        match timeout(wait, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|source| RequestError::connection(url, source)),
            Err(_) => Err(RequestError::Timeout {
                url: url.to_string(),
                what: "an answer",
                waited: wait,
            }),
        }
    }

    async fn collect(
        &self,
        url: &Uri,
        response: Response<Incoming>,
        size_max: usize,
    ) -> Result<Bytes, RequestError> {
        let too_large = || RequestError::TooLarge {
            url: url.to_string(),
            size_max: size_max as u64,
        };
        if content_length(response.headers()).is_some_and(|size| size > size_max as u64) {
            return Err(too_large());
        }
        let mut body = response.into_body();
        let mut collected = BytesMut::new();
        while let Some(piece) = self.piece(url, &mut body).await? {
            if collected.len() + piece.len() > size_max {
                return Err(too_large());
            }
            collected.extend_from_slice(&piece);
        }
        Ok(collected.freeze())
    }

    /// The next bytes of a body, `None` at its end.
    async fn piece(&self, url: &Uri, body: &mut Incoming) -> Result<Option<Bytes>, RequestError> {
        let wait = self.options.stall_timeout;
        loop {
            let frame = timeout(wait, body.frame())
                .await
                .map_err(|_| RequestError::Timeout {
                    url: url.to_string(),
                    what: "more of its contents",
                    waited: wait,
                })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|source| RequestError::Interrupted {
                url: url.to_string(),
                source: source.into(),
            })?;
            if let Ok(bytes) = frame.into_data()
                && !bytes.is_empty()
            {
                return Ok(Some(bytes));
            }
        }
    }

    /// Reads a short body to its end, so that its connection can be used again; drops a long one, and the connection.
    async fn drain(&self, response: Response<Incoming>) {
        let mut body = response.into_body();
        let read = async {
            let mut left = DRAIN_MAX;
            while let Some(Ok(frame)) = body.frame().await {
                match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        let _ = timeout(Duration::from_secs(1), read).await;
    }

    fn enter(&self, url: &Uri) -> Result<breaker::Attempt<'_>, RequestError> {
        self.breaker
            .enter(Instant::now())
            .map_err(|retry_in| RequestError::Dead {
                host: url
                    .authority()
                    .map_or_else(String::new, |authority| authority.to_string()),
                retry_in,
            })
    }
}

fn tls_config(roots: &TlsRoots) -> Result<rustls::ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Setup { source })?;
    let TlsRoots::Pem(pem) = roots else {
        // without any, http still works, and https says that nobody is known
        return Ok(match builder.clone().with_native_roots() {
            Ok(builder) => builder.with_no_client_auth(),
            Err(_) => builder
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        });
    };
    let mut store = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| TlsError::Pem {
            reason: error.to_string(),
        })?;
        store
            .add(certificate)
            .map_err(|source| TlsError::Setup { source })?;
    }
    if store.is_empty() {
        return Err(TlsError::Pem {
            reason: "there is no certificate in it".to_owned(),
        });
    }
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

fn redirect(at: &Uri, headers: &HeaderMap) -> Result<Uri, RequestError> {
    let location = headers
        .get(header::LOCATION)
        .and_then(|value| value.to_str().ok());
    let location = location.unwrap_or_default();
    resolve(at, location).map_err(|source| RequestError::Location {
        url: at.to_string(),
        location: location.chars().take(200).collect(),
        source,
    })
}

fn number(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(headers, header::CONTENT_LENGTH)
}

/// The delay a busy server asks for; dates are not looked at.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    number(headers, header::RETRY_AFTER).map(Duration::from_secs)
}

/// A small body as it was before it was packed for the way; `None` when it cannot be.
fn unpack(encoding: &str, body: &[u8], size_max: usize) -> Option<Bytes> {
    let compression = match encoding {
        "" | "identity" => Compression::None,
        other => other.parse().ok()?,
    };
    let mut decoder = Decoder::new(compression).ok()?;
    let mut unpacked = Vec::with_capacity(size_max.min(body.len().saturating_mul(16)).max(1 << 16));
    let mut rest = body;
    loop {
        decoder.decode(&mut rest, &mut unpacked, true).ok()?;
        if unpacked.len() < unpacked.capacity() {
            return (unpacked.len() <= size_max).then(|| unpacked.into());
        }
        if unpacked.len() > size_max {
            return None;
        }
        unpacked.reserve(unpacked.len());
    }
}
