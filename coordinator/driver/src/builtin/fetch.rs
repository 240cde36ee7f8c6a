//! URLs as evaluations fetch them, for builds.

use std::sync::Arc;

use async_trait::async_trait;
use igloo_castore::node::Node;
use igloo_castore::store::Castore;
use igloo_status::Code;
use igloo_store_io::fetch::{Decode, FetchError, fetch_file};
use igloo_store_io::{FetchLimits, Fetcher};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::{FetchUrl, FetchUrlError, Packing};
use crate::local::fault::chain;

/// Fetches as an evaluation does: HTTP, HTTPS and files of this machine. Each fetch has a thread of its own, which ends when
/// the fetch is dropped.
#[derive(Clone)]
pub struct UrlFetch {
    fetcher: Arc<dyn Fetcher>,
    limits: FetchLimits,
}

impl UrlFetch {
    /// One that opens URLs with `fetcher`.
    pub fn new(fetcher: Arc<dyn Fetcher>, limits: FetchLimits) -> Self {
        Self { fetcher, limits }
    }
}

impl std::fmt::Debug for UrlFetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UrlFetch")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl FetchUrl for UrlFetch {
    async fn fetch(&self, url: &str, packing: Packing, castore: &Castore) -> Result<Node, FetchUrlError> {
        let (stop, stopped) = watch::channel(false);
        let (done, fetched) = oneshot::channel();
        let decode = match packing {
            Packing::None => Decode::No,
            Packing::Xz => Decode::Yes,
        };
        let (wish, castore, runtime) = (url.to_owned(), castore.clone(), Handle::current());
        let Self { fetcher, limits } = self.clone();
        let work = move || {
            let result = fetch_file(&castore, &runtime, stopped, &*fetcher, &limits, (&wish, decode));
            let _ = done.send(result); // the fetch was dropped
        };
        let thread = std::thread::Builder::new().name("fetch".to_owned()).spawn(work);
        let host = |what: String, code| FetchUrlError {
            message: format!("cannot fetch '{url}': {what}"),
            code,
            is_of_host: true,
        };
        thread.map_err(|error| host(error.to_string(), Code::from_io(&error)))?;
        let result = fetched.await;
        drop(stop); // it was held until now: a fetch that is dropped ends with it
        match result {
            Ok(result) => result.map_err(|error| told(&error)),
            Err(_) => Err(host("its thread has ended".to_owned(), Code::Internal)),
        }
    }
}

fn told(error: &FetchError) -> FetchUrlError {
    let is_of_host = matches!(
        error,
        FetchError::Store { .. } | FetchError::Thread { .. } | FetchError::Roots { .. }
    );
    FetchUrlError {
        message: chain(error).join(": "),
        code: error.code(),
        is_of_host,
    }
}
