use std::io::Write;

use igloo_castore::memory;
use igloo_store::nar::nar_digest;
use proptest::prelude::*;

use super::*;

struct World {
    tokio: tokio::runtime::Runtime,
    castore: Castore,
    limits: FetchLimits,
}

impl World {
    fn new() -> Self {
        Self {
            tokio: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .build()
                .unwrap(),
            castore: memory::castore("test"),
            limits: FetchLimits::default(),
        }
    }

    fn unpack(&self, mut bytes: &[u8]) -> Result<Node, UnpackError> {
        let runtime = Runtime {
            handle: self.tokio.handle().clone(),
            stop: None,
        };
        unpack(&self.castore, &runtime, &self.limits, &mut bytes).map(|(node, _)| node)
    }

    /// The paths and kinds in a tree: `d`, `f`, `x` (executable) or `l`.
    fn list(&self, node: &Node) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![(String::new(), node.clone())];
        while let Some((path, node)) = open.pop() {
            match node {
                Node::Directory { digest, .. } => {
                    found.push(format!("d {path}"));
                    let directory = self.tokio.block_on(self.castore.directories.get(&digest));
                    for (name, node) in directory.unwrap().unwrap().entries() {
                        open.push((format!("{path}/{name}"), node.clone()));
                    }
                }
                Node::File { executable: true, .. } => found.push(format!("x {path}")),
                Node::File { .. } => found.push(format!("f {path}")),
                Node::Symlink { target } => found.push(format!("l {path} {target}")),
            }
        }
        found.sort();
        found
    }
}

