use nix_compat::hash::NixHash;
use nix_compat::store_path::StorePathName;

use super::*;

/// Makes the request in an empty store.
fn prepare(derivation: &Derivation, closure: &InputClosure) -> Result<PreparedBuild, RequestError> {
    let dir = StoreDir::default();
    let drv_path = derivation.store_path(&dir).unwrap();
    let store = Store::memory(dir);
    let options = options();
    futures::executor::block_on(super::prepare(&store, &drv_path, derivation, closure, &options))
}

fn options() -> RequestOptions {
    RequestOptions {
        cores: 2,
        memory_mib: 0,
        limits: Limits::default(),
        impure_environment: BTreeMap::from([
            (b"FOOBAR".to_vec(), b"1".to_vec()),
            (b"FOO".to_vec(), b"foo".to_vec()),
        ]),
    }
}

fn parse(name: &str, text: &str) -> Derivation {
    Derivation::parse(
        &StoreDir::default(),
        &StorePathName::new(name).unwrap(),
        text.as_bytes(),
    )
    .unwrap()
}

fn info(path: StorePath, node: igloo_castore::node::Node) -> PathInfo {
    PathInfo {
        path,
        node,
        nar_size: 0,
        nar_sha256: [0; 32],
        references: BTreeSet::new(),
        deriver: None,
        signatures: Vec::new(),
        content_address: None,
    }
}

fn environment_of(prepared: &PreparedBuild) -> Vec<String> {
    let environment = prepared.request.environment.iter();
    environment
        .map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()))
        .collect()
}

/// What Nix 2.8 printed by `export -p` for the same derivation (sandboxed, two cores).
#[test]
fn environment_is_the_one_nix_gives() {
    let text = r#"Derive([("out","/nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-envtest","","")],[],[],"x86_64-linux","/bin/sh",["-c",""],[("HOME","home"),("NIX_BUILD_CORES","x"),("NIX_STORE","nst"),("PATHX",""),("TERM","t"),("TMPDIR","mine"),("builder","/bin/sh"),("empty",""),("foo","bar"),("name","envtest"),("out","/nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-envtest"),("passAsFile","foo missing"),("system","x86_64-linux")])"#;
    let prepared = prepare(&parse("envtest", text), &BTreeMap::new()).unwrap();
    let expected = [
        "HOME=home",
        "NIX_BUILD_CORES=x",
        "NIX_BUILD_TOP=/build",
        "NIX_LOG_FD=2",
        "NIX_STORE=nst",
        "PATH=/path-not-set",
        "PATHX=",
        "PWD=/build",
        "TEMP=/build",
        "TEMPDIR=/build",
        "TERM=xterm-256color",
        "TMP=/build",
        "TMPDIR=/build",
        "builder=/bin/sh",
        "empty=",
        "fooPath=/build/.attr-1bp7cri8hplaz6hbz0v4f0nl44rl84q1sg25kgwqzipzd1mv89ic",
        "name=envtest",
        "out=/nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-envtest",
        "passAsFile=foo missing",
        "system=x86_64-linux",
    ];
    assert_eq!(environment_of(&prepared), expected);
    let files: Vec<_> = prepared.request.additional_files.iter().collect();
    assert_eq!(files.len(), 1);
    assert_eq!(
        files[0].0.to_string(),
        "build/.attr-1bp7cri8hplaz6hbz0v4f0nl44rl84q1sg25kgwqzipzd1mv89ic"
    );
    assert_eq!(files[0].1, "bar");
    assert_eq!(prepared.request.arguments, ["sh", "-c", ""]);
    assert_eq!(
        prepared.request.outputs[0].to_string(),
        "nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-envtest"
    );
    assert_eq!(prepared.request.needles, ["64gg0rb54s3zs6ikyqllwvhh05hnwz4q"]);
    assert!(!prepared.request.constraints.network);
    assert_eq!(prepared.request.check(), Ok(()));
}

/// Fixed outputs see the caller's variables they name, `NIX_OUTPUT_CHECKED`, and the network (recorded from Nix 2.8).
#[test]
fn fixed_outputs_may_reach_out() {
    let text = r#"Derive([("out","/nix/store/59209gx1b93k17d049isa072bka4iv8w-fod","sha256","0000000000000000000000000000000000000000000000000000000000000000")],[],[],"x86_64-linux","/bin/sh",[],[("impureEnvVars","FOOBAR BAZ"),("out","/nix/store/59209gx1b93k17d049isa072bka4iv8w-fod")])"#;
    let prepared = prepare(&parse("fod", text), &BTreeMap::new()).unwrap();
    let environment = environment_of(&prepared);
    for expected in [
        "FOOBAR=1",
        "BAZ=",
        "NIX_OUTPUT_CHECKED=1",
        "NIX_BUILD_CORES=2",
        "HOME=/homeless-shelter",
    ] {
        assert!(
            environment.contains(&expected.to_string()),
            "{expected} is not in {environment:?}"
        );
    }
    assert!(prepared.request.constraints.network);
}

