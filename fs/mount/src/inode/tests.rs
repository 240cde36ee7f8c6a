use std::collections::{BTreeMap, HashMap, HashSet};

use igloo_castore::SymlinkTarget;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn file(content: u8, executable: bool) -> Node {
    Node::File {
        digest: BlobDigest::of(&[content]),
        size: 1,
        executable,
    }
}

fn directory(content: u8) -> Node {
    Node::Directory {
        digest: DirectoryDigest::of(&[content]),
        size: 0,
    }
}

fn symlink(target: u8) -> Node {
    Node::Symlink {
        target: SymlinkTarget::try_from(&[target + 1][..]).unwrap(),
    }
}

#[test]
fn content_decides_for_files_and_place_for_directories() {
    let table = InodeTable::new(100);
    let number = |parent, position, node: &Node| table.acquire(parent, position, node).unwrap();
    let plain = number(ROOT, 1, &file(1, false));
    assert_eq!(number(Ino(50), 9, &file(1, false)), plain);
    assert_ne!(number(ROOT, 1, &file(1, true)), plain);
    assert_ne!(number(ROOT, 1, &file(2, false)), plain);
    let here = number(ROOT, 2, &directory(1));
    assert_eq!(number(ROOT, 2, &directory(1)), here);
    assert_ne!(number(ROOT, 3, &directory(1)), here);
    assert_ne!(number(here, 2, &directory(1)), here);
    assert_ne!(
        number(ROOT, 2, &directory(2)),
        here,
        "a name that stands for something else now"
    );
    assert_eq!(number(ROOT, 5, &symlink(1)), number(here, 6, &symlink(1)));
}

/// Two directories may claim different sizes for one blob; one of them lies, and the other must not suffer.
#[test]
fn a_wrong_size_is_another_file() {
    let table = InodeTable::new(100);
    let (digest, executable) = (BlobDigest::of(b"x"), false);
    let of_size = |size| {
        table.acquire(
            ROOT,
            1,
            &Node::File {
                digest,
                size,
                executable,
            },
        )
    };
    assert_ne!(of_size(1), of_size(2));
}

#[test]
fn the_bound_is_kept_and_the_root_stays() {
    let table = InodeTable::new(2);
    let first = table.acquire(ROOT, 1, &file(1, false)).unwrap();
    table.acquire(ROOT, 1, &file(2, false)).unwrap();
    let refused = table.acquire(ROOT, 1, &file(3, false)).unwrap_err();
    assert_eq!(refused, AcquireInodeError::Full { count_max: 2 });
    assert_eq!(
        table.acquire(ROOT, 1, &file(1, false)),
        Ok(first),
        "what is known needs no room"
    );
    table.forget(first.number(), u64::MAX);
    assert!(table.acquire(ROOT, 1, &file(3, false)).is_ok());
    table.forget(ROOT.number(), u64::MAX);
    assert!(matches!(table.get(ROOT.number()).as_deref(), Some(Inode::Root)));
    for number in [0, 2, u64::MAX] {
        assert!(table.get(number).is_none());
    }
}

#[derive(Clone, Debug)]
enum Op {
    Acquire {
        parent: usize,
        position: u64,
        node: Node,
    },
    Forget {
        which: usize,
        lookups: u64,
    },
    Stray {
        number: u64,
    },
    Clear,
}

fn any_op() -> impl Strategy<Value = Op> {
    let node = prop_oneof![
        (0..4u8, any::<bool>()).prop_map(|(content, executable)| file(content, executable)),
        (0..3u8).prop_map(directory),
        (0..3u8).prop_map(symlink),
    ];
    prop_oneof![
        8 => (any::<usize>(), 0..3u64, node)
            .prop_map(|(parent, position, node)| Op::Acquire { parent, position, node }),
        6 => (any::<usize>(), 0..4u64).prop_map(|(which, lookups)| Op::Forget { which, lookups }),
        1 => any::<u64>().prop_map(|number| Op::Stray { number }),
        1 => Just(Op::Clear),
    ]
}

/// The same with plain maps: what a number stands for, as a text, and how often it was looked up.
#[derive(Default)]
struct Model {
    known: BTreeMap<u64, (String, u64)>,
    ever: HashSet<u64>,
}

impl Model {
    fn name(parent: u64, position: u64, node: &Node) -> String {
        match node {
            Node::Directory { .. } => format!("{node:?} at {position} of {parent}"),
            Node::File { .. } | Node::Symlink { .. } => format!("{node:?}"),
        }
    }

    fn pick(&self, index: usize) -> u64 {
        let numbers: Vec<u64> = std::iter::once(ROOT.number())
            .chain(self.known.keys().copied())
            .collect();
        numbers[index % numbers.len()]
    }
}

fn run_both(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let table = InodeTable::new(12);
    let mut model = Model::default();
    for op in ops {
        match op {
            Op::Acquire {
                parent,
                position,
                node,
            } => {
                let parent = model.pick(parent);
                let name = Model::name(parent, position, &node);
                let known = model
                    .known
                    .iter()
                    .find(|(_, (of, _))| *of == name)
                    .map(|(number, _)| *number);
                match table.acquire(Ino(parent), position, &node) {
                    Ok(number) => {
                        let number = number.number();
                        match known {
                            Some(known) => prop_assert_eq!(number, known),
                            None => prop_assert!(model.ever.insert(number), "{} was used before", number),
                        }
                        model.known.entry(number).or_insert((name, 0)).1 += 1;
                    }
                    Err(AcquireInodeError::Full { .. }) => {
                        prop_assert!(known.is_none() && model.known.len() == 12);
                    }
                }
            }
            Op::Forget { which, lookups } => {
                let number = model.pick(which);
                table.forget(number, lookups);
                if let Some((_, count)) = model.known.get_mut(&number) {
                    *count = count.saturating_sub(lookups);
                    if *count == 0 {
                        model.known.remove(&number);
                    }
                }
            }
            Op::Stray { number } => {
                if !model.known.contains_key(&number) {
                    table.forget(number, 1);
                }
            }
            Op::Clear => {
                table.clear();
                model.known.clear();
            }
        }
        prop_assert_eq!(table.count(), model.known.len());
        for number in 1..30 {
            let here = table.get(number).is_some();
            prop_assert_eq!(here, number == 1 || model.known.contains_key(&number));
        }
    }
    let numbers: HashMap<_, _> = lock(&table.table).numbers.clone();
    prop_assert_eq!(numbers.len(), model.known.len(), "no key outlives its number");
    Ok(())
}

proptest! {
    /// The table and plain maps agree on every sequence of lookups and forgets, and no number is used twice.
    #[test]
    fn table_agrees_with_model(ops in vec(any_op(), 1..200)) { run_both(ops)?; }
}
