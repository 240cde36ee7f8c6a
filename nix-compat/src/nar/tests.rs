use proptest::prelude::*;

use super::*;

type Entries = std::collections::BTreeMap<Vec<u8>, Tree>;

/// The tree an archive stands for; names sorted by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tree {
    File { data: Vec<u8>, executable: bool },
    Symlink { target: Vec<u8> },
    Directory { entries: Entries },
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(1u8..=255, 1..12),
        1 => prop::collection::vec(any::<u8>(), 255..=255),
    ]
    .prop_map(|mut name| {
        name.iter_mut()
            .filter(|byte| matches!(byte, b'/' | 0))
            .for_each(|byte| *byte = b'_');
        if name == b"." || name == b".." {
            b"x".to_vec()
        } else {
            name
        }
    })
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..40), any::<bool>())
            .prop_map(|(data, executable)| Tree::File { data, executable }),
        (8000usize..9000, any::<u8>()).prop_map(|(len, byte)| Tree::File {
            data: vec![byte; len],
            executable: false
        }),
        prop::collection::vec(1u8..=255, 1..40).prop_map(|target| Tree::Symlink { target }),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop::collection::btree_map(any_name(), inner, 0..6).prop_map(|entries| Tree::Directory { entries })
    })
}

fn write(nar: &mut NarWriter<Vec<u8>>, name: &[u8], tree: &Tree, piece: usize) {
    match tree {
        Tree::File { data, executable } => {
            nar.file(name, data.len() as u64, *executable).unwrap();
            data.chunks(piece).for_each(|piece| nar.data(piece).unwrap());
        }
        Tree::Symlink { target } => nar.symlink(name, target).unwrap(),
        Tree::Directory { entries } => {
            nar.directory(name).unwrap();
            entries
                .iter()
                .for_each(|(name, tree)| write(nar, name, tree, piece));
            nar.end_directory().unwrap();
        }
    }
}

fn to_nar(tree: &Tree, piece: usize) -> Vec<u8> {
    let mut nar = NarWriter::new(Vec::new());
    write(&mut nar, b"", tree, piece);
    let size = nar.size();
    let bytes = nar.finish().unwrap();
    assert_eq!(bytes.len() as u64, size);
    bytes
}

/// Builds the tree again from events.
#[derive(Default)]
struct Builder {
    open: Vec<(Vec<u8>, Entries)>,
    file: Option<(Vec<u8>, u64, bool, Vec<u8>)>,
    root: Option<Tree>,
}

impl Builder {
    fn put(&mut self, name: Vec<u8>, tree: Tree) {
        match self.open.last_mut() {
            Some((_, entries)) => assert!(entries.insert(name, tree).is_none()),
            None => assert!(name.is_empty() && self.root.replace(tree).is_none()),
        }
    }

    fn event(&mut self, event: NarEvent<'_>) {
        match event {
            NarEvent::Directory { name } => self.open.push((name.to_vec(), Default::default())),
            NarEvent::DirectoryEnd => {
                let (name, entries) = self.open.pop().unwrap();
                self.put(name, Tree::Directory { entries });
            }
            NarEvent::File {
                name,
                size,
                executable,
            } => {
                assert!(
                    self.file
                        .replace((name.to_vec(), size, executable, Vec::new()))
                        .is_none()
                );
            }
            NarEvent::Data(data) => {
                assert!(!data.is_empty());
                self.file.as_mut().unwrap().3.extend_from_slice(data);
            }
            NarEvent::FileEnd => {
                let (name, size, executable, data) = self.file.take().unwrap();
                assert_eq!(size, data.len() as u64);
                self.put(name, Tree::File { data, executable });
            }
            NarEvent::Symlink { name, target } => {
                self.put(
                    name.to_vec(),
                    Tree::Symlink {
                        target: target.to_vec(),
                    },
                );
            }
        }
    }
}

fn parse_pieces(nar: &[u8], piece: usize) -> Result<Tree, ParseNarError> {
    let mut parser = NarParser::new();
    let mut builder = Builder::default();
    for piece in nar.chunks(piece) {
        parser.feed::<ParseNarError>(piece, |event| {
            builder.event(event);
            Ok(())
        })?;
    }
    parser.finish()?;
    Ok(builder.root.unwrap())
}

