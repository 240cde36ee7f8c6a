use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::content_address::{ContentAddress, ContentAddressMethod};
use crate::hash::{HashAlgo, NixHash};

fn name(text: &str) -> StorePathName {
    StorePathName::new(text).unwrap()
}

fn output_name(text: &str) -> OutputName {
    OutputName::new(text).unwrap()
}

fn drv_path(byte: u8) -> StorePath {
    StorePath::new([byte; 20], name("x.drv"))
}

fn derivation(text: &str) -> Derivation {
    Derivation {
        name: name(text),
        outputs: [(output_name("out"), DerivationOutput::Deferred)].into(),
        input_drvs: BTreeMap::new(),
        input_srcs: BTreeSet::new(),
        platform: b"x86_64-linux".to_vec(),
        builder: b"/bin/sh".to_vec(),
        args: Vec::new(),
        env: BTreeMap::new(),
    }
}

fn fixed(text: &str, contents: &[u8]) -> Derivation {
    let hash = NixHash::of(HashAlgo::Sha256, contents);
    let address = ContentAddress::new(ContentAddressMethod::Flat, hash).unwrap();
    let outputs = [(output_name("out"), DerivationOutput::CaFixed { address })].into();
    Derivation {
        outputs,
        ..derivation(text)
    }
}

fn needs(mut derivation: Derivation, path: &StorePath) -> Derivation {
    derivation
        .input_drvs
        .insert(path.clone(), [output_name("out")].into());
    derivation
}

fn any_path(suffix: &'static str) -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), crate::store_path::tests::ANY_NAME)
        .prop_map(move |(digest, text)| StorePath::new(digest, name(&format!("{text}{suffix}"))))
}

fn any_output() -> impl Strategy<Value = DerivationOutput> {
    let method = prop::sample::select(vec![ContentAddressMethod::Flat, ContentAddressMethod::Recursive]);
    let algo = prop::sample::select(HashAlgo::ALL.to_vec());
    prop_oneof![
        any_path("").prop_map(|path| DerivationOutput::InputAddressed { path }),
        Just(DerivationOutput::Deferred),
        (method.clone(), algo.clone(), any::<Vec<u8>>()).prop_map(|(method, algo, bytes)| {
            let address = ContentAddress::new(method, NixHash::of(algo, &bytes)).unwrap();
            DerivationOutput::CaFixed { address }
        }),
        (method.clone(), algo.clone())
            .prop_map(|(method, algo)| DerivationOutput::CaFloating { method, algo }),
        (method, algo).prop_map(|(method, algo)| DerivationOutput::Impure { method, algo }),
    ]
}

fn any_string() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(prop::sample::select(b"\"\\\n\r\tnrt,[]()a".to_vec()), 0..12),
    ]
}

prop_compose! {
    fn any_derivation()(
        name in crate::store_path::tests::ANY_NAME,
        outputs in prop::collection::btree_map("[a-z_.-]{1,8}".prop_map(|n| output_name(&n)), any_output(), 0..4),
        input_drvs in prop::collection::btree_map(
            any_path(".drv"), prop::collection::btree_set("[a-z]{1,4}".prop_map(|n| output_name(&n)), 1..4), 0..4),
        input_srcs in prop::collection::btree_set(any_path(""), 0..4),
        platform in "[a-z0-9_ \n-]{0,12}",
        builder in any_string(),
        args in prop::collection::vec(any_string(), 0..4),
        env in prop::collection::btree_map(any_string(), any_string(), 0..6),
    ) -> Derivation {
        let platform = platform.into_bytes();
        Derivation { name: StorePathName::new(&name).unwrap(), outputs, input_drvs, input_srcs, platform, builder, args, env }
    }
}

proptest! {
    #[test]
    fn round_trips(derivation in any_derivation()) {
        let dir = StoreDir::new("/some/store").unwrap();
        let text = derivation.to_aterm(&dir).unwrap();
        let parsed = Derivation::parse(&dir, &derivation.name, &text);
        prop_assert_eq!(parsed, Ok(derivation));
    }

    /// A changed byte is refused, or it gives another derivation whose text is the changed bytes.
    #[test]
    fn accepted_is_canonical(derivation in any_derivation(), at: prop::sample::Index, byte in any_byte()) {
        let dir = StoreDir::default();
        let mut text = derivation.to_aterm(&dir).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        match Derivation::parse(&dir, &derivation.name, &text) {
            Ok(parsed) => prop_assert_eq!(parsed.to_aterm(&dir).unwrap(), text),
            Err(error) => prop_assert!(error.offset <= text.len()),
        }
    }

    #[test]
    fn truncated_is_refused(derivation in any_derivation(), at: prop::sample::Index) {
        let dir = StoreDir::default();
        let text = derivation.to_aterm(&dir).unwrap();
        let cut = &text[..at.index(text.len())];
        prop_assert!(Derivation::parse(&dir, &derivation.name, cut).is_err());
    }
}

