//! The session against scripted guests, good and bad.

mod outputs;
mod running;

use std::time::Duration;

use super::testing::{Guest, RecordingSink, exited, hello, order, pair};
use igloo_build::BuildOutcome;
use igloo_control::FrameError;
use igloo_control::message::{FailureClass, GuestMessage, HostMessage, Stage};

use super::*;

#[tokio::test]
async fn a_good_guest_is_led_from_hello_to_start() {
    let (mut session, mut guest) = pair();
    let guest = tokio::spawn(async move {
        guest.boot().await;
        let HostMessage::Prepare(spec) = guest.hear().await else {
            panic!("no order");
        };
        assert_eq!(spec.outputs, ["nix/store/out"]);
        let mut placed = Vec::new();
        loop {
            match guest.hear().await {
                HostMessage::File { path, mode, size, .. } => placed.push((path, mode, size, Vec::new())),
                HostMessage::FileData(bytes) => placed.last_mut().unwrap().3.extend_from_slice(&bytes),
                HostMessage::Run => break,
                other => panic!("{other:?}"),
            }
        }
        guest.say(GuestMessage::Started).await;
        placed
    });
    assert_eq!(session.hello().await.unwrap().cpus, 1);
    session.mounted().await.unwrap();
    let big = vec![7; 600 << 10];
    assert_eq!(session.prepare(order(&big)).await.unwrap(), Ready::Yes);
    let placed = guest.await.unwrap();
    let names: Vec<_> = placed.iter().map(|file| file.0.as_ref()).collect();
    assert_eq!(
        names,
        [&b"etc/group"[..], b"etc/hosts", b"etc/passwd", b"build/big"]
    );
    for (path, mode, size, contents) in &placed {
        assert_eq!((*mode, *size), (0o644, contents.len() as u64), "{path:?}");
    }
    assert_eq!(placed[3].3, big);
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_never_comes_is_an_error_in_time() {
    let (mut session, _guest) = pair();
    let started = tokio::time::Instant::now();
    let error = session.hello().await.unwrap_err();
    assert!(
        matches!(
            error,
            SessionError::Deadline {
                waiting: Waiting::Hello,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.is_machine_failure());
    assert_eq!(started.elapsed(), Patience::default().hello);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_read_its_order_is_given_up() {
    let (mut session, mut guest) = pair();
    guest.boot().await;
    session.hello().await.unwrap();
    session.mounted().await.unwrap();
    let error = session.prepare(order(&vec![1; 8 << 20])).await.unwrap_err();
    assert!(
        matches!(
            error,
            SessionError::Deadline {
                waiting: Waiting::Started,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn garbage_is_refused() {
    let mut foreign_version = igloo_control::frame::PREFACE;
    foreign_version[8] ^= 0x40;
    let mut huge = igloo_control::frame::PREFACE.to_vec();
    huge.extend(u32::MAX.to_le_bytes());
    let mut noise = igloo_control::frame::PREFACE.to_vec();
    noise.extend([3, 0, 0, 0, 0xff, 0xff, 0xff]);
    for (bytes, is_expected) in [
        (
            b"login: ".to_vec(),
            (|error| matches!(error, FrameError::Magic)) as fn(&FrameError) -> bool,
        ),
        (foreign_version.to_vec(), |error| {
            matches!(error, FrameError::Version { .. })
        }),
        (huge, |error| matches!(error, FrameError::TooLarge { .. })),
        (noise, |error| matches!(error, FrameError::Encoding { .. })),
    ] {
        let (mut session, mut guest) = pair();
        guest.say_raw(&bytes).await;
        match session.hello().await.unwrap_err() {
            SessionError::Frame(error) => assert!(is_expected(&error), "{error}"),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn messages_out_of_order_are_refused() {
    let (mut session, mut guest) = pair();
    guest.say(GuestMessage::Mounted).await;
    assert!(matches!(session.hello().await, Err(SessionError::Sequence(_))));
    let (mut session, mut guest) = pair();
    guest.boot().await;
    guest.say(GuestMessage::Log(vec![b'x'].into())).await;
    session.hello().await.unwrap();
    session.mounted().await.unwrap();
    let error = session.prepare(order(b"")).await.unwrap_err();
    assert!(matches!(error, SessionError::Sequence(_)), "{error}");
    assert!(!error.is_machine_failure());
}

/// Whatever the guest was about to say, its death is noticed at once and told apart from bad words.
#[tokio::test]
async fn death_is_noticed_in_every_state() {
    for state in 0..6 {
        let (mut session, mut guest) = pair();
        let guest = tokio::spawn(async move {
            guest.live_until(state).await;
            drop(guest);
        });
        let error = whole_build(&mut session).await.unwrap_err();
        let SessionError::Closed { waiting } = error else {
            panic!("{state}: {error}");
        };
        let wanted = [
            Waiting::Hello,
            Waiting::Mounted,
            Waiting::Started,
            Waiting::Exited,
            Waiting::Outputs,
            Waiting::Outputs,
        ];
        assert_eq!(waiting, wanted[state]);
        guest.await.unwrap();
    }
}

async fn whole_build(session: &mut Session<tokio::io::DuplexStream>) -> Result<BuildOutcome, SessionError> {
    session.hello().await?;
    session.mounted().await?;
    session.prepare(order(b"")).await?;
    let (events, _watcher) = tokio::sync::mpsc::channel(64);
    let mut log = LogSink::new(&events);
    session.run(&RunLimits::default(), &mut log).await?;
    let mut sink = RecordingSink::default();
    let outputs = [RelativePath::try_from("nix/store/out").unwrap()];
    let limits = CollectLimits {
        bytes: 1 << 20,
        entries: 100,
    };
    Ok(session.collect(&outputs, limits, &mut sink).await?.outcome)
}

#[tokio::test]
async fn a_failure_of_the_agent_is_an_outcome_only_when_it_is_the_builds() {
    for (class, outcome) in [
        (FailureClass::OutOfMemory, Some(BuildOutcome::OutOfMemory)),
        (FailureClass::DiskFull, Some(BuildOutcome::DiskFull)),
        (
            FailureClass::Program,
            Some(BuildOutcome::StartFailed { reason: "why".into() }),
        ),
        (FailureClass::Machine, None),
        (FailureClass::Protocol, None),
        (FailureClass::Request, None),
    ] {
        let (mut session, mut guest) = pair();
        guest.boot().await;
        session.hello().await.unwrap();
        session.mounted().await.unwrap();
        guest
            .say(GuestMessage::Failed {
                stage: Stage::Start,
                class,
                message: "why".into(),
            })
            .await;
        let answer = session.prepare(order(b"")).await;
        match outcome {
            Some(outcome) => assert_eq!(answer.unwrap(), Ready::Ended(outcome)),
            None => assert!(answer.unwrap_err().to_string().contains("why")),
        }
    }
}

#[tokio::test]
async fn an_agent_that_cannot_mount_is_a_machine_failure() {
    let (mut session, mut guest) = pair();
    guest.say(hello()).await;
    guest
        .say(GuestMessage::Failed {
            stage: Stage::Mount,
            class: FailureClass::Machine,
            message: "no virtiofs".into(),
        })
        .await;
    session.hello().await.unwrap();
    let error = session.mounted().await.unwrap_err();
    assert!(
        error.is_machine_failure() && error.to_string().contains("no virtiofs"),
        "{error}"
    );
    assert!(!error.is_in_build());
}

/// The agent's time for each step is bounded whatever it does; these are the bounds.
#[test]
fn patience_is_finite() {
    let Patience {
        hello,
        mount,
        start,
        collect_step,
        collect,
    } = Patience::default();
    for bound in [hello, mount, start, collect_step, collect] {
        assert!(bound > Duration::ZERO && bound <= Duration::from_secs(3600));
    }
}
