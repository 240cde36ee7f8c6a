//! Outputs from good and bad guests.

use bytes::Bytes;
use igloo_build::RelativePath;
use igloo_castore::tree::TreeEvent;
use igloo_control::message::OutputReason;

use super::*;

const LIMITS: CollectLimits = CollectLimits {
    bytes: 1000,
    entries: 10,
};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn begin(index: u32) -> GuestMessage {
    GuestMessage::OutputBegin { index }
}

fn dir(name: &str) -> GuestMessage {
    GuestMessage::DirectoryBegin { name: bytes(name) }
}

fn file(name: &str, size: u64) -> GuestMessage {
    GuestMessage::FileBegin {
        name: bytes(name),
        executable: true,
        size,
    }
}

fn data(text: &str) -> GuestMessage {
    GuestMessage::FileData(bytes(text))
}

fn link(name: &str, target: &str) -> GuestMessage {
    GuestMessage::Symlink {
        name: bytes(name),
        target: bytes(target),
    }
}

use GuestMessage::{Collected as Done, DirectoryEnd as Up, OutputEnd as End};

/// Lets a guest say all that once its program has ended, then nothing more.
async fn collect(messages: Vec<GuestMessage>) -> (Result<Collected, SessionError>, RecordingSink) {
    let (mut session, mut guest) = pair();
    let guest = tokio::spawn(async move {
        guest.run().await;
        for message in &messages {
            if guest.try_say(message).await.is_err() {
                break; // the host has had enough
            }
        }
        // alive and silent
        let _ = guest.hear_any_or_end().await;
    });
    session.hello().await.unwrap();
    session.mounted().await.unwrap();
    session.prepare(order(b"")).await.unwrap();
    let (events, _watcher) = tokio::sync::mpsc::channel(1);
    session
        .run(&RunLimits::default(), &mut LogSink::new(&events))
        .await
        .unwrap();
    let outputs = [RelativePath::try_from("nix/store/out").unwrap()];
    let mut sink = RecordingSink::default();
    let collected = session.collect(&outputs, LIMITS, &mut sink).await;
    drop(session);
    guest.await.unwrap();
    (collected, sink)
}

#[tokio::test]
async fn a_tree_arrives_as_it_was_sent() {
    let messages = vec![
        begin(0),
        dir(""),
        file("a", 5),
        data("he"),
        data("llo"),
        dir("b"),
        Up,
        file("c", 0),
        link("d", "/a"),
        Up,
        End,
        Done,
    ];
    let (collected, sink) = collect(messages).await;
    let collected = collected.unwrap();
    assert_eq!((collected.outcome, collected.bytes), (BuildOutcome::Success, 7));
    let [(path, events, is_whole)] = &sink.outputs[..] else {
        panic!("{sink:?}");
    };
    assert!(*is_whole && path.to_string() == "nix/store/out");
    let name = |text: &str| Some(igloo_castore::NodeName::try_from(text).unwrap());
    let target = igloo_castore::SymlinkTarget::try_from(&b"/a"[..]).unwrap();
    assert_eq!(
        *events,
        [
            TreeEvent::DirectoryBegin { name: None },
            TreeEvent::FileBegin {
                name: name("a"),
                executable: true,
                size: 5
            },
            TreeEvent::FileData(bytes("he")),
            TreeEvent::FileData(bytes("llo")),
            TreeEvent::DirectoryBegin { name: name("b") },
            TreeEvent::DirectoryEnd,
            TreeEvent::FileBegin {
                name: name("c"),
                executable: true,
                size: 0
            },
            TreeEvent::Symlink {
                name: name("d"),
                target
            },
            TreeEvent::DirectoryEnd,
        ]
    );
}

