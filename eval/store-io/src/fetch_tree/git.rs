//! Git repositories, read with the `git` command.
//!
//! The command, not a library: it is what Nix fetches with, so credentials, proxies, SSH and partial servers work as people
//! have set them up. Contents are read as they lie in the object database (`cat-file`): no line ends are changed, no filter
//! of the repository's configuration runs.
//!
//! Invariants
//! - nothing of a name or URL becomes an option of the command; hooks and file system monitors are off;
//! - what `git` writes is bounded: lists by [`LIST_BYTES_MAX`], trees by the limits of fetches.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use igloo_status::Code;

use crate::fetch::{TreeWriter, UnpackError};

/// Most bytes of a list (of files, of references) that `git` may write.
const LIST_BYTES_MAX: u64 = 1 << 30;
/// Bytes kept of what `git` says when it fails.
const SAID_BYTES_MAX: usize = 4 << 10;

/// A repository: a folder with a working tree, or a bare one.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    folder: PathBuf,
}

/// A submodule as `.gitmodules` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Submodule {
    pub(crate) path: Vec<u8>,
    pub(crate) url: String,
}

/// An entry of a tree.
struct Entry {
    mode: u32,
    id: String,
    path: Vec<u8>,
}

const MODE_KIND: u32 = 0o170_000;
const MODE_DIRECTORY: u32 = 0o040_000;
const MODE_SYMLINK: u32 = 0o120_000;
const MODE_SUBMODULE: u32 = 0o160_000;

/// Writes a submodule's tree in place of its entry; the entry's path and commit.
pub(crate) type WriteSubmodule<'a> = dyn FnMut(&mut TreeWriter<'_>, &[u8], &str) -> Result<(), GitError> + 'a;

