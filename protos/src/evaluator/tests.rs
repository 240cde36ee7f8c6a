use std::collections::BTreeSet;

use igloo_eval::io::Notice;
use igloo_evaluator::Goal;
use nix_compat::derivation::OutputName;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::*;

fn dir() -> StoreDir {
    StoreDir::default()
}

fn path(name: &str) -> StorePath {
    StorePath::parse(&format!("00000000000000000000000000000000-{name}")).unwrap()
}

fn output(name: &str) -> OutputName {
    OutputName::new(name).unwrap()
}

/// A derivation that stands alone, with a variable of that size.
fn derivation(size: usize) -> EvaluateEvent {
    let filler = "x".repeat(size);
    let text = format!(
        r#"Derive([("out","/nix/store/00000000000000000000000000000000-d","","")],[],[],"s","b",[],[("filler","{filler}"),("out","/nix/store/00000000000000000000000000000000-d")])"#
    );
    let name = nix_compat::store_path::StorePathName::new("d").unwrap();
    let derivation = Derivation::parse(&dir(), &name, text.as_bytes()).unwrap();
    EvaluateEvent::Derivation {
        path: derivation.store_path(&dir()).unwrap(),
        derivation: Arc::new(derivation),
    }
}

fn read(messages: Vec<v1::EvaluateEvent>) -> Result<Vec<EvaluateEvent>, WireError> {
    let mut reader = EventReader::new(dir());
    let mut events = Vec::new();
    for message in messages {
        events.extend(reader.event(message.event.field("event")?)?);
    }
    if reader.is_whole() {
        Ok(events)
    } else {
        Err(form("more", "the rest"))
    }
}

fn any_event() -> impl Strategy<Value = EvaluateEvent> {
    prop_oneof![
        (0usize..3).prop_map(|pieces| derivation(pieces * EVENT_PIECE_BYTES)),
        vec(any::<u8>(), 0..9).prop_map(|bytes| EvaluateEvent::Printed(bytes.into())),
        (0usize..3 * EVENT_PIECE_BYTES).prop_map(|size| EvaluateEvent::Printed(vec![7; size].into())),
        ".{0,9}".prop_map(|text| EvaluateEvent::Notice(Notice::Trace(text))),
        ("[a-z.]{0,9}", "[a-z]{1,5}").prop_map(|(attribute, name)| {
            EvaluateEvent::Goal(Goal {
                attribute,
                drv: path("d.drv"),
                outputs: BTreeSet::from([output(&name)]),
            })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn events_round_trip(events in vec(any_event(), 0..5)) {
        let mut messages = Vec::new();
        for event in events.clone() {
            messages.extend(event_messages(event, &dir()).unwrap());
        }
        prop_assert!(messages.iter().all(|message| message.encoded_len() < 2 * EVENT_PIECE_BYTES));
        prop_assert_eq!(read(messages), Ok(events));
    }

    #[test]
    fn strangers_bytes_never_panic(messages in vec(vec(any::<u8>(), 0..60), 1..4)) {
        let events = messages.iter().filter_map(|bytes| v1::EvaluateEvent::decode(bytes.as_slice()).ok());
        let _ = read(events.collect());
        for bytes in &messages {
            if let Ok(message) = v1::Realise::decode(bytes.as_slice()) {
                let _ = read_realise(message);
            }
            if let Ok(message) = v1::Realised::decode(bytes.as_slice()) {
                let _ = read_realised(message);
            }
        }
    }
}

/// "A derivation that was read is the one its path names."
#[test]
fn a_derivation_under_another_path_is_refused() {
    let mut messages = event_messages(derivation(0), &dir()).unwrap();
    let Some(Event::Derivation(part)) = &mut messages[0].event else {
        panic!("no derivation")
    };
    part.path = path("d.drv").to_string();
    assert_eq!(read(messages).unwrap_err().field, "text");
}

#[test]
fn pieces_must_follow_each_other() {
    let pieces = |event| event_messages(event, &dir()).unwrap();
    let first = pieces(EvaluateEvent::Printed(vec![1; EVENT_PIECE_BYTES + 1].into())).remove(0);
    for next in [
        EvaluateEvent::Notice(Notice::Trace("x".to_owned())),
        derivation(0),
    ] {
        let mut messages = vec![first.clone()];
        messages.extend(pieces(next));
        assert_eq!(read(messages).unwrap_err().field, "more");
    }
    assert!(read(vec![first]).is_err(), "half a value");
}

#[test]
fn what_is_put_together_is_bounded() {
    let piece = |more| v1::EvaluateEvent {
        event: Some(Event::Derivation(v1::DerivationPart {
            path: path("d.drv").to_string(),
            text: vec![b'x'; 8 << 20].into(),
            more,
        })),
    };
    let messages: Vec<_> = std::iter::repeat_with(|| piece(true)).take(9).collect();
    let error = read(messages).unwrap_err();
    assert!(matches!(error.reason, WireReason::Size { .. }), "{error:?}");
}

#[test]
fn questions_and_answers_round_trip() {
    let wanted = vec![
        Wanted::Path(path("p")),
        Wanted::Outputs {
            derivation: path("d.drv"),
            outputs: BTreeSet::from([output("dev"), output("out")]),
        },
    ];
    let Some(Event::Realise(question)) = realise_message(7, &wanted).event else {
        panic!("no question")
    };
    assert_eq!(read_realise(question.clone()), Ok((7, wanted)));
    let none = v1::Realise {
        wanted: Vec::new(),
        ..question
    };
    assert!(read_realise(none).is_err());
    let made = RealisedOutput {
        derivation: path("d.drv"),
        output: output("out"),
        path: path("p"),
    };
    let answer = |answer| match realised_message(9, answer).input {
        Some(v1::evaluate_input::Input::Realised(realised)) => read_realised(realised).unwrap(),
        _ => panic!("no answer"),
    };
    assert!(matches!(answer(Ok(vec![made.clone()])), (9, Ok(outputs)) if outputs == [made]));
    let failure = |error| answer(Err(error)).1.unwrap_err();
    let build = RealiseError::Build {
        derivation: path("d.drv"),
        reason: "it failed".to_owned(),
        exit: 101,
    };
    assert!(matches!(
        failure(build),
        RealiseError::Build { exit: 101, reason, .. } if reason == "it failed"
    ));
    assert!(matches!(
        failure(RealiseError::Cancelled),
        RealiseError::Cancelled
    ));
    let missing = RealiseError::Missing { path: path("p") };
    assert!(matches!(failure(missing), RealiseError::Missing { .. }));
    let gone = RealiseError::Unavailable {
        source: "gone".into(),
    };
    assert!(matches!(failure(gone), RealiseError::Unavailable { .. }));
}
