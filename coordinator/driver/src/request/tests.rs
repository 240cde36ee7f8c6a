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
        impure_environment: BTreeMap::from([(b"FOOBAR".to_vec(), b"1".to_vec())]),
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

/// What is not done is refused by name.
#[test]
fn rules_not_implemented_are_errors() {
    let with = |builder: &str, variable: &str| {
        format!(
            r#"Derive([("out","/nix/store/64gg0rb54s3zs6ikyqllwvhh05hnwz4q-x","","")],[],[],"x86_64-linux","{builder}",[],[("{variable}","1")])"#
        )
    };
    for (builder, variable) in [
        ("/bin/sh", "__json"),
        ("/bin/sh", "exportReferencesGraph"),
        ("builtin:fetchurl", "a"),
    ] {
        let derivation = parse("x", &with(builder, variable));
        let refused = prepare(&derivation, &BTreeMap::new());
        assert!(
            matches!(refused, Err(RequestError::Unsupported { .. })),
            "{builder} {variable}"
        );
    }
    let derivation = parse("x", &with("/bin/sh", "__noChroot"));
    let refused = prepare(&derivation, &BTreeMap::new());
    assert!(matches!(refused, Err(RequestError::NoSandbox)));
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
