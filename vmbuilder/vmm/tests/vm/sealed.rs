//! What a build sees: as C++ Nix shows it, and nothing of the host.

use igloo_build::BuildOutcome;

use crate::support::build::{OUT, run_commands};
use crate::support::rig;
use crate::support::sink::Entry;

/// One boot looks at everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_sees_what_nix_shows_and_no_more() {
    let Some(rig) = rig("a_build_sees_what_nix_shows_and_no_more") else {
        return;
    };
    let commands = "argv0 ; ids ; env ; ls / ; ls /dev ; ls /etc ; ls /build ; ls /tmp ; ls /nix/store \
        ; stat / ; stat /build ; stat /tmp ; stat /nix/store ; stat /etc ; stat /nix/store/0a-program \
        ; cat /etc/passwd ; cat /etc/hosts ; cat /etc/group \
        ; lines /proc/self/status NoNewPrivs: ; lines /proc/self/status Cap ; lines /proc/self/status Seccomp: \
        ; lines /proc/self/limits Max\u{a0}core ; ls /sys ; ls /sys/class/net ; lines /proc/net/dev eth \
        ; loopback ; connect 10.0.2.2:80 ; connect 1.1.1.1:443 ; setuid 0 ; mount /tmp ; write /etc/x y \
        ; write /nix/store/0a-program y ; write /nix/store/stray y ; write /x y ; write /nix/store/0b-out done";
    let built = run_commands(rig, commands).await;
    assert_eq!(built.report().outcome, BuildOutcome::Success, "{}", built.log);
    for line in [
        "argv0 Some(\"program\")",
        "uid 1000 gid 100 groups 0 pid 1 session 1 tty 1 umask 22",
        "cwd /build",
        "host localhost domain (none)",
        "/: build dev etc nix proc tmp",
        "/dev: fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
        "/etc: group hosts passwd",
        "/build: ",
        "/tmp: ",
        "/nix/store: 0a-program",
        "NoNewPrivs:\t1",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "Seccomp:\t2",
        "loopback works",
        "ls /sys: No such file or directory (os error 2)",
        "connect 10.0.2.2:80: Network unreachable (os error 101)",
        "connect 1.1.1.1:443: Network unreachable (os error 101)",
        "setuid 0: Operation not permitted (os error 1)",
        "mount /tmp: Operation not permitted (os error 1)",
        "write /etc/x y: Permission denied (os error 13)",
        "write /x y: Permission denied (os error 13)",
        "write /nix/store/0a-program y: Permission denied (os error 13)",
    ] {
        built.says(line);
    }
    let stat = |path: &str| {
        let prefix = format!("{path}: mode ");
        built
            .log
            .lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        stat("/build").starts_with("40700 owner (1000, 100)"),
        "{}",
        stat("/build")
    );
    assert!(stat("/tmp").starts_with("41777 owner (0, 0)"), "{}", stat("/tmp"));
    assert!(
        stat("/nix/store").starts_with("41775 owner (0, 100)"),
        "{}",
        stat("/nix/store")
    );
    assert!(
        stat("/nix/store/0a-program").starts_with("100555 owner (0, 0) mtime 1 size"),
        "{}",
        built.log
    );
    // the environment is the request's, whole
    let variables: Vec<_> = built
        .log
        .lines()
        .filter(|line| line.starts_with("out=") || line.starts_with("PATH="))
        .collect();
    assert_eq!(variables, [format!("out=/{OUT}")]);
    assert_eq!(
        built.outputs.get(OUT),
        Some(&Entry::File {
            contents: b"done".into(),
            executable: false,
        })
    );
    assert_eq!(built.outputs.len(), 1, "stray files in the store are thrown away");
    assert_eq!(built.events, ["preparing", "started", "collecting"]);
}
