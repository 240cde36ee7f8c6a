//! What the tests against real Nix share: saying what was skipped, running Nix on a private store, comparing derivations.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix_compat::derivation::{DerivationKind, HashModuloMemo, derivation_name};
use nix_compat::{Derivation, StoreDir, StorePath};

/// Says loudly that a test did not run: on stderr, and in the file that `IGLOO_TEST_SKIPS` names.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED: {test}: {reason}");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("IGLOO_TEST_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.unwrap(), "{line}").unwrap();
    }
}

/// Nix on a store of its own, in a temporary directory, in one of two ways.
pub struct Nix {
    root: tempfile::TempDir,
    chroot: bool,
}

impl Nix {
    /// A store whose directory is `/nix/store` to Nix, kept elsewhere; `None`, after saying so, where there is no Nix.
    pub fn chroot(test: &str) -> Option<Self> {
        Self::new(test, true)
    }

    /// A store whose directory is a temporary one, and so part of every hash.
    pub fn other_dir(test: &str) -> Option<Self> {
        Self::new(test, false)
    }

    fn new(test: &str, chroot: bool) -> Option<Self> {
        let version = Command::new("nix-store")
            .arg("--version")
            .stderr(Stdio::null())
            .output();
        if !version.is_ok_and(|version| version.status.success()) {
            skip(test, "nix-store is not installed");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::create_dir(root.path().join("home")).unwrap();
        let conf = "experimental-features = nix-command ca-derivations impure-derivations\n\
                    build-users-group =\nsubstituters =\nfsync-metadata = false\n";
        std::fs::write(root.path().join("etc/nix.conf"), conf).unwrap();
        Some(Self { root, chroot })
    }

    /// A directory for the test's own files.
    pub fn work(&self) -> PathBuf {
        self.root.path().to_path_buf()
    }

    /// The store directory as Nix sees it.
    pub fn dir(&self) -> StoreDir {
        if self.chroot {
            StoreDir::default()
        } else {
            StoreDir::new(self.root.path().join("other/store").to_str().unwrap()).unwrap()
        }
    }

    /// Where that directory really is.
    pub fn physical(&self) -> PathBuf {
        let path = if self.chroot {
            "chroot/nix/store"
        } else {
            "other/store"
        };
        self.root.path().join(path)
    }

    /// Runs a program of Nix, which must succeed, and gives its output.
    pub fn run(&self, program: &str, args: &[&str]) -> Vec<u8> {
        let output = self.output(program, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {stderr}");
        output.stdout
    }

    /// Whether a program of Nix takes those arguments.
    pub fn succeeds(&self, program: &str, args: &[&str]) -> bool {
        self.output(program, args).status.success()
    }

    fn output(&self, program: &str, args: &[&str]) -> Output {
        let root = self.root.path();
        let mut command = Command::new(program);
        command
            .current_dir(root)
            .env("HOME", root.join("home"))
            .env("NIX_CONF_DIR", root.join("etc"));
        command
            .env_remove("NIX_REMOTE")
            .env_remove("NIX_PATH")
            .stdin(Stdio::null());
        if self.chroot {
            command.env("NIX_REMOTE", root.join("chroot"));
        } else {
            command.env("NIX_STORE_DIR", root.join("other/store"));
            command.env("NIX_STATE_DIR", root.join("other/state"));
            command.env("NIX_LOG_DIR", root.join("other/log"));
        }
        command.args(args).output().unwrap()
    }

    /// [`Nix::run`], its output as lines.
    pub fn lines(&self, program: &str, args: &[&str]) -> Vec<String> {
        let output = String::from_utf8(self.run(program, args)).unwrap();
        output.lines().map(str::to_owned).collect()
    }
}

/// How many derivations of which kind were compared.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared {
    pub derivations: usize,
    pub outputs: usize,
    pub kinds: BTreeMap<&'static str, usize>,
}

/// Holds every `.drv` file in a directory against what this crate makes of it: the text printed again, the file's own path,
/// the path of every output.
pub fn compare_derivations(dir: &StoreDir, physical: &Path) -> Compared {
    let read = |path: &StorePath| {
        let text = std::fs::read(physical.join(path.to_string())).unwrap();
        let name = derivation_name(path).unwrap();
        Derivation::parse(dir, &name, &text).map(|derivation| (derivation, text))
    };
    let mut memo = HashModuloMemo::new(dir.clone());
    let mut compared = Compared::default();
    for entry in std::fs::read_dir(physical).unwrap() {
        let file_name = entry.unwrap().file_name().into_string().unwrap();
        let Some(path) = StorePath::parse(&file_name).ok().filter(StorePath::is_derivation) else {
            continue;
        };
        let (derivation, text) = read(&path).unwrap();
        assert_eq!(derivation.to_aterm(dir).unwrap(), text, "{path}: text");
        assert_eq!(derivation.store_path(dir).unwrap(), path, "{path}: own path");
        memo.load([path.clone()], |path| {
            read(path).map(|(derivation, _)| derivation)
        })
        .unwrap();
        derivation
            .check_output_paths(&memo)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        check_filled(&derivation, &memo, &path);
        compared.derivations += 1;
        compared.outputs += derivation.outputs.len();
        *compared
            .kinds
            .entry(kind_name(derivation.kind().unwrap()))
            .or_default() += 1;
    }
    compared
}

/// Takes all paths away, as before an evaluator knows them, and fills them in again.
fn check_filled(derivation: &Derivation, memo: &HashModuloMemo, path: &StorePath) {
    let kind = derivation.kind().unwrap();
    if !matches!(kind, DerivationKind::InputAddressed | DerivationKind::CaFixed) {
        return;
    }
    let mut empty = derivation.clone();
    for (name, output) in &mut empty.outputs {
        if kind == DerivationKind::InputAddressed {
            *output = nix_compat::DerivationOutput::Deferred;
        }
        empty.env.insert(name.as_str().into(), Vec::new());
    }
    assert_ne!(&empty, derivation);
    empty.fill_output_paths(memo).unwrap();
    assert_eq!(&empty, derivation, "{path}: filled");
}

fn kind_name(kind: DerivationKind) -> &'static str {
    match kind {
        DerivationKind::InputAddressed => "input-addressed",
        DerivationKind::Deferred => "deferred",
        DerivationKind::CaFixed => "fixed",
        DerivationKind::CaFloating => "floating",
        DerivationKind::Impure => "impure",
    }
}
