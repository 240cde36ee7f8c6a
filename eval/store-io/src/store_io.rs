//! [`StoreIo`]: one evaluation's world.
//!
//! Stays on the thread of its evaluation; what many evaluations share (the store, the [`Realiser`], the [`Fetcher`], the
//! [`DerivationSink`]) is behind `Arc`s.
//!
//! Invariants
//! - the paths it gives are those Nix gives, and in the store, or about to be registered there, with that content;
//! - [`StoreIo::flush`] returns only when everything made is registered and durable;
//! - nothing is read that the rules forbid, whichever way a symlink leads.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use igloo_castore::blocking;
use igloo_eval::ContextElem;
use igloo_eval::io::{
    AccessRules, DerivationLinks, EvalIo, FetchRequest, Fetched, FileType, ImportPath, IoError, Notice,
    Started,
};
use igloo_store::{PathInfo, Store};
use nix_compat::derivation::{Derivation, derivation_name};
use nix_compat::store_path::{StoreDir, StorePath};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::access::{Access, UriRules};
use crate::answers::Bell;
use crate::dependencies::{Dependency, DependencyKey, Log, hash_entries, is_flat, type_byte};
use crate::error::{chain, store_error};
use crate::fetch::{FetchLimits, Fetcher};
use crate::fetch_tree::{TreePlaces, Trees};
use crate::fetching::{FetchMemo, Transfers};
use crate::import::{ImportMemo, store_name};
use crate::realiser::Realiser;
use crate::registrar::{DerivationSink, FlushError, Registrar, text_info, text_path};
use crate::shared::Shared;
use crate::view::{Runtime, View};

/// Environment variables, asked by name: the caller decides what they are.
pub type EnvLookup = Box<dyn Fn(&[u8]) -> Option<Vec<u8>>>;

/// Whether files below the machine's own store directory are to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HostStore {
    /// They are, where our store has nothing at the path; as source files, not as registered paths.
    #[default]
    Visible,
    /// Only what our store has exists.
    Hidden,
}

/// Whether what an evaluation makes is written to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Writes {
    /// It is.
    #[default]
    Stored,
    /// Store paths are only computed, as in Nix's read-only mode: derivations, texts and sources get their paths and cannot
    /// be read or built. What is fetched is stored all the same, as Nix does.
    Computed,
}

/// The world of an evaluation over a store. See the module.
pub struct StoreIo {
    pub(crate) view: View,
    pub(crate) access: Access,
    pub(crate) dependencies: Log,
    pub(crate) imports: RefCell<ImportMemo>,
    pub(crate) fetches: RefCell<FetchMemo>,
    pub(crate) transfers: RefCell<Transfers>,
    /// Rings when a build or a transfer has ended.
    pub(crate) bell: Bell,
    pub(crate) trees: Trees,
    pub(crate) realiser: Option<Arc<dyn Realiser>>,
    pub(crate) fetcher: Option<Arc<dyn Fetcher>>,
    pub(crate) fetch_limits: FetchLimits,
    pub(crate) host_store: HostStore,
    pub(crate) writes: Writes,
    /// Links of derivations whose paths were only computed.
    computed: RefCell<HashMap<StorePath, DerivationLinks>>,
    pub(crate) shared: Shared,
    sink: Arc<dyn DerivationSink>,
    /// Derivations of this evaluation that may not be registered yet.
    pending: RefCell<HashSet<StorePath>>,
    /// Derivations known to be registered, or to be in time.
    derivations: RefCell<HashSet<StorePath>>,
    env: EnvLookup,
    notices: Box<dyn Fn(Notice)>,
}

impl StoreIo {
    /// A world that may read everything, hears nothing of the environment, and neither builds nor fetches.
    ///
    /// `runtime` serves the store and registers what is made; it must go on running while the evaluation does, on other
    /// threads than this one, which is marked as one that may block.
    #[must_use]
    pub fn new(store: Store, runtime: Handle) -> Self {
        blocking::allow_on_this_thread();
        Self {
            view: View::new(
                store,
                Runtime {
                    handle: runtime,
                    stop: None,
                },
            ),
            access: Access::default(),
            dependencies: Log::default(),
            imports: RefCell::default(),
            fetches: RefCell::default(),
            transfers: RefCell::default(),
            bell: Bell::default(),
            trees: Trees::default(),
            realiser: None,
            fetcher: None,
            fetch_limits: FetchLimits::default(),
            host_store: HostStore::default(),
            writes: Writes::default(),
            computed: RefCell::default(),
            shared: Shared::default(),
            sink: Arc::new(()),
            pending: RefCell::default(),
            derivations: RefCell::default(),
            env: Box::new(|_| None),
            notices: Box::new(|_| ()),
        }
    }

