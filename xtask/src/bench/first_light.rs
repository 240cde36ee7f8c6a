//! `cargo xtask bench first-light`: boot, trivial builds, adding, dumping, reading through the mount.
//!
//! Questions: what does a build cost beside the program it runs; what does adding a path cost beside Nix doing the same;
//! how far is the mount from the native file system. Inputs: one file of 1 GiB of random bytes, a tree of small files.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::measure::{Used, interleave, measure, median};
use crate::serving::Serving;
use crate::{image, install, shell};

const RUNS: usize = 3;
const BIG_SIZE: usize = 1 << 30;
const SMALL_FILES: usize = 20_000;
/// Reads a file, or every file of a tree in order. (tar reads nothing when its output is /dev/null.)
const READ_ALL: &str =
    "if [ -d \"$1\" ]; then tar -C \"$1\" -cf - . | wc -c; else dd if=\"$1\" bs=1M status=none | wc -c; fi";

/// Runs the benchmark and prints its figures.
pub fn run() -> Result<()> {
    install::ensure(&[install::COMPILE, install::MACHINES, install::ORACLES])?;
    shell::run(shell::cargo().args(["build", "--release", "--package", "igloo-cli"]))?;
    image::run(&[])?;
    let bench = Bench {
        dir: shell::target().join("bench"),
        igloo: shell::target().join("release/igloo"),
    };
    bench.prepare()?;
    println!(
        "machine: {} cores; every row interleaved, medians of {RUNS}",
        std::thread::available_parallelism()?
    );
    bench.adding(
        "adding a file of 1 GiB",
        &bench.dir.join("big"),
        bench.size("big")?,
    )?;
    bench.adding(
        &format!("adding {SMALL_FILES} small files"),
        &bench.dir.join("small"),
        bench.size("small")?,
    )?;
    bench.dumping()?;
    bench.mounted()?;
    bench.building()
}

struct Bench {
    dir: PathBuf,
    igloo: PathBuf,
}

impl Bench {
    fn prepare(&self) -> Result<()> {
        fs::create_dir_all(&self.dir).context("cannot make the benchmark's folder")?;
        let big = self.dir.join("big");
        if fs::metadata(&big).map_or(0, |metadata| metadata.len()) != BIG_SIZE as u64 {
            let mut file = fs::File::create(&big).context("cannot make the big file")?;
            let mut noise = Noise(1);
            for _ in 0..BIG_SIZE >> 20 {
                file.write_all(&noise.bytes(1 << 20))
                    .context("cannot fill the big file")?;
            }
        }
        let small = self.dir.join("small");
        if small.exists() {
            return Ok(());
        }
        let mut noise = Noise(2);
        for index in 0..SMALL_FILES {
            let folder = small.join(format!("folder-{:03}", index / 100));
            fs::create_dir_all(&folder).context("cannot make the small files")?;
            let size = 1024 + usize::try_from(noise.next() % 8192)?;
            fs::write(folder.join(format!("file-{index}")), noise.bytes(size))
                .context("cannot make the small files")?;
        }
        Ok(())
    }

    fn size(&self, name: &str) -> Result<u64> {
        let printed = shell::output(
            Command::new("du")
                .args(["-sb", "--apparent-size"])
                .arg(self.dir.join(name)),
        )?;
        Ok(printed
            .split_whitespace()
            .next()
            .context("du printed nothing")?
            .parse()?)
    }

    fn igloo(&self, store: &str) -> Command {
        let mut command = Command::new(&self.igloo);
        command.env(
            "IGLOO_STORE",
            format!("rocksdb://{}", self.dir.join(store).display()),
        );
        command
            .env("IGLOO_IMAGE", image::directory())
            .stderr(Stdio::null());
        command
    }

    /// Nix with a store of its own, not the machine's.
    fn nix_store(&self, store: &str) -> Command {
        let root = self.dir.join(store);
        let mut command = Command::new("nix-store");
        command
            .env("NIX_REMOTE", "")
            .env("NIX_STORE_DIR", root.join("store"))
            .env("NIX_STATE_DIR", root.join("var"));
        command
            .env("NIX_LOG_DIR", root.join("log"))
            .env("NIX_CONF_DIR", root.join("etc"));
        command
            .env("NIX_CONFIG", "build-users-group =\n")
            .stderr(Stdio::null());
        command
    }

