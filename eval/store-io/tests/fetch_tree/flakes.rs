//! Flakes, their lock files, and registries.

use std::sync::Arc;

use igloo_eval::{Purity, Settings};
use igloo_store_io::fetch::HttpOptions;
use igloo_store_io::{Fetcher, UrlFetcher};

use super::world::{World, attributes_of, commit, git};

/// Flakes `a` (inputs `b`, `c` whose `b` follows, and a plain tree) by paths.
fn flakes(world: &World) {
    let root = world.shown("f");
    world.write("f/b/flake.nix", "{ outputs = { self }: { v = \"b\"; }; }");
    world.write(
        "f/c/flake.nix",
        &format!("{{ inputs.b.url = \"path:{root}/nonexistent\"; outputs = {{ self, b }}: {{ v = \"c-\" + b.v; }}; }}"),
    );
    world.write("f/raw/file", "hi\n");
    world.write(
        "f/a/flake.nix",
        &format!(
            r#"{{
              description = "a";
              inputs.b.url = "path:{root}/b";
              inputs.c = {{ url = "path:{root}/c"; inputs.b.follows = "b"; }};
              inputs.raw = {{ url = "path:{root}/raw"; flake = false; }};
              outputs = {{ self, b, c, raw }}: {{
                x = 1; bv = b.v; cv = c.v; rawFile = builtins.readFile (raw + "/file");
                same = c.inputs.b.outPath == b.outPath;
              }};
            }}"#
        ),
    );
}

const LOOK: &str = r#"{ inherit (f) x bv cv rawFile same; names = builtins.attrNames f; type = f._type;
    info = removeAttrs f.sourceInfo [ "outPath" ]; out = baseNameOf (toString f); raw = builtins.attrNames f.inputs.raw; }"#;

#[test]
fn flakes_without_a_lock_file() {
    let Some(world) = World::new() else { return };
    flakes(&world);
    let text = format!(
        "let f = builtins.getFlake \"path:{}\"; in {LOOK}",
        world.shown("f/a")
    );
    let found = world.same(&text);
    assert_eq!(
        (&found["bv"], &found["cv"], &found["rawFile"]),
        (&"b".into(), &"c-b".into(), &"hi\n".into())
    );
    assert_eq!((&found["same"], &found["type"]), (&true.into(), &"flake".into()));
    let pure = world.eval_in(&world.io(None), Purity::Pure, &text).unwrap_err();
    assert!(
        pure.contains("cannot call 'getFlake' on unlocked flake reference"),
        "{pure}"
    );
    let absent = world
        .eval(&format!("builtins.getFlake \"path:{}\"", world.shown("f/raw")))
        .unwrap_err();
    assert!(absent.contains("flake.nix"), "{absent}");
    let unknown = world.eval("builtins.getFlake \"nixpkgs\"").unwrap_err();
    assert_eq!(
        unknown,
        "cannot find flake 'flake:nixpkgs' in the flake registries"
    );
    let relative = world.eval("builtins.getFlake \"./b\"").unwrap_err();
    assert_eq!(relative, "flake reference './b' is not an absolute path");
}

#[test]
fn a_lock_file_says_what_inputs_are() {
    let Some(world) = World::new() else { return };
    flakes(&world);
    let root = world.shown("f");
    let hash_of = |name: &str| {
        let text =
            format!("builtins.fetchTree {{ type = \"path\"; path = \"{root}/{name}\"; lastModified = 7; }}");
        let found = world.eval(&attributes_of(&text)).unwrap();
        found["narHash"].as_str().unwrap().to_owned()
    };
    let node = |name: &str, extra: &str| {
        format!(
            r#""{name}": {{ {extra} "locked": {{ "lastModified": 7, "narHash": "{}", "path": "{root}/{name}", "type": "path" }},
                "original": {{ "path": "{root}/{name}", "type": "path" }} }}"#,
            hash_of(name)
        )
    };
    let lock = format!(
        r#"{{ "nodes": {{ {}, {}, {}, "root": {{ "inputs": {{ "b": "b", "c": "c", "raw": "raw" }} }} }},
            "root": "root", "version": 7 }}"#,
        node("b", ""),
        node("c", r#""inputs": { "b": [ "b" ] },"#),
        node("raw", r#""flake": false,"#)
    );
    world.write("f/a/flake.lock", &lock);
    let text = format!(
        "let f = builtins.getFlake \"path:{root}/a\"; in {LOOK} // {{ time = f.inputs.b.lastModified; }}"
    );
    let found = world.same(&text);
    assert_eq!((&found["time"], &found["cv"]), (&7.into(), &"c-b".into()));
    // what is locked may not change; only what is looked at is fetched
    world.write("f/b/flake.nix", "{ outputs = { self }: { v = \"changed\"; }; }");
    let text = format!("(builtins.getFlake \"path:{root}/a\").bv");
    let error = world.eval(&text).unwrap_err();
    assert!(error.contains("NAR hash mismatch in input"), "{error}");
    let text = format!("(builtins.getFlake \"path:{root}/a\").x");
    assert_eq!(world.eval(&text), Ok(1.into()));
}

