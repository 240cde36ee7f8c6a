//! The language as a whole, in memory: what implementations get wrong, each case checked against Nix 2.34.

mod miri;

use std::rc::Rc;

use nix_compat::store_path::StoreDir;

use crate::io::{MemoryIo, Notice};
use crate::{Error, ErrorKind, Evaluation, Format, Origin, Settings};

fn world() -> MemoryIo {
    let dir = StoreDir::new("/nix/store").expect("a store directory");
    MemoryIo::new(dir)
        .with_file("/src/a.nix", b"{ x = 1; y = ./b.nix; }")
        .with_file("/src/dir/default.nix", b"import ../a.nix")
        .with_file("/src/text", b"hello")
        .with_env("HOME", "/home/me")
}

fn settings() -> Settings {
    Settings {
        base_dir: "/src".to_owned(),
        home: Some("/home/me".to_owned()),
        ..Settings::default()
    }
}

fn eval_with(settings: Settings, io: Rc<MemoryIo>, text: &str) -> Result<String, Error> {
    let mut evaluation = Evaluation::new(settings, io);
    let root = evaluation.eval_text(text.as_bytes(), Origin::String)?;
    let bytes = evaluation.print(root, Format::Nix, true)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn eval(text: &str) -> Result<String, Error> {
    eval_with(settings(), Rc::new(world()), text)
}

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(
            eval(text).map_err(|e| e.render(false)).as_deref(),
            Ok(*expected),
            "{text}"
        );
    }
}

fn check_errors(cases: &[(&str, ErrorKind, &str)]) {
    for (text, kind, message) in cases {
        let error = eval(text).expect_err(text);
        assert_eq!((error.kind, error.message.as_str()), (*kind, *message), "{text}");
    }
}

