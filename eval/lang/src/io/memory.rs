//! A world in memory, for tests and for text that needs no files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use nix_compat::derivation::Derivation;
use nix_compat::hash::{NixHash, sha256};
use nix_compat::store_path::{StoreDir, StorePath, StorePathName, StoreReferences};

use super::{EvalIo, FetchRequest, Fetched, FileType, ImportPath, IoError, Notice, hash_tree};
use crate::heap::context::ContextElem;

/// Files by absolute path; directories are where files are.
pub struct MemoryIo {
    store_dir: StoreDir,
    files: BTreeMap<Vec<u8>, Vec<u8>>,
    env: BTreeMap<Vec<u8>, Vec<u8>>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    derivations: Vec<(StorePath, Arc<Derivation>)>,
    notices: Vec<Notice>,
}

impl MemoryIo {
    /// An empty world.
    #[must_use]
    pub fn new(store_dir: StoreDir) -> Self {
        Self {
            store_dir,
            files: BTreeMap::new(),
            env: BTreeMap::new(),
            state: RefCell::default(),
        }
    }

    /// Adds a file.
    #[must_use]
    pub fn with_file(mut self, path: &str, text: &[u8]) -> Self {
        self.files.insert(path.as_bytes().to_vec(), text.to_vec());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env
            .insert(name.as_bytes().to_vec(), value.as_bytes().to_vec());
        self
    }

    /// Derivations instantiated so far, in order.
    #[must_use]
    pub fn derivations(&self) -> Vec<StorePath> {
        self.state
            .borrow()
            .derivations
            .iter()
            .map(|(p, _)| p.clone())
            .collect()
    }

    /// What the evaluation said so far.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        self.state.borrow().notices.clone()
    }

    fn missing<T>(path: &[u8]) -> Result<T, IoError> {
        Err(IoError::NotFound {
            path: String::from_utf8_lossy(path).into_owned(),
        })
    }

    /// Names and types of what is directly below a path.
    fn below(&self, path: &[u8]) -> BTreeMap<Vec<u8>, FileType> {
        let mut prefix = path.to_vec();
        if !prefix.ends_with(b"/") {
            prefix.push(b'/');
        }
        let mut found = BTreeMap::new();
        for file in self
            .files
            .keys()
            .filter_map(|f| f.strip_prefix(prefix.as_slice()))
        {
            match memchr::memchr(b'/', file) {
                Some(end) => found.insert(file[..end].to_vec(), FileType::Directory),
                None => found.insert(file.to_vec(), FileType::Regular),
            };
        }
        found
    }

    fn unsupported<T>(what: &str) -> Result<T, IoError> {
        Err(IoError::Unsupported {
            what: format!("{what} is not possible in memory"),
        })
    }
}

impl EvalIo for MemoryIo {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn read_file(&self, path: &[u8]) -> Result<Vec<u8>, IoError> {
        self.files
            .get(path)
            .cloned()
            .map_or_else(|| Self::missing(path), Ok)
    }

    fn file_type(&self, path: &[u8]) -> Result<Option<FileType>, IoError> {
        if self.files.contains_key(path) {
            return Ok(Some(FileType::Regular));
        }
        Ok((path == b"/" || !self.below(path).is_empty()).then_some(FileType::Directory))
    }

    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, IoError> {
        Self::missing(path)
    }

    fn read_dir(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>, IoError> {
        match self.file_type(path)? {
            Some(FileType::Directory) => Ok(self.below(path).into_iter().collect()),
            Some(_) => {
                let path = String::from_utf8_lossy(path).into_owned();
                Err(IoError::WrongType {
                    path,
                    wanted: "directory",
                })
            }
            None => Self::missing(path),
        }
    }

    fn env(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.env.get(name).cloned()
    }

    fn import_path(&self, request: ImportPath<'_>) -> Result<StorePath, IoError> {
        let name =
            StorePathName::new(request.name).map_err(|e| IoError::Unsupported { what: e.to_string() })?;
        match hash_tree(self, &|_| false, request.path, request.filter)? {
            NixHash::Sha256(digest) => {
                Ok(self
                    .store_dir
                    .source_path(&name, &digest, &StoreReferences::default()))
            }
            _ => Self::unsupported("another NAR hash"),
        }
    }

    fn add_text(&self, name: &str, text: &[u8], references: &[StorePath]) -> Result<StorePath, IoError> {
        let name = StorePathName::new(name).map_err(|e| IoError::Unsupported { what: e.to_string() })?;
        Ok(self
            .store_dir
            .text_path(&name, &sha256(text), &references.iter().cloned().collect()))
    }

    fn write_derivation(
        &self,
        path: &StorePath,
        derivation: Arc<Derivation>,
        _: Vec<u8>,
    ) -> Result<(), IoError> {
        self.state
            .borrow_mut()
            .derivations
            .push((path.clone(), derivation));
        Ok(())
    }

    fn read_derivation(&self, path: &StorePath) -> Result<Derivation, IoError> {
        let state = self.state.borrow();
        let found = state.derivations.iter().find(|(p, _)| p == path);
        found
            .map(|(_, d)| Derivation::clone(d))
            .ok_or_else(|| IoError::InvalidPath {
                path: self.store_dir.print(path),
            })
    }

    fn is_valid_path(&self, path: &StorePath) -> Result<bool, IoError> {
        Ok(self.state.borrow().derivations.iter().any(|(p, _)| p == path))
    }

    fn lacks_path(&self, _: &StorePath) -> Result<bool, IoError> {
        Ok(false)
    }

    fn references(&self, path: &StorePath) -> Result<Vec<StorePath>, IoError> {
        Ok(self.read_derivation(path)?.references().into_iter().collect())
    }

    fn realise(&self, context: &[ContextElem]) -> Result<Vec<(String, String)>, IoError> {
        if context.iter().any(|e| matches!(e, ContextElem::Built { .. })) {
            return Self::unsupported("building");
        }
        Ok(Vec::new())
    }

    fn fetch(&self, _request: &FetchRequest) -> Result<Fetched, IoError> {
        Self::unsupported("fetching")
    }

    fn notice(&self, notice: Notice) {
        self.state.borrow_mut().notices.push(notice);
    }
}
