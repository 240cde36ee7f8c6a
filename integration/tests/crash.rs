//! A store that is killed: whatever the moment, it opens, what it registered is whole, and nothing is left behind.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use igloo_integration::derivations::{Recipes, busybox};
use igloo_integration::processes::{mentions, none_mentions};
use igloo_integration::{World, kill_group, start};
use igloo_testkit::skip;
use igloo_testkit::tree::noise;

const ADDS: u64 = 80;
const BUILDS: u64 = 20;

/// Every path listed is whole and stays listed.
fn check_store(world: &World, known: &mut BTreeSet<String>) {
    let verified = world.run(&["store", "verify"]);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    let listed: BTreeSet<String> = world
        .answer(&["store", "list"])
        .lines()
        .map(String::from)
        .collect();
    assert!(
        known.is_subset(&listed),
        "registered paths have gone: {:?}",
        known.difference(&listed)
    );
    *known = listed;
}

/// Moments spread over what an undisturbed run takes, the same in every run of the test.
fn moment(round: u64, longest_ms: u64) -> Duration {
    let mixed = (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    Duration::from_millis(mixed % longest_ms)
}

/// Promise: "After `kill -9` at any moment the store opens and every registered path dumps to its NAR hash".
#[test]
fn killed_while_adding() {
    let world = World::new();
    let mut known = BTreeSet::new();
    let mut killed = 0;
    for round in 0..ADDS {
        let tree = world.path(&format!("tree-{round}"));
        write_tree(&tree, round);
        let mut command = world.igloo();
        command
            .args(["store", "add"])
            .arg(&tree)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = start(&mut command);
        std::thread::sleep(moment(round, 250));
        kill_group(child.id());
        killed += u64::from(!child.wait().unwrap().success());
        check_store(&world, &mut known);
        std::fs::remove_dir_all(&tree).unwrap();
    }
    assert!(
        killed > ADDS / 10,
        "only {killed} of {ADDS} runs were killed before they ended"
    );
    assert_no_leftovers(&world.store_dir());
}

/// A few big files, many small ones.
fn write_tree(path: &Path, round: u64) {
    for folder in 0..4 {
        let folder_path = path.join(folder.to_string());
        std::fs::create_dir_all(&folder_path).unwrap();
        for file in 0..100 {
            let bytes = noise(2000, round * 1000 + folder * 100 + file);
            std::fs::write(folder_path.join(format!("file-{file}")), bytes).unwrap();
        }
    }
    std::fs::write(path.join("big"), noise(16 << 20, round + 7_000_000)).unwrap();
}

/// The one place for temporary files is empty.
fn assert_no_leftovers(store: &Path) {
    let left: Vec<_> = std::fs::read_dir(store.join("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Promise: "Ctrl-C, a crash, or a lost caller leaves no machine, mount or file behind, at the latest after the next
/// start".
#[test]
fn killed_while_building() {
    let world = World::new();
    let busybox = match busybox() {
        Ok(busybox) => busybox,
        Err(reason) => return skip(&reason),
    };
    if let Err(reason) = world.can_build() {
        return skip(&reason);
    }
    let mut recipes = Recipes::new(&world, &busybox);
    let mut known = BTreeSet::new();
    for round in 0..BUILDS {
        let script = format!(
            "mkdir $out; head -c 3000000 /dev/urandom > $out/noise; sleep 0.3; echo {round} > $out/done"
        );
        let recipe = recipes.script(&format!("round-{round}"), &script);
        let mut command = world.igloo();
        command
            .args(["build", recipe.argument()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = start(&mut command);
        std::thread::sleep(moment(round, 4500));
        kill_group(child.id());
        child.wait().unwrap();
        none_mentions(&world.path(""), "a machine outlived the crash");
        check_store(&world, &mut known);
    }
    let last = recipes.script("last", "echo fine > $out");
    world.answer(&["build", last.argument()]);
    let machines = world.path("run/igloo/machines");
    assert_eq!(
        std::fs::read_dir(&machines).unwrap().count(),
        0,
        "folders of machines are left behind"
    );
    check_store(&world, &mut known);
    assert_no_leftovers(&world.store_dir());
}

/// A killed mount can be mounted again in the same place.
#[test]
fn killed_while_mounted() {
    let world = World::new();
    if !Path::new("/dev/fuse").exists() {
        return skip("there is no /dev/fuse");
    }
    std::fs::write(world.path("file"), "content").unwrap();
    let stored = world.answer(&["store", "add", world.path("file").to_str().unwrap()]);
    let dir = world.path("mount");
    std::fs::create_dir(&dir).unwrap();
    for _ in 0..3 {
        let mount = world.mount(&dir);
        let file = dir.join(Path::new(&stored).file_name().unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "content");
        mount.kill();
    }
    let mount = world.mount(&dir);
    mount.stop();
    assert!(mentions(&world.path("")).is_empty());
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}