    /// Restricts what may be read. What the evaluation makes, fetches or builds may always be read.
    #[must_use]
    pub fn with_rules(mut self, rules: AccessRules) -> Self {
        self.access.rules = rules;
        self
    }

    /// Restricts what may be fetched.
    #[must_use]
    pub fn with_uris(mut self, uris: UriRules) -> Self {
        self.access.uris = uris;
        self
    }

    /// Answers `getEnv`.
    #[must_use]
    pub fn with_env(mut self, env: EnvLookup) -> Self {
        self.env = env;
        self
    }

    /// Hears traces and warnings.
    #[must_use]
    pub fn with_notices(mut self, notices: Box<dyn Fn(Notice)>) -> Self {
        self.notices = notices;
        self
    }

    /// Hears of derivations, in order.
    #[must_use]
    pub fn with_sink(mut self, sink: Arc<dyn DerivationSink>) -> Self {
        self.sink = sink;
        self
    }

    /// Builds what the evaluation needs to go on.
    #[must_use]
    pub fn with_realiser(mut self, realiser: Arc<dyn Realiser>) -> Self {
        self.realiser = Some(realiser);
        self
    }

    /// Fetches URLs.
    #[must_use]
    pub fn with_fetcher(mut self, fetcher: Arc<dyn Fetcher>, limits: FetchLimits) -> Self {
        self.fetcher = Some(fetcher);
        self.fetch_limits = limits;
        self
    }

    /// Says where copies of Git repositories are kept, and what names of flakes stand for.
    #[must_use]
    pub fn with_trees(mut self, places: TreePlaces) -> Self {
        self.trees.places = places;
        self
    }

    /// Says whether the machine's own store is to be seen.
    #[must_use]
    pub fn with_host_store(mut self, host_store: HostStore) -> Self {
        self.host_store = host_store;
        self
    }

    /// Says whether what is made is written.
    #[must_use]
    pub fn with_writes(mut self, writes: Writes) -> Self {
        self.writes = writes;
        self
    }

    /// Ends whatever the evaluation waits for, with [`IoError::Interrupted`], once `stop` is true or its sender gone.
    #[must_use]
    pub fn with_stop(mut self, stop: watch::Receiver<bool>) -> Self {
        self.view.runtime.stop = Some(stop);
        self
    }

    /// Makes this a world of the same evaluation as others, on other threads, that were given the same. They must be over
    /// the same store, and have the same sink and the same stop.
    #[must_use]
    pub fn beside(mut self, shared: &Shared) -> Self {
        self.shared = shared.clone();
        self
    }

    /// Keeps a list of what the evaluation looks at.
    #[must_use]
    pub fn with_dependencies(mut self) -> Self {
        self.dependencies = Log::on();
        self
    }

    /// What the evaluation looked at so far; empty unless it was asked to keep a list.
    #[must_use]
    pub fn dependencies(&self) -> Vec<Dependency> {
        self.dependencies.list()
    }

    /// Waits until everything made so far is registered and durable, and the sink has heard of it.
    ///
    /// To be called when the evaluation is done. Dropping the world instead leaves the rest to be written in time, or not.
    ///
    /// # Errors
    /// The first thing that could not be registered; nothing made after it is registered.
    pub fn flush(&self) -> Result<(), FlushError> {
        let Some(registrar) = self.shared.registrar.get() else {
            return Ok(());
        };
        self.flush_made()
            .map_err(|_| registrar.failure().unwrap_or(FlushError::Runtime))
    }

    /// Tells the sink when everything made so far is registered: what an evaluation says of derivations comes behind them.
    ///
    /// # Errors
    /// Something could not be registered, or the evaluation is to end.
    pub fn mark(&self) -> Result<(), IoError> {
        self.registrar().mark()
    }

    pub(crate) fn flush_made(&self) -> Result<(), IoError> {
        if let Some(registrar) = self.shared.registrar.get() {
            registrar.flush()?;
        }
        self.pending.borrow_mut().clear();
        Ok(())
    }

    /// Has a path registered whose content is in the castore. It can be read from now on.
    pub(crate) fn made(&self, info: PathInfo) -> Result<(), IoError> {
        let info = Arc::new(info);
        self.registrar().register(Arc::clone(&info))?;
        self.view.learn(info);
        Ok(())
    }

