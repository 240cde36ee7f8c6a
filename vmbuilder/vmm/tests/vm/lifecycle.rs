//! What remains of a machine when its build is over: nothing, however it ended.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use igloo_build::{BuildEvent, BuildIo, BuildOutcome, Builder};
use igloo_vmm::MicroVmBuilder;
use igloo_vmm::process::ProcessId;
use igloo_vmm::runtime_dir::cleanup_stale;
use tokio::sync::mpsc;

use crate::support::build::{OUT, request, run};
use crate::support::inputs::Inputs;
use crate::support::sink::MapSink;
use crate::support::{Rig, rig};

const PATIENCE: Duration = Duration::from_secs(90);

/// Names the test's other process: it runs a build and is killed in the middle.
const VICTIM_ROOT: &str = "IGLOO_TEST_VICTIM_ROOT";

/// The process of the one machine below a runtime directory.
fn machine_process(root: &Path) -> ProcessId {
    let dirs = Rig::machine_dirs(root);
    let [dir] = &dirs[..] else {
        panic!("{dirs:?}");
    };
    std::fs::read_to_string(dir.join("process"))
        .unwrap()
        .parse()
        .unwrap()
}

/// Runs a build that never ends, until its first log line; `found` is called then.
async fn until_it_runs(rig: &Rig, builder: &MicroVmBuilder, found: impl AsyncFnOnce()) {
    let inputs = Inputs::new();
    let request = request(rig, &inputs, "say up ; sleep 1000000").await;
    let (events, mut watcher) = mpsc::channel(16);
    let io = BuildIo {
        inputs: inputs.castore.clone(),
        outputs: Box::new(MapSink::new().0),
        events,
    };
    let build = builder.build(request, io);
    let watch = async {
        while let Some(event) = watcher.recv().await {
            if matches!(event, BuildEvent::Log { .. }) {
                return found().await;
            }
        }
        panic!("the build ended");
    };
    tokio::select! {
        result = build => panic!("{result:?}"),
        () = watch => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_build_leaves_nothing() {
    let Some(rig) = rig("a_dropped_build_leaves_nothing") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let builder = MicroVmBuilder::new(rig.config(root.path()));
    let mut process = None;
    until_it_runs(rig, &builder, async || {
        process = Some(machine_process(root.path()));
        assert!(process.unwrap().is_alive());
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.unwrap().pid())).unwrap();
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(
                status.contains(line),
                "{line} is not true of the emulator:\n{status}"
            );
        }
        assert!(
            !status.contains("Uid:\t0"),
            "root's emulator runs as root:\n{status}"
        );
    })
    .await;
    // the future has been dropped by now
    assert!(!process.unwrap().is_alive());
    assert_eq!(Rig::machine_dirs(root.path()), [] as [&Path; 0]);
}

/// The same when it is dropped before the machine has said a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_dropped_while_booting_leaves_nothing() {
    let Some(rig) = rig("a_build_dropped_while_booting_leaves_nothing") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let builder = MicroVmBuilder::new(rig.config(root.path()));
    let inputs = Inputs::new();
    for millis in [0, 5, 50, 300] {
        let request = request(rig, &inputs, "say up").await;
        let build = run(&builder, &inputs, request);
        let ended = tokio::time::timeout(Duration::from_millis(millis), build).await;
        assert!(ended.is_err());
        // a process that was being started when its build was dropped dies a moment later
        let deadline = Instant::now() + Duration::from_secs(5);
        while !Rig::machine_dirs(root.path()).is_empty() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Not a test: the process that the next one starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn victim() {
    let Some(root) = std::env::var_os(VICTIM_ROOT) else {
        return;
    };
    let rig = rig("victim").unwrap();
    let builder = MicroVmBuilder::new(rig.config(Path::new(&root)));
    until_it_runs(rig, &builder, async || {
        println!("\nthe build runs");
        std::future::pending::<()>().await;
    })
    .await;
}

/// kill -9 of the process that runs a build takes the emulator with it, and the next start removes the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_leaves_what_the_next_one_removes() {
    if rig("a_killed_process_leaves_what_the_next_one_removes").is_none() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::victim", "--nocapture"])
        .env(VICTIM_ROOT, root.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let runs = lines.map_while(Result::ok).any(|line| line == "the build runs");
    assert!(runs, "the other process did not get its build to run");
    let process = machine_process(root.path());
    assert!(process.is_alive());
    victim.kill().unwrap();
    victim.wait().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while process.is_alive() && !is_zombie(process) {
        assert!(Instant::now() < deadline, "the emulator outlived its owner");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        Rig::machine_dirs(root.path()).len(),
        1,
        "nobody was left to remove it"
    );
    assert_eq!(cleanup_stale(root.path()).unwrap().directories, 1);
    assert_eq!(Rig::machine_dirs(root.path()), [] as [&Path; 0]);
}

fn is_zombie(process: ProcessId) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid()));
    stat.is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

/// A killed emulator is the machine's failure, with its last words; the build is not blamed.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_is_no_outcome() {
    let Some(rig) = rig("a_machine_that_dies_is_no_outcome") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let builder = MicroVmBuilder::new(rig.config(root.path()));
    let inputs = Inputs::new();
    let request = request(rig, &inputs, "say up ; sleep 1000000").await;
    let killer = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let dirs = Rig::machine_dirs(root.path());
            let recorded = dirs
                .first()
                .map(|dir| std::fs::read_to_string(dir.join("process")));
            if let Some(Ok(Ok(process))) = recorded.map(|text| text.map(|text| text.parse())) {
                igloo_vmm::process::kill_stray(process).unwrap();
                return;
            }
        }
    };
    let (built, ()) = tokio::join!(run(&builder, &inputs, request), killer);
    let error = built.result.unwrap_err();
    assert_eq!(error.code(), igloo_status_code(), "{error}");
    assert!(error.to_string().contains("signal: 9"), "{error}");
    assert_eq!(Rig::machine_dirs(root.path()), [] as [&Path; 0]);
}

fn igloo_status_code() -> igloo_status::Code {
    igloo_status::Code::Unavailable
}

/// Two at once, each with its own inputs and outputs; afterwards the shared directory is empty of theirs.
#[tokio::test(flavor = "multi_thread")]
async fn machines_run_side_by_side() {
    let Some(rig) = rig("machines_run_side_by_side") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let mut config = rig.config(root.path());
    config.slots = 2;
    let builder = MicroVmBuilder::new(config);
    let one = async |text: &str| {
        let inputs = Inputs::new();
        let request = request(rig, &inputs, &format!("say {text} ; write /{OUT} {text}")).await;
        run(&builder, &inputs, request).await
    };
    let (first, second) = tokio::join!(one("first"), one("second"));
    for (built, text) in [(first, "first"), (second, "second")] {
        assert_eq!(built.report().outcome, BuildOutcome::Success);
        assert_eq!(built.log, format!("{text}\n"));
        let stats = &built.report().stats;
        assert!(
            stats.boot > Duration::ZERO && stats.total >= stats.boot + stats.run,
            "{stats:?}"
        );
        assert!(
            stats.machine.contains("QEMU microvm, software emulation"),
            "{}",
            stats.machine
        );
    }
    assert_eq!(Rig::machine_dirs(root.path()), [] as [&Path; 0]);
}
