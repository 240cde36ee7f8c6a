//! Files fetched for others than evaluations.

use std::io::Read;

use igloo_castore::node::Node;
use igloo_castore::store::Castore;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{FetchError, FetchLimits, Fetcher, Transfer, decode};
use crate::view::Runtime;

/// What becomes of the bytes that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decode {
    /// They are kept as they are.
    No,
    /// Compression is undone, where it is of a kind that is known.
    Yes,
}

/// Puts what is at `url` into `castore` as one file, tried again where that can help. Blocks this thread, which must be none
/// of `runtime`'s, and ends early when the sender of `stop` is gone.
///
/// # Errors
/// See [`FetchError`]; what cannot be decoded is `Decode`.
pub fn fetch_file(
    castore: &Castore,
    runtime: &Handle,
    stop: watch::Receiver<bool>,
    fetcher: &dyn Fetcher,
    limits: &FetchLimits,
    (url, decode): (&str, Decode),
) -> Result<Node, FetchError> {
    let runtime = &Runtime {
        handle: runtime.clone(),
        stop: Some(stop),
    };
    let transfer = Transfer {
        castore,
        runtime,
        fetcher,
        limits,
    };
    match decode {
        Decode::No => transfer.attempts(url, |body| transfer.store_file(url, body, None)),
        Decode::Yes => transfer.attempts(url, |body| transfer.decoded(url, body)),
    }
}

impl Transfer<'_> {
    fn decoded(&self, url: &str, body: &mut dyn Read) -> Result<Node, FetchError> {
        let wrong = |source| FetchError::Decode {
            url: url.to_owned(),
            source,
        };
        let size_max = self.limits.unpacked_bytes_max;
        let mut bytes = decode::decoded(body)
            .map_err(wrong)?
            .take(size_max.saturating_add(1));
        let node = self
            .store_file(url, &mut bytes, None)
            .map_err(|error| match error {
                // where the transfer itself broke, that is told instead
                FetchError::Transfer { source, .. } => wrong(source),
                error => error,
            })?;
        match node {
            Node::File { size, .. } if size > size_max => Err(FetchError::TooLarge {
                url: url.to_owned(),
                size_max,
            }),
            node => Ok(node),
        }
    }
}
