//! Trees, paths, hashes, narinfo and signatures, held against what Nix itself makes of the same.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use common::Nix;
use nix_compat::hash::{HashFormat, sha256};
use nix_compat::nar::{NarEvent, NarReader, NarWriter};
use nix_compat::narinfo::NarInfo;
use nix_compat::signature::{PublicKey, SecretKey};
use nix_compat::store_path::StoreReferences;
use nix_compat::{ContentAddress, ContentAddressMethod, HashAlgo, NixHash, StorePathName};

/// Trees added to Nix's store in one go.
const TREES: u64 = 300;
/// Trees of which the whole archive is compared too.
const DUMPS: u64 = 25;

/// A small generator of numbers (splitmix64): a failure names the seed, and the seed makes the tree.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// A file name: any bytes but `/` and NUL, often ones that sort unlike their length or case.
    fn name(&mut self) -> Vec<u8> {
        let len = if self.below(20) == 0 {
            200 + self.below(56)
        } else {
            1 + self.below(9)
        };
        let plain = self.below(2) == 0;
        let mut name = self.bytes(len);
        for byte in &mut name {
            if plain {
                *byte = b"aAbB-._ ~0"[usize::from(*byte % 10)];
            }
            if matches!(*byte, 0 | b'/') {
                *byte = b'x';
            }
        }
        if matches!(name.as_slice(), b"." | b"..") {
            b"dots".to_vec()
        } else {
            name
        }
    }

    /// Makes something at `path`, down to `depth` levels of directories.
    fn tree(&mut self, path: &Path, depth: u64) {
        match self.below(if depth == 0 { 6 } else { 10 }) {
            0 => {
                let len = 1 + self.below(60);
                let target: Vec<u8> = self.bytes(len).into_iter().map(|byte| byte.max(1)).collect();
                symlink(OsStr::from_bytes(&target), path).unwrap();
            }
            1..=5 => {
                let len = [0, 1, 7, 8, 9, 63, 64, 4096, 70_001][usize::try_from(self.below(9)).unwrap()];
                fs::write(path, self.bytes(len)).unwrap();
                let mode = [0o644, 0o755, 0o444, 0o700, 0o655][usize::try_from(self.below(5)).unwrap()];
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            _ => {
                fs::create_dir(path).unwrap();
                for _ in 0..self.below(7) {
                    let child = path.join(OsStr::from_bytes(&self.name()));
                    if fs::symlink_metadata(&child).is_err() {
                        self.tree(&child, depth - 1);
                    }
                }
            }
        }
    }
}

/// Writes what is at `path` as an archive, as a store would.
fn nar_of(path: &Path) -> Vec<u8> {
    let mut nar = NarWriter::new(Vec::new());
    write_node(&mut nar, b"", path);
    nar.finish().unwrap()
}

fn write_node(nar: &mut NarWriter<Vec<u8>>, name: &[u8], path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    if meta.is_symlink() {
        nar.symlink(name, fs::read_link(path).unwrap().as_os_str().as_bytes())
            .unwrap();
    } else if meta.is_dir() {
        nar.directory(name).unwrap();
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for name in names {
            write_node(nar, name.as_bytes(), &path.join(&name));
        }
        nar.end_directory().unwrap();
    } else {
        let data = fs::read(path).unwrap();
        nar.file(name, data.len() as u64, meta.permissions().mode() & 0o100 != 0)
            .unwrap();
        nar.data(&data).unwrap();
    }
}

/// Reads an archive and writes it again.
fn copied(nar: &[u8]) -> Vec<u8> {
    let mut reader = NarReader::new(nar);
    let mut writer = NarWriter::new(Vec::new());
    while let Some(event) = reader.next().unwrap() {
        match event {
            NarEvent::Directory { name } => writer.directory(name),
            NarEvent::DirectoryEnd => writer.end_directory(),
            NarEvent::File {
                name,
                size,
                executable,
            } => writer.file(name, size, executable),
            NarEvent::Data(data) => writer.data(data),
            NarEvent::FileEnd => Ok(()),
            NarEvent::Symlink { name, target } => writer.symlink(name, target),
        }
        .unwrap();
    }
    writer.finish().unwrap()
}

fn make_trees(root: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = (0..TREES).map(|seed| root.join(format!("tree-{seed}"))).collect();
    for (seed, path) in (0..).zip(&paths) {
        Random(seed).tree(path, 4);
    }
    // one nested as deep as newer Nix allows: 64 nodes, the last one a file
    let mut deep = root.join("deep");
    paths.push(deep.clone());
    for _ in 0..63 {
        fs::create_dir(&deep).unwrap();
        deep.push("d");
    }
    fs::write(deep, "bottom").unwrap();
    paths
}

