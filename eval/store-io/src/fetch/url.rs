//! URLs of HTTP, HTTPS and files.
//!
//! TLS is rustls; whom it trusts comes from a bundle of certificates, the system's by default. Redirects are followed
//! within HTTP only. A server that sends nothing for [`HttpOptions::stall_max`], or
//! drips for longer than [`HttpOptions::total_max`], is given up.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::{FetchError, Fetcher};

/// Where systems keep the certificates they trust. Source: Nix 2.34 `src/libstore/globals.cc`; Fedora, Alpine, macOS.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/nix/var/nix/profiles/default/etc/ssl/certs/ca-bundle.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// Bytes of a bundle read at most.
const BUNDLE_BYTES_MAX: u64 = 16 << 20;

/// How HTTP is spoken.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Longest wait for a connection.
    pub connect_max: Duration,
    /// Longest wait for the next byte, or for the answer to begin (Nix's `stalled-download-timeout`).
    pub stall_max: Duration,
    /// Longest time for one attempt from beginning to end; endless when absent.
    pub total_max: Option<Duration>,
    /// Redirects followed.
    pub redirects_max: u32,
    /// Whom to trust.
    pub roots: TrustedRoots,
    /// URL of a proxy for HTTP and HTTPS.
    pub proxy: Option<String>,
    /// What the server is told about us.
    pub user_agent: String,
}

/// 30 s, 300 s, 6 hours, 10 redirects, the system's certificates, no proxy.
impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_max: Duration::from_secs(30),
            stall_max: Duration::from_secs(300),
            total_max: Some(Duration::from_secs(6 * 3600)),
            redirects_max: 10,
            roots: TrustedRoots::System,
            proxy: None,
            user_agent: concat!("igloo/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Certificates that servers must be vouched for by.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum TrustedRoots {
    /// The system's bundle, where it is usually found.
    #[default]
    System,
    /// A bundle in PEM form (what `NIX_SSL_CERT_FILE` names).
    File(PathBuf),
}

/// Opens `http:`, `https:` and `file:` URLs. Connections are reused.
#[derive(Debug)]
pub struct UrlFetcher {
    options: HttpOptions,
    /// Without TLS, and with it; made when first used: a fetch of plain HTTP needs no certificates.
    plain: Mutex<Option<Agent>>,
    secure: Mutex<Option<Agent>>,
}

impl UrlFetcher {
    /// Nothing is opened or read yet.
    #[must_use]
    pub fn new(options: HttpOptions) -> Self {
        Self {
            options,
            plain: Mutex::default(),
            secure: Mutex::default(),
        }
    }

    fn http(&self, url: &str) -> Result<Box<dyn Read>, FetchError> {
        // a redirect may lead to HTTPS: without certificates that one fails, and says so
        let secure = has_scheme(url, "https");
        let agent = match self.agent(true) {
            Err(FetchError::Roots { .. }) if !secure => self.agent(false)?,
            agent => agent?,
        };
        let response = agent.get(url).call().map_err(|error| http_error(url, error))?;
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Box::new(HttpBody {
            body,
            url: url.to_owned(),
        }))
    }

    fn agent(&self, secure: bool) -> Result<Agent, FetchError> {
        let slot = if secure { &self.secure } else { &self.plain };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = &*slot {
            return Ok(agent.clone());
        }
        let roots = if secure {
            roots(&self.options.roots)?
        } else {
            Vec::new()
        };
        let agent = make_agent(&self.options, &roots)?;
        Ok(slot.insert(agent).clone())
    }
}

impl Fetcher for UrlFetcher {
    fn open(&self, url: &str) -> Result<Box<dyn Read>, FetchError> {
        if has_scheme(url, "http") || has_scheme(url, "https") {
            return self.http(url);
        }
        match file_path(url)? {
            Some(path) => open_file(url, &path),
            None => Err(FetchError::Scheme { url: url.to_owned() }),
        }
    }
}

fn has_scheme(url: &str, scheme: &str) -> bool {
    let Some((found, _)) = url.split_once("://") else {
        return false;
    };
    found.eq_ignore_ascii_case(scheme)
}

fn make_agent(options: &HttpOptions, roots: &[Certificate<'static>]) -> Result<Agent, FetchError> {
    let proxy = match &options.proxy {
        Some(proxy) => Some(ureq::Proxy::new(proxy).map_err(|error| FetchError::Url {
            url: proxy.clone(),
            reason: error.to_string(),
        })?),
        None => None,
    };
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .proxy(proxy)
        .tls_config(tls)
        .max_redirects(options.redirects_max)
        .max_redirects_will_error(true)
        .user_agent(options.user_agent.as_str())
        .timeout_resolve(Some(options.connect_max))
        .timeout_connect(Some(options.connect_max))
        .timeout_global(options.total_max)
        .timeout_recv_response(Some(options.stall_max))
        .timeout_per_read(Some(options.stall_max))
        .build();
    Ok(config.new_agent())
}

fn roots(trusted: &TrustedRoots) -> Result<Vec<Certificate<'static>>, FetchError> {
    match trusted {
        TrustedRoots::File(path) => read_bundle(path),
        TrustedRoots::System => {
            let found = BUNDLES.iter().find(|path| Path::new(path).is_file());
            match found {
                Some(path) => read_bundle(Path::new(path)),
                None => Err(FetchError::Roots {
                    reason: format!("none of {} is there", BUNDLES.join(", ")),
                }),
            }
        }
    }
}

