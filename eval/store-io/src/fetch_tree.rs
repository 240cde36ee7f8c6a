//! Trees by attributes: `fetchTree`, `fetchGit`, the inputs of flakes.
//!
//! Map: this file knows which kinds there are, what attributes each takes, and compares what was found with what was
//! promised; `git_tree` reads Git repositories with the help of `git`, `forge` makes URLs for GitHub, GitLab and SourceHut, `registry`
//! knows what names stand for.
//!
//! Invariants
//! - an answer carries the attributes it was asked with, made exact: with them the same tree is found again;
//! - a tree whose NAR hash or revision is another than promised is not handed out;
//! - within one evaluation the same attributes give the same tree.
//!
//! Source: Nix manual 2.34, `builtins.fetchTree`; behaviour recorded from Nix 2.34 (`tests/fetch_tree`).

mod forge;
mod git;
mod git_tree;
mod registry;

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use igloo_eval::io::{FetchAttr, Fetched, IoError, scheme_attributes};
use igloo_store::nar::NarDigest;
use nix_compat::content_address::ContentAddressMethod;
use nix_compat::hash::{HashAlgo, HashFormat, NixHash};
use nix_compat::store_path::StorePath;

use crate::error::chain;
use crate::fetching::Wish;
use crate::files::native;
use crate::import::{Tree, address, store_name};
use crate::store_io::StoreIo;
pub use registry::Registry;

/// Directories inside each other that are searched for times.
const DEPTH_MAX: usize = 256;

type Attr = (String, FetchAttr);

/// What fetching trees needs besides a fetcher; without it, only what is on this machine or has a URL is found.
#[derive(Clone, Debug, Default)]
pub struct TreePlaces {
    /// Where copies of remote Git repositories are kept.
    pub git_cache: Option<PathBuf>,
    /// What names stand for: the first that knows a name counts.
    pub registries: Vec<Registry>,
}

impl TreePlaces {
    /// The same with another registry that everybody has; an empty name for none.
    #[must_use]
    pub fn with_global(mut self, place: &str) -> Self {
        self.registries
            .retain(|registry| matches!(registry, Registry::Own(_)));
        if !place.is_empty() {
            self.registries.push(Registry::Global(place.to_owned()));
        }
        self
    }
}

/// What fetching trees needs and has learnt.
#[derive(Debug, Default)]
pub(crate) struct Trees {
    pub(crate) places: TreePlaces,
    /// Entries of the registries read so far.
    entries: RefCell<HashMap<usize, Rc<[registry::Entry]>>>,
    known: RefCell<HashMap<String, Fetched>>,
}

/// A tree that was found.
pub(crate) struct Found {
    tree: Tree,
    /// What was found out of it, to be added to what was asked.
    attrs: Vec<Attr>,
}

/// The attributes of a request.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a>(&'a [Attr]);

impl<'a> Request<'a> {
    fn get(self, wanted: &str) -> Option<&'a FetchAttr> {
        self.0
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value)
    }

    pub(crate) fn text(self, name: &str) -> Result<Option<&'a str>, IoError> {
        match self.get(name) {
            None => Ok(None),
            Some(FetchAttr::String(text)) => Ok(Some(text)),
            Some(_) => Err(refused(format!("input attribute '{name}' is not a string"))),
        }
    }

    pub(crate) fn required(self, name: &str) -> Result<&'a str, IoError> {
        self.text(name)?
            .ok_or_else(|| refused(format!("input attribute '{name}' is missing")))
    }

    pub(crate) fn number(self, name: &str) -> Result<Option<u64>, IoError> {
        match self.get(name) {
            None => Ok(None),
            Some(FetchAttr::Int(number)) => Ok(Some(*number)),
            Some(_) => Err(refused(format!("input attribute '{name}' is not an integer"))),
        }
    }

    pub(crate) fn flag(self, name: &str) -> Result<bool, IoError> {
        match self.get(name) {
            None => Ok(false),
            Some(FetchAttr::Bool(flag)) => Ok(*flag),
            Some(_) => Err(refused(format!("input attribute '{name}' is not a Boolean"))),
        }
    }

    /// A commit's id.
    pub(crate) fn rev(self) -> Result<Option<&'a str>, IoError> {
        let Some(rev) = self.text("rev")? else {
            return Ok(None);
        };
        if !matches!(rev.len(), 40 | 64) {
            return Err(refused(format!(
                "hash '{rev}' has wrong length for hash algorithm 'sha1'"
            )));
        }
        if !rev.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refused(format!(
                "'{rev}' is no commit's id: it has other characters than 0-9 and a-f"
            )));
        }
        Ok(Some(rev))
    }

    fn nar_hash(self) -> Result<Option<NixHash>, IoError> {
        let Some(hash) = self.text("narHash")? else {
            return Ok(None);
        };
        let parsed = NixHash::parse_any(hash, Some(HashAlgo::Sha256));
        parsed
            .map(Some)
            .map_err(|error| refused(format!("the 'narHash' of {self} is no hash: {}", chain(&error))))
    }
}

