//! How many bytes a second each format's code moves, one core, data in memory.
//!
//! Question: does any of it come near to being what a closure's import or a build's output check waits for? Those hash with
//! SHA-256 at about 2.2 GB/s a core at best, so NAR and the reference scan should take a small part of that.
//!
//! Run by `cargo bench -p nix-compat`; `IGLOO_ORACLE_DRVS` names a directory of `.drv` files for the derivations' figures.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and may fail by panicking"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use nix_compat::derivation::{HashModuloMemo, derivation_name};
use nix_compat::hash::sha256;
use nix_compat::nar::{NarParser, NarReader, NarWriter, ParseNarError};
use nix_compat::refscan::RefScanner;
use nix_compat::{Derivation, StoreDir, StorePath, StorePathName};

/// Bytes of file data in the archives.
const DATA_LEN: usize = 256 << 20;
/// Bytes given to a parser at once.
const PIECE_LEN: usize = 128 << 10;

fn main() {
    let big = archive(DATA_LEN / 4, 4);
    let small = archive(1000, 100_000);
    for (name, nar) in [
        ("4 files of 64 MiB", &big),
        ("100,000 files of 1,000 bytes", &small),
    ] {
        report(&format!("NAR parse, {name}"), nar.len(), || parse(nar));
        report(&format!("NAR read, {name}"), nar.len(), || {
            let mut reader = NarReader::new(nar.as_slice());
            while let Some(event) = reader.next().unwrap() {
                black_box(event);
            }
        });
    }
    write("NAR write, 4 files of 64 MiB", DATA_LEN / 4, 4);
    write("NAR write, 100,000 files of 1,000 bytes", 1000, 100_000);
    let mut copy = big.clone();
    report("memcpy, for comparison", big.len(), || {
        copy.copy_from_slice(black_box(&big));
    });
    report("SHA-256, for comparison", big.len(), || {
        black_box(sha256(&big));
    });
    scan();
    if let Some(directory) = std::env::var_os("IGLOO_ORACLE_DRVS") {
        derivations(directory.as_ref());
    }
}

/// Best of five runs.
fn report(name: &str, bytes: usize, mut run: impl FnMut()) {
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .min()
        .unwrap_or(Duration::MAX);
    println!(
        "{name:45} {:8.2} GB/s {:8.1} ms",
        bytes as f64 / best.as_secs_f64() / 1e9,
        best.as_secs_f64() * 1e3
    );
}

/// Writes into memory that is there already: no page faults.
fn write(name: &str, file_len: usize, count: usize) {
    let data = noise(file_len);
    let mut out = archive_into(Vec::new(), &data, count);
    report(name, out.len(), || {
        out.clear();
        out = archive_into(std::mem::take(&mut out), &data, count);
    });
}

fn archive(file_len: usize, count: usize) -> Vec<u8> {
    archive_into(Vec::new(), &noise(file_len), count)
}

fn archive_into(out: Vec<u8>, data: &[u8], count: usize) -> Vec<u8> {
    let mut nar = NarWriter::new(out);
    nar.directory(b"").unwrap();
    for index in 0..count {
        nar.file(format!("file-{index:08}").as_bytes(), data.len() as u64, false)
            .unwrap();
        nar.data(data).unwrap();
    }
    nar.end_directory().unwrap();
    nar.finish().unwrap()
}

fn parse(nar: &[u8]) {
    let mut parser = NarParser::new();
    for piece in nar.chunks(PIECE_LEN) {
        parser
            .feed::<ParseNarError>(piece, |event| {
                black_box(event);
                Ok(())
            })
            .unwrap();
    }
    parser.finish().unwrap();
}

/// Bytes of a xorshift generator.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..len.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(len).collect()
}

fn scan() {
    let path = |n: u32| {
        let digest: [u8; 20] = sha256(&n.to_le_bytes())[..20].try_into().unwrap();
        StorePath::new(digest, StorePathName::new("x").unwrap())
    };
    let random = noise(64 << 20);
    let digits: Vec<u8> = random
        .iter()
        .map(|byte| nix_compat::nixbase32::ALPHABET[usize::from(byte % 32)])
        .collect();
    let hex: Vec<u8> = random
        .iter()
        .map(|byte| b"0123456789abcdef"[usize::from(byte % 16)])
        .collect();
    let text = include_bytes!("../src/nar/parser.rs").repeat(2000);
    for count in [10, 1000, 100_000] {
        let candidates: Vec<StorePath> = (0..count).map(path).collect();
        for (name, bytes) in [
            ("random bytes", &random),
            ("source text", &text),
            ("hexadecimal", &hex),
            ("digits only", &digits),
        ] {
            report(
                &format!("reference scan, {count} candidates, {name}"),
                bytes.len(),
                || {
                    let mut scanner = RefScanner::new(&candidates);
                    bytes.chunks(PIECE_LEN).for_each(|piece| scanner.feed(piece));
                    black_box(scanner.is_complete());
                },
            );
        }
    }
}

fn derivations(directory: &std::path::Path) {
    let dir = StoreDir::default();
    let mut texts = std::collections::HashMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if let Some(path) = entry
            .file_name()
            .to_str()
            .and_then(|name| StorePath::parse(name).ok())
            && path.is_derivation()
        {
            texts.insert(path, std::fs::read(entry.path()).unwrap());
        }
    }
    let read = |path: &StorePath| Derivation::parse(&dir, &derivation_name(path).unwrap(), &texts[path]);
    let bytes = texts.values().map(Vec::len).sum();
    let parsed: Vec<Derivation> = texts.keys().map(|path| read(path).unwrap()).collect();
    report(
        &format!("ATerm parse, {} derivations", texts.len()),
        bytes,
        || {
            texts.keys().for_each(|path| drop(black_box(read(path).unwrap())));
        },
    );
    report("ATerm print", bytes, || {
        parsed
            .iter()
            .for_each(|derivation| drop(black_box(derivation.to_aterm(&dir).unwrap())));
    });
    report("parse, hash modulo, whole graph", bytes, || {
        let mut memo = HashModuloMemo::new(dir.clone());
        memo.load(texts.keys().cloned(), read).unwrap();
    });
}