    fn fresh(&self, store: &str) -> Result<()> {
        let dir = self.dir.join(store);
        if dir.exists() {
            // Nix makes what it stores read-only, folders too
            shell::run(Command::new("chmod").arg("-R").arg("u+w").arg(&dir))?;
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        Ok(())
    }

    fn adding(&self, title: &str, path: &Path, bytes: u64) -> Result<()> {
        let (ours, nix) = interleave(
            RUNS,
            || {
                self.fresh("store")?;
                measure(self.igloo("store").args(["store", "add"]).arg(path))
            },
            || {
                self.fresh("nix")?;
                measure(self.nix_store("nix").arg("--add").arg(path))
            },
        )?;
        report(title, "nix-store --add", bytes, &ours, &nix);
        Ok(())
    }

    fn dumping(&self) -> Result<()> {
        let big = self.dir.join("big");
        self.fresh("store")?;
        self.fresh("nix")?;
        let ours = shell::output(self.igloo("store").args(["store", "add"]).arg(&big))?;
        let nix = shell::output(self.nix_store("nix").arg("--add").arg(&big))?;
        let (ours, nix) = interleave(
            RUNS,
            || measure(self.igloo("store").args(["store", "dump", &ours])),
            || measure(self.nix_store("nix").args(["--dump", &nix])),
        )?;
        report(
            "dumping a file of 1 GiB",
            "nix-store --dump",
            self.size("big")?,
            &ours,
            &nix,
        );
        Ok(())
    }

    /// Reads the big file and walks the small ones through the mount and natively.
    fn mounted(&self) -> Result<()> {
        let big = shell::output(
            self.igloo("store")
                .args(["store", "add"])
                .arg(self.dir.join("big")),
        )?;
        let small = shell::output(
            self.igloo("store")
                .args(["store", "add"])
                .arg(self.dir.join("small")),
        )?;
        let mount = self.dir.join("mount");
        fs::create_dir_all(&mount).context("cannot make the mount point")?;
        for (title, path, native) in [
            ("reading 1 GiB", &big, "big"),
            ("tar of small files", &small, "small"),
        ] {
            let name = Path::new(path).file_name().context("no store path")?;
            let bytes = self.size(native)?;
            let read = |place: &Path| measure(Command::new("sh").args(["-c", READ_ALL, "sh"]).arg(place));
            let mut server = Serving::start("mount", self.igloo("store").arg("mount").arg(&mount))?;
            drop_caches();
            let cold = read(&mount.join(name));
            let warm = interleave(RUNS, || read(&mount.join(name)), || read(&self.dir.join(native)));
            server.stop()?;
            let cold = cold?;
            println!(
                "{title}, mount cold: {:.0} MB/s wall",
                rate(bytes, cold.wall.as_secs_f64())
            );
            let (ours, native) = warm?;
            report(
                &format!("{title}, mount warm"),
                "native file system",
                bytes,
                &ours,
                &native,
            );
        }
        Ok(())
    }

    /// A machine from order to hello, and a build beside its program.
    fn building(&self) -> Result<()> {
        let mut costs = shell::cargo();
        costs.args([
            "run",
            "--release",
            "--quiet",
            "--package",
            "igloo-vmm",
            "--example",
            "machine_costs",
            "--",
        ]);
        println!("machines:");
        shell::run(costs.arg(image::directory()))
    }
}

/// One row: rates by CPU and wall time, memory, and ratios to the yardstick.
fn report(title: &str, yardstick: &str, bytes: u64, ours: &[Used], theirs: &[Used]) {
    let cpu = |runs: &[Used]| median(runs, |used| used.cpu).as_secs_f64();
    let wall = |runs: &[Used]| median(runs, |used| used.wall).as_secs_f64();
    println!(
        "{title}: {:.0} MB per CPU second, {:.0} MB/s wall, {} MiB peak; {yardstick}: {:.0}, {:.0}, {} MiB; CPU {:.2}x, wall {:.2}x",
        rate(bytes, cpu(ours)),
        rate(bytes, wall(ours)),
        median(ours, |used| used.rss_kib) / 1024,
        rate(bytes, cpu(theirs)),
        rate(bytes, wall(theirs)),
        median(theirs, |used| used.rss_kib) / 1024,
        cpu(ours) / cpu(theirs),
        wall(ours) / wall(theirs),
    );
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / 1e6 / seconds.max(1e-6)
}

/// Empties the kernel's caches where we may; else cold figures are warm ones, which the row's name cannot hide.
fn drop_caches() {
    if fs::write("/proc/sys/vm/drop_caches", "3").is_err() {
        println!("(not root: the caches of the host stay warm)");
    }
}

/// Bytes that no compressor shrinks, the same in every run (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}
