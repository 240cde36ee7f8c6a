//! What the store does is what C++ Nix does: paths, NARs and records, compared with the `nix-store` of this machine.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use igloo_castore::ingest::{IngestLimits, PathOptions};
use igloo_status::Code;
use igloo_store::{AddError, DeclaredNar, Store};
use igloo_testkit::skip;
use igloo_testkit::tree::{Tree, trees};
use nix_compat::content_address::ContentAddressMethod;
use nix_compat::hash::HashAlgo;
use nix_compat::store_path::{StoreDir, StorePathName};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

fn store() -> Store {
    Store::memory(StoreDir::default())
}

fn name(text: &str) -> StorePathName {
    StorePathName::new(text).unwrap()
}

/// A Nix with a store of its own.
struct Nix {
    root: tempfile::TempDir,
}

impl Nix {
    fn new() -> Option<Self> {
        if Command::new("nix-store").arg("--version").output().is_err() {
            skip("there is no nix-store to compare with");
            return None;
        }
        Some(Self {
            root: tempfile::tempdir().unwrap(),
        })
    }

    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("nix-store")
            .args(arguments)
            .args(["--store", &format!("local?root={}", self.root.path().display())])
            .args(["--option", "build-users-group", ""])
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nix-store {arguments:?}: {stderr}");
        output.stdout
    }

    fn answer(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(arguments))
            .unwrap()
            .trim_end()
            .to_owned()
    }
}

