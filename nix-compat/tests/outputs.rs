//! Outputs that Nix builds: the references it finds, and the content address it gives to contents that name themselves.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::Nix;
use nix_compat::refscan::RefScanner;
use nix_compat::self_reference::SelfHasher;
use nix_compat::store_path::StoreReferences;
use nix_compat::{ContentAddress, ContentAddressMethod, HashAlgo, StorePath};

/// Outputs that name inputs in data, file names, symlink targets, across writes, overlapping, cut by a file's end, and not
/// at all; and themselves.
const OUTPUTS: &str = r#"
let
  drv = args: derivation ({ system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; } // args);
  run = name: env: script: drv ({ inherit name; args = [ "-c" "set -e\nhash() { p=\${1##*/}; printf %s \"\${p%%-*}\"; }\n${script}" ]; } // env);
  dep = n: run "dep-${toString n}" { } "echo ${toString n} > $out";
  deps = { a = dep 1; b = dep 2; c = dep 3; d = dep 4; };
in {
  plain = run "plain" deps "echo $a/x > $out";
  none = run "none" deps "echo nothing > $out";
  self = run "self" deps "echo $out $out > $out";
  hashOnly = run "hash-only" deps "echo x$(hash $a)y > $out";
  fileName = run "file-name" deps "mkdir $out; echo > $out/$(hash $b)";
  target = run "target" deps "mkdir $out; ln -s ../$(hash $c)-other $out/link";
  splitFiles = run "split-files" deps "mkdir $out; h=$(hash $a); printf %s \"\${h%????}\" > $out/1; printf %s \"\${h#????????}\" > $out/2";
  cut = run "cut" deps "h=$(hash $a); printf %s \"\${h%?}\" > $out";
  overlap = run "overlap" deps "printf %s%s%s 0123 $(hash $a)$(hash $b) abcd > $out";
  binary = run "binary" deps "printf '\\377\\0%s\\0' $(hash $d) > $out; chmod +x $out";
  many = run "many" deps "mkdir -p $out/d/e; echo $out > $out/d/self; echo $d$c > $out/d/e/x; ln -s $out/d $out/l";
  upper = run "upper" deps "hash $a | tr a-z A-Z > $out";
}
"#;

fn built(nix: &Nix) -> Vec<StorePath> {
    std::fs::write(nix.work().join("outputs.nix"), OUTPUTS).unwrap();
    let args = ["--option", "sandbox", "false", "--no-out-link", "outputs.nix"];
    nix.lines("nix-build", &args)
        .iter()
        .map(|path| nix.dir().parse(path).unwrap())
        .collect()
}

fn nar(nix: &Nix, path: &StorePath) -> Vec<u8> {
    nix.run("nix-store", &["--dump", &nix.dir().print(path)])
}

fn references(nix: &Nix, path: &StorePath) -> BTreeSet<StorePath> {
    let lines = nix.lines("nix-store", &["--query", "--references", &nix.dir().print(path)]);
    lines.iter().map(|path| nix.dir().parse(path).unwrap()).collect()
}

/// Every store path there is, as candidates: Nix's are the inputs and outputs, and nothing else is named.
fn candidates(physical: &Path) -> BTreeSet<StorePath> {
    let names = std::fs::read_dir(physical)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names
        .filter_map(|name| StorePath::parse(name.to_str()?).ok())
        .filter(|path| !path.is_derivation())
        .collect()
}

#[test]
fn references_of_built_outputs() {
    let Some(nix) = Nix::other_dir("references_of_built_outputs") else {
        return;
    };
    let outputs = built(&nix);
    assert_eq!(outputs.len(), 12);
    let candidates = candidates(&nix.physical());
    let mut found = 0;
    for output in &outputs {
        let mut scanner = RefScanner::new(&candidates);
        nar(&nix, output).chunks(50).for_each(|piece| scanner.feed(piece));
        let references = references(&nix, output);
        assert_eq!(scanner.found_of(&candidates), references, "{output}");
        found += references.len();
    }
    assert!(found >= 11, "{found} references");
}

/// `nix store make-content-addressed` moves a closure to the paths that follow from its contents.
#[test]
fn content_addresses_of_outputs_that_name_themselves() {
    let Some(nix) = Nix::other_dir("content_addresses_of_outputs_that_name_themselves") else {
        return;
    };
    let outputs = built(&nix);
    let paths: Vec<String> = outputs.iter().map(|path| nix.dir().print(path)).collect();
    let mut args = vec!["store", "make-content-addressed"];
    args.extend(paths.iter().map(String::as_str));
    let before = candidates(&nix.physical());
    nix.run("nix", &args);
    let moved: Vec<StorePath> = candidates(&nix.physical()).difference(&before).cloned().collect();
    let mut to_self = 0;
    for path in &moved {
        let mut references = StoreReferences {
            others: references(&nix, path),
            to_self: false,
        };
        references.to_self = references.others.remove(path);
        let mut hasher = SelfHasher::new(HashAlgo::Sha256, path);
        nar(&nix, path).chunks(100).for_each(|piece| hasher.update(piece));
        let hash = hasher.finish().unwrap();
        assert_eq!(hash.count > 0, references.to_self, "{path}");
        // which of the two depends on the version of the installed Nix
        let is_computed = [hash.hash, hash.hash_with_places].into_iter().any(|hash| {
            let address = ContentAddress::new(ContentAddressMethod::Recursive, hash).unwrap();
            let computed = nix
                .dir()
                .content_addressed_path(path.name(), &address, &references);
            computed.as_ref() == Ok(path)
        });
        assert!(is_computed, "{path}");
        to_self += usize::from(references.to_self);
    }
    assert!(
        moved.len() >= outputs.len() && to_self == 2,
        "{} moved, {to_self} name themselves",
        moved.len()
    );
}