    fn registrar(&self) -> &Registrar {
        let view = &self.view;
        self.shared.registrar.get_or_init(|| {
            Registrar::start(view.runtime.clone(), view.store.clone(), Arc::clone(&self.sink))
        })
    }

    /// The record of a path of ours, once it is registered.
    pub(crate) fn info_of(&self, path: &StorePath) -> Result<Option<Arc<PathInfo>>, IoError> {
        if self.pending.borrow().contains(path) {
            self.flush_made()?;
        }
        self.view.info(path)
    }

    /// Whether a path is in our store, or will be in time.
    pub(crate) fn is_ours(&self, path: &StorePath) -> Result<bool, IoError> {
        if self.derivations.borrow().contains(path) {
            return Ok(true);
        }
        Ok(self.view.info(path)?.is_some())
    }

    pub(crate) fn print(&self, path: &StorePath) -> String {
        self.view.store.dir.print(path)
    }

    fn references_of(&self, path: &StorePath) -> Result<Vec<StorePath>, IoError> {
        if let Some(links) = self.computed.borrow().get(path) {
            return Ok(links.references.to_vec());
        }
        match self.info_of(path)? {
            Some(info) => Ok(info.references.iter().cloned().collect()),
            None => Err(IoError::InvalidPath {
                path: self.print(path),
            }),
        }
    }

    /// Everything referred to must be there, as in Nix.
    fn check_references(&self, references: &BTreeSet<StorePath>) -> Result<(), IoError> {
        for reference in references {
            if !self.is_ours(reference)? {
                return Err(IoError::InvalidPath {
                    path: self.print(reference),
                });
            }
        }
        Ok(())
    }

    fn text_at(&self, name: &str, text: &[u8], references: &[StorePath]) -> Result<StorePath, IoError> {
        let name = store_name(name)?;
        let references: BTreeSet<_> = references.iter().cloned().collect();
        let store = &self.view.store;
        let path = text_path(&store.dir, &name, text, &references);
        self.access.allow(&path);
        if self.writes == Writes::Computed || self.is_ours(&path)? {
            return Ok(path);
        }
        self.check_references(&references)?;
        let text = Bytes::copy_from_slice(text);
        let info = self
            .view
            .runtime
            .wait(text_info(store, path.clone(), text, references))?;
        self.made(info.map_err(|error| store_error(self.print(&path), error.code(), error))?)?;
        Ok(path)
    }

    /// A derivation, from the store or a file of the machine's.
    pub(crate) fn derivation_at(&self, path: &StorePath) -> Result<Derivation, IoError> {
        let full = self.print(path);
        let damaged = |error: &(dyn std::error::Error + 'static)| IoError::Mismatch {
            what: format!("error parsing derivation '{full}': {}", chain(error)),
        };
        let name = derivation_name(path).map_err(|error| damaged(&error))?;
        let bytes = match self.info_of(path)? {
            Some(info) => self.view.read(full.as_bytes(), &info.node)?,
            None if self.host_store == HostStore::Visible => {
                std::fs::read(&full).map_err(|_| IoError::InvalidPath { path: full.clone() })?
            }
            None => return Err(IoError::InvalidPath { path: full }),
        };
        Derivation::parse(&self.view.store.dir, &name, &bytes).map_err(|error| damaged(&error))
    }

    fn write(&self, path: &StorePath, derivation: Arc<Derivation>, text: Vec<u8>) -> Result<(), IoError> {
        if self.writes == Writes::Computed {
            let links = DerivationLinks::of(&derivation);
            self.computed.borrow_mut().insert(path.clone(), links);
            return Ok(());
        }
        if self.derivations.borrow().contains(path) {
            return Ok(()); // another evaluator over this world has written it
        }
        self.check_references(&derivation.references())?;
        self.registrar()
            .derivation(path.clone(), derivation, text.into())?;
        self.pending.borrow_mut().insert(path.clone());
        self.derivations.borrow_mut().insert(path.clone());
        Ok(())
    }
}

impl EvalIo for StoreIo {
    fn store_dir(&self) -> &StoreDir {
        &self.view.store.dir
    }

    fn read_file(&self, path: &[u8]) -> Result<Vec<u8>, IoError> {
        let answer = self.read_file_at(path);
        self.dependencies.record(
            || DependencyKey::File(path.into()),
            &answer,
            |bytes, hasher| {
                hasher.update(bytes);
            },
        );
        answer
    }

