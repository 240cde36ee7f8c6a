//! What the coordinator itself costs: trivial derivations on a builder that does nothing but write their output.
//!
//! `overhead [COUNT] [chain|wide] [DIR]` builds COUNT derivations (1000), each needing the one before, or all at once, in a
//! store in memory, or in the embedded store in DIR, and prints time and CPU for each.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program to measure with"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::time::Instant;

use common::{Drv, FakeBuilder, World, build};
use igloo_driver::LocalCoordinator;
use igloo_driver::local::config::JournalSync;
use igloo_store::{Access, OpenOptions, Store, StoreUrl, open};
use nix_compat::derivation::DerivationOutput;
use nix_compat::store_path::StoreDir;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count: usize = arguments.first().map_or(1000, |text| text.parse().unwrap());
    let is_chain = arguments.get(1).is_none_or(|shape| shape == "chain");
    for sync in [JournalSync::Group, JournalSync::Written] {
        let mut world = World::over(open_store(arguments.get(2)));
        let goals = derive(&mut world, count, is_chain, sync).await;
        let builder = FakeBuilder::new("local", 16);
        let mut config = world.config(&[&builder]);
        config.journal.sync = sync;
        let coordinator = LocalCoordinator::open(config).await.unwrap();
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let goals: Vec<&Drv> = goals.iter().collect();
        let report = build(&coordinator, &goals).await;
        let (took, cpu) = (start.elapsed(), cpu_seconds() - cpu);
        assert_eq!(report.built.len(), count);
        let each = |seconds: f64| seconds * 1000.0 / count as f64;
        println!(
            "{count} derivations, {}, journal {sync:?}: {:.2} ms and {:.3} ms of CPU each",
            if is_chain { "chain" } else { "wide" },
            each(took.as_secs_f64()),
            each(cpu)
        );
    }
}

async fn derive(world: &mut World, count: usize, is_chain: bool, sync: JournalSync) -> Vec<Drv> {
    let mut drvs: Vec<Drv> = Vec::new();
    for number in 0..count {
        let before: Vec<&Drv> = drvs.last().filter(|_| is_chain).into_iter().collect();
        let content = before
            .first()
            .map_or_else(|| "x".to_owned(), |drv| drv.out.to_string());
        // other names for the second round: the embedded store keeps the first
        let name = format!("{sync:?}-{number}");
        let drv = world.derive(&name, &content, &before, DerivationOutput::Deferred);
        world.add(&drv).await;
        drvs.push(drv);
    }
    if is_chain { drvs.split_off(count - 1) } else { drvs }
}

fn open_store(dir: Option<&String>) -> Store {
    let url = match dir {
        Some(dir) => StoreUrl::Rocksdb {
            dir: Path::new(dir).to_owned(),
        },
        None => StoreUrl::Memory,
    };
    let options = OpenOptions {
        dir: StoreDir::default(),
        access: Access::Write,
        owner: "overhead".to_owned(),
    };
    open(&url, &options).unwrap()
}

/// CPU time of this process, user and system, seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
