use proptest::prelude::*;

use super::*;
use crate::pure::oracle;

fn text(field: &[u8]) -> &str {
    std::str::from_utf8(field).unwrap()
}

/// Every recorded conversion: hash, algorithm (or nothing), format, answer.
#[test]
fn converts_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/hash.tsv"));
    assert!(cases.len() > 75, "the table is whole");
    for case in cases {
        let algo = (!case[1].is_empty()).then(|| text(&case[1]));
        let found = convert_hash(text(&case[0]), algo, text(&case[2]));
        let found = found.unwrap_or_else(|error| error.to_string());
        assert_eq!(found, text(&case[3]), "{} {algo:?}", text(&case[0]));
    }
}

/// Every recorded digest: algorithm, text, answer.
#[test]
fn hashes_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/hash_string.tsv"));
    assert!(cases.len() > 20, "the table is whole");
    for case in cases {
        let found = hash_string(text(&case[0]), &case[1]).unwrap_or_else(|error| error.to_string());
        assert_eq!(found, text(&case[2]));
    }
}

proptest! {
    /// Every form of a hash reads back as that hash, and cutting the input makes no difference to a digest.
    #[test]
    fn forms_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..40), cut in 0_usize..40) {
        for algo in ["md5", "sha1", "sha256", "sha512"] {
            let base16 = hash_string(algo, &bytes).unwrap();
            for format in ["base16", "nix32", "base64", "sri"] {
                let written = convert_hash(&base16, Some(algo), format).unwrap();
                prop_assert_eq!(&convert_hash(&written, Some(algo), "base16").unwrap(), &base16);
            }
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let mut hasher = TextHasher::new(algo).unwrap();
            hasher.update(head);
            hasher.update(tail);
            prop_assert_eq!(hasher.finish(), base16);
        }
    }

    /// Any text is a hash or a typed error.
    #[test]
    fn any_text_is_handled(text in "(md5|sha1|sha256|)[:-]?[0-9a-zA-Z+/=é]{0,66}") {
        let _ = parse_any(&text, None);
        let _ = parse_any(&text, Some(HashAlgo::Sha1));
        let _ = parse_any_prefixed(&text);
        let _ = parse_sri(&text);
    }
}