/// A tree that Nix takes as well.
fn sample(path: &Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    std::fs::create_dir_all(path.join("empty")).unwrap();
    std::fs::create_dir_all(path.join("b/c")).unwrap();
    std::fs::write(path.join("b/c/data"), vec![7; 200_000]).unwrap();
    std::fs::write(path.join("run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(path.join("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(path.join("nothing"), "").unwrap();
    symlink("b/c", path.join("link")).unwrap();
}

#[tokio::test]
async fn add_and_dump_agree() {
    let Some(nix) = Nix::new() else { return };
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("sample");
    sample(&path);
    let text = path.to_str().unwrap();
    let store = store();
    let info = store
        .add_path(&name("sample"), &path, &PathOptions::default())
        .await
        .unwrap();
    assert_eq!(store.dir.print(&info.path), nix.answer(&["--add", text]));
    let mut nar = Vec::new();
    let size = store.dump(&info.node, &mut nar).await.unwrap();
    assert!(
        nar == nix.run(&["--dump", text]),
        "the NAR is that of nix-store --dump"
    );
    assert_eq!(size, info.nar_size);
    store.verify(&info).await.unwrap();
    let printed = store.dir.print(&info.path);
    let hash = nix_compat::NixHash::Sha256(info.nar_sha256);
    let theirs = nix.answer(&["--query", "--hash", &printed]);
    assert_eq!(
        hash.encode_with_algo(nix_compat::hash::HashFormat::NixBase32),
        theirs
    );
    assert_eq!(
        nix.answer(&["--query", "--size", &printed]),
        info.nar_size.to_string()
    );
    // a link, a file and a directory can be the root
    for inner in ["link", "run", "b"] {
        let inner_path = path.join(inner);
        let info = store
            .add_path(&name(inner), &inner_path, &PathOptions::default())
            .await
            .unwrap();
        assert_eq!(
            store.dir.print(&info.path),
            nix.answer(&["--add", inner_path.to_str().unwrap()]),
            "{inner}"
        );
    }
}

#[tokio::test]
async fn add_fixed_agrees() {
    let Some(nix) = Nix::new() else { return };
    let tmp = tempfile::tempdir().unwrap();
    let tree = tmp.path().join("sample");
    sample(&tree);
    let file = tree.join("run");
    let store = store();
    let options = PathOptions::default();
    for algo in [HashAlgo::Sha256, HashAlgo::Sha1, HashAlgo::Sha512, HashAlgo::Md5] {
        let flat = store
            .add_fixed(&name("run"), &file, ContentAddressMethod::Flat, algo, &options)
            .await
            .unwrap();
        let theirs = nix.answer(&["--add-fixed", algo.name(), file.to_str().unwrap()]);
        assert_eq!(store.dir.print(&flat.path), theirs, "{algo}");
        let deep = store
            .add_fixed(
                &name("sample"),
                &tree,
                ContentAddressMethod::Recursive,
                algo,
                &options,
            )
            .await;
        let deep = deep.unwrap();
        let theirs = nix.answer(&["--add-fixed", "--recursive", algo.name(), tree.to_str().unwrap()]);
        assert_eq!(store.dir.print(&deep.path), theirs, "{algo}");
        // what Nix keeps is what we keep: a flat file with its executable bit
        for info in [flat, deep] {
            let printed = store.dir.print(&info.path);
            let kept = format!("{}{printed}", nix.root.path().display());
            let mut nar = Vec::new();
            store.dump(&info.node, &mut nar).await.unwrap();
            assert!(nar == nix.run(&["--dump", &kept]), "{printed}");
        }
    }
    let bytes = Bytes::from(std::fs::read(&file).unwrap());
    let fetched = store
        .add_flat(&name("run"), bytes, HashAlgo::Sha256)
        .await
        .unwrap();
    let theirs = nix.answer(&["--add-fixed", "sha256", file.to_str().unwrap()]);
    assert_eq!(store.dir.print(&fetched.path), theirs);
    let error = store
        .add_fixed(
            &name("x"),
            &tree,
            ContentAddressMethod::Flat,
            HashAlgo::Sha256,
            &options,
        )
        .await;
    assert!(matches!(error, Err(AddError::NotAFile { .. })));
    let contents = store
        .add_flat_file(
            &name("contents"),
            &file,
            HashAlgo::Sha256,
            IngestLimits::default(),
        )
        .await
        .unwrap();
    assert!(matches!(
        contents.node,
        igloo_castore::Node::File {
            executable: false,
            ..
        }
    ));
    let error = store
        .add_flat_file(&name("x"), &tree, HashAlgo::Sha256, IngestLimits::default())
        .await;
    assert!(matches!(error, Err(AddError::ReadFile { .. })));
}

/// `builtins.toFile` with a reference, evaluated by Nix.
#[tokio::test]
async fn texts_agree() {
    let Some(nix) = Nix::new() else { return };
    let expression = r#"let a = builtins.toFile "a" "text"; in [ a (builtins.toFile "b" "refers to ${a}") ]"#;
    let output = Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json", "--expr", expression])
        .args(["--store", &format!("local?root={}", nix.root.path().display())])
        .args(["--option", "build-users-group", ""])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let store = store();
    let a = store
        .add_text(&name("a"), Bytes::from_static(b"text"), BTreeSet::new())
        .await
        .unwrap();
    let text = format!("refers to {}", store.dir.print(&a.path));
    let b = store
        .add_text(&name("b"), text.into(), BTreeSet::from([a.path.clone()]))
        .await
        .unwrap();
    let ours = format!(
        "[\"{}\",\"{}\"]",
        store.dir.print(&a.path),
        store.dir.print(&b.path)
    );
    assert_eq!(ours, String::from_utf8(output.stdout).unwrap().trim());
    let closure = store.closure([b.path.clone()]).await.unwrap();
    assert_eq!(
        closure.into_keys().collect::<BTreeSet<_>>(),
        BTreeSet::from([a.path, b.path])
    );
}

/// Random trees, names that are no text among them: hash of the NAR as Nix computes it.
#[tokio::test]
async fn random_trees_have_the_same_nar() {
    let Some(nix) = Nix::new() else { return };
    let mut runner = TestRunner::deterministic();
    let tmp = tempfile::tempdir().unwrap();
    for index in 0..12 {
        let tree: Tree = trees().new_tree(&mut runner).unwrap().current();
        let path = tmp.path().join(index.to_string());
        tree.write_to(&path).unwrap();
        let store = store();
        let info = store
            .add_path(&name("tree"), &path, &PathOptions::default())
            .await
            .unwrap();
        let mut nar = Vec::new();
        store.dump(&info.node, &mut nar).await.unwrap();
        assert!(nar == nix.run(&["--dump", path.to_str().unwrap()]), "{tree:?}");
        assert_eq!(Tree::export(&store.castore, info.node).await.unwrap(), tree);
    }
}

fn declared(info: &igloo_store::PathInfo) -> DeclaredNar {
    DeclaredNar {
        path: info.path.clone(),
        nar_sha256: info.nar_sha256,
        nar_size: info.nar_size,
        references: info.references.clone(),
        deriver: None,
        signatures: Vec::new(),
        content_address: info.content_address,
    }
}

/// A NAR gives the same record as the tree it is of; one that is not as declared is refused and leaves no record.
#[tokio::test]
async fn nars_are_checked() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("sample");
    sample(&path);
    let from = store();
    let info = from
        .add_path(&name("sample"), &path, &PathOptions::default())
        .await
        .unwrap();
    let mut nar = Vec::new();
    from.dump(&info.node, &mut nar).await.unwrap();
    let limits = IngestLimits::default();

    let to = store();
    let mut wrong = declared(&info);
    wrong.nar_sha256[0] ^= 1;
    let error = to
        .add_nar(wrong, nar.as_slice(), limits.clone())
        .await
        .unwrap_err();
    assert!(matches!(&error, AddError::Mismatch { .. }), "{error}");
    let mut wrong = declared(&info);
    wrong.path = nix_compat::StorePath::new(*info.path.digest(), name("other"));
    let error = to
        .add_nar(wrong, nar.as_slice(), limits.clone())
        .await
        .unwrap_err();
    assert!(matches!(&error, AddError::Address { .. }), "{error}");
    let cut = to
        .add_nar(declared(&info), &nar[..nar.len() - 8], limits.clone())
        .await
        .unwrap_err();
    assert!(matches!(&cut, AddError::Parse(_)), "{cut}");
    let long = [nar.as_slice(), b"more"].concat();
    let error = to
        .add_nar(declared(&info), long.as_slice(), limits.clone())
        .await
        .unwrap_err();
    assert!(matches!(&error, AddError::Parse(_)), "{error}");
    assert_eq!(to.path_infos.get(&info.path).await.unwrap(), None);

    let added = to
        .add_nar(declared(&info), nar.as_slice(), limits.clone())
        .await
        .unwrap();
    assert_eq!(added, info);
    assert_eq!(to.path_infos.get(&info.path).await.unwrap(), Some(info.clone()));
    assert_eq!(
        to.add_nar(declared(&info), nar.as_slice(), limits).await.unwrap(),
        info
    );
}

#[tokio::test]
async fn a_text_needs_what_it_refers_to() {
    let store = store();
    let absent = igloo_testkit::path_infos::path(1);
    let error = store
        .add_text(&name("x"), Bytes::from_static(b"x"), BTreeSet::from([absent]))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
}

/// Damage is found by `verify`, whatever part of the path it hits.
#[tokio::test]
async fn verify_finds_damage() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("sample");
    sample(&path);
    let mut store = store();
    let info = store
        .add_path(&name("sample"), &path, &PathOptions::default())
        .await
        .unwrap();
    let (castore, faults) = igloo_testkit::faults::faulty(store.castore.clone());
    store.castore = castore;
    store.verify(&info).await.unwrap();
    faults.lose(igloo_castore::BlobDigest::of(b"#!/bin/sh\n").as_bytes());
    let error = store.verify(&info).await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    faults.heal();
    let mut other = info.clone();
    other.nar_size += 1;
    assert_eq!(store.verify(&other).await.unwrap_err().code(), Code::DataLoss);
}

/// The whole API can be used from spawned tasks.
#[test]
fn futures_are_send() {
    fn send<T: Send>(_: T) {}
    let store = store();
    let (name, options) = (name("x"), PathOptions::default());
    send(store.add_path(&name, Path::new("/"), &options));
    send(store.add_text(&name, Bytes::new(), BTreeSet::new()));
    send(store.add_flat(&name, Bytes::new(), HashAlgo::Sha1));
    send(store.ingest_nar(&b""[..], IngestLimits::default()));
    send(store.register(Vec::new()));
    send(store.closure([]));
    let info = igloo_testkit::path_infos::info(1, &[]);
    send(store.verify(&info));
}
