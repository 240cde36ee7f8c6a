//! Limits, kept from outside the machine, and what a machine runs out of.

use std::time::Duration;

use igloo_build::{BuildOutcome, BuildRequest};

use igloo_vmm::MicroVmBuilder;

use crate::support::build::{Built, OUT, request, run};
use crate::support::inputs::Inputs;
use crate::support::{Rig, rig};

const SECOND: Duration = Duration::from_secs(1);

async fn with(rig: &Rig, commands: impl AsRef<str>, change: impl FnOnce(&mut BuildRequest)) -> Built {
    let inputs = Inputs::new();
    let mut request = request(rig, &inputs, commands.as_ref()).await;
    change(&mut request);
    run(rig.builder(), &inputs, request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn time_and_silence_are_limited() {
    let Some(rig) = rig("time_and_silence_are_limited") else {
        return;
    };
    let (late, silent) = tokio::join!(
        with(rig, "say begin ; sleep 100000", |request| request.limits.wall =
            Some(2 * SECOND)),
        with(rig, "say begin ; sleep 100000", |request| {
            request.limits.wall = Some(60 * SECOND);
            request.limits.silence = Some(SECOND);
        }),
    );
    assert_eq!(late.report().outcome, BuildOutcome::Timeout { limit: 2 * SECOND });
    assert_eq!(silent.report().outcome, BuildOutcome::Silence { limit: SECOND });
    for built in [late, silent] {
        built.says("begin");
        let run = built.report().stats.run;
        assert!(run >= SECOND && run < 10 * SECOND, "{run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_and_outputs_are_limited() {
    let Some(rig) = rig("log_and_outputs_are_limited") else {
        return;
    };
    let (chatty, large) = tokio::join!(
        with(rig, "flood 1000000", |request| request.limits.log_bytes =
            Some(100_000)),
        with(rig, format!("zeros /{OUT} 1000000000000"), |request| {
            request.limits.output_bytes = Some(1 << 20);
        }),
    );
    assert_eq!(
        chatty.report().outcome,
        BuildOutcome::LogLimit { limit_bytes: 100_000 }
    );
    assert_eq!(chatty.log.len(), 100_000);
    let BuildOutcome::OutputInvalid { path, reason } = &large.report().outcome else {
        panic!("{:?}", large.result);
    };
    assert_eq!(path, OUT);
    assert!(reason.contains("1048576 bytes"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_machine_is_told_from_a_failed_build() {
    let Some(rig) = rig("a_full_machine_is_told_from_a_failed_build") else {
        return;
    };
    let (disk, memory) = tokio::join!(
        with(rig, "fill /build/file", |request| request.limits.scratch_bytes =
            Some(32 << 20)),
        with(rig, "eat", |_| {}),
    );
    assert_eq!(disk.report().outcome, BuildOutcome::DiskFull, "{}", disk.log);
    disk.says("fill: No space left on device (os error 28)");
    assert_eq!(
        memory.report().outcome,
        BuildOutcome::OutOfMemory,
        "{}",
        memory.log
    );
}

/// A log of many MiB arrives whole and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_arrives_whole() {
    let Some(rig) = rig("a_long_log_arrives_whole") else {
        return;
    };
    const LINES: u64 = 400_000;
    let commands = format!("flood {LINES} ; write /{OUT} x");
    let built = with(rig, &commands, |_| {}).await;
    assert_eq!(built.report().outcome, BuildOutcome::Success);
    assert_eq!(built.report().stats.log_bytes, LINES * 64);
    assert_eq!(built.log.len() as u64, LINES * 64);
    for (index, line) in built.log.lines().enumerate() {
        assert_eq!(line.parse::<usize>().unwrap(), index);
    }
}

/// With a disk, scratch space is not the machine's memory, and ends where the disk ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_scratch_disk_takes_more_than_the_memory() {
    let Some(rig) = rig("a_scratch_disk_takes_more_than_the_memory") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let mut config = rig.config(root.path());
    config.scratch_disk_bytes = Some(400 << 20);
    let builder = MicroVmBuilder::new(config);
    let inputs = Inputs::new();
    let request = request(rig, &inputs, "fill /build/file").await;
    let built = run(&builder, &inputs, request).await;
    assert_eq!(built.report().outcome, BuildOutcome::DiskFull, "{}", built.log);
    let size = built.log.lines().find_map(|line| line.strip_prefix("filled "));
    let mib: u64 = size.unwrap_or_default().parse().unwrap();
    assert!((350..400).contains(&mib), "{mib} MiB");
    assert_eq!(Rig::machine_dirs(root.path()).len(), 0);
}
