//! Sequences of FUSE requests from a hostile guest: `cargo +nightly fuzz run requests` in `fs/mount/fuzz`.
//!
//! Input: records of one byte that says how to treat the record, two bytes of length, and that many bytes of request. An
//! even first byte mends the header's length, so that most inputs get past the first check; half the room is given for
//! every third.

#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use igloo_castore::{Castore, Directory, Node, NodeName, SymlinkTarget, memory};
use igloo_mount::server::REPLY_SIZE_MAX;
use igloo_mount::{CastoreFs, FsServer, MapRoots};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime")
});

static CLOSURE: LazyLock<(Castore, MapRoots)> = LazyLock::new(|| {
    let castore = memory::castore("fuzz");
    let roots = RUNTIME.block_on(closure(&castore));
    (castore, roots)
});

fuzz_target!(|input: &[u8]| {
    let (castore, roots) = &*CLOSURE;
    let roots = Arc::new(roots.clone());
    let fs = CastoreFs::of_store(roots, castore.clone(), RUNTIME.handle().clone());
    let server = FsServer::new(Arc::new(fs)).expect("/dev/null");
    let mut reply = vec![0; REPLY_SIZE_MAX];
    let mut rest = input;
    while let Some((head, after)) = rest.split_first_chunk::<3>() {
        let size = usize::from(u16::from_le_bytes([head[1], head[2]])).min(after.len());
        let (record, after) = after.split_at(size);
        rest = after;
        let mut request = record.to_vec();
        if head[0] % 2 == 0
            && let Some(length) = request.get_mut(..4)
        {
            length.copy_from_slice(&u32::try_from(size).expect("two bytes").to_le_bytes());
        }
        let room = if head[0] % 3 == 0 { 4096 } else { reply.len() };
        let written = server.serve_buffer(&mut request, &mut reply[..room]);
        assert!(written <= room);
        assert!(written == 0 || reply[..4] == u32::try_from(written).expect("small").to_le_bytes());
    }
});

async fn closure(castore: &Castore) -> MapRoots {
    let name = |text: &str| NodeName::try_from(text).expect("a name");
    let mut writer = castore.blobs.writer().await.expect("memory");
    writer.write(bytes::Bytes::from(vec![7; 300_000])).await.expect("memory");
    let (digest, size) = writer.finish().await.expect("memory");
    let file = |executable| Node::File { digest, size, executable };
    let target = SymlinkTarget::try_from(&b"../a"[..]).expect("a target");
    let inner = Directory::from_entries(vec![(name("a"), file(false)), (name("b"), file(true))]).expect("sorted");
    let node = inner.node();
    let outer = Directory::from_entries(vec![(name("d"), node.clone()), (name("l"), Node::Symlink { target })]);
    let outer = outer.expect("sorted");
    let top = outer.node();
    castore.directories.put(vec![inner, outer]).await.expect("memory");
    let roots: BTreeMap<NodeName, Node> = [(name("a"), file(false)), (name("d"), top), (name("e"), node)].into();
    MapRoots::new(roots)
}
