//! Whole evaluations that pass through all unsafe code but the switching of stacks, small enough for Miri
//! (`cargo xtask miri`); anywhere else they are tests like others.

use std::rc::Rc;

use super::{settings, world};
use crate::{Evaluation, Format, Origin, Settings};

/// One evaluation, as building its builtins is most of the work: what each expression gives, read back from the heap later.
#[test]
fn small_expressions() {
    let cases = [
        (
            "let x = 1; y = x + 2.5; in [ x y (x / 2) (-x) true null ./a.nix ]",
            "[ 1 3.5 0 -1 true null /src/a.nix ]",
        ),
        // calls: captured variables, partial application, patterns, functors
        (
            "(let add = a: b: c: a + b + c; two = add 1 2; in [ (two 3) (two 4) ])",
            "[ 6 7 ]",
        ),
        (
            "({ a, b ? a + 1, ... }@all: [ a b all.c ]) { a = 1; c = 3; }",
            "[ 1 2 3 ]",
        ),
        ("({ __functor = self: x: self.n + x; n = 1; }) 2", "3"),
        ("let f = n: if n == 0 then 0 else 1 + f (n - 1); in f 50", "50"),
        // thunks: shared, failed and tried again, in a circle
        (
            "let t = throw \"x\"; in [ (builtins.tryEval t).success (builtins.tryEval t).success ]",
            "[ false false ]",
        ),
        ("let s = rec { a = b; b = c; c = 7; }; in s.a + s.b", "14"),
        (
            "(let fix = f: let x = f x; in x; in fix (self: { a = 1; b = self.a + 1; })).b",
            "2",
        ),
        // sets: shapes, updates, dynamic names, inheritance, with
        (
            "({ a = 1; b = 2; } // { b = 3; c = 4; } // { ${\"d\"} = 5; })",
            "{ a = 1; b = 3; c = 4; d = 5; }",
        ),
        ("with { a = 1; }; with { b = 2; }; a + b", "3"),
        (
            "let s = { x.y.z = 1; x.y.w = 2; }; in [ (s.x.y.q or 0) (s ? x.y.z) s.x.y.w ]",
            "[ 0 true 2 ]",
        ),
        (
            "builtins.attrNames (builtins.listToAttrs (builtins.genList (n: { name = \"n${toString n}\"; value = n; }) 12))",
            r#"[ "n0" "n1" "n10" "n11" "n2" "n3" "n4" "n5" "n6" "n7" "n8" "n9" ]"#,
        ),
        (
            "builtins.mapAttrs (n: v: v + n) (removeAttrs { a = \"1\"; b = \"2\"; c = \"3\"; } [ \"b\" ])",
            r#"{ a = "1a"; c = "3c"; }"#,
        ),
        (
            "builtins.intersectAttrs { a = 1; b = 2; } { b = 3; c = 4; }",
            "{ b = 3; }",
        ),
        // lists
        (
            "builtins.sort (a: b: a > b) ([ 3 1 2 ] ++ builtins.concatMap (x: [ x (x * 2) ]) [ 5 6 ])",
            "[ 12 10 6 5 3 2 1 ]",
        ),
        (
            "builtins.foldl' (a: b: a + b) 0 (builtins.filter (x: x > 2) [ 1 2 3 4 ])",
            "7",
        ),
        ("builtins.length (builtins.genList (x: x) 3000)", "3000"),
        // strings, with and without contexts
        (
            "let d = derivation { name = \"d\"; system = \"s\"; builder = \"b\"; }; in builtins.attrNames (builtins.getContext \"${d}${d.drvPath}\") == [ d.drvPath ]",
            "true",
        ),
        (
            "builtins.concatStringsSep \"-\" (builtins.filter builtins.isString (builtins.split \"([0-9])\" \"a1b2c\"))",
            "\"a-b-c\"",
        ),
        (
            "builtins.fromJSON (builtins.toJSON { a = [ 1 2.5 null \"x\" ]; })",
            "{ a = [ 1 2.5 null \"x\" ]; }",
        ),
        ("(import ./a.nix).x", "1"),
    ];
    let mut evaluation = Evaluation::new(settings(), Rc::new(world()));
    let roots = cases.map(|(text, _)| evaluation.eval_text(text.as_bytes(), Origin::String));
    for ((text, wanted), root) in cases.into_iter().zip(roots) {
        let printed = root.and_then(|root| evaluation.print(root, Format::Nix, true));
        let printed = printed.map_err(|error| error.render(false));
        assert_eq!(printed.as_deref(), Ok(wanted.as_bytes()), "{text}");
    }
}

/// Errors go back through everything that was open, and what they leave can be used.
#[test]
fn failures_leave_a_usable_heap() {
    let settings = Settings {
        max_call_depth: 100,
        ..settings()
    };
    let mut evaluation = Evaluation::new(settings, Rc::new(world()));
    for text in [
        "let x = x; in x",
        "[ 1 (throw \"a\") ]",
        "{ a = 1; }.b",
        "(x: x x) (x: x x)",
        "1 + ",
    ] {
        let root = evaluation.eval_text(text.as_bytes(), Origin::String);
        let printed = root.and_then(|root| evaluation.print(root, Format::Nix, true));
        assert!(printed.is_err(), "{text}");
    }
    let root = evaluation.eval_text(b"{ a = 1; }.a", Origin::String);
    let printed = root.and_then(|root| evaluation.print(root, Format::Nix, true));
    assert_eq!(printed.ok().as_deref(), Some(&b"1"[..]));
}
