//! Trees of Git repositories: which commit is meant, or which files of a working tree that has changes.
//!
//! A repository of this machine is read where it is; others are copied into a cache first, and fetched from there only what
//! is not in it.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use igloo_castore::node::Node;
use igloo_eval::EvalIo as _;
use igloo_eval::io::{FetchAttr, IoError, Notice};
use nix_compat::hash::{HashAlgo, Hasher};

use super::git::{GitError, Repository};
use super::{Found, Request, number, refused, words};
use crate::error::chain;
use crate::fetch::{Root, TreeWriter, file_path};
use crate::import::Tree;
use crate::store_io::StoreIo;

/// Submodules inside each other.
const SUBMODULES_MAX: usize = 16;
/// Letters of a short commit id.
const SHORT: usize = 7;

/// What is wanted of a repository.
#[derive(Clone, Debug)]
struct GitWish {
    url: String,
    reference: Option<String>,
    rev: Option<String>,
    is_shallow: bool,
    submodules: bool,
    export_ignore: bool,
    all_refs: bool,
}

/// A tree, and what is known of it.
type Known = (Tree, Vec<(String, FetchAttr)>);

/// A commit that was found.
struct Commit {
    repository: Repository,
    id: String,
    /// The branch or tag it was found by.
    reference: Option<String>,
}

/// Where a repository is.
enum Place {
    WorkingTree(PathBuf),
    Bare(PathBuf),
    Remote,
}

impl StoreIo {
    pub(super) fn git(&self, request: Request<'_>) -> Result<Found, IoError> {
        let reference = request.text("ref")?.map(ToOwned::to_owned);
        if let Some(reference) = &reference {
            check_reference(reference)?;
        }
        let wish = GitWish {
            url: absolute_url(request.required("url")?),
            reference,
            rev: request.rev()?.map(ToOwned::to_owned),
            is_shallow: request.flag("shallow")?,
            submodules: request.flag("submodules")?,
            export_ignore: request.flag("exportIgnore")?,
            all_refs: request.flag("allRefs")?,
        };
        let (tree, mut attrs) = self.git_tree(&wish, 0)?;
        attrs.push(words("url", wish.url));
        Ok(Found { tree, attrs })
    }

    fn git_tree(&self, wish: &GitWish, depth: usize) -> Result<Known, IoError> {
        if !self.access.fetch(&format!("git+{}", wish.url)) {
            self.check_uri(&wish.url)?;
        }
        let place = place_of(&wish.url)?;
        if let Place::WorkingTree(folder) = &place
            && wish.rev.is_none()
            && wish.reference.is_none()
            && let Some(dirty) = self.dirty_tree(folder, wish)?
        {
            return Ok(dirty);
        }
        let commit = match &place {
            Place::WorkingTree(folder) | Place::Bare(folder) => {
                local_commit(Repository::at(folder), wish).map_err(|e| git_error(&e))?
            }
            Place::Remote => self.remote_commit(wish)?,
        };
        let node = self
            .commit_node(&commit.repository, &commit.id, wish, depth)
            .map_err(|e| git_error(&e))?;
        let attrs = commit_attrs(commit, wish).map_err(|e| git_error(&e))?;
        Ok((self.hashed(node)?, attrs))
    }

    /// The files of a working tree that differs from its commit; `None` when it does not.
    fn dirty_tree(&self, folder: &Path, wish: &GitWish) -> Result<Option<Known>, IoError> {
        let repository = Repository::at(folder);
        let head = repository.commit_of("HEAD").ok();
        if head.is_some() && !repository.is_dirty().map_err(|e| git_error(&e))? {
            return Ok(None);
        }
        let shown = folder.display();
        self.notice(Notice::Warning(format!("warning: Git tree '{shown}' is dirty")));
        let tree = self.working_files(&repository, wish)?;
        let mut attrs = Vec::new();
        let mut time = 0;
        if let Some(head) = head {
            time = repository.commit_time(&head).map_err(|e| git_error(&e))?;
            attrs.push(words("dirtyRev", format!("{head}-dirty")));
            attrs.push(words(
                "dirtyShortRev",
                format!("{}-dirty", &head[..SHORT.min(head.len())]),
            ));
        }
        attrs.push(number("lastModified", time));
        Ok(Some((tree, attrs)))
    }

