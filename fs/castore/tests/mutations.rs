//! The fuzz target's property over mutated good directories: no fuzzer needed, the same inputs each time.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking; it shares a module with the fuzz target"
)]

#[path = "../fuzz/src/properties.rs"]
mod properties;

use igloo_castore::digest::{BlobDigest, DirectoryDigest};
use igloo_castore::{Directory, Node, NodeName, SymlinkTarget};
use igloo_mutate::mutants;

/// Mutated encodings for each good one.
const ROUNDS: u64 = 200_000;

#[test]
fn directory() {
    let name = |text: &str| NodeName::try_from(text).unwrap();
    let file = |executable| Node::File {
        digest: BlobDigest::of(b"x"),
        size: 300,
        executable,
    };
    let below = Node::Directory {
        digest: DirectoryDigest::from_bytes([7; 32]),
        size: 1 << 40,
    };
    let link = Node::Symlink {
        target: SymlinkTarget::try_from(&b"../a"[..]).unwrap(),
    };
    let all = vec![
        (name("bin"), below.clone()),
        (name("a"), file(false)),
        (name("link"), link),
        (name("run"), file(true)),
        (name("share"), below),
    ];
    let one = Directory::from_entries(vec![all[1].clone()]).unwrap();
    let good = [one.encode(), Directory::from_entries(all).unwrap().encode()];
    mutants(&good, ROUNDS, properties::directory);
}
