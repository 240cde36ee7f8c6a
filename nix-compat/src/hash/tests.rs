use proptest::prelude::*;

use super::*;

fn any_hash() -> impl Strategy<Value = NixHash> {
    (
        prop::sample::select(HashAlgo::ALL.to_vec()),
        any::<[u8; 32]>(),
        any::<[u8; 32]>(),
    )
        .prop_map(|(algo, a, b)| NixHash::from_digest(algo, &[a, b].concat()[..algo.digest_len()]).unwrap())
}

/// Recorded from md5sum, sha1sum, sha256sum and sha512sum of `abc`.
#[test]
fn known_digests() {
    let of = |algo| NixHash::of(algo, b"abc").encode(HashFormat::Base16);
    assert_eq!(of(HashAlgo::Md5), "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(of(HashAlgo::Sha1), "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert_eq!(
        of(HashAlgo::Sha256),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        of(HashAlgo::Sha512),
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
         2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
    );
}

#[test]
fn sha256_agrees_with_hasher() {
    assert_eq!(
        NixHash::Sha256(sha256(b"abc")),
        NixHash::of(HashAlgo::Sha256, b"abc")
    );
}

#[test]
fn refuses() {
    let parse = |text: &str| NixHash::parse_any(text, None).unwrap_err();
    assert!(matches!(parse("abc"), ParseHashError::NoAlgo { .. }));
    assert!(matches!(parse("blake3-abc"), ParseHashError::UnknownAlgo { .. }));
    assert!(matches!(
        parse("sha256:abc"),
        ParseHashError::Length { length: 3, .. }
    ));
    assert!(matches!(
        parse("sha256-YWJj"),
        ParseHashError::Length { length: 4, .. }
    ));
    assert!(matches!(parse("md5-!"), ParseHashError::Base64 { byte: b'!' }));
    assert!(matches!(parse(&"0".repeat(600)), ParseHashError::TooLong { .. }));
    assert!(matches!(
        parse(&format!("md5:{}", "g".repeat(32))),
        ParseHashError::Base16 { .. }
    ));
    assert!(matches!(
        parse(&format!("md5:{}", "e".repeat(26))),
        ParseHashError::NixBase32 { .. }
    ));
    let sha1 = NixHash::of(HashAlgo::Sha1, b"").encode_with_algo(HashFormat::Base16);
    assert!(matches!(
        NixHash::parse_any(&sha1, Some(HashAlgo::Sha256)),
        Err(ParseHashError::OtherAlgo {
            named: HashAlgo::Sha1,
            wanted: HashAlgo::Sha256
        })
    ));
}

/// `Hash::parseAny` of Nix 2.8 and 2.34 takes these.
#[test]
fn base64_is_lenient_as_in_nix() {
    let hash = NixHash::of(HashAlgo::Sha256, b"abc");
    let sri = hash.encode(HashFormat::Sri);
    assert_eq!(NixHash::parse_sri(sri.trim_end_matches('=')), Ok(hash));
    assert_eq!(NixHash::parse_sri(&format!("{sri}=junk")), Ok(hash));
    let (head, tail) = sri.split_at(20);
    assert_eq!(NixHash::parse_sri(&format!("{head}\n{tail}")), Ok(hash));
    let loose = sri.replace("Fa0=", "Fa1=");
    assert_ne!(loose, sri);
    assert_eq!(NixHash::parse_sri(&loose), Ok(hash));
}

#[test]
fn upper_case_base16_is_taken() {
    let hash = NixHash::of(HashAlgo::Md5, b"abc");
    let text = hash.encode(HashFormat::Base16).to_uppercase();
    assert_eq!(NixHash::parse_digest(&text, HashAlgo::Md5), Ok(hash));
}

proptest! {
    #[test]
    fn every_format_round_trips(hash in any_hash()) {
        for format in [HashFormat::Base16, HashFormat::NixBase32, HashFormat::Base64, HashFormat::Sri] {
            let text = hash.encode_with_algo(format);
            prop_assert_eq!(NixHash::parse_with_algo(&text), Ok(hash));
            prop_assert_eq!(NixHash::parse_any(&text, Some(hash.algo())), Ok(hash));
            if format != HashFormat::Sri {
                prop_assert_eq!(NixHash::parse_digest(&hash.encode(format), hash.algo()), Ok(hash));
            }
        }
        prop_assert_eq!(hash.to_string().parse::<NixHash>(), Ok(hash));
    }

    #[test]
    fn any_text_is_answered(text in "(md5|sha1|sha256|sha512)?[:-]?[ -~\n]{0,140}") {
        let _ = NixHash::parse_any(&text, None);
        let _ = NixHash::parse_any(&text, Some(HashAlgo::Sha256));
    }

    #[test]
    fn cut_makes_no_difference(bytes: Vec<u8>, cut: prop::sample::Index) {
        for algo in HashAlgo::ALL {
            let (a, b) = bytes.split_at(cut.index(bytes.len() + 1));
            let mut hasher = Hasher::new(algo);
            hasher.update(a);
            hasher.update(b);
            prop_assert_eq!(hasher.finish(), NixHash::of(algo, &bytes));
        }
    }
}
