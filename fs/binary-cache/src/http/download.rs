//! A large file, piece by piece, continued where it broke off.
//!
//! Invariants
//! - pieces given out are the file's bytes in order, each once, whatever broke in between; a file that changed under way
//!   shows in its hash, which the caller checks;
//! - a try that brings nothing counts against `attempts_max`, continuing counts against [`CONTINUED_MAX`].

use bytes::{Buf, Bytes};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::{StatusCode, Uri};
use tokio::sync::SemaphorePermit;

use super::retry::Retry;
use super::{HttpClient, RequestError, content_length};
use crate::progress::Progress;

/// How often one download is continued.
const CONTINUED_MAX: u32 = 32;

/// One download.
pub(crate) struct Download<'a> {
    client: &'a HttpClient,
    url: Uri,
    /// Bytes of the file, where they were announced.
    size: Option<u64>,
    size_max: u64,
    /// Bytes given out.
    at: u64,
    /// Bytes of the answer to leave out.
    skip: u64,
    body: Option<Incoming>,
    retry: Retry,
    continued: u32,
    _permit: Option<SemaphorePermit<'a>>,
}

impl<'a> Download<'a> {
    /// Starts a download of at most `size_max` bytes, of exactly `size` where that is known. Waits for its turn.
    ///
    /// `None` when there is no such file.
    pub(crate) async fn open(
        client: &'a HttpClient,
        url: &Uri,
        size: Option<u64>,
        size_max: u64,
        progress: &dyn Progress,
    ) -> Result<Option<Self>, RequestError> {
        let mut download = Self {
            client,
            url: url.clone(),
            size,
            size_max,
            at: 0,
            skip: 0,
            body: None,
            retry: Retry::new(),
            continued: 0,
            _permit: client.downloads.acquire().await.ok(),
        };
        let found = download.connect(progress).await?;
        Ok(found.then_some(download))
    }

    /// The next bytes, `None` at the end.
    pub(crate) async fn next(&mut self, progress: &dyn Progress) -> Result<Option<Bytes>, RequestError> {
        loop {
            if self.body.is_none() && !self.connect(progress).await? {
                return Err(self.gone());
            }
            match self.piece().await {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => {
                    self.retry.progressed();
                    return Ok(Some(bytes));
                }
                Err(error) if error.is_transient() && self.size == Some(self.at) => return Ok(None),
                Err(error) => self.interrupted(error, progress).await?,
            }
        }
    }

    /// Asks for the rest of the file; `false` when there is no such file.
    async fn connect(&mut self, progress: &dyn Progress) -> Result<bool, RequestError> {
        loop {
            let attempt = self.client.enter(&self.url)?;
            match self.connect_once().await {
                Ok(found) => {
                    attempt.succeeded();
                    return Ok(found);
                }
                Err(error) => {
                    self.retry
                        .after(self.client, attempt, &self.url, error, progress)
                        .await?;
                }
            }
        }
    }

    async fn connect_once(&mut self) -> Result<bool, RequestError> {
        let Some(response) = self.client.open(&self.url, self.at).await? else {
            return Ok(false);
        };
        let headers = response.headers();
        if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
            && encoding != "identity"
        {
            return Err(RequestError::Encoding {
                url: self.url.to_string(),
                encoding: String::from_utf8_lossy(encoding.as_bytes()).into_owned(),
            });
        }
        self.skip = 0;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            if range_start(headers) != Some(self.at) {
                return Err(RequestError::Range {
                    url: self.url.to_string(),
                    offset: self.at,
                });
            }
        } else {
            self.skip = self.at; // it knows no ranges
            if let Some(size) = content_length(headers) {
                self.announced(size)?;
            }
        }
        self.body = Some(response.into_body());
        Ok(true)
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, RequestError> {
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        let Some(mut bytes) = self.client.piece(&self.url, body).await? else {
            return match self.size {
                Some(expected) if self.at < expected => Err(RequestError::Short {
                    url: self.url.to_string(),
                    size: self.at,
                    expected,
                }),
                _ => Ok(None),
            };
        };
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        bytes.advance(skipped);
        self.skip -= skipped as u64;
        self.at += bytes.len() as u64;
        if self.at > self.size_max {
            return Err(self.too_large());
        }
        Ok(Some(bytes))
    }

    /// A body broke off: waits, and lets the next call continue.
    async fn interrupted(
        &mut self,
        error: RequestError,
        progress: &dyn Progress,
    ) -> Result<(), RequestError> {
        self.body = None;
        self.continued += 1;
        if self.continued > CONTINUED_MAX {
            return Err(error);
        }
        let attempt = self.client.enter(&self.url)?;
        self.retry
            .after(self.client, attempt, &self.url, error, progress)
            .await
    }

    /// The length of the whole file, as the server says.
    fn announced(&mut self, announced: u64) -> Result<(), RequestError> {
        let expected = *self.size.get_or_insert(announced);
        if announced > self.size_max {
            return Err(self.too_large());
        }
        if announced == expected {
            return Ok(());
        }
        Err(RequestError::Length {
            url: self.url.to_string(),
            announced,
            expected,
        })
    }

    fn too_large(&self) -> RequestError {
        RequestError::TooLarge {
            url: self.url.to_string(),
            size_max: self.size_max,
        }
    }

    fn gone(&self) -> RequestError {
        RequestError::Range {
            url: self.url.to_string(),
            offset: self.at,
        }
    }
}

impl std::fmt::Debug for Download<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download")
            .field("url", &self.url)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// `bytes 100-199/200` starts at 100.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (start, _) = range.trim().strip_prefix("bytes")?.trim_start().split_once('-')?;
    start.parse().ok()
}
