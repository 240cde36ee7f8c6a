//! How fast is the mounted file system, against the same tree on the disk's own file system?
//!
//! Question: what does a build pay for reading its inputs through FUSE, the first time and again?
//! Input: 5,000 files of 2 to 2.5 KB in 50 directories, and one file of 128 MiB; incompressible; the store in memory, so
//! that only the way from the store to the reader is measured. `native` is the tree written to the directory given (or the
//! system's temporary one), its pages dropped for a cold run. Run it on a quiet machine:
//!
//! ```sh
//! cargo run --release -p igloo-mount --example mount_bench -- [--json] [--runs N] [DIR]
//! ```
//!
//! Sketch: one core copies at 19 GB/s; a FUSE request costs 10 to 20 µs. 128 MiB in requests of 1 MiB with two copies:
//! 20 ms. 5,000 small files: one READ each, 0.1 s; again, from the page cache: as native.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program: its answer goes to stdout"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first thing that is wrong"
)]

use std::error::Error;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use igloo_castore::{BlobDigest, Castore, Directory, DirectoryDigest, Node, NodeName, memory};
use igloo_mount::{CastoreFs, Counts, Mount, MountOptions, SingleRoot, Tree};

const DIRECTORIES: usize = 50;
const FILES: usize = 100;
const BIG_SIZE: usize = 128 << 20;
const RANDOM_READS: usize = 2000;

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> Fallible<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut json, mut runs, mut dir) = (false, 5, std::env::temp_dir());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--runs" => runs = arguments.next().ok_or("--runs takes a number")?.parse()?,
            path => dir = PathBuf::from(path),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let castore = memory::castore("bench");
    let native = tempfile::tempdir_in(&dir)?;
    let digest = runtime.block_on(make_tree(&castore, native.path()))?;
    let mut results = Vec::new();
    for _ in 0..runs {
        results.extend(measure("native", native.path(), || drop_pages(native.path()))?);
        let tree = Tree::new(castore.clone(), 64 << 20);
        let roots = Arc::new(SingleRoot::new(digest, castore.directories.clone()));
        let fs = CastoreFs::new(
            roots,
            tree,
            runtime.handle().clone(),
            igloo_mount::FsLimits::default(),
        );
        let place = tempfile::tempdir_in(&dir)?;
        let mount = Mount::new(place.path(), Arc::new(fs), &MountOptions::default())?;
        // a new mount is cold
        results.extend(measure("fuse", place.path(), || Ok(()))?);
        let counts = mount.fs().counters().snapshot();
        if results.len() < 100 {
            eprintln!("requests in one run: {counts}");
        }
        report_opens(&counts)?;
    }
    report(&results, json);
    Ok(())
}

/// One measurement: what, on which file system, how long, over how many bytes or files.
struct Sample {
    what: &'static str,
    on: &'static str,
    took: Duration,
    bytes: usize,
    items: usize,
}

fn measure(on: &'static str, dir: &Path, make_cold: impl Fn() -> Fallible<()>) -> Fallible<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut sample = |what, work: &dyn Fn() -> Fallible<(usize, usize)>| -> Fallible<()> {
        let start = Instant::now();
        let (bytes, items) = work()?;
        samples.push(Sample {
            what,
            on,
            took: start.elapsed(),
            bytes,
            items,
        });
        Ok(())
    };
    make_cold()?;
    sample("walk, cold", &|| walk(dir))?;
    sample("walk, warm", &|| walk(dir))?;
    sample("small files, cold", &|| read_small(dir))?;
    sample("small files, warm", &|| read_small(dir))?;
    sample("128 MiB in order, cold", &|| read_big(dir))?;
    sample("128 MiB in order, warm", &|| read_big(dir))?;
    sample("4 KiB at random, warm", &|| read_random(dir))?;
    Ok(samples)
}

fn walk(dir: &Path) -> Fallible<(usize, usize)> {
    let mut open = vec![dir.to_owned()];
    let mut items = 0;
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            items += 1;
            if entry.metadata()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok((0, items))
}

fn small_files(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let dir = dir.to_owned();
    (0..DIRECTORIES * FILES).map(move |index| dir.join(format!("d{}/f{}", index / FILES, index % FILES)))
}

fn read_small(dir: &Path) -> Fallible<(usize, usize)> {
    let mut bytes = 0;
    for path in small_files(dir) {
        bytes += fs::read(path)?.len();
    }
    Ok((bytes, DIRECTORIES * FILES))
}

