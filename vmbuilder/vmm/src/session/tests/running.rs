//! A running program: log, limits, ends.

use bytes::Bytes;
use igloo_build::BuildEvent;
use igloo_control::message::{ExitStatus, Exited, Resource, Usage};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

async fn started() -> (Session<DuplexStream>, Guest<DuplexStream>) {
    let (mut session, mut guest) = pair();
    let guest = tokio::spawn(async move {
        guest.start().await;
        guest
    });
    session.hello().await.unwrap();
    session.mounted().await.unwrap();
    assert_eq!(session.prepare(order(b"")).await.unwrap(), Ready::Yes);
    (session, guest.await.unwrap())
}

fn log(text: &'static str) -> GuestMessage {
    GuestMessage::Log(Bytes::from_static(text.as_bytes()))
}

fn limits(wall: Option<u64>, silence: Option<u64>, log_bytes: Option<u64>) -> RunLimits {
    RunLimits {
        wall: wall.map(Duration::from_secs),
        silence: silence.map(Duration::from_secs),
        log_bytes,
    }
}

fn ended(outcome: BuildOutcome) -> RunEnd {
    RunEnd::Ended(outcome)
}

/// Everything a watcher was sent, checked to be without a gap.
fn heard(watcher: &mut mpsc::Receiver<BuildEvent>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(event) = watcher.try_recv() {
        let BuildEvent::Log { sequence, bytes } = event else {
            panic!("{event:?}");
        };
        assert_eq!(sequence, all.len() as u64);
        all.extend_from_slice(&bytes);
    }
    all
}

#[tokio::test]
async fn log_arrives_in_order_and_ends_are_told_apart() {
    let exit = |status, exhausted| {
        GuestMessage::Exited(Exited {
            status,
            exhausted,
            usage: Usage::default(),
        })
    };
    for (message, wanted) in [
        (exit(ExitStatus::Code(0), None), RunEnd::Succeeded),
        // a success is one, even when something was scarce
        (exit(ExitStatus::Code(0), Some(Resource::Disk)), RunEnd::Succeeded),
        (exit(ExitStatus::Code(3), None), ended(BuildOutcome::ExitCode(3))),
        (exit(ExitStatus::Signal(9), None), ended(BuildOutcome::Signal(9))),
        (
            exit(ExitStatus::Signal(9), Some(Resource::Memory)),
            ended(BuildOutcome::OutOfMemory),
        ),
        (
            exit(ExitStatus::Code(1), Some(Resource::Disk)),
            ended(BuildOutcome::DiskFull),
        ),
    ] {
        let (mut session, mut guest) = started().await;
        let (events, mut watcher) = mpsc::channel(64);
        for text in ["one", " two", " three"] {
            guest.say(log(text)).await;
        }
        guest.say(message).await;
        let mut sink = LogSink::new(&events);
        let end = session.run(&RunLimits::default(), &mut sink).await.unwrap();
        assert_eq!(end, wanted);
        assert_eq!(heard(&mut watcher), b"one two three");
        assert_eq!(sink.sent_bytes(), 13);
    }
}

#[tokio::test(start_paused = true)]
async fn wall_and_silence_are_kept_by_the_hosts_clock() {
    let (mut session, mut guest) = started().await;
    let (events, mut watcher) = mpsc::channel(64);
    let began = Instant::now();
    let chatter = tokio::spawn(async move {
        loop {
            tokio::time::sleep(SECOND).await;
            if guest.try_say(&log("x")).await.is_err() {
                return;
            }
        }
    });
    let mut sink = LogSink::new(&events);
    let end = session
        .run(&limits(Some(10), Some(3), None), &mut sink)
        .await
        .unwrap();
    assert_eq!(end, ended(BuildOutcome::Timeout { limit: 10 * SECOND }));
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert!((9..=10).contains(&heard(&mut watcher).len()));
    drop(session);
    chatter.await.unwrap();

    let (mut session, mut guest) = started().await;
    let began = Instant::now();
    guest.say(log("last words")).await;
    let mut sink = LogSink::new(&events);
    let end = session
        .run(&limits(Some(10), Some(3), None), &mut sink)
        .await
        .unwrap();
    assert_eq!(end, ended(BuildOutcome::Silence { limit: 3 * SECOND }));
    assert_eq!(began.elapsed(), 3 * SECOND);
    drop(guest);
}

