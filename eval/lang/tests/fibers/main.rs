//! Import from derivation: what does not need a build goes on while it runs, and nobody can tell from the result.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod model;
mod world;

use std::ops::ControlFlow;

use igloo_eval::{Answer, Format, Origin, Question, Wanted};
use world::{Answers, World};

/// `ifd NAME TEXT` is the value of TEXT, once a derivation called NAME is built; `drv` makes derivations.
const PRELUDE: &str = r#"let
  drv = args: derivation ({ system = "s"; builder = "b"; } // args);
  ifd = name: text: import (drv { inherit name text; });
in "#;

fn expr(text: &str) -> String {
    format!("{PRELUDE}{text}")
}

/// Evaluates in a world that answers only `together` asks at a time, and compares with one that blocks.
fn same(text: &str, together: usize) -> std::rc::Rc<World> {
    let text = expr(text);
    let blocking = World::new(Answers::Blocking).eval(&text, Format::Nix);
    let world = World::new(Answers::Together(together));
    assert_eq!(world.eval(&text, Format::Nix), blocking, "{text}");
    world
}

/// Values asked for together.
fn asks_together(text: &str, together: usize, expected: &str) {
    let world = World::new(Answers::Together(together));
    assert_eq!(world.eval(&expr(text), Format::Nix).as_deref(), Ok(expected));
    assert_eq!(world.most(), together, "{text}");
}

#[test]
fn two_in_a_list() {
    asks_together(r#"[ (ifd "a" "1") (ifd "b" "2") ]"#, 2, "[ 1 2 ]");
}

#[test]
fn fetches_too() {
    let world = World::new(Answers::Together(2));
    let text = r#"map baseNameOf [ (builtins.fetchurl "http://h/a") (builtins.fetchurl "http://h/b") ]"#;
    let result = world.eval(text, Format::Nix).expect("two paths");
    assert!(result.contains("-a\"") && result.contains("-b\""), "{result}");
    assert_eq!(world.most(), 2);
}

#[test]
fn two_in_a_set() {
    asks_together(
        r#"{ x = ifd "a" "1"; y.z = [ (ifd "b" "2") ]; }"#,
        2,
        "{ x = 1; y = { z = [ 2 ]; }; }",
    );
}

#[test]
fn under_deep_seq_and_json() {
    asks_together(
        r#"builtins.deepSeq [ (ifd "a" "1") [ (ifd "b" "2") ] ] 3"#,
        2,
        "3",
    );
    asks_together(
        r#"builtins.toJSON { a = ifd "a" "1"; b = { c = ifd "b" "2"; d = [ (ifd "c" "3") ]; }; }"#,
        3,
        r#""{\"a\":1,\"b\":{\"c\":2,\"d\":[3]}}""#,
    );
    let world = World::new(Answers::Together(2));
    let text = expr(r#"{ a = ifd "a" "1"; b = [ (ifd "b" "2") ]; }"#);
    assert_eq!(
        world.eval(&text, Format::Json).as_deref(),
        Ok(r#"{"a":1,"b":[2]}"#)
    );
}

#[test]
fn attributes_of_a_derivation() {
    for attrs in [
        r#"x = ifd "a" "1"; y = ifd "b" "2";"#,
        r#"buildInputs = [ (drv { name = "c"; x = ifd "a" "1"; }) (drv { name = "d"; x = ifd "b" "2"; }) ];"#,
        r#"args = [ (ifd "a" "1") (ifd "b" "2") ];"#,
        r#"__structuredAttrs = true; x = { y = ifd "a" "1"; }; z = [ (ifd "b" "2") ];"#,
        r#"__ignoreNulls = true; x = ifd "a" "null"; y = ifd "b" "2"; z = null;"#,
    ] {
        let world = same(&format!(r#"(drv {{ name = "n"; {attrs} }}).drvPath"#), 2);
        assert_eq!(world.most(), 2, "{attrs}");
        // inputs first, and everything once: the world checks
        assert_eq!(world.count("write n"), 1);
    }
}

#[test]
fn derivations_of_a_set() {
    let text = expr(
        r#"{ a = drv { name = "n"; x = ifd "a" "1"; }; b = { recurseForDerivations = true; c = drv { name = "m"; x = ifd "b" "2"; }; }; l = 1; }"#,
    );
    let found = |answers| {
        let world = World::new(answers);
        let found = world.with(|evaluation| {
            let root = evaluation.eval_text(text.as_bytes(), Origin::String)?;
            let mut all = Vec::new();
            evaluation.derivations(root, &[], &mut |found| {
                all.push(found);
                ControlFlow::Continue(())
            })?;
            Ok(format!("{all:?}").into_bytes())
        });
        (found, world.most())
    };
    let (blocking, _) = found(Answers::Blocking);
    assert!(blocking.is_ok());
    assert_eq!(found(Answers::Together(2)), (blocking, 2));
}

#[test]
fn several_goals() {
    let text = expr(r#"{ a = [ (ifd "a" "1") ]; b = x: ifd "b" "2"; c = throw "c"; d = ifd "d" "4"; }"#);
    let ask = |paths: &[&str], stop: usize| {
        let world = World::new(Answers::Together(2));
        let mut heard = Vec::new();
        let result = world.with(|evaluation| {
            let root = evaluation.eval_text(text.as_bytes(), Origin::String)?;
            let question = Question {
                what: Wanted::Text {
                    format: Format::Nix,
                    strict: true,
                },
                call: false,
            };
            let paths: Vec<String> = paths.iter().map(|p| (*p).to_owned()).collect();
            evaluation.ask(root, &paths, &[], question, &mut |answer| {
                if let Answer::Text(text) = answer {
                    heard.push(String::from_utf8_lossy(&text).into_owned());
                }
                if heard.len() == stop {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            Ok(Vec::new())
        });
        (result, heard)
    };
    assert_eq!(
        ask(&["a", "d"], 9),
        (Ok(String::new()), vec!["[ 1 ]".to_owned(), "4".to_owned()])
    );
    // the error of the third is told after the first two were answered
    let (result, heard) = ask(&["a", "d", "c"], 9);
    assert_eq!(heard.len(), 2);
    assert!(result.is_err_and(|e| e.ends_with("error: c")));
    let (result, heard) = ask(&["a", "d", "c"], 1);
    assert_eq!((result, heard.len()), (Ok(String::new()), 1));
}

#[test]
fn what_needs_no_build_goes_on_meanwhile() {
    let world = same(r#"{ a = ifd "a" "1"; b = builtins.trace "unrelated" 2; }"#, 1);
    let log = world.log();
    let at = |event: &str| log.iter().position(|e| e == event);
    assert!(at("trace unrelated") > at("ask a") && at("trace unrelated") < at("answer a"));
    assert_eq!(world.count("trace unrelated"), 1);
}

#[test]
fn nothing_runs_early_when_nothing_waits() {
    let world = World::new(Answers::Together(1));
    let text = expr(r#"[ (builtins.trace "1" 1) (throw "x") (builtins.trace "2" 2) ]"#);
    assert!(world.eval(&text, Format::Nix).is_err());
    assert_eq!(world.log(), ["trace 1"]);
}

#[test]
fn values_that_need_each_other_across_fibers() {
    for text in [
        r#"let a = builtins.seq (ifd "a" "1") b; b = builtins.seq (ifd "b" "2") a; in [ a b ]"#,
        r#"let a = builtins.seq (ifd "a" "1") c; b = builtins.seq (ifd "b" "2") a; c = builtins.seq (ifd "c" "3") b; in { inherit c b a; }"#,
        r#"let d = drv { name = "n"; x = ifd "a" "1"; y = d.drvPath; }; in d.drvPath"#,
        r#"let a = [ (ifd "a" "1") (builtins.seq (ifd "b" "2") (builtins.length l)) ]; l = builtins.deepSeq a [ ]; in l"#,
    ] {
        let world = same(text, 1);
        assert_eq!(world.open(), 0);
        let result = World::new(Answers::Together(1)).eval(&expr(text), Format::Nix);
        assert!(
            result.is_err_and(|e| e.contains("infinite recursion encountered")),
            "{text}"
        );
    }
}

#[test]
fn waiting_for_each_other_is_no_recursion() {
    asks_together(
        r#"let a = ifd "a" "1"; b = ifd "b" "2"; in [ (a + b) (b + a) [ a b ] ]"#,
        2,
        "[ 3 3 [ 1 2 ] ]",
    );
}

#[test]
fn the_first_error_in_order_is_the_one() {
    for text in [
        r#"[ (ifd "a" "1") (ifd "b" "fail") (throw "x") ]"#,
        r#"[ (ifd "a" "1") (throw "x") (ifd "b" "fail") ]"#,
        r#"{ a = ifd "a" "fail"; b = throw "x"; }"#,
        r#"drv { name = "n"; a = ifd "a" "1"; b = throw "x"; c = ifd "c" "fail"; }"#,
        r#"builtins.toJSON { a = ifd "a" "1"; b.c = throw "x"; }"#,
        r#"let t = throw "x" + ifd "a" "1"; u = [ (ifd "b" "1") t ]; in [ u t ]"#,
        r#"builtins.tryEval (builtins.deepSeq [ (ifd "a" "1") (throw "x") (ifd "b" "1") ] 1)"#,
        r#"[ (ifd "a" "1") (builtins.tryEval (throw "x")) (builtins.tryEval (ifd "b" "fail")) ]"#,
        r#"builtins.addErrorContext "outer ${toString (ifd "c" "1")}" [ (ifd "a" "1") (ifd "b" "fail") ]"#,
    ] {
        let world = same(text, 1);
        // nobody asks twice for the same
        let mut asks: Vec<_> = world.log().into_iter().filter(|e| e.starts_with("ask")).collect();
        let all = asks.len();
        asks.sort();
        asks.dedup();
        assert_eq!(asks.len(), all, "{text}");
    }
}

#[test]
fn what_is_no_longer_wanted_is_dropped() {
    let world = World::new(Answers::Together(2));
    let text = expr(
        r#"builtins.tryEval (builtins.deepSeq [ (builtins.seq (ifd "a" "1") (throw "x")) (builtins.seq (ifd "b" "2") (ifd "c" "3")) ] 1)"#,
    );
    assert_eq!(
        world.eval(&text, Format::Nix).as_deref(),
        Ok("{ success = false; value = false; }")
    );
    // `c` is asked for or not, depending on who goes on first; if it is, nobody waits for it
    assert_eq!(world.count("answer c"), 0);
}

#[test]
fn builds_that_need_builds() {
    let inner = r#"import (derivation { name = \"inner\"; text = \"5\"; system = \"s\"; builder = \"b\"; })"#;
    let world = same(&format!(r#"[ (ifd "outer" "{inner}") (ifd "b" "2") ]"#), 1);
    assert_eq!((world.count("ask outer"), world.count("ask inner")), (1, 1));
}

#[test]
fn a_shared_value_is_computed_once() {
    let world = same(
        r#"let s = builtins.trace "once" (ifd "s" "1"); in [ s (s + 1) { x = s; } [ s ] (toString s) ]"#,
        1,
    );
    assert_eq!((world.count("trace once"), world.count("ask s")), (1, 1));
}

#[test]
fn a_shared_failure_is_met_once() {
    let world = same(
        r#"let s = builtins.trace "once" (ifd "s" "fail"); in { a = [ (ifd "a" "1") s ]; b = s; c = { x = s; }; }"#,
        1,
    );
    assert_eq!((world.count("trace once"), world.count("ask s")), (1, 1));
}

#[test]
fn a_world_that_gives_up_fails_whoever_waits() {
    let text = expr(r#"[ (ifd "a" "1") (ifd "b" "2") (ifd "c" "3") (builtins.trace "done" 4) ]"#);
    for waits in 0..3 {
        let world = World::new(Answers::GivesUpAfter(waits));
        let error = world.eval(&text, Format::Nix).expect_err("no answer");
        assert!(error.contains("nobody answers any more"), "{error}");
        assert!(error.contains(&format!("index {waits}")), "{error}");
    }
    let world = World::new(Answers::GivesUpAfter(3));
    assert_eq!(world.eval(&text, Format::Nix).as_deref(), Ok("[ 1 2 3 4 ]"));
}

#[test]
fn cyclic_structures_are_walked_once() {
    for text in [
        r#"let r = { a = ifd "a" "1"; b = { up = r; x = ifd "b" "2"; }; c = r.b; }; in builtins.deepSeq r r.b.x"#,
        r#"let r = { a = ifd "a" "1"; b = { up = r; x = ifd "b" "2"; }; c = r.b; d = throw "x"; }; in builtins.deepSeq r 1"#,
        r#"let r = { a = ifd "a" "1"; b = { up = r; }; d = throw "x"; e = r; }; in builtins.deepSeq r 1"#,
    ] {
        same(text, 1);
    }
}

#[test]
fn ten_thousand_builds_are_bounded() {
    let world = World::new(Answers::Together(1));
    let text = expr(
        r#"let l = builtins.genList (i: ifd "n${toString i}" (toString i)) 10000; in builtins.foldl' (a: b: a + b) 0 (builtins.deepSeq l l)"#,
    );
    assert_eq!(world.eval(&text, Format::Nix).as_deref(), Ok("49995000"));
    assert_eq!(world.most(), 65);
}

#[test]
fn deep_evaluation_in_a_fiber_has_the_usual_limits() {
    let deep = r#"let f = n: if n == 0 then 0 else 1 + f (n - 1); in"#;
    asks_together(
        &format!(r#"{deep} [ (ifd "a" "1") (f 9000 + ifd "b" "2") ]"#),
        2,
        "[ 1 9002 ]",
    );
    same(&format!(r#"{deep} [ (ifd "a" "1") (f 20000) ]"#), 1);
}
