//! A folder with a store, repositories and registries, and evaluations in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use igloo_eval::{Evaluation, Features, Format, Origin, Purity, Settings};
use igloo_store_io::{FetchLimits, Fetcher, Registry, StoreIo, TreePlaces};
use igloo_testkit::skip;
use tokio::runtime::Runtime;

use crate::common::{memory_store, runtime};

/// The commits of [`World::repository`], and the hashes of its trees.
pub const FIRST: &str = "5a1b0d7026f5aa95cfe8460767a2ce1ad78ddecb";
pub const SECOND: &str = "a39a056294decc8bceec682a6a7da04480a26e98";
pub const SIDE: &str = "c8356c89a47b265f0df2f60d35c795e5d4cf8dda";
pub const EXPORTED: &str = "sha256-qsu3W5wG0Z2EGCAAKNHIIAMqpmaBr6aTjVfKvh5A7Vs=";
pub const WHOLE: &str = "sha256-w6grD4u3rtGYJPIQFJBYg9xA/04lDiirgSaCoKQtlZ8=";

pub struct World {
    runtime: Runtime,
    tmp: tempfile::TempDir,
}

impl World {
    pub fn new() -> Option<Self> {
        if Command::new("git").arg("--version").output().is_err() {
            skip("there is no git");
            return None;
        }
        Some(Self {
            runtime: runtime(),
            tmp: tempfile::tempdir().unwrap(),
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }

    pub fn shown(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The repository whose commits have the ids above.
    pub fn repository(&self) -> String {
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

    pub fn io(&self, fetcher: Option<Arc<dyn Fetcher>>) -> Rc<StoreIo> {
        self.io_with(self.places(), fetcher)
    }

    pub fn places(&self) -> TreePlaces {
        TreePlaces {
            git_cache: Some(self.path("git-cache")),
            registries: vec![
                Registry::Own(self.path("home/.config/nix/registry.json")),
                Registry::Global(self.shown("global.json")),
            ],
        }
    }

    pub fn io_with(&self, places: TreePlaces, fetcher: Option<Arc<dyn Fetcher>>) -> Rc<StoreIo> {
        let io = StoreIo::new(memory_store(&self.shown("store")), self.runtime.handle().clone());
        let io = io.with_trees(places);
        Rc::new(match fetcher {
            Some(fetcher) => io.with_fetcher(fetcher, FetchLimits::default()),
            None => io,
        })
    }

    pub fn settings(&self, purity: Purity) -> Settings {
        Settings {
            base_dir: self.tmp.path().to_str().unwrap().to_owned(),
            purity,
            features: Features {
                flakes: true,
                fetch_tree: true,
                ..Features::default()
            },
            ..Settings::default()
        }
    }

    pub fn eval_in(&self, io: &Rc<StoreIo>, purity: Purity, text: &str) -> Result<serde_json::Value, String> {
        Self::eval_with(io, self.settings(purity), text)
    }

    pub fn eval_with(io: &Rc<StoreIo>, settings: Settings, text: &str) -> Result<serde_json::Value, String> {
        let io: Rc<dyn igloo_eval::EvalIo> = Rc::<StoreIo>::clone(io);
        let mut evaluation = Evaluation::new(settings, io);
        let root = evaluation.eval_text(text.as_bytes(), Origin::String);
        let printed = root.and_then(|root| evaluation.print(root, Format::Json, true));
        let printed = printed.map_err(|error| error.message.clone())?;
        Ok(serde_json::from_slice(&printed).unwrap())
    }

    pub fn eval(&self, text: &str) -> Result<serde_json::Value, String> {
        self.eval_in(&self.io(None), Purity::Impure, text)
    }

    /// What Nix makes of it, with a store of its own of the same name.
    pub fn nix(&self, text: &str) -> Option<Result<serde_json::Value, String>> {
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
    pub fn same(&self, text: &str) -> serde_json::Value {
        let ours = self.eval(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        if let Some(theirs) = self.nix(text) {
            let theirs = theirs.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(ours, theirs, "{text}");
        }
        ours
    }
}

pub fn git(folder: &Path, date: &str, arguments: &[&str]) {
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

pub fn commit(folder: &Path, date: &str, message: &str) {
    git(folder, date, &["add", "."]);
    git(folder, date, &["commit", "-q", "-m", message]);
}

/// A tree's attributes, and its store path without the store's folder.
pub fn attributes_of(fetch: &str) -> String {
    format!("let x = ({fetch}); in removeAttrs x [ \"outPath\" ] // {{ out = baseNameOf x.outPath; }}")
}
