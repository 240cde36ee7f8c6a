//! What must hold for any bytes whatever. A violation panics.
//!
//! The promise of `igloo-protos` in all of them: what a conversion accepts, the opposite conversion writes back to an equal
//! message.

use igloo_build::BuildRequest;
use igloo_build::outcome::BuildReport;
use igloo_castore::Directory;
use igloo_protos::build::{Call, ReceivedRequest, RequestReader, request_parts};
use igloo_protos::castore::{named, named_entry, root, root_entry};
use igloo_protos::event::{read_failure, read_step, step_message};
use igloo_protos::igloo::build::v1 as igloo_build_v1;
use igloo_protos::snix::build::v1 as snix_build_v1;
use igloo_protos::snix::castore::v1 as castore_v1;
use igloo_protos::snix::store::v1 as store_v1;
use igloo_store::PathInfo;
use prost::Message;

/// Directories and their entries; a directory's message encodes to the bytes that its digest is of.
pub fn castore(bytes: &[u8]) {
    if let Ok(message) = castore_v1::Directory::decode(bytes)
        && let Ok(directory) = Directory::try_from(message.clone())
    {
        assert_eq!(castore_v1::Directory::from(&directory), message);
        assert_eq!(
            directory.encode(),
            message.encode_to_vec(),
            "two encodings of one directory"
        );
    }
    if let Ok(message) = castore_v1::Entry::decode(bytes) {
        match (named(message.clone()), root(message.clone())) {
            (Ok((name, node)), Err(_)) => assert_eq!(named_entry(&name, &node), message),
            (Err(_), Ok(node)) => assert_eq!(root_entry(&node), message),
            (Ok(_), Ok(_)) => panic!("an entry is named and a root"),
            (Err(_), Err(_)) => {}
        }
    }
}

/// Path infos.
pub fn path_info(bytes: &[u8]) {
    let Ok(message) = store_v1::PathInfo::decode(bytes) else {
        return;
    };
    let Ok(info) = PathInfo::try_from(message) else {
        return;
    };
    let written = store_v1::PathInfo::try_from(&info)
        .unwrap_or_else(|error| panic!("read, but not to be written: {error}"));
    assert_eq!(
        PathInfo::try_from(written),
        Ok(info),
        "written, it reads as another"
    );
}

/// Build requests: snix's in one message, igloo's in parts, each part with its length in front.
pub fn build(bytes: &[u8]) {
    if let Ok(message) = snix_build_v1::BuildRequest::decode(bytes)
        && let Ok(request) = BuildRequest::try_from(message)
    {
        assert_eq!(request.check(), Ok(()), "accepted, but no builder can run it");
    }
    let Some(received) = read_parts(bytes) else {
        return;
    };
    let call = Call {
        sources: &received.sources,
        lease: received.lease.as_ref(),
        output_store: received.output_store.as_deref(),
    };
    let mut parts = request_parts(received.request.clone(), &call);
    let Some(mut reader) = parts.next().and_then(|part| RequestReader::new(part).ok()) else {
        panic!("accepted, but the header written is refused");
    };
    for part in parts {
        assert_eq!(reader.part(part), Ok(()), "a part written is refused");
    }
    assert_eq!(reader.finish(), Ok(received), "written, it reads as another");
}

fn read_parts(mut bytes: &[u8]) -> Option<ReceivedRequest> {
    let first = igloo_build_v1::BuildRequestPart::decode_length_delimited(&mut bytes).ok()?;
    let mut reader = RequestReader::new(first).ok()?;
    while !bytes.is_empty() {
        let part = igloo_build_v1::BuildRequestPart::decode_length_delimited(&mut bytes).ok()?;
        reader.part(part).ok()?;
    }
    reader.finish().ok()
}

/// Steps through outputs, reports and failures.
pub fn events(bytes: &[u8]) {
    if let Ok(message) = igloo_build_v1::TreeStep::decode(bytes)
        && let Ok(step) = read_step(message.clone())
    {
        assert_eq!(step_message(step), message);
    }
    if let Ok(message) = igloo_build_v1::Report::decode(bytes)
        && let Ok(report) = BuildReport::try_from(message)
    {
        let written = igloo_build_v1::Report::from(report.clone());
        assert_eq!(
            BuildReport::try_from(written),
            Ok(report),
            "written, it reads as another"
        );
    }
    if let Ok(message) = igloo_build_v1::Failure::decode(bytes) {
        let error = read_failure(message);
        let again = read_failure(igloo_build_v1::Failure::from(&error));
        assert_eq!(again.code(), error.code(), "a failure has changed its class");
    }
}
