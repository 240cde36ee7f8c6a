//! What substitution costs: look-ups with latency on the way, and fetching archives.
//!
//! `substitute look-ups [PATHS] [LATENCY_MS] [IN_FLIGHT]` asks a server on loopback, which answers after the latency, for
//! that many paths, all there. `substitute fetch [MIB]` fetches one path of that size, half of it compressible, in every
//! compression that can be written, and one written by others where their directory is given:
//! `substitute from DIRECTORY PATH KEY`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program to measure with"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::server::Server;
use common::{add, bytes, open_with, path, write};
use igloo_binary_cache::compression::Compression;
use igloo_binary_cache::{
    CacheOptions, HttpBinaryCache, SubstituteOptions, Substituter, Substituters, Trust,
};
use igloo_store::Store;
use nix_compat::store_path::{StoreDir, StorePath};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, default: usize| arguments.get(index).map_or(default, |text| text.parse().unwrap());
    match arguments.first().map(String::as_str) {
        Some("look-ups") => look_ups(number(1, 800), number(2, 20), number(3, 64)).await,
        Some("fetch") => fetch(number(1, 64)).await,
        Some("from") => from(&arguments[1], &arguments[2], &arguments[3]).await,
        _ => println!(
            "substitute look-ups [PATHS] [LATENCY_MS] [IN_FLIGHT] | fetch [MIB] | from DIRECTORY PATH KEY"
        ),
    }
}

async fn look_ups(count: usize, latency: usize, in_flight: usize) {
    let store = Store::memory(StoreDir::default());
    let names: Vec<String> = (0..count).map(|number| format!("p{number}")).collect();
    for name in &names {
        add(&store, name, name.clone().into_bytes(), &[]).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let roots: Vec<&str> = names.iter().map(String::as_str).collect();
    write(&store, dir.path(), Compression::None, &roots).await;
    // the server has a thread of its own: its work is not that of the look-ups
    let latency = Duration::from_millis(latency as u64);
    let (sender, receiver) = std::sync::mpsc::channel();
    let dir_path = dir.path().to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let server = Server::start_with(dir_path, latency, false).await;
            sender.send((server.url.clone(), server.state.clone())).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let (url, _state) = receiver.recv().unwrap();
    for round in 0..3 {
        let mut options = CacheOptions::default();
        options.http.requests_max = in_flight;
        let source: Arc<dyn Substituter> = open_with(&url, options);
        let store = Store::memory(StoreDir::default());
        let all = Substituters::new(vec![source], store, SubstituteOptions::default());
        let wanted: Vec<StorePath> = names.iter().map(|name| path(name)).collect();
        let start = Instant::now();
        let cpu = cpu_seconds();
        let answers = all.query(&wanted).await;
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Some(_)))));
        println!(
            "round {round}: {count} look-ups, {latency:?} latency, {in_flight} in flight: {:?}, {:.2} s of CPU with the server's",
            start.elapsed(),
            cpu_seconds() - cpu
        );
    }
}

async fn fetch(mib: usize) {
    for compression in [Compression::None, Compression::Zstd, Compression::Xz] {
        let store = Store::memory(StoreDir::default());
        let info = add(&store, "app", bytes(mib << 20, 1), &[]).await;
        let dir = tempfile::tempdir().unwrap();
        write(&store, dir.path(), compression, &["app"]).await;
        let url = format!("file://{}", dir.path().display());
        measure(&url, &info.path, &common::trust(), compression.name()).await;
    }
}

async fn from(directory: &str, path: &str, key: &str) {
    let path = StoreDir::default().parse(path).unwrap();
    let trust = Trust::Keys(vec![key.parse().unwrap()]);
    measure(&format!("file://{directory}"), &path, &trust, directory).await;
}

/// From a directory, so that no server's work is measured.
async fn measure(url: &str, path: &StorePath, trust: &Trust, what: &str) {
    let cache = HttpBinaryCache::new(
        url.parse().unwrap(),
        StoreDir::default(),
        trust,
        CacheOptions::default(),
    );
    let source: Arc<dyn Substituter> = Arc::new(cache.unwrap());
    let store = Store::memory(StoreDir::default());
    let all = Substituters::new(vec![source], store, SubstituteOptions::default());
    let plan = all.plan(std::slice::from_ref(path)).await.unwrap();
    let (download, nar) = (plan.download_size(), plan.nar_size());
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let answer = all.execute(plan, &()).await;
    assert!(answer.failed.is_empty(), "{:?}", answer.failed);
    let (took, cpu) = (start.elapsed(), cpu_seconds() - cpu);
    let mb = nar as f64 / 1e6;
    println!(
        "{what}: {:.1} MB as {:.1} MB: {took:?}, {cpu:.2} s of CPU, {:.0} MB of NAR per CPU second",
        mb,
        download as f64 / 1e6,
        mb / cpu
    );
}

/// CPU time of this process, user and system.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