fn node_size(tree: &Tree) -> u64 {
    match tree {
        Tree::File { data, executable } => size::file_node_size(data.len() as u64, *executable),
        Tree::Symlink { target } => size::symlink_node_size(target.len() as u64),
        Tree::Directory { entries } => size::directory_node_size(
            entries
                .iter()
                .map(|(name, tree)| (name.len() as u64, node_size(tree))),
        ),
    }
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn round_trips(tree in any_tree(), piece in 1usize..100) {
        let nar = to_nar(&tree, piece);
        prop_assert_eq!(size::nar_size(node_size(&tree)), Some(nar.len() as u64));
        for cut in [piece, 1, 7, usize::MAX] {
            prop_assert_eq!(parse_pieces(&nar, cut), Ok(tree.clone()));
        }
        let mut builder = Builder::default();
        let mut reader = NarReader::new(nar.as_slice());
        while let Some(event) = reader.next().unwrap() {
            builder.event(event);
        }
        prop_assert_eq!(builder.root.unwrap(), tree);
    }

    /// A changed byte is refused, or it gives another tree whose archive is the changed bytes. Cuts do not matter.
    #[test]
    fn accepted_is_canonical(tree in any_tree(), at: prop::sample::Index, bit in 0u8..8, piece in 1usize..64) {
        let mut nar = to_nar(&tree, 4096);
        let at = at.index(nar.len());
        nar[at] ^= 1 << bit;
        let whole = parse_pieces(&nar, usize::MAX);
        prop_assert_eq!(&parse_pieces(&nar, piece), &whole);
        if let Ok(other) = whole {
            prop_assert_ne!(&other, &tree);
            prop_assert_eq!(to_nar(&other, 4096), nar);
        }
    }

    #[test]
    fn truncated_is_refused(tree in any_tree(), at: prop::sample::Index) {
        let nar = to_nar(&tree, 4096);
        let cut = &nar[..at.index(nar.len())];
        let error = parse_pieces(cut, 9999).unwrap_err();
        prop_assert_eq!(error.reason, ParseNarReason::Truncated);
        prop_assert_eq!(error.offset, cut.len() as u64);
    }

    /// What follows an archive is left alone.
    #[test]
    fn takes_no_byte_too_many(tree in any_tree(), tail in prop::collection::vec(any::<u8>(), 1..50), piece in 1usize..64) {
        let nar = to_nar(&tree, 4096);
        let stream = [nar.as_slice(), &tail].concat();
        let mut parser = NarParser::new();
        let mut rest = Vec::new();
        for mut piece in stream.chunks(piece) {
            while !parser.is_complete() && parser.next(&mut piece).unwrap().is_some() {}
            rest.extend_from_slice(piece);
        }
        prop_assert!(parser.is_complete());
        prop_assert_eq!(rest, tail);
        prop_assert_eq!(parser.offset(), nar.len() as u64);
        let error = parse_pieces(&stream, 4096).unwrap_err();
        prop_assert_eq!((error.reason, error.offset), (ParseNarReason::TrailingData, nar.len() as u64));
    }
}

/// Puts an archive together by hand, to be wrong on purpose.
fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

fn tags(list: &[&[u8]]) -> Vec<u8> {
    list.iter().flat_map(|tag| string(tag)).collect()
}

fn reason(nar: &[u8]) -> ParseNarReason {
    let error = parse_pieces(nar, usize::MAX).unwrap_err();
    assert_eq!(parse_pieces(nar, 1).unwrap_err(), error);
    error.reason
}

const START: [&[u8]; 3] = [b"nix-archive-1", b"(", b"type"];

#[test]
fn refuses_bad_names() {
    for (name, rule) in [
        (&b""[..], NameRule::Empty),
        (b".", NameRule::Dots),
        (b"..", NameRule::Dots),
        (b"a/b", NameRule::SlashOrNul),
        (b"a\0b", NameRule::SlashOrNul),
        (&[b'x'; 256], NameRule::TooLong),
    ] {
        let nar = tags(
            &[
                &START[..],
                &[b"directory", b"entry", b"(", b"name", name, b"node", b"("],
            ]
            .concat(),
        );
        assert!(
            matches!(reason(&nar), ParseNarReason::Name { rule: found, .. } if found == rule),
            "{name:?}"
        );
    }
}

