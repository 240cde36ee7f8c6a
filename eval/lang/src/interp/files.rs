//! Files as the evaluation sees them: symlinks, search path, copies to the store.

use std::rc::Rc;

use super::{Interp, corepkgs};
use crate::error::{ErrorKind, EvalError, R, fail};
use crate::heap::context::{ContextElem, Ctx};
use crate::heap::value::Value;
use crate::io::{FileType, ImportPath, IngestMethod, IoError};
use crate::pos::Pos;
use crate::pure::path_ops;
use crate::settings::Purity;

/// Symlinks on the way to a file before giving up.
const LINKS_MAX: usize = 1024;

impl Interp {
    /// What is at a path; what is there stays there for this evaluation.
    pub(crate) fn file_type(&mut self, path: &[u8]) -> R<Option<FileType>> {
        if let Some(found) = self.caches.file_types.get(path) {
            return Ok(Some(*found));
        }
        if let Some(kind) = corepkgs::file_type(path) {
            return Ok(Some(kind));
        }
        let found = self.io.file_type(path).map_err(|e| Self::io_error(&e))?;
        if let Some(found) = found {
            self.caches.file_types.insert(path.into(), found);
        }
        Ok(found)
    }

    pub(super) fn read_link(&mut self, path: &[u8]) -> R<Vec<u8>> {
        if let Some(target) = self.caches.links.get(path) {
            return Ok(target.to_vec());
        }
        let target = self.io.read_link(path).map_err(|e| Self::io_error(&e))?;
        self.caches.links.insert(path.into(), target.clone().into());
        Ok(target)
    }

    /// The bytes of a file.
    pub(crate) fn read_file(&mut self, path: &[u8]) -> R<Vec<u8>> {
        if let Some(text) = corepkgs::read(path) {
            return Ok(text.to_vec());
        }
        let path = self.resolve_symlinks(path)?;
        self.io.read_file(&path).map_err(|e| Self::io_error(&e))
    }

    /// The path with every symlink in it followed; what does not exist is kept as it is.
    pub(crate) fn resolve_symlinks(&mut self, path: &[u8]) -> R<Vec<u8>> {
        let mut done: Vec<u8> = Vec::with_capacity(path.len());
        let mut rest: Vec<Vec<u8>> = components(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == b".." {
                let keep = memchr::memrchr(b'/', &done).unwrap_or(0);
                done.truncate(keep);
                continue;
            }
            let parent = done.len();
            done.push(b'/');
            done.extend_from_slice(&name);
            let kind = match self.file_type(&done) {
                Err(error) if error.kind == ErrorKind::Restricted => {
                    // Name what was asked for, not the ancestor that could not be looked at.
                    self.file_type(path)?;
                    return Err(error);
                }
                other => other?,
            };
            if kind != Some(FileType::Symlink) {
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                let shown = String::from_utf8_lossy(path);
                return fail(
                    ErrorKind::File,
                    format!("infinite symlink recursion in path '{shown}'"),
                );
            }
            let target = self.read_link(&done)?;
            done.truncate(if target.starts_with(b"/") { 0 } else { parent });
            rest.extend(components(&target));
        }
        if done.is_empty() {
            done.push(b'/');
        }
        Ok(done)
    }

    /// The path with the symlinks of its ancestors followed, but not its last component.
    pub(crate) fn resolve_ancestors(&mut self, path: &[u8]) -> R<Vec<u8>> {
        if path == b"/" {
            return Ok(path.to_vec());
        }
        let parent = self.resolve_symlinks(path_ops::dir_of_path(path))?;
        Ok(path_ops::resolve_path(&parent, path_ops::base_name_of(path)))
    }

    /// The path a value means, after everything it refers to has been made to exist.
    pub(crate) fn realise_path(&mut self, value: Value) -> R<Vec<u8>> {
        let mut ctx = Ctx::EMPTY;
        let path = self.coerce_path(
            value,
            &mut ctx,
            Pos::NONE,
            "while realising the context of a path",
        )?;
        if ctx.is_empty() {
            return Ok(path);
        }
        let rewrites = self.realise(ctx).map_err(|e| {
            let shown = String::from_utf8_lossy(&path);
            e.frame(
                Pos::NONE,
                format!("while realising the context of path '{shown}'"),
            )
        })?;
        Ok(rewrite(path, &rewrites))
    }