fn any_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\"\\\n\r\tnrt,[]()a/-0".to_vec())
    ]
}

const HASH: &str = "00000000000000000000000000000000";

fn refused(text: &str) -> (usize, ParseDerivationReason) {
    let error = Derivation::parse(&StoreDir::default(), &name("x"), text.as_bytes()).unwrap_err();
    (error.offset, error.reason)
}

#[test]
fn refuses_what_nix_never_writes() {
    use ParseDerivationReason as Reason;
    type Check = fn(&Reason) -> bool;
    let src = |text: &str| format!("\"/nix/store/{HASH}-{text}\"");
    let (a, b) = (src("a"), src("b"));
    let cases: [(String, usize, Check); 15] = [
        ("".into(), 0, |r| {
            matches!(r, Reason::Expected { expected: "Derive([" })
        }),
        ("Derive([],[],[]".into(), 15, |r| {
            matches!(r, Reason::Expected { .. })
        }),
        ("DrvWithVersion(\"xp-dyn-drv\",[]".into(), 27, |r| {
            matches!(r, Reason::Version { .. })
        }),
        ("Derive([],[],[],\"s\\n\",\"\",[],[])".into(), 18, |r| {
            matches!(r, Reason::Escape)
        }),
        ("Derive([],[],[],\"\",\"\\q\",[],[])".into(), 20, |r| {
            matches!(r, Reason::Escape)
        }),
        ("Derive([],[],[],\"\",\"\t\",[],[])".into(), 20, |r| {
            matches!(r, Reason::Raw { byte: b'\t' })
        }),
        ("Derive([],[],[],\"\",\"\\".into(), 20, |r| {
            matches!(r, Reason::Unterminated)
        }),
        ("Derive([],[],[],\"\",\"\",[\"a\",],[])".into(), 27, |r| {
            matches!(r, Reason::Expected { .. })
        }),
        ("Derive([],[],[],\"\",\"\",[\"a\"\"b\"],[])".into(), 26, |r| {
            matches!(r, Reason::Expected { .. })
        }),
        (
            "Derive([],[],[],\"\",\"\",[],[(\"b\",\"\"),(\"a\",\"\")])".into(),
            35,
            |r| {
                matches!(
                    r,
                    Reason::NotSorted {
                        list: "environment variables"
                    }
                )
            },
        ),
        ("Derive([],[],[],\"\",\"\",[],[])x".into(), 28, |r| {
            matches!(r, Reason::TrailingData)
        }),
        (format!("Derive([],[],[{b},{a}],"), 62, |r| {
            matches!(r, Reason::NotSorted { .. })
        }),
        (format!("Derive([],[],[{a},{a}],"), 62, |r| {
            matches!(r, Reason::NotSorted { .. })
        }),
        (format!("Derive([],[({a},[])],"), 61, |r| {
            matches!(r, Reason::NoOutputs)
        }),
        ("Derive([],[],[\"/etc/passwd\"],".into(), 14, |r| {
            matches!(r, Reason::StorePath { .. })
        }),
    ];
    for (text, offset, check) in cases {
        let (found, reason) = refused(&text);
        assert!(check(&reason), "{text}: {reason:?}");
        assert_eq!(found, offset, "{text}: {reason:?}");
    }
}