impl Repository {
    /// The repository in a folder, which is not looked at yet.
    pub(crate) fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// Makes a bare repository where there is none.
    pub(crate) fn init_bare(folder: &Path) -> Result<Self, GitError> {
        let repository = Self::at(folder);
        if !folder.join("objects").is_dir() {
            std::fs::create_dir_all(folder).map_err(|source| GitError::Io {
                what: format!("make the folder {}", folder.display()),
                source,
            })?;
            let options = ["init", "--quiet", "--bare", "--initial-branch=main", "."];
            repository.run(&options.map(OsStr::new))?;
        }
        Ok(repository)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.folder);
        for setting in [
            "safe.directory=*",
            "core.fsmonitor=false",
            "core.hooksPath=/dev/null",
            "gc.auto=0",
            "fetch.recurseSubmodules=no",
        ] {
            command.args(["-c", setting]);
        }
        for name in [
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "GIT_OBJECT_DIRECTORY",
            "GIT_NAMESPACE",
        ] {
            command.env_remove(name);
        }
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C");
        command
    }

    fn run(&self, arguments: &[&OsStr]) -> Result<Vec<u8>, GitError> {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null());
        output(command, &[])
    }

    fn text(&self, arguments: &[&str]) -> Result<String, GitError> {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        let out = self.run(&arguments)?;
        Ok(String::from_utf8_lossy(&out).trim_end().to_owned())
    }

    /// The commit a revision means.
    pub(crate) fn commit_of(&self, revision: &str) -> Result<String, GitError> {
        let commit = format!("{revision}^{{commit}}");
        self.text(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])
            .map_err(|error| match error {
                GitError::Failed { .. } => GitError::NoRevision {
                    revision: revision.to_owned(),
                    repository: self.folder.display().to_string(),
                },
                error => error,
            })
    }

    /// Whether a commit is there.
    pub(crate) fn has_commit(&self, id: &str) -> bool {
        self.commit_of(id).is_ok()
    }

    /// The full name of the branch that is checked out.
    pub(crate) fn head_branch(&self) -> Option<String> {
        self.text(&["symbolic-ref", "--quiet", "HEAD"]).ok()
    }

    /// When a commit was committed, in seconds since 1970.
    pub(crate) fn commit_time(&self, id: &str) -> Result<u64, GitError> {
        let text = self.text(&["log", "-1", "--no-show-signature", "--format=%ct", id, "--"])?;
        text.parse().map_err(|_| GitError::Output {
            what: "a commit's time",
        })
    }

    /// How many commits a commit has behind it, itself counted.
    pub(crate) fn commit_count(&self, id: &str) -> Result<u64, GitError> {
        let text = self.text(&["rev-list", "--count", id, "--"])?;
        text.parse().map_err(|_| GitError::Output {
            what: "a count of commits",
        })
    }

    /// Whether history is missing.
    pub(crate) fn is_shallow(&self) -> Result<bool, GitError> {
        Ok(self.text(&["rev-parse", "--is-shallow-repository"])? == "true")
    }

    /// Whether files known to the index differ from the checked out commit; submodules do not count.
    pub(crate) fn is_dirty(&self) -> Result<bool, GitError> {
        let options = [
            "status",
            "--porcelain=v1",
            "-z",
            "--untracked-files=no",
            "--ignore-submodules=all",
        ];
        Ok(!self.run(&options.map(OsStr::new))?.is_empty())
    }

    /// Paths of the files the index knows.
    pub(crate) fn tracked(&self, with_submodules: bool) -> Result<Vec<Vec<u8>>, GitError> {
        let mut options = vec![OsStr::new("ls-files"), OsStr::new("-z"), OsStr::new("--cached")];
        if with_submodules {
            options.push(OsStr::new("--recurse-submodules"));
        }
        Ok(split(&self.run(&options)?))
    }

    /// Those of `paths` that `.gitattributes` keep out of exports; of a commit, or of the working tree.
    pub(crate) fn export_ignored(
        &self,
        commit: Option<&str>,
        paths: &[&[u8]],
    ) -> Result<Vec<Vec<u8>>, GitError> {
        let mut command = self.command();
        command.arg("check-attr");
        if let Some(commit) = commit {
            command.arg(format!("--source={commit}"));
        }
        command
            .args(["-z", "--stdin", "export-ignore"])
            .stdin(Stdio::piped());
        let mut input = Vec::new();
        for path in paths {
            input.extend_from_slice(path);
            input.push(0);
        }
        // triples of path, attribute, value
        let said = split(&output(command, &input)?);
        let ignored = said.chunks_exact(3).filter(|triple| triple[2] == b"set");
        Ok(ignored.map(|triple| triple[0].clone()).collect())
    }

    /// The submodules a commit declares.
    pub(crate) fn submodules(&self, commit: &str) -> Result<Vec<Submodule>, GitError> {
        let blob = format!("{commit}:.gitmodules");
        if self.text(&["cat-file", "-e", &blob]).is_err() {
            return Ok(Vec::new());
        }
        let options = ["config", "--blob", &blob, "--null", "--list"];
        let listed = self.run(&options.map(OsStr::new))?;
        Ok(submodules(&listed))
    }

    /// The URL of the remote `origin`.
    pub(crate) fn origin(&self) -> Option<String> {
        self.text(&["config", "--get", "remote.origin.url"]).ok()
    }

    /// Which branch `HEAD` of another repository is.
    pub(crate) fn remote_head(&self, url: &str) -> Result<String, GitError> {
        let listed = self.text(&["ls-remote", "--symref", "--end-of-options", url, "HEAD"])?;
        let named = listed.lines().find_map(|line| {
            let (name, head) = line.strip_prefix("ref: ")?.split_once('\t')?;
            (head == "HEAD").then(|| name.to_owned())
        });
        named.ok_or_else(|| GitError::NoHead { url: url.to_owned() })
    }

    /// Fetches from another repository.
    pub(crate) fn fetch(&self, url: &str, what: &str, depth: Option<u32>) -> Result<(), GitError> {
        let depth = depth.map(|depth| format!("--depth={depth}"));
        let mut arguments = vec![
            "fetch",
            "--quiet",
            "--force",
            "--no-tags",
            "--no-write-fetch-head",
        ];
        arguments.extend(depth.as_deref());
        arguments.extend(["--end-of-options", url, what]);
        self.text(&arguments).map(|_| ())
    }

    /// Writes a commit's tree; `skip` says which paths are left out.
    pub(crate) fn write_tree(
        &self,
        commit: &str,
        writer: &mut TreeWriter<'_>,
        skip: &dyn Fn(&[u8]) -> bool,
        submodule: &mut WriteSubmodule<'_>,
    ) -> Result<(), GitError> {
        let mut objects = Objects::open(self)?;
        for entry in self.entries(commit)? {
            if skip(&entry.path) {
                continue;
            }
            match entry.mode & MODE_KIND {
                MODE_DIRECTORY => writer.directory(&entry.path)?,
                MODE_SUBMODULE => submodule(writer, &entry.path, &entry.id)?,
                MODE_SYMLINK => {
                    let target = objects.whole(&entry.id)?;
                    writer.symlink(&entry.path, &target)?;
                }
                _ => objects.file(&entry, writer)?,
            }
        }
        Ok(())
    }

    fn entries(&self, commit: &str) -> Result<Vec<Entry>, GitError> {
        let options = ["ls-tree", "-r", "-t", "-z", "--full-tree", commit];
        let listed = split(&self.run(&options.map(OsStr::new))?);
        let entry = |line: &Vec<u8>| {
            parse_entry(line).ok_or(GitError::Output {
                what: "a list of a tree",
            })
        };
        listed.iter().map(entry).collect()
    }

    /// All paths of a commit's tree, directories among them.
    pub(crate) fn paths(&self, commit: &str) -> Result<Vec<Vec<u8>>, GitError> {
        let entries = self.entries(commit)?;
        Ok(entries.into_iter().map(|entry| entry.path).collect())
    }
}

