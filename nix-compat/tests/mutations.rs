//! The fuzz targets' properties over mutated good inputs: no fuzzer needed, the same inputs each time.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking; it shares a module with the fuzz targets"
)]

#[path = "../fuzz/src/properties.rs"]
mod properties;

use igloo_mutate::mutants;
use nix_compat::nar::NarWriter;
use nix_compat::{Derivation, DerivationOutput, HashAlgo, NixHash, OutputName, StoreDir, StorePath};

/// Mutated inputs for each good one.
const ROUNDS: u64 = 100_000;

fn run(good: &[Vec<u8>], property: fn(&[u8])) {
    mutants(good, ROUNDS, property);
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