#[test]
fn flakes_of_repositories_and_inside_trees() {
    let Some(world) = World::new() else { return };
    world.write(
        "g/flake.nix",
        "{ inputs.sub.url = \"./sub\"; outputs = { self, sub }: { v = sub.v; rev = self.rev; }; }",
    );
    world.write("g/sub/flake.nix", "{ outputs = { self }: { v = \"sub\"; }; }");
    let (folder, date) = (world.path("g"), "2021-01-02T03:04:05Z");
    git(&folder, date, &["init", "-q", "-b", "main", "."]);
    commit(&folder, date, "flake");
    let reference = format!("git+file://{}", world.shown("g"));
    let look = |reference: &str| {
        format!(
            "let f = builtins.getFlake \"{reference}\"; in {{ inherit (f) v; info = removeAttrs f.sourceInfo [ \"outPath\" ]; }}"
        )
    };
    let found = world.same(&look(&reference));
    assert_eq!(
        (&found["v"], &found["info"]["rev"]),
        (&"sub".into(), &serde_json::Value::Null),
        "with the lock file it needs, it would be another commit"
    );
    let lock = r#"{ "nodes": { "root": { "inputs": { "sub": "sub" } }, "sub": {
        "locked": { "path": "./sub", "type": "path" }, "original": { "path": "./sub", "type": "path" }, "parent": [] } },
        "root": "root", "version": 7 }"#;
    world.write("g/flake.lock", lock);
    commit(&folder, date, "lock");
    let found = world.same(&look(&reference));
    assert_eq!(found["info"]["revCount"], 2);
    let inside = world.same(&format!("(builtins.getFlake \"{reference}?dir=sub\").v"));
    assert_eq!(inside, "sub");
    let rev = found["info"]["rev"].as_str().unwrap();
    let locked = format!("(builtins.getFlake \"{reference}?rev={rev}\").v");
    let pure = world.eval_in(&world.io(None), Purity::Pure, &locked);
    assert_eq!(pure, Ok("sub".into()));
}

