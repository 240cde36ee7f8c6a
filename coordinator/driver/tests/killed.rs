//! The coordinator over the embedded store, killed as a process.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Drv, FakeBuilder, World, build};
use igloo_driver::LocalCoordinator;
use igloo_store::{Access, OpenOptions, Store, StoreUrl, open};
use igloo_testkit::Victim;
use nix_compat::derivation::DerivationOutput;
use nix_compat::store_path::StoreDir;

const VICTIM: Victim = Victim {
    variable: "IGLOO_DRIVER_CRASH_DIR",
};
/// Layers of derivations, and derivations in each.
const LAYERS: usize = 40;
const WIDTH: usize = 4;

fn open_store(dir: &Path) -> Store {
    let options = OpenOptions {
        dir: StoreDir::default(),
        access: Access::Write,
        owner: "a test".to_owned(),
    };
    open(
        &StoreUrl::Rocksdb {
            dir: dir.join("store"),
        },
        &options,
    )
    .unwrap()
}

/// Layers in which every derivation needs all of the layer before.
fn layers(world: &mut World) -> Vec<Drv> {
    let mut all: Vec<Drv> = Vec::new();
    for layer in 0..LAYERS {
        let before: Vec<Drv> = all[layer.saturating_sub(1) * WIDTH..].to_vec();
        let before: Vec<&Drv> = before.iter().take(if layer > 0 { WIDTH } else { 0 }).collect();
        for number in 0..WIDTH {
            let content = before.iter().map(|drv| drv.out.to_string());
            let content = format!("{layer} {number} {}", content.collect::<Vec<_>>().join(" "));
            let name = format!("d-{layer}-{number}");
            all.push(world.derive(&name, &content, &before, DerivationOutput::Deferred));
        }
    }
    all
}

async fn build_all(dir: &Path) -> (Vec<Drv>, World, LocalCoordinator) {
    let mut world = World::over(open_store(dir));
    let drvs = layers(&mut world);
    for drv in &drvs {
        if !world.is_valid(&drv.path).await {
            world.add(drv).await;
        }
    }
    let builder = FakeBuilder::new("local", 2);
    let mut config = world.config(&[&builder]);
    config.state_dir = dir.join("state");
    config.journal.resume = true;
    let coordinator = LocalCoordinator::open(config).await.unwrap();
    let goals: Vec<&Drv> = drvs[drvs.len() - WIDTH..].iter().collect();
    build(&coordinator, &goals).await;
    (drvs, world, coordinator)
}

/// The process that the next test kills.
#[tokio::test(flavor = "multi_thread")]
async fn crash_victim() {
    let Some(dir) = std::env::var_os(VICTIM.variable) else {
        return; // not a test of its own
    };
    build_all(Path::new(&dir)).await;
}

/// Killed again and again, the coordinator gets a little further each time, and in the end all is built, whole, and says
/// where it comes from.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_goes_on() {
    let tmp = tempfile::tempdir().unwrap();
    let mut known = 0;
    for round in 0..6 {
        VICTIM.die(tmp.path(), Duration::from_millis(150 + 61 * round));
        let mut world = World::over(open_store(tmp.path()));
        let mut valid = 0;
        for drv in layers(&mut world) {
            if let Some(info) = world.store.path_infos.get(&drv.out).await.unwrap() {
                world.store.verify(&info).await.unwrap();
                world.store.closure([drv.out]).await.unwrap();
                valid += 1;
            }
        }
        assert!(valid >= known, "what is registered stays registered");
        known = valid;
    }
    let (drvs, world, coordinator) = build_all(tmp.path()).await;
    for drv in &drvs {
        let info = world.store.path_infos.get(&drv.out).await.unwrap().unwrap();
        world.store.verify(&info).await.unwrap();
        let provenance = coordinator.provenance(&drv.out).await.unwrap().unwrap();
        assert_eq!(provenance.drv, drv.path);
    }
    coordinator.close().await;
}
