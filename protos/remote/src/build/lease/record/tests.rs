use super::*;

fn message(event: Event) -> wire::BuildEvent {
    wire::BuildEvent { event: Some(event) }
}

fn log(sequence: u64, bytes: Vec<u8>) -> wire::BuildEvent {
    event_message(BuildEvent::Log {
        sequence,
        bytes: bytes.into(),
    })
}

fn record(dir: &tempfile::TempDir, spool_bytes_max: u64) -> Record {
    Record::new(dir.path().into(), spool_bytes_max)
}

/// The kinds of what a reader gets, and the log bytes among it.
async fn read(record: &Record, mut cursor: Cursor) -> (Vec<&'static str>, Vec<u8>) {
    let (mut kinds, mut bytes) = (Vec::new(), Vec::new());
    while let Some(message) = record.next(&mut cursor).await {
        kinds.push(match message.event.unwrap() {
            Event::Preparing(_) => "preparing",
            Event::Started(_) => "started",
            Event::Log(log) => {
                bytes.extend_from_slice(&log.bytes);
                continue;
            }
            Event::Collecting(_) => "collecting",
            Event::OutputBegin(_) => "begin",
            Event::Tree(_) => "tree",
            Event::OutputEnd(_) => "end",
            Event::Finished(_) => "finished",
            Event::Failed(_) => "failed",
            other => panic!("{other:?}"),
        });
    }
    (kinds, bytes)
}

async fn fill(record: &Record, messages: Vec<wire::BuildEvent>) {
    let (sender, receiver) = mpsc::channel(1);
    let send = async {
        for message in messages {
            if sender.send(message).await.is_err() {
                break;
            }
        }
        drop(sender);
    };
    tokio::join!(record.take_in(receiver), send);
}

fn whole() -> Vec<wire::BuildEvent> {
    vec![
        message(Event::Preparing(wire::Preparing::default())),
        message(Event::Started(wire::Started {})),
        log(0, vec![b'a'; 1000]),
        log(1000, vec![b'b'; 1000]),
        message(Event::Collecting(wire::Collecting {})),
        message(Event::OutputBegin(wire::OutputBegin { index: 0 })),
        message(Event::Tree(wire::TreeSteps::default())),
        message(Event::OutputEnd(wire::OutputEnd {})),
        message(Event::Finished(wire::Report::default())),
    ]
}

const WHOLE: [&str; 7] = [
    "preparing",
    "started",
    "collecting",
    "begin",
    "tree",
    "end",
    "finished",
];

/// Each reader gets all of it, from the log byte it asks for.
#[tokio::test]
async fn readers_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let record = record(&dir, 1 << 20);
    fill(&record, whole()).await;
    for from in [0, 1, 1500, 2000] {
        let (kinds, bytes) = read(&record, record.cursor(from)).await;
        assert_eq!(kinds, WHOLE);
        assert_eq!(bytes.len() as u64, 2000 - from);
        assert!(bytes.ends_with(&vec![b'b'; bytes.len().min(1000)]));
    }
}

/// A reader that waits sees what comes while it waits.
#[tokio::test]
async fn a_reader_may_be_there_first() {
    let dir = tempfile::tempdir().unwrap();
    let record = record(&dir, 1 << 20);
    let cursor = record.cursor(0);
    let ((kinds, bytes), ()) = tokio::join!(read(&record, cursor), fill(&record, whole()));
    assert_eq!(kinds, WHOLE);
    assert_eq!(bytes.len(), 2000);
}

/// Nobody reads: the writer is held back. Somebody reads: it goes on, and the bytes a later reader can have are bounded.
#[tokio::test]
async fn the_log_is_bounded_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let record = record(&dir, 1 << 20);
    const PIECE: u64 = 100_000;
    let pieces = 3 * LOG_KEPT_BYTES / PIECE;
    let messages: Vec<_> = (0..pieces)
        .map(|index| log(index * PIECE, vec![b'x'; 100_000]))
        .collect();
    let filling = fill(&record, messages);
    tokio::pin!(filling);
    let held = tokio::time::timeout(std::time::Duration::from_millis(200), &mut filling).await;
    assert!(held.is_err());
    assert!(
        record.log_bytes() < LOG_KEPT_BYTES + PIECE,
        "{}",
        record.log_bytes()
    );
    let cursor = record.cursor(0);
    let ((kinds, bytes), ()) = tokio::join!(read(&record, cursor), filling);
    assert_eq!(kinds, ["failed"]);
    assert_eq!(bytes.len() as u64, pieces * PIECE);
    let late = record.cursor(0);
    let (_, bytes) = read(&record, late).await;
    // what was on its way to a reader that is lost is there for the next one
    let kept = LOG_KEPT_BYTES..=2 * LOG_KEPT_BYTES + PIECE;
    assert!(kept.contains(&(bytes.len() as u64)), "{}", bytes.len());
}

#[tokio::test]
async fn outputs_over_the_bound_are_the_builders_failure() {
    let dir = tempfile::tempdir().unwrap();
    let record = record(&dir, 5);
    fill(&record, whole()).await;
    let mut cursor = record.cursor(0);
    let mut last = None;
    while let Some(message) = record.next(&mut cursor).await {
        last = message.event;
    }
    let Some(Event::Failed(failure)) = last else {
        panic!("{last:?}")
    };
    let error = igloo_protos::event::read_failure(failure);
    assert_eq!(error.code(), Code::ResourceExhausted);
}

/// A spool that cannot be made is a failure in words.
#[tokio::test]
async fn a_folder_that_is_none_fails_the_build() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let record = Record::new(file.clone(), 1 << 20);
    fill(&record, whole()).await;
    let (kinds, _) = read(&record, record.cursor(0)).await;
    assert_eq!(kinds.last(), Some(&"failed"));
}