fn added_trees_agree(nix: &Nix) {
    let root = nix.work().join("trees");
    fs::create_dir(&root).unwrap();
    let paths = make_trees(&root);
    let mut args = vec!["--add"];
    args.extend(paths.iter().map(|path| path.to_str().unwrap()));
    let added = nix.lines("nix-store", &args);
    assert_eq!(added.len(), paths.len());
    for (path, added) in paths.iter().zip(&added) {
        let nar = nar_of(path);
        assert_eq!(copied(&nar), nar, "{}", path.display());
        let name = StorePathName::new(path.file_name().unwrap().to_str().unwrap()).unwrap();
        let computed = nix
            .dir()
            .source_path(&name, &sha256(&nar), &StoreReferences::default());
        assert_eq!(&nix.dir().print(&computed), added, "{}", path.display());
    }
    for path in paths
        .iter()
        .take(usize::try_from(DUMPS).unwrap())
        .chain(paths.last())
    {
        assert_eq!(
            nar_of(path),
            nix.run("nix-store", &["--dump", path.to_str().unwrap()]),
            "{}",
            path.display()
        );
    }
    let all = nix.run("nix-store", &["--dump", root.to_str().unwrap()]);
    // one level too deep by `deep`: such an archive is for older Nix only
    fs::remove_dir_all(root.join("deep")).unwrap();
    assert_ne!(nar_of(&root), all);
    let all = nix.run("nix-store", &["--dump", root.to_str().unwrap()]);
    assert_eq!(nar_of(&root), all);
}

#[test]
fn added_trees_in_nix_store() {
    if let Some(nix) = Nix::chroot("added_trees_in_nix_store") {
        added_trees_agree(&nix);
    }
}

#[test]
fn added_trees_in_another_store_directory() {
    if let Some(nix) = Nix::other_dir("added_trees_in_another_store_directory") {
        added_trees_agree(&nix);
    }
}

/// `nix-store --print-fixed-path`: flat and recursive, every algorithm.
#[test]
fn fixed_output_paths() {
    let Some(nix) = Nix::chroot("fixed_output_paths") else {
        return;
    };
    for nix in [Some(nix), Nix::other_dir("fixed_output_paths")]
        .into_iter()
        .flatten()
    {
        for algo in HashAlgo::ALL {
            let hash = NixHash::of(algo, b"some content");
            for (method, flag) in [
                (ContentAddressMethod::Flat, None),
                (ContentAddressMethod::Recursive, Some("--recursive")),
            ] {
                let digest = hash.encode(HashFormat::NixBase32);
                let mut args = vec!["--print-fixed-path", algo.name(), &digest, "a-name.tar.gz"];
                args.extend(flag);
                let address = ContentAddress::new(method, hash).unwrap();
                let name = StorePathName::new("a-name.tar.gz").unwrap();
                let none = StoreReferences::default();
                let computed = nix.dir().content_addressed_path(&name, &address, &none).unwrap();
                assert_eq!(
                    nix.lines("nix-store", &args),
                    [nix.dir().print(&computed)],
                    "{address}"
                );
            }
        }
    }
}

/// `nix hash to-…`: every algorithm in every encoding, there and back.
#[test]
fn hash_encodings() {
    let Some(nix) = Nix::chroot("hash_encodings") else {
        return;
    };
    for algo in HashAlgo::ALL {
        let hashes: Vec<NixHash> = (0..50u32).map(|n| NixHash::of(algo, &n.to_le_bytes())).collect();
        for (command, format) in [
            ("to-base16", HashFormat::Base16),
            ("to-base32", HashFormat::NixBase32),
            ("to-base64", HashFormat::Base64),
            ("to-sri", HashFormat::Sri),
        ] {
            for from in [HashFormat::Base16, HashFormat::NixBase32, HashFormat::Base64] {
                let given: Vec<String> = hashes.iter().map(|hash| hash.encode(from)).collect();
                let mut args = vec!["hash", command, "--type", algo.name()];
                args.extend(given.iter().map(String::as_str));
                let printed = nix.lines("nix", &args);
                let ours: Vec<String> = hashes.iter().map(|hash| hash.encode(format)).collect();
                assert_eq!(printed, ours, "{algo} {command}");
            }
        }
    }
}

