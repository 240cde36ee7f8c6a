use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::message::{ExitStatus, Exited, FailureClass, Hello, OutputReason, Stage, Usage};

fn hello() -> GuestMessage {
    GuestMessage::Hello(Hello {
        agent_version: String::new(),
        kernel_release: String::new(),
        architecture: String::new(),
        memory_bytes: 0,
        cpus: 1,
        uptime_us: 0,
    })
}

fn exited() -> GuestMessage {
    GuestMessage::Exited(Exited {
        status: ExitStatus::Code(0),
        exhausted: None,
        usage: Usage::default(),
    })
}

fn name(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn file(text: &'static str, size: u64) -> GuestMessage {
    GuestMessage::FileBegin {
        name: name(text),
        executable: false,
        size,
    }
}

fn data(text: &'static str) -> GuestMessage {
    GuestMessage::FileData(name(text))
}

fn directory(text: &'static str) -> GuestMessage {
    GuestMessage::DirectoryBegin { name: name(text) }
}

/// How many messages are taken before the first refused.
fn taken(outputs: u32, messages: &[GuestMessage]) -> usize {
    let mut sequence = GuestSequence::new(outputs);
    messages
        .iter()
        .take_while(|message| sequence.take(message).is_ok())
        .count()
}

fn until_exit() -> Vec<GuestMessage> {
    vec![
        hello(),
        GuestMessage::Mounted,
        GuestMessage::Started,
        GuestMessage::Log(name("x")),
        exited(),
    ]
}

/// A whole build passes.
#[test]
fn a_build() {
    let mut messages = until_exit();
    messages.extend([
        GuestMessage::OutputBegin { index: 0 },
        directory(""),
        file("a", 2),
        data("x"),
        data("y"),
        directory("b"),
        GuestMessage::DirectoryEnd,
        GuestMessage::Symlink {
            name: name("c"),
            target: name("a"),
        },
        GuestMessage::DirectoryEnd,
        GuestMessage::OutputEnd,
        GuestMessage::OutputBegin { index: 1 },
        file("", 0),
        GuestMessage::OutputEnd,
        GuestMessage::Collected,
    ]);
    assert_eq!(taken(2, &messages), messages.len());
    // not whole, or more than asked for
    assert_eq!(taken(1, &messages), messages.len() - 4);
    assert_eq!(taken(3, &messages), messages.len() - 1);
}

/// Each of these breaks the rule named beside it, with its last message.
#[test]
fn broken_outputs() {
    let cases: &[(&str, &[GuestMessage])] = &[
        ("a second root", &[file("", 0), file("", 0)]),
        ("a named root", &[directory("x")]),
        ("a child without a name", &[directory(""), file("", 0)]),
        ("more bytes than announced", &[file("", 1), data("xy")]),
        (
            "fewer bytes than announced",
            &[file("", 3), data("xy"), GuestMessage::OutputEnd],
        ),
        (
            "an entry inside a file",
            &[directory(""), file("a", 1), file("b", 0)],
        ),
        ("an open directory", &[directory(""), GuestMessage::OutputEnd]),
        (
            "a directory closed twice",
            &[
                directory(""),
                GuestMessage::DirectoryEnd,
                GuestMessage::DirectoryEnd,
            ],
        ),
        ("nothing at all", &[GuestMessage::OutputEnd]),
        ("log among outputs", &[GuestMessage::Log(name("x"))]),
    ];
    for (rule, output) in cases {
        let mut messages = until_exit();
        messages.push(GuestMessage::OutputBegin { index: 0 });
        messages.extend_from_slice(output);
        assert_eq!(taken(1, &messages), messages.len() - 1, "{rule}");
    }
}

/// Depth is bounded, since it is the guest's choice.
#[test]
fn depth_is_bounded() {
    let mut messages = until_exit();
    messages.extend([GuestMessage::OutputBegin { index: 0 }, directory("")]);
    messages.extend(std::iter::repeat_n(directory("d"), DEPTH_MAX as usize + 9));
    assert_eq!(taken(1, &messages), 6 + DEPTH_MAX as usize);
}

/// A failure or a wrong output ends everything.
#[test]
fn ends_are_final() {
    let failed = GuestMessage::Failed {
        stage: Stage::Boot,
        class: FailureClass::Machine,
        message: String::new(),
    };
    assert_eq!(taken(1, &[failed.clone(), failed]), 1);
    let wrong = GuestMessage::OutputError {
        index: 0,
        path: name("o"),
        reason: OutputReason::Missing,
    };
    let mut messages = until_exit();
    messages.extend([wrong.clone(), wrong]);
    assert_eq!(taken(1, &messages), messages.len() - 1);
}

fn any_message() -> impl Strategy<Value = GuestMessage> {
    let mut all = until_exit();
    all.extend([
        GuestMessage::OutputBegin { index: 0 },
        GuestMessage::OutputBegin { index: 1 },
        directory(""),
        directory("d"),
        GuestMessage::DirectoryEnd,
        file("", 1),
        file("f", 1),
        data("x"),
        GuestMessage::OutputEnd,
        GuestMessage::Collected,
    ]);
    prop::sample::select(all)
}

proptest! {
    /// A refused message changes nothing, and the program exits at most once.
    #[test]
    fn refusals_change_nothing(messages in vec(any_message(), 0..200)) {
        let mut sequence = GuestSequence::new(2);
        let mut exits = 0;
        for message in messages {
            let before = sequence;
            match sequence.take(&message) {
                Ok(()) => exits += usize::from(matches!(message, GuestMessage::Exited(_))),
                Err(_) => prop_assert_eq!(before, sequence),
            }
        }
        prop_assert!(exits <= 1);
    }
}

/// The host's order.
#[test]
fn host_order() {
    let file = |size| HostMessage::File {
        path: name("etc/passwd"),
        owner: crate::message::FileOwner::System,
        mode: 0o644,
        size,
    };
    let mut sequence = HostSequence::default();
    assert!(sequence.take(&HostMessage::Run).is_err());
    assert!(sequence.take(&HostMessage::Ack { bytes: 0 }).is_ok());
    assert!(sequence.take(&file(1)).is_err());
    let spec = crate::BuildSpec {
        program: name("/p"),
        arguments: vec![],
        environment: vec![],
        working_dir: name("build"),
        inputs_dir: name("nix/store"),
        scratch_paths: vec![],
        outputs: vec![],
        uid: 1000,
        gid: 100,
        hostname: name("localhost"),
        domainname: name("(none)"),
        personality: crate::spec::Personality::Native,
        network: None,
        kvm: false,
        limits: crate::spec::GuestLimits::default(),
    };
    sequence
        .take(&HostMessage::Prepare(Box::new(spec.clone())))
        .unwrap();
    assert!(
        sequence.take(&HostMessage::Prepare(Box::new(spec))).is_err(),
        "one build per machine"
    );
    sequence.take(&file(2)).unwrap();
    assert!(
        sequence.take(&HostMessage::Run).is_err(),
        "a file is missing bytes"
    );
    assert!(sequence.take(&HostMessage::FileData(name("xyz"))).is_err());
    sequence.take(&HostMessage::FileData(name("xy"))).unwrap();
    assert!(sequence.take(&HostMessage::Collect).is_err());
    sequence.take(&HostMessage::Run).unwrap();
    sequence.take(&HostMessage::Kill).unwrap();
    sequence.take(&HostMessage::Collect).unwrap();
    sequence.take(&HostMessage::PowerOff).unwrap();
    assert!(sequence.take(&HostMessage::Ack { bytes: 0 }).is_err());
}
