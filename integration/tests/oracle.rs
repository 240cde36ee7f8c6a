//! What `igloo store` prints and writes is what Debian's Nix prints and writes.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use igloo_integration::World;
use igloo_testkit::skip;
use igloo_testkit::tree::{noise, trees};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const TREES: usize = 1000;
/// Trees whose NARs are compared byte for byte; of the others the hashes are.
const DUMPED: usize = 100;

/// `nix-store` on a store of its own, whose directory is `/nix/store` to it.
struct Nix {
    root: PathBuf,
}

impl Nix {
    fn new(world: &World) -> Option<Self> {
        if Command::new("nix-store").arg("--version").output().is_err() {
            skip("there is no nix-store to compare with");
            return None;
        }
        Some(Self {
            root: world.path("nix"),
        })
    }

    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("nix-store")
            .args(arguments)
            .args(["--store", &format!("local?root={}", self.root.display())])
            .args(["--option", "build-users-group", ""])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    fn lines(&self, arguments: &[&str]) -> Vec<String> {
        lines(&self.run(arguments))
    }
}

fn lines(output: &[u8]) -> Vec<String> {
    String::from_utf8(output.to_vec())
        .unwrap()
        .lines()
        .map(String::from)
        .collect()
}

fn texts(paths: &[PathBuf]) -> Vec<&str> {
    paths.iter().map(|path| path.to_str().unwrap()).collect()
}

/// Promise: "`igloo store add PATH` prints the path `nix-store --add` prints, for any names, kinds and depths of files",
/// and "`igloo store dump` writes the bytes `nix-store --dump` writes".
#[test]
fn a_thousand_random_trees_are_named_and_dumped_as_nix_does() {
    let world = World::new();
    let Some(nix) = Nix::new(&world) else { return };
    let folder = world.path("trees");
    std::fs::create_dir(&folder).unwrap();
    let mut runner = TestRunner::deterministic();
    let paths: Vec<PathBuf> = (0..TREES)
        .map(|index| write_tree(&mut runner, &folder, index))
        .collect();
    for batch in paths.chunks(250) {
        let batch = texts(batch);
        let ours = lines(&world.run(&[&["store", "add"][..], &batch].concat()).stdout);
        assert_eq!(ours, nix.lines(&[&["--add"][..], &batch].concat()));
        let infos = world.answer(&[&["store", "info", "--json"][..], &texts_of(&ours)].concat());
        let infos: serde_json::Value = serde_json::from_str(&infos).unwrap();
        let ours_hashes: Vec<String> = infos.as_array().unwrap().iter().map(hash_and_size).collect();
        let hashes = nix.lines(&[&["--query", "--hash"][..], &texts_of(&ours)].concat());
        let sizes = nix.lines(&[&["--query", "--size"][..], &texts_of(&ours)].concat());
        let theirs: Vec<String> = hashes
            .iter()
            .zip(sizes)
            .map(|(hash, size)| format!("{hash} {size}"))
            .collect();
        assert_eq!(ours_hashes, theirs);
    }
    for path in paths.iter().step_by(TREES / DUMPED) {
        let stored = world.answer(&["store", "add", path.to_str().unwrap()]);
        assert!(
            world.run(&["store", "dump", &stored]).stdout == nix.run(&["--dump", path.to_str().unwrap()]),
            "{stored}"
        );
    }
    let verified = world.run(&["store", "verify"]);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
}

fn texts_of(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

/// As `nix-store --query` prints them.
fn hash_and_size(info: &serde_json::Value) -> String {
    let hash: nix_compat::NixHash = info["narHash"].as_str().unwrap().parse().unwrap();
    let hash = hash.encode_with_algo(nix_compat::hash::HashFormat::NixBase32);
    format!("{hash} {}", info["narSize"])
}

fn write_tree(runner: &mut TestRunner, folder: &Path, index: usize) -> PathBuf {
    let tree = trees().new_tree(runner).unwrap().current();
    let path = folder.join(format!("tree-{index}"));
    tree.write_to(&path).unwrap();
    path
}

/// The same for one big file, and the promise on memory: "adding a 1 GiB file stays under 200 MiB".
#[test]
fn a_big_file_is_named_as_nix_does_in_bounded_memory() {
    const MIB: u64 = 1 << 20;
    let world = World::new();
    let Some(nix) = Nix::new(&world) else { return };
    let path = world.path("big");
    let mut file = std::fs::File::create(&path).unwrap();
    let piece = noise(16 << 20, 7);
    for index in 0..64_u64 {
        std::io::Write::write_all(&mut file, &piece).unwrap();
        std::io::Write::write_all(&mut file, &index.to_le_bytes()).unwrap(); // no two pieces alike
    }
    drop(file);
    let path = path.to_str().unwrap();
    let (added, used) = igloo_integration::finish_measured(world.igloo().args(["store", "add", path]));
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    assert_eq!(lines(&added.stdout), nix.lines(&["--add", path]));
    assert!(
        used.peak_bytes < 200 * MIB,
        "adding 1 GiB took {} MiB",
        used.peak_bytes / MIB
    );
    let (dumped, used) = igloo_integration::finish_measured(world.igloo().args(["store", "verify"]));
    assert_eq!(dumped.code, Some(0), "{}", dumped.stderr);
    assert!(
        used.peak_bytes < 200 * MIB,
        "reading 1 GiB took {} MiB",
        used.peak_bytes / MIB
    );
}
