//! `igloo mount` as a user sees it.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use igloo_integration::World;
use igloo_testkit::skip;
use igloo_testkit::tree::noise;

/// Checksums of all files, targets of all links, executable bits, in one text.
fn fingerprint(tree: &Path) -> String {
    let script = "find . -type f -print0 | sort -z | xargs -0 sha256sum; find . -type l -printf '%p -> %l\\n' | sort; \
                  find . -type f -perm -100 | sort";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(tree)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn sample_tree(path: &Path) {
    for folder in 0..20_u64 {
        let dir = path.join(format!("folder {folder}"));
        std::fs::create_dir_all(&dir).unwrap();
        for file in 0..50 {
            std::fs::write(dir.join(format!("file-{file}")), noise(500, folder * 50 + file)).unwrap();
        }
        std::os::unix::fs::symlink("../nowhere", dir.join("link")).unwrap();
    }
    // one content, two modes
    for (name, mode) in [("plain", 0o644), ("program", 0o755)] {
        std::fs::write(path.join(name), "the same bytes").unwrap();
        std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::fs::write(path.join("big"), noise(40 << 20, 99)).unwrap();
    std::fs::write(path.join("empty"), "").unwrap();
    std::fs::create_dir(path.join("nothing")).unwrap();
}

/// Promise: "Files read through the mount equal the files that were added, executable bits included".
#[test]
fn the_mount_shows_what_was_added() {
    let world = World::new();
    if !Path::new("/dev/fuse").exists() {
        return skip("there is no /dev/fuse");
    }
    let tree = world.path("tree");
    sample_tree(&tree);
    let stored = world.answer(&["store", "add", tree.to_str().unwrap()]);
    let dir = world.path("mount");
    std::fs::create_dir(&dir).unwrap();
    let mount = world.mount(&dir);
    let shown = dir.join(Path::new(&stored).file_name().unwrap());
    assert_eq!(fingerprint(&shown), fingerprint(&tree));
    let mode = |name: &str| std::fs::metadata(shown.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode("plain"), mode("program"), mode("nothing")),
        (0o444, 0o555, 0o555)
    );
    assert_eq!(
        std::fs::write(shown.join("new"), "x").unwrap_err().raw_os_error(),
        Some(30)
    ); // EROFS
    // another process can read the store meanwhile, and is told who has it when it wants to write
    assert_eq!(world.run(&["store", "list"]).code, Some(0));
    let refused = world.run(&["store", "add", tree.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("igloo mount"), "{}", refused.stderr);
    mount.stop();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

/// What cannot be mounted says why.
#[test]
fn a_mount_that_cannot_be_says_why() {
    let world = World::new();
    let missing = world.run(&["mount", "/no/such/folder"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("/no/such/folder"), "{}", missing.stderr);
    let file = world.path("file");
    std::fs::write(&file, "").unwrap();
    let no_folder = world.run(&["mount", file.to_str().unwrap()]);
    assert_eq!(no_folder.code, Some(1));
    assert!(no_folder.stderr.contains("file"), "{}", no_folder.stderr);
}
