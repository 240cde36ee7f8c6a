use data_encoding::HEXLOWER;
use igloo_castore::digest::BlobDigest;
use igloo_castore::node::Node;
use nix_compat::signature::SecretKey;
use prost::Message;

use super::*;

fn path(text: &str) -> StorePath {
    StorePath::parse(text).unwrap()
}

/// Digits of nixbase32 stand for bits from the last byte on: all zeros is 20 zero bytes.
const ZERO: &str = "00000000000000000000000000000000";

fn info() -> PathInfo {
    PathInfo {
        path: path(&format!("{ZERO}-a")),
        node: Node::File {
            digest: BlobDigest::of(b""),
            size: 0,
            executable: false,
        },
        nar_size: 112,
        nar_sha256: [0x11; 32],
        references: BTreeSet::from([path(&format!("{ZERO}-a"))]),
        deriver: Some(path(&format!("{ZERO}-d.drv"))),
        signatures: Vec::new(),
        content_address: Some(
            ContentAddress::new(ContentAddressMethod::Recursive, NixHash::Sha256([0x22; 32])).unwrap(),
        ),
    }
}

/// The bytes are worked out by hand from the field numbers and protobuf's encoding.
#[test]
fn path_info_bytes_are_those_of_the_schema() {
    let zero20 = "00".repeat(20);
    let blake3 = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let name = HEXLOWER.encode(format!("{ZERO}-a").as_bytes());
    let narinfo = [
        "0870".to_owned(),                       // 1 nar_size 112
        format!("1220{}", "11".repeat(32)),      // 2 nar_sha256
        format!("2222{name}"),                   // 4 reference_names, 34 bytes
        format!("2a19 0a0164 1214{zero20}"),     // 5 deriver: 1 name "d", 2 digest
        format!("3222 1220{}", "22".repeat(32)), // 6 ca: type 0 left out, 2 digest
    ]
    .concat()
    .replace(' ', "");
    let expected = [
        // 1 entry, 72 bytes: 2 file, 70 bytes: 1 name, 2 digest
        format!("0a48 1246 0a22{name} 1220{blake3}"),
        format!("1214{zero20}"),                                         // 2 references
        format!("1a{:02x}01{narinfo}", (narinfo.len() / 2) % 128 + 128), // 3 narinfo, over 127 bytes
    ]
    .concat()
    .replace(' ', "");
    assert!((128..256).contains(&(narinfo.len() / 2)));
    let message = v1::PathInfo::try_from(&info()).unwrap();
    assert_eq!(HEXLOWER.encode(&message.encode_to_vec()), expected);
    assert_eq!(PathInfo::try_from(message), Ok(info()));
}

#[test]
fn every_content_address_and_signature_round_trips() {
    let key = SecretKey::from_seed("key-1", &[7; 32]).unwrap();
    for method in [
        ContentAddressMethod::Flat,
        ContentAddressMethod::Recursive,
        ContentAddressMethod::Text,
    ] {
        for algo in HashAlgo::ALL {
            let Ok(address) = ContentAddress::new(method, NixHash::of(algo, b"x")) else {
                assert_eq!(method, ContentAddressMethod::Text);
                continue;
            };
            let mut info = info();
            info.content_address = Some(address);
            info.signatures = vec![key.sign(b"1"), key.sign(b"2")];
            let message = v1::PathInfo::try_from(&info).unwrap();
            assert_eq!(PathInfo::try_from(message), Ok(info));
        }
    }
}

#[test]
fn records_that_break_a_rule_are_refused() {
    let refused = |change: fn(&mut v1::PathInfo)| {
        let mut message = v1::PathInfo::try_from(&info()).unwrap();
        change(&mut message);
        PathInfo::try_from(message).unwrap_err().field
    };
    fn narinfo(message: &mut v1::PathInfo) -> &mut v1::NarInfo {
        message.narinfo.as_mut().unwrap()
    }
    assert_eq!(refused(|message| message.narinfo = None), "narinfo");
    assert_eq!(refused(|message| message.entry = None), "entry");
    assert_eq!(refused(|message| message.references.clear()), "reference_names");
    assert_eq!(
        refused(|message| message.references[0] = Bytes::from_static(&[1; 20])),
        "references"
    );
    assert_eq!(
        refused(|message| message.references[0] = Bytes::new()),
        "references"
    );
    assert_eq!(
        refused(|message| narinfo(message).reference_names[0].push('/')),
        "reference_names"
    );
    assert_eq!(
        refused(|message| narinfo(message).nar_sha256 = Bytes::new()),
        "nar_sha256"
    );
    assert_eq!(
        refused(|message| narinfo(message).ca.as_mut().unwrap().r#type = 9),
        "ca"
    );
    assert_eq!(
        refused(|message| narinfo(message).ca.as_mut().unwrap().digest = Bytes::new()),
        "ca"
    );
    assert_eq!(
        refused(|message| narinfo(message).deriver.as_mut().unwrap().name = "a/b".into()),
        "deriver"
    );
    let twice = |message: &mut v1::PathInfo| {
        message.references.push(message.references[0].clone());
        let name = narinfo(message).reference_names[0].clone();
        narinfo(message).reference_names.push(name);
    };
    assert_eq!(refused(twice), "references");
    let signature = |message: &mut v1::PathInfo| {
        let (name, data) = ("a:b".into(), Bytes::from_static(&[0; 64]));
        narinfo(message).signatures = vec![v1::nar_info::Signature { name, data }];
    };
    assert_eq!(refused(signature), "signatures");
    let unnamed = |message: &mut v1::PathInfo| message.entry = Some(crate::castore::root_entry(&info().node));
    assert_eq!(refused(unnamed), "name");
}

proptest::proptest! {
    #[test]
    fn strangers_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        if let Ok(message) = v1::PathInfo::decode(bytes.as_slice()) {
            let _ = PathInfo::try_from(message);
        }
    }
}
