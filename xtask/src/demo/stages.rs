//! The demonstration's steps that run igloo itself, as a user would from a shell.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Places;
use super::packages::Packages;
use crate::serving::Serving;
use crate::{image, shell};

/// What of the expression is built: mawk is known at once, hello only when `about` was built and imported.
const GOALS: [&str; 2] = ["mawk", "hello"];

/// Store paths of what the expression starts from.
pub struct Sources {
    enter: String,
    toolchain: String,
    hello: String,
    mawk: String,
}

/// Compiles igloo, and the static helper that is the derivations' builder; where that is.
pub fn compile() -> Result<PathBuf> {
    shell::run(shell::cargo().args(["build", "--release", "--package", "igloo-cli"]))?;
    image::build_static("igloo-example-hello", "enter", image::native_target())
}

/// Shows what this machine can do.
pub fn doctor(places: &Places) -> Result<()> {
    let mut command = Igloo::whole(places).command();
    let _ = command
        .arg("doctor")
        .status()
        .context("cannot start igloo doctor")?; // findings are for the reader
    Ok(())
}

/// Adds the inputs that come from outside.
pub fn add_sources(igloo: &Igloo<'_>, enter: &Path, packages: &Packages) -> Result<Sources> {
    let [hello, mawk] = packages.tarballs.as_slice() else {
        bail!("expected two source archives")
    };
    let add = |path: &Path, name: &str| -> Result<String> {
        let printed = shell::output(igloo.command().args(["store", "add", "--name", name]).arg(path))?;
        println!("    {printed}");
        Ok(printed)
    };
    Ok(Sources {
        enter: add(enter, "enter")?,
        toolchain: add(&igloo.places.toolchain, "debian-toolchain")?,
        hello: add(hello, "hello.tar.gz")?,
        mawk: add(mawk, "mawk.tar.gz")?,
    })
}

/// Evaluates the example and builds its goals; the store path of hello.
pub fn build(igloo: &Igloo<'_>, sources: &Sources) -> Result<String> {
    let mut command = igloo.command();
    command.arg("build").arg(shell::root().join("examples/hello"));
    for goal in GOALS {
        command.args(["--attr", goal]);
    }
    for (name, path) in [
        ("enter", &sources.enter),
        ("toolchain", &sources.toolchain),
        ("helloArchive", &sources.hello),
        ("mawkArchive", &sources.mawk),
    ] {
        command.args(["--argstr", name, path]);
    }
    let printed = shell::output(command.arg("--no-link"))?;
    let hello = printed.lines().last().context("igloo build printed nothing")?;
    println!("    {hello}");
    Ok(hello.to_owned())
}

/// Mounts the store, runs `hello` from it, unmounts it.
pub fn run_from_mount(igloo: &Igloo<'_>, hello: &str) -> Result<()> {
    let places = igloo.places;
    fs::create_dir_all(&places.mount).context("cannot make the mount point")?;
    let name = Path::new(hello)
        .file_name()
        .with_context(|| format!("{hello} is no store path"))?;
    let mut mount = Serving::start("mount", igloo.command().arg("mount").arg(&places.mount))?;
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

/// The command, with a store and with what else its commands are to use.
pub struct Igloo<'a> {
    places: &'a Places,
    variables: Vec<(&'static str, String)>,
}

impl<'a> Igloo<'a> {
    /// All parts in one process, with an embedded store.
    pub fn whole(places: &'a Places) -> Self {
        let store = format!("rocksdb://{}", places.store.display());
        Self {
            places,
            variables: vec![("IGLOO_STORE", store)],
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.places.programs.join("igloo"));
        command.env("IGLOO_IMAGE", &self.places.image);
        command.env("XDG_STATE_HOME", &self.places.state);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Every part of igloo in a process of its own, on sockets.
pub struct Parts {
    /// Stopped in this order: those that ask before those that answer.
    running: Vec<Serving>,
    sockets: PathBuf,
}

impl Parts {
    /// Starts a store, a builder, an evaluator and a coordinator.
    pub fn start(places: &Places) -> Result<Self> {
        let sockets = places.sockets.clone();
        fs::create_dir_all(&sockets).context("cannot make the folder for sockets")?;
        let mut parts = Self {
            running: Vec::new(),
            sockets,
        };
        let store = format!("rocksdb://{}", places.store_apart.display());
        parts.serve(places, "store daemon", "store", &[("--store", store)])?;
        let store = ("--store", parts.url("store"));
        parts.serve(places, "builder", "builder", std::slice::from_ref(&store))?;
        parts.serve(places, "evaluator", "evaluator", std::slice::from_ref(&store))?;
        let others = [
            store,
            ("--builder", parts.url("builder")),
            ("--evaluator", parts.url("evaluator")),
        ];
        parts.serve(places, "coordinator", "coordinator", &others)?;
        Ok(parts)
    }

    /// A command line that only asks them.
    pub fn igloo<'a>(&self, places: &'a Places) -> Igloo<'a> {
        Igloo {
            places,
            variables: vec![
                ("IGLOO_STORE", self.url("store")),
                ("IGLOO_COORDINATOR", self.url("coordinator")),
            ],
        }
    }

    /// Ends them as a user would.
    pub fn stop(mut self) -> Result<()> {
        self.running.iter_mut().try_for_each(Serving::stop)
    }

    fn serve(
        &mut self,
        places: &Places,
        name: &'static str,
        socket: &str,
        options: &[(&str, String)],
    ) -> Result<()> {
        let mut command = Command::new(places.programs.join("igloo"));
        command.env("IGLOO_IMAGE", &places.image);
        command.env("XDG_STATE_HOME", &places.state);
        command.args(name.split(' '));
        command
            .arg("--listen")
            .arg(format!("unix:{}", self.socket(socket)));
        for (option, value) in options {
            command.args([option, value.as_str()]);
        }
        println!("    igloo {name} on {socket}.sock");
        self.running.insert(0, Serving::start(name, &mut command)?);
        Ok(())
    }

    fn socket(&self, name: &str) -> String {
        self.sockets
            .join(name)
            .with_extension("sock")
            .display()
            .to_string()
    }

    fn url(&self, name: &str) -> String {
        format!("grpc+unix://{}", self.socket(name))
    }
}