    /// The tracked files of a working tree, as they are.
    fn working_files(&self, repository: &Repository, wish: &GitWish) -> Result<Tree, IoError> {
        let tracked = repository.tracked(wish.submodules).map_err(|e| git_error(&e))?;
        let mut taken: HashSet<Vec<u8>> = HashSet::new();
        for path in &tracked {
            let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            taken.extend(slashes.map(|(i, _)| path[..i].to_vec()));
        }
        taken.extend(tracked);
        if wish.export_ignore {
            let paths: Vec<&[u8]> = taken.iter().map(Vec::as_slice).collect();
            let ignored = repository
                .export_ignored(None, &paths)
                .map_err(|e| git_error(&e))?;
            for path in ignored {
                taken.remove(&path);
            }
        }
        let root = repository.folder().as_os_str().as_encoded_bytes().to_vec();
        let prefix = root.len() + usize::from(!root.ends_with(b"/"));
        let mut filter = |path: &[u8], _| Ok(path.get(prefix..).is_some_and(|path| taken.contains(path)));
        let (tree, _) = self.tree_at(&root, Some(&mut filter))?;
        Ok(tree)
    }

    fn commit_node(
        &self,
        repository: &Repository,
        commit: &str,
        wish: &GitWish,
        depth: usize,
    ) -> Result<Node, GitError> {
        let mut writer = TreeWriter::new(&self.view.store.castore, &self.view.runtime, &self.fetch_limits);
        let ignored = if wish.export_ignore {
            ignored_in(repository, commit)?
        } else {
            HashSet::new()
        };
        let skip = |path: &[u8]| {
            let ends = path
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'/')
                .map(|(i, _)| i);
            !ignored.is_empty() && ends.chain([path.len()]).any(|end| ignored.contains(&path[..end]))
        };
        let mut write_submodule = |writer: &mut TreeWriter<'_>, path: &[u8], id: &str| {
            if !wish.submodules {
                return Ok(writer.directory(path)?);
            }
            let node = self.submodule(repository, commit, path, id, wish, depth)?;
            Ok(writer.node(path, node)?)
        };
        repository.write_tree(commit, &mut writer, &skip, &mut write_submodule)?;
        Ok(writer.finish(Root::Whole)?)
    }

    fn submodule(
        &self,
        repository: &Repository,
        commit: &str,
        path: &[u8],
        id: &str,
        wish: &GitWish,
        depth: usize,
    ) -> Result<Node, GitError> {
        let shown = String::from_utf8_lossy(path);
        if depth >= SUBMODULES_MAX {
            return Err(GitError::Refused {
                what: format!("the submodule '{shown}' lies inside more than {SUBMODULES_MAX} others"),
            });
        }
        let declared = repository.submodules(commit)?;
        let Some(submodule) = declared.into_iter().find(|submodule| submodule.path == path) else {
            return Err(GitError::Refused {
                what: format!(
                    "the submodule '{shown}' is not in '.gitmodules' of '{}'",
                    wish.url
                ),
            });
        };
        let base = repository.origin().unwrap_or_else(|| wish.url.clone());
        let inner = GitWish {
            url: absolute_url(&joined_url(&base, &submodule.url)),
            reference: None,
            rev: Some(id.to_owned()),
            all_refs: true,
            ..wish.clone()
        };
        let fetched = self.git_tree(&inner, depth + 1);
        let (tree, _) = fetched.map_err(|error| GitError::Refused {
            what: format!("cannot fetch the submodule '{shown}' of '{}': {error}", wish.url),
        })?;
        Ok(tree.node)
    }

    /// A commit of a repository elsewhere, fetched into the cache when it is not there.
    fn remote_commit(&self, wish: &GitWish) -> Result<Commit, IoError> {
        let cache = self
            .trees
            .places
            .git_cache
            .as_ref()
            .filter(|_| self.fetcher.is_some());
        let Some(cache) = cache else {
            return Err(IoError::Unsupported {
                what: format!(
                    "cannot fetch '{}': this evaluation has no network, or no folder to keep Git repositories in",
                    wish.url
                ),
            });
        };
        let mut hasher = Hasher::new(HashAlgo::Sha256);
        hasher.update(wish.url.as_bytes());
        let name = hasher.finish().encode(nix_compat::hash::HashFormat::NixBase32);
        let shallow = if wish.is_shallow { "-shallow" } else { "" };
        let folder = cache.join(format!("{name}{shallow}"));
        let fetched = locked(&folder, || {
            let repository = Repository::init_bare(&folder)?;
            fetched_commit(repository, wish)
        });
        fetched.map_err(|error| git_error(&error))
    }
}