/// What is not done is refused by name, and so is what no build in a machine can have.
#[test]
fn what_is_not_done_is_refused() {
    let with = |builder: &str, variable: &str, value: &str| {
        let text = format!(
            r#"Derive([("out","/nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-x","","")],[],[],"x86_64-linux","{builder}",[],[("{variable}","{value}")])"#
        );
        prepare(&parse("x", &text), &BTreeMap::new()).unwrap_err()
    };
    let cases = [
        (with("builtin:nosuch", "a", ""), "the builder 'builtin:nosuch'"),
        (
            with("/bin/sh", "requiredSystemFeatures", "kvm uid-range"),
            "the feature 'uid-range'",
        ),
        (
            with("/bin/sh", "requiredSystemFeatures", "recursive-nix"),
            "the feature 'recursive-nix'",
        ),
        (with("/bin/sh", "__noChroot", "1"), "__noChroot"),
        (with("/bin/sh", "__impureHostDeps", "/etc/x"), "'/etc/x'"),
        (with("/bin/sh", "__json", "[]"), "of type 'object'"),
        (with("/bin/sh", "__json", "{"), "no JSON"),
    ];
    for (error, part) in cases {
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// What Nix says of attributes it cannot take (recorded from 2.34).
#[test]
fn wrong_attributes_are_told_in_nix_words() {
    let with = |variable: &str, value: &str| {
        let text = format!(
            r#"Derive([("lib","/nix/store/1rvm96s5z8jyg0k421w3hw5nd7a2acnr-b-lib","",""),("out","/nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-b","","")],[],[],"x86_64-linux","/bin/sh",[],[("{variable}","{value}")])"#
        );
        prepare(&parse("b", &text), &BTreeMap::new())
            .unwrap_err()
            .to_string()
    };
    let json = |text: &str| with("__json", &text.replace('"', "\\\""));
    for (found, expected) in [
        (
            with("exportReferencesGraph", "g1"),
            "odd number of tokens in 'exportReferencesGraph': 'g1'",
        ),
        (
            with(
                "exportReferencesGraph",
                "a/b /nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-x",
            ),
            "invalid file name 'a/b' in 'exportReferencesGraph'",
        ),
        (
            with(
                "exportReferencesGraph",
                ".. /nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-x",
            ),
            "invalid file name '..' in 'exportReferencesGraph'",
        ),
        (
            with(
                "exportReferencesGraph",
                "g /nix/store/59209gx1b93k17d049isa072bka4iv8w-missing",
            ),
            "cannot export references of path '/nix/store/59209gx1b93k17d049isa072bka4iv8w-missing' because it is not in the input closure of the derivation",
        ),
        (
            with("allowedReferences", "out nosuch"),
            "output check for 'lib' contains output name 'nosuch', but this is not a valid output of this derivation. (Valid outputs are [lib, out].)",
        ),
        (
            json(r#"{"outputChecks":{"out":{"allowedReferences":"x"}}}"#),
            "while parsing attribute 'outputChecks.\"out\".allowedReferences': expected JSON value to be of type 'array' but it is of type 'string': \"x\"",
        ),
        (
            json(r#"{"outputChecks":{"out":{"allowedReferences":[1]}}}"#),
            "while parsing attribute 'outputChecks.\"out\".allowedReferences': expected JSON value to be of type 'string' but it is of type 'number': 1",
        ),
        (
            json(r#"{"unsafeDiscardReferences":{"out":1}}"#),
            "while parsing attribute 'unsafeDiscardReferences': expected JSON value to be of type 'boolean' but it is of type 'number': 1",
        ),
        (
            json(r#"{"requiredSystemFeatures":"kvm foo"}"#),
            "while parsing attribute 'requiredSystemFeatures': expected JSON value to be of type 'array' but it is of type 'string': \"kvm foo\"",
        ),
        (
            json(r#"{"preferLocalBuild":"1"}"#),
            "while parsing attribute 'preferLocalBuild': expected JSON value to be of type 'boolean' but it is of type 'string': \"1\"",
        ),
    ] {
        assert_eq!(found, expected);
    }
}

/// Features are asked of the builder, but for those that are the coordinator's; words or a list. What only macOS or Hydra
/// reads is left alone (recorded from Nix 2.8 and 2.34).
#[test]
fn features_and_preferences() {
    let text = |env: &str| {
        format!(
            r#"Derive([("out","/nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-x","","")],[],[],"x86_64-linux","/bin/sh",[],[{env}])"#
        )
    };
    let of = |env: &str| prepare(&parse("x", &text(env)), &BTreeMap::new()).unwrap();
    for env in [
        r#"("allowSubstitutes",""),("preferLocalBuild","1"),("requiredSystemFeatures","kvm  big-parallel\nca-derivations")"#,
        r#"("__json","{\"allowSubstitutes\":false,\"preferLocalBuild\":true,\"requiredSystemFeatures\":[\"kvm\",\"big-parallel\",\"ca-derivations\"]}")"#,
    ] {
        let prepared = of(env);
        let features = ["big-parallel", "kvm"].map(String::from);
        assert_eq!(prepared.request.constraints.features, BTreeSet::from(features));
        assert!(!prepared.options.allow_substitutes);
        let derivation = parse("x", &text(env));
        let drv_path = derivation.store_path(&StoreDir::default()).unwrap();
        let info = describe(&StoreDir::default(), &drv_path, &derivation).unwrap();
        assert_eq!(info.needs.features, prepared.request.constraints.features);
        assert!(!info.substitutable);
    }
    let prepared = of(
        r#"("__darwinAllowLocalNetworking","1"),("__sandboxProfile","x"),("maxSilent","3"),("timeout","3")"#,
    );
    assert!(prepared.options.allow_substitutes && !prepared.request.constraints.network);
    assert_eq!(prepared.request.limits, Limits::default());
}

/// What Nix 2.34 left in the build's directory for the derivation of that name in `oracle/record.nix`, and the environment
/// of its build.
#[test]
fn structured_attributes_are_those_nix_writes() {
    let prepared = oracle_build("attributes", include_str!("oracle/attributes.drv"));
    assert_files(
        &prepared,
        &[
            (".attrs.json", include_str!("oracle/attributes.attrs.json")),
            (".attrs.sh", include_str!("oracle/attributes.attrs.sh")),
        ],
    );
    // what the shell of the recording set itself is not the build's
    let ours = |line: &&String| !line.starts_with("PATH=");
    let found: BTreeSet<String> = environment_of(&prepared).iter().filter(ours).cloned().collect();
    let recorded = include_str!("oracle/attributes.env").lines().map(str::to_owned);
    let recorded: BTreeSet<String> = recorded
        .filter(|line| !line.starts_with("PATH=") && !line.starts_with("SHLVL="))
        .collect();
    assert_eq!(found, recorded);
}

/// See [`structured_attributes_are_those_nix_writes`].
#[test]
fn exported_references_are_those_nix_writes() {
    let prepared = oracle_build("structured", include_str!("oracle/structured.drv"));
    assert_files(
        &prepared,
        &[
            (".attrs.json", include_str!("oracle/structured.attrs.json")),
            (".attrs.sh", include_str!("oracle/structured.attrs.sh")),
        ],
    );
    let prepared = oracle_build("classic", include_str!("oracle/classic.drv"));
    assert_files(
        &prepared,
        &[
            ("g1", include_str!("oracle/classic.g1")),
            ("g2", include_str!("oracle/classic.g2")),
            ("g3", include_str!("oracle/classic.g3")),
        ],
    );
    let exported = "exportReferencesGraph=g1 /nix/store/d6ldnz36m8g7hng5wkpkjcz3qbq81xwp-b g2 ";
    assert!(
        environment_of(&prepared)
            .iter()
            .any(|line| line.starts_with(exported))
    );
}

/// Own placeholders become paths in arguments, values and files, but not in names or for outputs there are not (recorded
/// from Nix 2.34).
#[test]
fn own_placeholders_become_paths() {
    let out = "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9";
    let lib = "/0sra2y18lr3h6j58qjm0w46yv36h1wjmilb09n8aimdpivdymscx";
    let text = format!(
        r#"Derive([("out","/nix/store/3kskcnmh0m7jyiwwmb9cp0970sadjqyq-pos","","")],[],[],"x86_64-linux","/bin/sh",["a{out}b{out}"],[("bar","{out}"),("baz","{lib}"),("foo","x {out} y"),("passAsFile","foo")])"#
    );
    let prepared = prepare(&parse("pos", &text), &BTreeMap::new()).unwrap();
    let path = "/nix/store/3kskcnmh0m7jyiwwmb9cp0970sadjqyq-pos";
    let environment = environment_of(&prepared);
    assert!(environment.contains(&format!("bar={path}")) && environment.contains(&format!("baz={lib}")));
    assert_eq!(prepared.request.arguments[1], format!("a{path}b{path}"));
    let files: Vec<_> = prepared.request.additional_files.values().collect();
    assert_eq!(files, [&Bytes::from(format!("x {path} y"))]);
}

/// Floating outputs are written to paths made from the derivation's; impure ones see the network and the caller's variables.
#[test]
fn floating_outputs_have_provisional_paths() {
    let text = |kind: &str| {
        format!(
            r#"Derive([("out","","r:sha256","{kind}")],[],[],"x86_64-linux","/bin/sh",[],[("impureEnvVars","FOOBAR"),("out","/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9")])"#
        )
    };
    for (kind, is_impure) in [("", false), ("impure", true)] {
        let derivation = parse("x", &text(kind));
        let prepared = prepare(&derivation, &BTreeMap::new()).unwrap();
        let dir = StoreDir::default();
        let drv_path = derivation.store_path(&dir).unwrap();
        let path = dir
            .provisional_path(&drv_path, &derivation.name, &"out".parse().unwrap())
            .unwrap();
        let environment = environment_of(&prepared);
        assert!(environment.contains(&format!("out={}", dir.print(&path))));
        assert_eq!(environment.contains(&"FOOBAR=1".to_owned()), is_impure);
        assert!(!environment.contains(&"NIX_OUTPUT_CHECKED=1".to_owned()));
        assert_eq!(prepared.request.constraints.network, is_impure);
        assert_eq!(prepared.candidates, [path]);
        assert_eq!(prepared.request.check(), Ok(()));
    }
}

/// Needles are the hash parts of the closure and the outputs, each once, and stand for those paths.
#[test]
fn needles_stand_for_store_paths() {
    let text = r#"Derive([("out","/nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-x","","")],[],[],"x86_64-linux","/bin/sh",[],[])"#;
    let dir = StoreDir::default();
    let input = dir
        .parse("/nix/store/59209gx1b93k17d049isa072bka4iv8w-fod")
        .unwrap();
    let node = igloo_castore::Directory::new().node();
    let closure = BTreeMap::from([(input.clone(), info(input, node))]);
    let prepared = prepare(&parse("x", text), &closure).unwrap();
    assert_eq!(prepared.request.needles.len(), 2);
    for (path, needle) in prepared.candidates.iter().zip(&prepared.request.needles) {
        assert_eq!(path.hash_part(), needle[..]);
    }
    assert_eq!(prepared.request.inputs.len(), 1);
}

/// The request for a derivation of `oracle/`, in a store with the closure of its inputs.
fn oracle_build(name: &str, text: &str) -> PreparedBuild {
    let store = Store::memory(StoreDir::default());
    let derivation = parse(name, text);
    futures::executor::block_on(async {
        let mut infos = Vec::new();
        for line in include_str!("oracle/closure.txt").lines() {
            infos.push(recorded_info(&store, line).await);
        }
        store.path_infos.register(infos.clone()).await.unwrap();
        let closure = infos.into_iter().map(|info| (info.path.clone(), info)).collect();
        let drv_path = derivation.store_path(&store.dir).unwrap();
        super::prepare(&store, &drv_path, &derivation, &closure, &options())
            .await
            .unwrap()
    })
}

/// `PATH HASH SIZE ADDRESS REFERENCE…`; derivations have their texts, the others no content.
async fn recorded_info(store: &Store, line: &str) -> PathInfo {
    let path = |text: &str| store.dir.parse(text).unwrap();
    let [name, hash, size, address, references @ ..] = &line.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{line}");
    };
    let text: &[u8] = match *name {
        "/nix/store/5jx367q7ab37cwsqnhb9vc48crkzhmmz-a.drv" => {
            include_bytes!("oracle/5jx367q7ab37cwsqnhb9vc48crkzhmmz-a.drv")
        }
        "/nix/store/w3kfzdjy25rqnzlgbnxr234bpqvx563l-b.drv" => {
            include_bytes!("oracle/w3kfzdjy25rqnzlgbnxr234bpqvx563l-b.drv")
        }
        _ => b"",
    };
    let blob = igloo_castore::ingest::put_blob(&store.castore, Bytes::from_static(text)).await;
    let (digest, file_size) = blob.unwrap();
    let node = igloo_castore::node::Node::File {
        digest,
        size: file_size,
        executable: false,
    };
    let sha256 = NixHash::parse_any(hash, None).unwrap();
    PathInfo {
        nar_size: size.parse().unwrap(),
        nar_sha256: sha256.digest().try_into().unwrap(),
        references: references
            .iter()
            .filter(|text| !text.is_empty())
            .map(|text| path(text))
            .collect(),
        content_address: (*address != "-").then(|| address.parse().unwrap()),
        ..info(path(name), node)
    }
}

/// These are all files, and this is in them.
fn assert_files(prepared: &PreparedBuild, expected: &[(&str, &str)]) {
    let found = prepared.request.additional_files.iter();
    let found: Vec<_> = found
        .map(|(path, content)| (path.to_string(), String::from_utf8(content.to_vec()).unwrap()))
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, content)| (format!("build/{name}"), (*content).to_owned()))
        .collect();
    assert_eq!(found, expected);
}
