//! `fetchTree`, `fetchGit` and `getFlake`: repositories, paths and flakes of this machine.
//!
//! The repository is made with fixed names and dates, so that its commits have the ids recorded here; NAR hashes and
//! attributes were recorded from Nix 2.34 for the same repository. With `IGLOO_TEST_NIX` naming the `nix` of Nix 2.34,
//! everything is compared with it anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests")]

mod common;

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use common::{memory_store, runtime};
use igloo_eval::{Evaluation, Features, Format, Origin, Purity, Settings};
use igloo_store_io::fetch::FetchError;
use igloo_store_io::{FetchLimits, Fetcher, Registry, StoreIo, TreePlaces, UrlFetcher};
use igloo_testkit::skip;
use tokio::runtime::Runtime;

const FIRST: &str = "5a1b0d7026f5aa95cfe8460767a2ce1ad78ddecb";
const SECOND: &str = "a39a056294decc8bceec682a6a7da04480a26e98";
const SIDE: &str = "c8356c89a47b265f0df2f60d35c795e5d4cf8dda";
const EXPORTED: &str = "sha256-qsu3W5wG0Z2EGCAAKNHIIAMqpmaBr6aTjVfKvh5A7Vs=";
const WHOLE: &str = "sha256-w6grD4u3rtGYJPIQFJBYg9xA/04lDiirgSaCoKQtlZ8=";

struct World {
    runtime: Runtime,
    tmp: tempfile::TempDir,
}

