//! `cargo xtask demo`: the main job on real input, from nothing.
//!
//! GNU hello is built from its source package with a C toolchain made of Debian packages, by the expression in
//! `examples/hello`: four derivations, one of them imported while the others build, each in a microVM of its own whose inputs
//! arrive by virtiofs. Then the store is mounted and `hello` is run from the mount. Then the same once more, with store,
//! builder, evaluator and coordinator in processes of their own.

mod packages;
mod stages;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use crate::{image, install, shell};

/// Where the demonstration keeps everything it makes.
pub struct Places {
    /// Downloaded packages and sources.
    pub downloads: PathBuf,
    /// The toolchain, as a tree of files.
    pub toolchain: PathBuf,
    /// igloo's store.
    pub store: PathBuf,
    /// The store of the second pass, served by a process of its own.
    pub store_apart: PathBuf,
    /// Journals and logs of coordinators.
    pub state: PathBuf,
    /// The sockets of that pass.
    pub sockets: PathBuf,
    /// Where the store is mounted.
    pub mount: PathBuf,
    /// The compiled programs.
    pub programs: PathBuf,
    /// Kernel and initramfs.
    pub image: PathBuf,
}

/// Runs the task; `--fresh` forgets the results of an earlier run first (not the downloads).
pub fn run(options: &[String]) -> Result<()> {
    let places = places();
    if options.iter().any(|option| option == "--fresh") {
        for place in [&places.store, &places.store_apart] {
            if place.exists() {
                std::fs::remove_dir_all(place)?;
            }
        }
    }
    install::ensure(&[install::COMPILE, install::MACHINES, install::UNPACK])?;
    let enter = stage(
        "compile igloo (RocksDB alone takes many minutes the first time)",
        stages::compile,
    )?;
    stage("make the guest image: kernel, initramfs, agent", || {
        image::run(&[])
    })?;
    stages::doctor(&places)?;
    let packages = stage("fetch a C toolchain and the sources as Debian packages", || {
        packages::fetch(&places)
    })?;
    stage("unpack the toolchain", || {
        packages::unpack_toolchain(&places, &packages)
    })?;
    let igloo = stages::Igloo::whole(&places);
    let sources = stage("add toolchain and sources to the store", || {
        stages::add_sources(&igloo, &enter, &packages)
    })?;
    println!("    without KVM each machine is emulated: the four builds take four to eight minutes");
    let hello = stage("evaluate examples/hello and build it: four microVMs", || {
        stages::build(&igloo, &sources)
    })?;
    stage("mount the store and run hello from it", || {
        stages::run_from_mount(&igloo, &hello)
    })?;
    let parts = stage("start every part in a process of its own", || {
        stages::Parts::start(&places)
    })?;
    let apart = parts.igloo(&places);
    stage("the same through them", || {
        let sources = stages::add_sources(&apart, &enter, &packages)?;
        let built = stages::build(&apart, &sources)?;
        anyhow::ensure!(built == hello, "the parts together built {hello}, apart {built}");
        parts.stop()
    })?;
    println!("\nThe store is {}; try:", places.store.display());
    println!(
        "    {} --store rocksdb://{} store list",
        shell::relative(&places.programs.join("igloo")).display(),
        places.store.display()
    );
    Ok(())
}

fn places() -> Places {
    let demo = shell::target().join("demo");
    Places {
        downloads: demo.join("downloads"),
        toolchain: demo.join("toolchain"),
        store: demo.join("store"),
        store_apart: demo.join("store-apart"),
        state: demo.join("state"),
        sockets: demo.join("sockets"),
        mount: demo.join("mount"),
        programs: shell::target().join("release"),
        image: image::directory(),
    }
}

/// Runs one stage between a title and the time it took.
fn stage<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {title}");
    let start = Instant::now();
    let result = work()?;
    println!("    {:.1} s", start.elapsed().as_secs_f64());
    Ok(result)
}
