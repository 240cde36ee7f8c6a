//! The fuzz targets' properties over mutated good inputs: no fuzzer needed, the same inputs each time.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test, and a module it shares with the fuzz targets"
)]

#[path = "../fuzz/src/properties.rs"]
mod properties;

use nix_compat::nar::NarWriter;
use nix_compat::{Derivation, DerivationOutput, HashAlgo, NixHash, OutputName, StoreDir, StorePath};

/// Mutated inputs for each good one.
const ROUNDS: u64 = 100_000;

/// A small generator of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    /// Flips, cuts, repeats, moves, or overwrites with a byte or a length that means something.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let end = (at + 1 + self.below(40)).min(bytes.len());
        match self.below(8) {
            0 => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 1 << (self.next() % 8)),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                let to = self.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            4 => {
                let special = b"\0\x01\x07\x08\xff\"\\\n:-,[]()/.";
                bytes
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|byte| *byte = special[self.below(special.len())]);
            }
            5 => {
                let lengths = [
                    0u64,
                    1,
                    8,
                    255,
                    256,
                    4095,
                    4096,
                    1 << 31,
                    1 << 63,
                    u64::MAX,
                    u64::MAX - 7,
                ];
                let length = lengths[self.below(lengths.len())].to_le_bytes();
                let at = at / 8 * 8;
                bytes
                    .iter_mut()
                    .skip(at)
                    .zip(length)
                    .for_each(|(byte, new)| *byte = new);
            }
            6 => bytes.swap(at, end.saturating_sub(1)),
            _ => bytes.extend_from_slice(&self.next().to_le_bytes()),
        }
    }
}

/// Names the round when a property fails in it.
struct Round(u64);

impl Drop for Round {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed in round {}", self.0);
        }
    }
}

fn run(seeds: &[Vec<u8>], property: fn(&[u8])) {
    for seed in seeds {
        property(seed);
        for round in 0..ROUNDS {
            let guard = Round(round);
            let mut random = Random(round);
            let mut bytes = seed.clone();
            for _ in 0..=random.below(4) {
                if !bytes.is_empty() {
                    random.mutate(&mut bytes);
                }
            }
            property(&bytes);
            drop(guard);
        }
    }
}

#[test]
fn nar() {
    let mut tree = NarWriter::new(vec![13]);
    tree.directory(b"").unwrap();
    tree.directory(b"a").unwrap();
    tree.file(b"empty", 0, true).unwrap();
    tree.file(b"file", 11, false).unwrap();
    tree.data(b"hello world").unwrap();
    tree.end_directory().unwrap();
    tree.symlink(b"link", b"a/file").unwrap();
    tree.end_directory().unwrap();
    let mut file = NarWriter::new(vec![1]);
    file.file(b"", 8, true).unwrap();
    file.data(b"contents").unwrap();
    run(&[tree.finish().unwrap(), file.finish().unwrap()], properties::nar);
}

fn any_derivation() -> Derivation {
    let path = |name: &str| StorePath::parse(&format!("{}-{name}", "0".repeat(32))).unwrap();
    let out = OutputName::new("out").unwrap();
    let output = DerivationOutput::InputAddressed { path: path("name") };
    Derivation {
        name: "name".try_into().unwrap(),
        outputs: [
            (out.clone(), output),
            (OutputName::new("dev").unwrap(), DerivationOutput::Deferred),
        ]
        .into(),
        input_drvs: [(path("a.drv"), [out].into())].into(),
        input_srcs: [path("source"), path("source2")].into(),
        platform: b"x86_64-linux".to_vec(),
        builder: b"/bin/sh".to_vec(),
        args: vec![b"-c".to_vec(), b"echo \"hi\"\n\tthere\\".to_vec()],
        env: [
            (b"out".to_vec(), b"/x".to_vec()),
            (b"z".to_vec(), vec![0xff, b'\r']),
        ]
        .into(),
    }
}

#[test]
fn aterm() {
    let dir = StoreDir::default();
    let derivation = any_derivation();
    let mut fixed = derivation.clone();
    let hash = NixHash::of(HashAlgo::Sha256, b"");
    let address = nix_compat::ContentAddress::new(nix_compat::ContentAddressMethod::Flat, hash).unwrap();
    fixed.outputs = [(
        OutputName::new("out").unwrap(),
        DerivationOutput::CaFixed { address },
    )]
    .into();
    run(
        &[derivation.to_aterm(&dir).unwrap(), fixed.to_aterm(&dir).unwrap()],
        properties::aterm,
    );
}

#[test]
fn narinfo() {
    let base = format!("{}-x", "0".repeat(32));
    let hash = NixHash::of(HashAlgo::Sha256, b"").encode_with_algo(nix_compat::hash::HashFormat::NixBase32);
    let text = format!(
        "StorePath: /nix/store/{base}\nURL: nar/x.nar.xz\nCompression: xz\nFileHash: {hash}\nFileSize: 7\n\
         NarHash: {hash}\nNarSize: 9\nReferences: {base} {base}y\nDeriver: {base}.drv\nSig: a:YWJj\nCA: fixed:r:{hash}\n"
    );
    run(
        &[text.into_bytes(), hash.into_bytes(), base.into_bytes()],
        properties::narinfo,
    );
}
