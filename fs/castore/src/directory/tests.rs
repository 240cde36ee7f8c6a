use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::digest::BlobDigest;
use crate::node::SymlinkTarget;

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

fn file(text: &str) -> Node {
    Node::File {
        digest: BlobDigest::of(text.as_bytes()),
        size: text.len() as u64,
        executable: false,
    }
}

fn arbitrary_node() -> impl Strategy<Value = Node> {
    prop_oneof![
        (any::<[u8; 32]>(), 0..1u64 << 40).prop_map(|(digest, size)| Node::Directory {
            digest: DirectoryDigest::from_bytes(digest),
            size
        }),
        (any::<[u8; 32]>(), any::<u64>(), any::<bool>()).prop_map(|(digest, size, executable)| Node::File {
            digest: BlobDigest::from_bytes(digest),
            size,
            executable
        }),
        vec(1..=255u8, 1..40).prop_map(|target| Node::Symlink {
            target: SymlinkTarget::try_from(&target[..]).unwrap()
        }),
    ]
}

fn arbitrary_directory() -> impl Strategy<Value = Directory> {
    vec(("[a-zA-Z0-9 \u{e4}_-]{1,20}", arbitrary_node()), 0..20).prop_map(|entries| {
        let entries: std::collections::BTreeMap<_, _> = entries
            .into_iter()
            .map(|(text, node)| (name(&text), node))
            .collect();
        Directory::from_entries(entries.into_iter().collect()).unwrap()
    })
}

proptest! {
    /// What is encoded is decoded to the same directory, and only one byte string stands for it.
    #[test]
    fn encoding_round_trips(directory in arbitrary_directory()) {
        let bytes = Bytes::from(directory.encode());
        prop_assert_eq!(Directory::decode(&bytes).unwrap(), directory);
    }

    /// Whatever is accepted is canonical: encoding it again gives the same bytes.
    #[test]
    fn only_canonical_bytes_are_accepted(directory in arbitrary_directory(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = directory.encode();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let bytes = Bytes::from(bytes);
        if let Ok(decoded) = Directory::decode(&bytes) {
            prop_assert_eq!(decoded.encode(), &bytes[..]);
        }
    }

    /// Hostile bytes are an error, never a panic.
    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        if let Ok(decoded) = Directory::decode(&bytes) {
            prop_assert_eq!(decoded.encode(), &bytes[..]);
        }
    }
}

/// The empty directory is the empty byte string, so its digest is that of the empty blob (as in snix).
#[test]
fn empty_directory_is_the_empty_string() {
    assert!(Directory::new().encode().is_empty());
    assert_eq!(
        Directory::new().digest().as_bytes(),
        BlobDigest::of(b"").as_bytes()
    );
}

/// Field numbers and order are those of snix.castore.v1: bytes written out by hand.
#[test]
fn encoding_is_the_documented_one() {
    let directory = Directory::from_entries(vec![
        (
            name("z"),
            Node::Symlink {
                target: SymlinkTarget::try_from(&b"t"[..]).unwrap(),
            },
        ),
        (
            name("f"),
            Node::File {
                digest: BlobDigest::from_bytes([7; 32]),
                size: 300,
                executable: true,
            },
        ),
        (
            name("d"),
            Node::Directory {
                digest: DirectoryDigest::from_bytes([9; 32]),
                size: 0,
            },
        ),
    ])
    .unwrap();
    let mut expected = vec![0x0a, 37, 0x0a, 1, b'd', 0x12, 32];
    expected.extend([9; 32]);
    expected.extend([0x12, 42, 0x0a, 1, b'f', 0x12, 32]);
    expected.extend([7; 32]);
    expected.extend([0x18, 0xac, 0x02, 0x20, 1]);
    expected.extend([0x1a, 6, 0x0a, 1, b'z', 0x12, 1, b't']);
    assert_eq!(directory.encode(), expected);
}

/// `{d: {f}}`: snix records 2 for `d`, and so do we.
#[test]
fn size_counts_every_entry_twice() {
    let child = Directory::from_entries(vec![(name("f"), file("x"))]).unwrap();
    assert_eq!(child.size(), 2);
    let parent = Directory::from_entries(vec![(name("d"), child.node())]).unwrap();
    assert_eq!(parent.size(), 4);
}

#[test]
fn duplicates_and_overflow_are_refused() {
    let twice = vec![(name("a"), file("1")), (name("a"), file("2"))];
    assert_eq!(
        Directory::from_entries(twice),
        Err(MakeDirectoryError::Duplicate { name: name("a") })
    );
    let huge = |text| {
        (
            name(text),
            Node::Directory {
                digest: DirectoryDigest::of(b"x"),
                size: u64::MAX / 2,
            },
        )
    };
    assert_eq!(
        Directory::from_entries(vec![huge("a"), huge("b"), huge("c")]),
        Err(MakeDirectoryError::TooLarge)
    );
}

#[test]
fn one_name_in_two_lists_is_refused() {
    let mut bytes = Directory::from_entries(vec![(name("a"), file("1"))])
        .unwrap()
        .encode();
    let symlink = Node::Symlink {
        target: SymlinkTarget::try_from(&b"t"[..]).unwrap(),
    };
    bytes.extend(
        Directory::from_entries(vec![(name("a"), symlink)])
            .unwrap()
            .encode(),
    );
    assert!(matches!(
        Directory::decode(&Bytes::from(bytes)),
        Err(DecodeDirectoryError::Make(_))
    ));
}

#[test]
fn lookup_finds_every_entry_and_no_other() {
    let entries: Vec<_> = (0..500)
        .map(|index| (name(&format!("n{index}")), file(&index.to_string())))
        .collect();
    let directory = Directory::from_entries(entries.clone()).unwrap();
    for (name, node) in &entries {
        assert_eq!(directory.get(name.as_bytes()), Some(node));
    }
    assert_eq!(directory.get(b"n500"), None);
}
