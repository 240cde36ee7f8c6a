//! What an evaluation leaves in the store is what C++ Nix leaves there: the same paths, bytes and references, compared
//! with the Nix of this machine, which gets a store of its own.
//!
//! Ours holds everything in memory and is not allowed to see the store that Nix fills.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use common::{FakeBuilds, Heard, json, memory_store, nar, records, runtime};
use igloo_store::{PathInfo, Store};
use igloo_store_io::{HostStore, StoreIo};
use igloo_testkit::skip;
use nix_compat::hash::NixHash;

/// A Nix with a store of its own.
struct Nix {
    tmp: tempfile::TempDir,
}

impl Nix {
    fn new() -> Option<Self> {
        if Command::new("nix-instantiate").arg("--version").output().is_err() {
            skip("there is no nix-instantiate to compare with");
            return None;
        }
        Some(Self {
            tmp: tempfile::tempdir().unwrap(),
        })
    }

    fn store_dir(&self) -> String {
        self.tmp.path().join("store").to_str().unwrap().to_owned()
    }

    fn run(&self, program: &str, base: &Path, arguments: &[&str]) -> Result<Vec<u8>, String> {
        let path = |name: &str| self.tmp.path().join(name);
        let output = Command::new(program)
            .args(arguments)
            .args([
                "--option",
                "build-users-group",
                "",
                "--option",
                "sandbox",
                "false",
            ])
            .args([
                "--option",
                "substituters",
                "",
                "--option",
                "system",
                "x86_64-linux",
            ])
            .current_dir(base)
            .env("NIX_STORE_DIR", self.store_dir())
            .env("NIX_LOCALSTATE_DIR", path("var"))
            .env("NIX_STATE_DIR", path("var/nix"))
            .env("NIX_LOG_DIR", path("log"))
            .env("NIX_CONF_DIR", path("conf"))
            .env("XDG_CACHE_HOME", path("cache"))
            .env("HOME", path("home"))
            .env("NIX_PATH", "")
            .env_remove("NIX_REMOTE")
            .output()
            .unwrap();
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn eval(&self, base: &Path, expression: &str) -> Result<String, String> {
        let arguments = [
            "--eval",
            "--strict",
            "--json",
            "--read-write-mode",
            "-E",
            expression,
        ];
        let out = self.run("nix-instantiate", base, &arguments)?;
        Ok(String::from_utf8(out).unwrap().trim().to_owned())
    }

    /// NAR hash and references by path, of everything registered.
    fn paths(&self) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let arguments = [
            "--extra-experimental-features",
            "nix-command",
            "path-info",
            "--all",
            "--json",
        ];
        let out = self.run("nix", self.tmp.path(), &arguments).unwrap();
        let infos: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let infos = infos.as_array().unwrap().iter();
        infos
            .map(|info| {
                let references = info["references"].as_array().unwrap().iter().map(text);
                (
                    text(&info["path"]),
                    (text(&info["narHash"]), references.collect()),
                )
            })
            .collect()
    }
}

