//! The fetching builtins: fixed-output fetches run here, on the host, and what they give is checked against its hash.
//!
//! Invariants
//! - something whose hash is given and that is in the store already is not fetched;
//! - what has another hash than given is not registered;
//! - without a hash, one URL is fetched once in an evaluation.
//!
//! Source: Nix 2.34 `src/libexpr/primops/fetchTree.cc` (`fetch`), `src/libfetchers/tarball.cc`.

use std::collections::HashMap;

use igloo_eval::io::{FetchRequest, Fetched, IoError};
use igloo_status::Code;
use nix_compat::content_address::ContentAddressMethod;
use nix_compat::hash::{HashAlgo, HashFormat, NixHash};
use nix_compat::store_path::StorePath;

use crate::dependencies::DependencyKey;
use crate::error::chain;
use crate::fetch::{FetchError, Transfer, file_path};
use crate::import::{Tree, address, store_name};
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

/// Something to be had from a URL.
pub(crate) struct Wish<'a> {
    pub(crate) url: &'a str,
    pub(crate) name: &'a str,
    pub(crate) unpack: bool,
    pub(crate) hash: Option<NixHash>,
}

impl StoreIo {
    pub(crate) fn fetch_request(&self, request: &FetchRequest) -> Result<Fetched, IoError> {
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
        Ok(Fetched {
            path: got.path,
            attrs: Vec::new(),
        })
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
        let got = self.get(&Wish {
            url,
            name: "source",
            unpack: true,
            hash: None,
        })?;
        Ok(Some(self.print(&got.path).into_bytes()))
    }

    pub(crate) fn get(&self, wish: &Wish<'_>) -> Result<Got, IoError> {
        self.check_uri(wish.url)?;
        let answer = self.get_unlogged(wish);
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
        answer
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

    fn get_unlogged(&self, wish: &Wish<'_>) -> Result<Got, IoError> {
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
                return Ok(Got {
                    path,
                    last_modified: None,
                });
            }
        }
        let key = (wish.url.to_owned(), wish.name.to_owned(), wish.unpack);
        if wish.hash.is_none()
            && let Some(got) = self.fetches.borrow().get(&key)
        {
            return Ok(got.clone());
        }
        let (tree, found, last_modified) = self.transfer(wish)?;
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
        Ok(got)
    }

    /// Fetches into the castore: the tree, its hash by the method of the wish, and its time.
    fn transfer(&self, wish: &Wish<'_>) -> Result<(Tree, NixHash, Option<u64>), IoError> {
        let Some(fetcher) = &self.fetcher else {
            return Err(IoError::Unsupported {
                what: format!(
                    "cannot fetch '{}': this evaluation has no network; give it a fetcher, or add the file to the store before",
                    wish.url
                ),
            });
        };
        let transfer = Transfer {
            castore: &self.view.store.castore,
            runtime: &self.view.runtime,
            fetcher: &**fetcher,
            limits: &self.fetch_limits,
        };
        let failed = |error: FetchError| fetch_error(&error);
        if wish.unpack {
            let (node, last_modified) = transfer.archive(wish.url).map_err(failed)?;
            let tree = self.hashed(node)?;
            let hash = NixHash::Sha256(tree.nar.sha256);
            return Ok((tree, hash, last_modified));
        }
        let algo = wish.hash.map_or(HashAlgo::Sha256, |hash| hash.algo());
        let (node, hash) = transfer.file(wish.url, algo).map_err(failed)?;
        Ok((self.hashed(node)?, hash, None))
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