#[test]
fn refuses_unsorted_and_duplicate_entries() {
    let symlink: [&[u8]; 7] = [b"(", b"type", b"symlink", b"target", b"x", b")", b")"];
    for second in [b"a", b"b"] {
        let first = [&[b"entry" as &[u8], b"(", b"name", b"b", b"node"][..], &symlink].concat();
        let second = [&[b"entry" as &[u8], b"(", b"name", second, b"node"][..], &symlink].concat();
        let nar = tags(&[&START[..], &[b"directory"], &first, &second, &[b")"]].concat());
        assert!(matches!(reason(&nar), ParseNarReason::NotSorted { .. }));
    }
}

#[test]
fn refuses_bad_targets() {
    for (target, rule) in [
        (&b""[..], NameRule::Empty),
        (b"a\0", NameRule::SlashOrNul),
        (&[b'x'; 4096], NameRule::TooLong),
    ] {
        let nar = tags(&[&START[..], &[b"symlink", b"target", target, b")"]].concat());
        assert_eq!(reason(&nar), ParseNarReason::Target { rule });
    }
    let longest = tags(&[&START[..], &[b"symlink", b"target", &[b'x'; 4095], b")"]].concat());
    assert!(parse_pieces(&longest, 100).is_ok());
}

/// Sizes that overflow anything when rounded up or added.
#[test]
fn refuses_absurd_sizes() {
    for size in [u64::MAX, u64::MAX - 7, 1 << 63, i64::MAX.unsigned_abs()] {
        let mut nar = tags(&[&START[..], &[b"regular", b"contents"]].concat());
        nar.extend(size.to_le_bytes());
        assert!(matches!(
            reason(&nar),
            ParseNarReason::FileTooLarge { .. } | ParseNarReason::NarTooLarge { .. }
        ));
        let mut name = tags(&[&START[..], &[b"directory", b"entry", b"(", b"name"]].concat());
        name.extend(size.to_le_bytes());
        assert!(matches!(
            reason(&name),
            ParseNarReason::Name {
                rule: NameRule::TooLong,
                ..
            }
        ));
    }
}

#[test]
fn refuses_wrong_tags() {
    assert_eq!(reason(b"nix-archive-1-not-a-nar-at-all"), ParseNarReason::NotNar);
    let nar = tags(&[&START[..], &[b"fifo", b")", b")"]].concat());
    assert!(matches!(reason(&nar), ParseNarReason::Expected { .. }));
    let nar = tags(
        &[
            &START[..],
            &[b"regular", b"executable", b"x", b"contents", b"", b")"],
        ]
        .concat(),
    );
    assert!(matches!(reason(&nar), ParseNarReason::Expected { .. }));
    let twice: [&[u8]; 7] = [
        b"regular",
        b"executable",
        b"",
        b"executable",
        b"",
        b"contents",
        b")",
    ];
    assert!(matches!(
        reason(&tags(&[&START[..], &twice].concat())),
        ParseNarReason::Expected { .. }
    ));
}

#[test]
fn refuses_padding_that_is_not_zero() {
    let mut nar = to_nar(
        &Tree::File {
            data: b"abc".to_vec(),
            executable: true,
        },
        10,
    );
    let at = nar.len() - 17;
    nar[at] = 1;
    let error = parse_pieces(&nar, 5).unwrap_err();
    assert_eq!((error.reason, error.offset), (ParseNarReason::Padding, at as u64));
}

/// `levels` nodes, one in another.
fn deep(levels: usize) -> Tree {
    (1..levels).fold(
        Tree::Symlink {
            target: b"x".to_vec(),
        },
        |tree, _| Tree::Directory {
            entries: [(b"d".to_vec(), tree)].into(),
        },
    )
}