fn local_commit(repository: Repository, wish: &GitWish) -> Result<Commit, GitError> {
    let (id, reference) = match (&wish.rev, &wish.reference) {
        (Some(rev), reference) => (repository.commit_of(rev)?, reference.clone()),
        (None, Some(reference)) => (repository.commit_of(reference)?, Some(reference.clone())),
        (None, None) => (repository.commit_of("HEAD")?, repository.head_branch()),
    };
    Ok(Commit {
        repository,
        id,
        reference,
    })
}

fn fetched_commit(repository: Repository, wish: &GitWish) -> Result<Commit, GitError> {
    if let Some(rev) = &wish.rev
        && repository.has_commit(rev)
    {
        return Ok(Commit {
            repository,
            id: rev.clone(),
            reference: wish.reference.clone(),
        });
    }
    let depth = wish.is_shallow.then_some(1);
    let reference = match (&wish.reference, &wish.rev) {
        (Some(reference), _) => Some(reference.clone()),
        (None, Some(_)) if wish.all_refs || wish.is_shallow => None,
        (None, _) => Some(repository.remote_head(&wish.url)?),
    };
    let full = reference
        .as_ref()
        .map(|reference| match reference.strip_prefix("refs/") {
            Some(_) => reference.clone(),
            None => format!("refs/heads/{reference}"),
        });
    let what = match (&wish.rev, &full) {
        _ if wish.all_refs => "+refs/*:refs/*".to_owned(),
        (Some(rev), _) if wish.is_shallow => format!("+{rev}:refs/igloo/{rev}"),
        (_, Some(full)) => format!("+{full}:{full}"),
        (Some(rev), None) => format!("+{rev}:refs/igloo/{rev}"),
        (None, None) => "+HEAD:refs/heads/main".to_owned(),
    };
    repository.fetch(&wish.url, &what, depth)?;
    let id = match (&wish.rev, &full) {
        (Some(rev), _) if repository.has_commit(rev) => rev.clone(),
        (Some(rev), _) => {
            let reference = reference.unwrap_or_default();
            return Err(GitError::Refused {
                what: format!(
                    "Cannot find Git revision '{rev}' in ref '{reference}' of repository '{}'! Please make sure that the rev exists on the ref you've specified or add allRefs = true; to fetchGit.",
                    wish.url
                ),
            });
        }
        (None, Some(full)) => repository.commit_of(full)?,
        (None, None) => repository.commit_of("refs/heads/main")?,
    };
    Ok(Commit {
        repository,
        id,
        reference,
    })
}

fn commit_attrs(commit: Commit, wish: &GitWish) -> Result<Vec<(String, FetchAttr)>, GitError> {
    let Commit {
        repository,
        id,
        reference,
    } = commit;
    let mut attrs = vec![number("lastModified", repository.commit_time(&id)?)];
    if !wish.is_shallow {
        if repository.is_shallow()? {
            return Err(GitError::Refused {
                what: format!(
                    "'{}' is a shallow Git repository, but shallow repositories are only allowed when `shallow = true;` is specified",
                    wish.url
                ),
            });
        }
        attrs.push(number("revCount", repository.commit_count(&id)?));
    }
    attrs.push(words("rev", id));
    attrs.extend(reference.map(|reference| words("ref", reference)));
    Ok(attrs)
}

/// Paths of a commit that its attributes keep out of exports.
fn ignored_in(repository: &Repository, commit: &str) -> Result<HashSet<Vec<u8>>, GitError> {
    let paths = repository.paths(commit)?;
    let is_rules = |path: &Vec<u8>| path.rsplit(|byte| *byte == b'/').next() == Some(b".gitattributes");
    if !paths.iter().any(is_rules) {
        return Ok(HashSet::new());
    }
    let paths: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
    Ok(repository
        .export_ignored(Some(commit), &paths)?
        .into_iter()
        .collect())
}

