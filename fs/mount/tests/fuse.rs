//! The file system mounted for real on `/dev/fuse`. Needs root; says so loudly where it cannot run.

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

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::{Item, TestStore, can_mount, dir, file, link, name_of, noise, program};
use igloo_castore::{Node, NodeName};
use igloo_mount::roots::{RootEntry, RootsError, Stability};
use igloo_mount::{MapRoots, Roots, SwapRoots, Totals, Tree};
use mounted::{mounted, mounted_roots};

/// Compares what is seen at `path` with `item`; returns how many entries there were.
fn check(path: &Path, item: &Item) -> usize {
    let metadata = fs::symlink_metadata(path).unwrap();
    assert_eq!(
        (metadata.mtime(), metadata.uid(), metadata.gid()),
        (1, 0, 0),
        "{path:?}"
    );
    assert_eq!(metadata.nlink(), 1, "{path:?}");
    match item {
        Item::File { content, executable } => {
            assert_eq!(
                metadata.mode(),
                if *executable { 0o100_555 } else { 0o100_444 },
                "{path:?}"
            );
            assert_eq!(metadata.len(), content.len() as u64, "{path:?}");
            assert_eq!(metadata.blocks(), metadata.len().div_ceil(512), "{path:?}");
            assert!(fs::read(path).unwrap() == *content, "content of {path:?}");
            1
        }
        Item::Link(target) => {
            assert!(metadata.is_symlink());
            assert_eq!(metadata.len(), target.len() as u64);
            assert_eq!(fs::read_link(path).unwrap().as_os_str().as_bytes(), target);
            1
        }
        Item::Dir(items) => {
            assert_eq!(metadata.mode(), 0o40_555, "{path:?}");
            let entries = fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = entries.map(|name| name.as_bytes().to_vec()).collect();
            names.sort();
            assert_eq!(
                names,
                items.keys().cloned().collect::<Vec<_>>(),
                "names in {path:?}"
            );
            let children = items
                .iter()
                .map(|(name, item)| check(&path.join(OsStr::from_bytes(name)), item));
            children.sum::<usize>() + 1
        }
    }
}

/// A few thousand files, with all that file names and contents can be.
fn large_tree() -> Item {
    let many = |prefix: &str, count: usize| {
        dir((0..count).map(|i| {
            let seed = i as u64 * 31 + prefix.len() as u64;
            (format!("{prefix}{i}"), file(noise(seed, 100 + i * 7 % 5000)))
        }))
    };
    let odd: Vec<(Vec<u8>, Item)> = [
        &b" blank "[..],
        b"new\nline",
        b"tab\t",
        b"-rf",
        b"...",
        b"\\back\\slash",
        b"\xff\xfe not text",
        b"\x01\x7f",
        "\u{1f9ca} \u{e9}".as_bytes(),
        b"*?[a]",
        &[b'n'; 255],
    ]
    .into_iter()
    .map(|name| (name.to_vec(), file(name)))
    .collect();
    let deep = (0..60).fold(dir([("bottom", file("deep"))]), |inner, _| dir([("d", inner)]));
    dir([
        ("flat", many("f", 2000)),
        (
            "nested",
            dir((0..20).map(|i| (format!("{i}"), many(&format!("x{i}-"), 60)))),
        ),
        ("odd names", dir(odd)),
        ("deep", deep),
        ("empty", dir::<&str>([])),
        ("empty file", file("")),
        ("plain", file("same bytes")),
        ("executable", program("same bytes")),
        ("cut", file(noise(5, 900_000))),
        (
            "links",
            dir([
                ("relative", link("../plain")),
                ("absolute", link("/nix/store/x")),
                ("dangling", link("no such")),
            ]),
        ),
    ])
}

