//! The builder on machines that are scripts: a process that sleeps, and a guest played by the test.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use igloo_build::{Constraints, RelativePath};
use igloo_control::message::GuestMessage;
use tokio::net::UnixStream;

use super::*;
use crate::channel::Channel;
use crate::host::Qemu;
use crate::image::Bus;
use crate::machine::{Board, StartError, Tails};
use crate::process::{Launch, Process};
use crate::session::testing::{Guest, RecordingSink, exited};
use crate::tail::Tail;

/// What the guest does with its life.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Script {
    /// Builds one file.
    Good,
    /// Says what no agent says.
    Mad,
    /// Says on its console that it is out of memory, and dies while the program runs.
    Starved,
    /// Dies before it said a word.
    Stillborn,
}

#[derive(Debug)]
struct Scripted {
    script: Script,
    running: Arc<AtomicUsize>,
    most: AtomicUsize,
    processes: Mutex<Vec<crate::process::ProcessId>>,
}

impl Scripted {
    fn new(script: Script) -> Arc<Self> {
        Arc::new(Self {
            script,
            running: Arc::default(),
            most: AtomicUsize::new(0),
            processes: Mutex::default(),
        })
    }
}

#[async_trait]
impl Vmm for Scripted {
    async fn start(&self, _: &Plan, resources: &Resources) -> Result<Running, StartError> {
        assert!(
            resources.share().unwrap().path.exists(),
            "the inputs are served before the start"
        );
        let (channel, theirs) = Channel::pair().unwrap();
        let launch = Launch {
            program: "/bin/sleep".into(),
            arguments: vec!["1000".into()],
            inherited: Vec::new(),
            identity: None,
        };
        let (process, stdout, stderr) = Process::start(launch).await.unwrap();
        drop((stdout, stderr));
        self.processes.lock().unwrap().push(process.id());
        let (console, mut console_end) = std::io::pipe().unwrap();
        let (errors, _) = std::io::pipe().unwrap();
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let stream = std::os::unix::net::UnixStream::from(theirs);
        stream.set_nonblocking(true).unwrap();
        let mut guest = Guest::new(UnixStream::from_std(stream).unwrap());
        let (script, running) = (self.script, Arc::clone(&self.running));
        tokio::spawn(async move {
            if script == Script::Starved {
                writeln!(
                    console_end,
                    "Kernel panic - not syncing: System is deadlocked on memory"
                )
                .unwrap();
            }
            play(script, &mut guest).await;
            running.fetch_sub(1, Ordering::SeqCst);
        });
        let tails = Tails {
            console: Tail::follow(console.into()).unwrap(),
            errors: Tail::follow(errors.into()).unwrap(),
        };
        Ok(Running::new(process, channel, tails))
    }
}

async fn play(script: Script, guest: &mut Guest<UnixStream>) {
    match script {
        Script::Stillborn => {}
        Script::Mad => guest.say(GuestMessage::Collected).await,
        Script::Starved => guest.start().await,
        Script::Good => {
            guest.start().await;
            guest.say(GuestMessage::Log(Bytes::from_static(b"hello\n"))).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            guest.say(exited(0)).await;
            guest.hear().await;
            let name = Bytes::new();
            for message in [
                GuestMessage::OutputBegin { index: 0 },
                GuestMessage::FileBegin {
                    name,
                    executable: false,
                    size: 4,
                },
                GuestMessage::FileData(Bytes::from_static(b"done")),
                GuestMessage::OutputEnd,
                GuestMessage::Collected,
            ] {
                guest.say(message).await;
            }
        }
    }
}

fn config(root: &Path) -> MicroVmConfig {
    let image = GuestImage {
        system: "x86_64-linux".into(),
        kernel: "/kernel".into(),
        initramfs: "/initramfs".into(),
        command_line: String::new(),
        bus: Bus::Pci,
        id: "test".into(),
    };
    let host = HostAbilities {
        qemus: vec![Qemu {
            system: "x86_64-linux".into(),
            path: "/qemu".into(),
            version: "7.2.22".into(),
            boards: vec![Board::Q35],
            accelerators: vec![Accelerator::Tcg],
            has_virtiofs: true,
        }],
        tsc_khz: None,
    };
    MicroVmConfig::new(image, host, Accelerator::Tcg, root.to_owned())
}

fn request() -> BuildRequest {
    let path = |text: &str| RelativePath::try_from(text).unwrap();
    BuildRequest {
        inputs: BTreeMap::new(),
        inputs_dir: path("nix/store"),
        program: "/nix/store/program".into(),
        arguments: vec!["program".into()],
        environment: BTreeMap::new(),
        working_dir: path("build"),
        scratch_paths: BTreeSet::from([path("build"), path("nix/store")]),
        outputs: vec![path("nix/store/out")],
        additional_files: BTreeMap::new(),
        constraints: Constraints {
            system: "x86_64-linux".into(),
            memory_mib: 0,
            cores: 0,
            network: false,
            features: BTreeSet::new(),
        },
        limits: Limits::default(),
        needles: Vec::new(),
    }
}

