//! Repositories and paths of this machine.

use std::path::Path;

use super::world::{EXPORTED, FIRST, SECOND, SIDE, WHOLE, World, attributes_of, commit, git};

#[test]
fn commits_of_repositories_of_this_machine() {
    let Some(world) = World::new() else { return };
    let repo = world.repository();
    let plain = world.same(&attributes_of(&format!("builtins.fetchGit {repo}")));
    let expected = serde_json::json!({
        "lastModified": 1_609_556_645, "lastModifiedDate": "20210102030405", "narHash": EXPORTED, "rev": SECOND,
        "revCount": 2, "shortRev": "a39a056", "submodules": false, "out": plain["out"],
    });
    assert_eq!(plain, expected);
    let cases = [
        (
            format!("builtins.fetchGit {{ url = \"file://{repo}\"; }}"),
            SECOND,
            EXPORTED,
            Some(2),
        ),
        (
            format!("builtins.fetchGit {{ url = {repo}; exportIgnore = false; }}"),
            SECOND,
            WHOLE,
            Some(2),
        ),
        (
            format!("builtins.fetchGit {{ url = \"{repo}\"; ref = \"v1\"; shallow = true; }}"),
            SECOND,
            EXPORTED,
            Some(0),
        ),
        (
            format!(
                "builtins.fetchGit {{ url = \"{repo}\"; ref = \"refs/tags/v1\"; submodules = true; name = \"foo\"; }}"
            ),
            SECOND,
            WHOLE,
            Some(2),
        ),
        (
            format!("builtins.fetchTree {{ type = \"git\"; url = \"file://{repo}\"; }}"),
            SECOND,
            WHOLE,
            None,
        ),
        (
            format!(
                "builtins.fetchTree {{ type = \"git\"; url = \"{repo}\"; ref = \"main\"; shallow = true; }}"
            ),
            SECOND,
            WHOLE,
            None,
        ),
        (
            format!("builtins.fetchTree {{ type = \"git\"; url = \"{repo}\"; shallow = false; }}"),
            SECOND,
            WHOLE,
            Some(2),
        ),
    ];
    for (fetch, rev, hash, count) in cases {
        let found = world.same(&attributes_of(&fetch));
        assert_eq!(
            (&found["rev"], &found["narHash"]),
            (&rev.into(), &hash.into()),
            "{fetch}"
        );
        assert_eq!(found["revCount"].as_u64(), count, "{fetch}");
    }
    for fetch in [
        format!("builtins.fetchGit {{ url = {repo}; rev = \"{FIRST}\"; }}"),
        format!("builtins.fetchGit {{ url = \"{repo}\"; ref = \"side\"; }}"),
        format!("builtins.fetchTree \"git+file://{repo}?ref=side\""),
        format!("builtins.fetchTree {{ type = \"git\"; url = \"file://{repo}\"; rev = \"{FIRST}\"; }}"),
        format!(
            "builtins.fetchGit {{ url = \"{repo}\"; rev = \"{FIRST}\"; ref = \"side\"; allRefs = true; }}"
        ),
    ] {
        let found = world.same(&attributes_of(&fetch));
        let rev = if fetch.contains(FIRST) { FIRST } else { SIDE };
        assert_eq!(found["rev"], rev, "{fetch}");
    }
    let listed = world.same(&format!("builtins.readDir (builtins.fetchGit {repo})"));
    assert_eq!(
        listed,
        serde_json::json!({ ".gitattributes": "regular", "a": "regular", "d": "directory", "l": "symlink" })
    );
}

#[test]
fn working_trees_with_changes() {
    let Some(world) = World::new() else { return };
    let repo = world.repository();
    world.write("repo/a", "hello\ndirty\n");
    world.write("repo/untracked", "new\n");
    let found = world.same(&attributes_of(&format!("builtins.fetchGit {repo}")));
    assert_eq!(found["dirtyRev"], format!("{SECOND}-dirty"));
    assert_eq!(
        (&found["rev"], &found["revCount"]),
        (&"0".repeat(40).into(), &0.into())
    );
    let tree = format!("builtins.fetchTree {{ type = \"git\"; url = \"file://{repo}\"; }}");
    let found = world.same(&attributes_of(&tree));
    assert_eq!(
        (&found["dirtyShortRev"], &found["rev"]),
        (&"a39a056-dirty".into(), &serde_json::Value::Null)
    );
    let listed = world.same(&format!("builtins.attrNames (builtins.readDir ({tree}))"));
    assert_eq!(listed, serde_json::json!([".gitattributes", "a", "b", "d", "l"]));
    // a name asks for what is committed
    let found = world.same(&attributes_of(&format!(
        "builtins.fetchGit {{ url = {repo}; ref = \"main\"; }}"
    )));
    assert_eq!(found["narHash"], EXPORTED);
}