#[test]
fn a_tree_is_shown_as_it_is() {
    let test = "a_tree_is_shown_as_it_is";
    if !can_mount(test) {
        return;
    }
    let tree = large_tree();
    let mounted = mounted(test, &tree);
    assert!(check(mounted.mount.dir(), &tree) > 3300);
    assert_eq!(fs::read(mounted.path("links/relative")).unwrap(), b"same bytes");
    let missing = fs::metadata(mounted.path("no such")).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    let name = "n".repeat(256);
    assert_eq!(
        fs::metadata(mounted.path(name)).unwrap_err().raw_os_error(),
        Some(libc::ENAMETOOLONG)
    );

    let vfs = rustix::fs::statvfs(mounted.mount.dir()).unwrap();
    assert_eq!((vfs.f_bsize, vfs.f_namemax, vfs.f_bfree), (4096, 255, 0));
    assert!(vfs.f_blocks > 0);
    let mut value = [0u8; 64];
    let error = rustix::fs::getxattr(mounted.path("plain"), "user.x", &mut value).unwrap_err();
    assert_eq!(error, rustix::io::Errno::OPNOTSUPP);

    // what was read against what is there, as the demonstration prints it
    let digest = mounted.store.put(&tree);
    let reader = Tree::new(mounted.store.castore.clone(), 1 << 20);
    let totals = mounted
        .store
        .runtime
        .block_on(Totals::of(&reader, [&digest]))
        .unwrap();
    let counts = mounted.mount.fs().counters().snapshot();
    // the empty file has nothing to read
    assert_eq!(counts.files_read + 1, totals.files, "{totals}; {counts}");
    assert!(counts.bytes_read >= totals.bytes, "{}", totals.against(&counts));
    assert_eq!(counts.errors, 0);
}

#[test]
fn programs_run_and_nothing_can_be_written() {
    let test = "programs_run_and_nothing_can_be_written";
    if !can_mount(test) {
        return;
    }
    let shell = fs::read("/bin/sh").unwrap();
    let script = "#!/bin/sh\necho from a script\n";
    let tree = dir([
        ("sh", program(shell.clone())),
        ("script", program(script)),
        ("not executable", file(shell)),
    ]);
    let mounted = mounted(test, &tree);
    let output = std::process::Command::new(mounted.path("sh"))
        .args(["-c", "echo hello"])
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"hello\n");
    let output = std::process::Command::new(mounted.path("script"))
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"from a script\n");
    let refused = std::process::Command::new(mounted.path("not executable"))
        .output()
        .unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EACCES));

    let read_only =
        |result: std::io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EROFS));
    read_only(fs::write(mounted.path("new"), b""));
    read_only(fs::create_dir(mounted.path("new")));
    read_only(fs::remove_file(mounted.path("sh")));
    read_only(fs::rename(mounted.path("sh"), mounted.path("zsh")));
    read_only(fs::set_permissions(
        mounted.path("sh"),
        fs::Permissions::from_mode(0o777),
    ));
    read_only(std::os::unix::fs::symlink("a", mounted.path("b")));
}

#[test]
fn equal_files_are_one_inode_unless_one_is_executable() {
    let test = "equal_files_are_one_inode_unless_one_is_executable";
    if !can_mount(test) {
        return;
    }
    let tree = dir([
        (
            "a",
            dir([("plain", file("bytes")), ("program", program("bytes"))]),
        ),
        (
            "b",
            dir([
                ("plain again", file("bytes")),
                ("program again", program("bytes")),
                ("other", file("more")),
            ]),
        ),
    ]);
    let mounted = mounted(test, &tree);
    let ino = |path: &str| fs::metadata(mounted.path(path)).unwrap().ino();
    let mode = |path: &str| fs::metadata(mounted.path(path)).unwrap().mode() & 0o777;
    assert_eq!(ino("a/plain"), ino("b/plain again"));
    assert_eq!(ino("a/program"), ino("b/program again"));
    assert_ne!(ino("a/plain"), ino("a/program"));
    assert_ne!(ino("a/plain"), ino("b/other"));
    assert_eq!((mode("a/plain"), mode("a/program")), (0o444, 0o555));
    // one copy in the page cache: reading the second name asks for nothing
    assert_eq!(fs::read(mounted.path("a/plain")).unwrap(), b"bytes");
    let reads = mounted.requests("read");
    assert_eq!(fs::read(mounted.path("b/plain again")).unwrap(), b"bytes");
    assert_eq!(mounted.requests("read"), reads);
}