async fn build(builder: &MicroVmBuilder, request: BuildRequest) -> Result<BuildReport, BuildError> {
    let (events, _watcher) = tokio::sync::mpsc::channel(64);
    let io = BuildIo {
        inputs: igloo_castore::memory::castore("test"),
        outputs: Box::new(RecordingSink::default()),
        events,
    };
    builder.build(request, io).await
}

/// However a build ends, its process is dead and its directory gone.
fn assert_clean(vmm: &Scripted, root: &Path) {
    for process in vmm.processes.lock().unwrap().iter() {
        assert!(!process.is_alive());
    }
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_told_apart_and_leave_nothing() {
    for script in [Script::Good, Script::Mad, Script::Starved, Script::Stillborn] {
        let root = tempfile::tempdir().unwrap();
        let vmm = Scripted::new(script);
        let builder = MicroVmBuilder::with_vmm(config(root.path()), vmm.clone());
        let result = build(&builder, request()).await;
        match (script, &result) {
            (Script::Good, Ok(report)) => {
                assert_eq!(report.outcome, BuildOutcome::Success);
                let stats = &report.stats;
                assert_eq!((stats.log_bytes, stats.output_bytes), (6, 4));
                assert!(
                    stats.run >= Duration::from_millis(40) && stats.total >= stats.run,
                    "{stats:?}"
                );
                assert!(stats.machine.starts_with("test, QEMU q35"), "{stats:?}");
            }
            (Script::Mad, Err(BuildError::Protocol { reason })) => {
                assert!(reason.contains("Collected"), "{reason}");
            }
            (Script::Starved, Ok(report)) => assert_eq!(report.outcome, BuildOutcome::OutOfMemory),
            (Script::Stillborn, Err(error @ BuildError::Machine { reason, .. })) => {
                assert!(
                    reason.contains("still running") && error.code().is_transient(),
                    "{reason}"
                );
            }
            _ => panic!("{script:?}: {result:?}"),
        }
        assert_clean(&vmm, root.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_machines_run_than_there_are_slots() {
    let root = tempfile::tempdir().unwrap();
    let vmm = Scripted::new(Script::Good);
    let mut config = config(root.path());
    config.slots = 2;
    let builder = MicroVmBuilder::with_vmm(config, vmm.clone());
    let builds = (0..6).map(|_| build(&builder, request()));
    for result in futures::future::join_all(builds).await {
        assert_eq!(result.unwrap().outcome, BuildOutcome::Success);
    }
    assert_eq!(vmm.processes.lock().unwrap().len(), 6);
    assert!(vmm.most.load(Ordering::SeqCst) <= 2);
    assert_clean(&vmm, root.path());
}

type Change = fn(&mut Constraints);

#[tokio::test(flavor = "multi_thread")]
async fn what_it_cannot_do_is_refused_before_anything_is_made() {
    let root = tempfile::tempdir().unwrap();
    let vmm = Scripted::new(Script::Good);
    let builder = MicroVmBuilder::with_vmm(config(root.path()), vmm.clone());
    assert_eq!(builder.systems(), ["x86_64-linux", "i686-linux"]);
    let changes: [(&str, Change); 5] = [
        ("aarch64-linux", |wanted| wanted.system = "aarch64-linux".into()),
        ("feature `kvm`", |wanted| wanted.features = ["kvm".into()].into()),
        ("network", |wanted| wanted.network = true),
        ("65536 MiB", |wanted| wanted.memory_mib = 1 << 20),
        ("64 processors", |wanted| wanted.cores = 65),
    ];
    for (words, change) in changes {
        let mut request = request();
        change(&mut request.constraints);
        let error = build(&builder, request).await.unwrap_err();
        assert!(
            matches!(error, BuildError::Unsupported { .. }) && error.to_string().contains(words),
            "{error}"
        );
    }
    let mut wrong = request();
    wrong.outputs.clear();
    assert!(matches!(
        build(&builder, wrong).await,
        Err(BuildError::Request(_))
    ));
    let mut no_emulator = config(root.path());
    no_emulator.host = HostAbilities::default();
    let builder = MicroVmBuilder::with_vmm(no_emulator, vmm.clone());
    let error = build(&builder, request()).await.unwrap_err();
    assert!(
        matches!(error, BuildError::Setup { .. }) && error.to_string().contains("install"),
        "{error}"
    );
    assert_eq!(vmm.processes.lock().unwrap().len(), 0);
}

#[test]
fn a_build_is_not_blamed_for_inputs_that_cannot_be_read() {
    let failed = || BuildOutcome::ExitCode(2);
    assert_eq!(unless_starved(failed(), 0).unwrap(), failed());
    assert_eq!(
        unless_starved(BuildOutcome::Success, 3).unwrap(),
        BuildOutcome::Success
    );
    let error = unless_starved(failed(), 3).unwrap_err();
    assert!(error.to_string().contains("3 requests"), "{error}");
}
