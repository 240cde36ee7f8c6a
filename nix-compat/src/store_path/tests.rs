use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::content_address::{ContentAddress, ContentAddressMethod};
use crate::derivation::OutputName;
use crate::hash::{HashAlgo, NixHash, sha256};

pub(crate) const ANY_NAME: &str = "[a-zA-Z0-9+_?=][a-zA-Z0-9+_?=.-]{0,40}";

fn any_path() -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), ANY_NAME)
        .prop_map(|(digest, name)| StorePath::new(digest, StorePathName::new(&name).unwrap()))
}

fn name(text: &str) -> StorePathName {
    StorePathName::new(text).unwrap()
}

#[test]
fn names_follow_the_rules() {
    for good in [
        "a",
        "0",
        "A+-._?=",
        ".gitignore",
        "...",
        "..a-b",
        "-",
        "a-.-b",
        &"x".repeat(211),
    ] {
        assert!(StorePathName::new(good).is_ok(), "{good}");
    }
    let wrong = |text: &str| StorePathName::new(text).unwrap_err();
    assert_eq!(wrong(""), StorePathNameError::Empty);
    assert_eq!(
        wrong(&"x".repeat(212)),
        StorePathNameError::TooLong { length: 212 }
    );
    for dots in [".", ".-", ".-a"] {
        assert_eq!(wrong(dots), StorePathNameError::Dots { component: "." });
    }
    for dots in ["..", "..-", "..-a"] {
        assert_eq!(wrong(dots), StorePathNameError::Dots { component: ".." });
    }
    for (text, index) in [("a b", 1), ("a/b", 1), ("\0", 0), ("é", 0), ("ab~", 2)] {
        assert!(matches!(wrong(text), StorePathNameError::Character { index: at, .. } if at == index));
    }
}

#[test]
fn base_names_are_checked() {
    let reason = |text: &[u8]| StorePath::parse_bytes(text).unwrap_err().reason;
    let hash = "0".repeat(32);
    assert_eq!(reason(b"abc"), StorePathReason::TooShort);
    assert_eq!(reason(hash.as_bytes()), StorePathReason::NoDash);
    assert_eq!(reason(format!("{hash}x").as_bytes()), StorePathReason::NoDash);
    assert!(matches!(
        reason(format!("{hash}-").as_bytes()),
        StorePathReason::Name { .. }
    ));
    let bad_hash = format!("e{}-a", "0".repeat(31));
    assert!(matches!(
        reason(bad_hash.as_bytes()),
        StorePathReason::Hash { .. }
    ));
    assert!(matches!(reason(&[0xff; 40]), StorePathReason::NoDash));
}

#[test]
fn directories_are_checked() {
    for good in ["/nix/store", "/a", "/tmp/x y/store"] {
        assert_eq!(StoreDir::new(good).unwrap().as_str(), good);
    }
    for bad in [
        "",
        "/",
        "nix/store",
        "/nix/store/",
        "/nix//store",
        "/nix/./store",
        "/nix/../store",
        "/a\"b",
        "/a\\b",
        "/a\nb",
    ] {
        assert!(StoreDir::new(bad).is_err(), "{bad}");
    }
    assert!(StoreDir::new(&format!("/{}", "x".repeat(1100))).is_err());
}

#[test]
fn splits_paths_inside() {
    let dir = StoreDir::default();
    let base = format!("{}-hello", "0".repeat(32));
    let path = StorePath::parse(&base).unwrap();
    for (text, inside) in [
        ("", ""),
        ("/", ""),
        ("/bin/x", "bin/x"),
        ("//bin", "bin"),
        ("/\u{e9}", "\u{e9}"),
    ] {
        let text = format!("/nix/store/{base}{text}");
        assert_eq!(dir.split(text.as_bytes()), Ok((path.clone(), inside.as_bytes())));
    }
    assert!(matches!(
        dir.split(b"/nix/store"),
        Err(ParseAbsolutePathError::OutsideStore { .. })
    ));
    assert!(matches!(
        dir.split(b"/nix/stores/x"),
        Err(ParseAbsolutePathError::OutsideStore { .. })
    ));
    assert!(matches!(
        dir.split(b"/nix/store/"),
        Err(ParseAbsolutePathError::StorePath { .. })
    ));
    let inside = format!("/nix/store/{base}/bin");
    assert!(matches!(
        dir.parse(&inside),
        Err(ParseAbsolutePathError::StorePath { .. })
    ));
}