    fn file_type(&self, path: &[u8]) -> Result<Option<FileType>, IoError> {
        let answer = self.file_type_at(path);
        self.dependencies.record(
            || DependencyKey::Type(path.into()),
            &answer,
            |kind, hasher| {
                hasher.update(&[kind.map_or(b'-', type_byte)]);
            },
        );
        answer
    }

    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, IoError> {
        let answer = self.read_link_at(path);
        self.dependencies.record(
            || DependencyKey::Link(path.into()),
            &answer,
            |target, hasher| {
                hasher.update(target);
            },
        );
        answer
    }

    fn read_dir(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>, IoError> {
        let answer = self.read_dir_at(path);
        self.dependencies.record(
            || DependencyKey::Directory(path.into()),
            &answer,
            |entries, hasher| hash_entries(entries, hasher),
        );
        answer
    }

    fn env(&self, name: &[u8]) -> Option<Vec<u8>> {
        let value = (self.env)(name);
        self.dependencies.record(
            || DependencyKey::Env(name.into()),
            &Ok(()),
            |(), hasher| {
                hasher.update(&[u8::from(value.is_some())]);
                hasher.update(value.as_deref().unwrap_or_default());
            },
        );
        value
    }

    fn import_path(&self, request: ImportPath<'_>) -> Result<StorePath, IoError> {
        let (path, name, method) = (request.path, request.name, request.method);
        let answer = self.import(request);
        self.dependencies.record(
            || DependencyKey::Import {
                path: path.into(),
                name: name.into(),
                flat: is_flat(method),
                accepted: answer.as_ref().ok().and_then(|imported| imported.accepted),
            },
            &answer,
            |imported, hasher| {
                hasher.update(imported.path.to_string().as_bytes());
            },
        );
        answer.map(|imported| imported.path)
    }

    fn add_text(&self, name: &str, text: &[u8], references: &[StorePath]) -> Result<StorePath, IoError> {
        self.text_at(name, text, references)
    }

    fn write_derivation(
        &self,
        path: &StorePath,
        derivation: Arc<Derivation>,
        text: Vec<u8>,
    ) -> Result<(), IoError> {
        self.write(path, derivation, text)
    }

    fn read_derivation(&self, path: &StorePath) -> Result<Derivation, IoError> {
        self.derivation_at(path)
    }

    fn is_valid_path(&self, path: &StorePath) -> Result<bool, IoError> {
        self.is_there(path)
    }

    fn derivation_links(&self, path: &StorePath) -> Result<DerivationLinks, IoError> {
        if let Some(links) = self.computed.borrow().get(path) {
            return Ok(links.clone());
        }
        Ok(DerivationLinks::of(&self.derivation_at(path)?))
    }

    fn lacks_path(&self, path: &StorePath) -> Result<bool, IoError> {
        Ok(self.writes == Writes::Stored && !self.is_there(path)?)
    }

    fn references(&self, path: &StorePath) -> Result<Vec<StorePath>, IoError> {
        let answer = self.references_of(path);
        self.dependencies.record(
            || DependencyKey::References(path.clone()),
            &answer,
            |references, hasher| {
                for reference in references {
                    hasher.update(reference.to_string().as_bytes());
                    hasher.update(b"\n");
                }
            },
        );
        answer
    }

    fn realise(&self, context: &[ContextElem]) -> Result<Vec<(String, String)>, IoError> {
        self.realise_context(context)
    }

    fn fetch(&self, request: &FetchRequest) -> Result<Fetched, IoError> {
        self.fetch_request(request)
    }

    fn start_realise<'a>(&'a self, context: &[ContextElem]) -> Started<'a, Vec<(String, String)>> {
        self.start_context(context)
            .unwrap_or_else(|error| Started::Done(Err(error)))
    }

    fn start_fetch<'a>(&'a self, request: &FetchRequest) -> Started<'a, Fetched> {
        self.start_request(request)
    }

    fn wait_any(&self) -> Result<(), IoError> {
        self.view.runtime.wait(self.bell.rung())
    }

    fn resolve_search_path(&self, entry: &str) -> Result<Option<Vec<u8>>, IoError> {
        self.search_entry(entry)
    }

    fn notice(&self, notice: Notice) {
        (self.notices)(notice);
    }
}

impl std::fmt::Debug for StoreIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreIo")
            .field("store", &self.view.store)
            .field("builds", &self.realiser.is_some())
            .field("fetches", &self.fetcher.is_some())
            .finish_non_exhaustive()
    }
}
