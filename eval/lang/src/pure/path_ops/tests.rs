use proptest::prelude::*;

use super::*;
use crate::pure::oracle;

/// Every recorded path and string.
#[test]
fn answers_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/path.tsv"));
    assert!(cases.len() > 150, "the table is whole");
    for case in cases {
        let text = &case[0];
        let name = text.escape_ascii().to_string();
        assert_eq!(base_name_of(text), case[1], "baseNameOf {name}");
        assert_eq!(dir_of_string(text), case[2], "dirOf {name}");
        assert_eq!(append_string(b"/a/b", text), case[3], "/a/b + {name}");
        let root = append_string(b"/", text);
        assert_eq!(root, case[4], "/. + {name}");
        assert_eq!(dir_of_path(&root), case[5], "dirOf (/. + {name})");
        assert_eq!(base_name_of(&root), case[6], "baseNameOf (/. + {name})");
        let converted = string_to_path(text).unwrap_or_else(|error| error.to_string().into_bytes());
        assert_eq!(converted, case[7], "toPath {name}");
    }
}

/// Literals are resolved against a directory, absolute ones against nothing.
#[test]
fn literals_resolve() {
    assert_eq!(resolve_path(b"/etc/nixos", b"./x/../y"), b"/etc/nixos/y");
    assert_eq!(resolve_path(b"/etc/nixos", b"../../../z"), b"/z");
    assert_eq!(resolve_path(b"/etc/nixos", b"/a//b/."), b"/a/b");
    assert_eq!(resolve_path(b"/", b"."), b"/");
}

proptest! {
    /// A canonical path has no component that needs work, and making it canonical again changes nothing.
    #[test]
    fn canonical_is_canonical(path in "[a./]{0,16}") {
        let canonical = canonical_path(path.as_bytes());
        prop_assert_eq!(&canonical_path(&canonical), &canonical);
        prop_assert!(canonical.starts_with(b"/"));
        let clean = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
        prop_assert!(canonical == b"/" || canonical[1..].split(|&b| b == b'/').all(clean));
    }

    /// Parent and base name make the path again.
    #[test]
    fn parent_and_name_are_the_path(path in "(/[ab.]{1,3}){1,4}") {
        let path = canonical_path(path.as_bytes());
        prop_assume!(path != b"/");
        let again = [dir_of_path(&path), b"/", base_name_of(&path)].concat();
        prop_assert_eq!(canonical_path(&again), path);
    }
}