fn read_bundle(path: &Path) -> Result<Vec<Certificate<'static>>, FetchError> {
    let wrong = |reason: String| FetchError::Roots {
        reason: format!("{}: {reason}", path.display()),
    };
    let mut pem = Vec::new();
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let read = file.take(BUNDLE_BYTES_MAX).read_to_end(&mut pem);
    read.map_err(|error| wrong(error.to_string()))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(wrong("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

/// A body that says what broke it.
struct HttpBody<R> {
    body: R,
    url: String,
}

impl<R: Read> Read for HttpBody<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            io::Error::other(http_error(&self.url, ureq::Error::from(error)))
        })
    }
}

fn http_error(url: &str, error: ureq::Error) -> FetchError {
    let url = url.to_owned();
    match error {
        ureq::Error::StatusCode(status) => FetchError::Status { url, status },
        ureq::Error::BadUri(reason) => FetchError::Url { url, reason },
        ureq::Error::Http(error) => FetchError::Url {
            url,
            reason: error.to_string(),
        },
        ureq::Error::TooManyRedirects => FetchError::Redirect {
            url,
            reason: "too many redirects".to_owned(),
        },
        ureq::Error::RedirectFailed => FetchError::Redirect {
            url,
            reason: "a redirect cannot be followed".to_owned(),
        },
        ureq::Error::Timeout(what) => FetchError::TimedOut {
            url,
            waited_for: what.to_string(),
        },
        ureq::Error::Tls(reason) => FetchError::Tls {
            url,
            reason: reason.to_owned(),
        },
        ureq::Error::Rustls(error) => FetchError::Tls {
            url,
            reason: error.to_string(),
        },
        ureq::Error::Io(error) => io_error(url, error),
        other => FetchError::Transfer {
            url,
            source: io::Error::other(other),
        },
    }
}

fn io_error(url: String, error: io::Error) -> FetchError {
    if error.kind() == io::ErrorKind::TimedOut {
        return FetchError::TimedOut {
            url,
            waited_for: error.to_string(),
        };
    }
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .map(ToString::to_string);
    match tls {
        Some(reason) => FetchError::Tls { url, reason },
        None => FetchError::Transfer { url, source: error },
    }
}

/// The path of a file of this machine: `file:///path` or `file:/path`, percent-encoded; `None` for other URLs.
pub(crate) fn file_path(url: &str) -> Result<Option<Vec<u8>>, FetchError> {
    let wrong = |reason: &str| FetchError::Url {
        url: url.to_owned(),
        reason: reason.to_owned(),
    };
    let Some(rest) = url.strip_prefix("file:") else {
        return Ok(None);
    };
    let path = match rest.strip_prefix("//") {
        Some(rest) => {
            let slash = rest.find('/').ok_or_else(|| wrong("it names no absolute path"))?;
            let (host, path) = rest.split_at(slash);
            if !host.is_empty() && host != "localhost" {
                return Err(wrong("files of other machines cannot be read"));
            }
            path
        }
        None if rest.starts_with('/') => rest,
        None => return Err(wrong("it names no absolute path")),
    };
    let path = percent_decoded(path);
    path.map(Some)
        .ok_or_else(|| wrong("a '%' is not followed by two hexadecimal digits"))
}

fn open_file(url: &str, path: &[u8]) -> Result<Box<dyn Read>, FetchError> {
    let failed = |source| FetchError::File {
        url: url.to_owned(),
        source,
    };
    let path = crate::files::native(path);
    // looked at before it is opened: opening a named pipe would wait
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        )));
    }
    Ok(Box::new(FileBody {
        file: File::open(path).map_err(failed)?,
        url: url.to_owned(),
    }))
}

/// A file that says what went wrong.
struct FileBody {
    file: File,
    url: String,
}

impl Read for FileBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).map_err(|source| {
            io::Error::other(FetchError::File {
                url: self.url.clone(),
                source,
            })
        })
    }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding() {
        assert_eq!(percent_decoded("/a%20b%2f"), Some(b"/a b/".to_vec()));
        for wrong in ["%", "%1", "%zz", "%+1"] {
            assert_eq!(percent_decoded(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn urls_that_are_refused() {
        let fetcher = UrlFetcher::new(HttpOptions::default());
        let error = |url: &str| fetcher.open(url).err().unwrap();
        for url in ["s3://b/k", "ftp://h/f", "git+https://h/r", "x", ""] {
            assert!(matches!(error(url), FetchError::Scheme { .. }), "{url}");
        }
        for url in ["file://host/f", "file:relative", "file://nopath", "file:///%zz"] {
            assert!(matches!(error(url), FetchError::Url { .. }), "{url}");
        }
        for url in ["file:///dev/null", "file:///nonexistent", "file:///"] {
            assert!(matches!(error(url), FetchError::File { .. }), "{url}");
        }
    }
}