/// Nix 2.34.7 and later take 64 levels of nodes and refuse 65.
#[test]
fn depth_is_bounded() {
    let nar = to_nar(&deep(64), 10);
    assert!(parse_pieces(&nar, 100).is_ok());
    let limits = NarLimits {
        depth_max: 100,
        ..NarLimits::default()
    };
    let mut writer = NarWriter::with_limits(Vec::new(), limits);
    write(&mut writer, b"", &deep(65), 10);
    let nar = writer.finish().unwrap();
    assert_eq!(reason(&nar), ParseNarReason::TooDeep { max: 64 });
    let mut parser = NarParser::with_limits(limits);
    parser.feed::<ParseNarError>(&nar, |_| Ok(())).unwrap();
    parser.finish().unwrap();

    let mut writer = NarWriter::new(Vec::new());
    for level in 0..64 {
        writer.directory(if level == 0 { b"" } else { b"d" }).unwrap();
    }
    assert!(matches!(
        writer.file(b"f", 0, false),
        Err(WriteNarError::TooDeep { max: 64, .. })
    ));
}

#[test]
fn errors_name_the_path_inside() {
    let mut nar = to_nar(
        &Tree::Directory {
            entries: [(b"a\xff".to_vec(), deep(2))].into(),
        },
        10,
    );
    let at = nar.windows(7).position(|window| window == b"symlink").unwrap();
    nar[at] = b'S';
    let error = parse_pieces(&nar, 10).unwrap_err();
    assert_eq!((error.path.as_str(), error.offset), ("/a\\xff/d", at as u64));
}

#[test]
fn archive_size_is_bounded() {
    let nar = to_nar(
        &Tree::File {
            data: vec![1; 1000],
            executable: false,
        },
        100,
    );
    for (max, good) in [
        (nar.len() as u64, true),
        (nar.len() as u64 - 1, false),
        (200, false),
        (50, false),
    ] {
        let mut parser = NarParser::with_limits(NarLimits {
            nar_size_max: max,
            ..NarLimits::default()
        });
        assert_eq!(
            parser.feed::<ParseNarError>(&nar, |_| Ok(())).is_ok(),
            good,
            "{max}"
        );
    }
}

#[test]
fn failed_parser_stays_failed() {
    let mut parser = NarParser::new();
    assert!(parser.next(&mut &[1u8; 40][..]).is_err());
    let error = parser.next(&mut &[][..]).unwrap_err();
    assert_eq!(error.reason, ParseNarReason::Poisoned);
    assert_eq!(parser.finish().unwrap_err().reason, ParseNarReason::Poisoned);
}

#[test]
fn writer_refuses_what_makes_no_tree() {
    let mut nar = NarWriter::new(Vec::new());
    assert!(matches!(nar.end_directory(), Err(WriteNarError::Order { .. })));
    assert!(matches!(
        nar.file(b"named root", 0, false),
        Err(WriteNarError::Order { .. })
    ));
    nar.directory(b"").unwrap();
    assert!(matches!(
        nar.file(b"a/b", 0, false),
        Err(WriteNarError::Name { .. })
    ));
    assert!(matches!(
        nar.symlink(b"a", b""),
        Err(WriteNarError::Target { .. })
    ));
    nar.file(b"b", 3, false).unwrap();
    assert!(matches!(
        nar.end_directory(),
        Err(WriteNarError::FileTooShort { missing: 3 })
    ));
    assert!(matches!(
        nar.data(b"four"),
        Err(WriteNarError::FileTooLong { excess: 1 })
    ));
    nar.data(b"abc").unwrap();
    assert!(matches!(
        nar.data(b"d"),
        Err(WriteNarError::FileTooLong { excess: 1 })
    ));
    assert!(matches!(
        nar.directory(b"b"),
        Err(WriteNarError::NotSorted { .. })
    ));
    assert!(matches!(
        nar.directory(b"a"),
        Err(WriteNarError::NotSorted { .. })
    ));
    nar.end_directory().unwrap();
    assert!(matches!(nar.directory(b""), Err(WriteNarError::Order { .. })));
    assert!(nar.finish().is_ok());
    assert!(matches!(
        NarWriter::new(Vec::new()).finish(),
        Err(WriteNarError::Order { .. })
    ));
}

#[test]
fn reader_tells_io_errors_from_bad_bytes() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(5))
        }
    }
    assert!(matches!(
        NarReader::new(Broken).next(),
        Err(ReadNarError::Io { offset: 0, .. })
    ));
    let empty = NarReader::new(&b""[..]).next().unwrap_err();
    assert!(matches!(
        empty,
        ReadNarError::Parse(ParseNarError {
            reason: ParseNarReason::Truncated,
            ..
        })
    ));
}
