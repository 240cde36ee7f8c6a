//! One evaluation needs two builds that do not need each other; who evaluates is the test's choice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use igloo_driver::job::Wanted;
use igloo_driver::{Coordinator as _, Job, JobOptions, JobReport, LocalCoordinator, Update};
use igloo_evaluator::{EvaluateRequest, Evaluator, Input};
use tokio::sync::mpsc;

use super::common::{Act, FakeBuilder, World, evaluated};

/// Longer than anything here takes; then the test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

const MADE: &str = r#"let
    made = name: more: derivation ({
      inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "text of ${name}" ];
    } // more);
    read = name: builtins.readFile (made name { });
  in "#;

/// The imports from derivation are in different attributes.
pub const APART: &str = r#"{
    a = made "a" { text = read "first"; };
    b = made "b" { text = read "second"; };
    c = made "unrelated" { };
  }"#;

/// They are in attributes of one derivation.
pub const TOGETHER: &str = r#"{
    a = made "a" { one = read "first"; two = [ "${read "second"}" ]; };
    c = made "unrelated" { };
  }"#;

/// Builds what an expression gives. Each of the two builds it waits for ends only when the other has begun and the derivation
/// `unrelated` was told: whoever runs them one after the other, or lets everything wait, never ends.
pub async fn two_at_once(
    world: &World,
    evaluator: Arc<dyn Evaluator>,
    expression: &str,
    attributes: &[&str],
) -> JobReport {
    let builder = FakeBuilder::new("one", 2);
    builder.act("first", Act::Meet(3));
    builder.act("second", Act::Meet(3));
    let mut config = world.config(&[&builder]);
    config.evaluator = Some(evaluator);
    let coordinator = LocalCoordinator::open(config).await.unwrap();
    let (updates, mut told) = mpsc::channel(1);
    let listening = async {
        let mut heard = false;
        while let Some(update) = told.recv().await {
            // of those instantiated only the latest is told; one that is asked for first is built at once
            if let Update::Instantiated { drv, .. } | Update::BuildStarted { drv, .. } = update
                && drv.name().as_str() == "unrelated.drv"
                && !heard
            {
                heard = true;
                builder.count_in();
                builder.changed.notify_waiters();
            }
        }
        heard
    };
    let running = async { tokio::join!(coordinator.run(job(expression, attributes), updates), listening) };
    let Ok((report, heard)) = tokio::time::timeout(PATIENCE, running).await else {
        panic!(
            "after {PATIENCE:?} it still waits: of first and second, only {:?} began before the other ended, \
             or `unrelated` was not told meanwhile",
            builder.ran()
        );
    };
    assert!(heard);
    let report = report.unwrap();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    report
}

fn job(expression: &str, attributes: &[&str]) -> Job {
    let Wanted::Evaluated(request) = evaluated(JobOptions::default()).wanted else {
        unreachable!("it is an evaluation");
    };
    let request = EvaluateRequest {
        inputs: vec![Input::Text(Bytes::from(format!("{MADE}{expression}")))],
        attributes: attributes.iter().map(|name| (*name).to_owned()).collect(),
        ..*request
    };
    Job {
        wanted: Wanted::Evaluated(Box::new(request)),
        options: JobOptions::default(),
    }
}

/// All of the above, with each way to ask for it.
pub async fn two_at_once_however_asked(evaluator: impl AsyncFn(&World) -> Arc<dyn Evaluator>) {
    let asked: [(&str, &[&str], usize); 5] = [
        (APART, &[], 3),
        (APART, &["a", "b", "c"], 3),
        (APART, &["c", "b", "a"], 3),
        (TOGETHER, &[], 2),
        (TOGETHER, &["a", "c"], 2),
    ];
    for (expression, attributes, goals) in asked {
        let world = World::new();
        let evaluator = evaluator(&world).await;
        let report = two_at_once(&world, evaluator, expression, attributes).await;
        let names = report.goals.iter().map(|goal| goal.goal.attribute.as_str());
        let names: Vec<_> = names.collect();
        assert_eq!(names.len(), goals, "{names:?}");
        if !attributes.is_empty() {
            assert_eq!(names, attributes);
        }
        assert!(report.goals.iter().all(|goal| goal.is_valid));
        assert_eq!(report.built.len(), goals + 2);
    }
}
