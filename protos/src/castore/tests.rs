use data_encoding::HEXLOWER;
use igloo_castore::digest::{BlobDigest, DirectoryDigest};
use igloo_castore::node::ParseNameError;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost::Message;

use super::*;

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

fn file(bytes: &[u8], executable: bool) -> Node {
    Node::File {
        digest: BlobDigest::of(bytes),
        size: bytes.len() as u64,
        executable,
    }
}

/// The bytes are worked out by hand from the field numbers and protobuf's encoding, so they hold for any peer.
#[test]
fn directory_bytes_are_those_of_the_schema() {
    let directory = Directory::from_entries(vec![
        (name("x"), file(b"", true)),
        (
            name("d"),
            Node::Directory {
                digest: DirectoryDigest::of(b""),
                size: 300,
            },
        ),
        (
            name("l"),
            Node::Symlink {
                target: SymlinkTarget::try_from(&b"../x"[..]).unwrap(),
            },
        ),
    ])
    .unwrap();
    let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let expected = [
        // 1 directories, 40 bytes: 1 name "d", 2 digest, 3 size 300 = ac 02
        format!("0a28 0a0164 1220{empty} 18ac02"),
        // 2 files, 39 bytes: 1 name "x", 2 digest, size 0 left out, 4 executable
        format!("1227 0a0178 1220{empty} 2001"),
        // 3 symlinks, 9 bytes: 1 name "l", 2 target "../x"
        "1a09 0a016c 12042e2e2f78".to_owned(),
    ]
    .concat()
    .replace(' ', "");
    let message = v1::Directory::from(&directory);
    assert_eq!(HEXLOWER.encode(&message.encode_to_vec()), expected);
    assert_eq!(HEXLOWER.encode(&directory.encode()), expected);
    assert_eq!(Directory::try_from(message), Ok(directory));
}

#[test]
fn an_entry_is_named_or_a_root_as_the_field_says() {
    let node = file(b"abc", false);
    assert_eq!(root(root_entry(&node)), Ok(node.clone()));
    assert_eq!(
        named(named_entry(&name("a"), &node)),
        Ok((name("a"), node.clone()))
    );
    let unnamed = named(root_entry(&node)).unwrap_err();
    assert_eq!(unnamed.reason, WireReason::Name(ParseNameError::Empty));
    assert_eq!(
        root(named_entry(&name("a"), &node)).unwrap_err().reason,
        WireReason::NotEmpty
    );
    assert_eq!(
        root(v1::Entry { entry: None }).unwrap_err().reason,
        WireReason::Missing
    );
}

fn wire_file(name: &'static [u8]) -> v1::FileEntry {
    v1::FileEntry {
        name: Bytes::from_static(name),
        digest: Bytes::from_static(&[7; 32]),
        size: 1,
        executable: false,
    }
}

fn refused(message: v1::Directory) -> WireReason {
    Directory::try_from(message).unwrap_err().reason
}

#[test]
fn directories_that_break_a_rule_are_refused() {
    let files = |files: Vec<v1::FileEntry>| v1::Directory {
        files,
        ..v1::Directory::default()
    };
    assert!(matches!(
        refused(files(vec![wire_file(b"b"), wire_file(b"a")])),
        WireReason::Order { .. }
    ));
    assert!(matches!(
        refused(files(vec![wire_file(b"a"), wire_file(b"a")])),
        WireReason::Order { .. }
    ));
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
        assert!(
            matches!(refused(files(vec![wire_file(bad)])), WireReason::Name(_)),
            "{bad:?}"
        );
    }
    let mut short = wire_file(b"a");
    short.digest = Bytes::from_static(&[7; 31]);
    assert!(matches!(refused(files(vec![short])), WireReason::Digest(_)));
    let twice = v1::Directory {
        files: vec![wire_file(b"a")],
        symlinks: vec![v1::SymlinkEntry {
            name: Bytes::from_static(b"a"),
            target: Bytes::from_static(b"t"),
        }],
        ..v1::Directory::default()
    };
    assert!(matches!(refused(twice), WireReason::Directory(_)));
    let child = |name: &'static [u8]| v1::DirectoryEntry {
        name: Bytes::from_static(name),
        digest: Bytes::from_static(&[7; 32]),
        size: u64::MAX - 5,
    };
    let overflowing = v1::Directory {
        directories: vec![child(b"a"), child(b"b")],
        ..v1::Directory::default()
    };
    assert!(matches!(refused(overflowing), WireReason::Directory(_)));
}

fn any_node() -> impl Strategy<Value = Node> {
    prop_oneof![
        (any::<[u8; 32]>(), 0..u64::MAX / 64).prop_map(|(digest, size)| Node::Directory {
            digest: DirectoryDigest::from_bytes(digest),
            size
        }),
        (any::<[u8; 32]>(), any::<u64>(), any::<bool>()).prop_map(|(digest, size, executable)| Node::File {
            digest: BlobDigest::from_bytes(digest),
            size,
            executable
        }),
        vec(1u8.., 1..20).prop_map(|target| Node::Symlink {
            target: SymlinkTarget::try_from(target.as_slice()).unwrap()
        }),
    ]
}

proptest! {
    /// prost and the hand-written canonical codec write the same bytes, and each reads what the other wrote.
    #[test]
    fn both_codecs_agree(entries in btree_map("[a-z]{1,6}", any_node(), 0..20)) {
        let entries = entries.into_iter().map(|(text, node)| (name(&text), node)).collect();
        let directory = Directory::from_entries(entries).unwrap();
        let message = v1::Directory::from(&directory);
        prop_assert_eq!(message.encode_to_vec(), directory.encode());
        let decoded = v1::Directory::decode(directory.encode().as_slice()).unwrap();
        prop_assert_eq!(Directory::try_from(decoded), Ok(directory));
    }

    /// Whatever the bytes: prost and the conversion take them or refuse them, and take canonical directories only.
    #[test]
    fn strangers_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(message) = v1::Directory::decode(bytes.as_slice())
            && let Ok(directory) = Directory::try_from(message)
        {
            prop_assert!(Directory::decode(&directory.encode().into()).is_ok());
        }
    }
}
