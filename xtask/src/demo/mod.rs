//! `cargo xtask demo`: the main job on real input, from nothing.
//!
//! GNU hello is built from its source package with a C toolchain made of Debian packages, in three derivations, each in a
//! microVM of its own whose inputs arrive by virtiofs. Then the store is mounted and `hello` is run from the mount.

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
    /// The derivations.
    pub derivations: PathBuf,
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
        for place in [&places.store, &places.derivations] {
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
    let sources = stage("add toolchain and sources to the store", || {
        stages::add_sources(&places, &enter, &packages)
    })?;
    let derivation = stages::write_derivations(&places, &sources)?;
    println!("    without KVM each machine is emulated: the three builds take five to ten minutes");
    let hello = stage("build GNU hello: three derivations, three microVMs", || {
        stages::build(&places, &derivation)
    })?;
    stage("mount the store and run hello from it", || {
        stages::run_from_mount(&places, &hello)
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
        derivations: demo.join("derivations"),
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
