//! Hostile input ends in an answer or an error: never in a signal, never in silence.
//!
//! Each case runs in a process of its own, so that a crash is seen as one.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{Seek as _, Write as _};
use std::process::Stdio;

use igloo_integration::{World, finish_reading};

/// How deep is deep.
const N: usize = 1_000_000;

fn run(text: &[u8], words: &[&str]) -> (Option<i32>, String, String) {
    let world = World::new();
    let mut stdin = tempfile::tempfile().expect("a temporary file");
    stdin.write_all(text).expect("room for the expression");
    stdin.rewind().expect("a file can be read again");
    let mut command = world.igloo();
    command.arg("nix-instantiate").args(words).arg("-");
    let ended = finish_reading(&mut command, Stdio::from(stdin));
    let stdout = String::from_utf8_lossy(&ended.stdout).into_owned();
    (ended.code, stdout, ended.stderr)
}

fn eval(text: impl AsRef<[u8]>) -> (Option<i32>, String, String) {
    run(text.as_ref(), &["--eval", "--strict"])
}

/// Fails with an `error:` and exit status 1.
fn fails(name: &str, text: impl AsRef<[u8]>) {
    let (code, _, stderr) = eval(text);
    assert_eq!(code, Some(1), "{name}");
    assert!(stderr.contains("error:"), "{name} says nothing");
}

/// Answers this.
fn answers(name: &str, text: impl AsRef<[u8]>, expected: &str) {
    let (code, stdout, stderr) = eval(text);
    let tail: String = stderr
        .chars()
        .rev()
        .take(200)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    assert_eq!((code, stdout.trim_end()), (Some(0), expected), "{name}: {tail}");
}

#[test]
fn nesting_a_million_deep() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{a=", ";}"),
        ("\"${", "}\""),
        ("''${", "}''"),
        ("!", ""),
        ("-", ""),
        ("if true then ", " else 1"),
        ("let a=1; in ", ""),
        ("with {}; ", ""),
        ("x: ", ""),
        ("{}// ", ""),
        ("f: f ", ""),
    ] {
        fails(open, format!("{}1{}", open.repeat(N), close.repeat(N)));
        fails(open, open.repeat(N));
    }
    fails("attribute path", format!("{{{}a=1;}}", "a.".repeat(N)));
    answers("selection", format!("{{}}.{}a or 1", "a.".repeat(N)), "1");
}

#[test]
fn chains_a_million_long() {
    answers("sum", format!("0{}", "+1".repeat(N)), "1000000");
    answers("difference", format!("0{}", " - 1".repeat(N)), "-1000000");
    answers("or", format!("false{}", "||false".repeat(N)), "false");
    fails("application", format!("(x: x) {}", "1 ".repeat(N)));
    answers(
        "length",
        format!("builtins.length [ {} ]", "1 ".repeat(N)),
        "1000000",
    );
}

const DEEP: &str = "builtins.foldl' (a: x: [ a ]) null (builtins.genList (x: x) 1000000)";

#[test]
fn values_a_million_deep() {
    for use_of in [
        "",
        "builtins.toJSON ",
        "builtins.toXML ",
        "toString ",
        "(x: builtins.deepSeq x 1) ",
    ] {
        fails(use_of, format!("{use_of}({DEEP})"));
    }
    fails("equality", format!("({DEEP}) == ({DEEP})"));
    fails("order", format!("({DEEP}) < ({DEEP})"));
    answers("laziness", format!("builtins.seq ({DEEP}) 1"), "1");
    let chain: String = (0..200_000).map(|i| format!("a{} = a{i} + 1; ", i + 1)).collect();
    answers("variables", format!("let {chain} a0 = 0; in a200000"), "200000");
    fails(
        "JSON",
        format!("builtins.fromJSON \"{}{}\"", "[".repeat(N), "]".repeat(N)),
    );
}

#[test]
fn circles() {
    answers("set", "let x = { y = x; }; in x", "{ y = «repeated»; }");
    answers("deepSeq", "let x = { y = x; }; in builtins.deepSeq x 1", "1");
    for circle in [
        "let x = x; in x",
        "let a = b; b = a; in a",
        "let inherit (a) a; in a",
        "let x = with x; x; in x",
        "let x = { y = x; }; in builtins.toJSON x",
        "let x = { y = x; }; z = { y = z; }; in x == z",
        "({ a ? b, b ? a }: a) { }",
        "let f = { __functor = f; }; in f 1",
        "let f = { __toString = self: self; }; in toString f",
        "let f = { outPath = f; }; in \"${f}\"",
        "rec { __overrides = __overrides; a = 1; }",
        "(x: x x) (x: x x)",
    ] {
        fails(circle, circle);
    }
}

#[test]
fn calls_as_deep_as_asked_for() {
    let text = "let f = n: if n == 0 then 0 else 1 + f (n - 1); in f 500000";
    let (code, stdout, _) = run(
        text.as_bytes(),
        &["--eval", "--option", "max-call-depth", "1000000"],
    );
    assert_eq!((code, stdout.trim_end()), (Some(0), "500000"));
    let text = "let f = n: 1 + f (n - 1); in f 0";
    let (code, _, stderr) = run(
        text.as_bytes(),
        &["--eval", "--option", "max-call-depth", "4000000000"],
    );
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("stack overflow (possible infinite recursion)"),
        "the native stack ends first"
    );
}

#[test]
fn bytes_of_any_kind() {
    answers("not UTF-8", b"builtins.stringLength \"\xff\xfe\"", "2");
    fails("not UTF-8, as JSON", b"builtins.toJSON \"\xff\"");
    fails("not UTF-8, as a name", b"let \xff = 1; in 1");
    fails("NUL in a string", b"\"a\0b\"");
    fails("NUL between tokens", b"1 \0 2");
    fails("nothing", b"");
    fails("an open comment", b"/* ");
    fails(
        "a list too long",
        b"builtins.length (builtins.genList (x: x) 100000000000)",
    );
    answers(
        "a pattern that backtracks",
        format!("builtins.match \"(a*)*b\" \"{}\"", "a".repeat(5000)),
        "null",
    );
    answers(
        "no order",
        b"builtins.length (builtins.sort (a: b: true) (builtins.genList (x: x) 1000))",
        "1000",
    );
}
