//! Both ways with stock Nix: what igloo writes Nix reads, and what `nix copy` writes igloo fetches, over HTTP and from a
//! directory, in every compression.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests")]

mod common;

use std::collections::BTreeSet;

use common::nix::Nix;
use common::server::Server;
use common::{Closure, add, bytes, key, open, path, paths, registered, substituters};
use igloo_binary_cache::Substituter as _;
use igloo_binary_cache::compression::Compression;
use igloo_binary_cache::substituter::OfferPlace;
use igloo_store::Store;
use nix_compat::store_path::StoreDir;

fn printed(name: &str) -> String {
    StoreDir::default().print(&path(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn nix_reads_what_igloo_writes_and_igloo_what_nix_writes() {
    let Some(nix) = Nix::new() else { return };
    let public = key().public_key().to_string();
    for written in [Compression::None, Compression::Xz, Compression::Zstd] {
        let ours = Closure::write(written).await;
        let cache = format!("file://{}", ours.dir.path().display());
        let refused = nix.copy_from(&cache, "", &printed("app"));
        if written == Compression::None {
            let error = refused.unwrap_err();
            assert!(error.contains("lacks a valid signature"), "{error}");
        }
        nix.copy_from(&cache, &public, &printed("app")).unwrap();
    }
    let store = nix.store();
    nix.run("nix-store", &["--store", &store, "--verify", "--check-contents"]);
    let closure = nix.run(
        "nix-store",
        &["--store", &store, "--query", "--requisites", &printed("app")],
    );
    let closure: BTreeSet<&str> = closure.lines().collect();
    let expected: Vec<String> = ["app", "base", "lib"].map(printed).into();
    assert_eq!(closure, expected.iter().map(String::as_str).collect());

    for compression in ["none", "xz", "zstd", "bzip2", "br"] {
        let theirs = tempfile::tempdir().unwrap();
        nix.copy_to(theirs.path(), compression, &key().reveal(), &printed("app"));
        let server = Server::start(theirs.path()).await;
        for url in [server.url.clone(), format!("file://{}", theirs.path().display())] {
            fetch_all(&url, compression).await;
        }
        assert_eq!(
            server.log().len(),
            1 + 3 + 3,
            "no request twice: {:?}",
            server.log()
        );
    }
}

async fn fetch_all(url: &str, compression: &str) {
    let cache = open(url);
    let (store, all) = substituters(std::slice::from_ref(&cache));
    let answer = all.substitute(&[path("app")], &()).await.unwrap();
    assert!(
        answer.failed.is_empty(),
        "{url} {compression}: {:?}",
        answer.failed
    );
    assert_eq!(registered(&store).await, paths(&["app", "base", "lib"]));
    let offer = cache.look_up(&path("app")).await.unwrap().unwrap();
    let OfferPlace::Archive {
        compression: found, ..
    } = &offer.place
    else {
        panic!("an archive is offered");
    };
    assert_eq!(found.name(), compression);
    // the same trees as at the start, byte for byte
    let original = Store::memory(StoreDir::default());
    let base = add(&original, "base", bytes(300_000, 1), &[]).await;
    let copy = store.path_infos.get(&path("base")).await.unwrap().unwrap();
    assert_eq!(copy.node, base.node);
    assert_eq!(copy.nar_sha256, base.nar_sha256);
}

#[tokio::test(flavor = "multi_thread")]
async fn derivations_and_sources_of_nix_are_fetched_by_their_content() {
    let Some(nix) = Nix::new() else { return };
    let expression = nix.path("x.nix");
    std::fs::write(nix.path("source"), "a source").unwrap();
    let text = r#"
        let
          text = builtins.toFile "text" "a text";
          source = builtins.path { path = ./source; name = "source"; };
          step = n: derivation {
            name = "step-${toString n}"; system = "x"; builder = text; args = [ source ];
            previous = if n == 0 then "" else step (n - 1);
          };
        in step 20
    "#;
    std::fs::write(&expression, text).unwrap();
    let store = nix.store();
    let drv = nix.run(
        "nix-instantiate",
        &["--store", &store, expression.to_str().unwrap()],
    );
    let drv = drv.trim_matches('"');
    let theirs = tempfile::tempdir().unwrap();
    nix.copy_to(theirs.path(), "xz", &key().reveal(), drv);
    // without any signature: derivations follow from their content
    for entry in std::fs::read_dir(theirs.path()).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "narinfo") {
            let text = std::fs::read_to_string(&file).unwrap();
            let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("Sig: ")).collect();
            std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        }
    }
    let server = Server::start(theirs.path()).await;
    let (store, all) = substituters(&[open(&server.url)]);
    let wanted = store.dir.parse(drv).unwrap();
    let answer = all.substitute(&[wanted], &()).await.unwrap();
    assert!(answer.failed.is_empty(), "{:?}", answer.failed);
    assert_eq!(registered(&store).await.len(), 21 + 2);
}