/// How messages name the tree.
impl std::fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |name| self.text(name).ok().flatten().unwrap_or_default();
        match (text("type"), text("url"), text("path")) {
            (kind @ ("github" | "gitlab" | "sourcehut"), _, _) => {
                write!(f, "'{kind}:{}/{}'", text("owner"), text("repo"))
            }
            (kind, "", path) => write!(f, "'{kind}:{path}'"),
            ("git", url, _) => write!(f, "'git+{url}'"),
            (_, url, _) => write!(f, "'{url}'"),
        }
    }
}

/// What trees may have beside the attributes of their type.
const ALWAYS: &[&str] = &["type", "__final", registry::ALL_REGISTRIES];

impl StoreIo {
    /// The tree that attributes describe, and those attributes made exact; `None` while something of it is on its way.
    pub(crate) fn fetch_tree(&self, attrs: &[Attr]) -> Result<Option<Fetched>, IoError> {
        let key = format!("{attrs:?}");
        if let Some(known) = self.trees.known.borrow().get(&key) {
            return Ok(Some(known.clone()));
        }
        let request = Request(attrs);
        let kind = request.required("type")?;
        check_attributes(request, kind)?;
        if kind == "indirect" {
            return self.named_tree(request);
        }
        let name = request.text("name")?.unwrap_or("source");
        let fetched = match self.final_tree(request, name)? {
            Some(path) => Fetched {
                path,
                attrs: without_marks(attrs),
            },
            None => match self.found_tree(request, kind, name)? {
                Some(fetched) => fetched,
                None => return Ok(None),
            },
        };
        self.trees.known.borrow_mut().insert(key, fetched.clone());
        Ok(Some(fetched))
    }

    /// The tree a name stands for; its attributes have the folder that the registry names.
    fn named_tree(&self, request: Request<'_>) -> Result<Option<Fetched>, IoError> {
        let Some(resolved) = self.registered(request)? else {
            return Ok(None);
        };
        let fetched = self.fetch_tree(&resolved.attrs)?;
        Ok(fetched.map(|mut fetched| {
            fetched.attrs.extend(resolved.dir);
            fetched
        }))
    }

    /// A tree of which everything is known already, and which is in the store.
    fn final_tree(&self, request: Request<'_>, name: &str) -> Result<Option<StorePath>, IoError> {
        let Some(hash) = request.nar_hash()? else {
            return Ok(None);
        };
        if !request.flag("__final")? {
            return Ok(None);
        }
        let address = address(ContentAddressMethod::Recursive, hash)?;
        let path = self.content_path(&store_name(name)?, &address)?;
        if !self.is_ours(&path)? {
            return Ok(None);
        }
        self.access.allow(&path);
        Ok(Some(path))
    }

    fn found_tree(&self, request: Request<'_>, kind: &str, name: &str) -> Result<Option<Fetched>, IoError> {
        let found = match kind {
            "git" => Some(self.git(request)?),
            "path" => Some(self.path_tree(request)?),
            "github" | "gitlab" | "sourcehut" => self.forge(request, kind)?,
            _ => self.url_tree(request, kind == "tarball" || request.flag("unpack")?)?,
        };
        match found {
            Some(found) => self.checked_tree(request, kind, name, found).map(Some),
            None => Ok(None),
        }
    }

    /// Registers what was found, when it is what was promised.
    fn checked_tree(
        &self,
        request: Request<'_>,
        kind: &str,
        name: &str,
        found: Found,
    ) -> Result<Fetched, IoError> {
        let hash = NixHash::Sha256(found.tree.nar.sha256);
        if let Some(promised) = request.nar_hash()?
            && promised != hash
        {
            let sri = |hash: NixHash| hash.encode(HashFormat::Sri);
            return Err(IoError::Mismatch {
                what: format!(
                    "NAR hash mismatch in input {request}, expected '{}' but got '{}'",
                    sri(promised),
                    sri(hash)
                ),
            });
        }
        for (name, value) in &found.attrs {
            check_promise(request, name, value)?;
        }
        let mut attrs = without_marks(request.0);
        let nar_hash = (
            "narHash".to_owned(),
            FetchAttr::String(hash.encode(HashFormat::Sri)),
        );
        for (name, value) in found.attrs.into_iter().chain([nar_hash]) {
            attrs.retain(|(known, _)| *known != name);
            attrs.push((name, value));
        }
        if attrs.iter().any(|(name, _)| name == "rev") && kind != "git" {
            attrs.retain(|(name, _)| name != "ref");
        }
        let path = self.add_tree(
            &store_name(name)?,
            found.tree,
            ContentAddressMethod::Recursive,
            hash,
        )?;
        Ok(Fetched { path, attrs })
    }