    /// Makes everything a context names exist.
    pub(crate) fn realise(&mut self, ctx: Ctx) -> R<Vec<(String, String)>> {
        let elems = self.contexts.elems(ctx);
        let build = elems.iter().find_map(|e| match e {
            ContextElem::Built { drv, output } => Some((drv, output)),
            _ => None,
        });
        if let Some((drv, output)) = build
            && !self.settings.allow_import_from_derivation
        {
            let (drv, output) = (String::from_utf8_lossy(drv), String::from_utf8_lossy(output));
            let text = format!(
                "cannot build '{drv}^{output}' during evaluation because the option 'allow-import-from-derivation' is disabled"
            );
            return fail(ErrorKind::Build, text);
        }
        self.realise_elems(&elems)
    }

    /// Copies a path to the store; `ctx` gains the store path.
    pub(crate) fn copy_to_store(&mut self, path: &[u8], ctx: &mut Ctx) -> R<Vec<u8>> {
        let stored = match self.caches.imported.get(path) {
            Some(stored) => Rc::clone(stored),
            None => {
                if path.ends_with(b".drv") {
                    return fail(ErrorKind::Eval, "file names are not allowed to end in '.drv'");
                }
                let source = self.resolve_ancestors(path)?;
                let name = path_ops::base_name_of(path).to_vec();
                let stored = self.import(&source, &name, IngestMethod::Nar)?;
                self.caches.imported.insert(path.into(), Rc::clone(&stored));
                stored
            }
        };
        let elem = self.contexts.single(ContextElem::Opaque(Rc::clone(&stored)));
        *ctx = self.union(*ctx, elem);
        Ok(stored.to_vec())
    }

    fn import(&mut self, path: &[u8], name: &[u8], method: IngestMethod) -> R<Rc<[u8]>> {
        let name = String::from_utf8_lossy(name).into_owned();
        let request = ImportPath {
            path,
            name: &name,
            method,
            filter: None,
            expected: None,
        };
        let stored = self.io.import_path(request).map_err(|e| Self::io_error(&e))?;
        Ok(self.io.store_dir().print(&stored).into_bytes().into())
    }

    /// Looks a name up in a search path: prefixes and paths.
    pub(crate) fn find_file(&mut self, entries: &[(Vec<u8>, Vec<u8>)], name: &[u8]) -> R<Vec<u8>> {
        for (prefix, path) in entries {
            let Some(rest) = suffix_after(name, prefix) else {
                continue;
            };
            let Some(root) = self.search_root(path)? else {
                continue;
            };
            let candidate = path_ops::resolve_path(&root, rest);
            let real = self.resolve_symlinks(&candidate)?;
            if self.file_type(&real)?.is_some() {
                return Ok(real);
            }
        }
        if let Some(rest) = name.strip_prefix(b"nix/") {
            return Ok([corepkgs::DIR, b"/", rest].concat());
        }
        let shown = String::from_utf8_lossy(name);
        let text = if self.settings.purity == Purity::Pure {
            format!("cannot look up '<{shown}>' in pure evaluation mode (use '--impure' to override)")
        } else {
            format!("file '{shown}' was not found in the Nix search path (add it using $NIX_PATH or -I)")
        };
        fail(ErrorKind::Throw, text)
    }

    fn search_root(&mut self, entry: &[u8]) -> R<Option<Rc<[u8]>>> {
        let key = String::from_utf8_lossy(entry).into_owned();
        if let Some(known) = self.caches.search_paths.get(key.as_str()) {
            return Ok(known.clone());
        }
        let resolved = match self.io.resolve_search_path(&key) {
            Ok(Some(path)) => Some(path),
            Ok(None) => self.search_dir(entry)?,
            Err(_) => {
                self.warn_at(
                    &format!("Nix search path entry '{key}' cannot be downloaded, ignoring"),
                    Pos::NONE,
                );
                None
            }
        };
        let resolved: Option<Rc<[u8]>> = resolved.map(Into::into);
        self.caches.search_paths.insert(key.into(), resolved.clone());
        Ok(resolved)
    }

