//! The demonstration's steps that run igloo itself, as a user would from a shell.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Places;
use super::packages::Packages;
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
    let mut mount = Mounted::start(places)?;
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

/// A running `igloo mount`; it is stopped, and so unmounted, in any case.
struct Mounted {
    child: Child,
}

impl Mounted {
    fn start(places: &Places) -> Result<Self> {
        let mut command = igloo(places);
        command.arg("mount").arg(&places.mount).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start igloo mount")?;
        let stdout = child.stdout.take().context("igloo mount has no output")?;
        let mounted = Self { child };
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("cannot read from igloo mount")?;
        if line.is_empty() {
            bail!("igloo mount did not start");
        }
        Ok(mounted)
    }

    fn stop(&mut self) -> Result<()> {
        shell::run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let status = self.child.wait().context("cannot wait for igloo mount")?;
        if !status.success() {
            bail!("igloo mount ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ended already in the good case
        let _ = self.child.wait();
    }
}

fn igloo(places: &Places) -> Command {
    let mut command = Command::new(places.programs.join("igloo"));
    command.env("IGLOO_STORE", format!("rocksdb://{}", places.store.display()));
    command.env("IGLOO_IMAGE", &places.image);
    command
}
