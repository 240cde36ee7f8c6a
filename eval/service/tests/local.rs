//! Evaluations on threads of this process: what is told and when, and how they end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Copies, Nobody, Silent, assert_whole, evaluate, goals, json, lines, local, memory_store};
use igloo_eval::io::Notice;
use igloo_evaluator::{
    Argument, EvaluateError, EvaluateEvent, EvaluateIo, EvaluateRequest, Evaluator, Input,
};
use igloo_status::Code;
use tokio::sync::mpsc;

/// Longest time until something that happens "soon" must have happened: a hang fails the test, slowness does not.
const SOON: Duration = Duration::from_secs(120);

const D: &str = r#"let d = name: derivation { inherit name; system = "s"; builder = "b"; }; in "#;

/// The promise: "a derivation is told after all it refers to, and is in the store when it is told", and goals come in
/// order, after their derivations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn derivations_come_before_what_needs_them() {
    let store = memory_store();
    let text = format!(
        r#"{D} let x = d "x"; m = derivation {{ name = "m"; system = "s"; builder = "b"; outputs = [ "out" "dev" ]; inherit x; }};
        in {{ b = m.dev; a = builtins.trace "seen" x; r = {{ recurseForDerivations = true; z = d "z"; }}; n = 1; }}"#
    );
    let (result, events) = evaluate(&local(&store), goals(&text), Arc::new(Nobody)).await;
    assert_eq!(
        lines(&events),
        [
            r#"Trace("seen")"#,
            "derivation x",
            "goal a x.drv out",
            "derivation m",
            "goal b m.drv dev",
            "derivation z",
            "goal r.z z.drv out",
        ]
    );
    let report = result.unwrap();
    assert_eq!(report.derivations, 3);
    assert!(report.heap_bytes > 0 && report.cpu > Duration::ZERO);
    assert_eq!(assert_whole(&store).await, 3);
}

/// On several threads: the same goals and values in the same order, the same first error, and each derivation told once,
/// after all it refers to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_say_what_one_thread_says() {
    let set = r#"let
        d = n: derivation { name = "d${toString n}"; system = "s"; builder = "b"; input = if n == 0 then "" else d (n - 1); };
      in { a = d 30; b = { n }: d (20 + n); c = d 10; e = throw "first"; f = throw "second"; }"#;
    let orders: [&[&str]; 4] = [
        &["a", "b", "c", "a"],
        &["c", "e", "a", "f"],
        &["a", "nothing"],
        &["f", "e"],
    ];
    for (make, order) in [goals as fn(&str) -> EvaluateRequest, json]
        .iter()
        .flat_map(|make| orders.map(|order| (make, order)))
    {
        let mut ends = Vec::new();
        for threads in ["1", "2", "3"] {
            let store = memory_store();
            let request = EvaluateRequest {
                attributes: order.iter().map(|name| (*name).to_owned()).collect(),
                arguments: vec![Argument::Expression("n".to_owned(), Bytes::from_static(b"5"))],
                options: vec![("eval-cores".to_owned(), threads.to_owned())],
                ..make(set)
            };
            let (result, events) = evaluate(&local(&store), request, Arc::new(Nobody)).await;
            let mut told = std::collections::BTreeSet::new();
            for event in &events {
                match event {
                    EvaluateEvent::Derivation { path, derivation } => {
                        assert!(derivation.references().is_subset(&told));
                        assert!(told.insert(path.clone()), "{path} is told twice");
                    }
                    EvaluateEvent::Goal(goal) => assert!(told.contains(&goal.drv)),
                    EvaluateEvent::Printed(_) | EvaluateEvent::Notice(_) => {}
                }
            }
            assert_eq!(assert_whole(&store).await, told.len());
            let (failed, end) = match result {
                Ok(report) => (false, report.derivations.to_string()),
                Err(error) => (true, error.to_string()),
            };
            // others may be further when one fails
            let told = if failed {
                Vec::new()
            } else {
                told.into_iter().collect()
            };
            let mut said = lines(&events);
            said.retain(|line| !line.starts_with("derivation "));
            ends.push((end, said, told));
        }
        assert_eq!(ends[0], ends[1], "{order:?}");
        assert_eq!(ends[0], ends[2], "{order:?}");
    }
}

