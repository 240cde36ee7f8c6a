//! `igloo repl` on a pipe, compared with what `nix repl` of Nix 2.34 prints for the same input.
//!
//! `repl/NAME.in` is a session, `NAME.out` and `NAME.err` what Nix writes to stdout and stderr: without colours, prompts,
//! the echo of the input, and empty lines. They are recorded from the Nix that `IGLOO_TEST_NIX` names (with
//! `IGLOO_TEST_RECORD=1`) and never edited. What differs on purpose is not in these sessions but tested below: bindings
//! that go on in the next line, `:i` (Nix installs, we instantiate), `:b`, `:bl`, `:u`, `:sh` (not done from here), `:env`, hints, the richer
//! traces of our evaluator (what an attribute is selected from), and that a set whose only attribute fails prints no brace first.
#![allow(clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "repl/terminal.rs"]
mod terminal;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SESSIONS: [&str; 5] = ["values", "bindings", "lines", "commands", "errors"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/repl")
}

/// What a session wrote.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    out: String,
    err: String,
}

fn talk(program: &Path, arguments: &[&str], input: &str) -> Answer {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder())
        .env("NIX_REMOTE", "dummy://")
        .env("IGLOO_STORE", "memory:")
        .env("HOME", "/homeless")
        .env("NO_COLOR", "1")
        .env_remove("NIX_PATH")
        .env_remove("NIX_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(input.as_bytes())
        .expect("the session reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("the session ends");
    assert!(output.status.success(), "{output:?}");
    let here = folder().display().to_string();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8").replace(&here, "/here");
    Answer {
        out: bare(&text(output.stdout)),
        err: bare(&text(output.stderr)),
    }
}

fn igloo(arguments: &[&str], input: &str) -> Answer {
    let arguments = [&["repl"], arguments].concat();
    talk(Path::new(env!("CARGO_BIN_EXE_igloo")), &arguments, input)
}

/// The lines of an answer: without colours, echoed input, empty lines, and what Nix greets with.
fn bare(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    let is_told = |line: &&str| {
        let echoed = ["nix-repl>", "        >", "Nix 2.", "Type :?"];
        !line.trim().is_empty() && !echoed.iter().any(|start| line.starts_with(start))
    };
    plain
        .lines()
        .filter(is_told)
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn sessions_are_answered_as_nix_answers_them() {
    for name in SESSIONS {
        let file = |end: &str| folder().join(format!("{name}.{end}"));
        let read = |end| std::fs::read_to_string(file(end)).unwrap_or_else(|e| panic!("{name}.{end}: {e}"));
        let answer = igloo(&[], &read("in"));
        assert_eq!(answer.out, read("out"), "stdout of {name}");
        assert_eq!(answer.err, read("err"), "stderr of {name}");
    }
}

#[test]
fn the_recorded_sessions_are_what_nix_says() {
    let Some(nix) = std::env::var_os("IGLOO_TEST_NIX").map(PathBuf::from) else {
        igloo_testkit::skip("IGLOO_TEST_NIX does not name the `nix` of Nix 2.34");
        return;
    };
    for name in SESSIONS {
        let file = |end: &str| folder().join(format!("{name}.{end}"));
        let input = std::fs::read_to_string(file("in")).expect("a session");
        let answer = talk(
            &nix,
            &["repl", "--extra-experimental-features", "nix-command"],
            &input,
        );
        if std::env::var_os("IGLOO_TEST_RECORD").is_some() {
            std::fs::write(file("out"), &answer.out).expect("a recording");
            std::fs::write(file("err"), &answer.err).expect("a recording");
        }
        let recorded = |end| std::fs::read_to_string(file(end)).unwrap_or_default();
        let recorded = Answer {
            out: recorded("out"),
            err: recorded("err"),
        };
        assert_eq!(answer, recorded, "{name}");
    }
}

#[test]
fn a_binding_goes_on_in_the_next_line() {
    let answer = igloo(&[], "x =\n5\nx\na = 1; b =\n2\nb\n");
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("5\n2\n", ""));
    let answer = igloo(&[], "x = )\n(1");
    assert!(answer.err.contains("unexpected ')'"), "{answer:?}");
    assert!(answer.err.contains("unexpected end of file"), "{answer:?}");
}

#[test]
fn the_command_line_fills_the_scope() {
    let arguments = [
        "./files",
        "./files/function.nix",
        "--arg",
        "x",
        "7",
        "--expr",
        "{ e = 1; }",
    ];
    let answer = igloo(&arguments, "[ p x e ]\n:env\n");
    assert_eq!(answer.out, "[\n  1\n  7\n  1\n]\ne\np\nq\nx\n");
    assert_eq!(
        answer.err,
        "Added 2 variables.\np, q\nAdded 1 variables.\nx\nAdded 1 variables.\ne\n"
    );
    let answer = igloo(&["./nothing", "./files"], "p\n");
    assert!(answer.err.contains("/here/nothing' does not exist"), "{answer:?}");
    assert_eq!(answer.out, "1\n");
}

#[test]
fn derivations_are_named_and_not_built_from_here() {
    let package = r#"derivation { name = "d"; system = "x86_64-linux"; builder = "/bin/sh"; }"#;
    let answer = igloo(
        &[],
        &format!("d = {package}\nd\n:i d\n:b d\n:bl d\n:u d\n:sh d\n"),
    );
    let lines: Vec<&str> = answer.out.lines().collect();
    let [shown, instantiated] = lines[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(shown, format!("«derivation {instantiated}»"));
    assert!(instantiated.ends_with("-d.drv"), "{instantiated}");
    let count = |text| answer.err.matches(text).count();
    assert_eq!(
        count("is not built from here yet\nhint: `igloo build "),
        2,
        "{answer:?}"
    );
    assert_eq!(count("igloo starts no shells"), 2, "{answer:?}");
}

#[test]
fn a_flake_needs_the_feature() {
    let answer = igloo(&[], ":lf .\n");
    assert!(answer.err.contains("'flakes' is disabled"), "{answer:?}");
}
