use proptest::prelude::*;

use super::*;
use crate::content_address::ContentAddressMethod;
use crate::hash::HashAlgo;
use crate::signature::SecretKey;
use crate::store_path::StorePathName;

const HASH: &str = "00000000000000000000000000000000";
const NAR_HASH: &str = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";

fn minimal() -> String {
    format!("StorePath: /nix/store/{HASH}-x\nURL: nar/x\nNarHash: {NAR_HASH}\nNarSize: 1\n")
}

fn parse(text: &str) -> Result<NarInfo, ParseNarInfoError> {
    NarInfo::parse(&StoreDir::default(), text)
}

/// As Nix 2.8's `nix copy` writes it, and as it stays.
#[test]
fn whole_file_round_trips() {
    let text = format!(
        "StorePath: /nix/store/{HASH}-x\nURL: nar/x.nar.xz\nCompression: xz\nFileHash: {NAR_HASH}\nFileSize: 7\n\
         NarHash: {NAR_HASH}\nNarSize: 9\nReferences: {HASH}-a {HASH}-b\nDeriver: {HASH}-x.drv\n\
         Sig: b:YWJj\nSig: a:YWJj\nCA: fixed:r:{NAR_HASH}\n"
    );
    assert_eq!(parse(&text).unwrap().print(&StoreDir::default()), text);
}

#[test]
fn absent_fields_have_their_defaults() {
    let info = parse(&minimal()).unwrap();
    assert_eq!(info.compression, "bzip2");
    assert!(info.references.is_empty() && info.signatures.is_empty());
    let lines =
        "Deriver: unknown-deriver\nCompression: \nFileSize: 0\nCA: \nSystem: x86_64-linux\nReferences: \n";
    assert_eq!(parse(&format!("{}{lines}", minimal())).unwrap(), info);
    let printed = info.print(&StoreDir::default());
    assert!(printed.contains("\nReferences: \n") && !printed.contains("Deriver"));
    let twice = parse(&format!("{}Sig: a:YWJj\nSig: a:YWJj\n", minimal())).unwrap();
    assert_eq!(twice.signatures.len(), 1);
}

#[test]
fn refuses() {
    use ParseNarInfoReason as Reason;
    type Check = fn(&Reason) -> bool;
    let cases: [(&str, Check); 14] = [
        ("no colon\n", |r| matches!(r, Reason::NoColon)),
        ("URL:\n", |r| matches!(r, Reason::NoColon)),
        ("Sig: a:YWJj", |r| matches!(r, Reason::NoLineEnd)),
        ("URL: b\n", |r| matches!(r, Reason::Extra { field: "URL" })),
        ("References: \nReferences: \n", |r| {
            matches!(r, Reason::Extra { field: "References" })
        }),
        ("StorePath: /nix/store/x\n", |r| {
            matches!(r, Reason::StorePath { .. })
        }),
        ("References: x\n", |r| {
            matches!(
                r,
                Reason::BaseName {
                    field: "References",
                    ..
                }
            )
        }),
        ("Deriver: x\n", |r| {
            matches!(r, Reason::BaseName { field: "Deriver", .. })
        }),
        ("FileHash: sha256:0\n", |r| {
            matches!(
                r,
                Reason::Hash {
                    field: "FileHash",
                    ..
                }
            )
        }),
        ("FileSize: +1\n", |r| {
            matches!(r, Reason::Number { field: "FileSize" })
        }),
        ("FileSize: 18446744073709551616\n", |r| {
            matches!(r, Reason::Number { .. })
        }),
        ("Sig: abc\n", |r| matches!(r, Reason::Signature { .. })),
        ("CA: abc\n", |r| matches!(r, Reason::ContentAddress { .. })),
        ("NarHash: sha1:00000000000000000000000000000000\n", |r| {
            matches!(r, Reason::NarHashAlgo { .. })
        }),
    ];
    for (line, check) in cases {
        let error = parse(&format!("{}{line}", minimal())).unwrap_err();
        assert!(check(&error.reason), "{line}: {error:?}");
        assert!(error.line >= 5, "{line}: {error:?}");
    }
    for field in ["StorePath", "URL", "NarHash", "NarSize"] {
        let lines = minimal();
        let rest: String = lines
            .split_inclusive('\n')
            .filter(|line| !line.starts_with(field))
            .collect();
        let error = parse(&rest).unwrap_err();
        assert_eq!(error.reason, Reason::Missing { field });
    }
    assert_eq!(
        parse(&minimal().replace("Size: 1", "Size: 0"))
            .unwrap_err()
            .reason,
        Reason::Missing { field: "NarSize" }
    );
}

#[test]
fn counts_are_bounded() {
    let many = format!(
        "{}References: {}\n",
        minimal(),
        format!("{HASH}-a ").repeat(REFERENCE_COUNT_MAX + 1)
    );
    assert!(matches!(
        parse(&many).unwrap_err().reason,
        ParseNarInfoReason::TooLarge {
            what: "references",
            ..
        }
    ));
    let sigs: String = (0..=SIGNATURE_COUNT_MAX)
        .map(|n| format!("Sig: k{n}:YWJj\n"))
        .collect();
    let many = format!("{}{sigs}", minimal());
    assert!(matches!(
        parse(&many).unwrap_err().reason,
        ParseNarInfoReason::TooLarge {
            what: "signatures",
            ..
        }
    ));
    let large = "x".repeat(TEXT_SIZE_MAX + 1);
    assert!(matches!(
        parse(&large).unwrap_err().reason,
        ParseNarInfoReason::TooLarge { what: "bytes", .. }
    ));
}

fn any_path() -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), crate::store_path::tests::ANY_NAME)
        .prop_map(|(digest, name)| StorePath::new(digest, StorePathName::new(&name).unwrap()))
}

prop_compose! {
    fn any_info()(
        store_path in any_path(),
        url in "[!-~]{1,30}",
        compression in "[a-z0-9]{1,8}",
        file in prop::option::of((any::<[u8; 32]>(), 1u64..)),
        nar_hash: [u8; 32],
        nar_size in 1u64..,
        references in prop::collection::btree_set(any_path(), 0..5),
        deriver in prop::option::of(any_path()),
        seeds in prop::collection::btree_set(any::<[u8; 32]>(), 0..3),
        ca in prop::option::of(any::<Vec<u8>>()),
    ) -> NarInfo {
        let signatures = seeds.iter().map(|seed| SecretKey::from_seed("k", seed).unwrap().sign(b"")).collect();
        let ca = ca.map(|data| {
            ContentAddress::new(ContentAddressMethod::Recursive, NixHash::of(HashAlgo::Sha512, &data)).unwrap()
        });
        NarInfo {
            store_path, url, compression, nar_hash, nar_size, references, deriver, signatures, ca,
            file_hash: file.map(|(digest, _)| NixHash::Sha256(digest)),
            file_size: file.map(|(_, size)| size),
        }
    }
}

proptest! {
    #[test]
    fn round_trips(info in any_info()) {
        let dir = StoreDir::new("/other").unwrap();
        let text = info.print(&dir);
        prop_assert_eq!(NarInfo::parse(&dir, &text), Ok(info));
    }

    /// What is accepted after a change prints to something that reads as the same again.
    #[test]
    fn accepted_is_stable(info in any_info(), at: prop::sample::Index, byte in 0u8..128) {
        let dir = StoreDir::default();
        let mut text = info.print(&dir).into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(changed) = parse(&String::from_utf8(text).unwrap()) {
            prop_assert_eq!(parse(&changed.print(&dir)), Ok(changed));
        }
    }
}