/// Reads objects one after another.
struct Objects {
    child: Child,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
}

impl Objects {
    fn open(repository: &Repository) -> Result<Self, GitError> {
        let mut command = repository.command();
        command.args(["cat-file", "--batch"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(start_error)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(ask), Some(answer)) => Ok(Self {
                child,
                ask,
                answer: BufReader::new(answer),
            }),
            _ => Err(GitError::Output { what: "objects" }),
        }
    }

    /// Asks for an object and returns its size; its bytes come next.
    fn begin(&mut self, id: &str) -> Result<u64, GitError> {
        let broken = |source| GitError::Io {
            what: "read an object".to_owned(),
            source,
        };
        self.ask.write_all(format!("{id}\n").as_bytes()).map_err(broken)?;
        self.ask.flush().map_err(broken)?;
        let mut head = Vec::new();
        let mut line = Read::take(&mut self.answer, 256);
        line.read_until(b'\n', &mut head).map_err(broken)?;
        let head = String::from_utf8_lossy(&head);
        let size = head
            .trim_end()
            .rsplit(' ')
            .next()
            .and_then(|size| size.parse().ok());
        size.ok_or_else(|| GitError::NoObject { id: id.to_owned() })
    }

    fn end(&mut self) -> Result<(), GitError> {
        let mut line_feed = [0];
        let read = self.answer.read_exact(&mut line_feed);
        read.map_err(|_| GitError::Output { what: "an object" })
    }

    fn whole(&mut self, id: &str) -> Result<Vec<u8>, GitError> {
        let size = self.begin(id)?;
        let mut bytes = Vec::new();
        let read = Read::take(&mut self.answer, size).read_to_end(&mut bytes);
        match read {
            Ok(read) if read as u64 == size => self.end().map(|()| bytes),
            _ => Err(GitError::Output { what: "an object" }),
        }
    }

