//! Stock Nix with a store of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use igloo_testkit::skip;

pub struct Nix {
    dir: tempfile::TempDir,
}

impl Nix {
    pub fn new() -> Option<Self> {
        if Command::new("nix").arg("--version").output().is_err() {
            skip("there is no nix to compare with");
            return None;
        }
        let nix = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(nix.path("etc")).unwrap();
        std::fs::write(
            nix.path("etc/nix.conf"),
            "experimental-features = nix-command\nbuild-users-group =\nsubstituters =\n",
        )
        .unwrap();
        Some(nix)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> String {
        format!("local?root={}", self.path("root").display())
    }

    /// Runs a program of Nix; its output, or what it says of its failure.
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(program)
            .args(arguments)
            .env("HOME", self.dir.path())
            .env("NIX_CONF_DIR", self.path("etc"))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap().trim_end().to_owned();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let answer = self.try_run(program, arguments);
        answer.unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"))
    }

    /// Copies from a cache into its own store; says why not.
    pub fn copy_from(&self, cache: &str, key: &str, path: &str) -> Result<String, String> {
        let store = self.store();
        let keys = ["--option", "trusted-public-keys", key];
        let arguments = [&["copy", "--from", cache, "--to", &store, path][..], &keys].concat();
        self.try_run("nix", &arguments)
    }

    /// Writes a cache from its own store, signed with the key.
    pub fn copy_to(&self, cache: &Path, compression: &str, secret_key: &str, path: &str) {
        let key = self.path("secret");
        std::fs::write(&key, secret_key).unwrap();
        let to = format!(
            "file://{}?compression={compression}&secret-key={}",
            cache.display(),
            key.display()
        );
        let store = self.store();
        let mut arguments = vec!["copy", "--from", &store, "--to", &to, path];
        if path.ends_with(".drv") {
            arguments.push("--derivation"); // itself, not what it builds
        }
        self.run("nix", &arguments);
    }
}
