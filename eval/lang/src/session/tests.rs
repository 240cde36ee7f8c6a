//! What is typed, in memory; the printed forms were recorded from `nix repl` of Nix 2.34.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix_compat::store_path::StoreDir;

use super::{Documentation, Input, InputState, Scope, input_state};
use crate::io::MemoryIo;
use crate::{ErrorKind, Evaluation, ParseSettings, PromptDepth, PromptStyle, Root, Settings};

struct Talk {
    evaluation: Evaluation,
    scope: Scope,
    interrupt: Arc<AtomicBool>,
}

impl Talk {
    fn new() -> Self {
        let dir = StoreDir::new("/nix/store").expect("a store directory");
        let io =
            MemoryIo::new(dir).with_file("/doc.nix", b"{\n  /**\n    Adds one.\n  */\n  inc = x: x + 1;\n}");
        let interrupt = Arc::<AtomicBool>::default();
        let settings = Settings {
            interrupt: Arc::clone(&interrupt),
            base_dir: "/src".into(),
            ..Settings::default()
        };
        Self {
            evaluation: Evaluation::new(settings, Rc::new(io)),
            scope: Scope::default(),
            interrupt,
        }
    }

    fn value(&mut self, text: &str) -> Root {
        match self.evaluation.read(text.as_bytes(), &self.scope) {
            Ok(Input::Value(value)) => value,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn bind(&mut self, text: &str) {
        match self.evaluation.read(text.as_bytes(), &self.scope) {
            Ok(Input::Bindings(bindings)) => bindings.into_iter().for_each(|(n, v)| self.scope.bind(n, v)),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn show(&mut self, text: &str, depth: PromptDepth) -> Result<String, crate::Error> {
        let root = match self.evaluation.read(text.as_bytes(), &self.scope)? {
            Input::Value(value) => value,
            Input::Bindings(_) => panic!("{text} is a binding"),
        };
        let mut out = Vec::new();
        let mut sink = |part: &[u8]| out.extend_from_slice(part);
        self.evaluation.show(root, depth, PromptStyle::Plain, &mut sink)?;
        Ok(String::from_utf8(out).expect("text"))
    }

    fn outermost(&mut self, text: &str) -> String {
        self.show(text, PromptDepth::Outermost)
            .unwrap_or_else(|e| e.render(false))
    }
}

#[test]
fn bindings_are_lazy_and_do_not_see_each_other() {
    let mut talk = Talk::new();
    talk.bind("x = 1; y = throw \"lazy\"");
    talk.bind("x = x + 1;");
    assert_eq!(talk.outermost("x"), "2");
    let error = talk.show("y", PromptDepth::Outermost).expect_err("it throws");
    assert_eq!(error.kind, ErrorKind::Throw);
    let unseen = talk.evaluation.read(b"a = 1; b = a", &talk.scope);
    assert_eq!(unseen.expect_err("no a").kind, ErrorKind::UndefinedVariable);
    talk.bind("inherit (builtins) map; n.a = 1; n.b = 2; ${\"dyn\"} = 3; true = 5");
    assert_eq!(
        talk.outermost("[ map n.b dyn true ]"),
        "[\n  «primop map»\n  2\n  3\n  5\n]"
    );
}

#[test]
fn values_are_printed_as_at_nix_s_prompt() {
    let mut talk = Talk::new();
    for (text, shown) in [
        ("{ }", "{ }"),
        ("[ 1 ]", "[ 1 ]"),
        ("{ a = 1; }", "{ a = 1; }"),
        ("{ a = { }; }", "{\n  a = { ... };\n}"),
        ("[ [ 3 ] ]", "[\n  [ ... ]\n]"),
        ("let x = [ 1 ]; in [ x x ]", "[\n  [ ... ]\n  «repeated»\n]"),
        ("{ x = 1; y = throw \"a\"; }", "{\n  x = 1;\n  y = «error: a»;\n}"),
        (
            "{ x = let x = x; in x; y = 1; }",
            "{\n  x = «error: infinite recursion encountered»;\n  y = 1;\n}",
        ),
        ("{ type = \"derivation\"; }", "«derivation»"),
        (
            "{ type = \"derivation\"; drvPath = \"/nix/store/x.drv\"; }",
            "«derivation /nix/store/x.drv»",
        ),
        ("let f = x: x; in f", "«lambda f @ «string»:1:9»"),
    ] {
        assert_eq!(talk.outermost(text), shown, "{text}");
    }
    let whole = |talk: &mut Talk, text| talk.show(text, PromptDepth::Whole).expect("a value");
    assert_eq!(whole(&mut talk, "\"a\\nb\""), "a\nb");
    assert_eq!(
        whole(&mut talk, "let x = { a = x; }; in x"),
        "{\n  a = «repeated»;\n}"
    );
    assert_eq!(
        whole(&mut talk, "{ c = [ ]; h = { y = [ ]; }; }"),
        "{\n  c = [ ];\n  h = {\n    y = [ ];\n  };\n}"
    );
    let error = talk.show("{ a = throw \"x\"; }", PromptDepth::Outermost);
    assert_eq!(
        error.expect_err("an only attribute is evaluated first").kind,
        ErrorKind::Throw
    );
}

#[test]
fn input_is_read_until_it_is_whole() {
    let state = |text: &str| input_state(text.as_bytes(), &ParseSettings::default());
    for text in [
        "1 +",
        "(",
        "\"a",
        "''a",
        "{ a = 1;",
        "let x = 1;",
        "\"${\n1",
        "# only a comment",
        "x =",
        "a = 1; b",
        "",
    ] {
        assert_eq!(state(text), InputState::Incomplete, "{text}");
    }
    for text in [
        "1",
        "x: x",
        "x = 1",
        "x = 1;",
        "inherit",
        "inherit (x) y",
        "a.b = 1; c = 2",
        "{ a = 1; }",
        "1 # c",
    ] {
        assert_eq!(state(text), InputState::Complete, "{text}");
    }
    for text in [")", "1 )", "let x = )", "a = 1; a = 2", "x = )", "/* a"] {
        assert_eq!(state(text), InputState::Wrong, "{text}");
    }
}

#[test]
fn an_evaluation_can_be_interrupted_and_goes_on_afterwards() {
    let mut talk = Talk::new();
    talk.bind("go = let go = n: go (n + 1); in go; v = builtins.length (builtins.genList (i: i) 10)");
    talk.interrupt.store(true, Ordering::Relaxed);
    let forever = talk.evaluation.read(b"builtins.tryEval (go 0)", &talk.scope);
    assert_eq!(forever.expect_err("interrupted").kind, ErrorKind::Interrupted);
    let inside = talk.evaluation.read(b"{ a = go 0; b = 1; }", &talk.scope);
    let Ok(Input::Value(set)) = inside else {
        panic!("{inside:?}")
    };
    let shown = talk
        .evaluation
        .show(set, PromptDepth::Outermost, PromptStyle::Plain, &mut |_| ());
    assert_eq!(
        shown.expect_err("not printed as an error of a").kind,
        ErrorKind::Interrupted
    );
    talk.interrupt.store(false, Ordering::Relaxed);
    assert_eq!(talk.outermost("v"), "10");
}

#[test]
fn values_are_described_and_documented() {
    let mut talk = Talk::new();
    let map = talk.value("map");
    assert_eq!(
        talk.evaluation.describe(map).ok().as_deref(),
        Some("the built-in function 'map'")
    );
    let known = talk.evaluation.documentation(map).expect("a value");
    assert!(
        matches!(known, Some(Documentation::Builtin { name: "map", .. })),
        "{known:?}"
    );
    let function = talk.value("(import /doc.nix).inc");
    let Some(Documentation::Function { name, location, text }) =
        talk.evaluation.documentation(function).expect("a value")
    else {
        panic!("a function is documented")
    };
    assert_eq!(
        (name.as_deref(), text.as_deref()),
        (Some("inc"), Some("Adds one."))
    );
    assert_eq!(
        location.map(|place| place.to_string()).as_deref(),
        Some("/doc.nix:5:9")
    );
    let place = talk.evaluation.definition(function).expect("a value");
    assert_eq!(place, Some((b"/doc.nix".to_vec(), 5)));
    let package = talk.value("{ meta.position = \"/a:b.nix:7\"; }");
    let place = talk.evaluation.definition(package).expect("a value");
    assert_eq!(place, Some((b"/a:b.nix".to_vec(), 7)));
    let number = talk.value("1");
    assert!(talk.evaluation.documentation(number).expect("a value").is_none());
    assert!(talk.evaluation.derivation(number).expect("a value").is_none());
}