#[test]
fn numbers() {
    check(&[
        ("0.1 + 0.2", "0.3"),
        ("1.5e-7", "1.5e-07"),
        ("toString 1.0", "\"1.000000\""),
        ("builtins.toJSON 1.0", "\"1.0\""),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("1 == 1.0", "true"),
        ("builtins.floor 2.7 + builtins.ceil 2.1", "5"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775807 - 1", "-9223372036854775808"),
    ]);
    check_errors(&[
        (
            "9223372036854775807 + 1",
            ErrorKind::Eval,
            "integer overflow in adding 9223372036854775807 + 1",
        ),
        ("1 / 0", ErrorKind::Eval, "division by zero"),
        ("1 + \"a\"", ErrorKind::Eval, "cannot add a string to an integer"),
    ]);
}

/// Recorded from Nix 2.8 and 2.34.
#[test]
fn paths_added_to_sets_are_not_copied() {
    check(&[
        (r#"{ outPath = "/o"; } + /nonexistent"#, "\"/o/nonexistent\""),
        (
            r#"{ __toString = _: "/o"; } + /nonexistent"#,
            "\"/o/nonexistent\"",
        ),
        (r#"{ outPath = /tmp; } + /nonexistent"#, "\"/tmp/nonexistent\""),
        (
            r#"{ outPath = "/o"; } + { outPath = /nonexistent; }"#,
            "\"/o/nonexistent\"",
        ),
    ]);
    let absent = "path '/nonexistent' does not exist";
    check_errors(&[
        (
            r#"{ outPath = "/o"; } + "/x" + /nonexistent"#,
            ErrorKind::File,
            absent,
        ),
        (r#""a" + { outPath = /nonexistent; }"#, ErrorKind::File, absent),
    ]);
}

#[test]
fn equality_and_functions() {
    check(&[
        ("let f = x: x; in [ f ] == [ f ]", "true"),
        ("let f = x: x; in f == f", "false"),
        ("let f = x: x; in { inherit f; } == { inherit f; }", "true"),
        (
            "let p = { f = x: x; }; in { inherit (p) f; } == { inherit (p) f; }",
            "false",
        ),
        (
            "{ type = \"derivation\"; outPath = 1; a = 1; } == { type = \"derivation\"; outPath = 1; a = 2; }",
            "true",
        ),
        ("[ 1 2.0 ] == [ 1.0 2 ]", "true"),
    ]);
}

#[test]
fn laziness_and_try_eval() {
    check(&[
        ("(builtins.tryEval (throw \"x\")).success", "false"),
        ("(builtins.tryEval <none>).success", "false"),
        ("(builtins.tryEval (assert false; 1)).value", "false"),
        ("builtins.length [ (throw \"x\") ]", "1"),
        ("builtins.foldl' (a: b: b) (throw \"x\") [ 1 ]", "1"),
        ("(x: 1) (throw \"x\")", "1"),
        ("let a = b; b = 1; in a", "1"),
        ("({ a ? b, b ? 2 }: a) { }", "2"),
        (
            "let x = rec { a = 1; b = a; __overrides = { a = 2; }; }; in x.b",
            "2",
        ),
        ("with { a = 1; }; let a = 2; in with { a = 3; }; a", "2"),
        ("builtins.seq { a = throw \"x\"; } 1", "1"),
    ]);
    check_errors(&[
        (
            "builtins.tryEval (abort \"x\")",
            ErrorKind::Abort,
            "evaluation aborted with the following error message: 'x'",
        ),
        ("builtins.tryEval { }.a", ErrorKind::Type, "attribute 'a' missing"),
        (
            "let x = x; in x",
            ErrorKind::InfiniteRecursion,
            "infinite recursion encountered",
        ),
        (
            "(x: x x) (x: x x)",
            ErrorKind::StackOverflow,
            "stack overflow; max-call-depth exceeded",
        ),
        (
            "assert 1 == 2; 3",
            ErrorKind::Assertion,
            "an integer with value '1' is not equal to an integer with value '2'",
        ),
        (
            "assert (!true); 3",
            ErrorKind::Assertion,
            "assertion '(! true)' failed",
        ),
        ("(throw \"x\").a or 1", ErrorKind::Throw, "x"),
        ("builtins.deepSeq { a = throw \"x\"; } 1", ErrorKind::Throw, "x"),
    ]);
}

#[test]
fn calls() {
    check(&[
        ("let f = a: b: c: [ a b c ]; g = f 1; in g 2 3", "[ 1 2 3 ]"),
        ("(a: { b, ... }@c: a + b + c.d) 1 { b = 2; d = 3; }", "6"),
        ("{ __functor = self: x: self.n + x; n = 1; } 2", "3"),
        (
            "builtins.functionArgs ((a: { b, c ? 1 }: 1) 2)",
            "{ b = false; c = true; }",
        ),
        ("map (builtins.add 1) [ 1 2 ]", "[ 2 3 ]"),
        ("let __sub = a: b: 42; in 1 - 2", "42"),
        ("let f = n: if n == 0 then 0 else f (n - 1); in f 5000", "0"),
    ]);
    check_errors(&[
        (
            "({ a }: a) { }",
            ErrorKind::Type,
            "function 'anonymous lambda' called without required argument 'a'",
        ),
        (
            "({ a }: a) { a = 1; b = 2; }",
            ErrorKind::Type,
            "function 'anonymous lambda' called with unexpected argument 'b'",
        ),
        (
            "1 2",
            ErrorKind::Type,
            "attempt to call something which is not a function but an integer: 1",
        ),
        ("x", ErrorKind::UndefinedVariable, "undefined variable 'x'"),
        (
            "with { }; x",
            ErrorKind::UndefinedVariable,
            "undefined variable 'x'",
        ),
    ]);
}

#[test]
fn sets_and_lists() {
    check(&[
        (
            "builtins.attrNames { b = 1; a = 2; \"c d\" = 3; }",
            "[ \"a\" \"b\" \"c d\" ]",
        ),
        ("{ ${null} = 1; ${\"a\"} = 2; }", "{ a = 2; }"),
        (
            "builtins.listToAttrs [ { name = \"a\"; value = 1; } { name = \"a\"; value = 2; } ]",
            "{ a = 1; }",
        ),
        (
            "builtins.removeAttrs { a = 1; b = 2; } [ \"a\" \"c\" ]",
            "{ b = 2; }",
        ),
        (
            "builtins.mapAttrs (n: v: n + toString v) { a = 1; }",
            "{ a = \"a1\"; }",
        ),
        (
            "builtins.zipAttrsWith (n: v: v) [ { a = 1; } { a = 2; b = 3; } ]",
            "{ a = [ 1 2 ]; b = [ 3 ]; }",
        ),
        (
            "builtins.intersectAttrs { a = 1; } { a = 2; b = 3; }",
            "{ a = 2; }",
        ),
        ("builtins.sort (a: b: a > b) [ 1 3 2 ]", "[ 3 2 1 ]"),
        (
            "builtins.groupBy toString [ 1 2 1 ]",
            "{ \"1\" = [ 1 1 ]; \"2\" = [ 2 ]; }",
        ),
        (
            "map (e: e.key) (builtins.genericClosure { startSet = [ { key = 1; } ]; operator = e: if e.key < 4 then [ { key = e.key + 1; } ] else [ ]; })",
            "[ 1 2 3 4 ]",
        ),
        ("let x = { y = x; }; in x", "{ y = «repeated»; }"),
        ("{ a.b = 1; } ? a.b", "true"),
    ]);
}

#[test]
fn strings() {
    check(&[
        ("builtins.split \"a|ab\" \"xabx\"", "[ \"x\" [ ] \"x\" ]"),
        (
            "builtins.match \"(a|ab)(c|bcd)(d*)\" \"abcd\"",
            "[ \"a\" \"bcd\" \"\" ]",
        ),
        ("builtins.replaceStrings [ \"\" ] [ \"-\" ] \"ab\"", "\"-a-b-\""),
        ("baseNameOf \"a/b/\"", "\"b\""),
        ("builtins.concatStringsSep \",\" [ \"a\" \"b\" ]", "\"a,b\""),
        ("builtins.substring 1 (-1) \"abc\"", "\"bc\""),
        ("toString [ 1 [ ] true null \"x\" ]", "\"1 1  x\""),
        ("\"${{ outPath = \"/x\"; }}\"", "\"/x\""),
        ("{ __toString = s: s.a; a = \"z\"; } + \"!\"", "\"z!\""),
        ("./a + \"/../c\"", "/src/c"),
        ("~/x", "/home/me/x"),
    ]);
}

#[test]
fn contexts_and_derivations() {
    check(&[
        (
            "(derivation { name = \"a\"; builder = \"b\"; system = \"c\"; }).drvPath",
            "\"/nix/store/arhvjaf6zmlyn8vh8fgn55rpwnxq0n7l-a.drv\"",
        ),
        (
            "builtins.getContext \"${derivation { name = \"a\"; builder = \"b\"; system = \"c\"; }}\"",
            "{ \"/nix/store/arhvjaf6zmlyn8vh8fgn55rpwnxq0n7l-a.drv\" = { outputs = [ \"out\" ]; }; }",
        ),
        (
            "builtins.hasContext (builtins.unsafeDiscardStringContext \"${./text}\")",
            "false",
        ),
        ("builtins.typeOf derivation", "\"lambda\""),
    ]);
    let io = Rc::new(world());
    let text = "let d = n: i: derivation { name = n; builder = \"b\"; system = \"c\"; inherit i; }; in (d \"two\" (d \"one\" null)).drvPath";
    assert!(eval_with(settings(), Rc::clone(&io) as Rc<MemoryIo>, text).is_ok());
    let names: Vec<String> = io
        .derivations()
        .iter()
        .map(|p| p.name().as_str().to_owned())
        .collect();
    assert_eq!(names, ["one.drv", "two.drv"], "inputs are instantiated first");
}

#[test]
fn files_and_positions() {
    check(&[
        ("(import ./dir).x", "1"),
        ("(import ./a.nix).y", "/src/b.nix"),
        ("builtins.readFile ./text", "\"hello\""),
        (
            "builtins.readDir ./.",
            "{ \"a.nix\" = \"regular\"; dir = \"directory\"; text = \"regular\"; }",
        ),
        ("builtins.pathExists ./none", "false"),
        (
            "builtins.unsafeGetAttrPos \"x\" (import ./a.nix)",
            "{ column = 3; file = \"/src/a.nix\"; line = 1; }",
        ),
        ("builtins.scopedImport { import = x: 7; } ./dir", "7"),
    ]);
    let error = eval("import ./none.nix").expect_err("no such file");
    assert_eq!(error.message, "path '/src/none.nix' does not exist");
    assert_eq!(error.code(), igloo_status::Code::NotFound);
}

#[test]
fn pure_evaluation_hides_the_world() {
    let pure = || Settings {
        purity: crate::Purity::Pure,
        current_time: Some(1),
        ..settings()
    };
    let hidden = eval_with(
        pure(),
        Rc::new(world()),
        "[ (builtins.getEnv \"HOME\") (builtins ? currentTime) ]",
    );
    assert_eq!(
        hidden.map_err(|e| e.message.clone()).as_deref(),
        Ok("[ \"\" false ]")
    );
    let home = eval_with(pure(), Rc::new(world()), "~/x").expect_err("no home");
    assert_eq!(home.message, "the path '~/x' can not be resolved in pure mode");
}

/// Recorded from Nix 2.34 with `--pure-eval`; each of these with a hash or a revision asks the world.
#[test]
fn pure_evaluation_fetches_no_unlocked_tree() {
    let purely = |text: &str| {
        let settings = Settings {
            purity: crate::Purity::Pure,
            features: crate::Features {
                fetch_tree: true,
                ..crate::Features::default()
            },
            ..settings()
        };
        eval_with(settings, Rc::new(world()), text).expect_err(text)
    };
    let tree = |rest: &str| format!("builtins.fetchTree {{ {rest} }}");
    for (text, who, input) in [
        (
            tree(r#"type = "tarball"; url = "http://localhost/x.tar";"#),
            "fetchTree",
            "http://localhost/x.tar",
        ),
        (
            tree(r#"type = "file"; url = "http://localhost/x";"#),
            "fetchTree",
            "http://localhost/x",
        ),
        (
            tree(r#"type = "github"; owner = "a"; repo = "b"; ref = "main";"#),
            "fetchTree",
            "github:a/b/main",
        ),
        (
            tree(r#"type = "path"; path = "/tmp";"#),
            "fetchTree",
            "path:/tmp",
        ),
        (
            r#"builtins.fetchGit { url = "http://localhost/x"; ref = "a"; }"#.to_owned(),
            "fetchGit",
            "git+http://localhost/x?exportIgnore=1&ref=a",
        ),
        (
            r#"builtins.fetchGit { url = "http://localhost/x"; shallow = true; exportIgnore = false; submodules = true; name = "foo"; }"#
                .to_owned(),
            "fetchGit",
            "git+http://localhost/x?shallow=1&submodules=1",
        ),
        (
            r#"builtins.fetchGit { url = "/tmp"; }"#.to_owned(),
            "fetchGit",
            "git+file:///tmp?exportIgnore=1",
        ),
    ] {
        let error = purely(&text);
        assert_eq!(
            error.message,
            format!("in pure evaluation mode, '{who}' doesn't fetch unlocked input '{input}'"),
            "{text}"
        );
    }
    assert_eq!(
        purely(r#"builtins.fetchMercurial { url = "http://localhost/x"; rev = "abc"; }"#).message,
        "in pure evaluation mode, 'fetchMercurial' requires a Mercurial revision"
    );
    let revision = "0123456789abcdef0123456789abcdef01234567";
    for locked in [
        tree(
            r#"type = "tarball"; url = "http://localhost/x"; narHash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";"#,
        ),
        tree(&format!(
            r#"type = "git"; url = "http://localhost/x"; rev = "{revision}";"#
        )),
    ] {
        assert_eq!(
            purely(&locked).message,
            "fetching is not possible in memory",
            "{locked}"
        );
    }
}

#[test]
fn messages_go_through_the_world() {
    let io = Rc::new(world());
    let text = "builtins.trace \"t\" (builtins.warn \"w\" 1)";
    assert_eq!(
        eval_with(settings(), Rc::clone(&io), text).ok().as_deref(),
        Some("1")
    );
    assert_eq!(
        io.notices(),
        [
            Notice::Trace("t".to_owned()),
            Notice::EvaluationWarning("evaluation warning: w".to_owned())
        ]
    );
}

#[test]
fn errors_show_source_and_trace() {
    let error = eval("let\n  f = x: x.missin;\nin f { missing = 1; }").expect_err("missing");
    let expected = "error:\n       … while evaluating the attribute 'missin'\n         at «string»:2:10:\n            1| let\n            2|   f = x: x.missin;\n             |          ^\n            3| in f { missing = 1; }\n\n       error: attribute 'missin' missing\n       Did you mean missing?";
    assert_eq!(error.render(false), expected);
}

#[test]
fn an_evaluator_survives_errors() {
    let mut evaluation = Evaluation::new(settings(), Rc::new(world()));
    for _ in 0..3 {
        assert!(
            evaluation
                .eval_text(b"let f = x: 1 + f x; in f 1", Origin::String)
                .is_err()
        );
        assert!(evaluation.eval_text(b"with { }; (x: y", Origin::String).is_err());
    }
    let other = Evaluation::new(settings(), Rc::new(world()))
        .eval_text(b"1", Origin::String)
        .expect("one");
    assert!(
        evaluation.print(other, Format::Nix, true).is_err(),
        "a root of another evaluation"
    );
    let root = evaluation
        .eval_text(b"{ a.b = { c }: [ c ]; }", Origin::String)
        .expect("a set");
    let arg = evaluation.string(b"x");
    let args = [("c".to_owned(), arg)];
    let function = evaluation.select(root, "a.b", &args).expect("selected");
    let found = evaluation.auto_call(function, &args).expect("called");
    assert_eq!(
        evaluation.print(found, Format::Json, true).expect("json"),
        b"[\"x\"]"
    );
}

#[test]
fn every_builtin_is_documented() {
    let mut names: Vec<_> = crate::builtin_documentation().collect();
    assert!(
        names
            .iter()
            .all(|(name, args, doc)| !name.is_empty() && !args.is_empty() && doc.ends_with('.'))
    );
    names.sort_unstable();
    names.dedup_by_key(|n| n.0);
    assert_eq!(
        names.len(),
        crate::builtin_documentation().count(),
        "no name twice"
    );
}
