//! The fuzz targets' properties over mutated good messages: no fuzzer needed, the same inputs each time.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking; it shares a module with the fuzz targets"
)]

#[path = "../fuzz/src/properties.rs"]
mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use igloo_build::outcome::{BuildOutcome, BuildReport, BuildStats};
use igloo_build::{BuildRequest, Constraints, Lease, LeaseOwner, Limits, RelativePath};
use igloo_castore::digest::{BlobDigest, DirectoryDigest};
use igloo_castore::tree::TreeEvent;
use igloo_castore::{Directory, Node, NodeName, SymlinkTarget};
use igloo_mutate::mutants;
use igloo_protos::build::{Call, InputSource, TunnelToken, request_parts};
use igloo_protos::castore::{named_entry, root_entry};
use igloo_protos::event::step_message;
use igloo_protos::igloo::build::v1 as igloo_build_v1;
use igloo_protos::snix::build::v1 as snix_build_v1;
use igloo_protos::snix::castore::v1 as castore_v1;
use igloo_protos::snix::store::v1 as store_v1;
use igloo_store::PathInfo;
use nix_compat::{ContentAddress, ContentAddressMethod, NixHash, StorePath};
use prost::Message;

/// Mutated messages for each good one.
const ROUNDS: u64 = 50_000;

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

fn path(text: &str) -> RelativePath {
    RelativePath::try_from(text).unwrap()
}

fn nodes() -> Vec<(NodeName, Node)> {
    let file = Node::File {
        digest: BlobDigest::of(b"x"),
        size: 1,
        executable: true,
    };
    let directory = Node::Directory {
        digest: DirectoryDigest::from_bytes([7; 32]),
        size: 3,
    };
    let target = SymlinkTarget::try_from(&b"../a"[..]).unwrap();
    vec![
        (name("d"), directory),
        (name("f"), file),
        (name("l"), Node::Symlink { target }),
    ]
}

#[test]
fn castore() {
    let directory = Directory::from_entries(nodes()).unwrap();
    let mut good = vec![castore_v1::Directory::from(&directory).encode_to_vec()];
    for (name, node) in nodes() {
        good.push(named_entry(&name, &node).encode_to_vec());
        good.push(root_entry(&node).encode_to_vec());
    }
    mutants(&good, ROUNDS, properties::castore);
}

#[test]
fn path_info() {
    let path = |name: &str| StorePath::parse(&format!("{}-{name}", "0".repeat(32))).unwrap();
    let address = ContentAddress::new(ContentAddressMethod::Recursive, NixHash::Sha256([2; 32]));
    let info = PathInfo {
        path: path("a"),
        node: nodes().remove(0).1,
        nar_size: 112,
        nar_sha256: [1; 32],
        references: BTreeSet::from([path("a"), path("b")]),
        deriver: Some(path("d.drv")),
        signatures: Vec::new(),
        content_address: Some(address.unwrap()),
    };
    let good = store_v1::PathInfo::try_from(&info).unwrap().encode_to_vec();
    mutants(&[good], ROUNDS * 4, properties::path_info);
}

fn request() -> BuildRequest {
    BuildRequest {
        inputs: nodes().into_iter().collect(),
        inputs_dir: path("nix/store"),
        program: Bytes::from_static(b"/bin/sh"),
        arguments: vec![Bytes::from_static(b"-c"), Bytes::from_static(b"true")],
        environment: BTreeMap::from([(Bytes::from_static(b"A"), Bytes::from_static(b"b"))]),
        working_dir: path("build"),
        scratch_paths: BTreeSet::from([path("build"), path("nix/store")]),
        outputs: vec![path("nix/store/out"), path("nix/store/dev")],
        additional_files: BTreeMap::from([(path("build/x"), Bytes::from_static(b"y"))]),
        constraints: Constraints {
            system: "x86_64-linux".into(),
            memory_mib: 512,
            cores: 2,
            network: false,
            features: BTreeSet::from(["kvm".to_owned()]),
        },
        limits: Limits::default(),
        needles: vec![Bytes::from_static(b"0123456789")],
    }
}

fn snix_request() -> snix_build_v1::BuildRequest {
    snix_build_v1::BuildRequest {
        inputs: nodes()
            .iter()
            .map(|(name, node)| named_entry(name, node))
            .collect(),
        command_args: vec!["/bin/sh".into(), "-c".into()],
        working_dir: "build".into(),
        scratch_paths: vec!["build".into()],
        inputs_dir: "nix/store".into(),
        outputs: vec!["nix/store/out".into()],
        constraints: Some(snix_build_v1::build_request::BuildConstraints {
            system: "x86_64-linux".into(),
            ..Default::default()
        }),
        refscan_needles: vec!["0123456789".into()],
        ..Default::default()
    }
}

#[test]
fn build() {
    let sources = [
        InputSource::Url("grpc+unix:///run/store".into()),
        InputSource::Tunnel(TunnelToken::from_bytes([9; 32])),
    ];
    let owner = LeaseOwner::try_from("coordinator-1").unwrap();
    let lease = Lease::new(owner, Bytes::from_static(b"a derivation"), 7).unwrap();
    let call = Call {
        sources: &sources,
        lease: Some(&lease),
        output_store: Some("grpc+unix:///run/store"),
    };
    let parts = request_parts(request(), &call);
    let parts: Vec<u8> = parts
        .flat_map(|part| part.encode_length_delimited_to_vec())
        .collect();
    mutants(
        &[parts, snix_request().encode_to_vec()],
        ROUNDS * 2,
        properties::build,
    );
}

#[test]
fn events() {
    let report = BuildReport {
        outcome: BuildOutcome::Timeout {
            limit: Duration::from_secs(9),
        },
        stats: BuildStats {
            run: Duration::from_micros(2),
            log_bytes: 4,
            machine: "QEMU".into(),
            ..BuildStats::default()
        },
    };
    let file = TreeEvent::FileBegin {
        name: Some(name("f")),
        executable: true,
        size: 3,
    };
    let data = TreeEvent::FileData(Bytes::from_static(b"abc"));
    let good = [
        igloo_build_v1::Report::from(report).encode_to_vec(),
        step_message(file).encode_to_vec(),
        step_message(data).encode_to_vec(),
    ];
    mutants(&good, ROUNDS * 2, properties::events);
}
