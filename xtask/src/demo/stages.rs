//! The demonstration's steps that run igloo itself, as a user would from a shell.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Places;
use super::packages::Packages;
use crate::mounted::Mounted;
use crate::{image, shell};

/// Store paths of what the derivations start from.
pub struct Sources {
    enter: String,
    toolchain: String,
    hello: String,
    mawk: String,
}

/// Compiles igloo, the example, and the static helper that is the derivations' builder; where that is.
pub fn compile() -> Result<PathBuf> {
    shell::run(shell::cargo().args([
        "build",
        "--release",
        "--package",
        "igloo-cli",
        "--package",
        "igloo-example-hello",
    ]))?;
    image::build_static("igloo-example-hello", "enter", image::native_target())
}

/// Shows what this machine can do.
pub fn doctor(places: &Places) -> Result<()> {
    let mut command = igloo(places);
    let _ = command
        .arg("doctor")
        .status()
        .context("cannot start igloo doctor")?; // findings are for the reader
    Ok(())
}

/// Adds the inputs that come from outside.
pub fn add_sources(places: &Places, enter: &Path, packages: &Packages) -> Result<Sources> {
    let [hello, mawk] = packages.tarballs.as_slice() else {
        bail!("expected two source archives")
    };
    let add = |path: &Path, name: &str| -> Result<String> {
        let printed = shell::output(igloo(places).args(["store", "add", "--name", name]).arg(path))?;
        println!("    {printed}");
        Ok(printed)
    };
    Ok(Sources {
        enter: add(enter, "enter")?,
        toolchain: add(&places.toolchain, "debian-toolchain")?,
        hello: add(hello, "hello.tar.gz")?,
        mawk: add(mawk, "mawk.tar.gz")?,
    })
}

/// Writes the derivations; the path of the last one.
pub fn write_derivations(places: &Places, sources: &Sources) -> Result<PathBuf> {
    fs::create_dir_all(&places.derivations).context("cannot make the folder for derivations")?;
    let mut command = Command::new(places.programs.join("hello-drvs"));
    command.arg(&places.derivations).args([
        &sources.enter,
        &sources.toolchain,
        &sources.hello,
        &sources.mawk,
    ]);
    Ok(PathBuf::from(shell::output(&mut command)?))
}

/// Builds; the output's store path.
pub fn build(places: &Places, derivation: &Path) -> Result<String> {
    shell::output(igloo(places).arg("build").arg(derivation))
}

/// Mounts the store, runs `hello` from it, unmounts it.
pub fn run_from_mount(places: &Places, hello: &str) -> Result<()> {
    fs::create_dir_all(&places.mount).context("cannot make the mount point")?;
    let name = Path::new(hello)
        .file_name()
        .with_context(|| format!("{hello} is no store path"))?;
    let mut mount = Mounted::start(igloo(places).arg("mount").arg(&places.mount))?;
    let program = places.mount.join(name).join("bin/hello");
    println!("    $ {}", shell::relative(&program).display());
    let said = shell::output(&mut Command::new(&program));
    mount.stop()?;
    let said = said?;
    println!("    {said}");
    if said != "Hello, world!" {
        bail!("hello said `{said}`");
    }
    Ok(())
}

fn igloo(places: &Places) -> Command {
    let mut command = Command::new(places.programs.join("igloo"));
    command.env("IGLOO_STORE", format!("rocksdb://{}", places.store.display()));
    command.env("IGLOO_IMAGE", &places.image);
    command
}