    fn search_dir(&mut self, entry: &[u8]) -> R<Option<Vec<u8>>> {
        let path = path_ops::resolve_path(self.base_dir(), entry);
        let real = self.resolve_symlinks(&path)?;
        if self.file_type(&real)?.is_some() {
            return Ok(Some(path));
        }
        let shown = String::from_utf8_lossy(entry);
        self.warn_at(
            &format!("Nix search path entry '{shown}' does not exist, ignoring"),
            Pos::NONE,
        );
        Ok(None)
    }

    /// Runs a path filter function for one entry of a tree.
    pub(crate) fn call_filter(&mut self, filter: Value, path: &[u8], kind: FileType) -> R<bool> {
        let path = self.heap.string(path);
        let kind = self.file_type_value(kind);
        let result = self.call(filter, &[path, kind], Pos::NONE);
        self.as_bool(
            result,
            Pos::NONE,
            "while evaluating the return value of the path filter function",
        )
    }

    /// A file type as `readDir` names it.
    pub(crate) fn file_type_value(&mut self, kind: FileType) -> Value {
        use crate::symbol::sym;
        self.name_value(match kind {
            FileType::Regular => sym::regular,
            FileType::Directory => sym::directory,
            FileType::Symlink => sym::symlink,
            FileType::Unknown => sym::unknown,
        })
    }

    /// An import by the store, with the evaluation's own error when the filter failed.
    pub(crate) fn import_filtered(
        &mut self,
        path: &[u8],
        name: &str,
        method: IngestMethod,
        filter: Option<Value>,
        expected: Option<&nix_compat::hash::NixHash>,
    ) -> R<Rc<[u8]>> {
        let io = Rc::clone(&self.io);
        let mut failed = None;
        let stored = {
            let mut run = |entry: &[u8], kind: FileType| match filter {
                None => Ok(true),
                Some(filter) => self.call_filter(filter, entry, kind).map_err(|e| {
                    failed = Some(e);
                    IoError::Filter
                }),
            };
            let filter = filter
                .is_some()
                .then_some(&mut run as &mut crate::io::PathFilter<'_>);
            io.import_path(ImportPath {
                path,
                name,
                method,
                filter,
                expected,
            })
        };
        match (stored, failed) {
            (_, Some(error)) => Err(error),
            (Err(error), None) => Err(Self::io_error(&error)),
            (Ok(stored), None) => Ok(io.store_dir().print(&stored).into_bytes().into()),
        }
    }

    /// An error that Nix words as one of the evaluation.
    pub(crate) fn eval_error(text: impl Into<String>) -> Box<EvalError> {
        EvalError::new(ErrorKind::Eval, text)
    }
}

/// The components of a path, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/')
        .filter(|c| !c.is_empty() && *c != b".")
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}

/// What follows `prefix` in `name`, if the prefix is empty, all of it, or ends at a slash.
fn suffix_after<'n>(name: &'n [u8], prefix: &[u8]) -> Option<&'n [u8]> {
    if prefix.is_empty() {
        return Some(name);
    }
    let rest = name.strip_prefix(prefix)?;
    if rest.is_empty() {
        Some(rest)
    } else {
        rest.strip_prefix(b"/")
    }
}

/// Replaces placeholders of outputs by their paths.
pub(crate) fn rewrite(text: Vec<u8>, rewrites: &[(String, String)]) -> Vec<u8> {
    let mut text = text;
    for (from, to) in rewrites {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text.as_slice();
        while let Some(at) = memchr::memmem::find(rest, from.as_bytes()) {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(to.as_bytes());
            rest = &rest[at + from.len()..];
        }
        out.extend_from_slice(rest);
        text = out;
    }
    text
}