    /// What a URL gives: an archive's tree, or a file.
    fn url_tree(&self, request: Request<'_>, unpack: bool) -> Result<Option<Found>, IoError> {
        let url = request.required("url")?;
        let hash = request.nar_hash()?.filter(|_| unpack);
        let got = self.get(&Wish {
            url,
            name: "source",
            unpack,
            hash,
        })?;
        let Some(got) = got else {
            return Ok(None);
        };
        let time = got
            .last_modified
            .filter(|_| request.get("lastModified").is_none());
        Ok(Some(Found {
            tree: self.registered_tree(&got.path)?,
            attrs: time
                .map(|time| number("lastModified", time))
                .into_iter()
                .collect(),
        }))
    }

    /// The tree a store path is.
    fn registered_tree(&self, path: &StorePath) -> Result<Tree, IoError> {
        let info = self.info_of(path)?;
        let info = info.ok_or_else(|| IoError::InvalidPath {
            path: self.print(path),
        })?;
        Ok(Tree {
            node: info.node.clone(),
            nar: NarDigest {
                size: info.nar_size,
                sha256: info.nar_sha256,
            },
        })
    }

    /// A file or tree of this machine.
    fn path_tree(&self, request: Request<'_>) -> Result<Found, IoError> {
        let path = request.required("path")?;
        if !path.starts_with('/') {
            return Err(refused(format!(
                "cannot fetch input 'path:{path}' because it uses a relative path"
            )));
        }
        let (tree, _) = self.tree_at(path.as_bytes(), None)?;
        let time = match request.number("lastModified")? {
            Some(time) => time,
            None => newest_below(path.as_bytes()),
        };
        Ok(Found {
            tree,
            attrs: vec![number("lastModified", time)],
        })
    }
}

fn check_attributes(request: Request<'_>, kind: &str) -> Result<(), IoError> {
    let Some(known) = scheme_attributes(kind).filter(|_| kind != "hg") else {
        let url = request
            .text("url")?
            .map(|url| format!(" from '{url}'"))
            .unwrap_or_default();
        return Err(IoError::Unsupported {
            what: format!(
                "cannot fetch a tree of type '{kind}'{url}: trees of the types git, path, tarball, file, github, gitlab \
                 and sourcehut are fetched; fetch the tree before evaluating and import its path"
            ),
        });
    };
    for (name, _) in request.0 {
        if !known.contains(&name.as_str()) && !ALWAYS.contains(&name.as_str()) {
            return Err(refused(format!(
                "input attribute '{name}' not supported by scheme '{kind}'"
            )));
        }
    }
    for name in ["verifyCommit", "publicKey", "publicKeys", "keytype"] {
        if request.get(name).is_some() {
            return Err(IoError::Unsupported {
                what: format!("input attribute '{name}': signatures of commits are not checked by igloo"),
            });
        }
    }
    if request.flag("lfs")? {
        return Err(IoError::Unsupported {
            what: "input attribute 'lfs': files kept by Git LFS are not fetched by igloo".to_owned(),
        });
    }
    Ok(())
}

/// What was promised of a found attribute must be so.
fn check_promise(request: Request<'_>, name: &str, found: &FetchAttr) -> Result<(), IoError> {
    if !matches!(name, "rev" | "lastModified" | "revCount") {
        return Ok(());
    }
    let shown = |attr: &FetchAttr| match attr {
        FetchAttr::String(text) => text.clone(),
        FetchAttr::Int(number) => number.to_string(),
        FetchAttr::Bool(flag) => flag.to_string(),
    };
    match request.get(name) {
        Some(promised) if promised != found => Err(IoError::Mismatch {
            what: format!(
                "'{name}' attribute mismatch in input {request}, expected {}, got {}",
                shown(promised),
                shown(found)
            ),
        }),
        _ => Ok(()),
    }
}

fn without_marks(attrs: &[Attr]) -> Vec<Attr> {
    attrs
        .iter()
        .filter(|(name, _)| name != "__final" && name != registry::ALL_REGISTRIES)
        .cloned()
        .collect()
}

fn number(name: &str, value: u64) -> Attr {
    (name.to_owned(), FetchAttr::Int(value))
}

fn words(name: &str, value: impl Into<String>) -> Attr {
    (name.to_owned(), FetchAttr::String(value.into()))
}

fn refused(what: String) -> IoError {
    IoError::Fetch { what }
}

/// When something in a tree was changed last, directories among it; 0 when nothing can be looked at.
fn newest_below(root: &[u8]) -> u64 {
    let mut newest = 0;
    let mut open = vec![(native(root).to_path_buf(), 0)];
    while let Some((path, depth)) = open.pop() {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        newest = newest.max(u64::try_from(metadata.mtime()).unwrap_or(0));
        if metadata.is_dir()
            && depth < DEPTH_MAX
            && let Ok(entries) = std::fs::read_dir(&path)
        {
            open.extend(entries.flatten().map(|entry| (entry.path(), depth + 1)));
        }
    }
    newest
}
