//! Where derivations are read from.
//!
//! Invariants
//! - a derivation read is the one its store path names: its text hashes to that path, or it is refused;
//! - at most [`TEXT_SIZE_MAX`] bytes of one are held.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use igloo_castore::node::Node;
use igloo_status::Code;
use igloo_store::Store;
use nix_compat::derivation::{
    Derivation, NotDerivationError, ParseDerivationError, TEXT_SIZE_MAX, derivation_name,
};
use nix_compat::store_path::{ComputePathError, ParseStorePathError, StoreDir, StorePath};
use tokio::io::AsyncReadExt as _;

/// Reads derivations from a store, then from folders in which they lie under their store paths' base names, as in
/// `/nix/store`.
#[derive(Clone, Debug)]
pub struct DerivationSource {
    dir: StoreDir,
    store: Option<Store>,
    folders: Vec<PathBuf>,
}

/// Where a derivation was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In the store: all it refers to is there as well.
    Store,
    /// In a folder; its sources may lie beside it.
    Folder,
}

impl DerivationSource {
    /// A source for derivations of the store `dir`, looked for in `folders` in this order.
    pub fn new(dir: StoreDir, folders: Vec<PathBuf>) -> Self {
        Self {
            dir,
            store: None,
            folders,
        }
    }

    /// A source for derivations that are in `store`, or lie in `folders`.
    pub fn in_store(store: Store, folders: Vec<PathBuf>) -> Self {
        Self {
            dir: store.dir.clone(),
            store: Some(store),
            folders,
        }
    }

    /// The store path a `.drv` file's name stands for.
    ///
    /// # Errors
    /// The name is not that of a derivation in a store.
    pub fn path_of_file(file: &Path) -> Result<StorePath, ReadDerivationError> {
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        let path = StorePath::parse_bytes(name).map_err(|source| ReadDerivationError::FileName {
            file: file.to_path_buf(),
            source,
        })?;
        derivation_name(&path)?;
        Ok(path)
    }

    /// Reads the derivation of that store path.
    ///
    /// # Errors
    /// `Missing` when neither the store nor a folder has it, `Mismatch` when its text is not what the path names.
    pub async fn read(&self, path: &StorePath) -> Result<Derivation, ReadDerivationError> {
        Ok(self.find(path).await?.0)
    }

