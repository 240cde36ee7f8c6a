use std::collections::HashSet;

use igloo_castore::{Directory, Node, NodeName, memory};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::roots::MapRoots;

/// A server of one file and one directory.
pub(crate) fn server() -> (Runtime, FsServer) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let castore = memory::castore("test");
    let file = runtime.block_on(async {
        let mut writer = castore.blobs.writer().await.unwrap();
        writer.write(bytes::Bytes::from_static(b"hello")).await.unwrap();
        let (digest, size) = writer.finish().await.unwrap();
        Node::File {
            digest,
            size,
            executable: false,
        }
    });
    let name = |text: &str| NodeName::try_from(text).unwrap();
    let directory =
        Directory::from_entries((0..40).map(|i| (name(&format!("f{i}")), file.clone())).collect());
    let directory = directory.unwrap();
    let node = directory.node();
    runtime
        .block_on(castore.directories.put(vec![directory]))
        .unwrap();
    let roots = MapRoots::from_iter([(name("file"), file), (name("dir"), node)]);
    let fs = CastoreFs::of_store(Arc::new(roots), castore, runtime.handle().clone());
    (runtime, FsServer::new(Arc::new(fs)).unwrap())
}

/// A request as the kernel writes it: header, then body.
pub(crate) fn request(opcode: u32, unique: u64, inode: u64, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(REQUEST_HEADER_SIZE + body.len()).unwrap();
    let mut bytes = Vec::new();
    bytes.extend(size.to_le_bytes());
    bytes.extend(opcode.to_le_bytes());
    bytes.extend(unique.to_le_bytes());
    bytes.extend(inode.to_le_bytes());
    bytes.extend([0; 16]);
    bytes.extend(body);
    bytes
}

fn ask(server: &FsServer, mut request: Vec<u8>) -> (i32, Vec<u8>) {
    let mut reply = vec![0xaa; REPLY_SIZE_MAX];
    let size = server.serve_buffer(&mut request, &mut reply);
    let header = OutHeader::from_slice(&reply[..REPLY_HEADER_SIZE]).unwrap();
    assert_eq!(usize::try_from(header.len).unwrap(), size);
    (header.error, reply[REPLY_HEADER_SIZE..size].to_vec())
}

#[test]
fn a_file_is_found_and_read() {
    let (_runtime, server) = server();
    let (error, entry) = ask(&server, request(1, 1, 1, b"file\0"));
    assert_eq!(error, 0);
    let inode = u64::from_le_bytes(entry[..8].try_into().unwrap());
    let mut body = [0; 40];
    body[16] = 64;
    assert_eq!(ask(&server, request(15, 2, inode, &body)), (0, b"hello".to_vec()));
    body[8] = 3;
    assert_eq!(ask(&server, request(15, 2, inode, &body)), (0, b"lo".to_vec()));
}

#[test]
fn what_changes_something_is_refused_and_what_is_unknown_too() {
    let (_runtime, server) = server();
    for opcode in CHANGES {
        assert_eq!(
            ask(&server, request(opcode, 1, 1, &[0; 128])),
            (-libc::EROFS, vec![]),
            "opcode {opcode}"
        );
    }
    let known: HashSet<u32> = SERVED.into_iter().chain(CHANGES).collect();
    for opcode in (0..70)
        .chain([4096, u32::MAX])
        .filter(|opcode| !known.contains(opcode))
    {
        assert_eq!(
            ask(&server, request(opcode, 1, 1, &[0; 128])),
            (-libc::ENOSYS, vec![]),
            "opcode {opcode}"
        );
    }
    let mut reply = [0; 64];
    for no_answer in [2, 42] {
        assert_eq!(
            server.serve_buffer(&mut request(no_answer, 1, 1, &[1; 8]), &mut reply),
            0
        );
    }
    let (error, _) = ask(&server, [request(3, 1, 1, &[0; 16]), vec![0]].concat());
    assert_eq!(error, -libc::EINVAL, "a header that lies about the size");
}

/// Readdirplus that runs out of room must not count lookups for what the kernel never got.
#[test]
fn entries_that_do_not_fit_are_not_counted() {
    let (_runtime, server) = server();
    let (_, entry) = ask(&server, request(1, 1, 1, b"dir\0"));
    let inode = u64::from_le_bytes(entry[..8].try_into().unwrap());
    let mut body = [0; 40];
    body[16..20].copy_from_slice(&800u32.to_le_bytes());
    let (error, entries) = ask(&server, request(44, 2, inode, &body));
    assert!(error == 0 && !entries.is_empty() && entries.len() <= 800);
    // entry (128) and name (24 + "f0" padded to 8) are 160 bytes; the dots have one each as well
    assert_eq!(entries.len(), 5 * 160);
    let counted = server.fs().view().inodes();
    assert_eq!(
        counted.count(),
        2,
        "the directory, and one file under all its names"
    );
    let file = u64::from_le_bytes(entries[2 * 160..2 * 160 + 8].try_into().unwrap());
    counted.forget(file, 2);
    assert_eq!(counted.count(), 2);
    counted.forget(file, 1);
    assert_eq!(
        counted.count(),
        1,
        "three entries were given, three lookups counted"
    );
}

proptest! {
    /// Any bytes get a well-formed answer or none; nothing panics, and the server goes on.
    #[test]
    fn any_bytes_are_survived(
        opcode in 0..64u32,
        inode in prop_oneof![0..6u64, any::<u64>()],
        body in prop::collection::vec(any::<u8>(), 0..200),
        flips in prop::collection::vec((0..80usize, any::<u8>()), 0..3),
        room in prop_oneof![0..200usize, Just(REPLY_SIZE_MAX)],
    ) {
        let (_runtime, server) = server();
        ask(&server, request(1, 1, 1, b"file\0"));
        ask(&server, request(1, 1, 1, b"dir\0"));
        let mut bytes = request(opcode, 7, inode, &body);
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let mut reply = vec![0; room];
        let size = server.serve_buffer(&mut bytes, &mut reply);
        prop_assert!(size <= room);
        if size > 0 {
            let header = OutHeader::from_slice(&reply[..REPLY_HEADER_SIZE]).unwrap();
            prop_assert_eq!(usize::try_from(header.len).unwrap(), size);
            prop_assert!((-4095..=0).contains(&header.error));
        }
        prop_assert_eq!(ask(&server, request(3, 9, 1, &[0; 16])).0, 0);
    }
}