/// Names of flakes are looked up in all registries, those of inputs and of `fetchTree` in the global one.
#[test]
fn names_stand_for_what_registries_say() {
    let Some(world) = World::new() else { return };
    let tree = world.shown("tree");
    world.write("tree/sub/flake.nix", "{ outputs = _: { v = \"named\"; }; }");
    let entry = |id: &str, to: &str| {
        format!(r#"{{ "from": {{ "type": "indirect", "id": "{id}" }}, "to": {{ {to} }} }}"#)
    };
    let named = |id: &str| format!(r#""type": "indirect", "id": "{id}""#);
    let path = format!(r#""type": "path", "path": "{tree}", "dir": "sub""#);
    let own = [
        entry("foo", &path),
        entry("bar", &named("foo")),
        entry("l1", &named("l2")),
        entry("l2", &named("l1")),
    ];
    let registry = |entries: &[String]| format!(r#"{{ "version": 2, "flakes": [{}] }}"#, entries.join(","));
    world.write("home/.config/nix/registry.json", &registry(&own));
    world.write("global.json", &registry(&[entry("glob", &path)]));
    let look = |name: &str| {
        format!("let f = builtins.getFlake \"{name}\"; in {{ inherit (f) v; out = baseNameOf f.outPath; }}")
    };
    for name in ["foo", "bar", "flake:foo", "glob", "flake:glob?dir=nowhere"] {
        assert_eq!(world.same(&look(name))["v"], "named", "{name}");
    }
    world.same(&attributes_of(
        "builtins.fetchTree { type = \"indirect\"; id = \"glob\"; }",
    ));
    world.write(
        "in/flake.nix",
        "{ outputs = { self, glob }: { inherit (glob) v; }; }",
    );
    let input = format!("(builtins.getFlake \"path:{}\").v", world.shown("in"));
    assert_eq!(world.same(&input), "named");
    world.write(
        "own/flake.nix",
        "{ outputs = { self, foo }: { inherit (foo) v; }; }",
    );
    let own = format!("(builtins.getFlake \"path:{}\").v", world.shown("own"));
    for (text, why) in [
        (look("l1"), "cycle detected in flake registry for 'flake:l1'"),
        (
            look("zzz"),
            "cannot find flake 'flake:zzz' in the flake registries",
        ),
        (own, "cannot find flake 'flake:foo' in the flake registries"),
        (
            attributes_of("builtins.fetchTree { type = \"indirect\"; id = \"foo\"; }"),
            "cannot find flake 'flake:foo' in the flake registries",
        ),
        (
            attributes_of("builtins.fetchTree \"glob\""),
            "'glob' doesn't have a scheme",
        ),
    ] {
        let error = world.eval(&text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
        if let Some(theirs) = world.nix(&text) {
            let theirs = theirs.unwrap_err();
            assert!(theirs.contains(why), "{text}: {theirs}");
        }
    }
    let pure = world.eval_in(&world.io(None), Purity::Pure, &look("glob"));
    assert!(pure.unwrap_err().contains("unlocked flake reference 'glob'"));
}

/// Which registry everybody has, and whether any is asked, are settings (recorded from Nix 2.34).
#[test]
fn registries_are_configured() {
    let Some(world) = World::new() else { return };
    world.write("tree/flake.nix", "{ outputs = _: { v = \"named\"; }; }");
    world.write(
        "top/flake.nix",
        "{ inputs.foo = {}; outputs = { self, foo }: { inherit (foo) v; }; }",
    );
    let registry = format!(
        r#"{{ "version": 2, "flakes": [{{ "from": {{ "type": "indirect", "id": "foo" }},
        "to": {{ "type": "path", "path": "{}" }} }}] }}"#,
        world.shown("tree")
    );
    world.write("other.json", &registry);
    let named = "(builtins.getFlake \"foo\").v";
    let input = format!("(builtins.getFlake \"path:{}\").v", world.shown("top"));
    let tree = "builtins.isString (builtins.fetchTree { type = \"indirect\"; id = \"foo\"; }).outPath";
    let fetcher: Arc<dyn Fetcher> = Arc::new(UrlFetcher::new(HttpOptions::default()));
    let io = |place: &str| world.io_with(world.places().with_global(place), Some(Arc::clone(&fetcher)));
    let other = world.shown("other.json");
    for place in [other.clone(), format!("file://{other}")] {
        for text in [named, &input] {
            let found = world.eval_in(&io(&place), Purity::Impure, text);
            assert_eq!(found, Ok("named".into()), "{place}: {text}");
        }
    }
    for place in ["", "/nonexistent.json"] {
        let none = world.eval_in(&io(place), Purity::Impure, named);
        assert!(
            none.unwrap_err()
                .contains("cannot find flake 'flake:foo' in the flake registries")
        );
    }
    let unnamed = Settings {
        use_registries: false,
        ..world.settings(Purity::Impure)
    };
    for (text, name) in [
        (named, "flake:foo"),
        (&input, "flake:foo"),
        ("builtins.getFlake \"foo/main\"", "flake:foo/main"),
    ] {
        let error = World::eval_with(&io(&other), unnamed.clone(), text).unwrap_err();
        let words = format!("'{name}' is an indirect flake reference, but registry lookups are not allowed");
        assert!(error.contains(&words), "{text}: {error}");
    }
    // what is fetched by name, without a flake, is looked up all the same
    assert_eq!(World::eval_with(&io(&other), unnamed, tree), Ok(true.into()));
}

/// A lock file that settles nothing is no lock file.
#[test]
fn a_lock_file_names_trees_exactly() {
    let Some(world) = World::new() else { return };
    world.write(
        "g/flake.nix",
        "{ inputs.x.url = \"github:o/r\"; outputs = { self, x }: { v = x; }; }",
    );
    let node = r#""type": "github", "owner": "o", "repo": "r""#;
    let lock = format!(
        r#"{{ "nodes": {{ "root": {{ "inputs": {{ "x": "x" }} }}, "x": {{ "locked": {{ {node} }}, "original": {{ {node} }} }} }},
        "root": "root", "version": 7 }}"#
    );
    world.write("g/flake.lock", &lock);
    let text = format!("(builtins.getFlake \"path:{}\").v", world.shown("g"));
    let error = world.eval(&text).unwrap_err();
    assert!(
        error.to_lowercase().contains("lock file contains unlocked input"),
        "{error}"
    );
    if let Some(theirs) = world.nix(&text) {
        assert!(
            theirs
                .unwrap_err()
                .to_lowercase()
                .contains("lock file contains unlocked input")
        );
    }
}
