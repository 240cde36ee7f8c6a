use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use prost::Message;

use super::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(1u8.., 1..12).prop_map(Bytes::from)
}

fn relative() -> impl Strategy<Value = RelativePath> {
    "[a-z]{1,4}(/[a-z]{1,4}){0,2}".prop_map(|text| RelativePath::try_from(text.as_str()).unwrap())
}

fn link() -> impl Strategy<Value = Node> {
    bytes().prop_map(|target| Node::Symlink {
        target: target.try_into().unwrap(),
    })
}

prop_compose! {
    fn any_limits()(
        wall in option::of(0u64..1 << 40), silence in option::of(0u64..1 << 40), log_bytes in any::<Option<u64>>(),
        output_bytes in any::<Option<u64>>(), processes in any::<Option<u32>>(), scratch_bytes in any::<Option<u64>>(),
    ) -> Limits {
        Limits {
            wall: wall.map(Duration::from_millis), silence: silence.map(Duration::from_millis),
            log_bytes, output_bytes, processes, scratch_bytes,
        }
    }
}

prop_compose! {
    pub(crate) fn any_request()(
        inputs in btree_map("[a-z]{1,6}", link(), 0..5),
        arguments in vec(bytes(), 0..4),
        environment in btree_map("[A-Z]{1,5}", bytes(), 0..4),
        scratch_paths in btree_set(relative(), 0..3),
        additional_files in btree_map(relative(), vec(any::<u8>(), 0..9).prop_map(Bytes::from), 0..4),
        (memory_mib, cores, network) in any::<(u32, u32, bool)>(),
        features in btree_set("[a-z]{1,5}", 0..3),
        limits in any_limits(),
        needles in vec(bytes(), 0..4),
    ) -> BuildRequest {
        BuildRequest {
            inputs: inputs.into_iter().map(|(name, node)| (name.as_str().try_into().unwrap(), node)).collect(),
            inputs_dir: RelativePath::try_from("nix/store").unwrap(),
            program: Bytes::from_static(b"/bin/sh"),
            arguments,
            environment: environment.into_iter().map(|(name, value)| (Bytes::from(name), value)).collect(),
            working_dir: RelativePath::root(),
            scratch_paths,
            outputs: vec![RelativePath::try_from("out/b").unwrap(), RelativePath::try_from("out/a").unwrap()],
            additional_files,
            constraints: Constraints { system: "x86_64-linux".into(), memory_mib, cores, network, features },
            limits,
            needles,
        }
    }
}

fn sources() -> Vec<InputSource> {
    vec![
        InputSource::Url("grpc+unix:///run/store".into()),
        InputSource::Tunnel(TunnelToken::from_bytes([9; 32])),
    ]
}

fn call(sources: &[InputSource]) -> Call<'_> {
    Call {
        sources,
        ..Call::default()
    }
}

fn read(parts: Vec<v1::BuildRequestPart>) -> Result<(BuildRequest, Vec<InputSource>), WireError> {
    let mut parts = parts.into_iter();
    let mut reader = RequestReader::new(parts.next().unwrap_or_default())?;
    parts.try_for_each(|part| reader.part(part))?;
    let received = reader.finish()?;
    assert_eq!(received.lease, None);
    Ok((received.request, received.sources))
}

proptest! {
    #[test]
    fn requests_round_trip(request in any_request()) {
        let parts: Vec<_> = request_parts(request.clone(), &call(&sources())).collect();
        prop_assert_eq!(read(parts), Ok((request, sources())));
    }

    /// A request that lost or doubled a part on its way is refused, not run.
    #[test]
    fn a_request_that_lost_a_part_is_refused(request in any_request(), at in any::<prop::sample::Index>()) {
        let mut parts: Vec<_> = request_parts(request, &call(&sources())).collect();
        let at = at.index(parts.len());
        let mut doubled = parts.clone();
        let again = doubled[at].clone();
        // an empty piece of a file says nothing, so saying it twice changes nothing
        let is_empty = matches!(&again.part, Some(Part::File(file)) if file.contents.is_empty());
        doubled.insert(at, again);
        prop_assert!(is_empty || read(doubled).is_err());
        parts.remove(at);
        prop_assert!(read(parts).is_err());
    }

    #[test]
    fn strangers_bytes_never_panic(messages in vec(vec(any::<u8>(), 0..60), 1..4)) {
        let parts = messages.iter().filter_map(|bytes| v1::BuildRequestPart::decode(bytes.as_slice()).ok());
        let _ = read(parts.collect());
    }
}

fn plain() -> BuildRequest {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    any_request().new_tree(&mut runner).unwrap().current()
}

#[test]
fn large_requests_travel_in_small_parts() {
    let mut request = plain();
    let name = |index: usize| NodeName::try_from(format!("{index:06}").as_str()).unwrap();
    let node = Node::File {
        digest: igloo_castore::BlobDigest::of(b""),
        size: 0,
        executable: false,
    };
    request.inputs = (0..20_000).map(|index| (name(index), node.clone())).collect();
    request.additional_files = BTreeMap::from([
        (
            RelativePath::try_from("a").unwrap(),
            Bytes::from(vec![1; 3 * PART_BYTES + 1]),
        ),
        (RelativePath::try_from("b").unwrap(), Bytes::new()),
    ]);
    request.needles = vec![Bytes::from(vec![b'n'; 32]); 50_000];
    let parts: Vec<_> = request_parts(request.clone(), &Call::default()).collect();
    assert!(parts.len() > 20);
    assert!(parts.iter().all(|part| part.encoded_len() < 2 * PART_BYTES));
    assert_eq!(read(parts), Ok((request, Vec::new())));
}

#[test]
fn counts_over_their_bounds_are_refused() {
    let mut parts: Vec<_> = request_parts(plain(), &Call::default()).collect();
    let Some(Part::Header(header)) = &mut parts[0].part else {
        panic!("no header")
    };
    header.inputs_count = u64::MAX;
    let error = read(parts).unwrap_err();
    assert_eq!(error.field, "inputs_count");
    assert!(matches!(error.reason, WireReason::Size { .. }));
}

/// A limit that is no whole number of milliseconds becomes longer, never shorter.
#[test]
fn limits_round_up() {
    assert_eq!(millis(Duration::from_micros(1_001)), 2);
    assert_eq!(millis(Duration::MAX), u64::MAX);
}