/// References have a place only in recursive SHA-256 and text.
#[test]
fn references_are_refused_where_they_have_no_place() {
    let dir = StoreDir::default();
    let to_self = StoreReferences {
        others: BTreeSet::new(),
        to_self: true,
    };
    let address = |method, algo| ContentAddress::new(method, NixHash::of(algo, b"x")).unwrap();
    let path = |method, algo| dir.content_addressed_path(&name("x"), &address(method, algo), &to_self);
    assert!(path(ContentAddressMethod::Recursive, HashAlgo::Sha256).is_ok());
    assert!(path(ContentAddressMethod::Recursive, HashAlgo::Sha1).is_err());
    assert!(path(ContentAddressMethod::Flat, HashAlgo::Sha256).is_err());
    assert!(path(ContentAddressMethod::Text, HashAlgo::Sha256).is_err());
}

#[test]
fn output_names() {
    let out = OutputName::new("out").unwrap();
    let dev = OutputName::new("dev").unwrap();
    assert_eq!(output_path_name(&name("hello"), &out).unwrap().as_str(), "hello");
    assert_eq!(
        output_path_name(&name("hello"), &dev).unwrap().as_str(),
        "hello-dev"
    );
    assert!(output_path_name(&name(&"x".repeat(208)), &dev).is_err());
}

/// Recorded from Nix 2.8: `builtins.placeholder "out"`.
/// What Nix 2.34 gave as `$out` and `$lib` to builds of these derivations.
#[test]
fn provisional_paths_are_those_nix_gives() {
    for (drv, derivation, output, expected) in [
        (
            "pjg6xmk5jfp6sqhjlg9yhzmppibwwclv-c1.drv",
            "c1",
            "out",
            "lpqyqv1wimljy5xh5q0z16ari0gh1g4k-c1",
        ),
        (
            "v3maxwwk1gizrni08k2xv87qnzfqv752-c3.drv",
            "c3",
            "lib",
            "4gkxp4iykdnvvhc1bypdd4sj4mbd07sg-c3-lib",
        ),
    ] {
        let (drv, output) = (drv.parse().unwrap(), output.parse().unwrap());
        let path = StoreDir::default().provisional_path(&drv, &name(derivation), &output);
        assert_eq!(path.unwrap().to_string(), expected);
    }
}

#[test]
fn placeholder_of_out() {
    let out = OutputName::new("out").unwrap();
    assert_eq!(
        placeholder(&out),
        "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"
    );
}

proptest! {
    #[test]
    fn round_trips(path in any_path()) {
        let text = path.to_string();
        prop_assert_eq!(&StorePath::parse(&text).unwrap(), &path);
        let dir = StoreDir::default();
        prop_assert_eq!(&dir.parse(&dir.print(&path)).unwrap(), &path);
        prop_assert_eq!(dir.display(&path).to_string(), dir.print(&path));
        prop_assert_eq!(path.hash_part().to_vec(), text.as_bytes()[..32].to_vec());
    }

    #[test]
    fn sorts_as_text(mut paths in prop::collection::vec(any_path(), 2..20), shared: [u8; 20]) {
        let same_digest: Vec<_> = paths.iter().map(|p| StorePath::new(shared, p.name().clone())).collect();
        paths.extend(same_digest);
        let mut texts: Vec<_> = paths.iter().map(ToString::to_string).collect();
        texts.sort();
        paths.sort();
        prop_assert_eq!(paths.iter().map(ToString::to_string).collect::<Vec<_>>(), texts);
    }

    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>, text in "[0-9a-z]{32}-?[ -~]{0,20}") {
        let _ = StorePath::parse_bytes(&bytes);
        let _ = StoreDir::default().split(&bytes);
        if let Ok(path) = StorePath::parse(&text) {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    /// The directory is part of what is hashed.
    #[test]
    fn other_directory_other_path(contents: Vec<u8>) {
        let digest = sha256(&contents);
        let none = StoreReferences::default();
        let here = StoreDir::default().source_path(&name("x"), &digest, &none);
        let there = StoreDir::new("/other/store").unwrap().source_path(&name("x"), &digest, &none);
        prop_assert_ne!(here, there);
    }
}
