use std::process::{Command, Stdio};

use super::*;

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_directory_is_private_and_goes_with_its_owner() {
    let root = tempfile::tempdir().unwrap();
    let dir = RuntimeDir::create(root.path()).unwrap();
    let mode = fs::metadata(dir.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    fs::write(dir.path().join("file"), "x").unwrap();
    drop(dir);
    assert!(names(root.path()).is_empty());
}

#[test]
fn what_is_in_use_or_not_ours_stays() {
    let root = tempfile::tempdir().unwrap();
    let dir = RuntimeDir::create(root.path()).unwrap();
    fs::create_dir(root.path().join("other")).unwrap();
    fs::create_dir(root.path().join(".new-young")).unwrap();
    std::os::unix::fs::symlink("/etc", root.path().join("vm-link")).unwrap();
    assert_eq!(cleanup_stale(root.path()).unwrap(), Cleanup::default());
    assert!(dir.path().join(LOCK).exists());
    assert_eq!(names(root.path()).len(), 4);
}

#[test]
fn a_root_that_others_can_change_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = RuntimeDir::create(root.path());
    assert!(
        matches!(refused, Err(RuntimeDirError::Unsafe { .. })),
        "{refused:?}"
    );
    assert!(names(root.path()).is_empty());
}

#[test]
fn a_missing_root_is_clean() {
    let root = tempfile::tempdir().unwrap();
    let done = cleanup_stale(&root.path().join("none")).unwrap();
    assert_eq!(done, Cleanup::default());
}

/// Keeps a directory until killed; started by the test below as another process of this same binary.
#[test]
fn owner_process() {
    let Ok(root) = std::env::var("IGLOO_TEST_RUNTIME_ROOT") else {
        return;
    };
    let dir = RuntimeDir::create(Path::new(&root)).unwrap();
    let mut machine = Command::new("sleep").arg("1000").spawn().unwrap();
    dir.record(ProcessId::of(machine.id()).unwrap()).unwrap();
    fs::write(Path::new(&root).join("ready"), machine.id().to_string()).unwrap();
    machine.wait().unwrap();
}

#[test]
fn what_a_killed_process_left_is_removed_and_its_machine_killed() {
    let root = tempfile::tempdir().unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runtime_dir::tests::owner_process", "--nocapture"])
        .env("IGLOO_TEST_RUNTIME_ROOT", root.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready = root.path().join("ready");
    let pid: u32 = loop {
        match fs::read_to_string(&ready).map(|text| text.parse()) {
            Ok(Ok(pid)) => break pid,
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let machine = ProcessId::of(pid).unwrap();
    assert_eq!(cleanup_stale(root.path()).unwrap(), Cleanup::default());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let done = cleanup_stale(root.path()).unwrap();
    assert_eq!(
        done,
        Cleanup {
            directories: 1,
            processes: 1
        }
    );
    assert_eq!(names(root.path()), ["ready"]);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    // whoever inherits orphans reaps it; until then it is a zombie, which runs nothing
    while machine.is_alive() && !is_zombie(pid) {
        assert!(std::time::Instant::now() < deadline, "the machine survived");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}
