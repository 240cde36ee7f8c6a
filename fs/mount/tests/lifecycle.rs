//! How mounts begin and end: errors, unmounting in use, killed servers. Needs root; says so loudly where it cannot run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    reason = "helpers of tests, which clippy does not take for tests"
)]

mod common;
#[path = "common/mounted.rs"]
mod mounted;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{TestStore, Watchdog, can_mount, dir, file, noise};
use igloo_mount::fuse::{MountError, UnmountError};
use igloo_mount::{CastoreFs, Mount, MountOptions, Unmount, cleanup_stale};
use mounted::{mounted, single};

#[test]
fn unmounting_while_busy() {
    let test = "unmounting_while_busy";
    if !can_mount(test) {
        return;
    }
    let content = noise(1, 3_000_000);
    let tree = dir([("file", file(content.clone()))]);
    let busy = mounted(test, &tree);
    let open = fs::File::open(busy.path("file")).unwrap();
    assert!(matches!(
        busy.mount.unmount(Unmount::IfIdle),
        Err(UnmountError::Busy { .. })
    ));
    busy.mount.unmount(Unmount::Lazy).unwrap();
    assert_eq!(
        fs::read_dir(busy.tmp.path()).unwrap().count(),
        0,
        "the directory is free"
    );
    let mut rest = vec![0; 4096];
    open.read_exact_at(&mut rest, 2_000_000).unwrap();
    assert_eq!(rest, content[2_000_000..2_004_096]);
    assert!(!busy.mount.ended());
    drop(open);
    assert!(busy.mount.wait(Duration::from_secs(10)), "the last user is gone");
    busy.mount.unmount(Unmount::IfIdle).unwrap();

    let forced = mounted(test, &tree);
    let open = fs::File::open(forced.path("file")).unwrap();
    forced.mount.unmount(Unmount::Force).unwrap();
    assert!(forced.mount.ended());
    assert!(open.read_exact_at(&mut rest, 2_000_000).is_err());

    let idle = mounted(test, &tree);
    idle.mount.unmount(Unmount::IfIdle).unwrap();
    assert!(idle.mount.ended());
}

/// A store that never answers must not make the mount unremovable.
#[test]
fn unmounting_while_the_store_hangs() {
    let test = "unmounting_while_the_store_hangs";
    if !can_mount(test) {
        return;
    }
    let mounted = mounted(test, &dir([("file", file(noise(9, 10_000)))]));
    mounted.store.faults.hang.store(true, Ordering::Relaxed);
    let path = mounted.path("file");
    let reader = std::thread::spawn(move || fs::read(path));
    while mounted.store.faults.gets.load(Ordering::Relaxed) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    mounted.mount.unmount(Unmount::Force).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(reader.join().unwrap().is_err());
    mounted.store.faults.hang.store(false, Ordering::Relaxed);
    assert!(mounted.mount.wait(Duration::from_secs(10)));
}

#[test]
fn errors_say_what_stands_in_the_way() {
    let test = "errors_say_what_stands_in_the_way";
    if !can_mount(test) {
        return;
    }
    let mounted = mounted(test, &dir([("x", file("x"))]));
    let shown = mounted.mount.fs().clone();
    let tmp = tempfile::tempdir().unwrap();
    let mount = |dir: &Path| Mount::new(dir, shown.clone(), &MountOptions::default()).unwrap_err();
    assert!(matches!(mount(mounted.tmp.path()), MountError::Mounted { .. }));
    assert!(matches!(
        mount(&tmp.path().join("no")),
        MountError::Missing { .. }
    ));
    fs::write(tmp.path().join("file"), "").unwrap();
    assert!(matches!(
        mount(&tmp.path().join("file")),
        MountError::NotDirectory { .. }
    ));
    assert!(matches!(mount(tmp.path()), MountError::NotEmpty { .. }));
    let over = MountOptions {
        over_content: true,
        ..MountOptions::default()
    };
    let over = Mount::new(tmp.path(), shown.clone(), &over).unwrap();
    assert_eq!(fs::read(tmp.path().join("x")).unwrap(), b"x");
    drop(over);
    assert!(tmp.path().join("file").exists());
    assert_eq!(
        cleanup_stale(mounted.tmp.path()).unwrap(),
        0,
        "what is served is left alone"
    );
    assert!(mounted.path("x").exists());
}

/// Not a test: the process that `a_killed_server_leaves_a_mount_that_can_be_cleaned` kills.
#[test]
#[ignore = "started by another test"]
fn serve_until_killed() {
    let Some(dir) = std::env::var_os("IGLOO_TEST_MOUNT_DIR") else {
        return;
    };
    let store = TestStore::new();
    let roots = single(&store, &common::dir([("alive", file("yes"))]));
    let fs = CastoreFs::of_store(roots, store.castore.clone(), store.runtime.handle().clone());
    let auto_unmount = std::env::var_os("IGLOO_TEST_AUTO_UNMOUNT").is_some();
    let options = MountOptions {
        auto_unmount,
        ..MountOptions::default()
    };
    let _mount = Mount::new(Path::new(&dir), Arc::new(fs), &options).unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

fn serve_in_a_child(dir: &Path, auto_unmount: bool) -> std::process::Child {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "serve_until_killed", "--ignored"])
        .env("IGLOO_TEST_MOUNT_DIR", dir);
    if auto_unmount {
        command.env("IGLOO_TEST_AUTO_UNMOUNT", "1");
    }
    let child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::read(dir.join("alive")).is_err() {
        assert!(Instant::now() < deadline, "the child has not mounted");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[test]
fn a_killed_server_leaves_a_mount_that_can_be_cleaned() {
    let test = "a_killed_server_leaves_a_mount_that_can_be_cleaned";
    if !can_mount(test) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let _watchdog = Watchdog::new(test, tmp.path(), Duration::from_secs(60));
    let mut child = serve_in_a_child(tmp.path(), false);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        fs::read_dir(tmp.path()).unwrap_err().raw_os_error(),
        Some(libc::ENOTCONN)
    );

    let store = TestStore::new();
    let roots = single(&store, &dir([("again", file("yes"))]));
    let castore = CastoreFs::of_store(roots, store.castore.clone(), store.runtime.handle().clone());
    let castore = Arc::new(castore);
    let refused = Mount::new(tmp.path(), castore.clone(), &MountOptions::default()).unwrap_err();
    assert!(matches!(refused, MountError::Stale { .. }), "{refused}");
    assert_eq!(cleanup_stale(tmp.path()).unwrap(), 1);
    assert_eq!(cleanup_stale(tmp.path()).unwrap(), 0);
    let mount = Mount::new(tmp.path(), castore, &MountOptions::default()).unwrap();
    assert_eq!(fs::read(mount.dir().join("again")).unwrap(), b"yes");
}

#[test]
fn auto_unmount_leaves_nothing_after_a_kill() {
    let test = "auto_unmount_leaves_nothing_after_a_kill";
    if !can_mount(test) {
        return;
    }
    if std::process::Command::new("fusermount3")
        .arg("-V")
        .output()
        .is_err()
    {
        return common::skip(test, "fusermount3 is not installed");
    }
    let tmp = tempfile::tempdir().unwrap();
    let _watchdog = Watchdog::new(test, tmp.path(), Duration::from_secs(60));
    let mut child = serve_in_a_child(tmp.path(), true);
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::read_dir(tmp.path()).map_or(true, |mut entries| entries.next().is_some()) {
        assert!(Instant::now() < deadline, "the helper has not unmounted");
        std::thread::sleep(Duration::from_millis(10));
    }
}
