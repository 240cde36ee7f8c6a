//! The fetching builtins: fixed-output fetches run here, on the host, and what they give is checked against its hash.
//!
//! Invariants
//! - something whose hash is given and that is in the store already is not fetched;
//! - what has another hash than given is not registered;
//! - without a hash, one URL is fetched once in an evaluation;
//! - what is being fetched is not fetched again meanwhile: whoever wants it looks after the same transfer.
//!
//! A fetch runs on a thread of its own. Each step of a request ([`StoreIo::request_step`]) goes as far as it can and is
//! repeated until nothing of it is on its way any more.
//!
//! Source: Nix 2.34 `src/libexpr/primops/fetchTree.cc` (`fetch`), `src/libfetchers/tarball.cc`.

use std::collections::HashMap;
use std::sync::Arc;

use igloo_eval::io::{FetchRequest, Fetched, IoError, Pending, Started};
use igloo_status::Code;
use nix_compat::content_address::ContentAddressMethod;
use nix_compat::hash::{HashAlgo, HashFormat, NixHash};
use nix_compat::store_path::StorePath;

use crate::answers::Task;
use crate::dependencies::DependencyKey;
use crate::error::chain;
use crate::fetch::{FetchError, Transfer, file_path};
use crate::import::{Tree, address, store_name};
use crate::shared::{self, TransferKey};
use crate::store_io::StoreIo;
use crate::view::Place;

/// Fetches of this evaluation that had no hash, by URL, name, and whether they were unpacked.
pub(crate) type FetchMemo = HashMap<(String, String, bool), Got>;

/// What a fetch gave.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) path: StorePath,
    /// Of the newest entry of an archive, seconds since 1970.
    pub(crate) last_modified: Option<u64>,
}

/// Fetches on their way.
pub(crate) type Transfers = HashMap<TransferKey, Task<Transferred>>;

type Transferred = Result<shared::Got, FetchError>;

/// Something to be had from a URL.
pub(crate) struct Wish<'a> {
    pub(crate) url: &'a str,
    pub(crate) name: &'a str,
    pub(crate) unpack: bool,
    pub(crate) hash: Option<NixHash>,
}

impl StoreIo {
    pub(crate) fn fetch_request(&self, request: &FetchRequest) -> Result<Fetched, IoError> {
        self.wait_for(|| self.request_step(request))
    }

