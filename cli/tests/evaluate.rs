//! `igloo eval`, `igloo nix-instantiate` and `igloo evaluator`: what they leave in a store, recorded from Nix 2.34.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const DRV: &str =
    r#"derivation { name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "exit 1" ]; }"#;
const DRV_PATH: &str = "/nix/store/7py1zfb8a4j4nn5ywc2c3y350crq66sj-x.drv";

fn igloo(dir: &Path, store: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_igloo"));
    command
        .env_clear()
        .env("HOME", dir)
        .current_dir(dir)
        .args(["--store", store])
        .args(words);
    command
}

fn run(dir: &Path, words: &[&str]) -> Output {
    let store = format!("rocksdb://{}/store", dir.display());
    igloo(dir, &store, words).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn list(dir: &Path) -> String {
    stdout(&run(dir, &["store", "list"]))
}

#[test]
fn what_needs_no_store_opens_none() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let drv_path = format!("({DRV}).drvPath");
    for words in [
        &["eval", "-E", "1 + 1"][..],
        &["eval", "--read-only", "-E", &drv_path],
        &["nix-instantiate", "--eval", "-E", &drv_path],
        &["nix-instantiate", "--readonly-mode", "-E", DRV],
    ] {
        let output = run(dir, words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        assert!(
            ["2", DRV_PATH].contains(&stdout(&output).trim_matches('"')),
            "{words:?}: {}",
            stdout(&output)
        );
        assert!(!dir.join("store").exists(), "{words:?} made a store");
    }
}

#[test]
fn instantiating_writes() {
    for words in [
        &["nix-instantiate", "-E", DRV][..],
        &[
            "nix-instantiate",
            "--eval",
            "--read-write-mode",
            "--strict",
            "-E",
            DRV,
        ],
        &["eval", "--json", "-E", DRV],
    ] {
        let tmp = tempfile::tempdir().unwrap();
        let output = run(tmp.path(), words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        assert_eq!(list(tmp.path()), DRV_PATH, "{words:?}");
    }
}

#[test]
fn flags_that_cannot_be_obeyed_say_so() {
    let tmp = tempfile::tempdir().unwrap();
    let output = run(tmp.path(), &["nix-instantiate", "-E", DRV, "--add-root", "root"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("flag '--add-root' is not supported"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn failures_have_nix_s_status() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("file"), "content").unwrap();
    let fetch = format!(
        r#"builtins.fetchurl {{ url = "file://{}/file"; sha256 = "{}"; }}"#,
        tmp.path().display(),
        "0".repeat(52)
    );
    let output = run(tmp.path(), &["nix-instantiate", "--eval", "-E", &fetch]);
    assert_eq!(output.status.code(), Some(102), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("hash mismatch in file downloaded from"),
        "{}",
        stderr(&output)
    );
    let output = run(
        tmp.path(),
        &["nix-instantiate", "--eval", "-E", "1", "--option", "foo", "bar"],
    );
    assert_eq!(
        (stdout(&output).as_str(), stderr(&output).as_str()),
        ("1", "warning: unknown setting 'foo'\n")
    );
}

/// A server that is stopped when the test ends.
struct Server(Child);

impl Server {
    fn start(dir: &Path, store: &str, words: &[&str]) -> Self {
        let mut child = igloo(dir, store, words).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on"), "{line}");
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// A store, an evaluator over it and a command, each in a process of its own.
#[test]
fn an_evaluator_in_another_process_writes_to_the_store_of_both() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let embedded = format!("rocksdb://{}/store", dir.display());
    let socket = |name: &str| format!("unix:{}/{name}.sock", dir.display());
    let _daemon = Server::start(dir, &embedded, &["store", "daemon", "--listen", &socket("store")]);
    let store = format!("grpc+unix://{}/store.sock", dir.display());
    let _evaluator = Server::start(dir, &store, &["evaluator", "--listen", &socket("evaluator")]);
    let far = format!("evaluator = grpc+unix://{}/evaluator.sock", dir.display());
    let eval = |words: &[&str]| {
        igloo(dir, &store, words)
            .env("NIX_CONFIG", &far)
            .output()
            .unwrap()
    };
    let output = eval(&["nix-instantiate", "-E", DRV]);
    assert_eq!(
        (stdout(&output).as_str(), stderr(&output).as_str()),
        (DRV_PATH, "")
    );
    let listed = igloo(dir, &store, &["store", "list"]).output().unwrap();
    assert_eq!(stdout(&listed), DRV_PATH);
    let output = eval(&["eval", "-E", r#"builtins.trace "said" (throw "no")"#]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("trace: said\nerror:"),
        "{}",
        stderr(&output)
    );
}