/// Linux has one name for a directory inode: were equal directories one inode, looking one up would move the other.
#[test]
fn equal_directories_keep_their_places() {
    let test = "equal_directories_keep_their_places";
    if !can_mount(test) {
        return;
    }
    let same = dir([("inner", dir([("file", file("x"))]))]);
    let tree = dir([("one", same.clone()), ("two", same.clone())]);
    let mounted = mounted(test, &tree);
    let inside = fs::File::open(mounted.path("one/inner")).unwrap();
    assert!(fs::metadata(mounted.path("two/inner/file")).is_ok());
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&inside));
    assert_eq!(fs::read_link(link).unwrap(), mounted.path("one/inner"));

    let root = mounted.mount.dir();
    std::thread::scope(|scope| {
        let walkers = ["one", "two", "one", "two"].map(|name| {
            let same = &same;
            scope.spawn(move || (0..50).map(|_| check(&root.join(name), same)).sum::<usize>())
        });
        for walker in walkers {
            assert_eq!(walker.join().unwrap(), 50 * 3);
        }
    });
}

#[test]
fn a_big_file_reads_right_at_random_and_in_parallel() {
    let test = "a_big_file_reads_right_at_random_and_in_parallel";
    if !can_mount(test) {
        return;
    }
    let size = 110 << 20;
    let content = noise(77, size);
    let tree = dir([("big", file(content.clone()))]);
    let mounted = mounted(test, &tree);
    let path = mounted.path("big");
    std::thread::scope(|scope| {
        for seed in 0..6u64 {
            let (path, content) = (&path, &content);
            scope.spawn(move || {
                let file = fs::File::open(path).unwrap();
                let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                for _ in 0..200 {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let offset = (state >> 20) as usize % (size + 5000);
                    let len = (state >> 50) as usize * 16;
                    let mut buffer = vec![0; len];
                    let mut got = 0;
                    while got < len {
                        match file.read_at(&mut buffer[got..], (offset + got) as u64).unwrap() {
                            0 => break,
                            n => got += n,
                        }
                    }
                    let expected = content.get(offset..(offset + len).min(size)).unwrap_or_default();
                    assert!(buffer[..got] == *expected, "seed {seed}: {len} bytes at {offset}");
                }
            });
        }
    });
    let mut file = fs::File::open(&path).unwrap();
    file.seek(SeekFrom::Start(size as u64 - 3)).unwrap();
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, content[size - 3..]);
    assert!(fs::read(&path).unwrap() == content);
    assert_eq!(mounted.mount.fs().counters().snapshot().files_read, 1);
}

#[test]
fn lost_and_damaged_chunks_are_errors_for_their_readers_only() {
    let test = "lost_and_damaged_chunks_are_errors_for_their_readers_only";
    if !can_mount(test) {
        return;
    }
    let contents: [Vec<u8>; 4] = std::array::from_fn(|seed| noise(seed as u64, 1_000_000));
    let names = ["missing", "corrupt", "explosive", "sound"];
    let tree = dir(names
        .iter()
        .zip(&contents)
        .map(|(name, content)| (name, file(content.clone()))));
    let mounted = mounted(test, &tree);
    let last_chunk = |index: usize| {
        let digest = igloo_castore::BlobDigest::of(&contents[index]);
        *mounted.store.chunks(&digest).last().unwrap()
    };
    let faults = &mounted.store.faults;
    faults.missing.lock().unwrap().insert(last_chunk(0));
    faults.corrupt.lock().unwrap().insert(last_chunk(1));
    faults.explosive.lock().unwrap().insert(last_chunk(2));
    for (name, content) in names.iter().zip(&contents).take(3) {
        let file = fs::File::open(mounted.path(name)).unwrap();
        let mut start = vec![0; 4096];
        file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(start, content[..4096], "{name}: what is there can be read");
        let error = file
            .read_exact_at(&mut start, content.len() as u64 - 4096)
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}");
        assert_eq!(
            fs::read(mounted.path(name)).unwrap_err().raw_os_error(),
            Some(libc::EIO),
            "{name}"
        );
    }
    assert!(fs::read(mounted.path("sound")).unwrap() == contents[3]);
    // nothing wrong is remembered: when the store has it again, so have its readers
    faults.missing.lock().unwrap().clear();
    assert!(fs::read(mounted.path("missing")).unwrap() == contents[0]);
    assert!(mounted.mount.fs().counters().snapshot().errors >= 2);
}

