use std::io::Read;
use std::time::{Duration, Instant};

use super::*;

fn shell(script: &str) -> Launch {
    Launch {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        inherited: Vec::new(),
        identity: None,
    }
}

#[tokio::test]
async fn output_and_status_arrive() {
    let (mut process, mut stdout, _) = Process::start(shell("echo hello; exit 3")).await.unwrap();
    assert_eq!(process.wait().await.unwrap().code(), Some(3));
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello\n");
    // waiting again answers the same
    assert_eq!(process.wait().await.unwrap().code(), Some(3));
}

#[tokio::test]
async fn dropping_kills_and_reaps() {
    let (process, ..) = Process::start(shell("sleep 1000")).await.unwrap();
    let id = process.id();
    assert!(id.is_alive());
    drop(process);
    assert!(!id.is_alive());
}

#[tokio::test]
async fn only_the_given_descriptors_are_inherited() {
    let (mut ours, theirs) = io::pipe().unwrap();
    let fd = OwnedFd::from(theirs);
    let number = fd.as_raw_fd();
    let mut launch = shell(&format!(
        "printf here >/proc/self/fd/{number}; ls /proc/self/fd | tr '\\n' ' '"
    ));
    launch.inherited.push(fd);
    let (mut process, mut stdout, _) = Process::start(launch).await.unwrap();
    process.wait().await.unwrap();
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert_eq!(text, "here");
    let mut listed = String::new();
    stdout.read_to_string(&mut listed).unwrap();
    // `ls` itself holds one more, on the directory
    let count = listed.split_ascii_whitespace().count();
    assert_eq!(count, 5, "0, 1, 2, {number} and the directory: {listed}");
}

#[tokio::test]
async fn a_stray_is_killed_only_when_it_is_the_same_process() {
    let (mut process, ..) = Process::start(shell("sleep 1000")).await.unwrap();
    let other: ProcessId = format!("{} 1", process.id().pid()).parse().unwrap();
    assert!(!kill_stray(other).unwrap(), "another process of that number");
    assert!(process.id().is_alive());
    assert!(kill_stray(process.id()).unwrap());
    let started = Instant::now();
    process.wait().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(process);
}

/// Root's children can be somebody else, and still die with us: the signal is asked for afterwards.
#[tokio::test]
async fn a_child_of_root_can_be_another() {
    if !may_become(65534) {
        return;
    }
    let mut launch = shell("grep -E '^(Uid|Gid|Groups|NoNewPrivs):' /proc/self/status | tr -s '\\t ' ' '");
    launch.identity = Some(Identity {
        uid: 65534,
        gid: 65533,
        groups: vec![7, 8],
    });
    let (mut process, mut stdout, _) = Process::start(launch).await.unwrap();
    process.wait().await.unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "Uid: 65534 65534 65534 65534",
            "Gid: 65533 65533 65533 65533",
            "Groups: 7 8",
            "NoNewPrivs: 1"
        ]
    );
}