    fn file(&mut self, entry: &Entry, writer: &mut TreeWriter<'_>) -> Result<(), GitError> {
        let size = self.begin(&entry.id)?;
        let mut body = Read::take(&mut self.answer, size);
        let mut failed = None;
        let mut read = |buffer: &mut [u8]| {
            let mut count = 0;
            while count < buffer.len() {
                match body.read(&mut buffer[count..]) {
                    Ok(0) => break,
                    Ok(some) => count += some,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            Ok(count)
        };
        let executable = entry.mode & 0o111 != 0;
        writer.file(&entry.path, size, executable, &mut read)?;
        if let Some(source) = failed {
            return Err(GitError::Io {
                what: "read an object".to_owned(),
                source,
            });
        }
        if body.limit() != 0 {
            return Err(GitError::Output { what: "an object" });
        }
        self.end()
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

fn split(listed: &[u8]) -> Vec<Vec<u8>> {
    let parts = listed.strip_suffix(b"\0").unwrap_or(listed);
    if parts.is_empty() {
        return Vec::new();
    }
    parts.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// `MODE KIND ID<tab>PATH`.
fn parse_entry(line: &[u8]) -> Option<Entry> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let head = std::str::from_utf8(&line[..tab]).ok()?;
    let mut words = head.split(' ');
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    let id = words.nth(1)?;
    Some(Entry {
        mode,
        id: id.to_owned(),
        path: line[tab + 1..].to_vec(),
    })
}

/// `submodule.NAME.path<LF>VALUE<NUL>…`, in any order.
fn submodules(listed: &[u8]) -> Vec<Submodule> {
    let mut found: std::collections::BTreeMap<String, (Vec<u8>, String)> = std::collections::BTreeMap::new();
    for item in split(listed) {
        let Some(end) = item.iter().position(|byte| *byte == b'\n') else {
            continue;
        };
        let (key, value) = (
            String::from_utf8_lossy(&item[..end]).into_owned(),
            &item[end + 1..],
        );
        let named = key
            .strip_prefix("submodule.")
            .and_then(|key| key.rsplit_once('.'));
        match named {
            Some((name, "path")) => found.entry(name.to_owned()).or_default().0 = value.to_vec(),
            Some((name, "url")) => {
                found.entry(name.to_owned()).or_default().1 = String::from_utf8_lossy(value).into_owned();
            }
            _ => {}
        }
    }
    let whole = found
        .into_values()
        .filter(|(path, url)| !path.is_empty() && !url.is_empty());
    whole.map(|(path, url)| Submodule { path, url }).collect()
}

/// Runs to the end. What it says on stderr is kept for the error.
fn output(mut command: Command, input: &[u8]) -> Result<Vec<u8>, GitError> {
    let shown = command
        .get_args()
        .skip(2)
        .filter(|word| !word.as_bytes().starts_with(b"-") && !word.as_bytes().contains(&b'='))
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start_error)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (written, out, said) = std::thread::scope(|scope| {
        let said = scope.spawn(|| read_all(stderr, u64::MAX));
        let write = scope.spawn(|| stdin.map_or(Ok(()), |mut stdin| stdin.write_all(input)));
        let out = read_all(stdout, LIST_BYTES_MAX);
        (write.join(), out, said.join())
    });
    let status = child.wait().map_err(|source| GitError::Io {
        what: "wait for git".to_owned(),
        source,
    })?;
    let said = said.unwrap_or_default();
    if !status.success() {
        let said = String::from_utf8_lossy(&said[..said.len().min(SAID_BYTES_MAX)])
            .trim()
            .to_owned();
        return Err(GitError::Failed { command: shown, said });
    }
    if !matches!(written, Ok(Ok(()))) || out.len() as u64 >= LIST_BYTES_MAX {
        return Err(GitError::Output { what: "a list" });
    }
    Ok(out)
}

fn read_all(pipe: Option<impl Read>, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let mut pipe = pipe.take(bytes_max);
        let _ = pipe.read_to_end(&mut bytes); // a broken pipe shows in the exit status
    }
    bytes
}

fn start_error(source: std::io::Error) -> GitError {
    if source.kind() == std::io::ErrorKind::NotFound {
        return GitError::Absent;
    }
    GitError::Io {
        what: "start git".to_owned(),
        source,
    }
}

/// Why a repository could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// There is no `git`.
    #[error("the command 'git' is not installed; it is needed to read Git repositories")]
    Absent,
    /// `git` said no.
    #[error("git failed ({command}): {said}")]
    Failed {
        /// What was asked, without options.
        command: String,
        /// What it said.
        said: String,
    },
    /// No such commit, branch or tag.
    #[error("the Git repository '{repository}' has no commit, branch or tag '{revision}'")]
    NoRevision {
        /// What was looked for.
        revision: String,
        /// Where.
        repository: String,
    },
    /// A repository that does not say what its `HEAD` is.
    #[error("cannot tell which branch is the main one of the Git repository '{url}'; name one with 'ref'")]
    NoHead {
        /// The repository.
        url: String,
    },
    /// An object that is listed and not there.
    #[error("the Git object {id} is missing; the repository is damaged or incomplete")]
    NoObject {
        /// Its id.
        id: String,
    },
    /// `git` wrote something else than expected.
    #[error("git gave no {what}, or one that is too long")]
    Output {
        /// What was expected.
        what: &'static str,
    },
    /// The system refused.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The tree cannot be stored.
    #[error("the tree cannot be stored")]
    Tree(#[from] UnpackError),
    /// Something about a submodule, or the request.
    #[error("{what}")]
    Refused {
        /// What.
        what: String,
    },
}

impl GitError {
    /// The class of the failure.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Absent => Code::FailedPrecondition,
            Self::Failed { .. } => Code::Unavailable,
            Self::NoRevision { .. } | Self::NoHead { .. } => Code::NotFound,
            Self::NoObject { .. } | Self::Output { .. } => Code::DataLoss,
            Self::Io { source, .. } => Code::from_io(source),
            Self::Tree(error) => error.code(),
            Self::Refused { .. } => Code::InvalidArgument,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_submodules_are_read() {
        let entry = parse_entry(b"100755 blob 0123abc\ta b/\xff").expect("an entry");
        assert_eq!((entry.mode & 0o111 != 0, entry.id.as_str()), (true, "0123abc"));
        assert_eq!(entry.path, b"a b/\xff");
        assert!(parse_entry(b"100755 blob").is_none());
        let listed = b"submodule.a.b.path\nx/y\0submodule.a.b.url\n../u\0submodule.c.url\nz\0core.x\n1\0";
        let expected = Submodule {
            path: b"x/y".to_vec(),
            url: "../u".to_owned(),
        };
        assert_eq!(submodules(listed), [expected]);
        assert_eq!(split(b""), Vec::<Vec<u8>>::new());
    }
}