enum Item<'a> {
    File(&'a str, &'a [u8]),
    Directory(&'a str),
    Symlink(&'a str, &'a str),
    HardLink(&'a str, &'a str),
    Fifo(&'a str),
}

/// An archive of these, whatever a decent archiver would say of their names.
fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let (kind, name, link, data): (_, _, &str, &[u8]) = match item {
            Item::File(name, data) => (tar::EntryType::Regular, name, "", data),
            Item::Directory(name) => (tar::EntryType::Directory, name, "", b""),
            Item::Symlink(name, target) => (tar::EntryType::Symlink, name, target, b""),
            Item::HardLink(name, target) => (tar::EntryType::Link, name, target, b""),
            Item::Fifo(name) => (tar::EntryType::Fifo, name, "", b""),
        };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(5);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn sample() -> Vec<u8> {
    archive(&[
        Item::File("top/z", b"last"),
        Item::File("top/a/b/c", &vec![1; 200_000]),
        Item::Symlink("top/link", "/etc/passwd"),
        Item::HardLink("top/twin", "top/z"),
        Item::Directory("top/empty"),
    ])
}

#[test]
fn a_lone_directory_is_the_tree() {
    let world = World::new();
    let node = world.unpack(&sample()).unwrap();
    let list = [
        "d ",
        "d /a",
        "d /a/b",
        "d /empty",
        "l /link /etc/passwd",
        "x /a/b/c",
        "x /twin",
        "x /z",
    ];
    assert_eq!(world.list(&node), list);
    world.tokio.block_on(nar_digest(&world.castore, &node)).unwrap();
    let two = world
        .unpack(&archive(&[Item::File("a/x", b""), Item::File("b", b"")]))
        .unwrap();
    assert_eq!(world.list(&two), ["d ", "d /a", "x /a/x", "x /b"]);
    let file = world.unpack(&archive(&[Item::File("only", b"")])).unwrap();
    assert_eq!(world.list(&file), ["d ", "x /only"]);
}

#[test]
fn every_compression_gives_the_same_tree() {
    let world = World::new();
    let plain = sample();
    let node = world.unpack(&plain).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    xz.write_all(&plain).unwrap();
    let zstd =
        ruzstd::encoding::compress_to_vec(plain.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    // two frames and a skippable one between them
    let (head, tail) = plain.split_at(100_000);
    let frame = |bytes| ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    let frames = [
        frame(head),
        b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(),
        frame(tail),
    ]
    .concat();
    let all = [
        ("gzip", gzip.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd),
        ("zstd frames", frames),
    ];
    for (name, bytes) in &all {
        assert_eq!(world.unpack(bytes).unwrap(), node, "{name}");
        // a stream cut short is noticed
        let cut = world.unpack(&bytes[..bytes.len() / 2]);
        assert!(matches!(cut, Err(UnpackError::Tar(_))), "{name}: {cut:?}");
    }
}

#[test]
fn what_is_refused() {
    let world = World::new();
    let error = |items: &[Item<'_>]| world.unpack(&archive(items)).unwrap_err();
    for path in ["../x", "a/../../x", "a/..", ".."] {
        assert!(
            matches!(error(&[Item::File(path, b"")]), UnpackError::Name { .. }),
            "{path}"
        );
    }
    for path in [".", "/", "./"] {
        assert!(
            matches!(error(&[Item::Symlink(path, "x")]), UnpackError::Root),
            "{path}"
        );
    }
    // the classic: a link out of the tree, and a file through it
    let through = [Item::Symlink("a", "/etc"), Item::File("a/passwd", b"")];
    assert!(matches!(error(&through), UnpackError::Below { .. }));
    let below_file = [Item::File("a", b""), Item::Directory("a/b")];
    assert!(matches!(error(&below_file), UnpackError::Below { .. }));
    let replaced = [Item::File("a/b", b""), Item::File("a", b"")];
    assert!(matches!(error(&replaced), UnpackError::Replaced { .. }));
    for target in ["missing", "/etc/passwd", "dir", "link", "dir/f/x"] {
        let items = [
            Item::File("dir/f", b""),
            Item::Symlink("link", "dir/f"),
            Item::HardLink("hard", target),
        ];
        assert!(matches!(error(&items), UnpackError::Link { .. }), "{target}");
    }
    assert!(matches!(
        error(&[Item::HardLink("x", "../x")]),
        UnpackError::Name { .. }
    ));
    assert!(matches!(error(&[Item::Fifo("p")]), UnpackError::Kind { .. }));
    assert!(matches!(
        error(&[Item::Symlink("l", "")]),
        UnpackError::Target { .. }
    ));
}

#[test]
fn a_slash_in_front_and_a_second_entry_are_harmless() {
    let world = World::new();
    let items = [
        Item::File("/abs/./f", b"first"),
        Item::Directory("abs/"),
        Item::File("abs//f", b"second"),
    ];
    let node = world.unpack(&archive(&items)).unwrap();
    let same = world.unpack(&archive(&[Item::File("abs/f", b"second")])).unwrap();
    assert_eq!(node, same);
}

#[test]
fn bounds_hold() {
    let mut world = World::new();
    world.limits.entries_max = 5;
    world.limits.depth_max = 3;
    world.limits.unpacked_bytes_max = 100_000;
    assert!(world.unpack(&archive(&[Item::File("a/b/c", b"")])).is_ok());
    let deep = world.unpack(&archive(&[Item::File("a/b/c/d", b"")]));
    assert!(matches!(deep, Err(UnpackError::TooDeep { .. })));
    let many: Vec<_> = ["a", "b", "c", "d", "e", "f"]
        .map(|name| Item::File(name, b""))
        .into();
    assert!(matches!(
        world.unpack(&archive(&many)),
        Err(UnpackError::TooMany { .. })
    ));
    assert!(world.unpack(&archive(&many[..5])).is_ok());
    // a bomb: a few KiB that decode to much
    let bomb = archive(&[Item::File("a", &vec![0; 10 << 20])]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&bomb).unwrap();
    let error = world.unpack(&gzip.finish().unwrap()).unwrap_err();
    assert!(
        crate::error::chain(&error).contains("more bytes than are allowed"),
        "{error:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Damaged streams are answered by every decoder: an error or a tree, never a panic.
    #[test]
    fn damage_is_answered(
        kind in 0..4usize,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let world = World::new();
        let plain = archive(&[Item::File("a/b", &[3; 5000]), Item::Symlink("a/l", "b")]);
        let mut bytes = match kind {
            0 => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(&plain).unwrap();
                gzip.finish().unwrap()
            }
            1 => {
                let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                bzip2.write_all(&plain).unwrap();
                bzip2.finish().unwrap()
            }
            2 => {
                let options = lzma_rust2::XzOptions::with_preset(0);
                let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
                xz.write_all(&plain).unwrap();
                xz.finish().unwrap()
            }
            _ => ruzstd::encoding::compress_to_vec(plain.as_slice(), ruzstd::encoding::CompressionLevel::Fastest),
        };
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _answer = world.unpack(&bytes);
    }
}
