//! What a build sees. Every expectation was recorded in the sandbox of C++ Nix 2.8, but for what is said otherwise.

use igloo_control::message::{ExitStatus, FileOwner};
use igloo_control::spec::Personality;

use rustix::process::{Resource, getrlimit};

use crate::host::{Host, Ran, run, run_spec, shell};

fn log(test: &str, script: &str) -> Option<String> {
    let ran = run(test, &format!("{script}\necho > $out"))?;
    assert_eq!(
        ran.exited.map(|exited| exited.status),
        Some(ExitStatus::Code(0)),
        "{ran:?}"
    );
    Some(ran.log)
}

/// The root holds `build dev etc nix proc tmp`; here `usr` takes the place of `nix` and `lib64` holds the loader.
#[test]
fn the_root() {
    let script = "stat -c '%n %F %a %u %g' / /* /dev/shm /dev/pts /dev/pts/ptmx; ls -A /build /tmp /dev/shm";
    let Some(log) = log("the_root", script) else {
        return;
    };
    let expected = "\
/ directory 750 0 100
/build directory 700 1000 100
/dev directory 755 0 0
/etc directory 555 0 0
/lib64 directory 755 0 0
/proc directory 555 0 0
/tmp directory 1777 0 0
/usr directory 1775 0 100
/dev/shm directory 1777 0 0
/dev/pts directory 755 0 0
/dev/pts/ptmx character special file 666 0 0
/build:

/dev/shm:

/tmp:
";
    assert_eq!(log, expected);
}

/// `/dev` holds the harmless devices and the usual links.
#[test]
fn devices() {
    let script = "cd /dev; ls -1; stat -c '%n %a %t:%T' full null random tty urandom zero; \
                  for l in fd ptmx stderr stdin stdout; do readlink $l; done; \
                  echo x > null; head -c 3 zero | od -An -tx1; echo x > full";
    let Some(log) = log("devices", script) else { return };
    let expected = "\
fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero
full 666 1:7
null 666 1:3
random 666 1:8
tty 666 5:0
urandom 666 1:9
zero 666 1:5
/proc/self/fd
/dev/pts/ptmx
/proc/self/fd/2
/proc/self/fd/0
/proc/self/fd/1
 00 00 00
";
    assert!(log.starts_with(expected), "{log}");
    assert!(log.ends_with("I/O error\n"), "a full device takes no byte: {log}");
}

/// Every mount is `nosuid`, every one but the devices' is `nodev`, and nothing of the agent's shows.
#[test]
fn mounts() {
    let Some(log) = log("mounts", "cat /proc/self/mountinfo") else {
        return;
    };
    let mut points: Vec<&str> = Vec::new();
    for line in log.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        assert!(fields[5].contains("nosuid"), "{line}");
        assert_eq!(
            fields[5].contains("nodev"),
            !matches!(fields[4], "/dev" | "/dev/pts"),
            "{line}"
        );
        points.push(fields[4]);
    }
    points.sort_unstable();
    assert_eq!(points, ["/", "/dev", "/dev/pts", "/dev/shm", "/proc", "/usr"]);
}

/// Who the build is and what it may not.
#[test]
fn identity() {
    let script = "id -u; id -G; id -un; umask; hostname 2>/dev/null || uname -n; cat /proc/sys/kernel/domainname; \
                  grep -E '^(NoNewPrivs|Seccomp|Sig(Blk|Ign)|Cap(Inh|Prm|Eff|Amb)|Groups|NSsid|NSpgid):' /proc/self/status; \
                  cat /proc/self/personality; cat /proc/self/uid_map";
    let Some(log) = log("identity", script) else {
        return;
    };
    let expected = "\
1000
100
nixbld
0022
localhost
(none)
Groups:\t \nNSpgid:\t1
NSsid:\t1
SigBlk:\t0000000000000000
SigIgn:\t0000000000000000
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
00040000
         0          0 4294967295
";
    assert_eq!(log.replace("Seccomp_filters:\t1\n", ""), expected);
}

/// Its stdin is empty, its output a terminal that changes no byte and controls nothing.
#[test]
fn descriptors() {
    let script = "readlink /proc/$$/fd/0; test -t 1 && test -t 2 && echo terminal; \
                  cat; printf 'a\\r\\nb\\n\\tc\\004\\003'; (: < /dev/tty) 2>/dev/null || echo no controlling terminal";
    let Some(log) = log("descriptors", script) else {
        return;
    };
    assert_eq!(
        log,
        "/dev/null\nterminal\na\r\nb\n\tc\u{4}\u{3}no controlling terminal\n"
    );
}

/// No descriptor but the three; the fourth is the one `ls` reads the list by.
#[test]
fn no_other_descriptors() {
    let mut spec = shell("");
    spec.program = "/usr/bin/ls".into();
    spec.arguments = vec!["ls".into(), "-1".into(), "/proc/self/fd".into()];
    let Some(ran) = run_spec("no_other_descriptors", &spec) else {
        return;
    };
    assert_eq!(ran.log, "0\n1\n2\n3\n");
}