/// A directory that lies about a file's size must not make the kernel fill in zeros.
#[test]
fn a_file_shorter_than_its_directory_says_is_an_error() {
    let test = "a_file_shorter_than_its_directory_says_is_an_error";
    if !can_mount(test) {
        return;
    }
    let store = TestStore::new();
    let (digest, size) = store.put_blob(b"short");
    let nodes = [("longer", size + 5000), ("shorter", 2), ("right", size)];
    let nodes = nodes.map(|(name, size)| {
        (
            name_of(name.as_bytes()),
            Node::File {
                digest,
                size,
                executable: false,
            },
        )
    });
    let mounted = mounted_roots(test, store, Arc::new(nodes.into_iter().collect::<MapRoots>()));
    assert_eq!(
        fs::read(mounted.path("longer")).unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    assert_eq!(fs::read(mounted.path("shorter")).unwrap(), b"sh");
    assert_eq!(fs::read(mounted.path("right")).unwrap(), b"short");
}

#[test]
fn a_second_walk_asks_for_nothing() {
    let test = "a_second_walk_asks_for_nothing";
    if !can_mount(test) {
        return;
    }
    let tree = large_tree();
    let mounted = mounted(test, &tree);
    let entries = check(mounted.mount.dir(), &tree) as u64;
    let cold = mounted.mount.fs().counters().snapshot();
    assert!(
        cold.requests("open") <= 1 && cold.requests("opendir") <= 1,
        "{cold}"
    );
    assert_eq!(
        cold.requests("release") + cold.requests("releasedir"),
        0,
        "{cold}"
    );
    assert!(
        cold.requests("lookup") < entries / 10,
        "listing brings attributes: {cold}"
    );
    assert!(cold.requests("getattr") <= 2, "{cold}");
    assert_eq!(check(mounted.mount.dir(), &tree) as u64, entries);
    let warm = mounted.mount.fs().counters().snapshot();
    assert_eq!(warm.requests_all, cold.requests_all, "cold: {cold}\nwarm: {warm}");
    // misses are remembered as well
    for _ in 0..3 {
        assert!(fs::metadata(mounted.path("flat/missing")).is_err());
    }
    assert_eq!(mounted.requests("lookup"), warm.requests("lookup") + 1);
}

#[test]
fn numbers_are_forgotten_when_the_kernel_drops_names() {
    let test = "numbers_are_forgotten_when_the_kernel_drops_names";
    if !can_mount(test) {
        return;
    }
    let tree = large_tree();
    let mounted = mounted(test, &tree);
    check(mounted.mount.dir(), &tree);
    let inodes = || mounted.mount.fs().view().inodes().count();
    assert!(inodes() > 2000);
    // remounting drops the names cached for this mount only (reconfigure_super, fs/super.c)
    let read_only = rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount_remount(mounted.mount.dir(), read_only, "").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while inodes() > 300 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(inodes() <= 300, "{} left", inodes());
    check(mounted.mount.dir(), &tree);
}

#[test]
fn a_closure_swapped_in_later_is_seen() {
    let test = "a_closure_swapped_in_later_is_seen";
    if !can_mount(test) {
        return;
    }
    let store = TestStore::new();
    let hello = dir([("bin", dir([("hello", program("#!"))]))]);
    let closure: MapRoots = [
        (name_of(b"hello"), store.put(&hello)),
        (name_of(b"note"), store.put(&file("x"))),
    ]
    .into_iter()
    .collect();
    let roots = SwapRoots::new();
    let mounted = mounted_roots(test, store, Arc::new(roots.clone()));
    // everything a guest might remember of the time before
    assert_eq!(fs::read_dir(mounted.mount.dir()).unwrap().count(), 0);
    assert!(fs::metadata(mounted.path("hello")).is_err());
    assert!(fs::metadata(mounted.mount.dir()).is_ok());
    roots.fill(closure.clone()).unwrap();
    assert!(roots.fill(closure).is_err());
    check(&mounted.path("hello"), &hello);
    let tree = dir([("hello", hello), ("note", file("x"))]);
    check(mounted.mount.dir(), &tree);
    let cold = mounted.mount.fs().counters().snapshot();
    check(mounted.mount.dir(), &tree);
    let warm = mounted.mount.fs().counters().snapshot();
    assert_eq!(cold.requests_all, warm.requests_all, "cold: {cold}\nwarm: {warm}");
}

/// A store that grows and cannot say when; it counts how often it is listed.
#[derive(Debug, Default)]
struct Growing {
    entries: Mutex<Vec<(NodeName, Node)>>,
    lists: AtomicU64,
}

#[async_trait]
impl Roots for Growing {
    async fn lookup(&self, name: &NodeName) -> Result<Option<RootEntry>, RootsError> {
        let entries = self.entries.lock().unwrap();
        let found = entries.iter().position(|(entry, _)| entry == name);
        Ok(found.map(|index| RootEntry {
            name: name.clone(),
            node: entries[index].1.clone(),
            cursor: index as u64 + 1,
        }))
    }

    async fn list(&self, after: u64, count_max: usize) -> Result<Vec<RootEntry>, RootsError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let entries = self.entries.lock().unwrap();
        let from = entries.iter().zip(1..).skip(after as usize).take(count_max);
        let entry = |((name, node), cursor): (&(NodeName, Node), u64)| RootEntry {
            name: name.clone(),
            node: node.clone(),
            cursor,
        };
        Ok(from.map(entry).collect())
    }

    fn stability(&self) -> Stability {
        Stability::Changing {
            version: 0,
            entry_ttl: Duration::from_secs(3600),
        }
    }
}

