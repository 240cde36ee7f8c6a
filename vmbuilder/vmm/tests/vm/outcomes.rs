//! How builds end.

use igloo_build::BuildOutcome;

use crate::support::build::{OUT, path, request, run, run_commands};
use crate::support::inputs::Inputs;
use crate::support::{Rig, rig};

async fn outcome(rig: &Rig, commands: impl AsRef<str>) -> BuildOutcome {
    let built = run_commands(rig, commands.as_ref()).await;
    built.report().outcome.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_and_signals_are_told_apart() {
    let Some(rig) = rig("exits_and_signals_are_told_apart") else {
        return;
    };
    let (failed, crashed, killed) = tokio::join!(
        run_commands(rig, "write /nix/store/0b-out x ; exit 42"),
        outcome(rig, "crash"),
        outcome(
            rig,
            format!("write /{OUT} x ; spawn /nix/store/0a-program signal 11 ; signal 6 ; exit 7")
        ),
    );
    assert_eq!(failed.report().outcome, BuildOutcome::ExitCode(42));
    assert!(
        failed.outputs.is_empty(),
        "outputs of a failed build are not even asked for"
    );
    assert_eq!(failed.events, ["preparing", "started"]);
    assert_eq!(crashed, BuildOutcome::Signal(4));
    // pid 1 of its namespace does not die of its own abort; it goes on, as under Nix
    assert_eq!(killed, BuildOutcome::ExitCode(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_cannot_be_kept_are_named() {
    let Some(rig) = rig("outputs_that_cannot_be_kept_are_named") else {
        return;
    };
    let (missing, fifo) = tokio::join!(
        outcome(rig, "say nothing"),
        outcome(rig, format!("mkdir /{OUT} ; write /{OUT}/a x ; fifo /{OUT}/b")),
    );
    assert_eq!(missing, BuildOutcome::OutputMissing { path: path(OUT) });
    let BuildOutcome::OutputInvalid { path, reason } = fifo else {
        panic!("{fifo:?}");
    };
    assert_eq!(
        (path, reason.as_str()),
        (format!("{OUT}/b"), "it is a named pipe")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_named() {
    let Some(rig) = rig("a_program_that_is_not_there_is_named") else {
        return;
    };
    let inputs = Inputs::new();
    let mut wrong = request(rig, &inputs, "").await;
    wrong.program = "/nix/store/none".into();
    let built = run(rig.builder(), &inputs, wrong).await;
    let BuildOutcome::StartFailed { reason } = &built.report().outcome else {
        panic!("{:?}", built.result);
    };
    assert!(reason.contains("/nix/store/none"), "{reason}");
}

/// What a build leaves running dies with it, and does not hold up its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_left_behind_does_not_hold_up_the_end() {
    let Some(rig) = rig("a_child_left_behind_does_not_hold_up_the_end") else {
        return;
    };
    let built = run_commands(rig, &format!("orphan ; write /{OUT} x")).await;
    assert_eq!(built.report().outcome, BuildOutcome::Success);
    assert!(built.report().stats.run.as_secs() < 60);
}
