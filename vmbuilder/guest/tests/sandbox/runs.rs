//! How builds run and end.

use std::time::{Duration, Instant};

use igloo_control::message::{ExitStatus, FailureClass, FileOwner, OutputReason, Resource, Stage};
use igloo_control::window::WINDOW_BYTES;
use igloo_control::{GuestMessage, HostMessage};
use igloo_guest::channel::ChannelError;

use crate::host::{Host, Ran, run, run_spec, shell};

fn status(ran: &Ran) -> Option<ExitStatus> {
    ran.exited.map(|exited| exited.status)
}

/// Log and output of a build that works.
#[test]
fn success() {
    let Some(ran) = run(
        "success",
        "echo one; echo two >&2; mkdir $out; echo made > $out/file",
    ) else {
        return;
    };
    assert_eq!(ran.log, "one\ntwo\n");
    assert_eq!(ran.files(), "made\n");
    assert_eq!(ran.outputs.last(), Some(&GuestMessage::Collected));
    let usage = ran.exited.expect("it has ended").usage;
    assert!(usage.user_us + usage.system_us > 0);
}

/// Exit codes and signals are told apart.
#[test]
fn failures() {
    let cases = [
        ("exit 3", ExitStatus::Code(3)),
        ("exit 255", ExitStatus::Code(255)),
    ];
    for (script, expected) in cases {
        let Some(ran) = run("failures", script) else {
            return;
        };
        assert_eq!(status(&ran), Some(expected));
        assert_eq!(ran.exited.and_then(|exited| exited.exhausted), None);
    }
}

/// C++ Nix takes the end of the log for the end of the build; here the build may go on in silence.
#[test]
fn a_build_may_close_its_output() {
    let script = "exec >&- 2>&-; sleep 0.3; echo late > $out";
    let Some(ran) = run("a_build_may_close_its_output", script) else {
        return;
    };
    assert_eq!(ran.files(), "late\n");
}