/// No lie about a tree reaches the end of an output.
#[tokio::test]
async fn lies_about_a_tree_are_refused() {
    for (lie, messages) in [
        ("more bytes than said", vec![begin(0), file("", 3), data("four")]),
        (
            "less bytes than said",
            vec![begin(0), file("", 3), data("2"), End],
        ),
        (
            "a next file inside one",
            vec![begin(0), dir(""), file("a", 3), file("b", 1)],
        ),
        (
            "names out of order",
            vec![begin(0), dir(""), file("b", 0), file("a", 0)],
        ),
        ("a name twice", vec![begin(0), dir(""), file("a", 0), dir("a")]),
        ("a way out", vec![begin(0), dir(""), dir("..")]),
        ("a slash", vec![begin(0), dir(""), link("a/b", "x")]),
        ("no name", vec![begin(0), dir(""), file("", 0)]),
        ("a named root", vec![begin(0), dir("root")]),
        ("two roots", vec![begin(0), file("", 0), file("", 0)]),
        ("an empty link", vec![begin(0), link("", "")]),
        ("a NUL in a link", vec![begin(0), link("", "a\0b")]),
        ("too many ends", vec![begin(0), dir(""), Up, Up]),
        ("an open directory", vec![begin(0), dir(""), End]),
        ("nothing", vec![begin(0), End]),
        ("an output too many", vec![begin(0), file("", 0), End, begin(1)]),
        ("the wrong output", vec![begin(1)]),
        ("an output too few", vec![Done]),
        ("an old word", vec![begin(0), GuestMessage::Started]),
    ] {
        let (collected, sink) = collect(messages).await;
        let error = collected.expect_err(lie);
        assert!(!error.is_machine_failure(), "{lie}: {error}");
        // an output that was whole before the lie stays whole; the caller drops it all
        assert!(
            sink.outputs.iter().all(|output| !output.2) || lie == "an output too many",
            "{lie}"
        );
    }
}

#[tokio::test]
async fn what_is_too_much_is_refused_when_it_is_announced() {
    let too_large = |path: &str, outcome: BuildOutcome| match outcome {
        BuildOutcome::OutputInvalid { path: at, reason } => {
            assert_eq!(at, path);
            assert!(reason.contains("more than"), "{reason}");
        }
        other => panic!("{other:?}"),
    };
    for size in [1001, u64::MAX] {
        let (collected, _) = collect(vec![begin(0), file("", size)]).await;
        too_large("nix/store/out", collected.unwrap().outcome);
    }
    let (collected, _) = collect(vec![
        begin(0),
        dir(""),
        link("a", &"t".repeat(600)),
        file("b", 500),
    ])
    .await;
    too_large("nix/store/out", collected.unwrap().outcome);
    let many = (0..20).map(|index| file(&format!("f{index:02}"), 0));
    let (collected, sink) = collect([begin(0), dir("")].into_iter().chain(many).collect()).await;
    too_large("nix/store/out", collected.unwrap().outcome);
    assert_eq!(sink.outputs[0].1.len(), 10);
}

#[tokio::test]
async fn refused_outputs_say_which_and_why() {
    let error = |path: &str, reason| GuestMessage::OutputError {
        index: 0,
        path: bytes(path),
        reason,
    };
    let (collected, _) = collect(vec![error("nix/store/out", OutputReason::Missing)]).await;
    let path = RelativePath::try_from("nix/store/out").unwrap();
    assert_eq!(collected.unwrap().outcome, BuildOutcome::OutputMissing { path });
    let messages = vec![
        begin(0),
        dir(""),
        error("nix/store/out/\x1b[0m", OutputReason::Fifo),
    ];
    let (collected, sink) = collect(messages).await;
    assert_eq!(
        collected.unwrap().outcome,
        BuildOutcome::OutputInvalid {
            path: "nix/store/out/\\x1b[0m".into(),
            reason: "it is a named pipe".into(),
        }
    );
    assert!(!sink.outputs[0].2);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_falls_silent_is_given_up() {
    let began = tokio::time::Instant::now();
    let (collected, _) = collect(vec![begin(0), file("", 10), data("12345")]).await;
    let error = collected.unwrap_err();
    assert!(
        matches!(
            error,
            SessionError::Deadline {
                waiting: Waiting::Outputs,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(began.elapsed(), Patience::default().collect_step);
}