#[test]
fn submodules_are_fetched_when_asked_for() {
    let Some(world) = World::new() else { return };
    let inner = world.repository();
    world.write("outer/x", "x\n");
    let (outer, date) = (world.path("outer"), "2021-01-02T03:04:05Z");
    git(&outer, date, &["init", "-q", "-b", "main", "."]);
    git(&outer, date, &["submodule", "--quiet", "add", &inner, "in/ner"]);
    commit(&outer, date, "outer");
    let outer = outer.to_str().unwrap();
    let read = |flag: &str| {
        let fetch = format!("builtins.fetchGit {{ url = \"file://{outer}\"; ref = \"main\"; {flag} }}");
        world.same(&attributes_of(&fetch));
        world.same(&format!(
            "builtins.attrNames (builtins.readDir ({fetch} + \"/in/ner\"))"
        ))
    };
    assert_eq!(read(""), serde_json::json!([]));
    assert_eq!(
        read("submodules = true;"),
        serde_json::json!([".gitattributes", "a", "b", "d", "l"])
    );
}

#[test]
fn bare_repositories_and_what_is_refused() {
    let Some(world) = World::new() else { return };
    let repo = world.repository();
    let bare = world.shown("bare");
    git(
        Path::new(&repo),
        "2021-01-02T03:04:05Z",
        &["clone", "-q", "--bare", ".", &bare],
    );
    let found = world.same(&attributes_of(&format!(
        "builtins.fetchGit {{ url = \"file://{bare}\"; }}"
    )));
    assert_eq!(
        (&found["rev"], &found["narHash"]),
        (&SECOND.into(), &EXPORTED.into())
    );
    let refused = |text: &str, why: &str| {
        let error = world.eval(&attributes_of(text)).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
        if let Some(theirs) = world.nix(&attributes_of(text)) {
            assert!(theirs.is_err(), "{text}");
        }
    };
    refused(
        &format!("builtins.fetchGit {{ url = \"{repo}\"; foo = 1; }}"),
        "input attribute 'foo' not supported by scheme 'git'",
    );
    refused(&format!("builtins.fetchGit \"{repo}/nope\""), "does not exist");
    refused(
        &format!("builtins.fetchGit {{ url = \"{repo}\"; ref = \"nope\"; }}"),
        "nope",
    );
    refused(
        &format!("builtins.fetchGit {{ url = \"{repo}\"; ref = \"--upload-pack=x\"; }}"),
        "invalid Git branch/tag name",
    );
    refused(
        &format!(
            "builtins.fetchGit {{ url = \"{repo}\"; rev = \"{}1\"; }}",
            "0".repeat(39)
        ),
        "has no commit",
    );
    refused(
        &format!("builtins.fetchGit {{ url = \"{repo}\"; rev = \"xyz\"; }}"),
        "hash 'xyz' has wrong length for hash algorithm 'sha1'",
    );
    let zeros = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    refused(
        &format!("builtins.fetchGit {{ url = \"{repo}\"; narHash = \"{zeros}\"; }}"),
        "NAR hash mismatch in input",
    );
    refused(
        &format!("builtins.fetchTree {{ type = \"git\"; url = \"{repo}\"; lastModified = 5; }}"),
        "'lastModified' attribute mismatch",
    );
    refused(
        "builtins.fetchTree { type = \"git\"; }",
        "input attribute 'url' is missing",
    );
    refused(
        "builtins.fetchTree { type = \"path\"; path = \"d\"; }",
        "cannot fetch input 'path:d' because it uses a relative path",
    );
    refused(
        "builtins.fetchTree { url = \"x\"; }",
        "argument 'type' is missing in call to 'fetchTree'",
    );
    refused("builtins.fetchGit \"https://127.0.0.1:1/x\"", "no network");
}

#[test]
fn paths() {
    let Some(world) = World::new() else { return };
    world.write("tree/a", "text");
    world.write("tree/d/e", "text");
    let tree = world.shown("tree");
    let found = world.same(&attributes_of(&format!(
        "builtins.fetchTree {{ type = \"path\"; path = \"{tree}\"; }}"
    )));
    assert!(found["lastModified"].as_u64().unwrap() > 1_700_000_000);
    let given = format!(
        "builtins.fetchTree {{ type = \"path\"; path = \"{tree}\"; lastModified = 5; rev = \"{FIRST}\"; revCount = 5; }}"
    );
    let found = world.same(&attributes_of(&given));
    assert_eq!(
        (&found["lastModifiedDate"], &found["shortRev"], &found["revCount"]),
        (&"19700101000005".into(), &"5a1b0d7".into(), &5.into())
    );
}