/// Names that Nix 2.8 takes and refuses, as arguments of `builtins.toFile`; the leading-dot rule is newer than it.
#[test]
fn text_paths_and_names() {
    let Some(nix) = Nix::chroot("text_paths_and_names") else {
        return;
    };
    let longest = "x".repeat(211);
    let mut expr = String::from("[");
    let names = ["a", "A0+-._?=", ".hidden", "...", "a..", &longest];
    for name in names {
        expr.push_str(&format!(" (builtins.toFile \"{name}\" \"text of {name}\")"));
    }
    expr.push(']');
    let printed = nix
        .lines("nix-instantiate", &["--eval", "--strict", "--json", "-E", &expr])
        .concat();
    let ours: Vec<String> = names
        .iter()
        .map(|text| {
            let digest = sha256(format!("text of {text}").as_bytes());
            let path = nix
                .dir()
                .text_path(&StorePathName::new(text).unwrap(), &digest, &BTreeSet::new());
            format!("\"{}\"", nix.dir().print(&path))
        })
        .collect();
    assert_eq!(printed, format!("[{}]", ours.join(",")));
    for name in ["", "a b", "é", "a/b", &"x".repeat(212)] {
        assert!(StorePathName::new(name).is_err());
        let expr = format!("(builtins.tryEval (builtins.toFile \"{name}\" \"\")).success");
        assert!(
            !nix.succeeds("nix-instantiate", &["--eval", "-E", &expr]),
            "Nix takes the name {name:?}"
        );
    }
}

/// A binary cache that Nix writes and signs: every narinfo printed again byte for byte, the signature made again.
#[test]
fn narinfo_and_signatures() {
    let Some(nix) = Nix::chroot("narinfo_and_signatures") else {
        return;
    };
    let secret =
        String::from_utf8(nix.run("nix", &["key", "generate-secret", "--key-name", "cache-1"])).unwrap();
    fs::write(nix.work().join("secret"), &secret).unwrap();
    let secret = SecretKey::parse(secret.trim_end()).unwrap();
    let expr = r#"
      let text = n: builtins.toFile "text-${toString n}" "text ${toString n} ${if n > 0 then text (n - 1) else ""}";
      in derivation { name = "x"; system = "none"; builder = text 5; args = [ ./trees-of-narinfo ]; }"#;
    let tree = nix.work().join("trees-of-narinfo");
    Random(7).tree(&tree, 0);
    fs::write(nix.work().join("cache.nix"), expr).unwrap();
    let drv = nix.lines("nix-instantiate", &["cache.nix"]).concat();
    let cache = nix.work().join("cache");
    for compression in ["xz", "none"] {
        let url = format!(
            "file://{}?compression={compression}&secret-key={}",
            cache.display(),
            nix.work().join("secret").display()
        );
        nix.run("nix", &["copy", "--derivation", "--to", &url, &drv]);
        let count = check_cache(&nix, &cache, &secret);
        assert!(count >= 8, "{count} narinfo files");
        fs::remove_dir_all(&cache).unwrap();
    }
}

fn check_cache(nix: &Nix, cache: &Path, secret: &SecretKey) -> usize {
    let public: PublicKey = secret.public_key();
    let mut count = 0;
    for entry in fs::read_dir(cache).unwrap() {
        let path = entry.unwrap().path();
        if path.extension() != Some(OsStr::new("narinfo")) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let info = NarInfo::parse(&nix.dir(), &text).unwrap();
        assert_eq!(info.print(&nix.dir()), text);
        let fingerprint = info.fingerprint(&nix.dir());
        assert_eq!(info.signatures, [secret.sign(fingerprint.as_bytes())]);
        assert!(public.verify(fingerprint.as_bytes(), &info.signatures[0]));
        check_content_address(nix, &info);
        let nar = nar_of(&nix.physical().join(info.store_path.to_string()));
        assert_eq!((sha256(&nar), nar.len() as u64), (info.nar_hash, info.nar_size));
        count += 1;
    }
    count
}

/// The path follows from its content address, references included.
fn check_content_address(nix: &Nix, info: &NarInfo) {
    let mut others = info.references.clone();
    let references = StoreReferences {
        to_self: others.remove(&info.store_path),
        others,
    };
    let address = info.ca.unwrap();
    let path = nix
        .dir()
        .content_addressed_path(info.store_path.name(), &address, &references);
    assert_eq!(path.unwrap(), info.store_path);
}

/// `nix key convert-secret-to-public` agrees on the public half.
#[test]
fn public_keys() {
    let Some(nix) = Nix::chroot("public_keys") else {
        return;
    };
    let file = nix.work().join("secret");
    let secret = SecretKey::from_seed("name-1", &[42; 32]).unwrap();
    fs::write(&file, secret.reveal()).unwrap();
    let script = format!("nix key convert-secret-to-public < {}", file.display());
    let printed = nix.lines("sh", &["-c", &script]).concat();
    assert_eq!(printed, secret.public_key().to_string());
}