fn read_big(dir: &Path) -> Fallible<(usize, usize)> {
    let file = fs::File::open(dir.join("big"))?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let got = file.read_at(&mut buffer, at)?;
        if got == 0 {
            return Ok((BIG_SIZE, 1));
        }
        at += got as u64;
    }
}

fn read_random(dir: &Path) -> Fallible<(usize, usize)> {
    let file = fs::File::open(dir.join("big"))?;
    let mut buffer = [0; 4096];
    let mut state = 1u64;
    for _ in 0..RANDOM_READS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let block = (state >> 33) % (BIG_SIZE as u64 / 4096);
        file.read_exact_at(&mut buffer, block * 4096)?;
    }
    Ok((RANDOM_READS * 4096, RANDOM_READS))
}

/// Drops the pages of the native tree; its names and inodes stay cached, which favours it.
fn drop_pages(dir: &Path) -> Fallible<()> {
    for path in small_files(dir).chain([dir.join("big")]) {
        let file = fs::File::open(path)?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

async fn make_tree(castore: &Castore, native: &Path) -> Fallible<DirectoryDigest> {
    let mut top = Vec::new();
    for d in 0..DIRECTORIES {
        fs::create_dir(native.join(format!("d{d}")))?;
        let mut entries = Vec::new();
        for f in 0..FILES {
            let content = noise((d * FILES + f) as u64, 2000 + (f * 5) % 500);
            fs::write(native.join(format!("d{d}/f{f}")), &content)?;
            entries.push((
                NodeName::try_from(format!("f{f}").as_str())?,
                put(castore, content).await?,
            ));
        }
        let directory = Directory::from_entries(entries)?;
        top.push((NodeName::try_from(format!("d{d}").as_str())?, directory.node()));
        castore.directories.put(vec![directory]).await?;
    }
    let big = noise(u64::MAX, BIG_SIZE);
    fs::write(native.join("big"), &big)?;
    rustix::fs::sync();
    top.push((NodeName::try_from("big")?, put(castore, big).await?));
    let top = Directory::from_entries(top)?;
    let digest = top.digest();
    castore.directories.put(vec![top]).await?;
    Ok(digest)
}

async fn put(castore: &Castore, content: Vec<u8>) -> Fallible<Node> {
    let content = Bytes::from(content);
    let (digest, size): (BlobDigest, u64) = {
        let mut writer = castore.blobs.writer().await?;
        let mut rest = content;
        while !rest.is_empty() {
            writer.write(rest.split_to(rest.len().min(1 << 20))).await?;
        }
        writer.finish().await?
    };
    Ok(Node::File {
        digest,
        size,
        executable: false,
    })
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// The promise behind the figures: opening files costs no requests.
fn report_opens(counts: &Counts) -> Fallible<()> {
    let opens = counts.requests("open") + counts.requests("opendir");
    if opens > 2 {
        return Err(format!(
            "this kernel opens files by request ({opens} of them): the figures mean something else"
        )
        .into());
    }
    Ok(())
}

fn report(samples: &[Sample], json: bool) {
    let mut names: Vec<_> = samples.iter().map(|sample| sample.what).collect();
    names.sort_unstable();
    names.dedup();
    for what in names {
        for on in ["native", "fuse"] {
            let of_kind = samples
                .iter()
                .filter(|sample| sample.what == what && sample.on == on);
            let mut times: Vec<_> = of_kind.clone().map(|sample| sample.took).collect();
            times.sort_unstable();
            let (Some(first), Some(best), Some(worst)) =
                (of_kind.clone().next(), times.first(), times.last())
            else {
                continue;
            };
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            let (ms, seconds) = (median.as_secs_f64() * 1000.0, median.as_secs_f64());
            let (mb, each) = (
                first.bytes as f64 / 1e6 / seconds,
                seconds * 1e6 / first.items as f64,
            );
            if json {
                println!(
                    r#"{{"bench":"mount","what":"{what}","on":"{on}","runs":{},"median_ms":{ms:.3},"mb_per_s":{mb:.1},"us_each":{each:.2}}}"#,
                    times.len()
                );
            } else {
                println!(
                    "{what:24} {on:7} median {ms:8.2} ms ({:.2} to {:.2})  {mb:8.0} MB/s  {each:8.2} us each",
                    best.as_secs_f64() * 1000.0,
                    worst.as_secs_f64() * 1000.0
                );
            }
        }
    }
}