fn place_of(url: &str) -> Result<Place, IoError> {
    let Some(path) = file_path(url).map_err(|error| refused(chain(&error)))? else {
        return Ok(Place::Remote);
    };
    let folder = crate::files::native(&path).to_path_buf();
    if folder.join(".git").exists() {
        return Ok(Place::WorkingTree(folder));
    }
    if folder.join("objects").is_dir() && folder.join("HEAD").is_file() {
        return Ok(Place::Bare(folder));
    }
    Err(refused(format!(
        "Git repository \"{}\" does not exist.",
        folder.display()
    )))
}

/// A URL with a scheme: paths are files, `user@host:path` is SSH.
fn absolute_url(url: &str) -> String {
    if url.contains("://") {
        return url.strip_prefix("git+").unwrap_or(url).to_owned();
    }
    if let Some(path) = url.strip_prefix("file:") {
        return format!("file://{path}");
    }
    if url.starts_with('/') {
        return format!("file://{url}");
    }
    match url.split_once(':') {
        Some((host, path)) if host.contains('@') && !host.contains('/') => format!("ssh://{host}/{path}"),
        _ => url.to_owned(),
    }
}

/// A submodule's URL, which may be relative to that of the repository it is in.
fn joined_url(base: &str, url: &str) -> String {
    if !(url.starts_with("./") || url.starts_with("../")) {
        return url.to_owned();
    }
    let mut base = base.trim_end_matches('/').to_owned();
    for part in url.split('/') {
        match part {
            "." | "" => {}
            ".." => base.truncate(base.rfind(['/', ':']).unwrap_or(0)),
            name => {
                base.push('/');
                base.push_str(name);
            }
        }
    }
    base
}

/// Names Git does not allow, and those that could be taken for options or patterns.
fn check_reference(name: &str) -> Result<(), IoError> {
    let bad_start = name.is_empty() || name.starts_with(['-', '.', '/']);
    let bad_end = name.ends_with(['.', '/']) || name.ends_with(".lock");
    let bad_part = ["..", "//", "/.", "@{"].iter().any(|part| name.contains(part));
    let bad_char = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    if bad_start || bad_end || bad_part || name == "@" || name.chars().any(bad_char) {
        return Err(refused(format!("invalid Git branch/tag name '{name}'")));
    }
    Ok(())
}

/// Runs while no other process works on the folder.
fn locked<T>(folder: &Path, run: impl FnOnce() -> Result<T, GitError>) -> Result<T, GitError> {
    let io = |source| GitError::Io {
        what: format!("lock {}", folder.display()),
        source,
    };
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(io)?;
    }
    let lock = File::create(folder.with_extension("lock")).map_err(io)?;
    lock.lock().map_err(io)?;
    run()
}

fn git_error(error: &GitError) -> IoError {
    let what = chain(error);
    match error.code() {
        igloo_status::Code::FailedPrecondition | igloo_status::Code::Unimplemented => {
            IoError::Unsupported { what }
        }
        igloo_status::Code::DataLoss => IoError::Mismatch { what },
        _ => IoError::Fetch { what },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_made_absolute() {
        for (given, url) in [
            ("/a/b", "file:///a/b"),
            ("file:/a", "file:///a"),
            ("git+https://h/x", "https://h/x"),
            ("git@host:a/b.git", "ssh://git@host/a/b.git"),
            ("https://h/x", "https://h/x"),
        ] {
            assert_eq!(absolute_url(given), url);
        }
        assert_eq!(joined_url("https://h/a/b.git", "../c.git"), "https://h/a/c.git");
        assert_eq!(joined_url("file:///a/b/", "./c"), "file:///a/b/c");
        assert_eq!(joined_url("https://h/a", "https://k/b"), "https://k/b");
    }

    #[test]
    fn names_that_git_refuses_are_refused() {
        for name in [
            "", "-x", "a..b", "a b", "a~1", "x.lock", "a@{1}", "@", "a//b", "a:b", ".a", "a/",
        ] {
            assert!(check_reference(name).is_err(), "{name}");
        }
        for name in ["main", "refs/heads/a-b", "v1.0", "user/x", "HEAD"] {
            assert!(check_reference(name).is_ok(), "{name}");
        }
    }
}