/// A directory of sources with all that a tree can have.
fn sources() -> tempfile::TempDir {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let tmp = tempfile::tempdir().unwrap();
    let at = |path: &str| tmp.path().join(path);
    std::fs::create_dir_all(at("src/sub/deep")).unwrap();
    std::fs::create_dir_all(at("src/empty")).unwrap();
    std::fs::create_dir_all(at("src/.git")).unwrap();
    std::fs::write(at("src/.git/HEAD"), "ref").unwrap();
    std::fs::write(at("src/a.txt"), "hello\n").unwrap();
    std::fs::write(at("src/sub/deep/big"), vec![b'x'; 300_000]).unwrap();
    std::fs::write(at("src/sub/b.o"), "object").unwrap();
    std::fs::write(at("src/a-b"), "dash sorts before slash").unwrap();
    std::fs::write(at("src/run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(at("src/run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("sub/b.o", at("src/link")).unwrap();
    symlink("/absolute/nowhere", at("src/dangling")).unwrap();
    symlink("src/a.txt", at("to-file")).unwrap();
    symlink("src", at("to-dir")).unwrap();
    std::fs::write(
        at("src/default.nix"),
        "{ x = 1; text = builtins.readFile ./a.txt; path = ./sub; }",
    )
    .unwrap();
    std::fs::write(at("plain.nix"), "{ y ? 2 }: y + 1").unwrap();
    tmp
}

/// Evaluates in both worlds and compares values, stores and the order of derivations.
fn compare(expression: &str) {
    let Some(nix) = Nix::new() else { return };
    let tmp = sources();
    let theirs = nix.eval(tmp.path(), expression).unwrap();

    let runtime = runtime();
    let store = memory_store(&nix.store_dir());
    let heard = Arc::new(Heard::default());
    let io = Rc::new(
        StoreIo::new(store.clone(), runtime.handle().clone())
            .with_host_store(HostStore::Hidden)
            .with_sink(Arc::<Heard>::clone(&heard))
            .with_realiser(Arc::new(FakeBuilds(store.clone()))),
    );
    let ours = json(&io, tmp.path().to_str().unwrap(), expression).map_err(|error| error.render(true));
    assert_eq!(ours, Ok(theirs), "{expression}");
    io.flush().unwrap();

    let records = records(&runtime, &store);
    let print = |info: &PathInfo| {
        let references = info.references.iter().map(|path| store.dir.print(path)).collect();
        (NixHash::Sha256(info.nar_sha256).to_string(), references)
    };
    let found: BTreeMap<_, _> = records
        .iter()
        .map(|(path, info)| (path.clone(), print(info)))
        .collect();
    assert_eq!(
        found,
        nix.paths(),
        "paths, contents and references after {expression}"
    );
    for (path, info) in &records {
        runtime.block_on(store.verify(info)).unwrap();
        if info.path.is_derivation() {
            let nar = nar(&runtime, &store, info);
            let text = std::fs::read(path).unwrap();
            assert!(
                nar.windows(text.len()).any(|part| part == text),
                "the text of {path}"
            );
        }
    }
    check_order(&store, &records, &heard);
}

/// Every derivation written was heard of once, after those it needs.
fn check_order(store: &Store, records: &BTreeMap<String, PathInfo>, heard: &Heard) {
    let mut seen = BTreeSet::new();
    for (path, derivation) in heard.0.lock().unwrap().iter() {
        for input in derivation.input_drvs.keys() {
            assert!(seen.contains(input), "{path} comes before its input {input}");
        }
        assert!(seen.insert(path.clone()), "{path} comes twice");
    }
    let written = records.values().filter(|info| info.path.is_derivation());
    let written: BTreeSet<_> = written.map(|info| info.path.clone()).collect();
    assert_eq!(seen, written, "in {}", store.dir);
}

/// A derivation with the attributes every one needs.
const MK: &str = r#"let mk = name: attrs: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh";
    args = [ "-c" "printf %s \"$content\" > $out" ]; } // attrs); in "#;

fn compare_mk(expression: &str) {
    compare(&format!("{MK}{expression}"));
}

#[test]
fn path_literals() {
    compare(r#""${./src}""#);
    compare(
        r#"[ "${./src/a.txt}" "${./src/run}" "${./src/link}" "${./src/empty}" "${./to-file}" "${./to-dir}" ]"#,
    );
    compare(r#""${./src}" + "${./src/sub}" + "${./src}""#);
}

#[test]
fn filtered_sources() {
    compare(r#"builtins.filterSource (path: type: baseNameOf path != ".git") ./src"#);
    compare(r#"builtins.filterSource (path: type: type != "symlink" && type != "unknown") ./src"#);
    compare(r#"builtins.filterSource (path: type: type == "directory") ./src"#);
    compare("builtins.filterSource (path: type: false) ./src");
    compare("builtins.filterSource (path: type: true) ./src/a.txt");
    // what the filter is asked, and in which order
    compare(
        r#"let asked = builtins.filterSource (path: type: builtins.substring 0 1 (baseNameOf path) != "s") ./src;
        in [ asked (builtins.readDir asked) ]"#,
    );
}

#[test]
fn builtins_path() {
    compare(r#"builtins.path { path = ./src; }"#);
    compare(r#"builtins.path { path = ./src; name = "other"; }"#);
    compare(r#"builtins.path { path = ./src/run; recursive = false; }"#);
    compare(r#"builtins.path { path = ./src/run; name = "x"; recursive = true; }"#);
    compare(r#"builtins.path { path = ./to-file; recursive = false; name = "followed"; }"#);
    compare(
        r#"builtins.path { path = ./src; name = "f"; filter = path: type: type == "directory" || baseNameOf path == "a.txt"; }"#,
    );
    compare(
        r#"builtins.path { path = ./src/a.txt; recursive = false;
            sha256 = builtins.hashString "sha256" "hello\n"; }"#,
    );
}

/// The hash of a tree, given, and a wrong one.
#[test]
fn expected_hashes() {
    let Some(nix) = Nix::new() else { return };
    let tmp = sources();
    let path = tmp.path().join("src/sub");
    let out = nix.run(
        "nix-hash",
        tmp.path(),
        &["--type", "sha256", "--base32", path.to_str().unwrap()],
    );
    // `nix-hash` takes no `--option`
    let hash = match out {
        Ok(out) => String::from_utf8(out).unwrap().trim().to_owned(),
        Err(_) => {
            let out = Command::new("nix-hash")
                .args(["--type", "sha256", "--base32", path.to_str().unwrap()])
                .output()
                .unwrap();
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        }
    };
    let right = format!(r#"builtins.path {{ path = ./src/sub; sha256 = "{hash}"; }}"#);
    compare(&right);
    // the source need not even be there when the path is
    let absent = format!(
        r#"let first = {right}; in builtins.seq first
            (builtins.path {{ path = ./absent; name = "sub"; sha256 = "{hash}"; }})"#
    );
    compare(&absent);
    let wrong = format!(r#"builtins.path {{ path = ./src; sha256 = "{hash}"; }}"#);
    let theirs = nix.eval(tmp.path(), &wrong).unwrap_err();
    let runtime = runtime();
    let store = memory_store(&nix.store_dir());
    let io = Rc::new(StoreIo::new(store, runtime.handle().clone()));
    let ours = json(&io, tmp.path().to_str().unwrap(), &wrong)
        .unwrap_err()
        .message
        .clone();
    let message = ours.lines().next().unwrap();
    assert!(
        message.starts_with("store path mismatch") && theirs.contains("store path mismatch"),
        "{ours}\n{theirs}"
    );
}

#[test]
fn texts() {
    compare(r#"builtins.toFile "x" """#);
    compare(r#"builtins.toFile "x" "text\n""#);
    compare(r#"builtins.toFile "y" "refers to ${builtins.toFile "x" "text"} and ${./src/a.txt}""#);
    compare(r#"let x = builtins.toFile "x" "self"; in builtins.readFile (builtins.toFile "y" "${x} ${x}")"#);
}

#[test]
fn derivations() {
    compare_mk(r#"(mk "one" { }).drvPath"#);
    compare_mk(r#"(mk "src" { src = ./src; text = builtins.toFile "t" "t"; }).drvPath"#);
    compare_mk(
        r#"let a = mk "a" { outputs = [ "out" "dev" ]; }; b = mk "b" { inherit a; inherit (a) dev; };
           c = mk "c" { inputs = [ a b a.dev ./src ]; }; in [ c.outPath c.drvPath b.outPath ]"#,
    );
    compare_mk(
        r#"(mk "fixed" { outputHash = builtins.hashString "sha256" "x"; outputHashAlgo = "sha256"; outputHashMode = "flat"; }).drvPath"#,
    );
    compare_mk(r#"(mk "deep" { drv = (mk "inner" { src = ./src/sub; }).drvPath; }).drvPath"#);
    compare_mk(r#"(mk "structured" { __structuredAttrs = true; list = [ 1 "two" ./src/a.txt ]; }).drvPath"#);
    // 300 in a chain: more than one batch
    compare_mk(
        r#"let chain = n: if n == 0 then mk "end" { } else mk "link-${toString n}" { before = chain (n - 1); };
           in (chain 300).drvPath"#,
    );
}

#[test]
fn reading_store_paths() {
    compare(r#"builtins.readFile "${./src}/a.txt""#);
    compare(r#"builtins.readFile "${./src}/link""#);
    compare(r#"builtins.readFile (builtins.toFile "x" "text")"#);
    compare(r#"builtins.readDir "${./src}""#);
    compare(r#"builtins.readDir "${./src}/sub/deep""#);
    compare(
        r#"[ (builtins.pathExists "${./src}/a.txt") (builtins.pathExists "${./src}/none") (builtins.pathExists "${./src}/a.txt/x") ]"#,
    );
    compare(r#"builtins.hashFile "sha256" "${./src}/sub/deep/big""#);
    compare(r#"(import "${./src}").text"#);
    compare(r#"import "${./plain.nix}" { y = 40; }"#);
    compare(r#"import (builtins.toFile "x.nix" "1 + 1")"#);
}

#[test]
fn copies_of_store_paths() {
    compare(r#"builtins.path { path = "${./src}/sub"; name = "again"; }"#);
    compare(
        r#"builtins.path { path = "${./src}"; name = "filtered"; filter = path: type: baseNameOf path != ".git"; }"#,
    );
    compare(r#"builtins.path { path = "${./src}/run"; name = "flat"; recursive = false; }"#);
    compare(r#"builtins.filterSource (path: type: type == "directory") "${./src}/sub""#);
}

#[test]
fn import_from_derivation() {
    compare_mk(r#"import (mk "expr.nix" { content = "{ a = 41; }"; })"#);
    compare_mk(
        r#"let generated = import (mk "gen.nix" { content = "{ name = \"made\"; value = 7; }"; });
           in (mk generated.name { inherit (generated) value; src = ./src/a.txt; }).drvPath"#,
    );
    compare_mk(
        r#"let text = mk "text" { content = "some text"; };
           in (mk "user" { read = builtins.readFile text; inherit text; }).drvPath"#,
    );
    compare_mk(r#"builtins.pathExists "${mk "there" { content = "x"; }}""#);
    compare_mk(
        r#"builtins.path { path = "${mk "copied" { content = "some text"; }}"; name = "copy"; recursive = false; }"#,
    );
}

#[test]
fn derivations_read_back() {
    compare_mk(r#"let drv = mk "x" { }; in (import drv.drvPath).outPath"#);
    compare_mk(r#"let drv = mk "x" { src = ./src/a.txt; }; in builtins.readFile drv.drvPath"#);
    compare_mk(
        r#"let drv = mk "x" { }; again = import drv.drvPath; in (mk "y" { inherit again; deep = drv.drvPath; }).drvPath"#,
    );
}
