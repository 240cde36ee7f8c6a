//! Derivations for tests, written as `.drv` files: each runs a shell script with busybox as the only tool.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nix_compat::content_address::{ContentAddress, ContentAddressMethod};
use nix_compat::derivation::{Derivation, DerivationOutput, HashModuloMemo, OutputName};
use nix_compat::hash::NixHash;
use nix_compat::store_path::{StoreDir, StorePath, StorePathName};

use crate::World;

/// Writes derivations into one folder.
#[derive(Debug)]
pub struct Recipes {
    folder: PathBuf,
    shell: StorePath,
    memo: HashModuloMemo,
}

/// A derivation on disk.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The `.drv` file.
    pub file: PathBuf,
    /// Its own store path.
    pub drv_path: StorePath,
    /// Where its output `out` will be.
    pub out: StorePath,
}

/// What a derivation is made of.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Run by `sh -ec` with busybox in PATH.
    pub script: String,
    /// More variables.
    pub env: BTreeMap<String, String>,
    /// Built inputs.
    pub built: Vec<Recipe>,
    /// Other inputs.
    pub sources: Vec<StorePath>,
    /// Outputs beside `out`.
    pub more_outputs: Vec<String>,
    /// Fixed flat SHA-256 of the output.
    pub fixed_sha256: Option<[u8; 32]>,
    /// Another builder than the shell.
    pub builder: Option<String>,
}

/// Whether there is a static busybox to build with; else the reason.
pub fn busybox() -> Result<PathBuf, String> {
    let path = PathBuf::from("/bin/busybox");
    if path.is_file() {
        Ok(path)
    } else {
        Err("there is no /bin/busybox (Debian's busybox-static)".into())
    }
}

impl Recipes {
    /// Adds the shell to the world's store; derivations go to `world/drvs`.
    pub fn new(world: &World, busybox: &Path) -> Self {
        let tree = world.path("busybox");
        let bin = tree.join("bin");
        std::fs::create_dir_all(&bin).expect("a folder for busybox");
        std::fs::copy(busybox, bin.join("busybox")).expect("a copy of busybox");
        for applet in [
            "sh",
            "cat",
            "ls",
            "mkdir",
            "mkfifo",
            "sleep",
            "chmod",
            "ln",
            "cp",
            "dd",
            "head",
            "yes",
            "id",
            "env",
            "kill",
            "stat",
            "find",
            "seq",
            "true",
            "wc",
            "sha256sum",
            "touch",
            "rm",
            "grep",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("a link to busybox");
        }
        let shell = world.answer(&["store", "add", tree.to_str().expect("a textual path")]);
        let folder = world.path("drvs");
        std::fs::create_dir_all(&folder).expect("a folder for derivations");
        let dir = StoreDir::default();
        Self {
            folder,
            shell: dir.parse(&shell).expect("a store path"),
            memo: HashModuloMemo::new(dir),
        }
    }

    /// A derivation that runs `script`.
    pub fn script(&mut self, name: &str, script: &str) -> Recipe {
        self.write(
            name,
            Parts {
                script: script.into(),
                ..Parts::default()
            },
        )
    }

    /// A derivation of these parts.
    pub fn write(&mut self, name: &str, parts: Parts) -> Recipe {
        let dir = StoreDir::default();
        let out: OutputName = "out".parse().expect("a name");
        let shell = dir.print(&self.shell);
        let mut env: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let text = |text: &str| text.as_bytes().to_vec();
        env.insert(text("PATH"), text(&format!("{shell}/bin")));
        env.extend(parts.env.iter().map(|(name, value)| (text(name), text(value))));
        let mut outputs = BTreeMap::new();
        for output in parts.more_outputs.iter().map(String::as_str).chain(["out"]) {
            env.insert(text(output), Vec::new());
            outputs.insert(
                output.parse().expect("an output name"),
                DerivationOutput::Deferred,
            );
        }
        if let Some(digest) = parts.fixed_sha256 {
            let address = ContentAddress::new(ContentAddressMethod::Flat, NixHash::Sha256(digest));
            outputs.insert(
                out.clone(),
                DerivationOutput::CaFixed {
                    address: address.expect("a content address"),
                },
            );
        }
        let input_drvs = parts
            .built
            .iter()
            .map(|input| (input.drv_path.clone(), BTreeSet::from([out.clone()])));
        let mut derivation = Derivation {
            name: StorePathName::new(name).expect("a name"),
            outputs,
            input_drvs: input_drvs.collect(),
            input_srcs: parts.sources.iter().chain([&self.shell]).cloned().collect(),
            platform: text("x86_64-linux"),
            builder: text(&parts.builder.unwrap_or_else(|| format!("{shell}/bin/sh"))),
            args: vec![text("-ec"), text(&parts.script)],
            env,
        };
        derivation.fill_output_paths(&self.memo).expect("output paths");
        let aterm = derivation.to_aterm(&dir).expect("a text");
        let drv_path = derivation.store_path_of_text(&dir, &aterm).expect("a path");
        let file = self.folder.join(drv_path.to_string());
        std::fs::write(&file, aterm).expect("a file");
        self.memo.add(drv_path.clone(), &derivation).expect("a hash");
        let out = derivation.outputs[&out]
            .path(&dir, &derivation.name, &out)
            .expect("a path")
            .expect("a known path");
        Recipe { file, drv_path, out }
    }
}

impl Recipe {
    /// The file as an argument.
    pub fn argument(&self) -> &str {
        self.file.to_str().expect("a textual path")
    }

    /// The output's path as igloo prints it.
    pub fn out_path(&self) -> String {
        StoreDir::default().print(&self.out)
    }
}
