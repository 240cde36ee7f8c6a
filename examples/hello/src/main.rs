//! `hello-drvs FOLDER ENTER TOOLCHAIN HELLO MAWK`: writes the derivations of GNU hello and prints the last one's path.
//!
//! The four are store paths: the helper of `src/bin/enter.rs`, a tree of Debian packages, and two source archives. Three
//! derivations come out: the unpacked source of hello, mawk built from source, and hello built with that mawk.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix_compat::derivation::{Derivation, DerivationOutput, HashModuloMemo, OutputName};
use nix_compat::store_path::{StoreDir, StorePath, StorePathName};

const UNPACK: &str = "
mkdir unpacked
tar -xf $archive -C unpacked
cp -r unpacked/* $out
";

const MAWK: &str = "
tar -xf $archive
cd mawk-*
./configure --prefix=$out CFLAGS=-O1 LDFLAGS=-static
make -j2
make install
ln -s mawk $out/bin/awk
";

// timestamps are kept: all are the same in the store, and make must not find a generated file out of date
const HELLO: &str = "
export PATH=$mawk/bin:$PATH
test \"$(command -v awk)\" = $mawk/bin/awk
cp -r --preserve=timestamps $source hello
chmod -R u+w hello
cd hello
./configure --prefix=$out --disable-nls --disable-dependency-tracking CFLAGS=-O1 LDFLAGS=-static
make -j2
make install
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(path) => {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("hello-drvs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<PathBuf> {
    let [folder, enter, toolchain, hello, mawk] = arguments else {
        bail!("usage: hello-drvs FOLDER ENTER TOOLCHAIN HELLO MAWK");
    };
    let dir = StoreDir::default();
    let source = |path: &str| {
        dir.parse(path)
            .with_context(|| format!("{path} is no store path"))
    };
    let (hello, mawk) = (source(hello)?, source(mawk)?);
    let mut writer = Writer {
        memo: HashModuloMemo::new(dir.clone()),
        folder: PathBuf::from(folder),
        enter: source(enter)?,
        toolchain: source(toolchain)?,
        dir: dir.clone(),
    };
    let source = writer.write("hello-source", UNPACK, &[("archive", &hello)], &[])?;
    let mawk = writer.write("mawk", MAWK, &[("archive", &mawk)], &[])?;
    let hello = writer.write("hello", HELLO, &[], &[("source", &source), ("mawk", &mawk)])?;
    Ok(hello.file)
}

/// A derivation that has been written.
struct Written {
    drv_path: StorePath,
    out: StorePath,
    file: PathBuf,
}

struct Writer {
    memo: HashModuloMemo,
    folder: PathBuf,
    enter: StorePath,
    toolchain: StorePath,
    dir: StoreDir,
}

impl Writer {
    /// Writes a derivation that runs `script` in the toolchain; sources and built inputs are variables of those names.
    fn write(
        &mut self,
        name: &str,
        script: &str,
        sources: &[(&str, &StorePath)],
        built: &[(&str, &Written)],
    ) -> Result<Written> {
        let out: OutputName = "out".parse()?;
        let print = |path: &StorePath| self.dir.print(path).into_bytes();
        let mut env = BTreeMap::from([
            (b"PATH".to_vec(), b"/usr/bin".to_vec()),
            (b"name".to_vec(), name.as_bytes().to_vec()),
            (b"system".to_vec(), b"x86_64-linux".to_vec()),
            (b"out".to_vec(), Vec::new()),
        ]);
        env.extend(
            sources
                .iter()
                .map(|(variable, path)| (variable.as_bytes().to_vec(), print(path))),
        );
        env.extend(
            built
                .iter()
                .map(|(variable, input)| (variable.as_bytes().to_vec(), print(&input.out))),
        );
        let shell = ["/bin/sh", "-ec", script].map(|argument| argument.as_bytes().to_vec());
        let input_drvs = built
            .iter()
            .map(|(_, input)| (input.drv_path.clone(), BTreeSet::from([out.clone()])));
        let mut derivation = Derivation {
            name: StorePathName::new(name)?,
            outputs: BTreeMap::from([(out.clone(), DerivationOutput::Deferred)]),
            input_drvs: input_drvs.collect(),
            input_srcs: [&self.enter, &self.toolchain]
                .into_iter()
                .chain(sources.iter().map(|(_, path)| *path))
                .cloned()
                .collect(),
            platform: b"x86_64-linux".to_vec(),
            builder: print(&self.enter),
            args: std::iter::once(print(&self.toolchain)).chain(shell).collect(),
            env,
        };
        derivation.fill_output_paths(&self.memo)?;
        self.finish(&derivation, &out)
    }

    fn finish(&mut self, derivation: &Derivation, out: &OutputName) -> Result<Written> {
        let text = derivation.to_aterm(&self.dir)?;
        let drv_path = derivation.store_path_of_text(&self.dir, &text)?;
        let file = file_of(&self.folder, &drv_path);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        self.memo.add(drv_path.clone(), derivation)?;
        let output = derivation
            .outputs
            .get(out)
            .context("the derivation has lost its output")?;
        let out = output
            .path(&self.dir, &derivation.name, out)?
            .context("the output has no path")?;
        Ok(Written { drv_path, out, file })
    }
}

/// Derivations lie beside each other under their store paths' base names, so that one finds the others.
fn file_of(folder: &Path, drv_path: &StorePath) -> PathBuf {
    folder.join(drv_path.to_string())
}