impl World {
    fn new() -> Option<Self> {
        if Command::new("git").arg("--version").output().is_err() {
            skip("there is no git");
            return None;
        }
        Some(Self {
            runtime: runtime(),
            tmp: tempfile::tempdir().unwrap(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The repository whose commits have the ids above.
    fn repository(&self) -> String {
        let repo = self.path("repo");
        self.write("repo/a", "hello\n");
        self.write("repo/d/run", "x\n");
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(repo.join("d/run"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("a", repo.join("l")).unwrap();
        let (first, later) = ("2020-01-02T03:04:05Z", "2021-01-02T03:04:05Z");
        git(&repo, first, &["init", "-q", "-b", "main", "."]);
        commit(&repo, first, "one");
        self.write("repo/b", "two\n");
        self.write("repo/.gitattributes", "b export-ignore\n");
        commit(&repo, later, "two");
        git(&repo, later, &["tag", "v1"]);
        git(&repo, later, &["checkout", "-q", "-b", "side"]);
        self.write("repo/s", "side\n");
        commit(&repo, later, "side");
        git(&repo, later, &["checkout", "-q", "main"]);
        repo.to_str().unwrap().to_owned()
    }

    fn io(&self, fetcher: Option<Arc<dyn Fetcher>>) -> Rc<StoreIo> {
        let io = StoreIo::new(memory_store(&self.shown("store")), self.runtime.handle().clone());
        let io = io.with_trees(TreePlaces {
            git_cache: Some(self.path("git-cache")),
            registries: vec![
                Registry::Own(self.path("home/.config/nix/registry.json")),
                Registry::Global(self.shown("global.json")),
            ],
        });
        Rc::new(match fetcher {
            Some(fetcher) => io.with_fetcher(fetcher, FetchLimits::default()),
            None => io,
        })
    }

    fn eval_in(&self, io: &Rc<StoreIo>, purity: Purity, text: &str) -> Result<serde_json::Value, String> {
        let settings = Settings {
            base_dir: self.tmp.path().to_str().unwrap().to_owned(),
            purity,
            features: Features {
                flakes: true,
                fetch_tree: true,
                ..Features::default()
            },
            ..Settings::default()
        };
        let io: Rc<dyn igloo_eval::EvalIo> = Rc::<StoreIo>::clone(io);
        let mut evaluation = Evaluation::new(settings, io);
        let root = evaluation.eval_text(text.as_bytes(), Origin::String);
        let printed = root.and_then(|root| evaluation.print(root, Format::Json, true));
        let printed = printed.map_err(|error| error.message.clone())?;
        Ok(serde_json::from_slice(&printed).unwrap())
    }

    fn eval(&self, text: &str) -> Result<serde_json::Value, String> {
        self.eval_in(&self.io(None), Purity::Impure, text)
    }

    /// What Nix makes of it, with a store of its own of the same name.
    fn nix(&self, text: &str) -> Option<Result<serde_json::Value, String>> {
        let nix = std::env::var_os("IGLOO_TEST_NIX")?;
        let registry = self.shown("global.json");
        let config =
            format!("experimental-features = nix-command flakes fetch-tree\nflake-registry = {registry}\n");
        let output = Command::new(nix)
            .args(["eval", "--impure", "--json", "--expr", text])
            .env("NIX_CONFIG", config)
            .current_dir(self.tmp.path())
            .env("NIX_STORE_DIR", self.path("store"))
            .env("NIX_STATE_DIR", self.path("var"))
            .env("NIX_LOG_DIR", self.path("log"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("HOME", self.path("home"))
            .env_remove("NIX_REMOTE")
            .output()
            .unwrap();
        Some(if output.status.success() {
            Ok(serde_json::from_slice(&output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        })
    }

    /// Evaluates, and compares with Nix where there is one.
    fn same(&self, text: &str) -> serde_json::Value {
        let ours = self.eval(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        if let Some(theirs) = self.nix(text) {
            let theirs = theirs.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(ours, theirs, "{text}");
        }
        ours
    }
}

fn git(folder: &Path, date: &str, arguments: &[&str]) {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args([
            "-c",
            "user.name=n",
            "-c",
            "user.email=a@b",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_DATE", "2020-01-02T03:04:05Z")
        .env("GIT_COMMITTER_DATE", date)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

fn commit(folder: &Path, date: &str, message: &str) {
    git(folder, date, &["add", "."]);
    git(folder, date, &["commit", "-q", "-m", message]);
}

/// A tree's attributes, and its store path without the store's folder.
fn attributes_of(fetch: &str) -> String {
    format!("let x = ({fetch}); in removeAttrs x [ \"outPath\" ] // {{ out = baseNameOf x.outPath; }}")
}

#[test]
fn commits_of_repositories_of_this_machine() {
    let Some(world) = World::new() else { return };
    let repo = world.repository();
    let plain = world.same(&attributes_of(&format!("builtins.fetchGit {repo}")));
    let expected = serde_json::json!({
        "lastModified": 1_609_556_645, "lastModifiedDate": "20210102030405", "narHash": EXPORTED, "rev": SECOND,
        "revCount": 2, "shortRev": "a39a056", "submodules": false, "out": plain["out"],
    });
    assert_eq!(plain, expected);
    let cases = [
        (
            format!("builtins.fetchGit {{ url = \"file://{repo}\"; }}"),
            SECOND,
            EXPORTED,
            Some(2),
        ),
        (
            format!("builtins.fetchGit {{ url = {repo}; exportIgnore = false; }}"),
            SECOND,
            WHOLE,
            Some(2),
        ),
        (
            format!("builtins.fetchGit {{ url = \"{repo}\"; ref = \"v1\"; shallow = true; }}"),
            SECOND,
            EXPORTED,
            Some(0),
        ),
        (
            format!(
                "builtins.fetchGit {{ url = \"{repo}\"; ref = \"refs/tags/v1\"; submodules = true; name = \"foo\"; }}"
            ),
            SECOND,
            WHOLE,
            Some(2),
        ),
        (
            format!("builtins.fetchTree {{ type = \"git\"; url = \"file://{repo}\"; }}"),
            SECOND,
            WHOLE,
            None,
        ),
        (
            format!(
                "builtins.fetchTree {{ type = \"git\"; url = \"{repo}\"; ref = \"main\"; shallow = true; }}"
            ),
            SECOND,
            WHOLE,
            None,
        ),
        (
            format!("builtins.fetchTree {{ type = \"git\"; url = \"{repo}\"; shallow = false; }}"),
            SECOND,
            WHOLE,
            Some(2),
        ),
    ];
    for (fetch, rev, hash, count) in cases {
        let found = world.same(&attributes_of(&fetch));
        assert_eq!(
            (&found["rev"], &found["narHash"]),
            (&rev.into(), &hash.into()),
            "{fetch}"
        );
        assert_eq!(found["revCount"].as_u64(), count, "{fetch}");
    }
    for fetch in [
        format!("builtins.fetchGit {{ url = {repo}; rev = \"{FIRST}\"; }}"),
        format!("builtins.fetchGit {{ url = \"{repo}\"; ref = \"side\"; }}"),
        format!("builtins.fetchTree \"git+file://{repo}?ref=side\""),
        format!("builtins.fetchTree {{ type = \"git\"; url = \"file://{repo}\"; rev = \"{FIRST}\"; }}"),
        format!(
            "builtins.fetchGit {{ url = \"{repo}\"; rev = \"{FIRST}\"; ref = \"side\"; allRefs = true; }}"
        ),
    ] {
        let found = world.same(&attributes_of(&fetch));
        let rev = if fetch.contains(FIRST) { FIRST } else { SIDE };
        assert_eq!(found["rev"], rev, "{fetch}");
    }
    let listed = world.same(&format!("builtins.readDir (builtins.fetchGit {repo})"));
    assert_eq!(
        listed,
        serde_json::json!({ ".gitattributes": "regular", "a": "regular", "d": "directory", "l": "symlink" })
    );
}

#[test]
fn working_trees_with_changes() {
    let Some(world) = World::new() else { return };
    let repo = world.repository();
    world.write("repo/a", "hello\ndirty\n");
    world.write("repo/untracked", "new\n");
    let found = world.same(&attributes_of(&format!("builtins.fetchGit {repo}")));
    assert_eq!(found["dirtyRev"], format!("{SECOND}-dirty"));
    assert_eq!(
        (&found["rev"], &found["revCount"]),
        (&"0".repeat(40).into(), &0.into())
    );
    let tree = format!("builtins.fetchTree {{ type = \"git\"; url = \"file://{repo}\"; }}");
    let found = world.same(&attributes_of(&tree));
    assert_eq!(
        (&found["dirtyShortRev"], &found["rev"]),
        (&"a39a056-dirty".into(), &serde_json::Value::Null)
    );
    let listed = world.same(&format!("builtins.attrNames (builtins.readDir ({tree}))"));
    assert_eq!(listed, serde_json::json!([".gitattributes", "a", "b", "d", "l"]));
    // a name asks for what is committed
    let found = world.same(&attributes_of(&format!(
        "builtins.fetchGit {{ url = {repo}; ref = \"main\"; }}"
    )));
    assert_eq!(found["narHash"], EXPORTED);
}

#[test]
fn submodules_are_fetched_when_asked_for() {
    let Some(world) = World::new() else { return };
    let inner = world.repository();
    world.write("outer/x", "x\n");
    let (outer, date) = (world.path("outer"), "2021-01-02T03:04:05Z");
    git(&outer, date, &["init", "-q", "-b", "main", "."]);
    git(&outer, date, &["submodule", "--quiet", "add", &inner, "in/ner"]);
    commit(&outer, date, "outer");
    let outer = outer.to_str().unwrap();
    let read = |flag: &str| {
        let fetch = format!("builtins.fetchGit {{ url = \"file://{outer}\"; ref = \"main\"; {flag} }}");
        world.same(&attributes_of(&fetch));
        world.same(&format!(
            "builtins.attrNames (builtins.readDir ({fetch} + \"/in/ner\"))"
        ))
    };
    assert_eq!(read(""), serde_json::json!([]));
    assert_eq!(
        read("submodules = true;"),
        serde_json::json!([".gitattributes", "a", "b", "d", "l"])
    );
}

#[test]
fn bare_repositories_and_what_is_refused() {
    let Some(world) = World::new() else { return };
    let repo = world.repository();
    let bare = world.shown("bare");
    git(
        Path::new(&repo),
        "2021-01-02T03:04:05Z",
        &["clone", "-q", "--bare", ".", &bare],
    );
    let found = world.same(&attributes_of(&format!(
        "builtins.fetchGit {{ url = \"file://{bare}\"; }}"
    )));
    assert_eq!(
        (&found["rev"], &found["narHash"]),
        (&SECOND.into(), &EXPORTED.into())
    );
    let refused = |text: &str, why: &str| {
        let error = world.eval(&attributes_of(text)).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
        if let Some(theirs) = world.nix(&attributes_of(text)) {
            assert!(theirs.is_err(), "{text}");
        }
    };
    refused(
        &format!("builtins.fetchGit {{ url = \"{repo}\"; foo = 1; }}"),
        "input attribute 'foo' not supported by scheme 'git'",
    );
    refused(&format!("builtins.fetchGit \"{repo}/nope\""), "does not exist");
    refused(
        &format!("builtins.fetchGit {{ url = \"{repo}\"; ref = \"nope\"; }}"),
        "nope",
    );
    refused(
        &format!("builtins.fetchGit {{ url = \"{repo}\"; ref = \"--upload-pack=x\"; }}"),
        "invalid Git branch/tag name",
    );
    refused(
        &format!(
            "builtins.fetchGit {{ url = \"{repo}\"; rev = \"{}1\"; }}",
            "0".repeat(39)
        ),
        "has no commit",
    );
    refused(
        &format!("builtins.fetchGit {{ url = \"{repo}\"; rev = \"xyz\"; }}"),
        "hash 'xyz' has wrong length for hash algorithm 'sha1'",
    );
    let zeros = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    refused(
        &format!("builtins.fetchGit {{ url = \"{repo}\"; narHash = \"{zeros}\"; }}"),
        "NAR hash mismatch in input",
    );
    refused(
        &format!("builtins.fetchTree {{ type = \"git\"; url = \"{repo}\"; lastModified = 5; }}"),
        "'lastModified' attribute mismatch",
    );
    refused(
        "builtins.fetchTree { type = \"git\"; }",
        "input attribute 'url' is missing",
    );
    refused(
        "builtins.fetchTree { type = \"path\"; path = \"d\"; }",
        "cannot fetch input 'path:d' because it uses a relative path",
    );
    refused(
        "builtins.fetchTree { url = \"x\"; }",
        "argument 'type' is missing in call to 'fetchTree'",
    );
    refused("builtins.fetchGit \"https://127.0.0.1:1/x\"", "no network");
}

#[test]
fn paths() {
    let Some(world) = World::new() else { return };
    world.write("tree/a", "text");
    world.write("tree/d/e", "text");
    let tree = world.shown("tree");
    let found = world.same(&attributes_of(&format!(
        "builtins.fetchTree {{ type = \"path\"; path = \"{tree}\"; }}"
    )));
    assert!(found["lastModified"].as_u64().unwrap() > 1_700_000_000);
    let given = format!(
        "builtins.fetchTree {{ type = \"path\"; path = \"{tree}\"; lastModified = 5; rev = \"{FIRST}\"; revCount = 5; }}"
    );
    let found = world.same(&attributes_of(&given));
    assert_eq!(
        (&found["lastModifiedDate"], &found["shortRev"], &found["revCount"]),
        (&"19700101000005".into(), &"5a1b0d7".into(), &5.into())
    );
}

/// Remote repositories are fetched into the cache, and from there when nothing new is needed.
#[test]
fn repositories_elsewhere() {
    let Some(world) = World::new() else { return };
    let repo = world.repository();
    git(Path::new(&repo), "2021-01-02T03:04:05Z", &["update-server-info"]);
    let (url, server) = serve_files(PathBuf::from(format!("{repo}/.git")));
    let fetcher: Arc<dyn Fetcher> = Arc::new(UrlFetcher::new(igloo_store_io::fetch::HttpOptions::default()));
    let io = world.io(Some(Arc::clone(&fetcher)));
    let fetch = attributes_of(&format!(
        "builtins.fetchGit {{ url = \"{url}\"; ref = \"main\"; }}"
    ));
    let found = world.eval_in(&io, Purity::Impure, &fetch).unwrap();
    assert_eq!(
        (&found["rev"], &found["narHash"], &found["revCount"]),
        (&SECOND.into(), &EXPORTED.into(), &2.into())
    );
    let asked = server.lock().unwrap().len();
    assert!(asked > 0);
    let known = attributes_of(&format!(
        "builtins.fetchGit {{ url = \"{url}\"; rev = \"{FIRST}\"; }}"
    ));
    let found = world
        .eval_in(&world.io(Some(fetcher)), Purity::Pure, &known)
        .unwrap();
    assert_eq!(found["rev"], FIRST);
    assert_eq!(
        server.lock().unwrap().len(),
        asked,
        "a commit that is in the cache is not asked for"
    );
}

/// Serves files of a folder over HTTP, as Git's "dumb" protocol needs; what was asked for is noted.
fn serve_files(folder: PathBuf) -> (String, Arc<Mutex<Vec<String>>>) {
    use std::io::{BufRead as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/repo.git", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let mut header = String::new();
            while reader.read_line(&mut header).unwrap_or(0) > 2 {
                header.clear();
            }
            let path = line.split(' ').nth(1).unwrap_or_default();
            noted.lock().unwrap().push(path.to_owned());
            let path = path.trim_start_matches("/repo.git/").split('?').next().unwrap();
            let (status, body) = match std::fs::read(folder.join(path)) {
                Ok(bytes) => ("200 OK", bytes),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _gone = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    (url, asked)
}

/// Answers URLs from memory.
struct Answers {
    bodies: HashMap<String, Vec<u8>>,
    asked: Mutex<Vec<String>>,
}

impl Fetcher for Answers {
    fn open(&self, url: &str) -> Result<Box<dyn Read>, FetchError> {
        self.asked.lock().unwrap().push(url.to_owned());
        match self.bodies.get(url) {
            Some(body) => Ok(Box::new(std::io::Cursor::new(body.clone()))),
            None => Err(FetchError::Status {
                url: url.to_owned(),
                status: 404,
            }),
        }
    }
}

fn archive(time: u64) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    header.set_mtime(time);
    archive
        .append_data(&mut header, "repo-main/file", &b"text"[..])
        .unwrap();
    archive.into_inner().unwrap()
}

#[test]
fn trees_of_forges() {
    let Some(world) = World::new() else { return };
    let bodies = [
        (
            "https://api.github.com/repos/o/r/commits/HEAD".to_owned(),
            format!("{{\"sha\": \"{FIRST}\"}}").into_bytes(),
        ),
        (
            format!("https://github.com/o/r/archive/{FIRST}.tar.gz"),
            archive(1_600_000_000),
        ),
        (
            "https://h.example/api/v4/projects/o%2Fr/repository/commits?ref_name=b".to_owned(),
            format!("[{{\"id\": \"{FIRST}\"}}]").into_bytes(),
        ),
        (
            format!("https://h.example/api/v4/projects/o%2Fr/repository/archive.tar.gz?sha={FIRST}"),
            archive(1_600_000_000),
        ),
        (
            "https://git.sr.ht/~o/r/HEAD".to_owned(),
            b"ref: refs/heads/trunk\n".to_vec(),
        ),
        (
            "https://git.sr.ht/~o/r/info/refs".to_owned(),
            format!("{SIDE}\trefs/heads/x\n{FIRST}\trefs/heads/trunk\n").into_bytes(),
        ),
        (
            format!("https://git.sr.ht/~o/r/archive/{FIRST}.tar.gz"),
            archive(1_600_000_000),
        ),
    ];
    let answers = Arc::new(Answers {
        bodies: bodies.into_iter().collect(),
        asked: Mutex::default(),
    });
    for fetch in [
        "builtins.fetchTree { type = \"github\"; owner = \"o\"; repo = \"r\"; }",
        "builtins.fetchTree \"github:o/r\"",
        "builtins.fetchTree { type = \"gitlab\"; owner = \"o\"; repo = \"r\"; ref = \"b\"; host = \"h.example\"; }",
        "builtins.fetchTree { type = \"sourcehut\"; owner = \"~o\"; repo = \"r\"; }",
    ] {
        let io = world.io(Some(Arc::<Answers>::clone(&answers)));
        let found = world.eval_in(&io, Purity::Impure, &attributes_of(fetch)).unwrap();
        let expected = serde_json::json!({
            "rev": FIRST, "shortRev": "5a1b0d7", "lastModified": 1_600_000_000, "lastModifiedDate": "20200913122640",
            "narHash": found["narHash"], "out": found["out"],
        });
        assert_eq!(found, expected, "{fetch}");
    }
    let before = answers.asked.lock().unwrap().len();
    let locked = format!(
        "builtins.fetchTree {{ type = \"github\"; owner = \"o\"; repo = \"r\"; rev = \"{FIRST}\"; }}"
    );
    let io = world.io(Some(Arc::<Answers>::clone(&answers)));
    assert!(world.eval_in(&io, Purity::Pure, &attributes_of(&locked)).is_ok());
    assert_eq!(
        answers.asked.lock().unwrap().len(),
        before + 1,
        "a commit is not asked for"
    );
    let error = world
        .eval_in(&io, Purity::Pure, "builtins.fetchTree \"github:o/r\"")
        .unwrap_err();
    assert!(
        error.contains("doesn't fetch unlocked input 'github:o/r'"),
        "{error}"
    );
}

/// Flakes `a` (inputs `b`, `c` whose `b` follows, and a plain tree) by paths.
fn flakes(world: &World) {
    let root = world.shown("f");
    world.write("f/b/flake.nix", "{ outputs = { self }: { v = \"b\"; }; }");
    world.write(
        "f/c/flake.nix",
        &format!("{{ inputs.b.url = \"path:{root}/nonexistent\"; outputs = {{ self, b }}: {{ v = \"c-\" + b.v; }}; }}"),
    );
    world.write("f/raw/file", "hi\n");
    world.write(
        "f/a/flake.nix",
        &format!(
            r#"{{
              description = "a";
              inputs.b.url = "path:{root}/b";
              inputs.c = {{ url = "path:{root}/c"; inputs.b.follows = "b"; }};
              inputs.raw = {{ url = "path:{root}/raw"; flake = false; }};
              outputs = {{ self, b, c, raw }}: {{
                x = 1; bv = b.v; cv = c.v; rawFile = builtins.readFile (raw + "/file");
                same = c.inputs.b.outPath == b.outPath;
              }};
            }}"#
        ),
    );
}

const LOOK: &str = r#"{ inherit (f) x bv cv rawFile same; names = builtins.attrNames f; type = f._type;
    info = removeAttrs f.sourceInfo [ "outPath" ]; out = baseNameOf (toString f); raw = builtins.attrNames f.inputs.raw; }"#;

#[test]
fn flakes_without_a_lock_file() {
    let Some(world) = World::new() else { return };
    flakes(&world);
    let text = format!(
        "let f = builtins.getFlake \"path:{}\"; in {LOOK}",
        world.shown("f/a")
    );
    let found = world.same(&text);
    assert_eq!(
        (&found["bv"], &found["cv"], &found["rawFile"]),
        (&"b".into(), &"c-b".into(), &"hi\n".into())
    );
    assert_eq!((&found["same"], &found["type"]), (&true.into(), &"flake".into()));
    let pure = world.eval_in(&world.io(None), Purity::Pure, &text).unwrap_err();
    assert!(
        pure.contains("cannot call 'getFlake' on unlocked flake reference"),
        "{pure}"
    );
    let absent = world
        .eval(&format!("builtins.getFlake \"path:{}\"", world.shown("f/raw")))
        .unwrap_err();
    assert!(absent.contains("flake.nix"), "{absent}");
    let unknown = world.eval("builtins.getFlake \"nixpkgs\"").unwrap_err();
    assert_eq!(
        unknown,
        "cannot find flake 'flake:nixpkgs' in the flake registries"
    );
    let relative = world.eval("builtins.getFlake \"./b\"").unwrap_err();
    assert_eq!(relative, "flake reference './b' is not an absolute path");
}

#[test]
fn a_lock_file_says_what_inputs_are() {
    let Some(world) = World::new() else { return };
    flakes(&world);
    let root = world.shown("f");
    let hash_of = |name: &str| {
        let text =
            format!("builtins.fetchTree {{ type = \"path\"; path = \"{root}/{name}\"; lastModified = 7; }}");
        let found = world.eval(&attributes_of(&text)).unwrap();
        found["narHash"].as_str().unwrap().to_owned()
    };
    let node = |name: &str, extra: &str| {
        format!(
            r#""{name}": {{ {extra} "locked": {{ "lastModified": 7, "narHash": "{}", "path": "{root}/{name}", "type": "path" }},
                "original": {{ "path": "{root}/{name}", "type": "path" }} }}"#,
            hash_of(name)
        )
    };
    let lock = format!(
        r#"{{ "nodes": {{ {}, {}, {}, "root": {{ "inputs": {{ "b": "b", "c": "c", "raw": "raw" }} }} }},
            "root": "root", "version": 7 }}"#,
        node("b", ""),
        node("c", r#""inputs": { "b": [ "b" ] },"#),
        node("raw", r#""flake": false,"#)
    );
    world.write("f/a/flake.lock", &lock);
    let text = format!(
        "let f = builtins.getFlake \"path:{root}/a\"; in {LOOK} // {{ time = f.inputs.b.lastModified; }}"
    );
    let found = world.same(&text);
    assert_eq!((&found["time"], &found["cv"]), (&7.into(), &"c-b".into()));
    // what is locked may not change; only what is looked at is fetched
    world.write("f/b/flake.nix", "{ outputs = { self }: { v = \"changed\"; }; }");
    let text = format!("(builtins.getFlake \"path:{root}/a\").bv");
    let error = world.eval(&text).unwrap_err();
    assert!(error.contains("NAR hash mismatch in input"), "{error}");
    let text = format!("(builtins.getFlake \"path:{root}/a\").x");
    assert_eq!(world.eval(&text), Ok(1.into()));
}

#[test]
fn flakes_of_repositories_and_inside_trees() {
    let Some(world) = World::new() else { return };
    world.write(
        "g/flake.nix",
        "{ inputs.sub.url = \"./sub\"; outputs = { self, sub }: { v = sub.v; rev = self.rev; }; }",
    );
    world.write("g/sub/flake.nix", "{ outputs = { self }: { v = \"sub\"; }; }");
    let (folder, date) = (world.path("g"), "2021-01-02T03:04:05Z");
    git(&folder, date, &["init", "-q", "-b", "main", "."]);
    commit(&folder, date, "flake");
    let reference = format!("git+file://{}", world.shown("g"));
    let look = |reference: &str| {
        format!(
            "let f = builtins.getFlake \"{reference}\"; in {{ inherit (f) v; info = removeAttrs f.sourceInfo [ \"outPath\" ]; }}"
        )
    };
    let found = world.same(&look(&reference));
    assert_eq!(
        (&found["v"], &found["info"]["rev"]),
        (&"sub".into(), &serde_json::Value::Null),
        "with the lock file it needs, it would be another commit"
    );
    let lock = r#"{ "nodes": { "root": { "inputs": { "sub": "sub" } }, "sub": {
        "locked": { "path": "./sub", "type": "path" }, "original": { "path": "./sub", "type": "path" }, "parent": [] } },
        "root": "root", "version": 7 }"#;
    world.write("g/flake.lock", lock);
    commit(&folder, date, "lock");
    let found = world.same(&look(&reference));
    assert_eq!(found["info"]["revCount"], 2);
    let inside = world.same(&format!("(builtins.getFlake \"{reference}?dir=sub\").v"));
    assert_eq!(inside, "sub");
    let rev = found["info"]["rev"].as_str().unwrap();
    let locked = format!("(builtins.getFlake \"{reference}?rev={rev}\").v");
    let pure = world.eval_in(&world.io(None), Purity::Pure, &locked);
    assert_eq!(pure, Ok("sub".into()));
}

/// Names of flakes are looked up in all registries, those of inputs and of `fetchTree` in the global one.
#[test]
fn names_stand_for_what_registries_say() {
    let Some(world) = World::new() else { return };
    let tree = world.shown("tree");
    world.write("tree/sub/flake.nix", "{ outputs = _: { v = \"named\"; }; }");
    let entry = |id: &str, to: &str| {
        format!(r#"{{ "from": {{ "type": "indirect", "id": "{id}" }}, "to": {{ {to} }} }}"#)
    };
    let named = |id: &str| format!(r#""type": "indirect", "id": "{id}""#);
    let path = format!(r#""type": "path", "path": "{tree}", "dir": "sub""#);
    let own = [
        entry("foo", &path),
        entry("bar", &named("foo")),
        entry("l1", &named("l2")),
        entry("l2", &named("l1")),
    ];
    let registry = |entries: &[String]| format!(r#"{{ "version": 2, "flakes": [{}] }}"#, entries.join(","));
    world.write("home/.config/nix/registry.json", &registry(&own));
    world.write("global.json", &registry(&[entry("glob", &path)]));
    let look = |name: &str| {
        format!("let f = builtins.getFlake \"{name}\"; in {{ inherit (f) v; out = baseNameOf f.outPath; }}")
    };
    for name in ["foo", "bar", "flake:foo", "glob", "flake:glob?dir=nowhere"] {
        assert_eq!(world.same(&look(name))["v"], "named", "{name}");
    }
    world.same(&attributes_of(
        "builtins.fetchTree { type = \"indirect\"; id = \"glob\"; }",
    ));
    world.write(
        "in/flake.nix",
        "{ outputs = { self, glob }: { inherit (glob) v; }; }",
    );
    let input = format!("(builtins.getFlake \"path:{}\").v", world.shown("in"));
    assert_eq!(world.same(&input), "named");
    world.write(
        "own/flake.nix",
        "{ outputs = { self, foo }: { inherit (foo) v; }; }",
    );
    let own = format!("(builtins.getFlake \"path:{}\").v", world.shown("own"));
    for (text, why) in [
        (look("l1"), "cycle detected in flake registry for 'flake:l1'"),
        (
            look("zzz"),
            "cannot find flake 'flake:zzz' in the flake registries",
        ),
        (own, "cannot find flake 'flake:foo' in the flake registries"),
        (
            attributes_of("builtins.fetchTree { type = \"indirect\"; id = \"foo\"; }"),
            "cannot find flake 'flake:foo' in the flake registries",
        ),
        (
            attributes_of("builtins.fetchTree \"glob\""),
            "'glob' doesn't have a scheme",
        ),
    ] {
        let error = world.eval(&text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
        if let Some(theirs) = world.nix(&text) {
            let theirs = theirs.unwrap_err();
            assert!(theirs.contains(why), "{text}: {theirs}");
        }
    }
    let pure = world.eval_in(&world.io(None), Purity::Pure, &look("glob"));
    assert!(pure.unwrap_err().contains("unlocked flake reference 'glob'"));
}

/// A lock file that settles nothing is no lock file.
#[test]
fn a_lock_file_names_trees_exactly() {
    let Some(world) = World::new() else { return };
    world.write(
        "g/flake.nix",
        "{ inputs.x.url = \"github:o/r\"; outputs = { self, x }: { v = x; }; }",
    );
    let node = r#""type": "github", "owner": "o", "repo": "r""#;
    let lock = format!(
        r#"{{ "nodes": {{ "root": {{ "inputs": {{ "x": "x" }} }}, "x": {{ "locked": {{ {node} }}, "original": {{ {node} }} }} }},
        "root": "root", "version": 7 }}"#
    );
    world.write("g/flake.lock", &lock);
    let text = format!("(builtins.getFlake \"path:{}\").v", world.shown("g"));
    let error = world.eval(&text).unwrap_err();
    assert!(
        error.to_lowercase().contains("lock file contains unlocked input"),
        "{error}"
    );
    if let Some(theirs) = world.nix(&text) {
        assert!(
            theirs
                .unwrap_err()
                .to_lowercase()
                .contains("lock file contains unlocked input")
        );
    }
}