/// Recorded from `nix-instantiate` 2.34: which parts of a value count as derivations, and in what order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goals_are_those_of_nix_instantiate() {
    let cases: &[(&str, &[&str])] = &[
        (
            r#"{ b = d "b"; a = d "a"; "c.d" = d "cd"; l = [ (d "l") ]; s = { x = d "sx"; };
                r = { recurseForDerivations = true; y = d "ry"; }; n = 1; }"#,
            &["a", "b", "ry"],
        ),
        (
            r#"[ (d "b") (d "a") { x = d "x"; } [ (d "n") ] { x.y = d "xy"; } ]"#,
            &["b", "a", "x", "n"],
        ),
        (r#"let x = d "x"; in { a = x; b = x; }"#, &["x"]),
        (r#"let x = d "x"; in [ x x ]"#, &["x"]),
        (r#"{ a = d "x"; b = d "x"; }"#, &["x", "x"]),
        (r#"{ a ? "dflt" }: d a"#, &["dflt"]),
        (r#"{ f = { a ? "z" }: d a; }"#, &[]),
        (r#"[ ({ a ? "z" }: d a) ]"#, &["z"]),
        (r#"{ __functor = s: { a ? "z" }: d a; }"#, &["z"]),
        (
            r#"{ _a = d "1"; A1 = d "2"; "1a" = d "3"; "a+b" = d "4"; "a b" = d "5"; "a'" = d "6"; "" = d "7"; }"#,
            &["2", "1", "4"],
        ),
        (
            r#"{ r = { recurseForDerivations = true; l = [ (d "q") ]; s = [ { recurseForDerivations = true; z = d "z"; } ]; }; }"#,
            &[],
        ),
        (r#"[ { recurseForDerivations = false; z = d "z"; } ]"#, &["z"]),
        (r#"{ recurseForDerivations = false; b = d "b"; }"#, &["b"]),
        ("{ a = 1; }", &[]),
        ("[ ]", &[]),
    ];
    for (text, names) in cases {
        let (result, events) = evaluate(
            &local(&memory_store()),
            goals(&format!("{D}{text}")),
            Arc::new(Nobody),
        )
        .await;
        result.unwrap();
        let found: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                EvaluateEvent::Goal(goal) => {
                    Some(goal.drv.name().as_str().trim_end_matches(".drv").to_owned())
                }
                _ => None,
            })
            .collect();
        assert_eq!(found, *names, "{text}");
    }
    let none = "expression does not evaluate to a derivation (or a set or list of those)";
    let failures: &[(&str, &str)] = &[
        ("1", none),
        (r#"x: d "x""#, none),
        ("[ 1 ]", none),
        ("[ (x: x) ]", none),
        (
            r#"{ type = "derivation"; drvPath = (d "x").drvPath; }"#,
            "derivation name missing",
        ),
        (
            r#"{ type = "derivation"; name = "q"; outputName = "out"; }"#,
            "derivation does not contain a 'drvPath' attribute",
        ),
        (
            r#"{ type = "derivation"; name = "q"; drvPath = "/nope"; outputName = "out"; }"#,
            "path '/nope' is not in the Nix store",
        ),
        (
            r#"{ type = "derivation"; name = "q"; drvPath = (d "x").outPath; outputName = "out"; }"#,
            "-x' is not a valid derivation path",
        ),
        (
            r#"{ type = "derivation"; name = "q"; inherit (d "x") drvPath; }"#,
            "-x.drv' lacks an 'outputName' attribute",
        ),
        (
            r#"(d "x") // { outputName = 1; }"#,
            "expected a string but found an integer: 1",
        ),
        (
            r#"{ r = { recurseForDerivations = 1; y = d "ry"; }; }"#,
            "expected a Boolean but found an integer: 1",
        ),
    ];
    for (text, words) in failures {
        let (result, _) = evaluate(
            &local(&memory_store()),
            goals(&format!("{D}{text}")),
            Arc::new(Nobody),
        )
        .await;
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

/// Inputs and attributes in order, arguments given, files and the search path read, settings by Nix's names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_say_everything() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("default.nix"), "{ x, y ? 2 }: { a = x; b = y; }").unwrap();
    std::fs::create_dir(tmp.path().join("lib")).unwrap();
    std::fs::write(
        tmp.path().join("lib/default.nix"),
        r#"{ x }: { a = "lib"; b = builtins.getEnv "V"; }"#,
    )
    .unwrap();
    let base = tmp.path().to_str().unwrap().to_owned();
    let request = EvaluateRequest {
        inputs: vec![
            Input::File(base.clone()),
            Input::File("<p>".to_owned()),
            Input::Stdin(Bytes::from_static(b"{ a = builtins.currentSystem; b = ./lib; }")),
        ],
        attributes: vec!["a".to_owned(), "b".to_owned()],
        arguments: vec![Argument::Text("x".to_owned(), "given".to_owned())],
        search_path: vec![("p".to_owned(), "lib".to_owned())],
        options: vec![
            ("system".to_owned(), "mine".to_owned()),
            ("nonsense".to_owned(), "1".to_owned()),
        ],
        environment: [(Bytes::from_static(b"V"), Bytes::from_static(b"env"))].into(),
        base_dir: base.clone(),
        ..json("")
    };
    let (result, events) = evaluate(&local(&memory_store()), request, Arc::new(Nobody)).await;
    result.unwrap();
    assert_eq!(
        lines(&events),
        [
            r#"Warning("warning: unknown setting 'nonsense'")"#.to_owned(),
            r#"printed "given""#.to_owned(),
            "printed 2".to_owned(),
            r#"printed "lib""#.to_owned(),
            r#"printed "env""#.to_owned(),
            r#"printed "mine""#.to_owned(),
            format!(r#"printed "{base}/lib""#),
        ]
    );
    let relative = EvaluateRequest {
        inputs: vec![Input::File("x.nix".to_owned())],
        ..json("")
    };
    let (result, _) = evaluate(&local(&memory_store()), relative, Arc::new(Nobody)).await;
    assert!(matches!(result, Err(EvaluateError::Request { .. })));
}

/// What is printed of a missing file is Nix's text, and the status is Nix's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_carry_the_whole_text() {
    let (result, events) = evaluate(
        &local(&memory_store()),
        json(r#"{ a = throw "no"; }"#),
        Arc::new(Nobody),
    )
    .await;
    let Err(EvaluateError::Failed { text, exit, code }) = result else {
        panic!("{result:?}");
    };
    assert!(events.is_empty());
    assert!(
        text.starts_with("error:\n       … while evaluating attribute 'a'"),
        "{text}"
    );
    assert!(text.ends_with("error: no"), "{text}");
    assert_eq!((exit, code), (1, Code::Aborted));
    let missing = EvaluateRequest {
        inputs: vec![Input::File("<nowhere>".to_owned())],
        ..json("")
    };
    let (result, _) = evaluate(&local(&memory_store()), missing, Arc::new(Nobody)).await;
    assert_eq!(
        result.unwrap_err().to_string(),
        "error: file 'nowhere' was not found in the Nix search path (add it using $NIX_PATH or -I)",
        "recorded from Nix 2.34"
    );
}

/// "Derivations are told before what is built of them is asked for": import from derivation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn builds_are_asked_for_after_their_derivations_were_told() {
    let store = memory_store();
    let realiser = Copies::new(&store);
    let text = r#"let made = derivation { name = "n"; system = "s"; builder = "b"; content = "{ x = 41; }"; };
        in (import made).x + 1"#;
    let (events, mut receiver) = mpsc::channel(1);
    let io = EvaluateIo {
        events,
        realiser: Arc::<Copies>::clone(&realiser),
    };
    let evaluator = local(&store);
    let evaluation = tokio::spawn(async move { evaluator.evaluate(json(text), io).await });
    let first = receiver.recv().await.unwrap();
    let EvaluateEvent::Derivation { path, .. } = first else {
        panic!("{first:?}");
    };
    assert!(store.path_infos.get(&path).await.unwrap().is_some());
    let second = receiver.recv().await.unwrap();
    assert_eq!(lines(&[second]), ["printed 42"]);
    assert_eq!(realiser.asked.lock().unwrap().len(), 1);
    evaluation.await.unwrap().unwrap();
}

/// Dropping the future ends an evaluation that waits for a build; the store is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_that_waits_for_a_build_can_be_stopped() {
    let store = memory_store();
    let realiser = Arc::new(Silent::default());
    let (events, mut receiver) = mpsc::channel(16);
    let io = EvaluateIo {
        events,
        realiser: Arc::<Silent>::clone(&realiser),
    };
    let evaluator = local(&store);
    let text =
        r#"import (derivation { name = "n"; system = "s"; builder = "b"; src = builtins.toFile "t" "x"; })"#;
    let evaluation = tokio::spawn(async move { evaluator.evaluate(json(text), io).await });
    realiser.0.notified().await;
    evaluation.abort();
    // the thread holds the realiser and the way of events until it ends
    let ended = async { while receiver.recv().await.is_some() {} };
    tokio::time::timeout(SOON, ended).await.unwrap();
    assert_eq!(assert_whole(&store).await, 2);
}

/// Dropping the future ends an evaluation that computes for ever, and one whose listener listens no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_that_never_ends_can_be_stopped() {
    let store = memory_store();
    // as good as endless: 2^90 steps
    let computing = "let fib = n: if n < 2 then n else fib (n - 1) + fib (n - 2); in fib 90".to_owned();
    let instantiating = format!(
        r#"{D} let go = path: depth: if depth == 0 then builtins.stringLength (d "n${{path}}").drvPath
            else go (path + "0") (depth - 1) + go (path + "1") (depth - 1); in go "" 90"#
    );
    for (endless, speaks) in [(computing, false), (instantiating, true)] {
        let (events, mut receiver) = mpsc::channel(4);
        let io = EvaluateIo {
            events,
            realiser: Arc::new(Nobody),
        };
        let evaluator = local(&store);
        let evaluation = tokio::spawn(async move { evaluator.evaluate(json(&endless), io).await });
        if speaks {
            receiver.recv().await.unwrap();
        }
        evaluation.abort();
        let ended = async { while receiver.recv().await.is_some() {} };
        tokio::time::timeout(SOON, ended).await.unwrap();
    }
    assert!(assert_whole(&store).await > 0);
}

/// Nobody need listen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_without_listener_ends_well() {
    let store = memory_store();
    let (events, receiver) = mpsc::channel(1);
    drop(receiver);
    let io = EvaluateIo {
        events,
        realiser: Arc::new(Nobody),
    };
    let text = format!(r#"{D} [ (d "a") (builtins.trace "b" (d "b")) ]"#);
    local(&store).evaluate(goals(&text), io).await.unwrap();
    assert_eq!(assert_whole(&store).await, 2);
}

/// Traces and warnings come as they are said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_are_told_in_order() {
    let text = r#"builtins.trace "one" (builtins.warn "two" (builtins.trace "three" 1))"#;
    let (_, events) = evaluate(&local(&memory_store()), json(text), Arc::new(Nobody)).await;
    let said: Vec<_> = events
        .into_iter()
        .filter_map(|event| match event {
            EvaluateEvent::Notice(notice) => Some(notice),
            _ => None,
        })
        .collect();
    assert_eq!(
        said,
        [
            Notice::Trace("one".to_owned()),
            Notice::EvaluationWarning("evaluation warning: two".to_owned()),
            Notice::Trace("three".to_owned()),
        ]
    );
}