/// What is left behind dies with the first process, and holds nothing up.
#[test]
fn nothing_is_left_behind() {
    let script = "(sleep 1000; echo never > $out) & setsid sh -c 'sleep 1000' & echo now > $out";
    let begun = Instant::now();
    let Some(ran) = run("nothing_is_left_behind", script) else {
        return;
    };
    assert_eq!(ran.files(), "now\n");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// Output that is missing, or not the build's to give.
#[test]
fn wrong_outputs() {
    let cases = [
        ("true", OutputReason::Missing),
        ("mkfifo -m 600 $out", OutputReason::Fifo),
        ("mkdir -m 775 $out", OutputReason::Writable { mode: 0o775 }),
    ];
    for (script, reason) in cases {
        let Some(ran) = run("wrong_outputs", script) else {
            return;
        };
        assert_eq!(ran.output_error(), Some(reason), "{script}");
    }
}

/// An output that is an input's own name is not the build's.
#[test]
fn an_input_is_no_output() {
    let mut spec = shell("true");
    spec.outputs = vec!["usr/bin".into()];
    let Some(ran) = run_spec("an_input_is_no_output", &spec) else {
        return;
    };
    assert_eq!(ran.output_error(), Some(OutputReason::NotOwned { uid: 0 }));
}

/// A full scratch space is told apart from other failures.
#[test]
fn a_full_disk_is_named() {
    let mut spec = shell("head -c 100M /dev/zero > /build/big");
    spec.limits.scratch_bytes = Some(20 << 20);
    let Some(ran) = run_spec("a_full_disk_is_named", &spec) else {
        return;
    };
    assert!(ran.log.contains("No space left on device"), "{}", ran.log);
    let exited = ran.exited.expect("it has ended");
    assert_eq!(exited.exhausted, Some(Resource::Disk));
    assert!(exited.usage.scratch_bytes > 18 << 20);
}

/// A limit on files is one on scratch space too.
#[test]
fn too_many_files_are_a_full_disk() {
    let mut spec = shell("cd /build; i=0; while [ $i -lt 3000 ]; do : > $i || exit 1; i=$((i+1)); done");
    spec.limits.scratch_files = Some(2000);
    let Some(ran) = run_spec("too_many_files_are_a_full_disk", &spec) else {
        return;
    };
    assert_eq!(
        ran.exited.and_then(|exited| exited.exhausted),
        Some(Resource::Disk)
    );
}

/// A program that cannot be started is the request's fault, and the file is named.
#[test]
fn programs_that_do_not_start() {
    let cases = [
        (
            "/usr/bin/no-such-program",
            "cannot start `/usr/bin/no-such-program`",
        ),
        ("/usr/share", "cannot start `/usr/share`"),
        ("/build/script", "interpreter"),
    ];
    for (program, expected) in cases {
        let Some(mut host) = Host::start("programs_that_do_not_start") else {
            return;
        };
        let mut spec = shell("");
        spec.program = program.into();
        host.prepare(&spec);
        host.place(
            "build/script",
            FileOwner::Build,
            0o755,
            b"#!/no/such/interpreter\n",
        );
        match host.finish().failed {
            Some(GuestMessage::Failed {
                stage: Stage::Start,
                class: FailureClass::Program,
                message,
            }) => {
                assert!(message.contains(expected), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A working directory that is not there is the request's fault.
#[test]
fn a_working_directory_must_exist() {
    let mut spec = shell("");
    spec.working_dir = "build/none".into();
    let Some(ran) = run_spec("a_working_directory_must_exist", &spec) else {
        return;
    };
    assert!(
        matches!(
            ran.failed,
            Some(GuestMessage::Failed {
                class: FailureClass::Request,
                ..
            })
        ),
        "{ran:?}"
    );
}

/// Files that may not be placed: outside the root, outside scratch, through a link, over another.
#[test]
fn files_that_are_not_placed() {
    let cases = [
        ("../escape", FileOwner::System),
        ("/etc/absolute", FileOwner::System),
        ("etc/of-the-build", FileOwner::Build),
        ("build", FileOwner::Build),
        ("dev/fd/7", FileOwner::System),
        ("etc/passwd", FileOwner::System),
    ];
    for (path, owner) in cases {
        let Some(mut host) = Host::start("files_that_are_not_placed") else {
            return;
        };
        host.prepare(&shell(""));
        host.place(path, owner, 0o644, b"x");
        match host.hear() {
            GuestMessage::Failed {
                stage: Stage::Prepare,
                class,
                message,
            } => {
                assert_eq!(class, FailureClass::Request, "{path}: {message}");
            }
            other => panic!("{path}: {other:?}"),
        }
        host.say(&HostMessage::PowerOff);
        host.hang_up().expect("the agent ends in order");
    }
}

/// `Kill` ends the build and everything it started.
#[test]
fn a_build_can_be_killed() {
    let Some(mut host) = Host::start("a_build_can_be_killed") else {
        return;
    };
    host.prepare(&shell(
        "trap '' TERM INT HUP; sleep 1000 & echo ready; wait; sleep 1000",
    ));
    host.say(&HostMessage::Run);
    assert_eq!(host.hear(), GuestMessage::Started);
    assert_eq!(host.hear(), GuestMessage::Log("ready\n".into()));
    host.say(&HostMessage::Kill);
    let ran = host.listen();
    assert_eq!(status(&ran), Some(ExitStatus::Signal(9)));
    host.say(&HostMessage::PowerOff);
    host.hang_up().expect("the agent ends in order");
}

/// A host that does not keep up stops the build, loses nothing, and is heard.
#[test]
fn a_flood_of_log_waits_for_the_host() {
    let Some(mut host) = Host::start("a_flood_of_log_waits_for_the_host") else {
        return;
    };
    host.acknowledges = false;
    host.prepare(&shell("echo begin; yes | head -c 20M; echo end; sleep 1000"));
    host.say(&HostMessage::Run);
    // `hear` fails when the agent sends more than its window
    let mut logged = 0;
    while logged < WINDOW_BYTES - (1 << 20) {
        if let GuestMessage::Log(bytes) = host.hear() {
            logged += bytes.len() as u64;
        }
    }
    host.say(&HostMessage::Kill);
    let ran = host.listen();
    assert_eq!(status(&ran), Some(ExitStatus::Signal(9)));
    assert!(!ran.log.contains("end"), "the build did not wait");
    host.say(&HostMessage::PowerOff);
    host.hang_up().expect("the agent ends in order");
}

/// With a host that keeps up, every byte of a long log arrives, in order.
#[test]
fn a_long_log_is_whole() {
    let Some(ran) = run("a_long_log_is_whole", "seq 1 1000000; echo > $out") else {
        return;
    };
    let mut lines = ran.log.lines();
    assert!((1..=1_000_000).all(|number| lines.next() == Some(&number.to_string())));
    assert_eq!(lines.next(), None);
}

/// Outputs larger than the window arrive whole.
#[test]
fn a_large_output_is_whole() {
    let script = "mkdir $out; for i in 1 2 3; do head -c 7M /dev/zero > $out/$i; done; echo last > $out/z";
    let Some(ran) = run("a_large_output_is_whole", script) else {
        return;
    };
    let files = ran.files();
    assert_eq!(files.len(), 3 * (7 << 20) + 5);
    assert!(files.ends_with("last\n"));
}

/// A build whose host goes away is not left running.
#[test]
fn a_lost_host_ends_the_build() {
    let Some(mut host) = Host::start("a_lost_host_ends_the_build") else {
        return;
    };
    host.prepare(&shell("echo $$ ready; exec sleep 987654"));
    host.say(&HostMessage::Run);
    assert_eq!(host.hear(), GuestMessage::Started);
    assert_eq!(host.hear(), GuestMessage::Log("1 ready\n".into()));
    assert!(matches!(
        host.hang_up(),
        Err(ChannelError::Closed | ChannelError::Io(_))
    ));
    let gone = || !processes().any(|line| line.contains("987654"));
    let give_up = Instant::now() + Duration::from_secs(10);
    while !gone() {
        assert!(Instant::now() < give_up, "the build still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn processes() -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
}

/// Words at the wrong time are told, not obeyed.
#[test]
fn the_host_keeps_to_the_sequence() {
    let Some(mut host) = Host::start("the_host_keeps_to_the_sequence") else {
        return;
    };
    host.say(&HostMessage::Run);
    assert!(matches!(
        host.hear(),
        GuestMessage::Failed {
            class: FailureClass::Protocol,
            ..
        }
    ));
    host.say(&HostMessage::PowerOff);
    host.hang_up().expect("the agent ends in order");
}