#[test]
fn refuses_outputs_that_say_too_much_or_wrong() {
    use ParseDerivationReason as Reason;
    let refused_output = |fields: &str| refused(&format!("Derive([({fields})],")).1;
    let path = format!("/nix/store/{HASH}-x");
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert!(matches!(
        refused_output(r#""a b","","","""#),
        Reason::OutputName { .. }
    ));
    assert!(matches!(
        refused_output(r#""out","","","hash""#),
        Reason::Superfluous { .. }
    ));
    assert!(matches!(
        refused_output(&format!(r#""out","{path}","sha256","""#)),
        Reason::Superfluous { .. }
    ));
    assert!(matches!(
        refused_output(&format!(r#""out","{path}","sha256","impure""#)),
        Reason::Superfluous { .. }
    ));
    assert!(matches!(
        refused_output(&format!(r#""out","{path}","sha256","{sha256}""#)),
        Reason::FixedPath { .. }
    ));
    assert!(matches!(
        refused_output(r#""out","","sha256","00""#),
        Reason::Hash { .. }
    ));
    let upper = sha256.to_uppercase();
    assert_eq!(
        refused_output(&format!(r#""out","","sha256","{upper}""#)),
        Reason::HashFormat
    );
    assert!(matches!(
        refused_output(r#""out","","blake3","""#),
        Reason::Method { .. }
    ));
    assert!(matches!(
        refused_output(r#""out","","git:sha1","""#),
        Reason::Method { .. }
    ));
    assert!(matches!(
        refused_output(r#""out","relative","","""#),
        Reason::StorePath { .. }
    ));
}

#[test]
fn refuses_large_texts_unread() {
    let text = vec![b'D'; TEXT_SIZE_MAX + 1];
    let error = Derivation::parse(&StoreDir::default(), &name("x"), &text).unwrap_err();
    assert!(matches!(error.reason, ParseDerivationReason::TooLarge { .. }));
    assert_eq!(error.code(), Code::ResourceExhausted);
}

#[test]
fn output_kinds() {
    let mut drv = derivation("x");
    assert_eq!(drv.kind(), Ok(DerivationKind::Deferred));
    drv.outputs.insert(
        output_name("dev"),
        DerivationOutput::InputAddressed { path: drv_path(1) },
    );
    assert_eq!(drv.kind(), Err(OutputKindError::Mixed));
    drv.outputs.clear();
    assert_eq!(drv.kind(), Err(OutputKindError::NoOutputs));
    let mut drv = fixed("x", b"");
    assert_eq!(drv.kind(), Ok(DerivationKind::CaFixed));
    let output = drv.outputs.remove("out").unwrap();
    drv.outputs.insert(output_name("dev"), output);
    assert_eq!(drv.kind(), Err(OutputKindError::FixedNames));
}

/// A chain far deeper than any stack: loaded, hashed, and nothing overflows.
#[test]
fn deep_graphs_do_not_recurse() {
    const DEPTH: u32 = 200_000;
    let path_at = |depth: u32| {
        let mut digest = [0; 20];
        digest[..4].copy_from_slice(&depth.to_le_bytes());
        StorePath::new(digest, name("x.drv"))
    };
    let mut memo = HashModuloMemo::new(StoreDir::default());
    let mut looked_up = 0;
    memo.load([path_at(0)], |path| {
        looked_up += 1;
        let depth = u32::from_le_bytes(path.digest()[..4].try_into().unwrap());
        let mut drv = derivation("x");
        let output = DerivationOutput::InputAddressed { path: drv_path(1) };
        drv.outputs.insert(output_name("out"), output);
        Ok::<_, Infallible>(if depth == DEPTH {
            drv
        } else {
            needs(drv, &path_at(depth + 1))
        })
    })
    .unwrap();
    assert_eq!(looked_up, DEPTH + 1);
    assert!(matches!(memo.get(&path_at(0)), Some(HashModulo::Derivation(_))));
}

#[test]
fn derivations_that_need_each_other_are_refused() {
    let mut memo = HashModuloMemo::new(StoreDir::default());
    let loaded = memo.load([drv_path(1)], |path| {
        let other = drv_path(3 - path.digest()[0]);
        Ok::<_, Infallible>(needs(derivation("x"), &other))
    });
    assert!(matches!(loaded, Err(LoadDerivationsError::Cycle { .. })));
}

#[test]
fn failed_look_ups_are_named() {
    let mut memo = HashModuloMemo::new(StoreDir::default());
    let loaded = memo.load([drv_path(1)], |_| Err("gone"));
    assert!(matches!(
        loaded,
        Err(LoadDerivationsError::LookUp { source: "gone", .. })
    ));
    let unknown = memo.output_hash(&needs(derivation("x"), &drv_path(1)));
    assert_eq!(unknown, Err(HashModuloError::UnknownInput { path: drv_path(1) }));
}

/// Another derivation with the same fixed output leaves the paths of its users alone; other content does not.
#[test]
fn fixed_inputs_count_by_content() {
    let mut memo = HashModuloMemo::new(StoreDir::default());
    let mut mirror = fixed("source", b"content");
    mirror.env.insert(b"url".to_vec(), b"mirror".to_vec());
    memo.add(drv_path(1), &fixed("source", b"content")).unwrap();
    memo.add(drv_path(2), &mirror).unwrap();
    memo.add(drv_path(3), &fixed("source", b"other content")).unwrap();
    let filled = |byte| {
        let mut user = needs(derivation("user"), &drv_path(byte));
        user.fill_output_paths(&memo).unwrap();
        user.check_output_paths(&memo).unwrap();
        user.outputs
    };
    assert_eq!(filled(1), filled(2));
    assert_ne!(filled(1), filled(3));
    let mut wrong = derivation("user");
    wrong.input_drvs.insert(drv_path(1), [output_name("dev")].into());
    assert!(matches!(
        memo.output_hash(&wrong),
        Err(HashModuloError::NoSuchOutput { .. })
    ));
}

#[test]
fn outputs_of_users_of_deferred_derivations_are_deferred() {
    let mut memo = HashModuloMemo::new(StoreDir::default());
    let output = DerivationOutput::CaFloating {
        method: ContentAddressMethod::Recursive,
        algo: HashAlgo::Sha256,
    };
    let floating = Derivation {
        outputs: [(output_name("out"), output)].into(),
        ..derivation("f")
    };
    assert_eq!(memo.add(drv_path(1), &floating), Ok(&HashModulo::Deferred));
    let mut user = needs(derivation("user"), &drv_path(1));
    user.fill_output_paths(&memo).unwrap();
    let mut untouched = needs(derivation("user"), &drv_path(1));
    untouched.env.insert(b"out".to_vec(), Vec::new());
    assert_eq!(user, untouched);
    assert_eq!(memo.add(drv_path(2), &user), Ok(&HashModulo::Deferred));
    user.outputs.insert(
        output_name("out"),
        DerivationOutput::InputAddressed { path: drv_path(9) },
    );
    assert!(matches!(
        user.check_output_paths(&memo),
        Err(OutputPathError::Path { .. })
    ));
}

#[test]
fn wrong_paths_are_found() {
    let memo = HashModuloMemo::new(StoreDir::default());
    let mut drv = derivation("x");
    assert!(matches!(
        drv.check_output_paths(&memo),
        Err(OutputPathError::NeedlesslyDeferred { .. })
    ));
    drv.fill_output_paths(&memo).unwrap();
    drv.check_output_paths(&memo).unwrap();
    let filled = drv.clone();
    drv.fill_output_paths(&memo).unwrap();
    assert_eq!(drv, filled);

    drv.env.insert(b"out".to_vec(), b"/elsewhere".to_vec());
    assert!(matches!(
        drv.check_output_paths(&memo),
        Err(OutputPathError::Variable { .. })
    ));
    assert!(matches!(
        drv.fill_output_paths(&memo),
        Err(OutputPathError::Variable { .. })
    ));
    drv.env.remove(&b"out"[..]);
    assert!(matches!(
        drv.check_output_paths(&memo),
        Err(OutputPathError::Path { .. })
    ));
    drv = filled;
    drv.builder = b"/bin/other".to_vec();
    assert!(matches!(
        drv.check_output_paths(&memo),
        Err(OutputPathError::Path { .. })
    ));

    let mut drv = fixed("x", b"");
    drv.env.insert(b"out".to_vec(), b"/elsewhere".to_vec());
    assert!(matches!(
        drv.fill_output_paths(&memo),
        Err(OutputPathError::Variable { .. })
    ));
}

#[test]
fn rewrites_apply_in_order() {
    let mut drv = derivation("x");
    drv.builder = b"a-aa-b".to_vec();
    drv.args = vec![b"".to_vec(), b"none".to_vec(), b"ab".to_vec()];
    drv.env = [(b"a".to_vec(), b"b".to_vec()), (b"c".to_vec(), b"ca".to_vec())].into();
    let rewrites = [("", "x"), ("a", "b"), ("b", "c")].map(|(from, to)| (from.into(), to.into()));
    drv.rewrite(&rewrites.into());
    assert_eq!(drv.builder, b"c-cc-c");
    assert_eq!(drv.args, [b"".to_vec(), b"none".to_vec(), b"cc".to_vec()]);
    assert_eq!(drv.env, [(b"c".to_vec(), b"c".to_vec())].into());
}

#[test]
fn names_of_derivation_paths() {
    assert_eq!(derivation_name(&drv_path(1)).unwrap().as_str(), "x");
    let not = StorePath::new([0; 20], name("x"));
    assert!(matches!(
        derivation_name(&not),
        Err(NotDerivationError::Extension { .. })
    ));
    let empty = StorePath::new([0; 20], name(".drv"));
    assert!(matches!(
        derivation_name(&empty),
        Err(NotDerivationError::Name { .. })
    ));
}