/// No core files, and the limits of nix-daemon.service.
#[test]
fn limits() {
    let Some(log) = log("limits", "ulimit -Sc; ulimit -Hc; ulimit -Sn; ulimit -Hn") else {
        return;
    };
    // without CAP_SYS_RESOURCE, as in containers, nobody raises a hard limit
    let own = getrlimit(Resource::Nofile).maximum;
    let files = if may_raise_limits() {
        1 << 20
    } else {
        own.map_or(1 << 20, |own| own.min(1 << 20))
    };
    assert_eq!(log, format!("0\nunlimited\n{files}\n{files}\n"));
}

fn may_raise_limits() -> bool {
    const CAP_SYS_RESOURCE: u64 = 24;
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .expect("capabilities");
    u64::from_str_radix(line, 16).expect("a number") >> CAP_SYS_RESOURCE & 1 == 1
}

/// The environment and arguments are the spec's and nothing else; `argv[0]` as given.
#[test]
fn arguments_and_environment() {
    let mut spec = shell("");
    spec.program = "/usr/bin/cat".into();
    spec.arguments = vec![
        "".into(),
        "/proc/self/cmdline".into(),
        "/proc/self/environ".into(),
    ];
    spec.environment = vec![("B".into(), "1\n2".into()), ("A".into(), "\u{e9}=x".into())];
    let Some(ran) = run_spec("arguments_and_environment", &spec) else {
        return;
    };
    assert_eq!(
        ran.log,
        "\0/proc/self/cmdline\0/proc/self/environ\0B=1\n2\0A=\u{e9}=x\0"
    );
}

/// Setuid bits and extended attributes answer as in Nix's sandbox (2.36; 2.8 knows fewer calls).
#[test]
fn refused_calls() {
    let script = "touch f; chmod 4755 f; chmod 2755 f; chmod 0755 f && stat -c %a f";
    let Some(log) = log("refused_calls", script) else {
        return;
    };
    assert_eq!(log.matches("Operation not permitted").count(), 2, "{log}");
    assert!(log.ends_with("\n755\n"), "{log}");
}

/// A loopback that works, and nothing else.
#[test]
fn network() {
    let script =
        "tail -n +3 /proc/net/dev | sed 's/:.*//'; tail -n +2 /proc/net/route; cat /proc/net/if_inet6";
    let Some(log) = log("network", script) else { return };
    assert_eq!(
        log.split_whitespace().collect::<Vec<_>>(),
        [
            "lo",
            "00000000000000000000000000000001",
            "01",
            "80",
            "10",
            "80",
            "lo"
        ]
    );
}

/// The build is process 1 of a namespace with nothing of the machine's in it; killing itself does nothing.
#[test]
fn processes() {
    let script = "echo $$; kill -9 $$; kill -TERM $$; ls /proc > all; grep -c '^[0-9]*$' all";
    let Some(log) = log("processes", script) else {
        return;
    };
    // the shell and ls
    assert_eq!(log, "1\n2\n");
}

/// Inputs can be neither changed nor removed; what is written beside them is thrown away.
#[test]
fn inputs() {
    let script = "echo x >> /usr/bin/env; rm -f /usr/bin/env; mkdir /usr/stray && echo stray; mv /usr/bin /usr/b; \
                  touch /x; touch /etc/x; test -x /usr/bin/env && echo whole";
    let Some(log) = log("inputs", script) else { return };
    assert!(log.contains("stray\n") && log.ends_with("whole\n"), "{log}");
    let denied = log.matches("Permission denied").count() + log.matches("Operation not permitted").count();
    assert_eq!(denied, 5, "{log}");
    assert!(!std::path::Path::new("/usr/stray").exists());
}

/// A 32-bit build is told so.
#[test]
fn personality() {
    let mut spec = shell("uname -m; cat /proc/self/personality; echo > $out");
    spec.personality = Personality::Linux32;
    let Some(ran) = run_spec("personality", &spec) else {
        return;
    };
    assert_eq!(ran.log, "i686\n00040008\n");
}

/// Files of the build's own come with its name on them; others are root's.
#[test]
fn placed_files() {
    let Some(mut host) = Host::start("placed_files") else {
        return;
    };
    host.prepare(&shell(
        "stat -c '%a %u %g %s %n' .attrs.json a a/b /etc/passwd; cat .attrs.json; echo > $out",
    ));
    host.place("build/.attrs.json", FileOwner::Build, 0o644, b"{}\n");
    let long = vec![b'x'; 300_000];
    host.place("build/a/b", FileOwner::Build, 0o600, &long);
    let Ran { log, .. } = host.finish();
    let expected = "644 1000 100 3 .attrs.json\n755 1000 100 60 a\n600 1000 100 300000 a/b\n644 0 0 130 /etc/passwd\n{}\n";
    assert_eq!(log, expected);
}
