//! A disk that fills up: a clear sentence, nothing lost, and it goes on once there is room.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use igloo_integration::World;
use igloo_testkit::skip;
use igloo_testkit::tree::noise;

/// A file system of its own, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(dir: &Path, size_mib: u32) -> Option<Self> {
        std::fs::create_dir(dir).unwrap();
        let options = format!("size={size_mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(dir)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir.to_path_buf()));
        }
        skip("only root can make a small file system");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status(); // the folder goes with the world
    }
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let world = World::new();
    let Some(disk) = SmallDisk::new(&world.path("disk"), 160) else {
        return;
    };
    let store = format!("rocksdb://{}/store", disk.0.display());
    let run = |arguments: &[&str]| world.run(&[&["--store", &store][..], arguments].concat());
    let small = world.path("small");
    std::fs::write(&small, "fits").unwrap();
    let added = run(&["store", "add", small.to_str().unwrap()]);
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let big = world.path("big");
    std::fs::write(&big, noise(220 << 20, 3)).unwrap();
    let refused = run(&["store", "add", big.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("hint: free disk space"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("disk/store"), "{}", refused.stderr);
    let listed = run(&["store", "list"]);
    assert_eq!(listed.stdout, added.stdout);
    let verified = run(&["store", "verify"]);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    let grown = Command::new("mount")
        .args(["-o", "remount,size=800m"])
        .arg(&disk.0)
        .status()
        .unwrap();
    assert!(grown.success());
    let added = run(&["store", "add", big.to_str().unwrap()]);
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    assert_eq!(run(&["store", "verify"]).code, Some(0));
}
