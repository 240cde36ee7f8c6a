use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;

pub(crate) fn drv() -> impl Strategy<Value = StorePath> {
    ("[0-9a-df-np-sv-z]{32}", "[a-z][a-z0-9.-]{0,12}").prop_filter_map("no digest", |(hash, name)| {
        StorePath::parse(&format!("{hash}-{name}")).ok()
    })
}

pub(crate) fn names() -> impl Strategy<Value = BTreeSet<OutputName>> {
    btree_set(
        "[a-z]{1,4}".prop_map(|name| OutputName::new(&name).unwrap()),
        0..4,
    )
}

pub(crate) fn variables() -> impl Strategy<Value = BTreeMap<Bytes, Bytes>> {
    btree_map(
        "[A-Z]{1,5}".prop_map(Bytes::from),
        "[ -~]{0,9}".prop_map(Bytes::from),
        0..4,
    )
}

pub(crate) fn request() -> impl Strategy<Value = EvaluateRequest> {
    let input = prop_oneof![
        ".{0,9}".prop_map(Input::File),
        any::<Vec<u8>>().prop_map(|text| Input::Text(text.into())),
        any::<Vec<u8>>().prop_map(|text| Input::Stdin(text.into())),
    ];
    let argument = prop_oneof![
        (".{0,4}", any::<Vec<u8>>()).prop_map(|(name, text)| Argument::Expression(name, text.into())),
        (".{0,4}", ".{0,9}").prop_map(|(name, text)| Argument::Text(name, text)),
    ];
    let format = prop_oneof![
        Just(Format::Nix),
        Just(Format::Json),
        any::<bool>().prop_map(|location| Format::Xml { location })
    ];
    let output = prop_oneof![
        Just(Output::Goals),
        (format, any::<bool>()).prop_map(|(format, strict)| Output::Printed { format, strict })
    ];
    let pairs = || vec((".{0,4}", ".{0,9}"), 0..3);
    let lists = (vec(input, 0..4), vec(".{0,9}", 0..4), vec(argument, 0..4));
    (lists, pairs(), pairs(), variables(), "/.{0,9}", output).prop_map(
        |((inputs, attributes, arguments), search_path, options, environment, base_dir, output)| {
            EvaluateRequest {
                inputs,
                attributes,
                arguments,
                search_path,
                options,
                environment,
                base_dir,
                output,
            }
        },
    )
}

pub(crate) fn goal() -> impl Strategy<Value = Goal> {
    (".{0,9}", drv(), names()).prop_map(|(attribute, drv, outputs)| Goal {
        attribute,
        drv,
        outputs,
    })
}

proptest! {
    #[test]
    fn requests_round_trip(request in request()) {
        prop_assert_eq!(read_evaluate(evaluate_message(request.clone())), Ok(request));
    }

    #[test]
    fn goals_round_trip(goal in goal()) {
        prop_assert_eq!(read_goal(goal_message(goal.clone())), Ok(goal));
    }
}

fn message() -> v1::EvaluateRequest {
    v1::EvaluateRequest {
        base_dir: "/".into(),
        output: Some(Made::Goals(v1::Goals {})),
        ..Default::default()
    }
}

#[test]
fn wrong_requests_are_refused() {
    type Change = fn(&mut v1::EvaluateRequest);
    let variable = |name: &'static str, value: &'static str| v1::Variable {
        name: name.into(),
        value: value.into(),
    };
    let changes: [(Change, &str); 9] = [
        (|m| m.base_dir = "here".into(), "base_dir"),
        (|m| m.output = None, "output"),
        (
            |m| m.output = Some(Made::Printed(v1::Printed::default())),
            "format",
        ),
        (
            |m| {
                m.output = Some(Made::Printed(v1::Printed {
                    format: 99,
                    strict: false,
                }));
            },
            "format",
        ),
        (|m| m.inputs.push(v1::Input::default()), "inputs"),
        (
            |m| m.inputs = vec![v1::Input::default(); EVALUATE_ITEMS_MAX + 1],
            "inputs",
        ),
        (
            |m| m.attributes = vec![String::new(); EVALUATE_ITEMS_MAX + 1],
            "attributes",
        ),
        (
            |m| m.options = vec![v1::Setting::default(); EVALUATE_ITEMS_MAX + 1],
            "options",
        ),
        (|m| m.arguments.push(v1::Argument::default()), "arguments"),
    ];
    assert!(read_evaluate(message()).is_ok());
    for (change, field) in changes {
        let mut wrong = message();
        change(&mut wrong);
        assert_eq!(read_evaluate(wrong).unwrap_err().field, field);
    }
    for environment in [
        vec![variable("B", ""), variable("A", "")],
        vec![variable("A", ""), variable("A", "")],
        vec![variable("", "")],
        vec![variable("A=", "")],
        vec![variable("A", "\0")],
    ] {
        let wrong = v1::EvaluateRequest {
            environment,
            ..message()
        };
        assert_eq!(read_evaluate(wrong).unwrap_err().field, "environment");
    }
}

/// The text of a failed expression arrives whole, escape sequences and tabs included, with its exit status.
#[test]
fn failures_keep_their_kind_and_text() {
    let text = format!("error: \x1b[31mno\x1b[0m\n\tat {}\n", "x".repeat(100_000));
    let errors = [
        EvaluateError::Failed {
            text: text.clone(),
            exit: 102,
            code: Code::Aborted,
        },
        EvaluateError::Request { reason: "no".into() },
        EvaluateError::Store {
            reason: "full".into(),
            code: Code::ResourceExhausted,
        },
        EvaluateError::Unavailable {
            reason: "gone".into(),
        },
    ];
    for error in errors {
        let (shown, code) = (format!("{error:?}"), error.code());
        let read = read_evaluate_failure(evaluate_failure_message(error));
        assert_eq!(format!("{read:?}"), shown);
        assert_eq!(read.code(), code);
    }
    let unknown = read_evaluate_failure(v1::EvaluateFailure::default());
    assert!(matches!(unknown, EvaluateError::Unavailable { .. }));
    let failed = v1::Failed { text, exit: 256 };
    let failure = Some(v1::evaluate_failure::Failure::Failed(failed));
    let read = read_evaluate_failure(v1::EvaluateFailure { failure, code: 99 });
    assert!(matches!(
        read,
        EvaluateError::Failed {
            exit: 1,
            code: Code::Unknown,
            ..
        }
    ));
}

#[test]
fn endless_texts_have_an_end() {
    let message = notice_message(Notice::Trace("ä".repeat(EVALUATION_TEXT_BYTES_MAX)));
    let Ok(Notice::Trace(text)) = read_notice(message) else {
        panic!("another notice")
    };
    assert!(text.len() <= EVALUATION_TEXT_BYTES_MAX && text.ends_with("left out]"));
}
