//! How fast a path is added to an embedded store and read back: `add STORE-DIR PATH [ROUNDS]`.
//!
//! Question: what does an import cost in CPU, time and memory? Run it on one large file (bytes count) and on a tree of small
//! files (files count), with a store directory on the disk in question; the page cache should be warm. Floor on one core,
//! without compression: 1.0 GB/s (BLAKE3 twice, cut points, SHA-256), 50,000 small files a second (system calls).
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use igloo_castore::ingest::PathOptions;
use igloo_store::{Access, OpenOptions, StoreUrl, open};
use nix_compat::store_path::{StoreDir, StorePathName};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(dir), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: add STORE-DIR PATH [ROUNDS]".into());
    };
    let rounds: u32 = match arguments.next() {
        Some(rounds) => rounds.to_str().ok_or("ROUNDS is a number")?.parse()?,
        None => 1,
    };
    let options = OpenOptions {
        dir: StoreDir::default(),
        access: Access::Write,
        owner: "the example `add`".to_owned(),
    };
    let store = open(&StoreUrl::Rocksdb { dir: dir.into() }, &options)?;
    for _ in 0..rounds {
        let (start, cpu) = (Instant::now(), cpu_seconds()?);
        let info = store
            .add_path(
                &StorePathName::new("sample")?,
                Path::new(&path),
                &PathOptions::default(),
            )
            .await?;
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let mib = info.nar_size as f64 / f64::from(1 << 20);
        println!(
            "{}: {mib:.0} MiB in {wall:.2} s ({:.0} MiB/s), CPU {cpu:.2} s ({:.0} MiB/s); {}",
            info.path,
            mib / wall,
            mib / cpu,
            peak()?
        );
        let (start, cpu) = (Instant::now(), cpu_seconds()?);
        store.verify(&info).await?;
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        println!(
            "read back as a NAR and hashed: {wall:.2} s, CPU {cpu:.2} s; {}",
            peak()?
        );
    }
    Ok(())
}

/// User and system time of this process, seconds (proc_pid_stat(5), fields 14 and 15; a tick is 10 ms).
fn cpu_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(") ").ok_or("an odd stat file")?.1;
    let ticks: Vec<f64> = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

fn peak() -> std::io::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or_default();
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}
