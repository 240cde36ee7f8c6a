use futures::executor::block_on;
use igloo_castore::{BlobDigest, Castore, DirectoryDigest, SymlinkTarget, memory};
use proptest::prelude::*;

use super::*;
use crate::roots::{MapRoots, SingleRoot};
use crate::tree::DIRECTORY_CACHE_BYTES;

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

fn file(size: u64) -> Node {
    Node::File {
        digest: BlobDigest::of(b"nowhere"),
        size,
        executable: false,
    }
}

fn view(castore: &Castore, roots: Arc<dyn Roots>) -> View {
    View::new(roots, Tree::new(castore.clone(), DIRECTORY_CACHE_BYTES), 1000)
}

fn put(castore: &Castore, entries: Vec<(NodeName, Node)>) -> DirectoryDigest {
    let directory = Directory::from_entries(entries).unwrap();
    let digest = directory.digest();
    block_on(castore.directories.put(vec![directory])).unwrap();
    digest
}

proptest! {
    /// A listing may stop anywhere and go on from the cursor it got: every entry comes once, in order, the same at the top
    /// and in a directory below.
    #[test]
    fn a_listing_goes_on_where_it_stopped(
        mut names in prop::collection::vec("[a-c]{1,4}", 1..60),
        steps in prop::collection::vec(1..20usize, 60),
    ) {
        names.sort();
        names.dedup();
        let castore = memory::castore("test");
        let digest = put(&castore, names.iter().map(|text| (name(text), file(1))).collect());
        let below = Node::Directory { digest, size: 2 * names.len() as u64 };
        let outer = put(&castore, vec![(name("below"), below)]);
        let tops: [Arc<dyn Roots>; 2] = [
            Arc::new(SingleRoot::new(digest, castore.directories.clone())),
            Arc::new(SingleRoot::new(outer, castore.directories.clone())),
        ];
        for (index, roots) in tops.into_iter().enumerate() {
            let view = view(&castore, roots);
            let number = match index {
                0 => ROOT.number(),
                _ => block_on(view.lookup(ROOT.number(), b"below")).unwrap().unwrap().number.number(),
            };
            let (mut seen, mut after) = (Vec::new(), 0);
            for step in &steps {
                let listing = block_on(view.list(number, after)).unwrap();
                for (cursor, name, node) in listing.iter().take(*step) {
                    prop_assert!(cursor > after);
                    after = cursor;
                    let found = block_on(view.lookup(number, name.as_bytes())).unwrap().unwrap();
                    let listed = view.acquire(number, cursor, node).unwrap();
                    prop_assert_eq!(found.number, listed, "one place, one number");
                    seen.push(name.to_string());
                }
            }
            prop_assert_eq!(&seen, &names);
        }
    }

    /// No number, offset or size from a kernel does more than fail.
    #[test]
    fn numbers_from_outside_are_checked(number: u64, offset: u64, len: u32, name: Vec<u8>) {
        let castore = memory::castore("test");
        let view = view(&castore, Arc::new(MapRoots::from_iter([(self::name("a"), file(10))])));
        let known = block_on(view.lookup(1, b"a")).unwrap().unwrap().number.number();
        for number in [number, 0, 1, known] {
            let is_known = number == 1 || number == known;
            prop_assert_eq!(view.inode(number).is_ok(), is_known);
            let read = block_on(view.read(number, offset, len));
            prop_assert!(read.is_err() || (number == known && (len == 0 || offset >= 10)));
            prop_assert!(block_on(view.list(number, offset)).is_ok() == (number == 1));
            let found = block_on(view.lookup(number, &name));
            prop_assert!(found.is_err() || number == 1);
            prop_assert!(view.readlink(number).is_err());
        }
    }
}

#[test]
fn symlinks_and_parents() {
    let castore = memory::castore("test");
    let target = SymlinkTarget::try_from(&b"../there"[..]).unwrap();
    let inner = put(&castore, vec![(name("link"), Node::Symlink { target })]);
    let outer = Node::Directory {
        digest: inner,
        size: 2,
    };
    let view = view(&castore, Arc::new(MapRoots::from_iter([(name("d"), outer)])));
    let directory = block_on(view.lookup(1, b"d")).unwrap().unwrap().number.number();
    let link = block_on(view.lookup(directory, b"link"))
        .unwrap()
        .unwrap()
        .number
        .number();
    assert_eq!(view.readlink(link).unwrap(), b"../there");
    assert_eq!((view.parent(directory), view.parent(1)), (ROOT, ROOT));
    assert!(matches!(
        view.inode(99),
        Err(ViewError::UnknownInode { number: 99 })
    ));
}

#[test]
fn a_lost_directory_is_an_error_not_an_empty_one() {
    let castore = memory::castore("test");
    let lost = Node::Directory {
        digest: DirectoryDigest::of(b"lost"),
        size: 2,
    };
    let view = view(&castore, Arc::new(MapRoots::from_iter([(name("d"), lost)])));
    let number = block_on(view.lookup(1, b"d")).unwrap().unwrap().number.number();
    for error in [
        block_on(view.list(number, 0)).map(drop).unwrap_err(),
        block_on(view.lookup(number, b"x")).map(drop).unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(crate::errno::errno(error.code()), libc::EIO);
    }
}
