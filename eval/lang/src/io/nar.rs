//! Hashes trees as NAR archives, through any [`EvalIo`].

use std::io::Write;

use nix_compat::hash::{HashAlgo, Hasher, NixHash};
use nix_compat::nar::{NarWriter, WriteNarError};

use super::{EvalIo, FileType, IoError, PathFilter};

/// Hash of the NAR of the tree at `path`, leaving out what `filter` refuses.
///
/// Reads each file whole; descends directories in the order of their names. The filter sees every entry below the root
/// but not the root itself, as in Nix.
///
/// # Errors
/// When an entry cannot be read, is no file, directory or symlink, or the filter fails.
pub fn hash_tree(
    io: &dyn EvalIo,
    is_executable: &dyn Fn(&[u8]) -> bool,
    path: &[u8],
    filter: Option<&mut PathFilter<'_>>,
) -> Result<NixHash, IoError> {
    let mut all = |_: &[u8], _: FileType| Ok(true);
    let filter = match filter {
        Some(filter) => filter,
        None => &mut all,
    };
    let mut tree = Tree {
        io,
        is_executable,
        nar: NarWriter::new(HashWriter(Hasher::new(HashAlgo::Sha256))),
        filter,
    };
    let kind = io.file_type(path)?.ok_or_else(|| not_found(path))?;
    tree.node(path, b"", kind)?;
    let hasher = tree.nar.finish().map_err(|e| nar_error(path, e))?;
    Ok(hasher.0.finish())
}

struct HashWriter(Hasher);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Tree<'a, 'f> {
    io: &'a dyn EvalIo,
    is_executable: &'a dyn Fn(&[u8]) -> bool,
    nar: NarWriter<HashWriter>,
    filter: &'a mut PathFilter<'f>,
}

/// An open directory: its path and the entries still to come, last first.
struct Level {
    path: Vec<u8>,
    entries: Vec<(Vec<u8>, FileType)>,
}

impl Tree<'_, '_> {
    /// Writes a node and everything below it, on a stack of its own.
    fn node(&mut self, path: &[u8], name: &[u8], kind: FileType) -> Result<(), IoError> {
        let mut levels: Vec<Level> = Vec::new();
        self.open(path, name, kind, &mut levels)?;
        while let Some(level) = levels.last_mut() {
            let Some((name, kind)) = level.entries.pop() else {
                self.nar.end_directory().map_err(|e| nar_error(path, e))?;
                levels.pop();
                continue;
            };
            let child = join(&level.path, &name);
            if (self.filter)(&child, kind)? {
                self.open(&child, &name, kind, &mut levels)?;
            }
        }
        Ok(())
    }

    fn open(
        &mut self,
        path: &[u8],
        name: &[u8],
        kind: FileType,
        levels: &mut Vec<Level>,
    ) -> Result<(), IoError> {
        let failed = |e| nar_error(path, e);
        match kind {
            FileType::Regular => {
                let bytes = self.io.read_file(path)?;
                self.nar
                    .file(name, bytes.len() as u64, (self.is_executable)(path))
                    .map_err(failed)?;
                if !bytes.is_empty() {
                    self.nar.data(&bytes).map_err(failed)?;
                }
            }
            FileType::Symlink => {
                let target = self.io.read_link(path)?;
                self.nar.symlink(name, &target).map_err(failed)?;
            }
            FileType::Directory => {
                self.nar.directory(name).map_err(failed)?;
                let mut entries = self.io.read_dir(path)?;
                entries.sort_by(|a, b| b.0.cmp(&a.0));
                levels.push(Level {
                    path: path.to_vec(),
                    entries,
                });
            }
            FileType::Unknown => {
                let what = format!("file '{}' has an unsupported type", String::from_utf8_lossy(path));
                return Err(IoError::Unsupported { what });
            }
        }
        Ok(())
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if dir.ends_with(b"/") { b"" } else { b"/" };
    [dir, slash, name].concat()
}

fn not_found(path: &[u8]) -> IoError {
    IoError::NotFound {
        path: String::from_utf8_lossy(path).into_owned(),
    }
}

fn nar_error(path: &[u8], error: WriteNarError) -> IoError {
    IoError::System {
        path: String::from_utf8_lossy(path).into_owned(),
        source: std::io::Error::other(error),
    }
}