    /// The same, and where it was.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub async fn find(&self, path: &StorePath) -> Result<(Derivation, Found), ReadDerivationError> {
        let name = derivation_name(path)?;
        let (file, text, found) = match self.stored(path).await? {
            Some(text) => (PathBuf::from(self.dir.print(path)), text, Found::Store),
            None => {
                let (file, text) = self.text(path).await?;
                (file, Bytes::from(text), Found::Folder)
            }
        };
        let derivation =
            Derivation::parse(&self.dir, &name, &text).map_err(|source| ReadDerivationError::Parse {
                file: file.clone(),
                source: Box::new(source),
            })?;
        let computed = derivation.store_path_of_text(&self.dir, &text)?;
        if computed != *path {
            return Err(ReadDerivationError::Mismatch {
                file,
                computed: self.dir.print(&computed),
            });
        }
        Ok((derivation, found))
    }

    async fn stored(&self, path: &StorePath) -> Result<Option<Bytes>, ReadDerivationError> {
        let Some(store) = &self.store else {
            return Ok(None);
        };
        let info = store.path_infos.get(path).await;
        let info = info.map_err(|error| ReadDerivationError::store(path, error.code(), error))?;
        let Some(Node::File { digest, .. }) = info.map(|info| info.node) else {
            return Ok(None);
        };
        // one byte more, so that the parser sees it is too large
        let text = store
            .castore
            .blobs
            .read_range(&digest, 0, TEXT_SIZE_MAX + 1)
            .await;
        let text = text.map_err(|error| ReadDerivationError::store(path, error.code(), error))?;
        Ok(Some(text))
    }

    /// The file or tree that lies beside the derivations under that store path's name, if any. What it holds is not
    /// checked here.
    pub async fn find_input(&self, path: &StorePath) -> Option<PathBuf> {
        for folder in &self.folders {
            let file = folder.join(path.to_string());
            if tokio::fs::symlink_metadata(&file).await.is_ok() {
                return Some(file);
            }
        }
        None
    }

    async fn text(&self, path: &StorePath) -> Result<(PathBuf, Vec<u8>), ReadDerivationError> {
        for folder in &self.folders {
            let file = folder.join(path.to_string());
            match read_bounded(&file).await {
                Ok(text) => return Ok((file, text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(ReadDerivationError::Io { file, source }),
            }
        }
        let store = self.store.as_ref().map(|_| "the store".to_owned());
        let folders = self.folders.iter().map(|folder| folder.display().to_string());
        let folders: Vec<_> = store.into_iter().chain(folders).collect();
        Err(ReadDerivationError::Missing {
            path: self.dir.print(path),
            folders: folders.join(", "),
        })
    }
}

async fn read_bounded(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let bound = TEXT_SIZE_MAX as u64 + 1; // one more, so that the parser sees it is too large
    tokio::fs::File::open(file)
        .await?
        .take(bound)
        .read_to_end(&mut text)
        .await?;
    Ok(text)
}

/// Why a derivation could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadDerivationError {
    /// It is nowhere.
    #[error("the derivation {path} is missing (looked in {folders})")]
    Missing {
        /// The derivation.
        path: String,
        /// Where it was looked for.
        folders: String,
    },
    /// The file's name is no store path's.
    #[error("{} is not named like a derivation in a store (HASH-NAME.drv)", file.display())]
    FileName {
        /// The file.
        file: PathBuf,
        /// What is wrong with its name.
        #[source]
        source: ParseStorePathError,
    },
    /// It cannot be read.
    #[error("cannot read the derivation {}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The store has it, and cannot give it.
    #[error("cannot read the derivation {path} from the store")]
    Store {
        /// The derivation.
        path: StorePath,
        /// The class of the cause.
        code: Code,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is no derivation.
    #[error("{} is no derivation", file.display())]
    Parse {
        /// The file.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: Box<ParseDerivationError>,
    },
    /// Its text is not what its name says.
    #[error("the text of {} belongs to {computed}: the file was changed or renamed", file.display())]
    Mismatch {
        /// The file.
        file: PathBuf,
        /// The path its text has.
        computed: String,
    },
    /// The path is not a derivation's.
    #[error(transparent)]
    Path(#[from] NotDerivationError),
    /// Its outputs can have no paths.
    #[error("its outputs can have no paths")]
    Output(#[from] ComputePathError),
}

impl ReadDerivationError {
    fn store(
        path: &StorePath,
        code: Code,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Store {
            path: path.clone(),
            code,
            source: source.into(),
        }
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => Code::NotFound,
            Self::FileName { .. } => Code::InvalidArgument,
            Self::Io { source, .. } => Code::from_io(source),
            Self::Store { code, .. } => *code,
            Self::Parse { source, .. } => source.code(),
            Self::Mismatch { .. } => Code::DataLoss,
            Self::Path(error) => error.code(),
            Self::Output(error) => error.code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"Derive([("out","/nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-x","","")],[],[],"x86_64-linux","/bin/sh",[],[])"#;

    fn write(text: &str) -> (tempfile::TempDir, StorePath) {
        let folder = tempfile::tempdir().unwrap();
        let dir = StoreDir::default();
        let name = nix_compat::store_path::StorePathName::new("x").unwrap();
        let path = Derivation::parse(&dir, &name, TEXT.as_bytes())
            .unwrap()
            .store_path(&dir)
            .unwrap();
        std::fs::write(folder.path().join(path.to_string()), text).unwrap();
        (folder, path)
    }

    async fn read(text: &str) -> Result<Derivation, ReadDerivationError> {
        let (folder, path) = write(text);
        DerivationSource::new(StoreDir::default(), vec![folder.path().to_path_buf()])
            .read(&path)
            .await
    }

    #[tokio::test]
    async fn what_is_read_is_what_the_path_names() {
        assert_eq!(read(TEXT).await.unwrap().builder, b"/bin/sh");
        let other = TEXT.replace("/bin/sh", "/bin/ash");
        assert!(matches!(
            read(&other).await,
            Err(ReadDerivationError::Mismatch { .. })
        ));
        assert!(matches!(
            read(&TEXT[..50]).await,
            Err(ReadDerivationError::Parse { .. })
        ));
    }

    #[tokio::test]
    async fn a_missing_derivation_is_named() {
        let (folder, path) = write(TEXT);
        std::fs::remove_file(folder.path().join(path.to_string())).unwrap();
        let source = DerivationSource::new(StoreDir::default(), vec![folder.path().to_path_buf()]);
        let error = source.read(&path).await.unwrap_err();
        assert!(error.to_string().contains(&path.to_string()), "{error}");
    }

    #[test]
    fn a_file_must_be_named_like_a_derivation() {
        for name in ["hello.drv", "64gg0rb54s3zs6ikyqllwvhh05hnwz4q-x", "x"] {
            assert!(DerivationSource::path_of_file(Path::new(name)).is_err(), "{name}");
        }
    }
}
