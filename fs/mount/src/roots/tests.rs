use futures::executor::block_on;
use igloo_castore::memory::MemoryDirectoryStore;
use igloo_castore::{BlobDigest, Directory};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

fn node(content: &str) -> Node {
    let size = content.len() as u64;
    Node::File {
        digest: BlobDigest::of(content.as_bytes()),
        size,
        executable: false,
    }
}

fn entries(names: &[String]) -> Vec<(NodeName, Node)> {
    names.iter().map(|text| (name(text), node(text))).collect()
}

/// Lists in pages of `page` entries, as an interrupted `ls` does.
fn list_all(roots: &dyn Roots, page: usize) -> Vec<(NodeName, Node)> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let part = block_on(roots.list(after, page)).unwrap();
        let Some(last) = part.last() else { return all };
        assert!(part.len() <= page);
        for entry in &part {
            assert!(entry.cursor > after && entry.cursor <= CURSOR_MAX);
            after = entry.cursor;
            let found = block_on(roots.lookup(&entry.name)).unwrap();
            assert_eq!(found.as_ref(), Some(entry), "look-ups and listings agree");
        }
        assert_eq!(last.cursor, after);
        all.extend(part.into_iter().map(|entry| (entry.name, entry.node)));
    }
}

proptest! {
    /// Every implementation lists every name once, in order, whatever the page size, and finds each by name.
    #[test]
    fn listings_are_whole(mut names in prop::collection::vec("[a-z]{1,3}", 0..40), page in 1..9usize) {
        names.sort();
        names.dedup();
        let expected = entries(&names);
        let map: MapRoots = expected.iter().rev().cloned().collect();
        prop_assert_eq!(&list_all(&map, page), &expected);

        let store = MemoryDirectoryStore::default();
        let directory = Directory::from_entries(expected.clone()).unwrap();
        let digest = directory.digest();
        block_on(store.put(vec![directory])).unwrap();
        let single = SingleRoot::new(digest, Arc::new(store));
        prop_assert_eq!(&list_all(&single, page), &expected);

        let swap = SwapRoots::new();
        prop_assert_eq!(list_all(&swap, page), vec![]);
        swap.fill(map).unwrap();
        prop_assert_eq!(&list_all(&swap, page), &expected);
    }
}

#[test]
fn before_the_swap_nothing_may_be_kept() {
    let swap = SwapRoots::new();
    let changing = Stability::Changing {
        version: 0,
        entry_ttl: Duration::ZERO,
    };
    assert_eq!(swap.stability(), changing);
    assert_eq!(block_on(swap.lookup(&name("a"))).unwrap(), None);
    swap.fill(MapRoots::from_iter([(name("a"), node("a"))])).unwrap();
    assert_eq!(swap.stability(), Stability::Fixed);
    assert!(block_on(swap.lookup(&name("a"))).unwrap().is_some());
    assert_eq!(swap.fill(MapRoots::default()), Err(FillRootsError::AlreadyFilled));
}

#[test]
fn a_lost_directory_says_so() {
    let single = SingleRoot::new(
        DirectoryDigest::of(b"lost"),
        Arc::new(MemoryDirectoryStore::default()),
    );
    let error = block_on(single.list(0, 1)).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}