    /// As [`StoreIo::fetch_request`], without waiting for transfers.
    pub(crate) fn start_request<'a>(&'a self, request: &FetchRequest) -> Started<'a, Fetched> {
        match self.request_step(request) {
            Ok(None) => Started::Pending(Box::new(Fetching {
                io: self,
                request: request.clone(),
            })),
            Ok(Some(fetched)) => Started::Done(Ok(fetched)),
            Err(error) => Started::Done(Err(error)),
        }
    }

    /// Repeats a step until it ends.
    fn wait_for<T>(&self, mut step: impl FnMut() -> Result<Option<T>, IoError>) -> Result<T, IoError> {
        let answer = loop {
            match step() {
                Ok(Some(answer)) => break Ok(answer),
                Ok(None) => self.view.runtime.wait(self.bell.rung())?,
                Err(error) => break Err(error),
            }
        };
        // a ring heard here may have been for others
        self.bell.ring();
        answer
    }

    /// Goes on with a request; `None` while something is on its way.
    fn request_step(&self, request: &FetchRequest) -> Result<Option<Fetched>, IoError> {
        let wish = |url, name, sha256: &Option<NixHash>, unpack| Wish {
            url,
            name,
            unpack,
            hash: *sha256,
        };
        let got = match request {
            FetchRequest::Url { url, name, sha256 } => self.get(&wish(url, name, sha256, false))?,
            FetchRequest::Tarball { url, name, sha256 } => self.get(&wish(url, name, sha256, true))?,
            FetchRequest::Tree { attrs } => return self.fetch_tree(attrs),
        };
        Ok(got.map(|got| Fetched {
            path: got.path,
            attrs: Vec::new(),
        }))
    }

    /// The tree a search path entry stands for, when it is a URL.
    pub(crate) fn search_entry(&self, entry: &str) -> Result<Option<Vec<u8>>, IoError> {
        let channel = entry
            .strip_prefix("channel:")
            .map(|channel| format!("https://channels.nixos.org/{channel}/nixexprs.tar.xz"));
        let url = channel.as_deref().unwrap_or(entry);
        let Some((scheme, _)) = url.split_once("://") else {
            return Ok(None);
        };
        if !["http", "https", "file", "channel", "git", "s3", "ssh"].contains(&scheme) {
            return Ok(None);
        }
        let wish = Wish {
            url,
            name: "source",
            unpack: true,
            hash: None,
        };
        let got = self.wait_for(|| self.get(&wish))?;
        Ok(Some(self.print(&got.path).into_bytes()))
    }

    /// Has something from a URL in the store; `None` while it is on its way.
    pub(crate) fn get(&self, wish: &Wish<'_>) -> Result<Option<Got>, IoError> {
        self.check_uri(wish.url)?;
        let answer = match self.get_unlogged(wish) {
            Ok(None) => return Ok(None),
            Ok(Some(got)) => Ok(got),
            Err(error) => Err(error),
        };
        self.dependencies.record(
            || DependencyKey::Fetch {
                url: wish.url.into(),
                unpacked: wish.unpack,
            },
            &answer,
            |got, hasher| {
                hasher.update(got.path.to_string().as_bytes());
            },
        );
        answer.map(Some)
    }

    /// Whether the rules let this evaluation fetch `url`. Source: Nix 2.34 `EvalState::checkURI`.
    pub(crate) fn check_uri(&self, url: &str) -> Result<(), IoError> {
        if self.access.fetch(url) {
            return Ok(());
        }
        let Ok(Some(path)) = file_path(url) else {
            return Err(IoError::ForbiddenUri { uri: url.to_owned() });
        };
        self.access.read(&self.view.store.dir, &path)?;
        // wherever its symlinks lead
        match self.view.resolve(&path, true)? {
            Place::Host(real) => self.access.read(&self.view.store.dir, &real),
            Place::Stored(_) | Place::Missing => Ok(()),
        }
    }

    fn get_unlogged(&self, wish: &Wish<'_>) -> Result<Option<Got>, IoError> {
        let name = store_name(wish.name)?;
        let method = if wish.unpack {
            ContentAddressMethod::Recursive
        } else {
            ContentAddressMethod::Flat
        };
        if let Some(hash) = wish.hash {
            let path = self.content_path(&name, &address(method, hash)?)?;
            if self.info_of(&path)?.is_some() {
                self.access.allow(&path);
                return Ok(Some(Got {
                    path,
                    last_modified: None,
                }));
            }
        }
        let key = (wish.url.to_owned(), wish.name.to_owned(), wish.unpack);
        if wish.hash.is_none()
            && let Some(got) = self.fetches.borrow().get(&key)
        {
            return Ok(Some(got.clone()));
        }
        let Some((tree, found, last_modified)) = self.transfer(wish)? else {
            return Ok(None);
        };
        if let Some(hash) = wish.hash
            && hash != found
        {
            return Err(mismatch(wish.url, &hash, &found));
        }
        let path = self.add_tree(&name, tree, method, found)?;
        let got = Got { path, last_modified };
        if wish.hash.is_none() {
            self.fetches.borrow_mut().insert(key, got.clone());
        }
        Ok(Some(got))
    }

    /// Fetches into the castore: the tree, its hash by the method of the wish, and its time. `None` while it is on its way.
    fn transfer(&self, wish: &Wish<'_>) -> Result<Option<(Tree, NixHash, Option<u64>)>, IoError> {
        let key = (wish.url.to_owned(), wish.name.to_owned(), wish.unpack, wish.hash);
        let mut transfers = self.transfers.borrow_mut();
        let Some(task) = transfers.get_mut(&key) else {
            let task = self.start_transfer(wish, key.clone())?;
            transfers.insert(key, task);
            return Ok(None);
        };
        let Some(answer) = task.poll() else {
            return Ok(None);
        };
        transfers.remove(&key);
        drop(transfers);
        let (node, hash, last_modified) = answer?.map_err(|error| fetch_error(&error))?;
        let tree = self.hashed(node)?;
        let hash = hash.unwrap_or(NixHash::Sha256(tree.nar.sha256));
        Ok(Some((tree, hash, last_modified)))
    }

    fn start_transfer(&self, wish: &Wish<'_>, key: TransferKey) -> Result<Task<Transferred>, IoError> {
        let Some(fetcher) = &self.fetcher else {
            return Err(IoError::Unsupported {
                what: format!(
                    "cannot fetch '{}': this evaluation has no network; give it a fetcher, or add the file to the store before",
                    wish.url
                ),
            });
        };
        let (castore, runtime) = (self.view.store.castore.clone(), self.view.runtime.clone());
        let (fetcher, limits) = (Arc::clone(fetcher), self.fetch_limits.clone());
        let (url, unpack) = (wish.url.to_owned(), wish.unpack);
        let algo = wish.hash.map_or(HashAlgo::Sha256, |hash| hash.algo());
        let fetch = move || -> Transferred {
            let transfer = Transfer {
                castore: &castore,
                runtime: &runtime,
                fetcher: &*fetcher,
                limits: &limits,
            };
            if unpack {
                let (node, last_modified) = transfer.archive(&url)?;
                return Ok((node, None, last_modified));
            }
            let (node, hash) = transfer.file(&url, algo)?;
            Ok((node, Some(hash), None))
        };
        let shared = self.shared.clone();
        let work = move || shared.fetched(key, fetch);
        let thread = self.bell.spawn_thread("igloo-fetch", work);
        thread.map_err(|source| IoError::System {
            path: wish.url.to_owned(),
            source,
        })
    }
}

/// A request with something on its way.
struct Fetching<'a> {
    io: &'a StoreIo,
    request: FetchRequest,
}

impl Pending<Fetched> for Fetching<'_> {
    fn poll(&mut self) -> Option<Result<Fetched, IoError>> {
        self.io.request_step(&self.request).transpose()
    }
}

fn mismatch(url: &str, wanted: &NixHash, found: &NixHash) -> IoError {
    IoError::HashMismatch {
        url: url.to_owned(),
        specified: wanted.encode_with_algo(HashFormat::NixBase32),
        got: found.encode_with_algo(HashFormat::NixBase32),
    }
}

fn fetch_error(error: &FetchError) -> IoError {
    let what = chain(error);
    if error.code() == Code::Unimplemented {
        IoError::Unsupported { what }
    } else {
        IoError::Fetch { what }
    }
}