#[test]
fn a_store_that_grows_is_seen_to_grow() {
    let test = "a_store_that_grows_is_seen_to_grow";
    if !can_mount(test) {
        return;
    }
    let store = TestStore::new();
    let node = store.put(&file("x"));
    let roots = Arc::new(Growing::default());
    let add = |range: std::ops::Range<usize>| {
        let new = range.map(|i| (name_of(format!("path-{i:06}").as_bytes()), node.clone()));
        roots.entries.lock().unwrap().extend(new);
    };
    let count = 20_000;
    add(0..count);
    let mounted = mounted_roots(test, store, roots.clone());
    let listed = || fs::read_dir(mounted.mount.dir()).unwrap().count();
    assert_eq!(listed(), count);
    let lists = roots.lists.load(Ordering::Relaxed);
    assert!(
        lists <= 4,
        "a page serves many answers, but the store was listed {lists} times"
    );
    assert!(fs::metadata(mounted.path("path-020000")).is_err());
    add(count..count + 7);
    assert_eq!(listed(), count + 7);
    assert_eq!(
        fs::read(mounted.path("path-020000")).unwrap(),
        b"x",
        "a miss is not kept"
    );
    add(count + 7..count + 8);
    assert_eq!(listed(), count + 8);
}

#[test]
fn a_map_of_roots_is_listed_whole() {
    let test = "a_map_of_roots_is_listed_whole";
    if !can_mount(test) {
        return;
    }
    let store = TestStore::new();
    let items: BTreeMap<Vec<u8>, Item> = (0..1500)
        .map(|i| (format!("{i:032}-package").into_bytes(), file(format!("{i}"))))
        .collect();
    let nodes: MapRoots = items
        .iter()
        .map(|(name, item)| (name_of(name), store.put(item)))
        .collect();
    let mounted = mounted_roots(test, store, Arc::new(nodes));
    check(mounted.mount.dir(), &Item::Dir(items));
}
