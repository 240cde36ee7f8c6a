//! The bounds a caller sets to what an evaluation may use.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::rc::Rc;

use igloo_eval::io::MemoryIo;
use igloo_eval::{Error, ErrorKind, Evaluation, Format, Origin, Settings};
use nix_compat::store_path::StoreDir;

fn eval(settings: Settings, text: &str) -> Result<Vec<u8>, Error> {
    let world = MemoryIo::new(StoreDir::default());
    let mut evaluation = Evaluation::new(settings, Rc::new(world));
    let root = evaluation.eval_text(text.as_bytes(), Origin::String)?;
    evaluation.print(root, Format::Nix, true)
}

fn steps(max_steps: u64) -> Settings {
    Settings {
        max_steps,
        ..Settings::default()
    }
}

fn heap(max_heap_bytes: usize) -> Settings {
    Settings {
        max_heap_bytes,
        ..Settings::default()
    }
}

/// Calls count, however they are made, and `tryEval` does not catch the end of them.
#[test]
fn steps_are_bounded() {
    let hundred = "builtins.length (map (x: x) (builtins.filter (x: true) (builtins.genList (x: x) 100)))";
    assert_eq!(eval(steps(1_000), hundred).expect("enough"), b"100");
    for endless in [
        hundred,
        "let f = x: f x; in f 1",
        "builtins.tryEval (let f = x: f x; in f 1)",
        "builtins.foldl' (a: b: a + b) 0 (builtins.genList (x: x) 1000)",
        "let x = builtins.genList (x: x) 1000; in x == builtins.genList (x: x) 1000",
        "builtins.genericClosure { startSet = [ { key = 0; } ]; operator = x: [ { key = x.key + 1; } ]; }",
    ] {
        let error = eval(steps(100), endless).expect_err(endless);
        assert_eq!(error.kind, ErrorKind::Limit, "{endless}");
        assert_eq!(error.message, "the evaluation has made the 100 calls it may make");
        assert_eq!(error.code(), igloo_status::Code::ResourceExhausted);
    }
}

#[test]
fn memory_is_bounded() {
    let text = "builtins.stringLength (builtins.foldl' (s: _: s + s) \"0123456789abcdef\" (builtins.genList (x: x) 16))";
    assert_eq!(eval(heap(64 << 20), text).expect("enough"), b"1048576");
    for greedy in [
        text.replace("16)", "60)").as_str(),
        "builtins.foldl' (l: _: l ++ l) [ 1 ] (builtins.genList (x: x) 60)",
        "builtins.length (builtins.genList (x: x) 1000000000)",
        "let f = n: [ n (f (n + 1)) ]; g = n: builtins.deepSeq (builtins.genList (x: [ x ]) 1000) (g (n + 1)); in g 0",
    ] {
        let error = eval(heap(64 << 20), greedy).expect_err(greedy);
        assert!(
            matches!(error.kind, ErrorKind::Limit | ErrorKind::Eval),
            "{greedy}: {}",
            error.message
        );
    }
}
