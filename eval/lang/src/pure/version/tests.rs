use proptest::prelude::*;

use super::*;
use crate::pure::oracle;

/// Every recorded comparison and split.
#[test]
fn answers_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/version.tsv"));
    assert!(cases.len() > 400, "the table is whole");
    for case in cases {
        let name = format!("{} {}", case[0].escape_ascii(), case[1].escape_ascii());
        let order = compare_versions(&case[0], &case[1]) as i8;
        assert_eq!(order.to_string().as_bytes(), case[2], "compareVersions {name}");
        let parts: Vec<&[u8]> = split_version(&case[0]).collect();
        assert_eq!(parts.join(&b"|"[..]), case[3], "splitVersion {name}");
        let (drv_name, version) = parse_drv_name(&case[0]);
        assert_eq!(
            [drv_name, version].join(&b"|"[..]),
            case[4],
            "parseDrvName {name}"
        );
    }
}

proptest! {
    /// Swapping the sides swaps the answer, and a version equals itself.
    #[test]
    fn comparison_is_antisymmetric(a in "[0-9a-cpre.-]{0,8}", b in "[0-9a-cpre.-]{0,8}") {
        let (a, b) = (a.as_bytes(), b.as_bytes());
        prop_assert_eq!(compare_versions(a, b), compare_versions(b, a).reverse());
        prop_assert_eq!(compare_versions(a, a), Ordering::Equal);
    }

    /// Components lose nothing but separators.
    #[test]
    fn components_are_the_version(version in prop::collection::vec(any::<u8>(), 0..12)) {
        let joined: Vec<u8> = split_version(&version).flatten().copied().collect();
        let kept: Vec<u8> = version.iter().copied().filter(|&byte| !is_separator(byte)).collect();
        prop_assert_eq!(joined, kept);
    }
}
