//! The fuzz targets' properties over mutated good streams: no fuzzer needed, the same inputs each time.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking; it shares a module with the fuzz targets"
)]

#[path = "../fuzz/src/properties.rs"]
mod properties;

use bytes::Bytes;
use igloo_control::frame::encode;
use igloo_control::message::{
    ExitStatus, Exited, FailureClass, FileOwner, Hello, OutputReason, Stage, Usage,
};
use igloo_control::spec::{GuestLimits, Network, Personality};
use igloo_control::{BuildSpec, GuestMessage, HostMessage};
use igloo_mutate::mutants;

/// Mutated streams for each good one.
const ROUNDS: u64 = 50_000;

/// A stream of these messages; the first byte tells the property how to cut it.
fn stream<M: igloo_control::frame::Message>(head: u8, messages: &[M]) -> Vec<u8> {
    let frames = messages.iter().flat_map(|message| encode(message).unwrap());
    std::iter::once(head).chain(frames).collect()
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[test]
fn guest_frames() {
    use GuestMessage as M;
    let hello = M::Hello(Hello {
        agent_version: "1".into(),
        kernel_release: "6.12".into(),
        architecture: "x86_64".into(),
        memory_bytes: 1 << 30,
        cpus: 2,
        uptime_us: 500_000,
    });
    let exited = M::Exited(Exited {
        status: ExitStatus::Code(0),
        exhausted: None,
        usage: Usage::default(),
    });
    let (name, target) = (text("a"), text("../b"));
    let start = [hello, M::Mounted, M::Started, M::Log(text("hello\n")), exited];
    let tree = [
        M::OutputBegin { index: 0 },
        M::DirectoryBegin { name: Bytes::new() },
        M::FileBegin {
            name: name.clone(),
            executable: true,
            size: 3,
        },
        M::FileData(text("abc")),
        M::Symlink {
            name: text("b"),
            target,
        },
        M::DirectoryEnd,
        M::OutputEnd,
        M::Collected,
    ];
    let wrong = [
        M::OutputError {
            index: 0,
            path: name,
            reason: OutputReason::Io { errno: 5 },
        },
        M::Failed {
            stage: Stage::Run,
            class: FailureClass::Machine,
            message: "no".into(),
        },
    ];
    let whole = [&start[..], &tree].concat();
    let good = [
        stream(1, &whole),
        stream(65, &[&start[..], &wrong].concat()),
        stream(9, &tree),
    ];
    mutants(&good, ROUNDS, properties::guest_frames);
}

fn spec() -> BuildSpec {
    BuildSpec {
        program: text("/bin/sh"),
        arguments: vec![text("sh"), text("-c"), text("true")],
        environment: vec![(text("PATH"), text("/no"))],
        working_dir: text("build"),
        inputs_dir: text("nix/store"),
        scratch_paths: vec![text("build"), text("tmp")],
        outputs: vec![text("nix/store/out")],
        uid: 1000,
        gid: 100,
        hostname: text("localhost"),
        domainname: text("(none)"),
        personality: Personality::Native,
        network: Some(Network {
            address: [10, 0, 0, 2],
            prefix_bits: 24,
            gateway: [10, 0, 0, 1],
        }),
        kvm: false,
        limits: GuestLimits::default(),
    }
}

#[test]
fn host_frames() {
    use HostMessage as M;
    let whole = [
        M::Prepare(Box::new(spec())),
        M::File {
            path: text("etc/hosts"),
            owner: FileOwner::System,
            mode: 0o444,
            size: 2,
        },
        M::FileData(text("hi")),
        M::Run,
        M::Ack { bytes: 70_000 },
        M::Kill,
        M::Collect,
        M::PowerOff,
    ];
    mutants(
        &[stream(1, &whole), stream(200, &whole[1..])],
        ROUNDS,
        properties::host_frames,
    );
}