#[tokio::test]
async fn a_log_over_its_limit_is_cut_there() {
    let (mut session, mut guest) = started().await;
    let (events, mut watcher) = mpsc::channel(64);
    guest.say(log("12345")).await;
    guest.say(log("67890")).await;
    let mut sink = LogSink::new(&events);
    let end = session
        .run(&limits(None, None, Some(7)), &mut sink)
        .await
        .unwrap();
    assert_eq!(end, ended(BuildOutcome::LogLimit { limit_bytes: 7 }));
    assert_eq!(heard(&mut watcher), b"1234567");
}

/// A watcher that does not read stops a guest that keeps to its window, within the window; then the wall limit acts.
#[tokio::test(start_paused = true)]
async fn a_slow_watcher_holds_the_guest_up_and_not_the_wall() {
    let (mut session, mut guest) = started().await;
    let (events, watcher) = mpsc::channel(1);
    let piece = Bytes::from(vec![b'x'; 100 << 10]);
    let flood = tokio::spawn(async move {
        // reads acknowledgements only when it must, as the agent does
        let mut sent = 0_u64;
        let message = GuestMessage::Log(piece.clone());
        while guest.window.has_room(piece.len() + 16) && sent < 64 << 20 {
            let said = tokio::time::timeout(SECOND, guest.try_say(&message));
            if said.await.is_err() {
                break;
            }
            guest.window.sent(piece.len() + 8);
            sent += piece.len() as u64;
        }
        sent
    });
    let began = Instant::now();
    let mut sink = LogSink::new(&events);
    let end = session
        .run(&limits(Some(60), Some(30), None), &mut sink)
        .await
        .unwrap();
    assert_eq!(end, ended(BuildOutcome::Timeout { limit: 60 * SECOND }));
    assert_eq!(began.elapsed(), 60 * SECOND);
    drop(session);
    assert!(flood.await.unwrap() <= igloo_control::window::WINDOW_BYTES);
    drop(watcher);
}

/// A long log passes when both sides keep to the window; a guest that does not is found out.
#[tokio::test]
async fn the_window_is_kept_open_and_enforced() {
    let (mut session, mut guest) = started().await;
    let (events, mut watcher) = mpsc::channel(16);
    let size = 40 << 20;
    let talker = tokio::spawn(async move {
        let piece = Bytes::from(vec![b'x'; 256 << 10]);
        let mut left = size;
        while left > 0 {
            while !guest.window.has_room(piece.len() + 16) {
                let HostMessage::Ack { bytes } = guest.hear_any().await else {
                    panic!("not an acknowledgement");
                };
                guest.window.acknowledged(bytes).unwrap();
            }
            guest.say(GuestMessage::Log(piece.clone())).await;
            left -= piece.len();
        }
        guest.say(exited(0)).await;
        guest
    });
    let reader = tokio::spawn(async move {
        let mut count = 0;
        while let Some(BuildEvent::Log { sequence, bytes }) = watcher.recv().await {
            assert_eq!(sequence, count);
            count += bytes.len() as u64;
        }
        count
    });
    let mut sink = LogSink::new(&events);
    let end = session.run(&RunLimits::default(), &mut sink).await.unwrap();
    assert_eq!(end, RunEnd::Succeeded);
    drop(events);
    assert_eq!(reader.await.unwrap(), size as u64);
    talker.await.unwrap();
}

#[tokio::test]
async fn a_watcher_that_left_does_not_stop_the_build() {
    let (mut session, mut guest) = started().await;
    let (events, watcher) = mpsc::channel(1);
    drop(watcher);
    for _ in 0..10 {
        guest.say(log("nobody hears this")).await;
    }
    guest.say(exited(0)).await;
    let mut sink = LogSink::new(&events);
    assert_eq!(
        session.run(&RunLimits::default(), &mut sink).await.unwrap(),
        RunEnd::Succeeded
    );
}

#[tokio::test]
async fn a_start_that_failed_after_it_succeeded_makes_no_sense() {
    let (mut session, mut guest) = started().await;
    let (events, _watcher) = mpsc::channel(1);
    guest
        .say(GuestMessage::Failed {
            stage: Stage::Run,
            class: FailureClass::Program,
            message: "why".into(),
        })
        .await;
    let mut sink = LogSink::new(&events);
    let error = session.run(&RunLimits::default(), &mut sink).await.unwrap_err();
    assert!(error.is_machine_failure(), "{error}");
}
